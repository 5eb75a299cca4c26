"""Converts a user's inputs for a processor to one form: files, arrays, tensors, pictures and batches of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, Union

import av
import numpy as np
from PIL import Image

from .input_errors import EngagementInputError, VideoReadError, in_one_line
from .media_files import fetch, is_file_like, unpacked
from .picture_files import Picture, from_pillow, read_picture

if TYPE_CHECKING:
    import torch


def is_tensor(value: object) -> TypeGuard["torch.Tensor"]:
    """Recognised by its methods, since without torch there is no class to check."""
    return hasattr(value, "detach") and hasattr(value, "movedim")


def is_array(value: object) -> TypeGuard[Union[np.ndarray, "torch.Tensor"]]:
    """Whether it is an array of numpy or a tensor of torch."""
    return isinstance(value, np.ndarray) or is_tensor(value)


def as_batch(videos: object) -> list[object]:
    """One video or several → a list of videos. A list of single pictures is one video, any other list a batch."""
    if is_file_like(videos) or isinstance(videos, Mapping) or is_decoder(videos):
        return [videos]
    if is_array(videos):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, Sequence) or len(videos) == 0:
        raise EngagementInputError(
            f"Expected a video (path, URL, bytes, array, tensor or list of pictures) or a list of them, got "
            f"{type(videos).__name__}{' of length 0' if isinstance(videos, Sequence) else ''}."
        )
    first = videos[0]
    is_picture = first.ndim in (2, 3) if is_array(first) else isinstance(first, Image.Image)
    return [videos] if is_picture else list(videos)


class DecoderFrames:
    """The frames of a user's opened decoder, decoded on access.

    Args:
        decoder: with torchcodec's `get_frames_at(indices=[...])`, as returned by the datasets library for a `Video`.
    """

    def __init__(self, decoder: Any) -> None:  # its class is unknown if torchcodec is not installed
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._decoder)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """(n,) frame numbers → (n, height, width, 3) uint8 RGB; raises VideoReadError if they do not decode."""
        wanted, places = np.unique(indices, return_inverse=True)
        try:
            batch = self._decoder.get_frames_at(indices=wanted.tolist())
            frames = to_uint8_frames(getattr(batch, "data", batch), "<decoder>")
        except Exception as error:  # any error of the decoder
            raise VideoReadError(
                f"The {type(self._decoder).__name__} could not decode frames ({in_one_line(error)}); pass the file "
                "itself, which the datasets library returns with Video(decode=False)."
            ) from error
        return frames[places]


def is_decoder(video: object) -> bool:
    """Whether it is an opened decoder of a video: torchcodec's, or a container of PyAV's."""
    return hasattr(video, "get_frames_at") or isinstance(video, av.container.InputContainer)


def as_file(video: object) -> object:
    """The file of an object of the datasets library or PyAV; everything else is returned unchanged.

    Raises:
        EngagementInputError: a PyAV container that was not opened from a file.
    """
    video = unpacked(video)
    if not isinstance(video, av.container.InputContainer):
        return video
    path = Path(str(video.name).removeprefix("file:"))
    if not path.is_file():
        raise EngagementInputError(
            f"Expected a PyAV container of a file, got one of {video.name}; pass what it was opened from."
        )
    return path


def stack_frames(video: object, load: Callable[[object], np.ndarray] | None = None) -> np.ndarray | DecoderFrames:
    """An array or tensor of frames, or a list of pictures → (num_frames, height, width, 3) uint8 RGB; for a decoder an
    object that decodes requested frames."""
    if hasattr(video, "get_frames_at"):
        return DecoderFrames(video)
    if is_array(video):
        return to_uint8_frames(video)
    if not isinstance(video, Sequence) or len(video) == 0:
        raise EngagementInputError(f"Expected frames, got {type(video).__name__}; pass an array or a list of pictures.")
    pictures = [(load or load_picture)(picture) for picture in video]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise EngagementInputError(f"Expected frames of one size, got {len(shapes)} sizes: {sorted(shapes)[:3]}.")
    return np.stack(pictures)


def load_picture(picture: object) -> np.ndarray:
    """(height, width, 3) uint8 RGB, upright; inputs and errors as for `open_picture`."""
    return open_picture(picture).pixels


def open_picture(picture: object) -> Picture:
    """A path, URL, bytes, the datasets library's `{"path", "bytes"}`, PIL picture, array or tensor → pixels and notes.

    Raises:
        ImageReadError: the file is missing, empty or not a still picture; the message names it.
        EngagementInputError: an array of a wrong shape or range.
    """
    if is_array(picture):
        if picture.ndim not in (2, 3):
            raise EngagementInputError(f"Expected a picture of 2 or 3 dimensions, got shape {tuple(picture.shape)}.")
        return Picture(to_uint8_frames(picture[None] if picture.ndim == 3 else picture[None, ..., None])[0])
    picture = unpacked(picture)
    if is_file_like(picture):
        return read_picture(fetch(picture))
    if not isinstance(picture, Image.Image):
        raise EngagementInputError(f"Expected a picture, got {type(picture).__name__}.")
    return from_pillow(picture)


def to_uint8_frames(frames: object, source: str = "<frames>") -> np.ndarray:
    """Frames as (t, H, W, 3) uint8 RGB, from (t, H, W, C) or (t, C, H, W) with 1, 3 or 4 channels.

    Floats must be from 0 to 1; a fourth channel (alpha) is dropped.

    Raises:
        EngagementInputError: a wrong shape or range, or no frames.
    """
    array = frames.detach().cpu().numpy() if is_tensor(frames) else np.asarray(frames)
    if array.ndim != 4 or 0 in array.shape:
        raise EngagementInputError(
            f"Expected frames of shape (num_frames, height, width, channels), got {array.shape} in {source}."
        )
    if array.shape[-1] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)  # (t, C, H, W) -> (t, H, W, C)
    if array.shape[-1] not in (1, 3, 4):
        raise EngagementInputError(f"Expected 1, 3 or 4 channels, got an array of shape {array.shape} in {source}.")
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(np.min(array)), float(np.max(array))
        if not (low >= 0.0 and high <= 1.0):  # also true for NaN
            raise EngagementInputError(
                f"Expected float frames in 0..1, got {low:.3g}..{high:.3g} in {source}; pass uint8 for 0..255."
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise EngagementInputError(f"Expected frames as uint8, or floats in 0..1, got {array.dtype} in {source}.")
    return np.ascontiguousarray(np.repeat(array, 3, axis=3) if array.shape[3] == 1 else array[..., :3])
