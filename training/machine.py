"""What the machine is capable of, for defaults of a training."""

import os
import shutil
from pathlib import Path

import torch

from ..data.worker_processes import usable_cpus

_MOST_WORKERS = 8
_SHARED_MEMORY = Path("/dev/shm")  # workers pass their batches through it
_LEAST_SHARED_BYTES = 2 * 2**30  # containers often have 64 MB, and a worker is killed when it is full


def has_fast_bf16() -> bool:
    """Whether this machine has bfloat16 in hardware; emulated, it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # With only AVX-512's bfloat16, training takes 1.05 to 1.8 times as long as in float32.
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def loader_workers() -> int:
    """Default number of processes that prepare batches for one training process: with a GPU, one per spare processor;
    on a CPU none, as they would compete with the training."""
    if not torch.cuda.is_available() or not _SHARED_MEMORY.is_dir():
        return 0
    if shutil.disk_usage(_SHARED_MEMORY).free < _LEAST_SHARED_BYTES:
        return 0
    trainings = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that `accelerate launch` started here
    return max(0, min(_MOST_WORKERS, usable_cpus() // trainings - 1))
