"""Crops a face from a frame as a level square, and returns the transform, by which points can be mapped.

A transform is a (2, 3) float64 affine from crop to frame: `frame_xy = transform @ (crop_x, crop_y, 1)`. Points are
continuous on both sides: (0, 0) is the outer corner of the first pixel, whose centre is at (0.5, 0.5). So a box's edges
map to edges, and the identity returns the frame's own pixels. Beyond the frame its edge pixels are repeated.

Nothing here needs torch. If torch is available, its sampler is passed (`tensor_preparation`), with which all crops of
training, caches and earlier versions were made. The one here may differ from it by a grey level because of rounding.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from .input_errors import NoFaceError

# A head rarely leans further; larger angles come from wrong landmarks (a profile, a covered eye, a false face), and a
# wrongly rotated crop is worse than one that is not levelled.
MAX_ROLL_DEG = 45.0
# A window of a frame (height, width, 3), a transform from crop to window and the crop's size -> (size, size, 3), uint8.
Sampler = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def face_transform(
    box_xyxy_px: np.ndarray, landmarks_xy_px: np.ndarray, crop_size_px: int, margin_ratio: float = 0.2
) -> np.ndarray:
    """The (2, 3) affine, crop to frame, of a square around the box's centre with the eyes level.

    The square's side is the box's longer side plus `margin_ratio` of it on each side. Landmarks, (5, 2), may be NaN;
    then, as for a roll beyond `MAX_ROLL_DEG`, the crop stays upright.
    """
    box = np.asarray(box_xyxy_px, dtype=np.float64)
    width_px, height_px = box[2:] - box[:2]
    if not (np.isfinite(box).all() and width_px > 0 and height_px > 0):
        raise NoFaceError(
            f"Expected a face box with x1 < x2 and y1 < y2, got {box.tolist()}; "
            "give frames without a face a neighbour's box with fill_missing first."
        )
    if crop_size_px < 1 or not margin_ratio > -0.5:
        raise ValueError(
            f"Expected crop_size_px >= 1 and margin_ratio > -0.5, got {crop_size_px} and {margin_ratio}; correct them."
        )
    scale = max(width_px, height_px) * (1 + 2 * margin_ratio) / crop_size_px  # frame pixels per crop pixel
    roll = _eye_roll_rad(landmarks_xy_px)
    turn = scale * np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    center_px = (box[:2] + box[2:]) / 2
    return np.column_stack([turn, center_px - turn @ np.full(2, crop_size_px / 2)])


def framed_transform(box_xyxy_px: np.ndarray, framing: Sequence[float], crop_size_px: int) -> np.ndarray:
    """The (2, 3) affine, crop to frame, of an upright rectangle placed relative to the box by `framing`.

    framing: offset of the rectangle's centre to the right of and below the box's centre, its width and its height, all
    in face sizes (the side of a square with the box's area). The rectangle is resized to a square.
    """
    box = np.asarray(box_xyxy_px, dtype=np.float64)
    right, down, width, height = framing
    size_px = math.sqrt(np.prod(box[2:] - box[:2]))
    scales = size_px * np.array([width, height]) / crop_size_px  # frame pixels per crop pixel
    center_px = (box[:2] + box[2:]) / 2 + size_px * np.array([right, down])
    return np.column_stack([np.diag(scales), center_px - scales * (crop_size_px / 2)])


def invert_transform(transform: np.ndarray) -> np.ndarray:
    """Crop to frame -> frame to crop, and back: (2, 3) -> (2, 3)."""
    turn = np.linalg.inv(transform[:, :2])
    return np.column_stack([turn, -turn @ transform[:, 2]])


def map_points(points_xy_px: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Map (..., 2) points by a (2, 3) transform; from frame to crop with `invert_transform(transform)`."""
    return np.asarray(points_xy_px, dtype=np.float64) @ transform[:, :2].T + transform[:, 2]


def sample_bilinear(window: np.ndarray, transform: np.ndarray, crop_size_px: int) -> np.ndarray:
    """Bilinear samples of window, (height, width, 3), at the transform's points -> (crop, crop, 3), uint8."""
    height, width = window.shape[:2]
    centers = np.arange(crop_size_px) + 0.5
    places = transform @ np.stack(np.broadcast_arrays(centers, centers[:, None], 1.0)).reshape(3, -1)  # (2, crop²)
    # From a pixel's outer corner to its centre; float32 resolves 1/4096 of a pixel in the largest frame.
    places = np.clip(places - 0.5, 0, [[width - 1], [height - 1]]).astype(np.float32)
    left, top = corners = np.minimum(places.astype(np.int32), np.maximum([[width - 2], [height - 2]], 0))
    x, y = (places - corners).astype(np.float32)
    upper = top * width + left
    lower = upper + (width if height > 1 else 0)
    right = 1 if width > 1 else 0
    crop = np.empty((3, crop_size_px, crop_size_px), np.uint8)
    for channel, pixels in zip(crop, window.reshape(-1, 3).T.astype(np.float32), strict=True):
        above = _between(pixels.take(upper), pixels.take(upper + right), x)
        below = _between(pixels.take(lower), pixels.take(lower + right), x)
        channel[...] = np.rint(_between(above, below, y)).reshape(channel.shape)
    return np.ascontiguousarray(crop.transpose(1, 2, 0))  # (3, crop, crop) -> (crop, crop, 3)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """first + share * (second - first), in the memory of `second`."""
    second -= first
    second *= share
    second += first
    return second


def crop_face(
    frame: np.ndarray, transform: np.ndarray, crop_size_px: int, sample: Sampler = sample_bilinear
) -> np.ndarray:
    """(height, width, 3), uint8 -> (crop_size_px, crop_size_px, 3), uint8.

    A reduction does not alias: the region is first brought to the crop's scale, by a filter as wide as the reduction
    needs, and only then rotated.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(f"Expected a (height, width, 3) uint8 frame, got {frame.dtype} {frame.shape}; convert it.")
    left, top, right, bottom = _footprint_px(transform, crop_size_px, frame.shape)
    window = np.array(frame[top:bottom, left:right])  # a copy, since torch accepts neither flipped nor read-only arrays
    scale = math.sqrt(abs(np.linalg.det(transform[:, :2])))  # frame pixels per crop pixel
    if scale > 1:
        reduced_wh_px = [max(1, round(side_px / scale)) for side_px in (right - left, bottom - top)]
        reduced = Image.fromarray(window).resize(reduced_wh_px, Image.Resampling.BILINEAR, reducing_gap=3.0)
        window = np.array(reduced)
    ratios = np.array([[window.shape[1] / (right - left)], [window.shape[0] / (bottom - top)]])
    in_window = (transform - np.array([[0, 0, left], [0, 0, top]])) * ratios  # crop -> window
    return sample(window, in_window, crop_size_px)


def crop_faces(
    frames: Sequence[np.ndarray] | np.ndarray,
    boxes_xyxy_px: np.ndarray,
    landmarks_xy_px: np.ndarray,
    crop_size_px: int,
    margin_ratio: float = 0.2,
    framing: Sequence[float] | None = None,
    sample: Sampler = sample_bilinear,
) -> tuple[np.ndarray, np.ndarray]:
    """One face per frame -> crops (num_frames, crop, crop, 3), uint8, and transforms (num_frames, 2, 3), crop to frame.

    frames: (num_frames, height, width, 3), uint8; boxes: (num_frames, 4); landmarks: (num_frames, 5, 2). With `framing`
    crops are made with `framed_transform`, and landmarks and margin are not used.
    """
    if len(frames) == 0:
        raise NoFaceError("Expected at least 1 frame with a face to crop, got 0 frames.")
    if not len(frames) == len(boxes_xyxy_px) == len(landmarks_xy_px):
        raise ValueError(
            f"Expected one box and one set of landmarks per frame, got {len(frames)} frames, {len(boxes_xyxy_px)} "
            f"boxes and {len(landmarks_xy_px)} sets of landmarks; pass those of one track over these frames."
        )
    transforms = np.stack(
        [
            face_transform(box, landmarks, crop_size_px, margin_ratio)
            if framing is None
            else framed_transform(box, framing, crop_size_px)
            for box, landmarks in zip(boxes_xyxy_px, landmarks_xy_px, strict=True)
        ]
    )
    pairs = zip(frames, transforms, strict=True)
    crops = [crop_face(frame, transform, crop_size_px, sample) for frame, transform in pairs]
    return np.stack(crops), transforms


def _eye_roll_rad(landmarks_xy_px: np.ndarray) -> float:
    """Angle by which the line from the picture's left eye to its right eye falls; 0 if it is not reliable."""
    right_minus_left = np.subtract(landmarks_xy_px[1], landmarks_xy_px[0], dtype=np.float64)
    roll = math.atan2(right_minus_left[1], right_minus_left[0])  # NaN stays NaN, and fails the comparison below
    return roll if abs(roll) <= math.radians(MAX_ROLL_DEG) else 0.0


def _footprint_px(transform: np.ndarray, crop_size_px: int, frame_shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The region of the frame that the crop reads, as left, top, right, bottom.

    Never empty: a crop outside the frame reads the nearest edge pixels.
    """
    height, width = frame_shape[:2]
    corners = map_points(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * crop_size_px, transform)
    # A bilinear sample at the region's edge reads one crop pixel, or one frame pixel, beyond it.
    spare_px = 2 * math.ceil(max(1.0, float(np.linalg.norm(transform[:, 0]))))
    left, top = np.clip(np.floor(corners.min(axis=0)) - spare_px, 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + spare_px, [left + 1, top + 1], [width, height]).astype(int)
    return int(left), int(top), int(right), int(bottom)
