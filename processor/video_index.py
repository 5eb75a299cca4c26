"""Where every frame of a video file lies: learned once, from the packets, converting no pixel.

`index_video` numbers the frames in the order they are shown and notes from which packet each may be decoded; getting
the frames themselves is left to `video_decoding`.
"""

from dataclasses import dataclass, field
from functools import cached_property

import av
import numpy as np

from .input_errors import NoDecodableFrameError
from .media_files import MediaSource
from .video_container import DEFAULT_MAX_PIXELS, resolve_source
from .video_damage import find_damage, order_sound_frames, tell_damage
from .video_packets import scan_packets, truncated

# Matroska rounds times to a millisecond; a frame that close to a clip's edge counts as on it.
TIME_TOLERANCE_SEC = 1e-3
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
    frame_times_sec: np.ndarray  # (num_frames,), float64, ascending; the first is 0.0 unless it is lost
    frame_packets: np.ndarray  # (num_frames,), int64: the packet a frame lies in, -1 where only counting tells
    start_packets: np.ndarray  # (num_frames,), int64: the packet to decode from, for this frame to come out exact
    packet_bytes: np.ndarray  # (num_packets,), int64: sizes, by which a file that changed is noticed
    first_fields: np.ndarray  # (num_halves,), int64: packets with half a frame, whose other half is in the next packet
    can_skip: bool  # the decoder may leave out non-reference pictures that were not asked for
    max_pixels: int
    source: str | bytes = field(repr=False)
    cut: str | None = None  # how the file ends early; the frames are those before
    notes: tuple[str, ...] = ()  # what was done or found that a user should know, each a phrase

    @cached_property
    def packet_frames(self) -> np.ndarray:
        """(num_packets,), int64: the frame that a packet holds, -1 for none and where only counting tells."""
        frames = np.full(len(self.packet_bytes), -1, np.int64)
        is_known = self.frame_packets >= 0
        frames[self.frame_packets[is_known]] = np.flatnonzero(is_known)
        return frames

    @cached_property
    def shown_until(self) -> np.ndarray:
        """(num_packets,), int64: the last shown of the frames in the packets up to each."""
        return np.maximum.accumulate(self.packet_frames)


def index_video(path: MediaSource, max_pixels: int = DEFAULT_MAX_PIXELS, whole: bool = True) -> VideoIndex:
    """Find out where the frames lie.

    Args:
        whole: refuse a file that ends early; else take what is there, and `cut` says so.

    Raises:
        VideoReadError: not a whole, decodable video; of one damaged within, `notes` says what is lost, up to a half.
    """
    scan = scan_packets(*resolve_source(path), max_pixels)
    damage = find_damage(scan)
    if scan.cut and (whole or not any(scan.shown)):
        raise truncated(scan, sum(scan.shown))
    if scan.first_frame is None or not any(scan.shown):
        found = f"got {len(scan.sizes)} packets of {scan.codec} none of which decodes"
        raise NoDecodableFrameError(f"Expected at least 1 decodable frame, {found}, in {scan.name}; record it again.")
    met = order_sound_frames(scan, damage)
    notes = tell_damage(scan, damage, met, whole)
    times_sec = met.times_sec[met.is_sound]
    num_frames = len(times_sec)
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
        frame_packets=met.packets[met.is_sound],
        start_packets=met.starts[met.is_sound],
        packet_bytes=np.array(scan.sizes, np.int64),
        can_skip=scan.codec in _SKIPPING_CODECS,
        max_pixels=max_pixels,
        source=scan.source,
        first_fields=np.array(sorted(scan.first_fields), np.int64),
        cut=scan.cut,
        notes=notes,
    )


def display_matrix(frame: av.VideoFrame) -> np.ndarray:
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
    return (frame.height, frame.width) if display_matrix(frame)[0, 0] == 0 else (frame.width, frame.height)
