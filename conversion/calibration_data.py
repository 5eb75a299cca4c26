"""Examples for calibrating and for checking int8, which never overlap: pixel values as the model reads them, computed
on request."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..data.hub_source import local_folder
from ..data.open_data import DataOptions, open_or_prepare, require_same_frames
from ..data.preparation.prepared_data import PreparedData, is_prepared
from ..data.preparation.settings import FrameOptions
from ..data.readers.sources import SourceOptions, detect_kind
from ..inference.input_files import list_files
from ..inference.many_files import read_here
from ..inference.predictions import Refusal
from ..inference.predictor import PhotoReading, Predictor
from ..processor.input_errors import DataError, EngagementInputError
from ..processor.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from ..processor.video_processing_engagement import EngagementVideoProcessor
from ..training.stage_data import leave_out_flat
from ..training.training_sets import FrameCollator, LabelledFrames

_TABLES = (".csv", ".parquet", ".h5", ".hdf5")


@dataclass(frozen=True)
class Examples:
    """Clips, or single faces, by number."""

    read: list[Callable[[], np.ndarray]]  # (num_frames, C, size, size) per clip, (C, size, size) per face

    def __len__(self) -> int:
        return len(self.read)

    def spread(self, most: int) -> "Examples":
        """At most this many, evenly spread over all."""
        if len(self) <= most:
            return self
        return Examples([self.read[place] for place in np.linspace(0, len(self) - 1, most).astype(int)])

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """(size, ...) float32; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield np.stack([read() for read in self.read[start : start + size]]).astype(np.float32)


def find_examples(predictor: Predictor, data: Path, cache_dir: Path) -> tuple[Examples, Examples]:
    """Examples for calibration, and others for the check.

    Args:
        data: a prepared data set, or a raw source that is prepared as `engagement evaluate` does: the training split is
            for calibration and the validation split for the check; without a training split, validation is divided in
            halves by person. Or a folder of videos (for a single-face model also photos), which need no labels: every
            second file is for calibration.

    Raises:
        DataError: there are no usable examples for one of the two.
        RecipeError: the frames were not prepared as the model reads them.
    """
    data = local_folder(data, cache_dir)
    calibrated, checked = _of_files(predictor, data) if _is_loose(data) else _of_splits(predictor, data, cache_dir)
    for found, use in ((calibrated, "calibrate on"), (checked, "check on")):
        if not len(found):
            raise DataError(f"{data} has no readable examples to {use}; pass more data.")
    return calibrated, checked


def _is_loose(data: Path) -> bool:
    """Whether the folder itself contains media files and no table."""
    if not data.is_dir() or is_prepared(data):
        return False
    suffixes = {path.suffix.lower() for path in data.iterdir()}
    return not suffixes.isdisjoint((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)) and suffixes.isdisjoint(_TABLES)


# --- Files without labels


def _of_files(predictor: Predictor, data: Path) -> tuple[Examples, Examples]:
    by_file = [list(_clips_of(predictor, path)) for path in list_files([str(data)])]
    readable = [clips for clips in by_file if clips]
    halves = [[frames for clips in readable[start::2] for frames in clips] for start in (0, 1)]
    calibrated, checked = (Examples([partial(_pixels_of, predictor, frames) for frames in half]) for half in halves)
    return calibrated, checked


def _clips_of(predictor: Predictor, path: Path) -> Iterator[np.ndarray]:
    """(num_frames, height, width, 3) of every window, or (1, ...) of every face; nothing for unreadable files."""
    (reading,) = read_here(predictor, [path])
    if isinstance(reading, Refusal):
        return
    clips = [reading.faces] if isinstance(reading, PhotoReading) else reading.clips
    for clip in clips:
        if not isinstance(clip, EngagementInputError):
            yield from [clip.frames] if predictor.is_video_model else clip.frames[:, None]


def _pixels_of(predictor: Predictor, frames: np.ndarray) -> np.ndarray:
    values = np.asarray(predictor.video_processor.to_pixel_values(frames))
    return values if predictor.is_video_model else values[0]


# --- Data sets


def _of_splits(predictor: Predictor, data: Path, cache_dir: Path) -> tuple[Examples, Examples]:
    prepared = _open(predictor, data, cache_dir)
    splits = {name: _frames_of(rows, predictor) for name, rows in prepared.splits.items()}
    if "validation" not in splits:
        raise DataError(
            f"{data} has no validation split to check int8 on, only {', '.join(splits)}; prepare the data with one."
        )
    validation = splits["validation"]
    if "train" in splits:
        return _examples(predictor, splits["train"]), _examples(predictor, validation)
    people = list(dict.fromkeys(validation.subject_ids))
    first = set(people[::2]) if len(people) > 1 else None  # people unknown: every second row
    rows = range(len(validation))
    is_first = [validation.subject_ids[row] in first if first is not None else row % 2 == 0 for row in rows]
    halves = [[row for row in rows if is_first[row] is half] for half in (True, False)]
    calibrated, checked = (_examples(predictor, validation.take(half)) for half in halves)
    return calibrated, checked


def _open(predictor: Predictor, data: Path, cache_dir: Path) -> PreparedData:
    processor = predictor.tensor_processor
    video = processor if isinstance(processor, EngagementVideoProcessor) else None
    frames = FrameOptions(
        num_frames=video.num_frames if video else None,
        sampling=video.sampling if video else None,
        face_crop=processor.face_crop,
        face_crop_size_px=processor.face_crop_size_px,
        as_played=processor.as_played,
    )
    is_images = not is_prepared(data) and data.exists() and detect_kind(data) == "images"
    source = SourceOptions(pictures_as="clips" if video else "pictures") if is_images else SourceOptions()
    options = DataOptions(path=data, source=source, frames=frames, cache_dir=cache_dir)
    prepared = open_or_prepare(options)
    require_same_frames(options, prepared)
    return prepared


def _frames_of(rows: Dataset, predictor: Predictor) -> LabelledFrames:
    """Every row; labels are not needed."""
    keys = list(zip(rows["clip_id"][:], rows["window_index"][:], strict=True))
    unlabelled = LabelledFrames(
        rows.select_columns(["frames"]), keys, rows["subject_id"][:], [0] * len(rows), not predictor.is_video_model
    )
    return leave_out_flat(unlabelled, predictor.tensor_processor)[0]


def _examples(predictor: Predictor, rows: LabelledFrames) -> Examples:
    collator = FrameCollator(predictor.tensor_processor, single_face=not predictor.is_video_model)

    def reader(row: int) -> Callable[[], np.ndarray]:
        return lambda: np.asarray(collator.to_pixel_values([rows[row]]))[0]

    return Examples([reader(row) for row in range(len(rows))])
