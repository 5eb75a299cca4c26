"""A copy of a film with the faces in it blurred, for who wants to show or keep it with less of people's faces.

The film is read twice. First faces are looked for at several times a second, small ones too, and linked over time; then
every frame is written, upright, with its own time, and with a blur wherever a face was seen or may be at that time (see
`face_paths`): so what comes later in the film is known without keeping frames. Of a face a handful of blocks of colour
remain, drawn smoothly into each other. All its sound goes along (see `live/sound`). No subtitles, data streams, cover
pictures, chapters or metadata do: titles, places and names may identify somebody. People are not made anonymous by it.
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
    "that no detector finds, in profile or half hidden, stays as it is."
)
LOOK_EVERY_SEC = 0.1  # at a fifth of a second, people who cross the picture fast are uncovered now and then
LOOKS_PER_BATCH = 4  # frames held at a time
LOOKING_SHARE = 0.8  # of the time all of it takes, about
COVER_RATIO = 1.5  # the ellipse's axes, of a detected box's sides, which leave out the forehead and the ears
EDGE_RATIO = 1.25  # of the ellipse, over which the blur fades out
BLOCKS_ACROSS = 4  # of a detected box; of 8, MTCNN finds a face again in up to half of the frames


@dataclass(frozen=True)
class BlurReport:
    """What was done to a film, in frames of the copy."""

    num_frames: int
    num_frames_looked_at: int
    num_frames_with_faces: int  # with at least one face covered
    num_frames_covered_between: int  # with a face covered that no detection of this very frame shows
    duration_sec: float  # of the pictures
    notes: tuple[str, ...] = ()  # sentences without a stop, of what a user should know


@dataclass(frozen=True)
class _Seen:
    """What the first reading tells."""

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
    """Write a copy of a film, an mp4, with its faces blurred, and its pictures as a player shows them.

    Of a film that breaks off, as the recording of a crashed computer does, all that can be read is copied, and a note
    says where it ends: the copy is as whole as its source is, and nobody can record it again.

    Args:
        output: whole or not there, however this ends; what is there is replaced.
        on_progress: takes the seconds of film done.
        device: to look for faces on.
        video_track: of a film with several, from 1; None: the default one.

    Raises:
        EngagementInputError: the source cannot be read, or is the output; the output cannot be written.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise EngagementInputError(f"Expected another file than the video itself, got {output}; choose another name.")
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
        raise NoDecodableFrameError(f"Expected frames, got none, in {source}; record it again.")
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
    # A frame that could not be read may lie in the middle of the film, and its sound goes on.
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
        yield f"the film breaks off after {seen.duration_sec:.1f} s, and the copy ends there"
    if not num_with_faces:
        yield "no face was found, so nothing is blurred"
    if sound.num_left_out:
        yield f"{sound.num_left_out} of its sound tracks have an unknown codec and are not in the copy"
    if sound.is_damaged and not seen.breaks_off:
        yield "its sound is damaged, and parts of it are not in the copy"


def blur_face(frame: np.ndarray, box_xyxy_px: np.ndarray) -> None:
    """Blur an ellipse about a face's box, (4,), in a frame, (height, width, 3) uint8 RGB, which is changed."""
    center, axes = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2, (box_xyxy_px[2:] - box_xyxy_px[:2]) / 2 * COVER_RATIO
    outer = np.concatenate([np.floor(center - axes * EDGE_RATIO), np.ceil(center + axes * EDGE_RATIO)]).astype(int)
    left, top = np.maximum(outer[:2], 0).tolist()
    right, bottom = np.minimum(outer[2:], frame.shape[1::-1]).tolist()
    if right <= left or bottom <= top:
        return  # outside of the picture
    part = frame[top:bottom, left:right]
    block_px = (box_xyxy_px[2:] - box_xyxy_px[:2]).max() / BLOCKS_ACROSS
    num_blocks = [max(1, round(side / block_px)) for side in (right - left, bottom - top)]
    # First to a few averages: what is not in them no sharpening brings back, as it may after a blur alone. Then these
    # are blurred, or they flicker wherever a face moves on by a part of a block.
    blocks = cv2.resize(part, num_blocks, interpolation=cv2.INTER_AREA)
    blocks = cv2.GaussianBlur(blocks, (3, 3), 0, borderType=cv2.BORDER_REPLICATE)
    blurred = cv2.resize(blocks, (right - left, bottom - top), interpolation=cv2.INTER_CUBIC)
    x = ((np.arange(left, right) + 0.5 - center[0]) / axes[0]).astype(np.float32)
    y = ((np.arange(top, bottom) + 0.5 - center[1]) / axes[1]).astype(np.float32)
    distance = np.hypot(x, y[:, None])  # 1 on the ellipse; (bottom - top, right - left)
    share = np.clip((EDGE_RATIO - distance) / (EDGE_RATIO - 1), 0, 1)
    part[:] = cv2.blendLinear(part, blurred, 1 - share, share)
