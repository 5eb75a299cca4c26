"""Use only as many threads as there are cores that no other program uses.

torch's threads wait for each other many times per step, and spin while they wait. If another program occupies one of
their cores, each wait lasts until the system lets the late thread run: on two cores with one busy program a step took
5 s instead of 0.13 s, and 0.2 s with a single thread. OMP_WAIT_POLICY=PASSIVE, with which threads sleep, avoids most
of that, but not in oneDNN's backward pass with AMX, whose kernels spin themselves, and costs an idle machine a tenth.
So the busy cores are counted, at the start and from time to time, and not used.

Sums round differently with a different number of threads: the number is stored in each checkpoint, and a resumed
training starts with it. If OMP_NUM_THREADS is set, nothing is changed.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from transformers import TrainerCallback

from ..data.worker_processes import usable_cpus
from .arguments import StageRun
from .run_record import read_training_recipe

_SET = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}  # by the user
_LOOK_SEC = 0.3  # at the start, while nothing of ours runs
_AGAIN_SEC = 20.0
_CALM_LOOKS = 3  # in a row, until more threads are used again
_NOISE_CORES = 0.3  # that an idle machine may use


class CpuTimes(NamedTuple):
    """Seconds of computing until now, on the cores that this process may use."""

    at: float  # when, in seconds
    of_all: float
    of_ours: float  # of this process and its children only
    num_cores: int


def look() -> CpuTimes:
    """The computing times of the machine's cores until now."""
    ours = psutil.Process()
    each = psutil.cpu_times(percpu=True)
    cores = ours.cpu_affinity() if hasattr(ours, "cpu_affinity") else range(len(each))
    names = ("user", "system", "nice", "irq", "softirq", "steal")
    of_all = sum(getattr(each[core], name, 0.0) for core in cores for name in names)
    own = ours.cpu_times()
    of_ours = own.user + own.system + own.children_user + own.children_system
    for child in ours.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            times = child.cpu_times()
            of_ours += times.user + times.system
    return CpuTimes(time.monotonic(), of_all, of_ours, len(cores))


def cores_of_others(before: CpuTimes, now: CpuTimes) -> float:
    """How many cores other programs used between two looks."""
    used = (now.of_all - before.of_all) - (now.of_ours - before.of_ours)
    return max(0.0, used) / max(now.at - before.at, 1e-3)


class FreeCores(TrainerCallback):
    """Sets torch's threads to the number of free cores: at the start, and from time to time in the training.

    Args:
        stage: printed at the start of each line.
        begin_with: threads recorded in the checkpoint that the training resumes from; None: one per free core.
        watch: reads the computing times.
    """

    def __init__(self, stage: str, begin_with: int | None = None, watch: Callable[[], CpuTimes] = look) -> None:
        self.stage, self.watch, self.calm_looks = stage, watch, 0
        self.most = min(torch.get_num_threads(), usable_cpus())
        self.last = watch()
        if begin_with is not None:
            torch.set_num_threads(min(begin_with, self.most))
        elif self.most > 1:
            time.sleep(_LOOK_SEC)
            self._use_free("training")

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        if time.monotonic() - self.last.at >= _AGAIN_SEC:
            self._use_free("continuing")

    def _use_free(self, verb: str) -> None:
        before, self.last = self.last, self.watch()
        others, had = cores_of_others(before, self.last), torch.get_num_threads()
        free = min(self.most, max(1, int(self.last.num_cores - others + _NOISE_CORES)))
        self.calm_looks = self.calm_looks + 1 if free > had else 0
        if free < had or self.calm_looks >= _CALM_LOOKS:
            torch.set_num_threads(free)
            self.calm_looks = 0
            print(
                f"{self.stage}: other programs use {others:.1f} of {self.last.num_cores} cores; {verb} with {free} "
                f"thread{'s' if free > 1 else ''}, not {had}; set OMP_NUM_THREADS for a fixed number",
                flush=True,
            )


@contextmanager
def free_cores(run: StageRun, checkpoint: Path | None) -> Iterator[FreeCores | None]:
    """For a stage that one process trains on a CPU, unless the user has set a number; torch's number of threads is
    restored afterwards.

    Args:
        checkpoint: that the training resumes from.
    """
    threads = torch.get_num_threads()
    is_alone = run.training.device.type == "cpu" and run.training.world_size == 1
    kept = read_training_recipe(checkpoint) if checkpoint else None
    try:
        yield FreeCores(run.name, kept.threads if kept else None) if is_alone and not _SET & set(os.environ) else None
    finally:
        torch.set_num_threads(threads)
