"""The chain of parts that a container is made of (boxes, chunks, elements, tags, pages): where it reaches beyond the
end of the file, and where it is broken.

Whoever writes a container says how long each part is, so that the next begins where the one before ends. Bytes that
were overwritten, lost or doubled break this chain; a rate that varies, a pause or a late sound does not. Only heads of
parts are read, and never more than a set number of them.
"""

import mmap
import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .input_errors import VideoReadError, in_one_line

_MAX_PARTS = 2_000_000  # of a file: nine hours of fragments of one frame each, or a second and a half
_MAX_FILLERS = 10_000  # parts without content; a file of nothing else is no video
_MAX_BREAKS = 1_000

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

_TS_PACKETS = {0: 188, 4: 192}  # where the first sync byte lies: how far it is to the next


class ShortPart(NamedTuple):
    """A part of which a piece is missing at the end of the file."""

    name: str
    missing_bytes: int

    def __str__(self) -> str:
        return f"its {self.name} is {self.missing_bytes:,} bytes short"


class _Element(NamedTuple):
    """A part of Matroska; `end` None: it does not say."""

    kind: bytes
    start: int  # of its contents
    end: int | None


@contextmanager
def _opened(source: str | bytes, name: str) -> Iterator["bytes | mmap.mmap"]:
    if isinstance(source, bytes):
        yield source
        return
    try:
        with Path(source).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (OSError, ValueError, IndexError, OverflowError) as error:  # ValueError: it has become empty
        found = in_one_line(error)
        raise VideoReadError(f"Expected a readable video file, got {found}: {name}; check the path.") from error


def find_short_part(source: str | bytes, name: str) -> ShortPart | None:
    """How the container's own structure reaches beyond the end of the file, or None where it does not.

    Raises:
        VideoReadError: the file went away.
    """
    with _opened(source, name) as data:
        if data[4:8] in _MP4_BOXES:
            part, end = _last_mp4_box(data)
        elif data[:4] == b"RIFF":
            part, end = _last_riff_chunk(data)
        elif data[:4] == _EBML:
            segment = _segment(data)
            part, end = "segment", (segment and segment.end) or 0
        elif data[:3] == b"FLV":
            part, end = "last tag", _flv_end(data)
        else:
            return None
        return ShortPart(part, end - len(data)) if end > len(data) else None


def find_breaks(source: str | bytes, name: str, track_id: int) -> list[int]:
    """Where in the file the chain of parts breaks, ascending; empty where it holds, and of containers without one.

    Args:
        track_id: of the video as the container numbers it, which is how MPEG-TS counts packets.

    Raises:
        VideoReadError: the file went away.
    """
    with _opened(source, name) as data:
        breaks: Generator[int, None, None]
        if data[:4] == _EBML:
            breaks = _matroska_breaks(data)
        elif data[:3] == b"FLV":
            breaks = _flv_breaks(data)
        elif data[:4] == b"OggS":
            breaks = _ogg_breaks(data)
        elif data[4:8] in _MP4_BOXES:
            breaks = _mp4_breaks(data)
        elif data[:4] == b"RIFF":
            breaks = _riff_breaks(data)
        else:
            breaks = (position for position in _ts_breaks(data, track_id))
        with closing(breaks):
            return sorted(islice(breaks, _MAX_BREAKS))


def count_edits(source: str | bytes, name: str) -> int:
    """The most entries in an edit list of an MP4 file: one that shows a stretch, and perhaps one that waits before it.

    Raises:
        VideoReadError: the file went away.
    """
    with _opened(source, name) as data:
        return max(
            (int.from_bytes(found[1], "big") for found in re.finditer(rb"elst.{4}(.{4})", data, re.DOTALL)), default=0
        )


# MP4 and AVI


def _mp4_boxes(data: "bytes | mmap.mmap", at: int = 0, any_kind: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each top-level box, the end perhaps beyond the file; ends at what is none."""
    num_fillers = 0
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            return
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        num_fillers += kind in _MP4_FILLERS
        is_box = kind in _MP4_BOXES or (any_kind and _KIND.fullmatch(kind) and at + size <= len(data))
        if not is_box or size < 8 or num_fillers > _MAX_FILLERS:  # size 0: up to the end of the file
            return
        yield kind, at, at + size
        at += size


def _last_mp4_box(data: "bytes | mmap.mmap") -> tuple[str, int]:
    """Name and end of the last top-level box, whole or not, that pictures depend on."""
    last = (b"", 0)
    for kind, _, end in _mp4_boxes(data):
        if kind in _MP4_MAIN:
            last = kind, end
    return f"box {last[0].decode()}", last[1]


def _mp4_breaks(data: "bytes | mmap.mmap") -> Generator[int, None, None]:
    """Of a film in fragments: what lies between two of them is no box, or one does not hold what it should."""
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


def _is_fragment(data: "bytes | mmap.mmap", start: int, end: int) -> bool:
    """Whether the boxes within fill it exactly."""
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


def _last_riff_chunk(data: "bytes | mmap.mmap") -> tuple[str, int]:
    at = 0
    for _ in range(_MAX_FILLERS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        # An unfinished recording leaves the size open.
        if at + 8 > len(data) or data[at : at + 4] != b"RIFF" or size in (0, 0xFFFFFFFF):
            break
        at += 8 + size
    return "RIFF chunk", at


def _riff_breaks(data: "bytes | mmap.mmap") -> Generator[int, None, None]:
    """At most one: a chunk's size is all that leads to the next."""
    at = 12
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            return
        kind = bytes(data[at : at + 4])
        if not _KIND.fullmatch(kind):
            yield at
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 12 if kind in (b"RIFF", b"LIST") else 8 + size + size % 2


# Matroska and WebM


def _element(data: "bytes | mmap.mmap", at: int) -> _Element | None:
    """What begins here; None for what can be no element, or whose head is cut."""
    first = data[at] if at < len(data) else 0
    start = at + 9 - first.bit_length()  # of the size; the number of leading zero bits says how long the kind is
    head = data[start] if start - at <= 4 and start < len(data) else 0
    num_bytes = 9 - head.bit_length()
    if not first or not head or start + num_bytes > len(data):
        return None
    unknown = (1 << 7 * num_bytes) - 1  # what a live recording writes
    size = int.from_bytes(data[start : start + num_bytes], "big") & unknown
    return _Element(bytes(data[at:start]), start + num_bytes, None if size == unknown else start + num_bytes + size)


def _segment(data: "bytes | mmap.mmap") -> _Element | None:
    head = _element(data, 0)
    segment = _element(data, head.end) if head and head.end is not None else None
    return segment if segment and segment.kind == _SEGMENT else None


def _matroska_breaks(data: "bytes | mmap.mmap") -> Generator[int, None, None]:
    segment = _segment(data)
    if segment is None:
        return
    tracks: dict[int, bool] = {}
    at, num_parts = segment.start, 0
    while at < len(data) and num_parts < _MAX_PARTS:
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
            # A recording that just ends within its last part says nowhere how long it is.
            if segment.end is not None or data.find(_CLUSTER, at + 1) >= 0:
                yield at
            at = data.find(_CLUSTER, at + 1)
            if at < 0:
                return
        num_parts += 1


def _walk_cluster(
    data: "bytes | mmap.mmap", at: int, end: int | None, tracks: dict[int, bool]
) -> tuple[int, int, bool]:
    """Where it ends or breaks, the number of its parts, whether it is sound."""
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
            # Several frames in a block ("lacing") are for sound alone.
            if is_video is None or (is_video and data[part.start + 3] & 0x06):
                return at, num_parts, False
        at = part.end
        num_parts += 1
    return at, num_parts, True


def _tracks(data: "bytes | mmap.mmap", at: int, end: int) -> dict[int, bool]:
    """The tracks' numbers, and whether each is a video."""
    found = {}
    for track in _children(data, at, end):
        values = {part.kind: data[part.start : part.end] for part in _children(data, track.start, track.end or end)}
        found[int.from_bytes(values.get(b"\xd7", b""), "big")] = values.get(b"\x83") == b"\1"
    return found


def _children(data: "bytes | mmap.mmap", at: int, end: int) -> Iterator[_Element]:
    while at < end and (part := _element(data, at)) and part.end is not None:
        yield part
        at = part.end


# FLV, Ogg and MPEG-TS


def _flv_tags(data: "bytes | mmap.mmap", at: int) -> Iterator[int]:
    """End of each tag with the size that follows it; ends at what is none."""
    coding = -1  # of the video, which does not change
    for _ in range(_MAX_PARTS):
        kind = data[at] & 0x1F if at + 12 <= len(data) else 0
        if kind not in (8, 9, 18) or data[at + 8 : at + 11] != b"\0\0\0":
            return
        if kind == 9:
            # The lower half is the codec, but where the highest bit says that four letters name it.
            codec = 0x80 if data[at + 11] & 0x80 else data[at + 11] & 0x0F
            is_h264 = codec == 7  # of which there are tables, pictures and an end
            if coding not in (-1, codec) or (is_h264 and data[at + 12 : at + 13] > b"\2"):
                return
            coding = codec
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
        yield at


def _flv_start(data: "bytes | mmap.mmap") -> int:
    return int.from_bytes(data[5:9], "big") + 4


def _flv_end(data: "bytes | mmap.mmap") -> int:
    *_, end = 0, *_flv_tags(data, _flv_start(data))
    return end if end > len(data) + 4 else 0  # the last size may be left out


def _flv_breaks(data: "bytes | mmap.mmap") -> Generator[int, None, None]:
    at = _flv_start(data)
    while at < len(data):
        before = at
        for end in _flv_tags(data, at):
            before, at = at, end
        if at + 11 > len(data) and at <= len(data) + 4:
            return
        # A size that is wrong leads astray: what is broken may be the tag before.
        yield before
        for found in re.finditer(rb"(?=[\x08\x09\x12](...)....\0\0\0)", data, re.DOTALL):
            end = found.start() + 11 + int.from_bytes(found[1], "big")
            if found.start() > before and int.from_bytes(data[end : end + 4], "big") == end - found.start():
                at = found.start()
                break
        else:
            return


def _ogg_breaks(data: "bytes | mmap.mmap") -> Generator[int, None, None]:
    at, numbers = 0, {}
    for _ in range(_MAX_PARTS):
        if at >= len(data):
            return
        if data[at : at + 4] != b"OggS" or at + 27 > len(data):
            yield at
            at = data.find(b"OggS", at + 1)
            if at < 0:
                return
            continue
        stream, number = data[at + 14 : at + 18], int.from_bytes(data[at + 18 : at + 22], "little")
        if number not in (0, numbers.get(stream, number - 1) + 1):
            yield at
        numbers[stream] = number
        num_segments = data[at + 26]
        at += 27 + num_segments + sum(data[at + 27 : at + 27 + num_segments])


def _ts_breaks(data: "bytes | mmap.mmap", track_id: int) -> list[int]:
    """Where packets are out of step, or the video's own count of them jumps."""
    starts = (at for at, size in _TS_PACKETS.items() if data[at : at + 1] == data[at + size : at + size + 1] == b"G")
    at = next(starts, -1)
    if at < 0:
        return []
    size, breaks = _TS_PACKETS[at], []
    in_step = re.compile(rb"G(?=.{%d}G.{%d}G)" % (size - 1, size - 1), re.DOTALL)
    content = np.frombuffer(data, np.uint8)
    positions, heads = [], []
    while len(breaks) < _MAX_BREAKS:
        packets = content[at : len(content) - (len(content) - at) % size].reshape(-1, size)
        lost = np.flatnonzero(packets[:, 0] != 0x47)
        num_whole = int(lost[0]) if len(lost) else len(packets)
        positions.append(at + size * np.arange(num_whole))
        heads.append(_ts_heads(packets[:num_whole]))
        at += size * num_whole
        found = in_step.search(data, at) if len(lost) else None
        breaks += [at] if len(lost) else []
        if not found:
            break
        at = found.start()
    return breaks + _ts_jumps(np.concatenate(positions), np.concatenate(heads), track_id)


def _ts_heads(packets: np.ndarray) -> np.ndarray:
    """(num_packets, size), uint8 -> (num_packets, 10), uint8: the first six bytes, then four of the contents."""
    start = np.minimum(4 + np.where(packets[:, 3] & 0x20, packets[:, 4].astype(int) + 1, 0), 184)
    rows = np.arange(len(packets))
    return np.column_stack([packets[:, :6], *(packets[rows, start + place] for place in range(4))])


def _ts_jumps(positions: np.ndarray, heads: np.ndarray, track_id: int) -> list[int]:
    """
    Args:
        positions: (num_packets,) of packets in the file.
        heads: (num_packets, 10), uint8, as `_ts_heads` has them.
    """
    is_video = ((heads[:, 1] & 0x1F).astype(int) << 8 | heads[:, 2]) == track_id
    has_payload = heads[:, 3] & 0x10 != 0
    chosen = is_video & has_payload
    counts, positions, heads = heads[chosen, 3].astype(int) & 15, positions[chosen], heads[chosen]
    is_announced = (heads[:, 3] & 0x20 != 0) & (heads[:, 4] > 0) & (heads[:, 5] & 0x80 != 0)
    jumps = np.diff(counts) % 16 > 1  # a packet may come twice
    is_broken = np.concatenate([[False], jumps]) & ~is_announced | (heads[:, 1] & 0x80 != 0)
    begins = heads[:, 1] & 0x40 != 0  # a picture, and so with a start code and what kind of stream it is of
    if begins.any():
        is_broken |= begins & (heads[:, 6:] != (0, 0, 1, np.bincount(heads[begins, 9]).argmax())).any(axis=1)
    return positions[is_broken].tolist()
