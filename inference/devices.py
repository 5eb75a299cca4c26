"""Where a model runs: one object decides it for the model, what goes into it, and the face detector; how precisely it
computes there."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..processor.input_errors import ModelLoadError, RecipeError

_NAMES = "auto, cpu, cuda, cuda:1 or mps"
HALF_TOLERANCE = 5e-3  # of a score, within which half precision says what float32 says


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA, then MPS, then the CPU; else the one that is named.

    Raises:
        RecipeError: no such device here, or no such name.
    """
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (number.isdigit() or ":" not in name):
        raise RecipeError(f"Expected a device ({_NAMES}), got {name!r}.")
    num_devices = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}[kind]
    if int(number or 0) >= num_devices:
        known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *(["mps"] if has_mps else [])]
        raise RecipeError(f"Expected a device that is here ({', '.join(known)}), got {name}; choose one, or auto.")
    return torch.device(name)


def half_precisions(device: torch.device) -> tuple[str, ...]:
    """Those that may pay on a device, the one that cannot overflow first. None on a CPU, where it takes one with
    AVX-512 or AMX to gain by them and others lose, and none on MPS."""
    if device.type != "cuda":
        return ()
    return ("bfloat16", "float16") if torch.cuda.is_bf16_supported() else ("float16",)


def choose_dtype(candidates: Sequence[str], scores_in: Callable[[str], np.ndarray]) -> str:
    """The first candidate in which scores agree with those in float32, to `HALF_TOLERANCE` and in every label; else
    float32.

    Args:
        scores_in: a dtype's name -> (n, num_labels) scores of the same inputs.
    """
    if not candidates:
        return "float32"
    expected = scores_in("float32")
    for dtype in candidates:
        try:
            got = scores_in(dtype)
        except ModelLoadError:  # numbers too large for it
            continue
        is_close = np.allclose(got, expected, rtol=0, atol=HALF_TOLERANCE)
        if is_close and np.array_equal(got.argmax(axis=1), expected.argmax(axis=1)):
            return dtype
    return "float32"
