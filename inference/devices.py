"""Where a model runs: one object decides it for the model, what goes into it, and the face detector."""

import torch

from ..processor.input_errors import RecipeError

_NAMES = "auto, cpu, cuda, cuda:1 or mps"


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
