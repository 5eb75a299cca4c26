"""What the machine that trains can do."""

import os
import shutil
from pathlib import Path

import torch

from ..data.worker_processes import usable_cpus

_MOST_WORKERS = 8
_SHARED_MEMORY = Path("/dev/shm")  # through which workers hand on their batches
_LEAST_SHARED_BYTES = 2 * 2**30  # containers often have 64 MB, and a worker that finds it full is killed


def has_fast_bf16() -> bool:
    """Whether this machine computes in bfloat16; elsewhere it is emulated, and slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # With AVX-512's bfloat16 alone training takes 1.05 to 1.8 times as long as in float32.
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def loader_workers() -> int:
    """Processes that make the batches of one training process, where it does not say: beside a GPU as many as there are
    processors to spare; elsewhere none, as they would take from the training what they give it."""
    if not torch.cuda.is_available() or not _SHARED_MEMORY.is_dir():
        return 0
    if shutil.disk_usage(_SHARED_MEMORY).free < _LEAST_SHARED_BYTES:
        return 0
    trainings = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # that `accelerate launch` has begun here
    return max(0, min(_MOST_WORKERS, usable_cpus() // trainings - 1))
