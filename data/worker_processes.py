"""Processes that share work: as many as this one may use, spawned, and gone without a word when Ctrl-C ends the one
that started them."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TypeVar

from ..processor.input_errors import DataError

_CGROUPS = Path("/sys/fs/cgroup")
_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


def usable_cpus(cgroups: Path = _CGROUPS) -> int:
    """How many processors this process may use: those it is bound to, and no more than its container's quota.

    Args:
        cgroups: where Linux tells quotas; a container sees its own there.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time that the container has; None: as much as there is."""
    try:
        if (cgroups / "cpu.max").is_file():  # cgroup v2: "200000 100000", or "max 100000"
            allowed, period = (cgroups / "cpu.max").read_text().split()
        else:
            allowed, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(allowed) / int(period) if int(allowed) > 0 else None  # v1 says -1 where there is no quota
    except (OSError, ValueError, ZeroDivisionError):
        return None


@contextmanager
def spawned(
    work: Callable[[_Task], _Done], tasks: Sequence[_Task], num_processes: int, start: Callable[[], object]
) -> Iterator[list[Future[_Done]]]:
    """Every task's future, of workers that each began with `start`; what has not begun when the block ends is dropped.

    Spawned, not forked: a fork of a process that runs threads, as torch's do, can hang.

    Raises:
        DataError: in the block, where a result is asked for: a worker was killed.
    """
    pool = ProcessPoolExecutor(num_processes, get_context("spawn"), start)
    try:
        with _deaf_to_ctrl_c():  # which the workers inherit: it would fall into their imports, and each would complain
            futures = [pool.submit(work, task) for task in tasks]
        yield futures
    except BrokenProcessPool as error:
        raise DataError(
            f"Expected {num_processes} worker processes to finish, one was killed, as a machine short of memory does; "
            "what is finished is kept: go on with the same command, and fewer processes."
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        for worker in active_children():  # nobody waits for what they are at
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
