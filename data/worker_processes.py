"""Worker processes that share work: as many as processors may be used, spawned, and ended silently when Ctrl-C ends
the parent process."""

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

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


def usable_cpus() -> int:
    """Number of processors that this process may use, by its affinity and its container's quota."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, _quota() or here))


def _quota() -> int | None:
    """A container's quota (cgroup v2) in processors, rounded up; None: there is none.

    joblib can read it too, but takes a third of a second to import.
    """
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None


@contextmanager
def spawned(
    work: Callable[[_Task], _Done], tasks: Sequence[_Task], num_processes: int, start: Callable[[], object]
) -> Iterator[list[Future[_Done]]]:
    """A future for every task, in workers that first call `start`; tasks not started when the block ends are dropped.

    Spawned, not forked: a fork of a process with threads, such as torch's, can hang.

    Raises:
        DataError: in the block, when a result is requested: a worker was killed.
    """
    pool = ProcessPoolExecutor(num_processes, get_context("spawn"), start)
    try:
        with _deaf_to_ctrl_c():  # inherited by the workers, which would otherwise print tracebacks from their imports
            futures = [pool.submit(work, task) for task in tasks]
        yield futures
    except BrokenProcessPool as error:
        raise DataError(
            f"One of {num_processes} worker processes was killed, probably for lack of memory; finished work is kept: "
            "resume with the same command and fewer processes."
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        for worker in active_children():  # their current work is not needed
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
