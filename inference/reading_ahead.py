"""Several files read at once, each in a thread with a killable process: opened, decoded, faces found and cropped. The
results wait in the order of the files; how much of each file may wait is limited, so that memory does not fill."""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Full, Queue

from ..processor.face_preparation import PreparedClip
from ..processor.input_errors import EngagementInputError
from .answering import NO_FRAMES, Reading, VideoReading
from .predictions import Refusal

_FILES_AHEAD = 4  # per worker: how far the others go on while the first file takes long
_CLIPS_AHEAD = 8  # per file
_LOOK_SEC = 0.1


def read_at_once(
    read: Callable[[Path], Reading | Refusal],
    paths: Iterable[Path],
    num_workers: int,
    end: Callable[[], None] | None = None,
) -> Iterator[Reading | Refusal]:
    """The result of `read` for each path, in order. Meanwhile torch uses one thread in each worker, and the remaining
    ones here.

    Args:
        read: raises nothing; an error while a video's clips are read is raised when they are taken.
        end: called when no more is wanted; it ends whatever `read` waits for.
    """
    left, ahead, stop = iter(paths), deque[_Handover](), threading.Event()
    with _threads_shared(num_workers), ThreadPoolExecutor(num_workers, initializer=_use_threads, initargs=(1,)) as pool:
        try:
            while True:
                while len(ahead) < _FILES_AHEAD * num_workers and (path := next(left, None)) is not None:
                    ahead.append(handover := _Handover(stop))
                    pool.submit(handover.fill, read, path)
                if not ahead:
                    return
                handover = ahead.popleft()
                yield handover.take()
                handover.is_left = True  # even if not all of its clips were taken
        finally:
            stop.set()
            if end is not None:
                end()
            pool.shutdown(cancel_futures=True)


class _Handover:
    """Hands one file from the thread that reads it to the one that answers."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop, self.is_left = stop, False
        self._queue: Queue[Reading | Refusal | PreparedClip | Exception] = Queue(_CLIPS_AHEAD)

    def fill(self, read: Callable[[Path], Reading | Refusal], path: Path) -> None:
        """Called in a worker."""
        if self._stop.is_set():
            return
        try:
            reading = read(path)
            self._put(reading)
            if isinstance(reading, VideoReading):
                for clip in reading.clips:
                    if isinstance(clip, PreparedClip):
                        clip = replace(clip, whole_frames=NO_FRAMES)
                    if not self._put(clip):
                        return
        except Exception as error:  # concerns this file; the thread goes on with the next
            self._put(_Raised(error))

    def _put(self, item: "Reading | Refusal | PreparedClip | Exception") -> bool:
        """Returns whether the item was accepted."""
        while not (self._stop.is_set() or self.is_left):
            try:
                self._queue.put(item, timeout=_LOOK_SEC)
            except Full:
                continue
            return True
        return False

    def take(self) -> Reading | Refusal:
        """Called in the answering thread."""
        reading = self._queue.get()
        assert isinstance(reading, Reading | Refusal)  # always the first item
        return (
            replace(reading, clips=self._clips(len(reading.windows))) if isinstance(reading, VideoReading) else reading
        )

    def _clips(self, count: int) -> Iterator[PreparedClip | EngagementInputError]:
        for _ in range(count):
            clip = self._queue.get()
            if isinstance(clip, _Raised):
                raise clip.error
            assert isinstance(clip, PreparedClip | EngagementInputError)
            yield clip


class _Raised(Exception):
    """An error that ended a video's reading, as opposed to one in a single clip."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _threads_shared(num_workers: int) -> Iterator[None]:
    """Leave threads to the workers: if torch's threads outnumber the processors, they mostly wait for each other."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - num_workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _use_threads(count: int) -> None:
    """Set torch's number of threads in this thread."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
