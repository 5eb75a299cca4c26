"""Arguments and results of the processors' calls, as with transformers' own processors.

Our settings are honoured like theirs, a setting that only states our fixed behaviour is accepted, and anything else is
refused, never ignored.
"""

import copy
from typing import TypeVar

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_utils import get_size_dict

from .input_errors import EngagementInputError, in_one_line
from .media_inputs import is_array
from .processor_settings import Settings, is_number, require_sound

_Processor = TypeVar("_Processor", bound=Settings)
# Settings of a call besides those above.
_SHAPES = ("size", "image_mean", "image_std")
# Settings of transformers' processors that ours do not support: these values are accepted, as our fixed behaviour.
_AS_EVER: dict[str, tuple[object, ...]] = {
    "do_convert_rgb": (True,),
    "resample": (2,),  # bilinear, in PIL's numbering
    "default_to_square": (True,),
    "do_center_crop": (False,),
    "do_pad": (False,),
    "return_metadata": (False,),
    "disable_grouping": (True, False),  # has no effect on the values
    **dict.fromkeys(("crop_size", "pad_size", "fps", "video_metadata", "image_seq_length"), ()),
}


def with_settings(processor: _Processor, **settings: object) -> _Processor:
    """A copy for one call; None leaves a setting unchanged.

    Raises:
        EngagementInputError: an invalid setting, or one of transformers' that ours do not support.
        TypeError: an unknown name; the message lists the known ones.
    """
    known = arguments_of(type(processor))
    for name in settings:
        if name not in known and name not in _AS_EVER:
            raise TypeError(
                f"{type(processor).__name__} got an unexpected keyword argument {name!r}; it takes {', '.join(known)}."
            )
    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        return processor
    changed = copy.copy(processor)
    for name, value in given.items():
        if name in _AS_EVER:
            if not any(value is known or value == known for known in _AS_EVER[name]):
                remedy = "num_frames samples a video's frames; " if name == "fps" else ""
                raise EngagementInputError(
                    f"{name}={_shown(value)} is not supported by this processor; {remedy}leave it out."
                )
        else:
            setattr(changed, name, _to_size(value) if name == "size" else _to_list(value, name, processor))
    require_sound(changed)
    return changed


def arguments_of(kind: type) -> list[str]:
    """Names of the arguments of such a processor's call: transformers' own that are supported, and ours."""
    declared = [*kind.valid_kwargs.__annotations__, *getattr(kind, "clip_arguments", ())]  # type: ignore[attr-defined]
    return sorted(name for name in set(declared) if _AS_EVER.get(name) != ())


def _to_size(value: object) -> object:
    """Convert like transformers' `size`: one side, height and width, or both by name."""
    try:
        size = get_size_dict(value, default_to_square=True)  # type: ignore[arg-type]  # any user input
        return {"height": size["height"], "width": size["width"]}
    except (KeyError, TypeError, ValueError) as error:
        raise EngagementInputError(
            f"Expected height and width as size, got {_shown(value)}; faces are resized to it, not cropped."
        ) from error


def _to_list(value: object, name: str, processor: object) -> object:
    """One number applies to all channels, as with transformers; numbers may be given as an array."""
    if name in _SHAPES and is_array(value):
        value = value.tolist()
    if name in _SHAPES and is_number(value):
        return [value] * (1 if getattr(processor, "do_grayscale", False) else 3)
    return value


def to_batch(pixel_values: list[torch.Tensor], data_format: object, return_tensors: object) -> BatchFeature:
    """The result of a call; the last axes are (C, H, W), or (H, W, C) with `data_format="channels_last"`.

    Raises:
        EngagementInputError: an unknown format, or pictures of different sizes, which do not form a batch.
    """
    if return_tensors not in (None, "pt", "np"):
        raise EngagementInputError(f'Expected return_tensors "pt" or "np", got {_shown(return_tensors)}.')
    shapes = {tuple(values.shape) for values in pixel_values}
    if len(shapes) > 1:
        raise EngagementInputError(f"The inputs do not form a batch: their pixel values have shapes {sorted(shapes)}.")
    batch = torch.stack(pixel_values)
    if _is_last(data_format, "data_format"):
        batch = batch.movedim(-3, -1)
    return BatchFeature({"pixel_values": batch}, tensor_type=return_tensors)


def to_channels_last(items: object, input_data_format: object) -> object:
    """Arrays and tensors, alone or in lists, with channels moved last from `input_data_format`; None: guess it."""
    if input_data_format is None:
        return items
    if isinstance(items, (list, tuple)):
        return [to_channels_last(item, input_data_format) for item in items]
    if not is_array(items) or items.ndim < 3:
        return items
    is_last = _is_last(input_data_format, "input_data_format")
    moved: np.ndarray | torch.Tensor = items
    if not is_last:
        moved = items.movedim(-3, -1) if isinstance(items, torch.Tensor) else np.moveaxis(items, -3, -1)
    if moved.shape[-1] not in (1, 3, 4):
        raise EngagementInputError(
            f"Expected 1, 3 or 4 channels with input_data_format={_shown(input_data_format)}, got an array of shape "
            f"{tuple(items.shape)}."
        )
    return moved


def _is_last(data_format: object, name: str) -> bool:
    if data_format not in (None, "channels_first", "channels_last"):
        raise EngagementInputError(
            f'Expected "channels_first" or "channels_last" as {name}, got {_shown(data_format)}.'
        )
    return data_format == "channels_last"


def to_device(device: torch.device | str) -> torch.device:
    """Raises EngagementInputError for a device that does not exist here."""
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # torch has a different one for each kind
        raise EngagementInputError(f"{device!r} is not a device of torch ({in_one_line(error)}).") from error


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
