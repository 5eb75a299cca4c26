"""What a user may hand to a processor, brought to one form: files, arrays, tensors, pictures, batches of them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from .input_errors import EngagementInputError
from .media_files import fetch, is_file_like, read_picture, to_rgb


def as_batch(videos: object) -> list[object]:
    """One video or several → a list of videos. A list of single pictures is one video, of anything else a batch."""
    if is_file_like(videos):
        return [videos]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, Sequence) or len(videos) == 0:
        raise EngagementInputError(
            f"Expected a video (path, URL, bytes, array, tensor or list of pictures) or a list of them, got "
            f"{type(videos).__name__}{' of length 0' if isinstance(videos, Sequence) else ''}."
        )
    return [videos] if _is_picture(videos[0]) else list(videos)


def stack_frames(video: object, load: Callable[[object], np.ndarray] | None = None) -> np.ndarray:
    """An array or tensor of frames, or a list of pictures → (num_frames, height, width, 3) uint8 RGB."""
    if isinstance(video, (np.ndarray, torch.Tensor)):
        return to_uint8_frames(video)
    if not isinstance(video, Sequence) or len(video) == 0:
        raise EngagementInputError(f"Expected frames, got {type(video).__name__}; pass an array or a list of pictures.")
    pictures = [(load or load_picture)(picture) for picture in video]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise EngagementInputError(f"Expected frames of one size, got {len(shapes)} sizes: {sorted(shapes)[:3]}.")
    return np.stack(pictures)


def load_picture(picture: object) -> np.ndarray:
    """A path, URL, bytes, PIL picture, array or tensor → (height, width, 3) uint8 RGB, upright.

    Raises:
        ImageReadError: the file is missing, empty or not a picture; the message names it.
        EngagementInputError: an array of another shape or range.
    """
    if isinstance(picture, (np.ndarray, torch.Tensor)):
        if picture.ndim not in (2, 3):
            raise EngagementInputError(f"Expected a picture of 2 or 3 dimensions, got shape {tuple(picture.shape)}.")
        return to_uint8_frames(picture[None] if picture.ndim == 3 else picture[None, ..., None])[0]
    if is_file_like(picture):
        return read_picture(fetch(picture))
    if not isinstance(picture, Image.Image):
        raise EngagementInputError(f"Expected a picture, got {type(picture).__name__}.")
    return to_rgb(picture)


def _is_picture(item: object) -> bool:
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return item.ndim in (2, 3)
    return isinstance(item, Image.Image)


def to_uint8_frames(frames: object, source: str = "<frames>") -> np.ndarray:
    """Frames as (t, H, W, 3) uint8 RGB, from (t, H, W, C) or (t, C, H, W) with 1, 3 or 4 channels.

    Floats must lie in 0..1; a fourth channel (alpha) is dropped.

    Raises:
        EngagementInputError: another shape, another range, or no frame.
    """
    array = frames.detach().cpu().numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)
    if array.ndim != 4 or 0 in array.shape:
        raise EngagementInputError(
            f"Expected frames of shape (num_frames, height, width, channels), got {array.shape} in {source}."
        )
    if array.shape[-1] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)  # (t, C, H, W) -> (t, H, W, C)
    if array.shape[-1] not in (1, 3, 4):
        raise EngagementInputError(f"Expected 1, 3 or 4 channels, got an array of shape {array.shape} in {source}.")
    if np.issubdtype(array.dtype, np.floating):
        array = _floats_to_uint8(array, source)
    elif array.dtype != np.uint8:
        raise EngagementInputError(f"Expected frames as uint8, or floats in 0..1, got {array.dtype} in {source}.")
    return np.ascontiguousarray(np.repeat(array, 3, axis=3) if array.shape[3] == 1 else array[..., :3])


def _floats_to_uint8(array: np.ndarray, source: str) -> np.ndarray:
    low, high = float(np.min(array)), float(np.max(array))
    if not (low >= 0.0 and high <= 1.0):  # NaN fails this too
        raise EngagementInputError(
            f"Expected float frames in 0..1, got {low:.3g}..{high:.3g} in {source}; pass uint8 for 0..255."
        )
    return np.rint(array * 255).astype(np.uint8)
