"""Opens untrusted files in a separate process, which can be killed: a file that hangs, crashes a codec or needs too
much memory is then refused, and the calling process survives.

The process is reused for further files. It runs `reader_process.py`, started by its path.
"""

import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, Unpack

import numpy as np

from .input_errors import (
    EngagementInputError,
    ImageReadError,
    VideoReadError,
    VideoTooLargeError,
    error_named,
    in_one_line,
)
from .media_files import MediaSource
from .media_reader import MediaReader
from .picture_files import Picture
from .reader_process import PATH, Head, pack_index, read_exactly, read_head, unpack_index, write_message
from .video_decoding import DecodedFrames, put_together
from .video_index import IndexArguments, VideoIndex

_PIPE_BYTES = 1 << 20
_WATCH_SEC = 0.25
_MOST_PROCESSES = max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2)
_MAX_BODY_BYTES = 1 << 31  # of an index or a picture; the size of frames is known


@dataclass(frozen=True)
class ReaderLimits:
    """Limits for one file."""

    stall_sec: float = 30.0  # without reading a packet or returning a frame or a picture
    total_sec: float = 3600.0  # for one pass over a file, without the time that the caller takes for its frames
    memory_bytes: int = 1200 << 20  # allocated by the process; only on systems that can limit it, not on Windows


class BoundedReader(MediaReader):
    """Reads files in a process with limits; usable from any thread, and after being copied or pickled.

    Use in a `with`, or let it end with Python.

    Raises, in addition to the errors of a reader in this process:
        VideoReadError: the file took too long, or the decoder crashed on it.
        VideoTooLargeError: it needed more memory than allowed.
        ImageReadError: one of these, for a picture.
    """

    def __init__(self, limits: ReaderLimits | None = None) -> None:
        self.limits = limits or ReaderLimits()
        self._idle: list[_Process] = []
        self._running: weakref.WeakSet[_Process] = weakref.WeakSet()
        # Of any number of threads, only as many are served at once as there are processors.
        self._turns = threading.BoundedSemaphore(_MOST_PROCESSES)
        self._held = threading.local()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Self], tuple[ReaderLimits]]:
        return type(self), (self.limits,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start a process now, so that it is ready for the first file."""
        process = _Process(self.limits)
        with self._lock:
            self._running.add(process)
            self._idle.append(process)
        return self

    def close(self) -> None:
        """End the processes, even while they work; new ones are started when needed."""
        with self._lock:
            self._idle, running = [], list(self._running)
        for process in running:
            process.kill()

    def index_video(self, source: MediaSource, **arguments: Unpack[IndexArguments]) -> VideoIndex:
        source = _settled(source)
        with self._process(_name_of(source), VideoReadError) as process:
            process.ask({"ask": "index_video", "arguments": arguments}, source)
            head = process.answer()
            index = unpack_index(head, process.read(), source)
            process.expect_end()
            process.index = index
            return index

    def open_picture(self, source: MediaSource) -> Picture:
        source = _settled(source)
        with self._process(_name_of(source), ImageReadError) as process:
            process.ask({"ask": "read_picture"}, source)
            head = process.answer()
            pixels = process.read_array(tuple(head["shape"]))
            process.expect_end()
            return Picture(
                pixels, tuple(head["notes"]), head["stored_as"] and (head["stored_as"][0], head["stored_as"][1])
            )

    def _decode(self, index: VideoIndex, clips: Sequence[np.ndarray]) -> Iterator[DecodedFrames | VideoReadError]:
        """Start decoding at once, so that the first clip may be ready when it is requested."""
        decoded = self._ask_and_decode(index, clips)
        next(decoded)
        return decoded  # type: ignore[return-value]  # only the first item, already taken, is None

    def _ask_and_decode(
        self, index: VideoIndex, clips: Sequence[np.ndarray]
    ) -> Iterator[DecodedFrames | VideoReadError | None]:
        shape = (index.height_px, index.width_px, 3)
        with self._process(index.path, VideoReadError, index) as process:
            if process.index is not index:
                head, parts = pack_index(index)
                process.ask(head | {"ask": "take_index", "index_bytes": sum(map(len, parts))}, index.source, parts)
                process.expect_end()
                process.index = index
            process.ask({"ask": "decode", "clips": [clip.tolist() for clip in clips]}, None)
            yield None
            for clip in clips:
                head = process.answer()
                if "clip_error" in head:
                    yield error_named(head["clip_error"], head["says"], VideoReadError)
                else:
                    yield put_together(index, clip, process.read_array((len(clip), *shape)))
            process.expect_end()

    @contextmanager
    def _process(
        self, name: str, kind: type[EngagementInputError], index: VideoIndex | None = None
    ) -> Iterator["_Process"]:
        """A process for this block only, if possible the one with the index; killed if its work is left unfinished."""
        # A thread that reads two files alternately must not wait for itself.
        waits = not getattr(self._held, "one", False)
        with self._turns if waits else nullcontext():
            self._held.one = True
            try:
                with self._own_process(name, kind, index) as process:
                    yield process
            finally:
                self._held.one = not waits

    @contextmanager
    def _own_process(
        self, name: str, kind: type[EngagementInputError], index: VideoIndex | None
    ) -> Iterator["_Process"]:
        with self._lock:
            self._idle.sort(key=lambda idle: idle.index is not None and idle.index is index)
            process = self._idle.pop() if self._idle else None
        if process is None or not process.is_alive:
            process = _Process(self.limits)
            with self._lock:
                self._running.add(process)
        process.waited_sec = 0.0
        try:
            yield process
        except EngagementInputError:
            raise  # it is one of the ValueErrors below
        except MemoryError as error:
            megabytes = self.limits.memory_bytes >> 20
            raise (VideoTooLargeError if kind is VideoReadError else kind)(
                f"Expected a file that can be read with {megabytes} MB of memory, got one that needs more: {name}; "
                "scale it down."
            ) from error
        except (EOFError, OSError, ValueError, LookupError, TypeError) as error:  # it has ended, or answers nonsense
            found = in_one_line(error) if process.is_done else f"one {process.why_it_ended()}"
            process.is_done = False
            raise kind(f"Expected a readable file, got {found}: {name}; convert or record it again.") from error
        finally:
            with self._lock:
                if is_kept := process.is_done and process.is_alive and len(self._idle) < _MOST_PROCESSES:
                    self._idle.append(process)
            if not is_kept:
                process.kill()


class _Process:
    """A running `reader_process.py` and the state of the exchange with it."""

    def __init__(self, limits: ReaderLimits) -> None:
        self.limits = limits
        self.index: VideoIndex | None = None  # the index loaded in the process
        self.is_done = True  # with all requests
        self.waited_sec = 0.0  # for this file
        self._deadline: float | None = None
        self._late = False
        self._num_body_bytes = 0
        # The process finds the same packages as this one, computes on one thread and shows no error messages.
        places = os.pathsep.join(place for place in sys.path if place)
        environment = os.environ | {"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._popen = subprocess.Popen(
            [sys.executable, "-P", str(PATH), str(limits.memory_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._requests: BinaryIO = self._popen.stdin  # type: ignore[assignment]
        self._answers: BinaryIO = self._popen.stdout  # type: ignore[assignment]
        with suppress(ImportError, AttributeError, OSError):  # only on Linux: a frame passes in fewer steps
            import fcntl

            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.kill = weakref.finalize(self, _end, self._popen)  # also when it is garbage or Python ends
        threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def end_if_late(self) -> None:
        """Called by the watching thread."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._late = True
            self._popen.kill()

    def why_it_ended(self) -> str:
        """Description that follows the word "one"."""
        if self.waited_sec >= self.limits.total_sec:
            return f"that takes more than {self.limits.total_sec:g} s to read"
        if self._late:
            return f"that gives no data for {self.limits.stall_sec:g} s"
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=1)
        return f"that ended its decoder (exit code {self._popen.poll()})"

    def ask(self, head: Head, source: str | bytes | None, parts: Sequence[bytes] = ()) -> None:
        """Send a request; bytes are included, a path is opened by the process, relative to the current folder here."""
        self.is_done = False
        with suppress(OSError):  # the folder was removed; an absolute path is still valid
            head = head | {"folder": str(Path.cwd())}
        body = [*parts, source] if isinstance(source, bytes) else parts
        write_message(self._requests, head | {"path": source if isinstance(source, str) else None}, body)

    def answer(self) -> Head:
        """The next answer that is more than a sign of life.

        Raises:
            EngagementInputError: the process refused the file.
            MemoryError: the process needs more memory than allowed.
            EOFError: the process has ended.
        """
        while True:
            with self._waiting():
                head = read_head(self._answers)
            if self.waited_sec >= self.limits.total_sec:
                raise EOFError
            if not head.get("pulse"):
                break
        self._num_body_bytes = head["body_bytes"]
        self.is_done = "done" in head or "error" in head
        if "error" in head:
            if head["error"] == "MemoryError":
                raise MemoryError
            if not head["error"]:  # a library's own error
                raise ValueError(head["says"])
            raise error_named(head["error"], head["says"], EngagementInputError)
        return head

    def expect_end(self) -> None:
        """
        Raises:
            EOFError: there are more answers.
        """
        if "done" not in self.answer():
            raise EOFError

    def read(self) -> bytes:
        """Body of the last answer."""
        with self._waiting():
            return read_exactly(self._answers, min(self._num_body_bytes, _MAX_BODY_BYTES))

    def read_array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Body of the last answer as an array of `shape`, uint8.

        Raises:
            EOFError: its size is different.
        """
        if self._num_body_bytes != math.prod(shape) or self._num_body_bytes > _MAX_BODY_BYTES:
            raise EOFError
        array = np.empty(shape, np.uint8)
        with self._waiting():
            if self._answers.readinto(array.reshape(-1).data) < array.size:  # type: ignore[attr-defined]
                raise EOFError
        return array

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began = time.monotonic()
        self._deadline = began + min(self.limits.stall_sec, self.limits.total_sec - self.waited_sec)
        try:
            yield
        finally:
            self._deadline = None
            self.waited_sec += time.monotonic() - began


def _end(popen: "subprocess.Popen[bytes]") -> None:
    popen.kill()
    popen.wait()
    for pipe in (popen.stdin, popen.stdout):
        with suppress(OSError):  # data that was not sent yet
            if pipe is not None:
                pipe.close()


def _watch(process: "weakref.ref[_Process]") -> None:
    """End late processes: a blocking read has no timeout on every system, but its process can be ended."""
    while (watched := process()) is not None and watched.is_alive:
        watched.end_if_late()
        del watched
        time.sleep(_WATCH_SEC)


def _settled(source: MediaSource) -> str | bytes:
    """The source as a path, or as a file's content."""
    if isinstance(source, (str, bytes)):
        return source
    return os.fspath(source) if isinstance(source, os.PathLike) else source.read()


def _name_of(source: str | bytes) -> str:
    return source if isinstance(source, str) else "<bytes>"
