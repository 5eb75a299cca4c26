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

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


def usable_cpus() -> int:
    """How many of the machine's processors this process may use: by its affinity, and by its container's quota."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, _quota() or here))


def _quota() -> int | None:
    """Of a container (cgroup v2), in processors, rounded up; None: there is none.

    joblib knows it too, and takes a third of a second to be imported.
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
