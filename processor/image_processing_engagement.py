"""`EngagementImageProcessor`: pictures of faces → `pixel_values` (batch, channels, height, width).

With `face_crop` the largest face of a picture is found, levelled and cropped (as by Nezami et al. and the BEiT
reference); without it a picture is already a face, as in FER2013. The steps are the same code as for video.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.processing_utils import ImagesKwargs

from .call_settings import to_batch, to_channels_last, with_settings
from .input_errors import EngagementInputError
from .media_files import is_file_like
from .media_inputs import is_array
from .picture_preparation import PicturePreparation
from .processor_settings import require_sound
from .tensor_preparation import TensorPreparation
from .video_processing_engagement import EngagementVideoProcessor  # noqa: F401 (AutoVideoProcessor looks for it here)


class EngagementImagesKwargs(ImagesKwargs, total=False):
    """Settings in addition to transformers' own; `FacePreparation` explains them."""

    face_crop: bool
    face_margin_ratio: float
    face_crop_size_px: int
    face_framing: list[float] | None
    pictures_are_frames: bool
    do_grayscale: bool
    picture_norm: float | None
    as_played: bool


class EngagementImageProcessor(TensorPreparation, PicturePreparation, TorchvisionBackend):
    """Makes pictures of faces, or with `face_crop` the faces of photos, into `pixel_values`.

    Args:
        size: `{"height": ..., "width": ...}` of the model's input, in pixels.
        face_crop, pictures_are_frames, face_margin_ratio, face_framing, face_crop_size_px, do_grayscale, picture_norm,
            as_played: see `FacePreparation`.
    """

    valid_kwargs = EngagementImagesKwargs
    model_input_names = ["pixel_values"]

    def __init__(self, **settings: Unpack[EngagementImagesKwargs]) -> None:
        super().__init__(**settings)  # type: ignore[misc]  # accepts valid_kwargs, but declares only its own
        require_sound(self)

    def preprocess(
        self,
        images: object,
        face_crop: bool | None = None,
        return_tensors: str | None = "pt",
        device: torch.device | str | None = None,
        data_format: str | None = None,
        input_data_format: str | None = None,
        **settings: object,
    ) -> BatchFeature:
        """One picture or a list of them → `pixel_values` (batch, channels, height, width), float32.

        Args:
            images: paths, URLs, bytes, the datasets library's `{"path", "bytes"}`, PIL pictures, arrays or tensors, one
                or a list (or a 4-D array).
            face_crop, device: override the processor's own; faces are detected, pixel values placed, on the device.
            data_format, input_data_format: "channels_first" or "channels_last", for the result and for input arrays.
            settings: for this call, as with transformers' own processors.

        Raises:
            EngagementInputError: a picture cannot be read, or (`NoFaceError`) shows no face; or an argument of
                transformers' is not supported here, and named.
            TypeError: an unknown argument.
        """
        called = with_settings(self, face_crop=face_crop, **settings)
        if device is not None:
            called = called.on_device(device)
        pictures = _as_batch(to_channels_last(images, input_data_format))
        find = called.largest_face if called.face_crop else called.load_picture
        faces = [find(picture) for picture in pictures]
        return to_batch([called.to_pixel_values(face[None])[0] for face in faces], data_format, return_tensors)


def _as_batch(images: object) -> list[object]:
    if is_array(images):
        return list(images) if images.ndim == 4 else [images]
    if is_file_like(images) or isinstance(images, Mapping) or hasattr(images, "convert"):
        return [images]
    if isinstance(images, Sequence):  # including columns of the datasets library
        if not len(images):
            raise EngagementInputError("Expected at least one picture, got an empty list.")
        return list(images)
    raise EngagementInputError(f"Expected a picture or a list of them, got {type(images).__name__}.")
