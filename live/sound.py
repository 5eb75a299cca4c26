"""The sound of a video file, for a new video of the same pictures: every audio stream, in time with them.

A stream is copied unchanged if an mp4 can contain its codec, else encoded to AAC. Nothing else is copied: no titles,
languages, chapters or other metadata, no subtitles, data streams or cover pictures. Packets are read as the new video
needs them, so that memory does not grow with its length. `film` writes the video.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeAlias

import av
from av.container import OutputContainer

from ..processor.video_container import DEFAULT_MAX_PIXELS, open_container, resolve_source

SoundPacket: TypeAlias = "av.Packet[av.AudioStream]"  # in quotes: a Cython class takes no [] at run time
COPIED_CODECS = {"aac", "mp3", "ac3", "eac3", "alac", "opus"}
NEED_EXTRADATA = {"alac", "opus"}  # an mp4 stores decoder settings for these in its header
ENCODED_BITS_A_CHANNEL = 96_000  # per second
MAX_ENCODED_CHANNELS = 2
AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000}


class SourceSound:
    """Every audio stream of a file, from the time of its first picture; closed by leaving the `with`.

    Args:
        source: the file whose pictures are used.
        start_sec: time of its first picture, by its own clock.
        end_sec: sound that begins later than this after the first picture is left out.

    Raises:
        VideoReadError: the file cannot be opened.
    """

    def __init__(self, source: str | os.PathLike[str], start_sec: float = 0.0, end_sec: float = math.inf) -> None:
        self._start_sec, self._end_sec = start_sec, end_sec
        self._container = open_container(*resolve_source(source), DEFAULT_MAX_PIXELS)
        streams = tuple(stream for stream in self._container.streams.audio if stream.codec_context is not None)
        self.num_left_out = len(self._container.streams.audio) - len(streams)  # streams for which FFmpeg has no decoder
        self.is_damaged = False  # some of the sound could not be read
        self._tracks: dict[int, _Track] = {
            stream.index: (_CopiedTrack if _can_be_copied(stream) else _EncodedTrack)(stream, start_sec)
            for stream in streams
        }
        self._packets = self._demux(streams)
        self._next = next(self._packets, None)

    def add_to(self, film: OutputContainer) -> None:
        """Add a stream to the new video for each of the file's, in order; call it before the first packet."""
        for track in self._tracks.values():
            track.add_to(film)

    def packets_until(self, time_sec: float) -> Iterator[SoundPacket]:
        """Packets up to this time after the first picture that were not yielded before; infinity: all the rest."""
        while self._next is not None:
            stamp = self._next.dts if self._next.pts is None else self._next.pts
            at_sec = None if stamp is None else float(stamp * self._next.time_base) - self._start_sec
            if at_sec is not None and at_sec > time_sec:
                return
            if at_sec is None or at_sec < self._end_sec:
                yield from self._take(self._next)
            self._next = next(self._packets, None)
        if math.isinf(time_sec):
            for track in self._tracks.values():
                yield from track.rest()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> "SourceSound":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _demux(self, streams: tuple[av.AudioStream, ...]) -> Iterator[SoundPacket]:
        try:
            yield from self._container.demux(streams) if streams else ()
        except av.FFmpegError:  # a truncated file; reading its pictures reports the error
            self.is_damaged = True

    def _take(self, packet: SoundPacket) -> Iterator[SoundPacket]:
        try:
            yield from self._tracks[packet.stream.index].take(packet)
        except (av.FFmpegError, ValueError):  # PyAV's ValueError: rate or channels change within the stream
            self.is_damaged = True


def _can_be_copied(stream: av.AudioStream) -> bool:
    name, context = stream.codec_context.codec.canonical_name, stream.codec_context
    is_known = context.sample_rate > 0 and context.layout.nb_channels > 0
    return is_known and name in COPIED_CODECS and (name not in NEED_EXTRADATA or bool(context.extradata))


class _Track(ABC):
    def __init__(self, source: av.AudioStream, start_sec: float) -> None:
        self._source, self._start_sec = source, start_sec

    @abstractmethod
    def add_to(self, film: OutputContainer) -> None: ...

    @abstractmethod
    def take(self, packet: SoundPacket) -> Iterator[SoundPacket]:
        """A packet of the source -> packets of the new video."""

    def rest(self) -> Iterator[SoundPacket]:
        yield from ()


class _CopiedTrack(_Track):
    _last_dts: int | None = None

    def add_to(self, film: OutputContainer) -> None:
        self._stream = film.add_stream_from_template(self._source)

    def take(self, packet: SoundPacket) -> Iterator[SoundPacket]:
        if packet.dts is None or not packet.size:
            return
        # An mp4 takes no packets whose times go back.
        if self._last_dts is not None and packet.dts <= self._last_dts:
            return
        self._last_dts = packet.dts
        shift = round(self._start_sec / packet.time_base)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
        packet.dts -= shift
        packet.stream = self._stream
        yield packet


class _EncodedTrack(_Track):
    def add_to(self, film: OutputContainer) -> None:
        context = self._source.codec_context
        rate = context.sample_rate if context.sample_rate in AAC_RATES else 48_000
        num_channels = min(max(context.layout.nb_channels, 1), MAX_ENCODED_CHANNELS)
        layout = "mono" if num_channels == 1 else "stereo"
        self._stream = film.add_stream("aac", rate=rate, bit_rate=ENCODED_BITS_A_CHANNEL * num_channels, layout=layout)

    def take(self, packet: SoundPacket) -> Iterator[SoundPacket]:
        for frame in packet.decode():
            if not isinstance(frame, av.AudioFrame):
                continue  # allowed by PyAV's types only
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(self._start_sec / frame.time_base)
            yield from self._stream.encode(frame)

    def rest(self) -> Iterator[SoundPacket]:
        yield from self._stream.encode(None)
