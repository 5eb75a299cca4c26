"""The process that opens untrusted files: it can be killed, and has a memory limit.

`bounded_reader` starts this file by its path, wherever it is (an installed package, a folder of `trust_remote_code`),
sends requests over standard input and reads answers from standard output, as messages of JSON and raw bytes, which
cannot run any code. Neither torch nor transformers is imported here, so that it starts quickly.
"""

import dataclasses
import gc
import json
import os
import signal
import struct
import sys
import threading
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict, cast

import numpy as np

if TYPE_CHECKING:
    from .video_index import IndexArguments, VideoIndex

_PULSE_SEC = 0.5
_HEAD = struct.Struct("<I")
_MAX_HEAD_BYTES = 1 << 20
_BAND_BYTES = 1 << 24  # of a picture, sent at once to limit memory


PATH = Path(__file__).absolute()  # not resolved: in a cache of links only the links are in one folder
Plain = str | int | float | bool | None


class Head(TypedDict, total=False):
    """Header of a message; each message has some of these keys."""

    body_bytes: int
    # In requests:
    ask: str
    folder: str  # a relative path starts here
    path: str | None  # None: the body contains the file
    arguments: "IndexArguments"
    index_bytes: int  # length of the index in the body, before the file
    clips: list[list[int]]
    # In answers:
    done: bool
    pulse: bool
    error: str
    clip_error: str
    says: str
    values: dict[str, Plain | Sequence[str]]  # of an index
    arrays: list[tuple[str, str, int]]  # name, type and length
    shape: Sequence[int]
    notes: Sequence[str]
    stored_as: tuple[str, str] | None


def write_message(pipe: BinaryIO, head: Head, parts: Sequence[bytes | memoryview] = ()) -> None:
    """Write a message; its head contains the length of the body."""
    text = json.dumps(head | {"body_bytes": sum(len(part) for part in parts)}).encode()
    pipe.write(_HEAD.pack(len(text)) + text)
    for part in parts:
        pipe.write(part)
    pipe.flush()


def read_head(pipe: BinaryIO) -> Head:
    """The next message's head; its body of `body_bytes` follows.

    Raises:
        EOFError: the other side has ended, or sent something that is not a message.
    """
    (length,) = _HEAD.unpack(read_exactly(pipe, _HEAD.size))
    if length > _MAX_HEAD_BYTES:
        raise EOFError
    head = json.loads(read_exactly(pipe, length))
    if not isinstance(head, dict) or not isinstance(head.get("body_bytes"), int) or head["body_bytes"] < 0:
        raise EOFError
    return cast("Head", head)


def read_exactly(pipe: BinaryIO, num_bytes: int) -> bytes:
    """
    Raises:
        EOFError: there are fewer bytes.
    """
    content = pipe.read(num_bytes)
    if len(content) < num_bytes:
        raise EOFError
    return content


def pack_index(index: "VideoIndex") -> tuple[Head, list[bytes]]:
    """An index without its source: plain values, and the arrays' bytes."""
    values: dict[str, Plain | Sequence[str]] = {}
    arrays: list[tuple[str, str, int]] = []
    parts: list[bytes] = []
    for field in dataclasses.fields(index):
        value = getattr(index, field.name)
        if isinstance(value, np.ndarray):
            arrays.append((field.name, value.dtype.str, len(value)))
            parts.append(np.ascontiguousarray(value).tobytes())
        elif field.name != "source":
            values[field.name] = value
    return {"values": values, "arrays": arrays}, parts


def unpack_index(head: Head, body: bytes, source: str | bytes) -> "VideoIndex":
    """
    Raises:
        ValueError, TypeError: the message is not a result of `pack_index`.
    """
    from .video_index import VideoIndex

    values: dict[str, object] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in head["values"].items()
    }
    at = 0
    for name, kind, length in head["arrays"]:
        if kind not in ("<i8", "<f8"):
            raise ValueError(f"an array of {kind!r}")
        values[name] = np.frombuffer(body, kind, length, at)
        at += length * 8
    return VideoIndex(source=source, **values)  # type: ignore[arg-type]  # by name, as packed


class _Server:
    """Answers requests one after another."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests, self._answers = requests, answers
        self._writing = threading.Lock()
        self._index: VideoIndex | None = None
        self._is_busy = False
        threading.Thread(target=self._show_pulse, args=(os.getppid(),), daemon=True).start()

    def serve(self) -> None:
        """Answer requests until the other side closes the pipe."""
        from .input_errors import EngagementInputError
        from .video_decoding import clip_pictures  # noqa: F401  # with all its dependencies

        gc.freeze()  # loaded modules need not be checked for garbage again
        while True:
            try:
                head = read_head(self._requests)
                body = read_exactly(self._requests, head["body_bytes"])
            except EOFError:
                return
            self._is_busy = True
            try:
                with suppress(OSError):
                    os.chdir(head.get("folder", "."))
                getattr(self, f"_{head['ask']}")(head, body)
                answer: Head = {"done": True}
            except EngagementInputError as error:
                answer = {"error": type(error).__name__, "says": str(error)}
            except MemoryError:
                answer = {"error": "MemoryError", "says": ""}
            except Exception as error:  # raised by a library for an invalid file
                answer = {"error": "", "says": f"{type(error).__name__}: {error}"[:500]}
            self._is_busy = False
            self._send(answer)
            gc.collect()  # PyAV's files are in reference cycles, and each keeps its decoder's threads and pictures

    def _send(self, head: Head, parts: Sequence[bytes | memoryview] = ()) -> None:
        with self._writing:
            write_message(self._answers, head, parts)

    def _show_pulse(self, parent_pid: int) -> None:
        """Send a sign of life whenever packets were read since the last one; exit if the parent process has ended."""
        from .video_packets import PROGRESS

        seen = -1
        while os.getppid() == parent_pid:
            time.sleep(_PULSE_SEC)
            if self._is_busy and PROGRESS.num_packets != seen and self._writing.acquire(blocking=False):
                seen = PROGRESS.num_packets
                with suppress(OSError):
                    write_message(self._answers, {"pulse": True})
                self._writing.release()
        os._exit(1)

    def _index_video(self, head: Head, body: bytes) -> None:
        from .video_index import index_video

        self._index = None
        source = body if head["path"] is None else head["path"]
        self._index = index_video(source, **head["arguments"])
        self._send(*pack_index(self._index))

    def _take_index(self, head: Head, body: bytes) -> None:
        length = head["index_bytes"]
        source = body[length:] if head["path"] is None else head["path"]
        self._index = unpack_index(head, body[:length], source)

    def _decode(self, head: Head, body: bytes) -> None:
        from .video_decoding import clip_pictures

        assert self._index is not None  # `bounded_reader` sends it first
        clips = [np.array(clip, np.int64) for clip in head["clips"]]
        for pictures in clip_pictures(self._index, clips):
            if isinstance(pictures, ValueError):
                self._send({"clip_error": type(pictures).__name__, "says": str(pictures)})
                continue
            with self._writing:
                # In order of the clip, with repeats: the other side copies the bytes to their place on arrival.
                parts = [np.ascontiguousarray(picture).reshape(-1).data for picture in pictures]
                write_message(self._answers, {}, parts)

    def _read_picture(self, head: Head, body: bytes) -> None:
        from .picture_files import read_picture

        picture = read_picture(body if head["path"] is None else head["path"], is_limited=True)
        flat = np.ascontiguousarray(picture.pixels).reshape(-1).data
        bands = [flat[start : start + _BAND_BYTES] for start in range(0, len(flat), _BAND_BYTES)]
        self._send({"shape": picture.pixels.shape, "notes": picture.notes, "stored_as": picture.stored_as}, bands)


def _limit_memory(num_bytes: int) -> None:
    """Limit the memory that this process may allocate in addition; only on systems that support it."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, num_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """`reader_process.py MEMORY_BYTES`"""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output printed by a library must not mix with the answers
    _limit_memory(int(sys.argv[1]))
    with suppress(BrokenPipeError):
        _Server(sys.stdin.buffer, answers).serve()


if __name__ == "__main__":
    # Relative imports need a package, which does not exist where transformers put these files in one folder.
    _folder = types.ModuleType("_engagement_reader")
    _folder.__path__ = [str(PATH.parent)]
    sys.modules[_folder.__name__] = _folder
    __package__ = _folder.__name__
    main()
