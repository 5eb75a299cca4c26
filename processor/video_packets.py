"""The packets of a video stream: read once, described from the bitstream, sorted in the order their frames are shown.

A packet counts as a place to start decoding only where the bitstream itself proves it; the frames of any other stream
are counted by decoding it. Frames are identified by the number of their packet, which replaces its timestamp, so that
missing or repeated timestamps cannot confuse them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np

from .input_errors import TruncatedVideoError, VideoReadError, VideoTooLargeError
from .shown_picture import ShownPictures, shown_pictures
from .video_bitstream import describe_packet, field_coding, field_of
from .video_container import open_container, video_stream
from .video_structure import ShortPart, find_short_part
from .video_tracks import ChosenTrack, choose_track

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"  # in quotes: a Cython class does not support [] at run time
_MAX_PAUSES = 16_384  # a gigabyte
_ASSUMED_FPS = 25.0  # FFmpeg's own assumption for a stream without times or a rate


@dataclass
class Progress:
    """Number of packets read in this process, a sign of life for a waiting process."""

    num_packets: int = 0

    def count(self) -> None:
        """Count one more packet."""
        self.num_packets += 1


PROGRESS = Progress()


@dataclass
class PacketScan:
    """Result of one pass over the packets; each list is (num_packets,), in decode order."""

    source: str | bytes
    name: str
    max_pixels: int
    short: ShortPart | None  # part that extends beyond the end of the file, by the container's own sizes
    cut: str | None = None  # why the file ends early, if known
    track: ChosenTrack = field(default_factory=ChosenTrack)
    codec: str = ""
    fps: float = _ASSUMED_FPS
    time_base: Fraction | None = None
    clock_start_sec: float = 0.0  # start of the file's clock, by its timestamps: the first sound or picture
    stream_start_sec: float = 0.0  # start of the pictures according to the container
    num_expected: int = 0  # frames stated in the header, only for messages; 0: not stated
    num_reordered: int = 0  # frames that the decoder delays for reordering
    pts: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)  # nothing shown later depends on anything before
    headers: list[bool] = field(default_factory=list)  # contains tables that later pictures need
    understood: bool = True  # every packet was understood, and is one picture
    unclear: set[int] = field(default_factory=set)  # packets whose bits do not describe one picture
    hidden: list[int] = field(default_factory=list)  # packets that an edit list leaves out
    has_new_tables: bool = False  # a packet has different tables in its side data
    keys: list[int] = field(default_factory=list)  # unclear packets that the container marks as key frames
    first_fields: set[int] = field(default_factory=set)  # packets with half a frame, the other half is in the next
    refused: set[int] = field(default_factory=set)  # packets that did not decode, if all were decoded
    positions: list[int | None] = field(default_factory=list)  # in the file
    corrupt: set[int] = field(default_factory=set)  # packets that the container marks as damaged
    overdue: set[int] = field(default_factory=set)  # packets of fragments that start later than the previous one ends
    container: str = ""  # FFmpeg's name of the format
    track_id: int = 0
    num_indexed: int = 0  # packets in the container's own index, which is complete only in MP4 and AVI
    indexed: list[tuple[int, int]] = field(default_factory=list)  # (position, size) of each, if some were not read
    num_samples: int = 0  # packets stated in the track's header
    stated_sec: float = 0.0  # length of the video stated in the header; 0: not stated
    first_frame: av.VideoFrame | None = None
    pictures: ShownPictures | None = None  # known after the first frame

    @property
    def is_counted(self) -> bool:
        """Whether the container gives the position of every packet in advance."""
        is_in_fragments = self.container.startswith("mov") and not self.num_samples
        return self.num_indexed > 0 and self.container.startswith(("mov", "avi")) and not is_in_fragments


def scan_packets(
    source: str | bytes, name: str, max_pixels: int, video_track: int | None = None, as_played: bool = False
) -> PacketScan:
    """Read every packet once; decode only the first frame, for its size and rotation."""
    scan = PacketScan(source, name, max_pixels, find_short_part(source, name))
    try:
        container = open_container(source, name, max_pixels)
        scan.track = choose_track(
            container, lambda: open_container(source, name, max_pixels), name, video_track, as_played, PROGRESS.count
        )
        stream = video_stream(container, name, max_pixels, scan.track.place)
        if not stream.codec_context.width:  # the probing decoder hit the pixel limit and cleared the size
            unprobed = open_container(source, name, max_pixels, probe=False)
            video_stream(unprobed, name, max_pixels, scan.track.place)
    except VideoReadError as error:
        if scan.short and not isinstance(error, VideoTooLargeError):
            scan.cut = str(scan.short)
            raise truncated(scan, 0) from error
        raise
    with container:
        _note_stream(scan, container, stream)
        _read_packets(scan, container, stream)
        if len(scan.sizes) != scan.num_indexed if scan.is_counted else len(scan.sizes) < scan.num_indexed:
            scan.indexed = [(entry.pos, entry.size) for entry in stream.index_entries]
        if scan.first_frame is not None:
            scan.pictures = shown_pictures(scan.first_frame, stream, as_played, max_pixels)
    return scan


def count_samples(scan: PacketScan) -> int:
    """Packets in the index of an MP4 file, read without its edit list."""
    options = {"ignore_editlist": "1"}
    with open_container(scan.source, scan.name, scan.max_pixels, options=options) as container:
        return len(video_stream(container, scan.name, scan.max_pixels, scan.track.place).index_entries)


def _read_packets(scan: PacketScan, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    context = stream.codec_context
    # Packets refused here are decoded again, and reported, when their frame is wanted.
    refused: list[int] = []
    packet, extradata = None, context.extradata or b""
    fields = field_coding(extradata) if scan.codec == "h264" else None
    first_field: tuple[int, bool] | None = None
    is_in_fragments, due = scan.container.startswith("mov") and not scan.num_samples, None
    try:
        for number, packet in numbered_packets(container, stream):
            data = bytes(packet)
            _note_packet(scan, packet, data, extradata)
            if is_in_fragments and packet.dts is not None and packet.duration:
                if due is not None and packet.dts > due + packet.duration // 2:
                    scan.overdue.add(number)
                due = packet.dts + packet.duration
            if number == 0 and not fields and scan.codec == "h264":  # it may have different tables from the container's
                fields = field_coding(data, extradata)
            if fields:
                first_field = _note_field(scan, field_of(data, extradata, fields), first_field)
            if scan.first_frame is None:
                frames = decode_packet(context, packet, number, refused)
                ready = scan.starts[-1] and scan.shown[-1] and not first_field
                scan.first_frame = frames[0] if frames else _drained(context, ready, refused)
    except av.FFmpegError as error:
        scan.cut = f"its packets cannot be read further ({error})"
    if packet is not None and packet.is_corrupt:
        scan.shown[-1] = False
        scan.cut = scan.cut or "its last packet is incomplete"
    scan.first_frame = scan.first_frame or _drained(context, True, refused)


def _drained(context: av.VideoCodecContext, ready: bool, refused: list[int]) -> av.VideoFrame | None:
    """First frame left in the decoder, if it is `ready` to be drained."""
    if not ready:
        return None
    frames = decode_packet(context, None, -1, refused)
    context.flush_buffers()
    return frames[0] if frames else None


def _note_stream(scan: PacketScan, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    scan.codec = stream.codec_context.codec.canonical_name
    scan.time_base = stream.time_base
    scan.clock_start_sec = scan.stream_start_sec = (container.start_time or 0) / av.time_base
    if stream.start_time is not None and stream.time_base is not None:
        scan.stream_start_sec = stream.start_time * float(stream.time_base)
    scan.fps = float(stream.average_rate or stream.guessed_rate or _ASSUMED_FPS)
    scan.num_reordered = stream.codec_context.has_b_frames
    duration_sec = container.duration / av.time_base if container.duration else 0
    scan.num_expected = stream.frames or round(duration_sec * scan.fps)
    scan.container, scan.track_id = container.format.name, stream.id
    scan.num_indexed, scan.num_samples = len(stream.index_entries), stream.frames
    scan.stated_sec = _stated_sec(stream.metadata) or duration_sec


def _stated_sec(tags: Mapping[str, str]) -> float:
    """Length of the track from Matroska's tags; 0.0: not stated."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", tags.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


def _note_packet(scan: PacketScan, packet: VideoPacket, data: bytes, extradata: bytes) -> None:
    described = describe_packet(scan.codec, data, extradata)
    if described is None:
        scan.understood = False
        scan.unclear.add(len(scan.sizes))
        if packet.is_keyframe:
            scan.keys.append(len(scan.sizes))
    # Asking for one kind is slower than asking for any; only MPEG-TS has side data in every packet.
    has_any = scan.container == "mpegts" or next(packet.iter_sidedata(), None) is not None
    if has_any and packet.has_sidedata("new_extradata"):
        scan.understood, scan.has_new_tables = False, True
    if packet.is_corrupt:
        scan.corrupt.add(len(scan.sizes))
    is_start, is_shown, has_headers = described or (False, True, False)
    scan.pts.append(packet.pts)
    scan.sizes.append(packet.size)
    scan.starts.append(is_start)
    if packet.is_discard:
        scan.hidden.append(len(scan.sizes) - 1)
    scan.shown.append(is_shown and not packet.is_discard)
    scan.headers.append(has_headers)
    scan.positions.append(packet.pos)


def _note_field(
    scan: PacketScan, field: tuple[int, bool] | None, first_field: tuple[int, bool] | None
) -> tuple[int, bool] | None:
    """Join a field to the previous one if both belong to one frame; else it may be the first of the next frame."""
    if field is None or first_field != (field[0], not field[1]):
        return field
    first, second = len(scan.sizes) - 2, len(scan.sizes) - 1
    scan.first_fields.add(first)
    scan.shown[first], scan.shown[second] = False, scan.shown[first] and scan.shown[second]
    scan.pts[second] = scan.pts[first]
    return None


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
        return np.array(numbers, np.int64), np.full(len(packets), first)
    return _place_frames(ranks, np.flatnonzero(ranks >= 0), starts)


def _usable_starts(scan: PacketScan) -> np.ndarray | None:
    """Numbers of the packets that decoding may start from, or None if no start can be proven exact."""
    starts, headers = np.array(scan.starts), np.array(scan.headers)
    if not scan.understood or not starts[0] or (headers & ~(starts & headers[0])).any():
        return None
    return np.flatnonzero(starts & headers if headers[0] else starts)


def _pts_tell_order(scan: PacketScan, starts: np.ndarray) -> bool:
    if None in scan.pts:
        return False
    pts = np.array(scan.pts)
    shown = pts[np.array(scan.shown)]
    # AVI numbers packets in file order; if the decoder reorders frames, such timestamps are not the frames' own.
    counts_packets = scan.num_reordered > 0 and len(pts) > 1 and (np.diff(pts) > 0).all() and len(starts) < len(pts)
    return len(np.unique(shown)) == len(shown) > 0 and _ranks_respect(pts, starts) and not counts_packets


def _ranks_respect(ranks: np.ndarray, starts: np.ndarray) -> bool:
    """Whether everything before a start is also shown before it, and nothing is shown before the first start."""
    return bool((np.maximum.accumulate(ranks)[starts[1:] - 1] < ranks[starts[1:]]).all() and ranks.min() >= ranks[0])


def _place_frames(ranks: np.ndarray, shown: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    packets = shown[np.argsort(ranks[shown])]
    # Pictures that follow a start in the file but precede it on screen depend on the previous group.
    return packets, starts[np.searchsorted(ranks[starts], ranks[packets], side="right") - 1]


def _count_by_decoding(scan: PacketScan) -> tuple[int, list[int | None]]:
    """First usable packet, and the packet of every frame from the decoder, in presentation order."""
    first = 0
    packets: list[int | None] = []
    refused: list[int] = []
    with open_container(scan.source, scan.name, scan.max_pixels) as container:
        stream = video_stream(container, scan.name, scan.max_pixels, scan.track.place)
        context = stream.codec_context
        for number, packet in numbered_packets(container, stream):
            packet.pts = packet.dts = number + (number in scan.first_fields)
            packets += [frame.pts for frame in decode_packet(context, packet, number, refused)]
            if not packets and refused[-1:] == [number]:  # a recording that begins in the middle of a group
                first = number + 1
                context.flush_buffers()
        packets += [frame.pts for frame in decode_packet(context, None, len(scan.sizes), refused)]
    # Refused at the beginning because earlier packets are missing, or because it is damaged.
    scan.refused = {n for n in refused if first <= n < len(scan.sizes) or (n in scan.unclear and n < first)}
    if refused and refused[-1] >= len(scan.sizes) - 1 and packets:
        scan.cut = "its last packets do not decode"
        raise truncated(scan, len(packets))
    return first, packets


def frame_times_sec_of(scan: PacketScan, packets: np.ndarray) -> np.ndarray:
    """(num_frames,) float64, from the timestamps if each frame has its own, else from the frame rate."""
    pts = [scan.pts[packet] for packet in packets] if packets.min() >= 0 else [None]
    if None not in pts and scan.time_base is not None:
        # Sorted, since AVI counts packets in file order, not in display order.
        ticks = np.sort(np.array(pts))
        if (np.diff(ticks) > 0).all():
            return (ticks - ticks[0]) * float(scan.time_base)
    return np.arange(len(packets)) / scan.fps


def numbered_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[int, VideoPacket]]:
    """Yield (number, packet), without empty packets, which signal the end to a decoder."""
    number = 0
    for _ in range(_MAX_PAUSES):
        try:
            for packet in container.demux(stream):
                PROGRESS.count()
                if packet.size:
                    yield number, packet
                    number += 1
            return
        except IndexError:
            # PyAV 18, at the end of MPEG-TS: it looks up a stream that appeared late and is not in its list.
            return
        except av.BlockingIOError:  # 64 KiB of MPEG-TS without a packet; the film may continue after them
            continue


def decode_packet(
    context: av.VideoCodecContext, packet: "VideoPacket | None", number: int, damaged: list[int]
) -> list[av.VideoFrame]:
    """The frames of a packet; none if it cannot be decoded, and its number is added to `damaged`."""
    try:
        return context.decode(packet)
    except MemoryError:  # including FFmpeg's
        raise
    except (av.FFmpegError, ValueError):  # ValueError: PyAV 19, for a decoder that could not be opened before
        damaged.append(number)
        return []


def truncated(scan: PacketScan, num_readable: int) -> TruncatedVideoError:
    """The error for a truncated file, with the number of remaining frames."""
    of = f" of about {scan.num_expected}" if scan.num_expected > num_readable else ""
    problem = f"truncated after frame {num_readable}{of}: {scan.cut}"
    return TruncatedVideoError(f"Expected a whole video, got one {problem}, in {scan.name}; copy or record it again.")
