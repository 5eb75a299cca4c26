"""Decode exactly the requested frames of a video file, and no more of it than exact results need.

`index_video` reads the packets once to locate every frame (`video_index`); `decode_video` decodes one clip,
`decode_clips` many in one pass (`video_pass`). `face_detection` finds faces.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .input_errors import EngagementInputError, VideoReadError
from .media_files import MediaSource
from .video_container import DEFAULT_MAX_PIXELS
from .video_index import TIME_TOLERANCE_SEC, VideoIndex, index_video
from .video_pass import Picture, wanted_frames

if TYPE_CHECKING:
    from .media_reader import FramesOnDemand, MediaReader

logger = logging.getLogger(__name__)
_NOTABLE_UNEVENNESS_SEC = 0.05  # cameras are slightly uneven, which is not worth a note
END_TOLERANCE_SEC = 1.0  # annotations are often rounded up to whole seconds


@dataclass(frozen=True, eq=False)
class DecodedFrames:
    """Frames of one video, in the requested order."""

    frames: "np.ndarray | FramesOnDemand"  # (num_frames, height, width, 3), uint8, RGB, upright
    frame_indices: np.ndarray  # (num_frames,), int64
    frame_times_sec: np.ndarray  # (num_frames,), float64
    num_repeated_frames: int  # repeats in a clip that is too short
    index: VideoIndex


def uniform_frame_indices(num_available: int, num_frames: int) -> np.ndarray:
    """Centres of `num_frames` equal segments, (num_frames,) int64; a clip with fewer frames repeats some."""
    _require_positive(num_available=num_available, num_frames=num_frames)
    return (2 * np.arange(num_frames, dtype=np.int64) + 1) * num_available // (2 * num_frames)


def consecutive_frame_indices(num_available: int, num_frames: int, start_frame: int = 0) -> np.ndarray:
    """`num_frames` in a row from `start_frame`, (num_frames,) int64; repeats the last if the clip ends early."""
    _require_positive(num_available=num_available, num_frames=num_frames)
    if not 0 <= start_frame < num_available:
        raise EngagementInputError(f"Expected a start_frame from 0 to {num_available - 1}, got {start_frame}.")
    return np.minimum(start_frame + np.arange(num_frames, dtype=np.int64), num_available - 1)


def window_start_frames(num_available: int, num_frames: int, stride_frames: int) -> np.ndarray:
    """First frames of the complete windows of `num_frames` at this stride, (num_windows,) int64; at least one."""
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
    reader: "MediaReader | None" = None,
) -> DecodedFrames:
    """Decode `num_frames` of a video, or of its part from `clip_start_sec` up to, not including, `clip_end_sec`.

    Times are those of the file's clock, as players show it: if the picture begins after the sound, it begins above 0.
    `start_frame` counts from the clip's first frame and is for "consecutive" sampling. With an `index` of the same file
    the indexing pass is not needed. A `reader` does both; None: this process.
    """
    index = (reader.index_video if reader else index_video)(path, max_pixels=max_pixels) if index is None else index
    indices = clip_frame_indices(index, num_frames, sampling, start_frame, clip_start_sec, clip_end_sec)
    (decoded,) = (reader.decode_clips if reader else decode_clips)(index, [indices])
    if isinstance(decoded, VideoReadError):
        raise decoded
    if decoded.num_repeated_frames:
        first, end = frames_between(index, clip_start_sec, clip_end_sec)
        num_left, repeats = end - first - start_frame, decoded.num_repeated_frames
        counts = f"{num_left} frame{'s' * (num_left != 1)}, {num_frames} were requested"
        if num_left >= num_frames:
            counts = f"{num_left} frames, some of which stay on screen for long"
        logger.warning("%s has %s: %d %s", index.path, counts, repeats, "are repeats" if repeats > 1 else "is a repeat")
    return decoded


def clip_frame_indices(
    index: VideoIndex,
    num_frames: int,
    sampling: str,
    start_frame: int = 0,
    clip_start_sec: float | None = None,
    clip_end_sec: float | None = None,
) -> np.ndarray:
    """Numbers of the frames that `decode_video` takes, (num_frames,) int64.

    "uniform": the centres of equal segments, of the clip's time if an `index` as played has a variable rate, else of
    its frames, which is the same at a constant rate.
    """
    first, end = frames_between(index, clip_start_sec, clip_end_sec)
    if sampling == "consecutive":
        return first + consecutive_frame_indices(end - first, num_frames, start_frame)
    if sampling == "uniform" and start_frame == 0:
        if index.as_played and not index.has_constant_rate:
            return _frames_on_screen(index, num_frames, clip_start_sec, clip_end_sec)
        return first + uniform_frame_indices(end - first, num_frames)
    expected = 'sampling "consecutive", or "uniform" with start_frame 0'
    raise EngagementInputError(f"Expected {expected}, got {sampling!r} with start_frame {start_frame}.")


def _frames_on_screen(index: VideoIndex, num_frames: int, start_sec: float | None, end_sec: float | None) -> np.ndarray:
    """Frames shown by a player at the centres of `num_frames` equal segments of a clip's time, (num_frames,) int64."""
    _require_positive(num_frames=num_frames)
    start = index.start_sec if start_sec is None else max(start_sec, index.start_sec)
    end = index.end_sec if end_sec is None else min(end_sec, index.end_sec)
    times_sec = start + (end - start) * (2 * np.arange(num_frames) + 1) / (2 * num_frames)
    after = np.searchsorted(index.frame_times_sec, times_sec + TIME_TOLERANCE_SEC, side="right")
    return np.maximum(after - 1, 0)


def sampling_notes(index: VideoIndex, num_frames: int, sampling: str) -> tuple[str, ...]:
    """Notes on frames that `clip_frame_indices` took from a film with a variable rate."""
    if sampling != "uniform" or index.unevenness_sec < _NOTABLE_UNEVENNESS_SEC:
        return ()
    if index.as_played:
        return ("variable rate: sampled by time",)
    if index.unevenness_sec < index.duration_sec / (2 * num_frames):  # half a segment
        return ()
    return ("variable rate: sampled by the frames' numbers, not by time",)


def frames_between(index: VideoIndex, start_sec: float | None, end_sec: float | None) -> tuple[int, int]:
    """Number of the first frame shown at or after `start_sec`, and of the first at or after `end_sec`.

    A clip between two frames has the one on screen at that time; one that begins before the picture is shortened.
    Raises EngagementInputError for a span outside the video.
    """
    start = index.start_sec if start_sec is None else start_sec
    end = index.end_sec if end_sec is None else end_sec
    is_within = 0 <= start < min(end, index.end_sec) and end <= index.end_sec + END_TOLERANCE_SEC
    if not is_within or end <= index.start_sec + TIME_TOLERANCE_SEC:
        found = f"got {start:g} to {end:g} s in {index.path}"
        begins = f", in which the picture begins at {index.start_sec:g} s" if index.start_sec else ""
        raise EngagementInputError(f"Expected a clip within 0 to {index.end_sec:g} s{begins}, {found}; correct it.")
    first, after = np.searchsorted(index.frame_times_sec, np.array([start, end]) - TIME_TOLERANCE_SEC)
    if end_sec is None:
        after = index.num_frames
    return (int(first), int(after)) if first < after else (max(int(first) - 1, 0), max(int(first), 1))


def decode_clips(index: VideoIndex, clips: Sequence[np.ndarray]) -> Iterator[DecodedFrames | VideoReadError]:
    """Decode several clips in one pass over the file, each (num_frames,) int64 frame numbers, in any order, with
    repeats.

    One entry per clip, in order; an error for a clip with a frame that is missing or damaged. No packet is decoded
    twice. Memory holds the frames of one clip and of those that overlap it, if clips are in order of their starts.

    Raises:
        EngagementInputError: a number without a frame.
        VideoReadError: the file is not the one that was indexed.
    """
    pictures = clip_pictures(index, clips)
    # With map, which does not keep a clip's frames in memory while the next clip's are decoded.
    yield from map(lambda clip: _put_together(index, clip, next(pictures)), clips)


def clip_pictures(index: VideoIndex, clips: Sequence[np.ndarray]) -> Iterator[list[np.ndarray] | VideoReadError]:
    """Like `decode_clips`, with each clip's frames, (height, width, 3) uint8, in a list instead of one array."""
    for clip in clips:
        if not len(clip) or clip.min() < 0 or clip.max() >= index.num_frames:
            found = f"got {clip.tolist()} for {index.path}"
            raise EngagementInputError(f"Expected frame numbers from 0 to {index.num_frames - 1}, {found}.")
    if not clips:
        return
    # Not np.unique: it makes numpy import masked arrays, which delays a process that reads one file.
    last_clips = {frame: number for number, clip in enumerate(clips) for frame in clip.tolist()}
    frames = wanted_frames(index, np.array(sorted(last_clips)))
    held: dict[int, Picture] = {}
    newest = -1
    for number, clip in enumerate(clips):
        while newest < clip.max():
            newest, picture = next(frames)
            held[newest] = picture
        entry = _pictures_of(clip, held)
        for frame in {*clip.tolist()}:
            if last_clips[frame] == number:
                del held[frame]
        yield entry
        del entry  # free it while the next is decoded


def _pictures_of(clip: np.ndarray, held: Mapping[int, Picture]) -> list[np.ndarray] | VideoReadError:
    """The pictures in the clip's order, or the error of the earliest frame that has one."""
    pictures = {}
    for frame in sorted({*clip.tolist()}):
        picture = held[frame]
        if isinstance(picture, VideoReadError):
            return picture
        pictures[frame] = picture
    return [pictures[frame] for frame in clip.tolist()]


def _put_together(
    index: VideoIndex, clip: np.ndarray, pictures: list[np.ndarray] | VideoReadError
) -> DecodedFrames | VideoReadError:
    return pictures if isinstance(pictures, VideoReadError) else put_together(index, clip, np.stack(pictures))


def put_together(index: VideoIndex, clip: np.ndarray, frames: "np.ndarray | FramesOnDemand") -> DecodedFrames:
    """The frames of one clip, (num_frames, height, width, 3) uint8, with their numbers, times and repeats."""
    num_repeated_frames = len(clip) - len({*clip.tolist()})
    return DecodedFrames(frames, clip, index.frame_times_sec[clip], num_repeated_frames, index)
