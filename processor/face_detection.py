"""Finds the faces in frames: boxes, probabilities and five landmarks, by facenet-pytorch's MTCNN.

MTCNN (arXiv 1604.02878) spends most of its time on faces far smaller than that of a person at a webcam. So every frame
is first searched at about 320 px, several in one batch, and only frames in which nobody is found are searched again at
up to 1280 px. This is several times as fast as the library's own setting, and often ignores the printed faces (on a
T-shirt, a poster) that are found at full size. If somebody is known to be there, `detect_hard` searches once more for
blurred, turned and half-hidden faces. Face tracking decides which face is the person's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from .media_reader import FramesOnDemand
from .mtcnn_cascade import Look, MtcnnNetworks, RawFaces, find_faces
from .mtcnn_networks import OnnxNetworks, TorchNetworks

Frames: TypeAlias = np.ndarray | FramesOnDemand
FRAMES_PER_BATCH = 16  # limits memory for a long window; a clip's eight frames are one batch
_PIXELS_PER_BATCH = 2**21  # likewise, for frames that are hardly reduced


@dataclass(frozen=True)
class FaceDetections:
    """The faces of one frame, the most probable first; empty arrays if nobody was found.

    Points are continuous: (0, 0) is the outer corner of the frame's first pixel, whose centre is at (0.5, 0.5). A box
    may extend beyond the frame's edge, since it covers the whole face even if only a part is visible.

    Landmarks are in MTCNN's order, left and right as seen in the picture (in an unmirrored camera picture the first eye
    is the person's own right eye): left eye, right eye, nose, left and right mouth corner.
    """

    boxes_xyxy_px: np.ndarray  # (num_faces, 4), float32, in the frame's own pixels
    probabilities: np.ndarray  # (num_faces,), float32
    landmarks_xy_px: np.ndarray  # (num_faces, 5, 2), float32

    def __len__(self) -> int:
        return len(self.boxes_xyxy_px)


@dataclass(frozen=True)
class FaceDetector:
    """Settings only, so that pickles are small; the networks are built on first use, once per process."""

    device: str = "cpu"  # for networks in torch
    # A folder of the networks as ONNX files, run by ONNX Runtime on the CPU; None: facenet-pytorch's, in torch.
    networks: str | Path | None = None
    # On webcam clips people score at least 0.985, even when reading a book; printed faces mostly score below this.
    min_probability: float = 0.9
    fast_long_side_px: int = 320
    fast_min_face_size_px: int = 40
    close_long_side_px: int = 640
    close_min_face_size_px: int = 40  # in the frame itself; or 20 px in a reduced one, if that is more
    thorough_long_side_px: int = 1280
    thorough_min_face_size_px: int = 20
    # Of FER2013's pictures, enlarged to 80 to 160 px, 12 % have no face above the thresholds, and 3 % none above these.
    hard_min_probability: float = 0.5
    hard_min_face_size_px: int = 40

    def detect(self, frames: Frames) -> list[FaceDetections]:
        """frames: (num_frames, height, width, 3), uint8 RGB -> one entry per frame, in order."""
        detections = self.detect_fast(frames)
        empty = [index for index, found in enumerate(detections) if len(found) == 0]
        for index, found in zip(empty, self._detect_thorough(frames, empty), strict=True):
            detections[index] = found
        return detections

    def detect_fast(self, frames: Frames) -> list[FaceDetections]:
        """Faces of at least about a twelfth of the frame's width; (num_frames, height, width, 3), uint8 RGB."""
        _check_frames(frames)
        reduction = max(1, max(frames.shape[1:3]) // self.fast_long_side_px)  # rounded down: never below, nor enlarged
        look = Look(self.fast_min_face_size_px)
        return list(self._detect(frames, range(len(frames)), reduction, look, self.min_probability))

    def detect_close(self, frames: Frames) -> list[FaceDetections]:
        """Faces of at least 40 px in frames up to 640 px wide; in wider frames at least 20 px after reduction to that
        width. For several people in a picture, at less than half the cost of `detect_thorough`; (num_frames, height,
        width, 3), uint8 RGB.
        """
        _check_frames(frames)
        reduction = max(1, round(max(frames.shape[1:3]) / self.close_long_side_px))
        smallest_px = max(self.thorough_min_face_size_px, self.close_min_face_size_px // reduction)
        return list(self._detect(frames, range(len(frames)), reduction, Look(smallest_px), self.min_probability))

    def detect_thorough(self, frames: Frames) -> list[FaceDetections]:
        """Also small faces, at about four times the cost; (num_frames, height, width, 3), uint8 RGB."""
        _check_frames(frames)
        return list(self._detect_thorough(frames, range(len(frames))))

    def detect_hard(self, frames: Frames) -> list[FaceDetections]:
        """Also barely visible faces of at least 40 px, at more scales; (num_frames, height, width, 3), uint8 RGB.

        It has more false positives: only for frames in which the other methods found nobody.
        """
        _check_frames(frames)
        look = Look(self.hard_min_face_size_px, (0.4, 0.3, self.hard_min_probability), 0.84)
        reduction = self._thorough_reduction(frames)
        return list(self._detect(frames, range(len(frames)), reduction, look, self.hard_min_probability))

    def _detect_thorough(self, frames: Frames, indices: Sequence[int]) -> Iterator[FaceDetections]:
        look = Look(self.thorough_min_face_size_px)
        return self._detect(frames, indices, self._thorough_reduction(frames), look, self.min_probability)

    def _thorough_reduction(self, frames: Frames) -> int:
        return -(-max(frames.shape[1:3]) // self.thorough_long_side_px)  # rounded up: never above that size

    def _detect(
        self, frames: Frames, indices: Sequence[int], reduction: int, look: Look, min_probability: float
    ) -> Iterator[FaceDetections]:
        num_pixels = -(-frames.shape[1] // reduction) * -(-frames.shape[2] // reduction)
        most = min(FRAMES_PER_BATCH, max(1, _PIXELS_PER_BATCH // num_pixels))
        for start in range(0, len(indices), most):
            reduced = np.stack([_reduce(frames[index], reduction) for index in indices[start : start + most]])
            for raw in find_faces(reduced, look, _load_networks(self.device, self.networks)):
                yield _to_detections(raw, reduction, min_probability)


def _check_frames(frames: Frames) -> None:
    is_known = isinstance(frames, (np.ndarray, FramesOnDemand))
    if not is_known or frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        got = f"{frames.dtype} {frames.shape}" if is_known else type(frames).__name__
        raise ValueError(f"Expected frames as (num_frames, height, width, 3) uint8 RGB, got {got}; convert them.")
    if 0 in frames.shape[1:3]:
        raise ValueError(f"Expected frames of at least 1x1 px, got {frames.shape}; check how they were cropped.")


def _reduce(frame: np.ndarray, reduction: int) -> np.ndarray:
    """Average blocks of reduction x reduction pixels: (height, width, 3) -> (ceil(height / r), ceil(width / r), 3)."""
    if reduction == 1:
        return frame
    # An integer factor is exact (no pixel is divided between blocks) and five times as fast as torch's "area".
    return np.asarray(Image.fromarray(frame).reduce(reduction))


@lru_cache(maxsize=8)
def _load_networks(device: str, folder: str | Path | None) -> MtcnnNetworks:
    return TorchNetworks(device) if folder is None else OnnxNetworks(Path(folder))


def _to_detections(raw: RawFaces, reduction: int, min_probability: float) -> FaceDetections:
    """MTCNN's result for one reduced frame -> the probable faces, in pixels of the frame itself."""
    # MTCNN counts pixels from 1, so a box that starts with the first pixel has its left edge at 0.
    boxes, probabilities, landmarks = raw
    boxes = boxes - np.array([1, 1, 0, 0], np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    order = np.lexsort((-sides.prod(axis=1), -probabilities))
    has_area = (sides > 0).all(axis=1)  # the last regression may invert a box; also false for NaN
    order = order[(has_area & (probabilities >= min_probability))[order]]
    return FaceDetections(boxes[order] * reduction, probabilities[order], landmarks[order] * reduction)
