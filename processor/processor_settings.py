"""Checks the processors' settings: an invalid one, in a config or a call, is refused by name before any reading.

A processor's config may be edited by hand, and a standard deviation of 0 would make every score NaN.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeGuard

from .input_errors import EngagementInputError

LARGEST_SIDE_PX = 4096
MOST_FRAMES = 10_000  # per clip


class Settings(Protocol):
    """Some of the settings of both processors."""

    size: dict[str, int]
    do_normalize: bool
    do_grayscale: bool


def _is_flag(value: object) -> TypeGuard[bool]:
    return isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIDE_PX


def _is_framing(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(is_number, value)):
        return False
    return min(value[2:]) > 0


_Rule = tuple[Callable[[object], bool], str]  # whether a value is valid, and the expected value in words
# Null, in folders imported by earlier versions, counts as false.
_FLAG: _Rule = (lambda value: value is None or _is_flag(value), "true or false")
RULES: dict[str, _Rule] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_grayscale"), _FLAG),
    **dict.fromkeys(("face_crop", "pictures_are_frames", "do_sample_frames", "as_played"), _FLAG),
    "rescale_factor": (lambda value: value is None or (is_number(value) and value > 0), "a number above 0"),
    "num_frames": (
        lambda value: isinstance(value, int) and not _is_flag(value) and 1 <= value <= MOST_FRAMES,
        f"a whole number from 1 to {MOST_FRAMES:,}",
    ),
    "sampling": (lambda value: value in ("uniform", "consecutive"), '"uniform" or "consecutive"'),
    "face_margin_ratio": (lambda value: is_number(value) and -0.5 < value <= 10, "a number above -0.5, at most 10"),
    "face_crop_size_px": (_is_side, f"a whole number from 1 to {LARGEST_SIDE_PX}"),
    "face_framing": (_is_framing, "four numbers, the last two above 0, or null"),
    "picture_norm": (lambda value: value is None or (is_number(value) and value > 0), "a number above 0, or null"),
}


def require_sound(processor: Settings) -> None:
    """Raises EngagementInputError, naming the setting, for one that gives no pixel values or meaningless ones."""
    for name, (is_sound, expected) in RULES.items():
        value = getattr(processor, name, None)
        if hasattr(processor, name) and not is_sound(value):
            raise EngagementInputError(f"Expected {expected} as the processor's {name}, got {value!r}; correct it.")
    for name in ("do_center_crop", "do_pad"):
        if getattr(processor, name, None) not in (None, False):
            raise EngagementInputError(f"The processor does not support the setting {name}; remove it.")
    size = processor.size
    if not _is_side(size["height"]) or not _is_side(size["width"]):
        raise EngagementInputError(
            f"Expected height and width from 1 to {LARGEST_SIDE_PX} as the processor's size, got {dict(size)}."
        )
    for name in ("image_mean", "image_std") if processor.do_normalize else ():
        values = getattr(processor, name)
        fits = isinstance(values, (list, tuple)) and len(values) in ((1, 3) if processor.do_grayscale else (3,))
        if not fits or not all(map(is_number, values)) or (name == "image_std" and min(values) <= 0):
            expected = f"{'one number or ' if processor.do_grayscale else ''}three numbers"
            above = " above 0" if name == "image_std" else ""
            raise EngagementInputError(f"Expected {expected}{above} as the processor's {name}, got {values!r}.")
