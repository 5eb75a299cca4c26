"""A table of labelled videos → records: for a user's own clips, and for spans within long videos.

Columns `path,label,subject_id[,split,start_sec,end_sec]`; DAiSEE's four affects, each 0 to 3, may be given with
`label` or instead of it. Paths are relative to the table's folder, or absolute; times are seconds or clock times.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from ...processor.input_errors import DataError, in_one_line
from ..schema import AFFECTS, ClipRecord, LabelledSource, Reject, SourceNotes
from .file_trees import read_source_file
from .found_files import find_below
from .split_names import require_one_word, split_named
from .tables import Row, Table, find_repeats, read_table, require_subjects

# 83.5, 1:23.5, 00:01:23.500 and 0:01:23,5; minutes and seconds up to 59 if a larger unit precedes them.
_CLOCK = re.compile(r"(?:(?P<hours>\d+):(?=[0-5]?\d:))?(?P<minutes>\d+):(?P<seconds>[0-5]?\d(?:[.,]\d*)?)")
_OPTIONAL = ("label", *AFFECTS, "split", "start_sec", "end_sec")


def read_video_table(source: Path, no_subjects: bool = False) -> LabelledSource:
    """One record per row, in the table's order; a clip id is the path, followed by `@start-end` for a span.

    Labels are compared in lower case. If any row names a split, rows without one are rejected.

    Args:
        no_subjects: the people are declared unknown; a column `subject_id` is then not read.

    Raises:
        DataError: the table is missing, empty, or lacks a column.
    """
    if not source.is_file():
        raise DataError(f"There is no CSV table of videos at {source}; check the path.")
    with source.open("rb") as file:
        table = read_table(file, source.name, required=("path",), optional=("subject_id", *_OPTIONAL))
        _check_columns(table, source, no_subjects)
        rows = list(table.rows)
    with_splits = any(row.cells.get("split") for row in rows)
    require_one_word({row.cells.get("split", "") for row in rows}, source.name)
    clips: list[tuple[Row, ClipRecord]] = []
    rejects: list[Reject] = []
    for row in rows:
        try:
            clips.append((row, _to_record(row, table.columns, source.parent, with_splits, no_subjects)))
        except DataError as error:
            rejects.append(row.reject("table", row.cells["path"], error))
    repeats = find_repeats([(record.clip_id, record) for _, record in clips])
    records = []
    for position, (row, record) in enumerate(clips):
        if position in repeats:
            rejects.append(row.reject("table", record.clip_id, f"Expected {record.clip_id} once, {repeats[position]}"))
        elif reject := _missing_file(row, record, source.parent):
            rejects.append(reject)
        else:
            records.append(record)
    notes = SourceNotes(extra_columns=table.extra_columns or None, no_subjects=no_subjects or None)
    return LabelledSource("videos", "video", records, rejects, partial(read_source_file, str(source.parent)), notes)


def read_video_folder(root: Path, tables: Sequence[str], no_subjects: bool = False) -> LabelledSource:
    """A folder of videos in the datasets library's layout: with a `metadata.csv`, or one in each split's folder.

    Raises:
        DataError: as in `read_video_table`.
    """
    records: list[ClipRecord] = []
    rejects: list[Reject] = []
    require_one_word([Path(name).parent.name for name in tables], str(root))
    for name in tables:
        source, folder = read_video_table(root / name, no_subjects), PurePosixPath(name).parent
        split = split_named(folder.name)
        rejects += [replace(reject, path=name) for reject in source.rejects]
        for record in source.records:
            clip_id, path = str(folder / record.clip_id), str(folder / record.source_path)
            records.append(replace(record, clip_id=clip_id, source_path=path, split=record.split or split))
    read = partial(read_source_file, str(root))
    return LabelledSource("videos", "video", records, rejects, read, SourceNotes(no_subjects=no_subjects or None))


def _check_columns(table: Table, source: Path, no_subjects: bool) -> None:
    if not no_subjects:
        require_subjects([*table.columns, *table.extra_columns], source.name)
    missing = [name for name in AFFECTS if name not in table.columns]
    if 0 < len(missing) < len(AFFECTS):
        raise DataError(f"{source} needs all four affects or none; missing: {', '.join(missing)}.")
    if missing and "label" not in table.columns:
        raise DataError(f"{source} needs the column label, or {', '.join(AFFECTS)}, but has neither.")


def _to_record(row: Row, columns: list[str], folder: Path, with_splits: bool, no_subjects: bool) -> ClipRecord:
    row.check_width()
    path = find_below(folder, row.text("path").replace("\\", "/"))
    label = row.text("label").lower() if "label" in columns else None
    affects = row.affects() if "engagement" in columns else {}
    start_sec, end_sec = _seconds(row, "start_sec"), _seconds(row, "end_sec")
    if start_sec is not None and end_sec is not None and start_sec >= end_sec:
        raise DataError(f"Expected start_sec before end_sec, got {start_sec:g} and {end_sec:g}")
    has_span = start_sec is not None or end_sec is not None
    clip_id = f"{path}@{_short(start_sec)}-{_short(end_sec)}" if has_span else path
    split = row.split() if with_splits else None
    subject = None if no_subjects else row.text("subject_id")
    return ClipRecord(clip_id, subject, split, path, affects, label, start_sec, end_sec)


def _seconds(row: Row, column: str) -> float | None:
    text = row.cells.get(column, "")
    if not text:
        return None
    clock = _CLOCK.fullmatch(text)
    try:
        seconds = float((clock["seconds"] if clock else text).replace(",", "."))
    except ValueError:
        seconds = math.nan
    if clock:
        seconds += 60 * int(clock["minutes"]) + 3600 * int(clock["hours"] or 0)
    if not 0 <= seconds < math.inf:  # also true for NaN
        raise DataError(f"Expected {column} as seconds of 0 or more, or as h:mm:ss, got {text!r}")
    return seconds


def _short(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.10g}"


def _missing_file(row: Row, record: ClipRecord, folder: Path) -> Reject | None:
    path = folder / record.source_path
    try:
        if path.is_file():
            return None
        stage, found = ("table", "a folder") if path.is_dir() else ("source", "none")
    except OSError as error:  # a name that is too long, or a folder without read permission
        stage, found = "source", in_one_line(error)
    return row.reject(stage, record.clip_id, f"Expected a video at {record.source_path}, got {found}")
