"""`EngagementImageProcessor`: pictures of faces → `pixel_values` (batch, channels, height, width).

With `face_crop` the largest face of a picture is found, levelled and cropped (as Nezami et al. and the BEiT reference
do); without it a picture is a face already, as in FER2013. The same steps, from the same place, as for video.
"""

from typing import Unpack

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.processing_utils import ImagesKwargs

from .face_preparation import FacePreparation, PreparedFaces
from .input_errors import EngagementInputError, NoFaceError
from .media_files import is_file_like


class EngagementImagesKwargs(ImagesKwargs, total=False):
    """Settings beyond transformers' own; what each means stands at `FacePreparation`."""

    face_crop: bool
    face_margin_ratio: float
    face_crop_size_px: int
    face_framing: list[float] | None
    pictures_are_frames: bool
    do_grayscale: bool
    picture_norm: float | None


class EngagementImageProcessor(FacePreparation, TorchvisionBackend):
    """
    Args:
        size: `{"height": ..., "width": ...}` of the model's input, in pixels.
        face_crop, pictures_are_frames, face_margin_ratio, face_framing, face_crop_size_px, do_grayscale, picture_norm:
            see `FacePreparation`.
    """

    valid_kwargs = EngagementImagesKwargs
    model_input_names = ["pixel_values"]

    def __init__(self, **settings: Unpack[EngagementImagesKwargs]) -> None:
        super().__init__(**settings)  # type: ignore[misc]  # takes valid_kwargs, and declares its own alone

    def preprocess(
        self,
        images: object,
        face_crop: bool | None = None,
        return_tensors: str | None = "pt",
        device: torch.device | str | None = None,
    ) -> BatchFeature:
        """One picture or a list of them → `pixel_values` (batch, channels, height, width), float32.

        Args:
            images: paths, URLs, bytes, PIL pictures, arrays or tensors, one or a list (or a 4-D array).
            face_crop, device: override the processor's own; faces are found, and pixel values put, on this device.

        Raises:
            EngagementInputError: a picture cannot be read, or (`NoFaceError`) shows no face.
        """
        if device is not None:
            return self.on_device(device).preprocess(images, face_crop, return_tensors)
        crop = self.face_crop if face_crop is None else face_crop
        faces = [self._largest_face(picture) if crop else self.load_picture(picture) for picture in _as_batch(images)]
        pixel_values = torch.cat([self.to_pixel_values(face[None]) for face in faces])
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)

    def prepare_faces(self, picture: object, thorough: bool = True) -> PreparedFaces:
        """All faces of one picture, from left to right: crops, boxes, landmarks, transforms.

        Args:
            thorough: look for small faces too. The fast setting, which videos are read with, finds the people in
                front, and looks closer only where it found nobody.

        Raises:
            NoFaceError: there is none.
        """
        source, pixels = _name_of(picture), self.load_picture(picture)
        (found,) = (self.face_detector.detect_thorough if thorough else self.detect_faces)(pixels[None])
        if len(found) == 0:
            found = next(iter(self.look_again(pixels[None])), found)
        if len(found) == 0:
            raise NoFaceError(f"Expected a face in {source}, found none; pass a picture in which a face is visible.")
        order = np.argsort(found.boxes_xyxy_px[:, 0], kind="stable")
        boxes, landmarks = found.boxes_xyxy_px[order], found.landmarks_xy_px[order]
        repeated = np.broadcast_to(pixels, (len(order), *pixels.shape))  # one crop a box, all from the one picture
        crops, crop_transforms = self.crop(repeated, boxes, landmarks)
        return PreparedFaces(source, crops, boxes, landmarks, found.probabilities[order], crop_transforms)

    def take_as_face(self, picture: object) -> PreparedFaces:
        """A picture that is a face already, as it is: its one box is its edge; nothing is known of the landmarks."""
        pixels = self.load_picture(picture)
        height, width = pixels.shape[:2]
        box, landmarks = np.array([[0, 0, width, height]], np.float32), np.full((1, 5, 2), np.nan, np.float32)
        return PreparedFaces(_name_of(picture), pixels[None], box, landmarks, np.full(1, np.nan), np.eye(2, 3)[None])

    def _largest_face(self, picture: object) -> np.ndarray:
        # Not thorough: at full size a print on a shirt can be the largest "face".
        faces = self.prepare_faces(picture, thorough=False)
        return faces.frames[faces.largest]


def _name_of(picture: object) -> str:
    return str(picture) if isinstance(picture, str) or hasattr(picture, "__fspath__") else "<picture>"


def _as_batch(images: object) -> list[object]:
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (list, tuple)):
        if not images:
            raise EngagementInputError("Expected at least one picture, got an empty list.")
        return list(images)
    if is_file_like(images) or hasattr(images, "convert"):
        return [images]
    raise EngagementInputError(f"Expected a picture or a list of them, got {type(images).__name__}.")
