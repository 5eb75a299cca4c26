"""The chain of parts in containers made for streaming: tags of FLV, pages of Ogg, packets of MPEG-TS.

`video_structure` uses this module and explains the purpose of such chains.
"""

import mmap
import re
from collections.abc import Generator, Iterator
from typing import TypeAlias

import numpy as np

Buffer: TypeAlias = "bytes | mmap.mmap"  # a file's contents
MAX_PARTS = 500_000  # per file: more than two hours with one frame per fragment, or a second of work
MAX_BREAKS = 1_000
_TS_PACKETS = {0: 188, 4: 192}  # offset of the first sync byte: distance to the next


def _flv_tags(data: Buffer, at: int) -> Iterator[int]:
    """End of each tag, including the size that follows it; stops at data that is not a tag."""
    coding = -1  # of the video; constant in a file
    for _ in range(MAX_PARTS):
        kind = data[at] & 0x1F if at + 12 <= len(data) else 0
        if kind not in (8, 9, 18) or data[at + 8 : at + 11] != b"\0\0\0":
            return
        if kind == 9:
            # The lower half is the codec, unless the highest bit says that four letters name it.
            codec = 0x80 if data[at + 11] & 0x80 else data[at + 11] & 0x0F
            is_h264 = codec == 7  # has packets for tables, pictures and the end
            if coding not in (-1, codec) or (is_h264 and data[at + 12 : at + 13] > b"\2"):
                return
            coding = codec
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
        yield at


def _flv_start(data: Buffer) -> int:
    return int.from_bytes(data[5:9], "big") + 4


def flv_end(data: Buffer) -> int:
    """End of the last tag, if it is beyond the end of the file; else 0."""
    *_, end = 0, *_flv_tags(data, _flv_start(data))
    return end if end > len(data) + 4 else 0  # the last size may be missing


def flv_last_sec(data: Buffer) -> float:
    """Time of the last complete tag, of any track."""
    before, at = 0, _flv_start(data)
    for end in _flv_tags(data, at):
        if end <= len(data) + 4:
            before, at = at, end
    return (
        int.from_bytes(data[before + 7 : before + 8] + data[before + 4 : before + 7], "big") / 1000 if before else 0.0
    )


def flv_breaks(data: Buffer) -> Generator[int, None, None]:
    """Tags that do not lead to the next one, or have a different codec from earlier ones."""
    at = _flv_start(data)
    while at < len(data):
        before = at
        for end in _flv_tags(data, at):
            before, at = at, end
        if at + 11 > len(data) and at <= len(data) + 4:
            return
        # A wrong size leads to a wrong position, so the previous tag may be the broken one.
        yield before
        for found in re.finditer(rb"(?=[\x08\x09\x12](...)....\0\0\0)", data, re.DOTALL):
            end = found.start() + 11 + int.from_bytes(found[1], "big")
            if found.start() > before and int.from_bytes(data[end : end + 4], "big") == end - found.start():
                at = found.start()
                break
        else:
            return


def ogg_breaks(data: Buffer) -> Generator[int, None, None]:
    """Pages that do not lead to the next one, or whose number jumps."""
    at = 0
    numbers: dict[bytes, int] = {}  # number of the latest page of each stream
    for _ in range(MAX_PARTS):
        if at >= len(data):
            return
        if data[at : at + 4] != b"OggS" or at + 27 > len(data):
            yield at
            at = data.find(b"OggS", at + 1)
            if at < 0:
                return
            continue
        stream, number = bytes(data[at + 14 : at + 18]), int.from_bytes(data[at + 18 : at + 22], "little")
        if number not in (0, numbers.get(stream, number - 1) + 1):
            yield at
        numbers[stream] = number
        num_segments = data[at + 26]
        at += 27 + num_segments + sum(data[at + 27 : at + 27 + num_segments])


def ts_breaks(data: Buffer, track_id: int) -> list[int]:
    """Positions where packets are misaligned, or the video's packet counter jumps."""
    starts = (at for at, size in _TS_PACKETS.items() if data[at : at + 1] == data[at + size : at + size + 1] == b"G")
    at = next(starts, -1)
    if at < 0:
        return []
    size = _TS_PACKETS[at]
    breaks: list[int] = []
    in_step = re.compile(rb"G(?=.{%d}G.{%d}G)" % (size - 1, size - 1), re.DOTALL)
    content = np.frombuffer(data, np.uint8)
    positions, heads = [], []
    while len(breaks) < MAX_BREAKS:
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
        positions: (num_packets,), of packets in the file.
        heads: (num_packets, 10), uint8, from `_ts_heads`.
    """
    is_video = ((heads[:, 1] & 0x1F).astype(int) << 8 | heads[:, 2]) == track_id
    has_payload = heads[:, 3] & 0x10 != 0
    chosen = is_video & has_payload
    num_tables = np.cumsum((heads[:, 1] & 0x1F == 0) & (heads[:, 2] == 0) & (heads[:, 3] & 15 == 0))[chosen]
    counts, positions, heads = heads[chosen, 3].astype(int) & 15, positions[chosen], heads[chosen]
    is_announced = (heads[:, 3] & 0x20 != 0) & (heads[:, 4] > 0) & (heads[:, 5] & 0x80 != 0)
    jumps = np.diff(counts) % 16 > 1  # a packet may be repeated
    is_broken = np.concatenate([[False], jumps]) & ~is_announced | (heads[:, 1] & 0x80 != 0)
    begins = heads[:, 1] & 0x40 != 0  # start of a picture, with a start code and the kind of stream
    # If another recording was appended, all counters restart, beginning with its table of programmes.
    is_joined = begins & (counts == 0) & np.concatenate([[False], np.diff(num_tables) > 0])
    is_broken &= ~is_joined
    if begins.any():
        is_broken |= begins & (heads[:, 6:] != (0, 0, 1, np.bincount(heads[begins, 9]).argmax())).any(axis=1)
    return positions[is_broken].tolist()
