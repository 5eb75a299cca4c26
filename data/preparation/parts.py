"""One part of a preparation: a few clips → rows with crops, boxes and hashes, written so that a kill does no harm.

Runs in worker processes. A part's table is written first and its list of rejects last, atomically, so that a part
with a list of rejects is complete.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from PIL import Image
from pydantic import TypeAdapter

from ...processor.bounded_reader import BoundedReader
from ...processor.face_preparation import PreparedClip
from ...processor.image_processing_engagement import EngagementImageProcessor
from ...processor.input_errors import (
    ArchiveError,
    DataError,
    EngagementInputError,
    ImageReadError,
    NoFaceError,
    in_one_line,
)
from ...processor.video_processing_engagement import EngagementVideoProcessor
from ..atomic_files import whole_file, write_whole, writing
from ..face_signals import SIGNALS, Signals, face_signals
from ..json_records import read_text, refusing
from ..schema import AFFECTS, ClipRecord, Content, Media, Reject
from .picture_codec import decode_picture, encode_jpeg, pixels_sha256
from .picture_hashes import perceptual_hash
from .prepared_data import FEATURES, with_later_columns
from .settings import PreparationSettings

_KEPT_SIDE_PX = 512  # a larger picture is reduced before it is stored
_PLAIN_FORMATS = {("JPEG", "L"), ("JPEG", "RGB"), ("PNG", "L"), ("PNG", "RGB")}
_OF_CLIP = ("clip_id", "subject_id", "split", "source_path", "label", "label_scores")
_REJECTS = TypeAdapter(list[Reject])


def is_done(parts: Path, start: int) -> bool:
    """Whether the part that begins with clip number `start` is complete."""
    return _rejects_path(parts, start).is_file()


def read_part(parts: Path, start: int) -> tuple[Dataset | None, list[Reject]]:
    """A finished part: its rows (None if every clip was rejected), mapped from disk, and its rejects.

    Raises:
        DataError: the list of rejects was edited.
    """
    path, table = _rejects_path(parts, start), _table_path(parts, start)
    expected, remedy = "a list of rejects", "delete that file and prepare again, which repeats this part"
    text = read_text(path, DataError, expected, remedy)
    with refusing(text, path, DataError, expected, remedy):
        rejects = _REJECTS.validate_json(text)
    if not table.is_file():
        return None, rejects
    try:
        # An earlier version, whose rows lack the later columns, may have started this preparation.
        return with_later_columns(Dataset.from_file(str(table))).select_columns(list(FEATURES)), rejects
    except Exception as error:  # the datasets library has many, for a table that was cut or edited
        raise DataError(
            f"The prepared clips in {table} could not be opened ({in_one_line(error)}); delete {path} and prepare "
            "again, which repeats this part."
        ) from error


def _table_path(parts: Path, start: int) -> Path:
    return parts / f"{start:08}.arrow"


def _rejects_path(parts: Path, start: int) -> Path:
    return parts / f"{start:08}.rejects.json"


def prepare_part(
    clips: Sequence[ClipRecord],
    read: Callable[[ClipRecord], Content],
    media: Media,
    settings: PreparationSettings,
    parts: Path,
    start: int,
    device: torch.device,
) -> None:
    """Prepare the clips of one part, detecting faces on `device`, and write the result to disk."""
    rejects: list[Reject] = []
    table, num_rows = _table_path(parts, start), 0
    with (
        whole_file(table) as partial,
        writing(table),
        one_thread(),
        ArrowWriter(path=str(partial), features=FEATURES) as writer,
    ):
        for clip in clips:
            for row in _rows_of(clip, read, media, settings, rejects, device):
                writer.write(row)
                num_rows += 1
        writer.finalize()
    if not num_rows:  # a table without rows cannot be read back
        table.unlink()
    write_whole(_rejects_path(parts, start), json.dumps([asdict(reject) for reject in rejects]))


def leave_with_parent(parent_pid: int) -> None:
    """In a worker: exit when the parent process is gone, since a killed parent cannot end its workers."""

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1)
        os._exit(1)  # nothing is lost: incomplete parts are repeated

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread per process is fastest with several processes, and gives the same crops for any number of them."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@cache
def _reader() -> BoundedReader:
    """One reader per process: a file that hangs or crashes a decoder becomes a reject."""
    return BoundedReader()


def _rows_of(
    clip: ClipRecord,
    read: Callable[[ClipRecord], Content],
    media: Media,
    settings: PreparationSettings,
    rejects: list[Reject],
    device: torch.device,
) -> Iterator[dict[str, object]]:
    """The rows of one clip; windows that cannot be used are added to `rejects`."""
    known = {name: getattr(clip, name) for name in _OF_CLIP} | {name: clip.affects.get(name) for name in AFFECTS}
    window_index = None
    try:
        for window_index, row in _read_rows(clip, read(clip), media, settings, device):
            if isinstance(row, NoFaceError):
                rejects.append(_reject(clip, row, window_index))
            else:
                yield {**known, "window_index": window_index, **row}
    except EngagementInputError as error:
        # Windows before the damage are kept; the reject stands for the rest of the clip.
        rejects.append(_reject(clip, error, None if window_index is None else window_index + 1))
    except OSError as error:  # of reading: a file that was removed, a failing disk
        unread = DataError(f"{clip.source_path} could not be read ({in_one_line(error)}).")
        rejects.append(_reject(clip, unread, None if window_index is None else window_index + 1))


def _reject(clip: ClipRecord, error: EngagementInputError, window_index: int | None) -> Reject:
    stage = {NoFaceError: "face", ArchiveError: "archive"}.get(type(error), "decode")
    # Content of an archive or a table has no file name of its own.
    reason = re.sub(r"<(bytes|picture|frames)>", lambda _: clip.source_path, str(error))
    return Reject(clip.source_path, clip.clip_id, stage, reason, window_index)


_Rows = Iterator[tuple[int, dict[str, object] | NoFaceError]]


def _read_rows(
    clip: ClipRecord, content: Content, media: Media, settings: PreparationSettings, device: torch.device
) -> _Rows:
    if media != "video" and not isinstance(content, (list, np.ndarray)):
        return _picture_rows(content, settings, device)
    processor = EngagementVideoProcessor(
        num_frames=settings.num_frames,
        sampling=settings.sampling,
        face_crop=settings.face_crop,
        face_margin_ratio=settings.face_margin_ratio,
        face_crop_size_px=settings.face_crop_size_px,
        as_played=settings.as_played,
        device=device,
    ).with_reader(_reader())
    if isinstance(content, list):
        return _frame_rows(clip, content, settings, processor)
    if isinstance(content, np.ndarray):
        return _array_rows(clip, content, processor)
    return _video_rows(clip, content, settings, processor)


def _video_rows(
    clip: ClipRecord, video: Path | bytes, settings: PreparationSettings, processor: EngagementVideoProcessor
) -> _Rows:
    start_sec, end_sec = clip.clip_start_sec, clip.clip_end_sec
    if settings.window_stride_frames is None:
        yield 0, _clip_row(processor.prepare_clip(video, clip_start_sec=start_sec, clip_end_sec=end_sec))
        return
    windows = processor.sample_windows(
        video, settings.window_stride_frames, clip_start_sec=start_sec, clip_end_sec=end_sec
    )
    for index, window in enumerate(windows):
        yield index, _finished_row(processor, window)


def _array_rows(clip: ClipRecord, windows: np.ndarray, processor: EngagementVideoProcessor) -> _Rows:
    """windows: (num_windows, num_frames, height, width, 3) uint8 RGB, as in the reference's HDF5 files."""
    times_sec = np.full(windows.shape[1], np.nan)
    for index, frames in enumerate(windows):
        indices = np.arange(len(frames))
        yield index, _finished_row(processor, PreparedClip(clip.clip_id, frames, frames, indices, times_sec, 0))


def _frame_rows(
    clip: ClipRecord,
    pictures: Sequence[Path | bytes],
    settings: PreparationSettings,
    processor: EngagementVideoProcessor,
) -> _Rows:
    """One window of frames that come as pictures; without face crops they may differ in size."""
    frames = [_load_frame(picture, path) for picture, path in zip(pictures, clip.frame_paths or (), strict=True)]
    if not settings.face_crop:
        frames = [processor.shrink_whole_frames(frame[None])[0] for frame in frames]
    sizes = {f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames}
    if len(sizes) > 1:
        found = ", ".join(sorted(sizes))
        raise EngagementInputError(f"Finding one person's face needs frames of one size, got {found} pixels.")
    whole_frames, indices = np.stack(frames), np.arange(len(frames))
    times_sec = np.full(len(frames), np.nan)
    yield 0, _finished_row(processor, PreparedClip(clip.clip_id, whole_frames, whole_frames, indices, times_sec, 0))


def _load_frame(picture: Path | bytes, path: str) -> np.ndarray:
    """
    Raises:
        ImageReadError: it is not a picture; the message names the frame.
    """
    try:
        return np.require(_reader().read_picture(picture), requirements=["W"])  # torch does not accept read-only arrays
    except ImageReadError as error:
        raise ImageReadError(str(error).replace("<bytes>", path)) from error


def _finished_row(processor: EngagementVideoProcessor, window: PreparedClip) -> dict[str, object] | NoFaceError:
    """A window without a face is rejected; the clip's other windows are still prepared."""
    try:
        return _clip_row(processor.finish_clip(window))
    except NoFaceError as error:
        return error


def _picture_rows(picture: Path | bytes, settings: PreparationSettings, device: torch.device) -> _Rows:
    if not settings.face_crop:
        content = _as_stored(picture)
        pixels = decode_picture(content)
        yield 0, _row([content], pixels, [float("nan")])
        return
    processor = EngagementImageProcessor(
        face_margin_ratio=settings.face_margin_ratio, face_crop_size_px=settings.face_crop_size_px, device=device
    )
    pixels = _reader().read_picture(picture)
    faces = processor.prepare_faces(pixels, thorough=False)
    face, times_sec = [faces.largest], np.array([np.nan])
    found, boxes, landmarks = np.array([True]), faces.boxes_xyxy_px[face], faces.landmarks_xy_px[face]
    places = {
        "found": found.tolist(),
        "boxes_xyxy_px": boxes.tolist(),
        "landmarks_xy_px": landmarks.tolist(),
        "transforms": faces.transforms[face].tolist(),
    }
    signals = face_signals(faces.frames[face], found, boxes, landmarks, times_sec)
    yield 0, _row([encode_jpeg(faces.frames[faces.largest])], pixels, times_sec.tolist(), **places, **signals)


def _as_stored(picture: Path | bytes) -> bytes:
    """The picture's own bytes if they decode directly; a large, rotated or unusual one is encoded again."""
    opened = _reader().open_picture(picture)  # raises if it cannot be read
    if opened.stored_as in _PLAIN_FORMATS and max(opened.pixels.shape[:2]) <= _KEPT_SIDE_PX:
        return picture if isinstance(picture, bytes) else picture.read_bytes()
    shrunk = Image.fromarray(opened.pixels)
    shrunk.thumbnail((_KEPT_SIDE_PX, _KEPT_SIDE_PX))
    return encode_jpeg(np.asarray(shrunk))


def _clip_row(clip: PreparedClip) -> dict[str, object]:
    places = {name: getattr(clip, name) for name in ("found", "boxes_xyxy_px", "landmarks_xy_px", "transforms")}
    listed = {name: None if array is None else array.tolist() for name, array in places.items()}
    whole_frame = clip.whole_frames[len(clip.whole_frames) // 2]
    contents, times_sec = [encode_jpeg(frame) for frame in clip.frames], clip.frame_times_sec
    signals: Signals = {}
    if clip.found is not None and clip.boxes_xyxy_px is not None and clip.landmarks_xy_px is not None:
        signals = face_signals(clip.frames, clip.found, clip.boxes_xyxy_px, clip.landmarks_xy_px, times_sec)
    return _row(contents, whole_frame, times_sec.tolist(), **listed, **signals)


def _row(
    contents: list[bytes], whole_frame: np.ndarray, frame_times_sec: list[float], **of_face: object
) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(("found", "boxes_xyxy_px", "landmarks_xy_px", "transforms", *SIGNALS))
    row |= {"frames": contents, "frame_times_sec": frame_times_sec, **of_face}
    return row | {"frames_sha256": pixels_sha256(contents), "frame_hash": perceptual_hash(whole_frame)}
