"""Turn a video file into exactly the frames asked for, decoding as little of it as can be proven exact.

`index_video` reads the packets once, converts no pixel, and learns where every frame lies and from which packet
decoding may start (`video_packets`); `decode_frames_at` decodes only the groups of pictures that hold a wanted frame,
and makes RGB of wanted frames alone. Pixels are taken as square. Finding faces is left to `face_detection`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import av
import numpy as np

from .input_errors import EngagementInputError, NoDecodableFrameError, TruncatedVideoError, VideoReadError
from .media_inputs import MediaSource
from .video_container import DEFAULT_MAX_PIXELS, open_container, resolve_source, video_stream
from .video_packets import (
    VideoPacket,
    decode_packet,
    frame_times_sec_of,
    numbered_packets,
    order_frames,
    scan_packets,
    truncated,
)

logger = logging.getLogger(__name__)
# Matroska rounds times to a millisecond; a frame that close to a clip's edge counts as on it.
TIME_TOLERANCE_SEC = 1e-3
END_TOLERANCE_SEC = 1.0  # annotations are often rounded up to whole seconds
# Decoders that leave out a picture nobody refers to without a trace in those that follow. HEVC's is not among them: a
# "non-reference" picture there may serve a higher temporal layer. VP9 learns its probabilities from every picture.
_SKIPPING_CODECS = {"h264", "mpeg4"}


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Where every frame of a video lies. Frames are numbered in presentation order, packets in file order."""

    path: str
    num_frames: int
    fps: float  # mean, from the frames' times; for a single frame the header's
    duration_sec: float
    width_px: int  # as shown, after rotation
    height_px: int
    frame_times_sec: np.ndarray  # (num_frames,), float64, ascending, the first is 0.0
    frame_packets: np.ndarray  # (num_frames,), int64: the packet a frame lies in, -1 where only counting tells
    start_packets: np.ndarray  # (num_frames,), int64: the packet to decode from, for this frame to come out exact
    packet_bytes: np.ndarray  # (num_packets,), int64: sizes, by which a file that changed is noticed
    can_skip: bool  # the decoder may leave out non-reference pictures that were not asked for
    max_pixels: int
    source: str | bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class DecodedFrames:
    """Frames of one video, in the order they were asked for."""

    frames: np.ndarray  # (num_frames, height, width, 3), uint8, RGB, upright
    frame_indices: np.ndarray  # (num_frames,), int64
    frame_times_sec: np.ndarray  # (num_frames,), float64
    num_repeated_frames: int  # frames that stand in for ones a short clip does not have
    index: VideoIndex


@dataclass
class _Run:
    """Consecutive packets that are decoded for the sake of some frames."""

    first_packet: int
    last_packet: int
    frames: list[int]
    missing: set[int] = field(default_factory=set)  # not handed out yet


def index_video(path: MediaSource, max_pixels: int = DEFAULT_MAX_PIXELS) -> VideoIndex:
    """Find out where the frames lie. Raises a `VideoReadError` for all that is not a whole, decodable video."""
    scan = scan_packets(*resolve_source(path), max_pixels)
    if scan.cut:
        raise truncated(scan, sum(scan.shown))
    if scan.first_frame is None:
        found = f"got {len(scan.sizes)} packets of {scan.codec} none of which decodes"
        raise NoDecodableFrameError(f"Expected at least 1 decodable frame, {found}, in {scan.name}; record it again.")
    packets, starts = order_frames(scan)
    times_sec = frame_times_sec_of(scan, packets)
    num_frames = len(packets)
    # The header's rate where the times agree with it: Matroska's milliseconds make 29.995 of 30.
    is_steady = abs((num_frames - 1) / scan.fps - times_sec[-1]) <= TIME_TOLERANCE_SEC
    fps = scan.fps if is_steady else float((num_frames - 1) / times_sec[-1])
    width, height = _shown_size_px(scan.first_frame)
    return VideoIndex(
        path=scan.name,
        num_frames=num_frames,
        fps=fps,
        duration_sec=float(times_sec[-1]) + 1 / fps,
        width_px=width,
        height_px=height,
        frame_times_sec=times_sec,
        frame_packets=packets,
        start_packets=starts,
        packet_bytes=np.array(scan.sizes, np.int64),
        can_skip=scan.codec in _SKIPPING_CODECS,
        max_pixels=max_pixels,
        source=scan.source,
    )


def uniform_frame_indices(num_available: int, num_frames: int) -> np.ndarray:
    """Centres of `num_frames` equal segments, (num_frames,) int64; a clip with fewer frames repeats some."""
    _require_positive(num_available=num_available, num_frames=num_frames)
    return (2 * np.arange(num_frames, dtype=np.int64) + 1) * num_available // (2 * num_frames)


def consecutive_frame_indices(num_available: int, num_frames: int, start_frame: int = 0) -> np.ndarray:
    """`num_frames` in a row from `start_frame`, (num_frames,) int64; the last is repeated when the clip ends early."""
    _require_positive(num_available=num_available, num_frames=num_frames)
    if not 0 <= start_frame < num_available:
        raise EngagementInputError(f"Expected a start_frame from 0 to {num_available - 1}, got {start_frame}.")
    return np.minimum(start_frame + np.arange(num_frames, dtype=np.int64), num_available - 1)


def window_start_frames(num_available: int, num_frames: int, stride_frames: int) -> np.ndarray:
    """First frames of the whole windows of `num_frames` at this stride, (num_windows,) int64; at least one."""
    _require_positive(num_available=num_available, num_frames=num_frames, stride_frames=stride_frames)
    return np.arange(0, max(num_available - num_frames, 0) + 1, stride_frames, dtype=np.int64)


def _require_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise EngagementInputError(f"Expected {name} of at least 1, got {count}.")


def decode_video(
    path: MediaSource,
    num_frames: int = 8,
    sampling: str = "uniform",
    start_frame: int = 0,
    clip_start_sec: float | None = None,
    clip_end_sec: float | None = None,
    index: VideoIndex | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> DecodedFrames:
    """Decode `num_frames` of a video, or of its part from `clip_start_sec` up to, not including, `clip_end_sec`.

    `start_frame` counts from the clip's first frame and is for "consecutive" sampling. An `index` of the same file
    spares the pass that makes one.
    """
    index = index_video(path, max_pixels) if index is None else index
    first, end = frames_between(index, clip_start_sec, clip_end_sec)
    if sampling == "consecutive":
        indices = first + consecutive_frame_indices(end - first, num_frames, start_frame)
    elif sampling == "uniform" and start_frame == 0:
        indices = first + uniform_frame_indices(end - first, num_frames)
    else:
        expected = 'sampling "consecutive", or "uniform" with start_frame 0'
        raise EngagementInputError(f"Expected {expected}, got {sampling!r} with start_frame {start_frame}.")
    decoded = decode_frames_at(index, indices)
    if decoded.num_repeated_frames:
        num_left, repeats = end - first - start_frame, decoded.num_repeated_frames
        counts = f"{num_left} frame{'s' * (num_left != 1)}, {num_frames} were asked for"
        logger.warning("%s has %s: %d %s", index.path, counts, repeats, "are repeats" if repeats > 1 else "is a repeat")
    return decoded


def frames_between(index: VideoIndex, start_sec: float | None, end_sec: float | None) -> tuple[int, int]:
    """Number of the first frame shown from `start_sec` on, and of the one after the last before `end_sec`.

    A clip between two frames has the one then on screen. Raises EngagementInputError for a span outside the video.
    """
    start = 0.0 if start_sec is None else start_sec
    end = index.duration_sec if end_sec is None else end_sec
    if not 0 <= start < min(end, index.duration_sec) or end > index.duration_sec + END_TOLERANCE_SEC:
        found = f"got {start:g} to {end:g} s in {index.path}"
        raise EngagementInputError(
            f"Expected a clip that begins and ends within 0 to {index.duration_sec:g} s, {found}."
        )
    first, after = np.searchsorted(index.frame_times_sec, np.array([start, end]) - TIME_TOLERANCE_SEC)
    if end_sec is None:
        after = index.num_frames
    return (int(first), int(after)) if first < after else (max(int(first) - 1, 0), max(int(first), 1))


def decode_frames_at(
    index_or_path: VideoIndex | MediaSource, frame_indices: Sequence[int] | np.ndarray
) -> DecodedFrames:
    """Decode the frames of these numbers, in any order, repeats allowed; they come back in the order asked for."""
    index = index_or_path if isinstance(index_or_path, VideoIndex) else index_video(index_or_path)
    indices = np.asarray(frame_indices, dtype=np.int64).reshape(-1)
    if not len(indices) or indices.min() < 0 or indices.max() >= index.num_frames:
        found = f"got {indices.tolist()} for {index.path}"
        raise EngagementInputError(f"Expected frame numbers from 0 to {index.num_frames - 1}, {found}.")
    wanted, places = np.unique(indices, return_inverse=True)
    pictures = np.empty((len(wanted), index.height_px, index.width_px, 3), np.uint8)
    for frame_number, frame in _decode_wanted(index, wanted):
        pictures[np.searchsorted(wanted, frame_number)] = _upright_rgb(frame, index.width_px, index.height_px)
    in_order = len(wanted) == len(indices) and np.array_equal(wanted, indices)
    return DecodedFrames(
        frames=pictures if in_order else pictures[places],  # (num_wanted, H, W, 3) -> (num_frames, H, W, 3)
        frame_indices=indices,
        frame_times_sec=index.frame_times_sec[indices],
        num_repeated_frames=len(indices) - len(wanted),
        index=index,
    )


def _decode_wanted(index: VideoIndex, wanted: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (frame number, frame) for every wanted frame, (num_wanted,) ascending, or raise."""
    with open_container(index.source, index.path, index.max_pixels) as container:
        stream = video_stream(container, index.path, index.max_pixels)
        packets = numbered_packets(container, stream)
        for run in _plan_runs(index, wanted):
            run.missing.update(run.frames)
            yield from _decode_run(index, run, packets, stream.codec_context)


def _plan_runs(index: VideoIndex, wanted: np.ndarray) -> list[_Run]:
    runs: list[_Run] = []
    for frame in wanted.tolist():
        start, packet = int(index.start_packets[frame]), int(index.frame_packets[frame])
        last = packet if packet >= 0 else len(index.packet_bytes) - 1
        # What was fed already need not be fed again: the decoder still holds what this frame leans on.
        if runs and start <= runs[-1].last_packet:
            runs[-1] = _Run(runs[-1].first_packet, max(last, runs[-1].last_packet), [*runs[-1].frames, frame])
        else:
            runs.append(_Run(start, last, [frame]))
    return runs


def _decode_run(
    index: VideoIndex,
    run: _Run,
    packets: Iterator[tuple[int, VideoPacket]],
    context: av.VideoCodecContext,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the wanted frames of one run in presentation order; raise if any of them is missing or damaged."""
    wanted_packets: dict[int | None, int] = {int(index.frame_packets[frame]): frame for frame in run.frames}
    by_packet = -1 not in wanted_packets
    packet_of: dict[int, int] = {}
    came_out: set[int | None] = set()
    damaged: list[int] = []
    for count, frame in enumerate(_frames_of_run(index, run, packets, context, damaged)):
        frame_number = wanted_packets.get(frame.pts) if by_packet else count
        came_out.add(frame.pts)
        # A frame that lost its packet's number may lean on any packet of the run.
        packet = run.last_packet if frame.pts is None else frame.pts
        if frame.is_corrupt:
            damaged.append(packet)
        if frame_number in run.missing:
            run.missing.remove(frame_number)
            packet_of[frame_number] = packet
            yield frame_number, frame
    if by_packet and not index.can_skip:
        damaged += _packets_due(index, run) - came_out  # dropped without a word, as HEVC does
    for frame_number in run.frames:
        start = index.start_packets[frame_number]
        if frame_number in run.missing or any(start <= bad <= packet_of[frame_number] for bad in damaged):
            raise _undecodable(index, frame_number, damaged)


def _packets_due(index: VideoIndex, run: _Run) -> set[int]:
    """Packets of a run that must give a frame; not those whose picture leans on something before the run."""
    in_run = (index.frame_packets >= run.first_packet) & (index.frame_packets <= run.last_packet)
    return set(index.frame_packets[in_run & (index.start_packets >= run.first_packet)].tolist())


def _frames_of_run(
    index: VideoIndex,
    run: _Run,
    packets: Iterator[tuple[int, VideoPacket]],
    context: av.VideoCodecContext,
    damaged: list[int],
) -> Iterator[av.VideoFrame]:
    """Feed a run to the decoder, then drain it, and yield all that comes out; note the packets it refuses."""
    wanted_packets = {int(index.frame_packets[frame]) for frame in run.frames}
    leave_out: Literal["NONREF", "DEFAULT"] = "NONREF" if index.can_skip and -1 not in wanted_packets else "DEFAULT"
    for number, packet in packets:
        if number < run.first_packet:
            continue
        if number >= len(index.packet_bytes) or packet.size != index.packet_bytes[number]:
            raise VideoReadError(
                f"Expected {index.path} as it was when it was indexed, got a changed file; index it again."
            )
        packet.pts = packet.dts = number
        context.skip_frame = "DEFAULT" if number in wanted_packets else leave_out
        yield from decode_packet(context, packet, number, damaged)
        if number >= run.last_packet or not run.missing:
            break
    yield from decode_packet(context, None, run.last_packet, damaged)
    context.flush_buffers()


def _display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """(2, 2), each entry -1, 0 or 1: where the frame's x and y axes point when shown, to the nearest right angle."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    # PyAV's stub names no side data but motion vectors.
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)  # type: ignore[call-overload]
    is_main = np.abs(matrix) >= np.abs(matrix).max() * 0.71  # just above cos 45 degrees
    return np.sign(matrix) * is_main


def _shown_size_px(frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height)"""
    return (frame.height, frame.width) if _display_matrix(frame)[0, 0] == 0 else (frame.width, frame.height)


def _upright_rgb(frame: av.VideoFrame, width_px: int, height_px: int) -> np.ndarray:
    """(height, width, 3), uint8. A frame of another size than the video's first is scaled to it, as players do."""
    (right_x, right_y), (down_x, down_y) = _display_matrix(frame)
    if right_x == 0:  # rows become columns
        rgb = frame.to_ndarray(format="rgb24", width=height_px, height=width_px).transpose(1, 0, 2)
    else:
        rgb = frame.to_ndarray(format="rgb24", width=width_px, height=height_px)
    return rgb[:: -1 if right_y + down_y < 0 else 1, :: -1 if right_x + down_x < 0 else 1]


def _undecodable(index: VideoIndex, frame_number: int, damaged: list[int]) -> VideoReadError:
    found = f"got damaged data at packet {min(damaged)}" if damaged else "got nothing from the decoder"
    message = (
        f"Expected frame {frame_number} of {index.num_frames} to decode, {found}, in {index.path}; record it again."
    )
    at_tail = damaged and min(damaged) == len(index.packet_bytes) - 1
    return TruncatedVideoError(f"{message[:-1]}: its tail is cut.") if at_tail else NoDecodableFrameError(message)
