"""Simple measurements of one face over a window: size, head pose, motion, sharpness and brightness.

They are computed from what preparation has anyway (crops, boxes, five landmarks, times), with no network besides the
face detector. They describe posture and picture, not engagement; docs/signals.md says how reliable each one is.

The head's pose is that of a mean face seen from far away: least squares give the linear map from the face's five points
to the landmarks, and the nearest rotation is the pose. This is the first step of POSIT (DeMenthon and Davis,
Model-based object pose in 25 lines of code, IJCV 1995); it needs no focal length, which is unknown for a webcam.
"""

from typing import TypeAlias

import cv2
import numpy as np

SIGNALS: tuple[str, ...] = (
    "face_px",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "yaw_sd_deg",
    "pitch_sd_deg",
    "roll_sd_deg",
    "motion_per_sec",
    "sharpness",
    "brightness",
)
Signals: TypeAlias = dict[str, float | None]

# Left eye, right eye, nose, left and right corner of the mouth, as seen in the picture; in mm, x to the image's right,
# y down, z towards the camera. From the mean of 200 scanned people, most of them Europeans (Basel Face Model,
# Paysan et al., AVSS 2009), as Deng et al. (arXiv 1903.08527) align pictures with it; made symmetric, rounded to 1 mm.
MEAN_FACE_MM = np.array([[-31, -29, 13], [31, -29, 13], [0, 5, 55], [-25, 38, 22], [25, 38, 22]], dtype=np.float64)
_LEAST_SQUARES = np.linalg.pinv(MEAN_FACE_MM - MEAN_FACE_MM.mean(axis=0))  # (3, 5)
_FLATTEST = 1e-3  # smallest ratio of the landmarks' spreads; below it they count as lying on a line

# With the usual margin a face box of 80 px fills this, so that most faces are reduced to it and few enlarged.
_SHARPNESS_SIDE_PX = 112


def face_signals(
    frames: np.ndarray,
    found: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    landmarks_xy_px: np.ndarray,
    times_sec: np.ndarray,
) -> Signals:
    """Signals of one person's face in one window, by the names of `SIGNALS`; None for a signal that is unknown.

    Only frames in which the face was found count. A standard deviation needs at least two of them; motion needs two
    that follow each other in the window and have times.

    Args:
        frames: (num_frames, side, side, 3), uint8 RGB: face crops.
        found: (num_frames,), bool.
        boxes_xyxy_px: (num_frames, 4), in pixels of the whole frame.
        landmarks_xy_px: (num_frames, 5, 2), in pixels of the whole frame, ordered as `face_detection` has them.
        times_sec: (num_frames,); NaN: not known.
    """
    found = np.asarray(found, dtype=bool)
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64)
    angles = head_pose(np.asarray(landmarks_xy_px)[found])  # (num_found, 3)
    sizes_px = (boxes[found, 2:] - boxes[found, :2]).max(axis=1)  # the boxes' longer sides
    sizes_px = sizes_px[np.isfinite(sizes_px)]
    size_px = float(np.median(sizes_px)) if len(sizes_px) else None
    crops = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[found]]
    values = [
        size_px,
        *(_mean(of_angle) for of_angle in angles.T),
        *(_spread(of_angle) for of_angle in angles.T),
        _motion_per_sec(found, boxes, np.asarray(times_sec, dtype=np.float64), size_px),
        _mean(np.array([_sharpness(crop) for crop in crops])),
        _mean(np.array([_middle(crop).mean() for crop in crops])),
    ]
    return dict(zip(SIGNALS, values, strict=True))


def head_pose(landmarks_xy_px: np.ndarray) -> np.ndarray:
    """Landmarks, (n, 5, 2) -> yaw, pitch and roll in degrees, (n, 3), with the signs of `drawn.head.FacePose`.

    A positive yaw turns the face to the image's right, a positive pitch looks down, a positive roll leans the head to
    the image's right (clockwise). Angles are relative to the camera: zero is a face that looks straight into it.

    NaN where there is no pose: landmarks that are not finite, lie on a line or in a point, or only fit a head seen
    from behind.
    """
    points = np.asarray(landmarks_xy_px, dtype=np.float64)
    known = np.asarray(np.isfinite(points).all(axis=(1, 2)))
    points = np.where(known[:, None, None], points, 0.0)
    points = points - points.mean(axis=1, keepdims=True)
    spread = np.linalg.svd(points, compute_uv=False)  # (n, 2), largest first
    known &= spread[:, 1] > _FLATTEST * spread[:, 0]
    maps = np.swapaxes(_LEAST_SQUARES @ points, 1, 2)  # (n, 2, 3): mm of the mean face -> pixels
    left, _, right = np.linalg.svd(maps, full_matrices=False)
    rows = left @ right  # the nearest map with orthogonal rows of equal length: (n, 2, 3)
    toward = np.cross(rows[:, 0], rows[:, 1])  # third row of the rotation: the direction towards the camera
    yaw = np.arctan2(-toward[:, 0], toward[:, 2])
    pitch = np.arcsin(np.clip(-toward[:, 1], -1, 1))
    roll = np.arctan2(-rows[:, 0, 1], rows[:, 1, 1])
    known &= toward[:, 2] > 0
    return np.where(known[:, None], np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.nan)


def _motion_per_sec(found: np.ndarray, boxes: np.ndarray, times_sec: np.ndarray, size_px: float | None) -> float | None:
    """Speed of the box's centre, in face sizes per second; repeated frames, with no time between them, are left out."""
    elapsed_sec = np.diff(times_sec)
    follow = found[1:] & found[:-1] & (elapsed_sec > 0)  # false for NaN
    if not follow.any() or not size_px:
        return None
    centres_px = (boxes[:, :2] + boxes[:, 2:]) / 2
    moves_px = np.linalg.norm(np.diff(centres_px, axis=0), axis=1)[follow]
    return _mean(moves_px / elapsed_sec[follow] / size_px)


def _sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) over the middle of the crop, (side, side) uint8 luma.

    Computed at one fixed size, since the same face in more pixels has softer edges.
    """
    size = (_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX)
    fixed = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    return float(_middle(cv2.Laplacian(fixed, cv2.CV_64F)).var())


def _middle(crop: np.ndarray) -> np.ndarray:
    """The middle half of each side, which shows face but no background: (side, side) -> (about half, about half)."""
    side = len(crop)
    return crop[side // 4 : side - side // 4, side // 4 : side - side // 4]


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _spread(values: np.ndarray) -> float | None:
    """Standard deviation of a sample (n - 1)."""
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else None
