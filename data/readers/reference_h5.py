"""The CNN + LSTM reference's frame caches: HDF5 files with windows of frames → labelled clips.

Group `sequences` has one array per clip, `(windows, frames, height, width, 3)` uint8 RGB; group `metadata` has columns
of equal length: clip_id, participant_id, and the affects, three_class_label or engagement_binary. There is one file for
each split, with the split in its name, or one file for everything.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from ...processor.input_errors import DataError
from ..schema import AFFECTS, BINARY, THREE_CLASSES, ClipRecord, LabelledSource, Reject
from .file_trees import MAX_FILE_BYTES
from .split_names import split_named
from .tables import find_repeats

SUFFIXES = (".h5", ".hdf5")
_LABEL_COLUMNS = {"three_class_label": THREE_CLASSES, "engagement_binary": BINARY}


def read_reference_h5(source: Path) -> LabelledSource:
    """One record per clip, in the order of the metadata; its label comes from the first that exists: the four affects,
    three_class_label, engagement_binary.

    Raises:
        DataError: no HDF5 file, a group or column is missing, or several files without a split in their names.
    """
    records: list[ClipRecord] = []
    rejects: list[Reject] = []
    for path, split in _files_in(source):
        found = _read_file(path, split)
        records += [result for result in found if isinstance(result, ClipRecord)]
        rejects += [result for result in found if isinstance(result, Reject)]
    repeats = find_repeats([(record.clip_id, None) for record in records])
    for position, problem in repeats.items():
        record = records[position]
        reason = f"Expected {record.clip_id} in one file only, {problem} in {record.source_path}."
        rejects.append(Reject(record.source_path, record.clip_id, "label", reason))
    kept = [record for position, record in enumerate(records) if position not in repeats]
    folder = source if source.is_dir() else source.parent
    return LabelledSource("reference-h5", "windows", kept, rejects, partial(_read_windows, str(folder)))


def _files_in(source: Path) -> list[tuple[Path, str | None]]:
    if not source.is_dir():
        return [(source, _split_in(source))]
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{source} contains no HDF5 files (.h5); check the path.")
    splits = [_split_in(path) for path in paths]
    if len(paths) > 1 and (None in splits or len(set(splits)) < len(splits)):
        names = ", ".join(path.name for path in paths)
        raise DataError(f"Expected one file per split in {source}, with train, val or test in its name, got {names}.")
    return list(zip(paths, splits, strict=True))


def _split_in(path: Path) -> str | None:
    words = re.split("[^a-z]+", path.stem.lower())
    return next((split for word in words if (split := split_named(word))), None)


def _read_file(path: Path, split: str | None) -> list[ClipRecord | Reject]:
    try:
        with h5py.File(path) as file:
            columns = _read_metadata(file, path)
            sequences = _group(file, "sequences", path)
            shapes = {_text(name): _shape_of(sequences, name) for name in sequences}
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not a complete HDF5 file ({reason}).") from error
    rows = [_read_row(path, split, columns, row) for row in range(len(columns["clip_id"]))]
    clips = [row for row in rows if isinstance(row, ClipRecord)]
    repeats = find_repeats([(clip.clip_id, (clip.subject_id, clip.affects, clip.label)) for clip in clips])
    shapes_seen = Counter(shape[1:] for shape in shapes.values() if shape).most_common(1)
    usual = shapes_seen[0][0] if shapes_seen else ()
    found: list[ClipRecord | Reject] = [row for row in rows if isinstance(row, Reject)]
    found += [_check_clip(clip, repeats.get(position), shapes, usual) for position, clip in enumerate(clips)]
    for clip_id in sorted(shapes.keys() - {row.clip_id for row in rows}):
        reason = f"{path.name} has no row of metadata for {clip_id}."
        found.append(Reject(f"{path.name}#{clip_id}", clip_id, "label", reason))
    return found


def _check_clip(
    record: ClipRecord, repeat: str | None, shapes: dict[str, tuple[int, ...]], usual: tuple[int, ...]
) -> ClipRecord | Reject:
    reject = partial(Reject, record.source_path, record.clip_id)
    if repeat:
        return reject("label", f"Expected one row for {record.source_path}, {repeat}.")
    if record.clip_id not in shapes:
        return reject("source", f"{record.source_path} has no sequence.")
    if not shapes[record.clip_id] or shapes[record.clip_id][1:] != usual:
        expected = f"(windows, {', '.join(map(str, usual or ('frames', 'height', 'width', 3)))}) uint8"
        return reject("decode", f"The array of {record.source_path} is not {expected}.")
    return record


def _shape_of(sequences: h5py.Group, name: str) -> tuple[int, ...]:
    """The shape of the windows; () if they are not usable."""
    try:
        windows = sequences[name]
    except KeyError:  # a link that leads nowhere
        return ()
    if not isinstance(windows, h5py.Dataset) or windows.dtype != np.uint8 or windows.ndim != 5:
        return ()
    is_usable = windows.shape[-1] == 3 and 0 < windows.nbytes <= MAX_FILE_BYTES
    return windows.shape if is_usable else ()


def _group(file: h5py.File, name: str, path: Path) -> h5py.Group:
    group = file.get(name)
    if not isinstance(group, h5py.Group):
        raise DataError(
            f"{path} needs the groups sequences and metadata; it has {', '.join(map(str, file)) or 'none'}."
        )
    return group


def _read_metadata(file: h5py.File, path: Path) -> dict[str, np.ndarray]:
    group = _group(file, "metadata", path)
    columns = {
        name: values[()]
        for name, values in group.items()
        if isinstance(values, h5py.Dataset) and values.ndim == 1 and values.nbytes <= MAX_FILE_BYTES
    }
    missing = [name for name in ("clip_id", "participant_id") if name not in columns]
    if missing or not _label_columns(columns):
        missing = missing or ["the four affects, three_class_label or engagement_binary"]
        raise DataError(f"The metadata of {path} lacks {', '.join(missing)}.")
    wanted = ["clip_id", "participant_id", *_label_columns(columns)]
    if len({len(columns[name]) for name in wanted}) > 1:
        raise DataError(f"The columns in the metadata of {path} differ in length.")
    return {name: columns[name] for name in wanted}


def _label_columns(columns: dict[str, np.ndarray]) -> Sequence[str]:
    if all(name in columns for name in AFFECTS):
        return AFFECTS
    return next(([name] for name in _LABEL_COLUMNS if name in columns), [])


def _read_row(path: Path, split: str | None, columns: dict[str, np.ndarray], row: int) -> ClipRecord | Reject:
    clip_id, subject = _text(columns["clip_id"][row]), _text(columns["participant_id"][row])
    source_path = f"{path.name}#{clip_id}"
    values = {name: columns[name][row] for name in _label_columns(columns)}
    if not clip_id or not subject:
        reason = (
            f"Expected a clip_id and a participant_id, got {clip_id!r} and {subject!r} in row {row} of {path.name}."
        )
        return Reject(source_path, clip_id, "label", reason)
    if "engagement" in values:
        affects = {name: int(level) for name, level in values.items() if level in range(4)}
        if len(affects) == len(AFFECTS):
            return ClipRecord(clip_id, subject, split, source_path, affects)
    for name, label_names in _LABEL_COLUMNS.items():
        if name in values and (label := _name_of(values[name], label_names)):
            return ClipRecord(clip_id, subject, split, source_path, label=label)
    told = ", ".join(f"{name}={value}" for name, value in values.items())
    return Reject(
        source_path, clip_id, "label", f"Expected a known label or levels 0 to 3, got {told} in {source_path}."
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()


def _name_of(value: object, names: Sequence[str]) -> str | None:
    """A label's name, from its index or the name itself."""
    if isinstance(value, (bytes, str)):
        return _text(value).lower() if _text(value).lower() in names else None
    return next((name for index, name in enumerate(names) if value == index), None)


def _read_windows(folder: str, record: ClipRecord) -> np.ndarray:
    """(windows, frames, height, width, 3) uint8 RGB of one clip."""
    path = Path(folder) / record.source_path.removesuffix(f"#{record.clip_id}")
    try:
        with h5py.File(path) as file:
            return file["sequences"][record.clip_id][()]
    except (OSError, KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"The windows of {record.clip_id} in {path} could not be read: {reason}") from error
