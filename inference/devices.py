"""Where a model runs (one device for the model, its inputs and the face detector), and in which precision."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..processor.input_errors import ModelLoadError, RecipeError

HALF_TOLERANCE = 5e-3  # by which scores in half precision may differ from float32


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA, then MPS, then the CPU; else the named one.

    Raises:
        RecipeError: this machine has no such device, or there is no such name.
    """
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (number.isdigit() or ":" not in name):
        raise RecipeError(f"Unknown device {name!r}; choose auto, cpu, cuda, cuda:1 or mps.")
    num_devices = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}[kind]
    if int(number or 0) >= num_devices:
        known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *(["mps"] if has_mps else [])]
        raise RecipeError(f"This machine has no device {name}, only {', '.join(known)}; choose one, or auto.")
    return torch.device(name)


def half_precisions(device: torch.device) -> tuple[str, ...]:
    """Those that may be faster on a device; bfloat16, which cannot overflow, comes first. None on a CPU, where only
    those with AVX-512 or AMX gain, and none on MPS."""
    if device.type != "cuda":
        return ()
    return ("bfloat16", "float16") if torch.cuda.is_bf16_supported() else ("float16",)


def choose_dtype(candidates: Sequence[str], scores_in: Callable[[str], np.ndarray]) -> str:
    """The first candidate whose scores agree with float32 within `HALF_TOLERANCE` and in every label; else float32.

    Args:
        scores_in: a dtype's name -> (n, num_labels) scores of the same inputs.
    """
    if not candidates:
        return "float32"
    expected = scores_in("float32")
    for dtype in candidates:
        try:
            got = scores_in(dtype)
        except ModelLoadError:  # overflow
            continue
        is_close = np.allclose(got, expected, rtol=0, atol=HALF_TOLERANCE)
        if is_close and np.array_equal(got.argmax(axis=1), expected.argmax(axis=1)):
            return dtype
    return "float32"
