"""The chain of parts of a container (boxes, chunks, elements, tags, pages): where it extends beyond the end of the
file, and where it is broken.

A container states the length of each part, so that the next begins where the previous one ends. Bytes that were
overwritten, lost or repeated break this chain; a variable rate, a pause or late sound does not. Only the heads of parts
are read, up to a fixed number.
"""

import mmap
import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from .input_errors import VideoReadError, in_one_line
from .stream_structure import MAX_BREAKS, MAX_PARTS, Buffer, flv_breaks, flv_end, flv_last_sec, ogg_breaks, ts_breaks

_MAX_FILLERS = 10_000  # parts without content; a file with more is not a video

_MP4_MAIN, _MP4_FILLERS = (b"moov", b"moof", b"mdat"), (b"free", b"skip", b"wide")
_MP4_BOXES = {
    *_MP4_MAIN,
    *_MP4_FILLERS,
    b"ftyp",
    b"styp",
    b"sidx",
    b"uuid",
    b"mfra",
    b"emsg",
    b"prft",
    b"meta",
    b"pdin",
}

_KIND = re.compile(rb"[\x20-\x7e]{4}")

_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_TRACKS = b"\x16\x54\xae\x6b"
_OF_SEGMENT = {
    _CLUSTER, _TRACKS, b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x1c\x53\xbb\x6b", b"\x10\x43\xa7\x70",
    b"\x12\x54\xc3\x67", b"\x19\x41\xa4\x69", b"\xec", b"\xbf",
}  # fmt: skip
_SIMPLE_BLOCK, _BLOCK_GROUP = b"\xa3", b"\xa0"
_OF_CLUSTER = {_SIMPLE_BLOCK, _BLOCK_GROUP, b"\xe7", b"\xab", b"\xa7", b"\xec", b"\xbf", b"\xaf", b"\x58\x54"}


class ShortPart(NamedTuple):
    """A part that is truncated by the end of the file."""

    name: str
    missing_bytes: int

    def __str__(self) -> str:
        return f"its {self.name} is {self.missing_bytes:,} bytes short"


class _Element(NamedTuple):
    """A part of Matroska; `end` None: not stated."""

    kind: bytes
    start: int  # of the contents
    end: int | None


@contextmanager
def _opened(source: str | bytes, name: str) -> Iterator[Buffer]:
    if isinstance(source, bytes):
        yield source
        return
    try:
        with Path(source).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except VideoReadError:
        raise
    except (OSError, ValueError, IndexError, OverflowError) as error:  # ValueError: the file has become empty
        found = in_one_line(error)
        raise VideoReadError(f"Expected a readable video file, got {found}: {name}; check the path.") from error


def find_short_part(source: str | bytes, name: str) -> ShortPart | None:
    """The part that extends beyond the end of the file, by the container's own structure; None if there is none.

    Raises:
        VideoReadError: the file was removed, or contains nothing but empty boxes.
    """
    with _opened(source, name) as data:
        if data[4:8] in _MP4_BOXES:
            part, end = _last_mp4_box(data, name)
        elif data[:4] == b"RIFF":
            part, end = _last_riff_chunk(data)
        elif data[:4] == _EBML:
            segment = _segment(data)
            part, end = "segment", (segment and segment.end) or 0
        elif data[:3] == b"FLV":
            part, end = "last tag", flv_end(data)
        else:
            return None
        return ShortPart(part, end - len(data)) if end > len(data) else None


def find_breaks(source: str | bytes, name: str, track_id: int, ts_start: int = 0) -> list[int]:
    """Positions where the chain of parts is broken, ascending; empty if it is intact, and for containers without one.

    Args:
        track_id: the container's number of the video track, by which MPEG-TS counts packets.
        ts_start: only for MPEG-TS, position of a packet to start from.

    Raises:
        VideoReadError: the file went away.
    """
    with _opened(source, name) as data:
        breaks: Generator[int, None, None]
        if data[:4] == _EBML:
            breaks = _matroska_breaks(data)
        elif data[:3] == b"FLV":
            breaks = flv_breaks(data)
        elif data[:4] == b"OggS":
            breaks = ogg_breaks(data)
        elif data[4:8] in _MP4_BOXES:
            breaks = _mp4_breaks(data)
        elif data[:4] == b"RIFF":
            breaks = _riff_breaks(data)
        else:
            tail = data[ts_start:] if ts_start else data
            breaks = (ts_start + position for position in ts_breaks(tail, track_id))
        with closing(breaks):
            return sorted(islice(breaks, MAX_BREAKS))


def last_tag_sec(source: str | bytes, name: str) -> float:
    """Time of the last tag of an FLV file, of any track.

    Raises:
        VideoReadError: the file went away.
    """
    with _opened(source, name) as data:
        return flv_last_sec(data)


def count_edits(source: str | bytes, name: str) -> int:
    """Largest number of entries in an edit list of an MP4 file: one for the shown part, and perhaps one for a delay.

    Raises:
        VideoReadError: the file went away.
    """
    with _opened(source, name) as data:
        return max(
            (int.from_bytes(found[1], "big") for found in re.finditer(rb"elst.{4}(.{4})", data, re.DOTALL)), default=0
        )


# MP4 and AVI


def _mp4_boxes(data: Buffer, at: int = 0, any_kind: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each top-level box, whose end may be beyond the file; stops at data that is not a box."""
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        is_box = kind in _MP4_BOXES or (any_kind and _KIND.fullmatch(kind) and at + size <= len(data))
        if not is_box or size < 8:  # size 0: until the end of the file
            return
        yield kind, at, at + size
        at += size


def _last_mp4_box(data: Buffer, name: str) -> tuple[str, int]:
    """Name and end of the last top-level box, complete or not, that pictures depend on."""
    last, num_fillers = (b"", 0), 0
    for kind, _, end in _mp4_boxes(data):
        num_fillers += kind in _MP4_FILLERS
        if num_fillers > _MAX_FILLERS:  # FFmpeg would keep reading for minutes
            found = f"got more than {_MAX_FILLERS:,} empty boxes"
            raise VideoReadError(f"Expected a video, {found}, in {name}; copy or record it again.")
        if kind in _MP4_MAIN:
            last = kind, end
    return f"box {last[0].decode()}", last[1]


def _mp4_breaks(data: Buffer) -> Generator[int, None, None]:
    """Breaks in a film in fragments: data between two of them is not a box, or one lacks its expected content."""
    at = 0
    while at < len(data):
        for kind, start, end in _mp4_boxes(data, at, any_kind=True):
            if kind == b"moof" and not _is_fragment(data, start, min(end, len(data))):
                yield start
            at = end
        if at >= len(data):
            return
        yield at
        following = data.find(b"moof", at + 5)
        if following < 0:
            return
        at = following - 4


def _is_fragment(data: Buffer, start: int, end: int) -> bool:
    """Whether the inner boxes fill it exactly."""
    inner, at = [(start + 8, end)], start + 8
    while inner:
        at, stop = inner.pop()
        while at < stop:
            size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
            if size < 8 or at + size > stop or not _KIND.fullmatch(kind):
                return False
            if kind == b"traf":
                inner.append((at + 8, at + size))
            at += size
    return True


def _last_riff_chunk(data: Buffer) -> tuple[str, int]:
    at = 0
    for _ in range(_MAX_FILLERS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        # An unfinished recording leaves the size open.
        if at + 8 > len(data) or data[at : at + 4] != b"RIFF" or size in (0, 0xFFFFFFFF):
            break
        at += 8 + size
    return "RIFF chunk", at


def _riff_breaks(data: Buffer) -> Generator[int, None, None]:
    """At most one break: only a chunk's size leads to the next one."""
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        kind = bytes(data[at : at + 4])
        if not _KIND.fullmatch(kind):
            yield at
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > len(data) and kind not in (b"RIFF", b"LIST"):
            yield at
            return
        at += 12 if kind in (b"RIFF", b"LIST") else 8 + size + size % 2


# Matroska and WebM


def _element(data: Buffer, at: int) -> _Element | None:
    """The element that starts here; None if it is not an element, or its head is truncated."""
    first = data[at] if at < len(data) else 0
    start = at + 9 - first.bit_length()  # of the size; the number of leading zero bits gives the length of the kind
    head = data[start] if start - at <= 4 and start < len(data) else 0
    num_bytes = 9 - head.bit_length()
    if not first or not head or start + num_bytes > len(data):
        return None
    unknown = (1 << 7 * num_bytes) - 1  # written by live recordings
    size = int.from_bytes(data[start : start + num_bytes], "big") & unknown
    return _Element(bytes(data[at:start]), start + num_bytes, None if size == unknown else start + num_bytes + size)


def _segment(data: Buffer) -> _Element | None:
    head = _element(data, 0)
    segment = _element(data, head.end) if head and head.end is not None else None
    return segment if segment and segment.kind == _SEGMENT else None


def _matroska_breaks(data: Buffer) -> Generator[int, None, None]:
    segment = _segment(data)
    if segment is None:
        return
    tracks: dict[int, bool] = {}
    at, num_parts = segment.start, 0
    while at < len(data) and num_parts < MAX_PARTS:
        part = _element(data, at)
        end = None if part is None else part.end
        is_sound = part is not None and part.kind in _OF_SEGMENT and (end is None or end <= len(data))
        if is_sound and part is not None and (part.kind == _CLUSTER or end is None):
            at, num_children, is_sound = _walk_cluster(data, part.start, end, tracks)
            num_parts += num_children
        elif is_sound and part is not None and end is not None:
            if part.kind == _TRACKS:
                tracks = _tracks(data, part.start, end)
            at = end
        if not is_sound:
            # A recording that simply ends within its last part does not state its length.
            if segment.end is not None or data.find(_CLUSTER, at + 1) >= 0:
                yield at
            at = data.find(_CLUSTER, at + 1)
            if at < 0:
                return
        num_parts += 1


def _walk_cluster(data: Buffer, at: int, end: int | None, tracks: dict[int, bool]) -> tuple[int, int, bool]:
    """Where the cluster ends or breaks, the number of its parts, and whether it is intact."""
    limit, num_parts = len(data) if end is None else end, 0
    while at < limit:
        part = _element(data, at)
        if end is None and part is not None and part.kind in _OF_SEGMENT and len(part.kind) == 4:
            return at, num_parts, True
        if part is None or part.kind not in _OF_CLUSTER or part.end is None or part.end > limit:
            return at, num_parts, False
        if part.kind == _SIMPLE_BLOCK and tracks and part.start + 4 <= part.end:
            number = data[part.start]
            is_video = tracks.get(number & 0x7F if number & 0x80 else (number & 0x3F) << 8 | data[part.start + 1])
            # Only sound has several frames in a block ("lacing").
            if is_video is None or (is_video and data[part.start + 3] & 0x06):
                return at, num_parts, False
        at = part.end
        num_parts += 1
    return at, num_parts, True


def _tracks(data: Buffer, at: int, end: int) -> dict[int, bool]:
    """The tracks' numbers, and whether each is a video."""
    found = {}
    for track in _children(data, at, end):
        values = {part.kind: data[part.start : part.end] for part in _children(data, track.start, track.end or end)}
        found[int.from_bytes(values.get(b"\xd7", b""), "big")] = values.get(b"\x83") == b"\1"
    return found


def _children(data: Buffer, at: int, end: int) -> Iterator[_Element]:
    while at < end and (part := _element(data, at)) and part.end is not None:
        yield part
        at = part.end
