"""Shared base of all processors: frames → one person's face crops → pixel values, without torch.

Everything that prepares faces inherits `FacePreparation`, so that crops are made by the same code for training,
evaluation, the pipeline and exports. With torch, `tensor_preparation` uses torch's arithmetic. Decoding, detection,
tracking and cropping each have their own file.
"""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from .bounded_reader import BoundedReader, ReaderLimits
from .face_cropping import Sampler, crop_faces, sample_bilinear
from .face_detection import FaceDetections, FaceDetector, Frames
from .face_tracking import FaceTrack, choose_person, fill_missing, track_faces
from .input_errors import EngagementInputError, NoFaceError
from .media_files import fetch, is_file_like, unpacked
from .media_inputs import open_picture
from .media_reader import HERE, FramesOnDemand, MediaReader
from .picture_files import Picture

if TYPE_CHECKING:
    import torch

_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)  # torchvision's weights of red, green and blue


@dataclass(frozen=True)
class PreparedClip:
    """The frames of one clip, ready to be resized and normalised, and where the face was found in them.

    Without face cropping the arrays of faces are None: no face was looked for.
    """

    source: str  # the file's name, for messages
    frames: np.ndarray  # (num_frames, crop, crop, 3) uint8 RGB: face crops, or whole frames resized to that size
    whole_frames: Frames  # (num_frames, height, width, 3) uint8 RGB
    frame_indices: np.ndarray  # (num_frames,) int64, in the video
    frame_times_sec: np.ndarray  # (num_frames,), NaN if frames came as arrays without times
    num_repeated_frames: int
    found: np.ndarray | None = None  # (num_frames,) bool; False: the box is copied from the nearest frame
    boxes_xyxy_px: np.ndarray | None = None  # (num_frames, 4), in the whole frame
    landmarks_xy_px: np.ndarray | None = None  # (num_frames, 5, 2), in the whole frame
    probabilities: np.ndarray | None = None  # (num_frames,), 0 where not found
    transforms: np.ndarray | None = None  # (num_frames, 2, 3), from crop pixels to frame pixels
    num_people: int | None = None  # largest number of faces in one frame
    notes: tuple[str, ...] = ()  # remarks on the file and its processing for the user, each a phrase

    @property
    def face_px(self) -> float | None:
        """Longer side of the person's box, median over the frames that show it; None if no face was looked for."""
        if self.boxes_xyxy_px is None or self.found is None:
            return None
        boxes = self.boxes_xyxy_px[self.found]
        return float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))

    @property
    def face_coverage(self) -> float | None:
        """Share of frames in which the person's face was found; None if no face was looked for."""
        return None if self.found is None else float(self.found.mean())


@dataclass(frozen=True)
class PreparedFaces:
    """All faces of one picture, from left to right."""

    source: str
    frames: np.ndarray  # (num_faces, crop, crop, 3) uint8 RGB
    boxes_xyxy_px: np.ndarray  # (num_faces, 4)
    landmarks_xy_px: np.ndarray  # (num_faces, 5, 2)
    probabilities: np.ndarray  # (num_faces,)
    transforms: np.ndarray  # (num_faces, 2, 3)
    notes: tuple[str, ...] = ()  # as in `PreparedClip`

    @property
    def largest(self) -> int:
        """Index of the face whose box has the largest area."""
        widths_heights = self.boxes_xyxy_px[:, 2:] - self.boxes_xyxy_px[:, :2]
        return int(widths_heights.prod(axis=1).argmax())


class FacePreparation:
    """Settings and steps that both processors share; the fields below, except `device` and `reader`, are saved in the
    processor's config."""

    size = {"height": 224, "width": 224}
    image_mean = [0.485, 0.456, 0.406]
    image_std = [0.229, 0.224, 0.225]
    rescale_factor = 1 / 255
    do_resize = True
    do_rescale = True
    do_normalize = True
    # Whole frames (False) are the input of the CNN + LSTM reference; also for pictures that are already faces.
    face_crop = True
    # For a single-face model: its pictures were frames of videos, so that no face is looked for in a video.
    pictures_are_frames = False
    face_margin_ratio = 0.2  # of the box's longer side, on each side; as in the BEiT reference
    # For a model whose pictures were already faces: their extent relative to the detected face, as an argument of
    # `framed_transform` (measured in training). Faces in photos and videos are then cropped in the same way, not
    # levelled, and also detected when they are hard to find, as some training faces were. None: box, margin and level.
    face_framing: list[float] | None = None
    face_crop_size_px = 224  # every crop is first made at this size, always, then resized to `size`
    do_grayscale = False
    # Nezami et al.: each picture less its mean is scaled to this Euclidean norm (100), before mean and std are applied.
    picture_norm: float | None = None
    # Films as a player shows them: frames spread evenly over time, even at a variable rate; pixels made square; HDR
    # converted to SDR; the default video track. False: frames spread evenly by number, pixels as stored, the first
    # track, as for all models that are older than this setting. It has no effect on photos.
    as_played = False
    # Where faces are detected and pixel values are placed; None: the CPU. Crops and pixel values are always computed on
    # the CPU, so that a model gets the same numbers everywhere.
    device: "torch.device | str | None" = None
    reader: MediaReader = HERE  # opens files

    def on_device(self, device: "torch.device | str") -> Self:
        """A copy that detects faces, and places pixel values, on this device."""
        moved = copy.copy(self)
        moved.device = device
        return moved

    def with_reader(self, reader: MediaReader) -> Self:
        """A copy that opens files with this reader."""
        changed = copy.copy(self)
        changed.reader = reader
        return changed

    def with_bounded_reader(self, limits: ReaderLimits | None = None) -> Self:
        """A copy for untrusted files, which are opened in a separate process, see `bounded_reader`."""
        return self.with_reader(BoundedReader(limits))

    def load_picture(self, picture: object) -> np.ndarray:
        """Like `media_inputs.load_picture`, opening files with this processor's reader."""
        return self.open_picture(picture).pixels

    def open_picture(self, picture: object) -> Picture:
        """Like `media_inputs.open_picture`, opening files with this processor's reader."""
        picture = unpacked(picture)
        return self.reader.open_picture(fetch(picture)) if is_file_like(picture) else open_picture(picture)

    @property
    def face_detector(self) -> FaceDetector:
        """The detector on the processor's device; on the CPU for Apple's MPS, which lacks adaptive pooling to uneven
        sizes and float64, both needed by MTCNN."""
        device = str(self.device or "cpu")
        return FaceDetector("cpu" if device.startswith("mps") else device)

    @property
    def sampler(self) -> Sampler:
        """The sampler that reads crops from frames."""
        return sample_bilinear

    def to_pixel_values(self, frames: np.ndarray) -> "np.ndarray | torch.Tensor":
        """(num_frames, height, width, 3) uint8 RGB -> (num_frames, C, size, size) float32, normalised.

        Raises:
            EngagementInputError: with `picture_norm`, for a picture of one colour, whose norm is 0.
        """
        sized = frames
        if self.do_resize and frames.shape[1:3] != (self.size["height"], self.size["width"]):
            sized = self.resize_frames(frames, self.size["width"], self.size["height"])
        pixels = np.moveaxis(sized, -1, 1).astype(np.float32)  # (t, H, W, C) -> (t, C, H, W)
        if self.do_grayscale:
            pixels = np.trunc(np.tensordot(pixels, _LUMA, (1, 0)))[:, None]  # (t, 3, H, W) -> (t, 1, H, W)
        pixels = np.ascontiguousarray(pixels) * np.float32(self.rescale_factor if self.do_rescale else 1.0)
        if self.picture_norm is not None:
            pixels = pixels - pixels.mean(axis=(1, 2, 3), keepdims=True)
            lengths = np.sqrt(np.square(pixels, dtype=np.float64).sum(axis=(1, 2, 3)))
            require_contrast(lengths)
            pixels *= (self.picture_norm / lengths).astype(np.float32)[:, None, None, None]
        if self.do_normalize:
            for channel in range(pixels.shape[1]):
                pixels[:, channel] -= np.float32(self.image_mean[channel])
                pixels[:, channel] /= np.float32(self.image_std[channel])
        return pixels

    def detect_faces(self, frames: Frames) -> list[FaceDetections]:
        """(num_frames, height, width, 3) uint8 RGB -> all faces of each frame, see `face_detection`."""
        return self.face_detector.detect(frames)

    def look_again(self, frames: Frames) -> list[FaceDetections]:
        """Search frames without any found face once more, for a model that learned from faces that are hard to find."""
        if self.face_framing is None:
            return []
        return self.face_detector.detect_hard(frames)

    def find_person(self, frames: Frames, source: str) -> FaceTrack:
        """The person of a clip: the track with the highest summed probability, gaps filled from the nearest frame.

        Raises:
            NoFaceError: no face in any frame.
        """
        detections = self.detect_faces(frames)
        tracks = track_faces(detections)
        if not tracks:
            detections = self.look_again(frames)
            tracks = track_faces(detections)
        if not tracks:
            raise NoFaceError(
                f"Expected a face in {source}, found none in the {len(frames)} frames searched; "
                "pass a video in which a face is visible, or use whole frames (face_crop=False, "
                "or --whole-frames when preparing)."
            )
        return replace(fill_missing(choose_person(tracks)), num_people=max(map(len, detections)))

    def crop(
        self, frames: Frames, boxes_xyxy_px: np.ndarray, landmarks_xy_px: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One crop per frame: (t, crop, crop, 3) uint8, and the transforms (t, 2, 3) from crop to frame pixels."""
        size_px, margin_ratio = self.face_crop_size_px, self.face_margin_ratio
        framing, sampler = self.face_framing, self.sampler
        return crop_faces(frames, boxes_xyxy_px, landmarks_xy_px, size_px, margin_ratio, framing, sampler)

    def shrink_whole_frames(self, frames: Frames) -> np.ndarray:
        """(t, H, W, 3) -> (t, crop, crop, 3), uint8: whole frames resized to a square of the crop's size, as in the
        CNN + LSTM reference."""
        if isinstance(frames, FramesOnDemand):
            return np.concatenate([self.shrink_whole_frames(frame[None]) for frame in frames])
        return self.resize_frames(frames, self.face_crop_size_px, self.face_crop_size_px)

    def resize_frames(self, frames: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
        """(t, H, W, 3) -> (t, height_px, width_px, 3), uint8, bilinear; a reduction does not alias."""
        size = (width_px, height_px)
        return np.stack(
            [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames]
        )


def require_contrast(lengths: np.ndarray) -> None:
    """(t,) norms of pictures minus their mean; raises EngagementInputError for a norm of 0, which cannot be scaled."""
    if (lengths < 1e-3).any():
        flat = int((lengths < 1e-3).argmax())
        raise EngagementInputError(
            f"Expected a face with some contrast, got a picture of one colour (frame {flat}); pass another picture."
        )
