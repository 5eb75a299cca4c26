"""The packets of a video stream: read once, described from the bitstream, put in the order their frames are shown.

A packet counts as a place to start decoding only where the bitstream itself proves it; the frames of any other stream
are counted by decoding it. Frames are told apart by the number of their packet, written over its timestamp, so missing
or doubled timestamps cannot mix them up.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np

from .input_errors import TruncatedVideoError, VideoReadError, VideoTooLargeError
from .video_container import find_cut, open_container, video_stream

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"  # in quotes: a class of Cython takes no [] when it runs
_INTRA_CODECS = {"prores", "dnxhd", "rawvideo", "png"}
# Types of AV1's units (OBUs), and those of them that have to be read.
_AV1_SEQUENCE_HEADER, _AV1_FRAME_HEADER, _AV1_FRAME, _AV1_TILE_LIST = 1, 3, 6, 8
_AV1_HEADERS = (_AV1_SEQUENCE_HEADER, _AV1_FRAME_HEADER, _AV1_FRAME)
_ASSUMED_FPS = 25.0  # what FFmpeg itself assumes for a stream that names neither times nor a rate


@dataclass
class Progress:
    """Packets read in this process, a sign of life for who waits for it."""

    num_packets: int = 0


PROGRESS = Progress()


@dataclass
class PacketScan:
    """What one pass over the packets tells; each list is (num_packets,), in decode order."""

    source: str | bytes
    name: str
    max_pixels: int
    cut: str | None  # how the file is known to end early
    codec: str = ""
    fps: float = _ASSUMED_FPS
    time_base: Fraction | None = None
    num_expected: int = 0  # frames the header speaks of, for messages only: 0 when it is silent
    has_reordering: bool = False
    pts: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)  # nothing shown later leans on anything before
    headers: list[bool] = field(default_factory=list)  # carries tables that later pictures need
    understood: bool = True  # every packet was, and is one picture
    first_frame: av.VideoFrame | None = None


def scan_packets(source: str | bytes, name: str, max_pixels: int) -> PacketScan:
    """Read every packet once; decode only until the first frame is out, for its size and rotation."""
    scan = PacketScan(source, name, max_pixels, cut=find_cut(source))
    try:
        container = open_container(source, name, max_pixels)
        stream = video_stream(container, name, max_pixels)
        if not stream.codec_context.width:  # the probing decoder met the pixel limit, and took the header's size along
            video_stream(open_container(source, name, max_pixels, probe=False), name, max_pixels)
    except VideoReadError as error:
        if scan.cut and not isinstance(error, VideoTooLargeError):
            raise truncated(scan, 0) from error
        raise
    with container:
        _note_stream(scan, container, stream)
        # Packets refused here are met again by whoever wants their frame, and reported then.
        refused: list[int] = []
        packet = None
        try:
            for number, packet in numbered_packets(container, stream):
                _note_packet(scan, packet, stream.codec_context)
                if scan.first_frame is None:
                    frames = decode_packet(stream.codec_context, packet, number, refused)
                    ready = scan.starts[-1] and scan.shown[-1]
                    scan.first_frame = frames[0] if frames else _drained(stream.codec_context, ready, refused)
        except av.FFmpegError as error:
            scan.cut = scan.cut or f"its packets cannot be read further ({error})"
        if packet is not None and packet.is_corrupt:
            scan.shown[-1] = False
            scan.cut = scan.cut or "its last packet is incomplete"
        scan.first_frame = scan.first_frame or _drained(stream.codec_context, True, refused)
    return scan


def _drained(context: av.VideoCodecContext, ready: bool, refused: list[int]) -> av.VideoFrame | None:
    """First frame the decoder still holds, when it is `ready` to give one up."""
    if not ready:
        return None
    frames = decode_packet(context, None, -1, refused)
    context.flush_buffers()
    return frames[0] if frames else None


def _note_stream(scan: PacketScan, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    scan.codec = stream.codec_context.codec.canonical_name
    scan.time_base = stream.time_base
    scan.fps = float(stream.average_rate or stream.guessed_rate or _ASSUMED_FPS)
    scan.has_reordering = bool(stream.codec_context.has_b_frames)
    duration_sec = container.duration / av.time_base if container.duration else 0
    scan.num_expected = stream.frames or round(duration_sec * scan.fps)


def _note_packet(scan: PacketScan, packet: VideoPacket, context: av.VideoCodecContext) -> None:
    described = _describe_packet(scan.codec, packet, context.extradata or b"") if scan.understood else None
    scan.understood = described is not None and not packet.has_sidedata("new_extradata")
    is_start, is_shown, has_headers = described or (False, True, False)
    scan.pts.append(packet.pts)
    scan.sizes.append(packet.size)
    scan.starts.append(is_start)
    scan.shown.append(is_shown and not packet.is_discard)  # an edit list discards
    scan.headers.append(has_headers)


def _describe_packet(codec: str, packet: VideoPacket, extradata: bytes) -> tuple[bool, bool, bool] | None:
    """(nothing later leans on what came before, one frame comes out, carries tables), or None where that is not clear.

    Read from the bitstream: containers mark pictures as key frames that are none, and recovery points that need others.
    """
    if codec in _INTRA_CODECS:
        return True, True, False
    data = bytes(packet)
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
        # Two pictures in a packet, or a stub that stands for one, are how AVI packs B-frames.
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
    heads = set(_nal_heads(data, _nal_length_size(codec, extradata)))
    if codec == "h264":
        types = {head & 31 for head in heads}
        return (5 in types, True, bool(types & {7, 8})) if types & {1, 5} else None
    types = {head >> 1 & 63 for head in heads}
    return (bool(types & set(range(16, 22))), True, bool(types & {32, 33, 34})) if min(types, default=32) < 32 else None


def _nal_length_size(codec: str, extradata: bytes | None) -> int:
    """avcC and hvcC say how long the length in front of each unit is; 0: start codes stand between units."""
    if not extradata or extradata[0] != 1:
        return 0
    return (extradata[4 if codec == "h264" else 21] & 3) + 1


def _nal_heads(data: bytes, length_size: int) -> Iterator[int]:
    """First byte of each NAL unit, which holds its type."""
    at = 0 if length_size else data.find(b"\0\0\1") + 3
    while length_size <= at + length_size < len(data) if length_size else 3 <= at < len(data):
        yield data[at + length_size]
        if length_size:
            at += length_size + int.from_bytes(data[at : at + length_size])
        else:
            at = data.find(b"\0\0\1", at) + 3


def is_disposable(packet: VideoPacket, context: av.VideoCodecContext) -> bool:
    """Whether `skip_frame` "NONREF" would leave a packet of H.264 or MPEG-4 out, since no picture leans on it."""
    data = bytes(packet)
    if context.codec.canonical_name == "mpeg4":
        picture = re.search(rb"\x00\x00\x01\xb6(.)", data, re.DOTALL)
        return picture is not None and picture[1][0] >> 6 == 2
    slices = [head for head in _nal_heads(data, _nal_length_size("h264", context.extradata)) if 1 <= head & 31 <= 5]
    return bool(slices) and all(head >> 5 & 3 == 0 for head in slices)


def _describe_av1_units(data: bytes) -> tuple[bool, bool, bool] | None:
    """Of a temporal unit: one frame is shown, and after a key frame that is shown at once no other is leant on."""
    frames: list[tuple[bool, int, bool]] = []  # (shows a frame decoded before, type, is shown)
    has_sequence_header = False
    for kind, content in _av1_units(data):
        if kind is None or kind == _AV1_TILE_LIST or (kind in _AV1_HEADERS and not content):
            return None
        if kind == _AV1_SEQUENCE_HEADER:
            if content[0] & 0x08 or frames:  # a still picture, whose frame headers are laid out differently
                return None
            has_sequence_header = True
        elif kind in (_AV1_FRAME_HEADER, _AV1_FRAME):
            frames.append((bool(content[0] & 0x80), content[0] >> 5 & 3, bool(content[0] & 0x10)))
    if sum(is_repeat or is_shown for is_repeat, _, is_shown in frames) != 1:
        return None
    return has_sequence_header and frames[0] == (False, 0, True), True, has_sequence_header


def _av1_units(data: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Type and content of each unit (OBU); type None where layers, or a unit that is cut, make the rest unclear."""
    at = 0
    while at < len(data):
        head, size, num_bytes = data[at], 0, 0
        has_layers, has_size = head & 0x04, head & 0x02
        while has_size and num_bytes < 8:  # seven bits a byte, the lowest first
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


def order_frames(scan: PacketScan) -> tuple[np.ndarray, np.ndarray]:
    """Packet of each frame and packet to start from, each (num_frames,) int64, in presentation order."""
    starts = _usable_starts(scan)
    if starts is not None and _pts_tell_order(scan, starts):
        return _place_frames(np.array(scan.pts), np.flatnonzero(scan.shown), starts)
    first, packets = _count_by_decoding(scan)
    numbers = [packet for packet in packets if packet is not None]
    if len(set(numbers)) < len(packets):
        return np.full(len(packets), -1), np.full(len(packets), first)
    ranks = np.full(len(scan.sizes), -1)
    ranks[numbers] = np.arange(len(numbers))
    if starts is None or first or not _ranks_respect(ranks, starts):
        return np.array(numbers), np.full(len(packets), first)
    return _place_frames(ranks, np.flatnonzero(ranks >= 0), starts)


def _usable_starts(scan: PacketScan) -> np.ndarray | None:
    """Numbers of the packets that decoding may start from, or None when no shortcut can be proven exact."""
    starts, headers = np.array(scan.starts), np.array(scan.headers)
    if not scan.understood or not starts[0] or (headers & ~(starts & headers[0])).any():
        return None
    return np.flatnonzero(starts & headers if headers[0] else starts)


def _pts_tell_order(scan: PacketScan, starts: np.ndarray) -> bool:
    if None in scan.pts:
        return False
    pts = np.array(scan.pts)
    shown = pts[np.array(scan.shown)]
    # AVI numbers packets as they lie; where the decoder reorders them, such timestamps are not the frames' own.
    counts_packets = scan.has_reordering and len(pts) > 1 and (np.diff(pts) > 0).all() and len(starts) < len(pts)
    return len(np.unique(shown)) == len(shown) > 0 and _ranks_respect(pts, starts) and not counts_packets


def _ranks_respect(ranks: np.ndarray, starts: np.ndarray) -> bool:
    """Whether all that lies before a start is also shown before it, and nothing before the first start."""
    return bool((np.maximum.accumulate(ranks)[starts[1:] - 1] < ranks[starts[1:]]).all() and ranks.min() >= ranks[0])


def _place_frames(ranks: np.ndarray, shown: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    packets = shown[np.argsort(ranks[shown])]
    # Pictures that follow a start in the file and precede it on screen lean on the group before.
    return packets, starts[np.searchsorted(ranks[starts], ranks[packets], side="right") - 1]


def _count_by_decoding(scan: PacketScan) -> tuple[int, list[int | None]]:
    """First packet of use, and the packet of every frame the decoder gives, in presentation order."""
    first = 0
    packets: list[int | None] = []
    refused: list[int] = []
    with open_container(scan.source, scan.name, scan.max_pixels) as container:
        stream = video_stream(container, scan.name, scan.max_pixels)
        context = stream.codec_context
        for number, packet in numbered_packets(container, stream):
            packet.pts = packet.dts = number
            packets += [frame.pts for frame in decode_packet(context, packet, number, refused)]
            if not packets and refused[-1:] == [number]:  # a recording that begins in the middle of a group
                first = number + 1
                context.flush_buffers()
        packets += [frame.pts for frame in decode_packet(context, None, len(scan.sizes), refused)]
    if refused and refused[-1] >= len(scan.sizes) - 1 and packets:
        scan.cut = "its last packets do not decode"
        raise truncated(scan, len(packets))
    return first, packets


def frame_times_sec_of(scan: PacketScan, packets: np.ndarray) -> np.ndarray:
    """(num_frames,) float64, from the timestamps where each frame has its own, else from the frame rate."""
    pts = [scan.pts[packet] for packet in packets] if packets.min() >= 0 else [None]
    if None not in pts and scan.time_base is not None:
        # Sorted, because AVI counts packets in file order, not in the order they are shown.
        ticks = np.sort(np.array(pts))
        if (np.diff(ticks) > 0).all():
            return (ticks - ticks[0]) * float(scan.time_base)
    return np.arange(len(packets)) / scan.fps


def numbered_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[int, VideoPacket]]:
    """Yield (number, packet); empty packets are left out, since to a decoder they mean the end."""
    number = 0
    try:
        for packet in container.demux(stream):
            PROGRESS.num_packets += 1
            if packet.size:
                yield number, packet
                number += 1
    except IndexError:
        # PyAV 18, at the very end of MPEG-TS: it looks for its list's entry of a stream that turned up on the way.
        return


def decode_packet(
    context: av.VideoCodecContext, packet: "VideoPacket | None", number: int, damaged: list[int]
) -> list[av.VideoFrame]:
    """The frames that a packet gives; one that cannot be decoded gives none, and its number goes to `damaged`."""
    try:
        return context.decode(packet)
    except MemoryError:  # of FFmpeg's too
        raise
    except (av.FFmpegError, ValueError):  # ValueError: PyAV 19, of a decoder that could not be opened before
        damaged.append(number)
        return []


def truncated(scan: PacketScan, num_readable: int) -> TruncatedVideoError:
    """The error of a file that was cut, told by how many frames are left."""
    of = f" of about {scan.num_expected}" if scan.num_expected > num_readable else ""
    problem = f"truncated after frame {num_readable}{of}: {scan.cut}"
    return TruncatedVideoError(f"Expected a whole video, got one {problem}, in {scan.name}; copy or record it again.")
