"""What all processors share: frames → one person's face crops → pixel values, without torch.

Everything that prepares faces inherits `FacePreparation`, so that a crop is made in one place only, for training,
evaluation, the pipeline and exports. Where there is torch, `tensor_preparation` takes its arithmetic. Decoding,
detection, tracking and cropping each have a file of their own.
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

_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)  # torchvision's, of red, green and blue


@dataclass(frozen=True)
class PreparedClip:
    """The frames of one clip, ready to be resized and normalised, and where the face was found in them.

    Without face cropping the arrays of faces are None: nobody has looked for one.
    """

    source: str  # the file's name, for messages
    frames: np.ndarray  # (num_frames, crop, crop, 3) uint8 RGB: face crops, or whole frames squeezed to that size
    whole_frames: Frames  # (num_frames, height, width, 3) uint8 RGB
    frame_indices: np.ndarray  # (num_frames,) int64, in the video
    frame_times_sec: np.ndarray  # (num_frames,), NaN where frames came as arrays without times
    num_repeated_frames: int
    found: np.ndarray | None = None  # (num_frames,) bool; False: the box is the nearest frame's
    boxes_xyxy_px: np.ndarray | None = None  # (num_frames, 4), in the whole frame
    landmarks_xy_px: np.ndarray | None = None  # (num_frames, 5, 2), in the whole frame
    probabilities: np.ndarray | None = None  # (num_frames,), 0 where not found
    transforms: np.ndarray | None = None  # (num_frames, 2, 3), from crop pixels to frame pixels
    num_people: int | None = None  # the most faces in one frame
    notes: tuple[str, ...] = ()  # what was done or found in the file that a user should know, each a phrase

    @property
    def face_px(self) -> float | None:
        """Longer side of the person's box, the median over the frames that show it; None when nobody looked."""
        if self.boxes_xyxy_px is None or self.found is None:
            return None
        boxes = self.boxes_xyxy_px[self.found]
        return float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))

    @property
    def face_coverage(self) -> float | None:
        """Share of frames in which the person's face was found; None when nobody looked."""
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
    notes: tuple[str, ...] = ()  # as those of a `PreparedClip`

    @property
    def largest(self) -> int:
        """Number of the face whose box has the largest area."""
        widths_heights = self.boxes_xyxy_px[:, 2:] - self.boxes_xyxy_px[:, :2]
        return int(widths_heights.prod(axis=1).argmax())


class FacePreparation:
    """Settings and steps that both processors share; the fields below are saved in the processor's config, but for
    `device` and `reader`."""

    size = {"height": 224, "width": 224}
    image_mean = [0.485, 0.456, 0.406]
    image_std = [0.229, 0.224, 0.225]
    rescale_factor = 1 / 255
    do_resize = True
    do_rescale = True
    do_normalize = True
    # Whole frames (False) are what the CNN + LSTM reference reads; they also serve pictures that are faces already.
    face_crop = True
    # Of a single-face model: its pictures were frames of videos, so that in a video no face is to be looked for.
    pictures_are_frames = False
    face_margin_ratio = 0.2  # of the box's longer side, on each side; as the BEiT reference crops
    # Of a model whose pictures were faces already: how those lay about the face that a detector finds in them, as
    # `framed_transform` takes it (measured in training). Faces out of photos and videos are then cut likewise, not
    # levelled; and since some of those it learned from are hard to find, so may these be. None: box, margin and level.
    face_framing: list[float] | None = None
    face_crop_size_px = 224  # every crop is made at this size first, in a cache as in serving, then resized to `size`
    do_grayscale = False
    # Nezami et al.: each picture loses its mean and is scaled to this Euclidean norm (100) before mean and std apply.
    picture_norm: float | None = None
    # Films as a player shows them: frames spread over time, also where their rate varies; pixels made square; HDR made
    # SDR; of several video tracks the default one. False: frames spread over numbers, pixels as they are stored, the
    # first track, as all models read films that were trained before there was this setting. Nothing to a photo.
    as_played = False
    # Where faces are looked for and pixel values are put; None: the CPU. Crops and pixel values are made on the CPU all
    # the same, so that a model reads the same numbers everywhere.
    device: "torch.device | str | None" = None
    reader: MediaReader = HERE  # who opens files

    def on_device(self, device: "torch.device | str") -> Self:
        """A copy that looks for faces, and puts pixel values, on this device."""
        moved = copy.copy(self)
        moved.device = device
        return moved

    def with_reader(self, reader: MediaReader) -> Self:
        """A copy for which this reader opens files."""
        changed = copy.copy(self)
        changed.reader = reader
        return changed

    def with_bounded_reader(self, limits: ReaderLimits | None = None) -> Self:
        """A copy that opens files nobody vouches for: in a process of its own, see `bounded_reader`."""
        return self.with_reader(BoundedReader(limits))

    def load_picture(self, picture: object) -> np.ndarray:
        """As `media_inputs.load_picture`; this processor's reader opens a file."""
        return self.open_picture(picture).pixels

    def open_picture(self, picture: object) -> Picture:
        """As `media_inputs.open_picture`; this processor's reader opens a file."""
        picture = unpacked(picture)
        return self.reader.open_picture(fetch(picture)) if is_file_like(picture) else open_picture(picture)

    @property
    def face_detector(self) -> FaceDetector:
        """On the processor's device. Apple's MPS has no adaptive pooling to uneven sizes and no float64, which MTCNN
        needs: beside it, faces are found on the CPU."""
        device = str(self.device or "cpu")
        return FaceDetector("cpu" if device.startswith("mps") else device)

    @property
    def sampler(self) -> Sampler:
        """By which crops are read out of frames."""
        return sample_bilinear

    def to_pixel_values(self, frames: np.ndarray) -> "np.ndarray | torch.Tensor":
        """(num_frames, height, width, 3) uint8 RGB -> (num_frames, C, size, size) float32, normalised.

        Raises:
            EngagementInputError: with `picture_norm`, for a flat picture, which has no norm to scale.
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
        """(num_frames, height, width, 3) uint8 RGB -> all faces of each frame, as `face_detection` finds them."""
        return self.face_detector.detect(frames)

    def look_again(self, frames: Frames) -> list[FaceDetections]:
        """After nobody was found in any of the frames, for a model that learned from faces that are hard to find."""
        if self.face_framing is None:
            return []
        return self.face_detector.detect_hard(frames)

    def find_person(self, frames: Frames, source: str) -> FaceTrack:
        """The one person of a clip: the track with the highest summed probability, gaps filled from the nearest frame.

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
                f"Expected a face in {source}, found none in the {len(frames)} frames looked at; "
                "pass a video in which a face is visible, or take whole frames (face_crop=False, "
                "or --whole-frames when preparing)."
            )
        return replace(fill_missing(choose_person(tracks)), num_people=max(map(len, detections)))

    def crop(
        self, frames: Frames, boxes_xyxy_px: np.ndarray, landmarks_xy_px: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One crop a frame: (t, crop, crop, 3) uint8, and the transforms (t, 2, 3) from crop to frame pixels."""
        size_px, margin_ratio = self.face_crop_size_px, self.face_margin_ratio
        framing, sampler = self.face_framing, self.sampler
        return crop_faces(frames, boxes_xyxy_px, landmarks_xy_px, size_px, margin_ratio, framing, sampler)

    def shrink_whole_frames(self, frames: Frames) -> np.ndarray:
        """(t, H, W, 3) -> (t, crop, crop, 3), uint8: whole frames at the one size a cache holds, squeezed to a square
        as the CNN + LSTM reference does."""
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
    """(t,) norms of pictures less their mean; raises EngagementInputError for one that is 0, which cannot be scaled."""
    if (lengths < 1e-3).any():
        flat = int((lengths < 1e-3).argmax())
        raise EngagementInputError(
            f"Expected a face with some contrast, got a flat picture (frame {flat}); pass another picture."
        )
