"""Locates every frame of a video file: once, from the packets, without converting pixels.

`index_video` numbers the frames in the order they are shown and notes from which packet each may be decoded;
`video_decoding` decodes the frames.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict

import numpy as np

from .input_errors import NoDecodableFrameError
from .media_files import MediaSource
from .shown_picture import ShownPictures
from .video_container import DEFAULT_MAX_PIXELS, resolve_source
from .video_damage import find_damage, order_sound_frames, tell_damage
from .video_packets import PacketScan, scan_packets, truncated

# Matroska rounds times to a millisecond; a frame this close to a clip's edge counts as on it.
TIME_TOLERANCE_SEC = 1e-3
_LEAST_LATENESS_SEC = 0.1
_CONSTANT_RATE_TOLERANCE_SEC = 2 * TIME_TOLERANCE_SEC  # the times of the first and the last frame are also rounded
# Decoders that can skip non-reference pictures without changing later ones. HEVC's cannot: there a "non-reference"
# picture may serve a higher temporal layer. VP9 adapts its probabilities to every picture.
_SKIPPING_CODECS = {"h264", "mpeg4"}


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Location of every frame of a video. Frames are numbered in presentation order, packets in file order."""

    path: str
    num_frames: int
    fps: float  # mean, from the frames' times; for a single frame the header's
    duration_sec: float
    frame_times_sec: np.ndarray  # (num_frames,), float64, ascending, by the file's clock, from `start_sec`
    frame_packets: np.ndarray  # (num_frames,), int64: the frame's packet, -1 if known only by counting
    start_packets: np.ndarray  # (num_frames,), int64: the packet to decode from, so that this frame is exact
    packet_bytes: np.ndarray  # (num_packets,), int64: sizes, used to detect that the file changed
    can_skip: bool  # the decoder may skip non-reference pictures that are not wanted
    max_pixels: int
    source: str | bytes = field(repr=False)
    width_px: int  # as shown
    height_px: int
    # (num_halves,), int64: packets with half a frame, whose other half is in the next packet
    first_fields: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    transfer: str | None = None  # "PQ" or "HLG", for HDR to be converted to SDR
    as_played: bool = False  # see `FacePreparation.as_played`
    start_sec: float = 0.0  # above 0 where the file's sound begins before its picture
    track: int = 0  # place among the file's video tracks, from 0
    cut: str | None = None  # why the file ends early; the frames before that are indexed
    notes: tuple[str, ...] = ()  # remarks for the user, each a phrase

    @cached_property
    def shown(self) -> ShownPictures:
        """How decoded frames are shown."""
        return ShownPictures(self.width_px, self.height_px, self.transfer)

    @property
    def end_sec(self) -> float:
        """End of the last frame, by the file's clock."""
        return self.start_sec + self.duration_sec

    @cached_property
    def unevenness_sec(self) -> float:
        """Largest distance of a frame from its time at a constant rate."""
        times_sec = self.frame_times_sec
        return float(np.abs(times_sec - np.linspace(times_sec[0], times_sec[-1], len(times_sec))).max())

    @property
    def has_constant_rate(self) -> bool:
        """Whether the rate is constant, apart from times rounded to milliseconds."""
        return self.unevenness_sec <= _CONSTANT_RATE_TOLERANCE_SEC

    @cached_property
    def packet_frames(self) -> np.ndarray:
        """(num_packets,), int64: the frame in a packet, -1 for none or if known only by counting."""
        frames = np.full(len(self.packet_bytes), -1, np.int64)
        is_known = self.frame_packets >= 0
        frames[self.frame_packets[is_known]] = np.flatnonzero(is_known)
        return frames

    @cached_property
    def shown_until(self) -> np.ndarray:
        """(num_packets,), int64: the last shown frame among the packets up to each."""
        return np.maximum.accumulate(self.packet_frames)


class IndexArguments(TypedDict, total=False):
    """Keyword arguments of `index_video`."""

    max_pixels: int
    whole: bool
    video_track: int | None
    as_played: bool


def index_video(
    path: MediaSource,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    whole: bool = True,
    video_track: int | None = None,
    as_played: bool = False,
) -> VideoIndex:
    """Locate the frames of a video.

    Args:
        whole: refuse a file that ends early; if false, index what exists and set `cut`.
        video_track: from 1; None: the default one, or, without `as_played`, the first.
        as_played: see `FacePreparation.as_played`.

    Raises:
        VideoReadError: not a complete, decodable video, or without that track. If up to half of the frames are damaged,
            `notes` describes what is lost instead.
    """
    scan = scan_packets(*resolve_source(path), max_pixels, video_track, as_played)
    damage = find_damage(scan)
    if scan.cut and (whole or not any(scan.shown)):
        raise truncated(scan, sum(scan.shown))
    if scan.first_frame is None or scan.pictures is None or not any(scan.shown):
        found = f"got {len(scan.sizes)} packets of {scan.codec} none of which decodes"
        raise NoDecodableFrameError(f"Expected at least 1 decodable frame, {found}, in {scan.name}; record it again.")
    met = order_sound_frames(scan, damage)
    notes = tell_damage(scan, damage, met, whole)
    times_sec = met.times_sec[met.is_sound]
    num_frames = len(times_sec)
    # The header's rate if the times agree with it: Matroska's milliseconds turn 30 into 29.995.
    is_steady = abs((num_frames - 1) / scan.fps - times_sec[-1]) <= TIME_TOLERANCE_SEC
    fps = scan.fps if is_steady else float((num_frames - 1) / times_sec[-1])
    start_sec = _picture_start_sec(scan, met.packets)
    late = (f"the picture begins {start_sec:.1f} s after the file's clock",) if start_sec else ()
    return VideoIndex(
        path=scan.name,
        num_frames=num_frames,
        fps=fps,
        duration_sec=float(times_sec[-1]) + 1 / fps,
        frame_times_sec=times_sec + start_sec,
        frame_packets=met.packets[met.is_sound],
        start_packets=met.starts[met.is_sound],
        packet_bytes=np.array(scan.sizes, np.int64),
        can_skip=scan.codec in _SKIPPING_CODECS,
        max_pixels=max_pixels,
        source=scan.source,
        first_fields=np.array(sorted(scan.first_fields), np.int64),
        width_px=scan.pictures.width_px,
        height_px=scan.pictures.height_px,
        transfer=scan.pictures.transfer,
        as_played=as_played,
        start_sec=start_sec,
        track=scan.track.place,
        cut=scan.cut,
        notes=(*scan.track.notes, *scan.pictures.notes, *late, *notes),
    )


def _picture_start_sec(scan: PacketScan, packets: np.ndarray) -> float:
    """Time of the first frame, by the file's clock; 0.0 if sound and picture begin together.

    Codecs delay both by hundredths of a second, and AVI's delay its pictures by some frames, which does not count.
    """
    pts = [scan.pts[packet] for packet in packets] if packets.min() >= 0 else scan.pts
    known = [ticks for ticks in pts if ticks is not None]
    if not known or scan.time_base is None:
        return 0.0
    start_sec = min(known) * float(scan.time_base) - scan.clock_start_sec
    least_sec = _LEAST_LATENESS_SEC
    if scan.stream_start_sec - scan.clock_start_sec < _LEAST_LATENESS_SEC:
        least_sec += (scan.num_reordered + 1) / scan.fps
    return start_sec if start_sec >= least_sec else 0.0
