"""The peak memory of a process together with its children, sampled many times per second."""

import threading
from contextlib import suppress

import psutil

_SAMPLE_SEC = 0.02


class PeakMemory:
    """A context manager; `peak_bytes` is updated within the context.

    Args:
        pid: of the process; None: this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        self.peak_bytes = 0
        self._process = psutil.Process(pid)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SEC):
            with suppress(psutil.Error):  # it has ended
                processes = [self._process, *self._process.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(map(_held_bytes, processes)))


def _held_bytes(process: psutil.Process) -> int:
    with suppress(psutil.Error):  # it has ended
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.rss))  # PSS, if available, divides shared memory among processes
    return 0
