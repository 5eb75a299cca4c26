"""One pass over a video's packets, which yields the wanted frames as soon as each is known to be intact or damaged.

Only groups of pictures with a wanted frame are decoded, no packet twice, and only wanted frames are converted to RGB. A
decoder reports damage late: the picture that a frame depends on may be shown after it, and HEVC's decoder drops
pictures silently. So a frame waits until all pictures that it may depend on were shown, and `SETTLING_FRAMES` more.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import av
import numpy as np

from .input_errors import NoDecodableFrameError, TruncatedVideoError, VideoReadError
from .shown_picture import to_shown
from .video_bitstream import is_disposable
from .video_container import open_container, video_stream
from .video_index import VideoIndex
from .video_packets import VideoPacket, decode_packet, numbered_packets

# (height, width, 3), uint8, RGB, upright; or the error.
Picture: TypeAlias = np.ndarray | VideoReadError
# More than a decoder delays (16), since timestamps of some files contradict the order of output. If frames are known
# only by counting, the rest is unpredictable, and damage that is reported later than this goes unnoticed.
SETTLING_FRAMES = 32


@dataclass
class _Run:
    """Consecutive packets that are decoded for some frames."""

    first_packet: int
    last_packet: int
    frames: list[int]


def wanted_frames(index: VideoIndex, wanted: np.ndarray) -> Iterator[tuple[int, Picture]]:
    """Yield (frame number, picture or error) for every wanted frame, (num_wanted,) ascending, in order.

    Raises:
        VideoReadError: the file is not the one that was indexed.
    """
    with open_container(index.source, index.path, index.max_pixels) as container:
        stream = video_stream(container, index.path, index.max_pixels, index.track)
        packets = numbered_packets(container, stream)
        if index.cut:
            packets = _until_error(packets)
        for run in _plan_runs(index, wanted.tolist()):
            yield from _decode_run(index, run, packets, stream.codec_context)


def _until_error(packets: Iterator[tuple[int, VideoPacket]]) -> Iterator[tuple[int, VideoPacket]]:
    with suppress(av.FFmpegError):  # where the file ends early, as recorded in the index
        yield from packets


def _plan_runs(index: VideoIndex, wanted: Sequence[int]) -> Iterator[_Run]:
    run: _Run | None = None
    for frame in wanted:
        start, packet = int(index.start_packets[frame]), int(index.frame_packets[frame])
        last = packet if packet >= 0 else len(index.packet_bytes) - 1
        # Packets that were already decoded are not repeated: the decoder still has what this frame depends on.
        if run and start <= run.last_packet:
            run.last_packet = max(last, run.last_packet)
            run.frames.append(frame)
        else:
            if run:
                yield run
            run = _Run(start, last, [frame])
    if run:
        yield run


def _decode_run(
    index: VideoIndex,
    run: _Run,
    packets: Iterator[tuple[int, VideoPacket]],
    context: av.VideoCodecContext,
) -> Iterator[tuple[int, Picture]]:
    """Feed a run to the decoder, drain it, and yield every wanted frame of the run."""
    frames = _RunFrames(index, run)
    wanted_packets = {int(index.frame_packets[frame]) for frame in run.frames}
    may_skip = index.can_skip and not frames.are_counted
    codec, extradata = context.codec.canonical_name, context.extradata
    first_fields = set(index.first_fields.tolist())
    fed = run.first_packet
    for number, packet in packets:
        if number < run.first_packet:
            continue
        if number >= len(index.packet_bytes) or packet.size != index.packet_bytes[number]:
            raise VideoReadError(f"{index.path} has changed since it was indexed; index it again.")
        fed = number
        frame_packet = number + (number in first_fields)  # a frame has the number of its last packet
        packet.pts = packet.dts = frame_packet
        context.skip_frame = "DEFAULT"
        if may_skip and is_disposable(codec, bytes(packet), extradata):
            if frame_packet in wanted_packets:
                frames.disposable.add(number)
            else:  # only for this packet: otherwise H.264's decoder would not report other packets without a picture
                context.skip_frame = "NONREF"
        frames.take(decode_packet(context, packet, number, frames.refused), fed)
        yield from frames.settled(fed)
        if number >= run.last_packet or not frames.missing:
            break
    frames.take(decode_packet(context, None, fed, frames.refused), fed)
    context.flush_buffers()
    yield from frames.settled(fed, is_over=True)


class _RunFrames:
    """The wanted frames of a run, from their output by the decoder until they are known to be intact or damaged."""

    def __init__(self, index: VideoIndex, run: _Run) -> None:
        self.index, self.run = index, run
        self.are_counted = bool(index.frame_packets[run.frames[0]] < 0)  # packets do not identify their frames
        self.waiting = deque(run.frames)  # not yielded yet, ascending
        self.missing = set(run.frames)  # not output yet
        self.refused: list[int] = []  # packets that the decoder has just refused
        # Packets of pictures that nothing depends on; other passes may skip them, and so not notice damage there.
        self.disposable: set[int] = set()
        self._pictures: dict[int, tuple[int, np.ndarray]] = {}  # frame: (its packet, its picture)
        self._damaged: list[int] = []  # packets, ascending
        self._num_out = 0
        self._newest = -1  # the last shown frame that was output
        self._notes_drops = not (self.are_counted or index.can_skip)
        self._came_out: set[int] = set()  # among the frames from `_checked` on
        # Pictures shown before the run's first depend on earlier packets, and are not output.
        self._checked = int(np.searchsorted(index.start_packets, run.first_packet))

    def take(self, frames: Sequence[av.VideoFrame], fed: int) -> None:
        """Note the frames output after packet `fed`."""
        for frame in frames:
            # A frame without its packet's number may depend on any packet fed so far.
            packet = fed if frame.pts is None else frame.pts
            known = -1 if frame.pts is None else int(self.index.packet_frames[frame.pts])
            number = self._num_out if self.are_counted else known
            self._num_out += 1
            self._newest = max(self._newest, number)
            if self._notes_drops:
                self._came_out.add(number)
            if frame.is_corrupt:
                insort(self._damaged, packet)
            if number in self.missing:
                self.missing.remove(number)
                self._pictures[number] = packet, to_shown(frame, self.index.shown)

    def settled(self, fed: int, is_over: bool = False) -> Iterator[tuple[int, Picture]]:
        """Yield the next frames whose state is final; all remaining ones when the run is over."""
        for packet in self.refused:
            insort(self._damaged, packet)
        self.refused.clear()
        if self._notes_drops:
            self._note_drops(int(self.index.shown_until[fed]) if is_over else self._newest - SETTLING_FRAMES, fed)
        while self.waiting and (is_over or self._newest - SETTLING_FRAMES >= self._known_at(self.waiting[0])):
            frame = self.waiting.popleft()
            yield frame, self._judge(frame, fed)

    def _known_at(self, frame: int) -> int:
        """Number of the frame whose output implies that everything this one depends on was output."""
        return frame if self.are_counted else int(self.index.shown_until[self.index.frame_packets[frame]])

    def _note_drops(self, last_frame: int, fed: int) -> None:
        """Count packets as damaged that should have given a frame up to `last_frame` but did not."""
        for frame in range(self._checked, last_frame + 1):
            packet = int(self.index.frame_packets[frame])
            if frame not in self._came_out and self.run.first_packet <= packet <= fed:
                insort(self._damaged, packet)
            self._came_out.discard(frame)
        self._checked = max(self._checked, last_frame + 1)

    def _judge(self, frame: int, fed: int) -> Picture:
        packet = fed if self.are_counted else int(self.index.frame_packets[frame])
        packet, picture = self._pictures.pop(frame, (packet, None))
        bad_packet = self._first_damage(int(self.index.start_packets[frame]), packet)
        if picture is not None and bad_packet is None:
            return picture
        found = "got nothing from the decoder" if bad_packet is None else f"got damaged data at packet {bad_packet}"
        which = f"frame {frame} of {self.index.num_frames}"
        message = f"Expected {which} to decode, {found}, in {self.index.path}; record it again"
        if bad_packet == len(self.index.packet_bytes) - 1:
            return TruncatedVideoError(f"{message}: its tail is cut.")
        return NoDecodableFrameError(f"{message}.")

    def _first_damage(self, start: int, packet: int) -> int | None:
        """The first damaged packet that the picture in `packet`, decoded from `start` on, may depend on."""
        for place in range(bisect_left(self._damaged, start), len(self._damaged)):
            bad_packet = self._damaged[place]
            if bad_packet > packet:
                return None
            other = int(self.index.packet_frames[bad_packet])
            # A picture shown before the group's first depends on the previous group, and no later one depends on it.
            is_earlier = other >= 0 and self.index.start_packets[other] < start
            if bad_packet == packet or not (is_earlier or bad_packet in self.disposable):
                return bad_packet
        return None
