"""Reads from a packet's bits whether decoding may start there, whether it gives a frame, and which half of an
interlaced frame it is. Damaged bits give some answer or none; nothing here raises.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_INTRA_CODECS = {"prores", "dnxhd", "rawvideo", "png", "dvvideo"}
# Types of AV1's units (OBUs), and the types that have to be read.
_AV1_SEQUENCE_HEADER, _AV1_FRAME_HEADER, _AV1_FRAME, _AV1_TILE_LIST = 1, 3, 6, 8
_AV1_HEADERS = (_AV1_SEQUENCE_HEADER, _AV1_FRAME_HEADER, _AV1_FRAME)
_HEVC_STARTS, _HEVC_TABLES = frozenset(range(16, 22)), frozenset((32, 33, 34))
_H264_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # profiles with additional fields


def describe_packet(codec: str, data: bytes, extradata: bytes) -> tuple[bool, bool, bool] | None:
    """(nothing later depends on earlier packets, gives one frame, contains tables), or None if that is unclear.

    Read from the bitstream, since containers mark as key frames pictures that are not, or that need earlier ones.
    """
    if codec in _INTRA_CODECS:
        return True, True, False
    if not data:
        return None
    if codec in ("h264", "hevc"):
        return _describe_nal_units(codec, data, extradata)
    if codec == "av1":
        return _describe_av1_units(data)
    if codec == "vp8":
        return not data[0] & 1, bool(data[0] & 0x10), False
    if codec == "vp9" and data[0] >> 4 in (8, 9, 10):  # frame marker 2, then the profile; 3 is laid out differently
        is_superframe = data[-1] >> 5 == 6
        return not data[0] & 0x0C, is_superframe or bool(data[0] & 0x0A), False
    if codec == "mpeg4":
        pictures = [match.end() for match in re.finditer(rb"\x00\x00\x01\xb6", data)]
        # AVI packs B-frames as two pictures in a packet, followed by a placeholder.
        is_plain = len(pictures) == 1 and len(data) - pictures[0] > 8
        return (
            (data[pictures[0]] >> 6 == 0, True, bool(re.search(rb"\x00\x00\x01[\x20-\x2f]", data)))
            if is_plain
            else None
        )
    if codec == "mjpeg":
        return (True, True, b"\xff\xc4" in data) if b"\xff\xdb" in data else None
    return None


def _describe_nal_units(codec: str, data: bytes, extradata: bytes) -> tuple[bool, bool, bool] | None:
    starts = _nal_starts(data, _nal_length_size(codec, extradata))
    if codec == "h264":
        types = {data[at] & 31 for at in starts}
        return (5 in types, True, 7 in types or 8 in types) if 1 in types or 5 in types else None
    types = {data[at] >> 1 & 63 for at in starts}
    if min(types, default=32) >= 32:
        return None
    return not types.isdisjoint(_HEVC_STARTS), True, not types.isdisjoint(_HEVC_TABLES)


def _nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Number of bytes of each unit's length, from avcC or hvcC; 0: units are separated by start codes."""
    at = 4 if codec == "h264" else 21
    if not extradata or extradata[0] != 1 or len(extradata) <= at:
        return 0
    return (extradata[at] & 3) + 1


def _nal_starts(data: bytes, length_size: int) -> list[int]:
    """Position of each NAL unit's first byte, which contains its type."""
    starts, end = [], len(data)
    if length_size:
        at = length_size
        while at < end:
            starts.append(at)
            at += int.from_bytes(data[at - length_size : at]) + length_size
        return starts
    at = data.find(b"\0\0\1") + 3
    while 3 <= at < end:
        starts.append(at)
        at = data.find(b"\0\0\1", at) + 3
    return starts


def is_disposable(codec: str, data: bytes, extradata: bytes | None) -> bool:
    """Whether `skip_frame` "NONREF" would skip a packet of H.264 or MPEG-4, since no picture depends on it."""
    if codec == "mpeg4":
        picture = re.search(rb"\x00\x00\x01\xb6(.)", data, re.DOTALL)
        return picture is not None and picture[1][0] >> 6 == 2
    heads = [data[at] for at in _nal_starts(data, _nal_length_size("h264", extradata))]
    slices = [head for head in heads if 1 <= head & 31 <= 5]
    return bool(slices) and all(head >> 5 & 3 == 0 for head in slices)


def _describe_av1_units(data: bytes) -> tuple[bool, bool, bool] | None:
    """Describe a temporal unit of one shown frame; nothing depends on frames before a key frame shown at once."""
    frames: list[tuple[bool, int, bool]] = []  # (shows a frame decoded before, type, is shown)
    has_sequence_header = False
    for kind, content in _av1_units(data):
        if kind is None or kind == _AV1_TILE_LIST or (kind in _AV1_HEADERS and not content):
            return None
        if kind == _AV1_SEQUENCE_HEADER:
            if content[0] & 0x08 or frames:  # a still picture has a different layout of frame headers
                return None
            has_sequence_header = True
        elif kind in (_AV1_FRAME_HEADER, _AV1_FRAME):
            frames.append((bool(content[0] & 0x80), content[0] >> 5 & 3, bool(content[0] & 0x10)))
    if sum(is_repeat or is_shown for is_repeat, _, is_shown in frames) != 1:
        return None
    return has_sequence_header and frames[0] == (False, 0, True), True, has_sequence_header


def _av1_units(data: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Type and content of each unit (OBU); type None if layers, or a truncated unit, make the rest unclear."""
    at = 0
    while at < len(data):
        head, size, num_bytes = data[at], 0, 0
        has_layers, has_size = head & 0x04, head & 0x02
        while has_size and num_bytes < 8:  # seven bits per byte, the lowest first
            byte = data[at + 1 + num_bytes] if at + 1 + num_bytes < len(data) else 0xFF
            size |= (byte & 0x7F) << 7 * num_bytes
            num_bytes += 1
            if byte < 0x80:
                break
        start = at + 1 + num_bytes
        at = start + size if has_size else len(data)
        if head & 0x80 or has_layers or at > len(data):
            yield None, b""
            return
        yield head >> 3 & 15, data[start:at]


class FieldCoding(NamedTuple):
    """How an H.264 slice signals that it belongs to a field, one half of an interlaced frame."""

    frame_num_bits: int
    has_separate_planes: bool


def field_coding(data: bytes, extradata: bytes | None = None) -> FieldCoding | None:
    """The coding of an H.264 stream in which a picture may be a field; None if all are frames, as in most files.

    Args:
        data: the stream's tables, or a packet that contains some.
        extradata: if `data` is a packet: the stream's tables.
    """
    if data[:1] == b"\x01" and not extradata:  # avcC: a count, then a length before each unit
        starts = [8]
    else:
        starts = [at for at in _nal_starts(data, _nal_length_size("h264", extradata)) if data[at] & 31 == 7]
    codings = (_field_coding_of(data[at + 1 : at + 256]) for at in starts)
    return next((coding for coding in codings if coding is not None), None)


def _field_coding_of(sequence: bytes) -> FieldCoding | None:
    """Read from a sequence parameter set (H.264, 7.3.2.1.1)."""
    bits = _Bits(sequence)
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    separate, chroma = False, 1
    if profile in _H264_WITH_CHROMA:
        chroma = bits.golomb()
        separate = chroma == 3 and bool(bits.take(1))
        bits.pass_golombs(2)  # bit depths
        bits.take(1)
        if bits.take(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    bits.pass_scaling_list(16 if number < 6 else 64)
    frame_num_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.pass_golombs(2)
        bits.pass_golombs(min(bits.golomb(), 255))
    bits.golomb()  # number of reference frames
    bits.take(1)
    bits.pass_golombs(2)  # width and height
    is_of_frames = bits.take(1)
    return None if is_of_frames or bits.is_over or frame_num_bits > 16 else FieldCoding(frame_num_bits, separate)


def field_of(data: bytes, extradata: bytes | None, coding: FieldCoding) -> tuple[int, bool] | None:
    """(the stream's number of its frame, whether it is the bottom field); None for a whole frame."""
    size = _nal_length_size("h264", extradata)
    slices = [at for at in _nal_starts(data, size) if data[at] & 31 in (1, 5)]
    if not slices:
        return None
    first, last = (_field_of_slice(data[at + 1 : at + 32], coding) for at in (slices[0], slices[-1]))
    return first if first == last else None  # both fields may be in one packet


def _field_of_slice(header: bytes, coding: FieldCoding) -> tuple[int, bool] | None:
    bits = _Bits(header)
    bits.pass_golombs(3)  # first macroblock, type, picture parameters
    if coding.has_separate_planes:
        bits.take(2)
    frame_num = bits.take(coding.frame_num_bits)
    return (frame_num, bool(bits.take(1))) if bits.take(1) else None


class _Bits:
    """Reads bits; zeros beyond the end."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")  # without the bytes that keep start codes out of the contents
        self._value, self._left = int.from_bytes(data), 8 * len(data)
        self.is_over = False

    def take(self, count: int) -> int:
        if count > self._left:
            self.is_over, self._left = True, 0
            return 0
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1) and zeros < 32 and not self.is_over:
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def pass_golombs(self, count: int) -> None:
        for _ in range(count):
            self.golomb()

    def pass_scaling_list(self, size: int) -> None:
        last = following = 8
        for _ in range(size):
            if following:
                code = self.golomb()
                delta = (code + 1) // 2 if code & 1 else -(code // 2)
                following = (last + delta) % 256
            last = following or last
