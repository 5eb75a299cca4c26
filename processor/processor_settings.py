"""Settings of the processors: those in a config or a call are sound, or refused by name before a pixel is read.

A processor's config may be edited by hand, and a standard deviation of 0 would make every score nan. Calls may carry
what transformers' own processors know: a setting of ours is honoured as theirs is, what ours does anyway may be said,
and anything else is refused, never passed over.
"""

import copy
import math
from collections.abc import Callable
from typing import Protocol, TypeGuard, TypeVar

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_utils import get_size_dict

from .input_errors import EngagementInputError, in_one_line

LARGEST_SIDE_PX = 4096
MOST_FRAMES = 10_000  # of a clip


class Settings(Protocol):
    """What both processors hold, among others."""

    size: dict[str, int]
    do_normalize: bool
    do_grayscale: bool


_Processor = TypeVar("_Processor", bound=Settings)


def _is_flag(value: object) -> TypeGuard[bool]:
    return isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIDE_PX


def _is_framing(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(_is_number, value)):
        return False
    return min(value[2:]) > 0


_Rule = tuple[Callable[[object], bool], str]  # whether a value is sound, and what is expected
# Null, of folders that were imported earlier, counts as false.
_FLAG: _Rule = (lambda value: value is None or _is_flag(value), "true or false")
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_grayscale"), _FLAG),
    **dict.fromkeys(("face_crop", "pictures_are_frames", "do_sample_frames"), _FLAG),
    "rescale_factor": (lambda value: value is None or (_is_number(value) and value > 0), "a number above 0"),
    "num_frames": (
        lambda value: isinstance(value, int) and not _is_flag(value) and 1 <= value <= MOST_FRAMES,
        f"a whole number from 1 to {MOST_FRAMES:,}",
    ),
    "sampling": (lambda value: value in ("uniform", "consecutive"), '"uniform" or "consecutive"'),
    "face_margin_ratio": (lambda value: _is_number(value) and -0.5 < value <= 10, "a number above -0.5, at most 10"),
    "face_crop_size_px": (_is_side, f"a whole number from 1 to {LARGEST_SIDE_PX}"),
    "face_framing": (_is_framing, "four numbers, the last two above 0, or null"),
    "picture_norm": (lambda value: value is None or (_is_number(value) and value > 0), "a number above 0, or null"),
}
# Settings of a call beside those above.
_SHAPES = ("size", "image_mean", "image_std")
# What transformers' processors know and ours cannot do: with these values it is what ours do anyway.
_AS_EVER: dict[str, tuple[object, ...]] = {
    "do_convert_rgb": (True,),
    "resample": (2,),  # bilinear, as PIL counts them
    "default_to_square": (True,),
    "do_center_crop": (False,),
    "do_pad": (False,),
    "return_metadata": (False,),
    "disable_grouping": (True, False),  # of no effect on the values
    **dict.fromkeys(("crop_size", "pad_size", "fps", "video_metadata", "image_seq_length"), ()),
}


def require_sound(processor: Settings) -> None:
    """Raises EngagementInputError, with the name of the setting, for one that gives no pixel values or none that mean
    anything."""
    for name, (is_sound, expected) in _RULES.items():
        value = getattr(processor, name, None)
        if hasattr(processor, name) and not is_sound(value):
            raise EngagementInputError(f"Expected {expected} as the processor's {name}, got {value!r}; correct it.")
    for name in ("do_center_crop", "do_pad"):
        if getattr(processor, name, None) not in (None, False):
            raise EngagementInputError(
                f"Expected no {name} in the processor's settings, which it cannot do; take it out."
            )
    size = processor.size
    if not _is_side(size["height"]) or not _is_side(size["width"]):
        raise EngagementInputError(
            f"Expected height and width from 1 to {LARGEST_SIDE_PX} as the processor's size, got {dict(size)}."
        )
    for name in ("image_mean", "image_std") if processor.do_normalize else ():
        values = getattr(processor, name)
        fits = isinstance(values, (list, tuple)) and len(values) in ((1, 3) if processor.do_grayscale else (3,))
        if not fits or not all(map(_is_number, values)) or (name == "image_std" and min(values) <= 0):
            expected = f"{'one number or ' if processor.do_grayscale else ''}three numbers"
            above = " above 0" if name == "image_std" else ""
            raise EngagementInputError(f"Expected {expected}{above} as the processor's {name}, got {values!r}.")


def with_settings(processor: _Processor, **settings: object) -> _Processor:
    """A copy for one call; None leaves a setting as it is.

    Raises:
        EngagementInputError: a setting that is not sound, or one of transformers' that ours cannot honour.
        TypeError: a name that neither knows.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        return processor
    changed = copy.copy(processor)
    for name, value in given.items():
        if name in _AS_EVER:
            if not any(value is known or value == known for known in _AS_EVER[name]):
                remedy = "num_frames samples a video's frames; " if name == "fps" else ""
                raise EngagementInputError(
                    f"Expected no {name}={_shown(value)}, which this processor cannot honour; {remedy}leave it out."
                )
        elif (name in _RULES and hasattr(processor, name)) or name in _SHAPES:
            setattr(changed, name, _to_size(value) if name == "size" else _to_list(value, name, processor))
        else:
            raise TypeError(f"{type(processor).__name__} got an unexpected keyword argument {name!r}")
    require_sound(changed)
    return changed


def _to_size(value: object) -> object:
    """As transformers' `size`: a side, height and width, or both by name."""
    try:
        size = get_size_dict(value, default_to_square=True)  # type: ignore[arg-type]  # whatever the user gave
        return {"height": size["height"], "width": size["width"]}
    except (KeyError, TypeError, ValueError) as error:
        raise EngagementInputError(
            f"Expected height and width as size, got {_shown(value)}; faces are resized to that, and not cropped."
        ) from error


def _to_list(value: object, name: str, processor: object) -> object:
    """One number stands for all channels, as with transformers."""
    if name in _SHAPES and _is_number(value):
        return [value] * (1 if getattr(processor, "do_grayscale", False) else 3)
    return value


def to_batch(pixel_values: list[torch.Tensor], data_format: object, return_tensors: object) -> BatchFeature:
    """What a call returns; (C, H, W) last, or with `data_format="channels_last"` (H, W, C).

    Raises:
        EngagementInputError: another format, or pictures of several sizes, which make no batch.
    """
    if return_tensors not in (None, "pt", "np"):
        raise EngagementInputError(f'Expected return_tensors "pt" or "np", got {_shown(return_tensors)}.')
    shapes = {tuple(values.shape) for values in pixel_values}
    if len(shapes) > 1:
        raise EngagementInputError(f"Expected inputs that make one batch, got pixel values of shapes {sorted(shapes)}.")
    batch = torch.stack(pixel_values)
    if _is_last(data_format, "data_format"):
        batch = batch.movedim(-3, -1)
    return BatchFeature({"pixel_values": batch}, tensor_type=return_tensors)


def to_channels_last(items: object, input_data_format: object) -> object:
    """Arrays and tensors, alone or in lists, whose channels lie where `input_data_format` says; None: it is guessed."""
    if input_data_format is None:
        return items
    if isinstance(items, (list, tuple)):
        return [to_channels_last(item, input_data_format) for item in items]
    if not isinstance(items, (np.ndarray, torch.Tensor)) or items.ndim < 3:
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
    """Raises EngagementInputError for a device that is not here."""
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # torch has another for each kind
        raise EngagementInputError(f"Expected a device of torch, got {device!r} ({in_one_line(error)}).") from error


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
