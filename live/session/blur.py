"""A copy of a video with blurred faces, to show or store it with less of people's faces.

The video is read twice. First faces, also small ones, are detected several times per second and linked over time. Then
every frame is written, upright, with its own time, and blurred wherever a face was seen or may be at that time (see
`face_paths`); later detections are thus known without storing frames. A handful of colour blocks with soft transitions
remain of a face. All sound is copied (see `live/sound`), but no subtitles, data streams, cover pictures, chapters or
metadata: titles, places and names may identify somebody. This does not make people anonymous.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ...data.atomic_files import whole_file
from ...processor.face_detection import FaceDetector
from ...processor.input_errors import EngagementInputError, NoDecodableFrameError, TruncatedVideoError
from ...processor.video_decoding import TIME_TOLERANCE_SEC
from ..film import AnnotatedVideo
from ..sound import SourceSound
from ..sources import FileSource, SourceFrame
from .face_paths import FacePaths

NOT_ANONYMOUS = (
    "Blurred faces do not make people anonymous: voices, clothes, bodies, the room and what is said remain, and a face "
    "that no detector finds, in profile or half hidden, stays visible."
)
LOOK_EVERY_SEC = 0.1  # at 0.2 s, people who cross the picture fast are sometimes uncovered
LOOKS_PER_BATCH = 4  # frames in memory at a time
LOOKING_SHARE = 0.8  # of the total time, approximately
COVER_RATIO = 1.5  # the ellipse's axes by a detected box's sides, since boxes leave out forehead and ears
EDGE_RATIO = 1.25  # of the ellipse, up to where the blur fades out
BLOCKS_ACROSS = 4  # of a detected box; with 8, MTCNN still finds a face in up to half of the frames


@dataclass(frozen=True)
class BlurReport:
    """What was done, in frames of the copy."""

    num_frames: int
    num_frames_looked_at: int
    num_frames_with_faces: int  # with at least one face covered
    num_frames_covered_between: int  # with a covered face not detected in this very frame
    duration_sec: float  # of the pictures
    notes: tuple[str, ...] = ()  # sentences without a full stop: what a user should know


@dataclass(frozen=True)
class _Seen:
    """The result of the first reading."""

    paths: FacePaths
    num_frames: int
    num_looked_at: int
    size_px: tuple[int, int]  # width, height
    fps: float
    start_sec: float  # of the first picture, by the container's clock
    duration_sec: float
    breaks_off: bool
    notes: tuple[str, ...]  # of the source


def blur_faces(
    source: Path,
    output: Path,
    on_progress: Callable[[float], None] | None = None,
    device: str = "cpu",
    video_track: int | None = None,
) -> BlurReport:
    """Write a copy of a video, an mp4, with blurred faces, and its pictures as a player shows them.

    If a video breaks off, like the recording of a crashed computer, everything readable is copied and a note says where
    it ends, since it cannot be recorded again.

    Args:
        output: written completely or not at all; an existing file is replaced.
        on_progress: called with the seconds of video done.
        device: for face detection.
        video_track: which of several, from 1; None: the default one.

    Raises:
        EngagementInputError: the source cannot be read, or is the output; the output cannot be written.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise EngagementInputError(f"{output} is the source video and must not be overwritten; choose another name.")
    tell = on_progress or (lambda _: None)
    with whole_file(output) as partial:
        seen = _look_for_faces(source, video_track, device, lambda time_sec: tell(time_sec * LOOKING_SHARE))
        done_sec = seen.duration_sec * LOOKING_SHARE
        return _write_copy(
            source, video_track, seen, partial, output, lambda time_sec: tell(done_sec + time_sec * (1 - LOOKING_SHARE))
        )


def _look_for_faces(source: Path, video_track: int | None, device: str, tell: Callable[[float], None]) -> _Seen:
    detector = FaceDetector(device=device)
    paths = FacePaths()
    looked_at: list[SourceFrame] = []
    num_frames, num_looked_at, due_sec, breaks_off = 0, 0, 0.0, False
    first: SourceFrame | None = None
    with FileSource(source, video_track=video_track) as film:
        try:
            for last in film.frames():
                first = first or last
                num_frames += 1
                if last.time_sec >= due_sec - TIME_TOLERANCE_SEC:
                    due_sec = last.time_sec + LOOK_EVERY_SEC
                    num_looked_at += 1
                    looked_at.append(last)
                if len(looked_at) == LOOKS_PER_BATCH:
                    _look(detector, looked_at, paths)
                    looked_at.clear()
                    tell(last.time_sec)
        except TruncatedVideoError:
            if first is None:
                raise
            breaks_off = True
    if first is None:
        raise NoDecodableFrameError(f"{source} contains no frames; record it again.")
    _look(detector, looked_at, paths)
    paths.finish()
    height_px, width_px = last.pixels.shape[:2]
    duration_sec = last.time_sec + 1 / film.fps
    return _Seen(
        paths, num_frames, num_looked_at, (width_px, height_px), film.fps, film.start_sec, duration_sec, breaks_off,
        film.notes,
    )  # fmt: skip


def _look(detector: FaceDetector, frames: list[SourceFrame], paths: FacePaths) -> None:
    if frames:
        found = detector.detect_thorough(np.stack([frame.pixels for frame in frames]))
        for frame, faces in zip(frames, found, strict=True):
            paths.add(faces, frame.pixels, frame.time_sec)


def _write_copy(
    source: Path,
    video_track: int | None,
    seen: _Seen,
    partial: Path,
    output: Path,
    tell: Callable[[float], None],
) -> BlurReport:
    num_with_faces = num_between = 0
    # An unreadable frame may be in the middle of the video, while its sound continues.
    sound_until_sec = seen.duration_sec if seen.breaks_off else math.inf
    with (
        FileSource(source, video_track=video_track) as film,
        SourceSound(source, seen.start_sec, sound_until_sec) as sound,
        AnnotatedVideo(partial, seen.size_px, seen.fps, sound, whole_as=output) as copy,
    ):
        for frame in islice(film.frames(), seen.num_frames):
            places = seen.paths.faces_at(frame.time_sec)
            for place in places:
                blur_face(frame.pixels, place.box_xyxy_px)
            copy.write(frame.pixels, frame.time_sec)
            num_with_faces += bool(places)
            num_between += not all(place.is_seen for place in places)
            tell(frame.time_sec)
    notes = tuple(_notes(seen, num_with_faces, sound))
    return BlurReport(
        seen.num_frames, seen.num_looked_at, num_with_faces, num_between, round(seen.duration_sec, 3), notes
    )


def _notes(seen: _Seen, num_with_faces: int, sound: SourceSound) -> Iterator[str]:
    yield from seen.notes
    if seen.breaks_off:
        yield f"the video breaks off after {seen.duration_sec:.1f} s, and the copy ends there"
    if not num_with_faces:
        yield "no face was found, so nothing is blurred"
    if sound.num_left_out:
        yield f"{sound.num_left_out} of its sound tracks have an unknown codec and are not in the copy"
    if sound.is_damaged and not seen.breaks_off:
        yield "its sound is damaged, and parts of it are not in the copy"


def blur_face(frame: np.ndarray, box_xyxy_px: np.ndarray) -> None:
    """Blur an ellipse around a face's box, (4,), in place in a frame, (height, width, 3) uint8 RGB."""
    center, axes = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2, (box_xyxy_px[2:] - box_xyxy_px[:2]) / 2 * COVER_RATIO
    outer = np.concatenate([np.floor(center - axes * EDGE_RATIO), np.ceil(center + axes * EDGE_RATIO)]).astype(int)
    left, top = np.maximum(outer[:2], 0).tolist()
    right, bottom = np.minimum(outer[2:], frame.shape[1::-1]).tolist()
    if right <= left or bottom <= top:
        return  # outside the picture
    part = frame[top:bottom, left:right]
    block_px = (box_xyxy_px[2:] - box_xyxy_px[:2]).max() / BLOCKS_ACROSS
    num_blocks = [max(1, round(side / block_px)) for side in (right - left, bottom - top)]
    # First reduce to a few averages: unlike after a blur alone, sharpening cannot bring anything back. Then blur these,
    # since they would flicker when a face moves by a fraction of a block.
    blocks = cv2.resize(part, num_blocks, interpolation=cv2.INTER_AREA)
    blocks = cv2.GaussianBlur(blocks, (3, 3), 0, borderType=cv2.BORDER_REPLICATE)
    blurred = cv2.resize(blocks, (right - left, bottom - top), interpolation=cv2.INTER_CUBIC)
    x = ((np.arange(left, right) + 0.5 - center[0]) / axes[0]).astype(np.float32)
    y = ((np.arange(top, bottom) + 0.5 - center[1]) / axes[1]).astype(np.float32)
    distance = np.hypot(x, y[:, None])  # 1 on the ellipse; (bottom - top, right - left)
    share = np.clip((EDGE_RATIO - distance) / (EDGE_RATIO - 1), 0, 1)
    part[:] = cv2.blendLinear(part, blurred, 1 - share, share)
