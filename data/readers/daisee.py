"""DAiSEE (Gupta et al. 2016) as distributed: a folder or zip archive → labelled clips in the official split.

`DataSet/<Train|Validation|Test>/<subject>/<clip>/<clip>.avi`, labels in `Labels/<Split>Labels.csv`, possibly inside one
more folder. About 9 % of the videos are `.mp4` while the labels always say `.avi`, so they are matched by base name;
the header says `Frustration ` with a space; ids are digits and stay strings; some clips have no label, some labels no
video. A row and its video are one input; a row or a video alone is also one, and is rejected.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...processor.input_errors import DataError, RecipeError
from ...processor.media_files import VIDEO_SUFFIXES
from ..schema import AFFECTS, SPLITS, ClipRecord, LabelledSource, Reject, SourceNotes
from ..splits import stratified_subset
from .file_trees import FileTree, open_tree, prefix_above, read_source_file
from .split_names import require_one_word, split_named
from .tables import find_repeats, read_table

SUBSETS = ("stratified",)


@dataclass(frozen=True)
class LabelTable:
    """Clip id → affects in the order of the file, the rejected rows, and the columns not read."""

    labels: dict[str, dict[str, int]]
    rejects: list[Reject]
    extra_columns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Split:
    records: list[ClipRecord]
    rejects: list[Reject]
    counts: dict[str, int]
    extra_columns: list[str]


def is_daisee(source: Path) -> bool:
    """Whether a folder or zip archive has DAiSEE's two parts."""
    try:
        return _prefix_in(open_tree(source)) is not None
    except DataError:
        return False


def read_daisee(source: Path, subset: str | None = None) -> LabelledSource:
    """Read all labelled clips, in the order of the label files.

    Args:
        source: the folder or zip archive that contains DataSet and Labels.
        subset: None for all, or "stratified" for the CNN + LSTM reference's subset of each split. It is drawn from the
            label rows before looking for videos, so that a missing video does not change the draw.

    Raises:
        DataError: no such layout, or a label file or split folder is missing.
        RecipeError: the subset does not exist.
    """
    if subset not in (None, *SUBSETS):
        raise RecipeError(f"DAiSEE has no subset {subset!r}; use {' or '.join(SUBSETS)}, or leave it out.")
    tree = open_tree(source)
    prefix = _prefix_in(tree)
    if prefix is None:
        raise DataError(
            f"{source} does not contain DAiSEE's folders DataSet and Labels; pass the folder with both.{tree.refused()}"
        )
    parts = [_read_split(tree, prefix, split, subset) for split in SPLITS]
    records, repeated = _without_repeats([record for part in parts for record in part.records])
    rejects = [*tree.rejects, *(reject for part in parts for reject in part.rejects), *repeated]
    counts = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    notes = SourceNotes(
        extra_columns=sorted({column for part in parts for column in part.extra_columns}) or None,
        without_label=counts["without_label"],
        without_video=counts["without_video"],
        outside_subset=counts["outside_subset"],
        other_files=counts["other_files"],
        subset=subset,
    )
    return LabelledSource("daisee", "video", records, rejects, partial(read_source_file, str(source)), notes)


def read_labels(file: BinaryIO, name: str) -> LabelTable:
    """Read one label file; rows with an invalid level, and repeated clips, are rejected.

    Raises:
        DataError: the file is empty, or not a label table.
    """
    table = read_table(file, name, required=("clipid", *AFFECTS))
    valid, rejects = [], []
    for row in table.rows:
        path = PurePosixPath(row.cells["clipid"])
        # Any other text after a dot is part of a (damaged) id.
        clip_id = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
        try:
            row.text("clipid")
            row.check_width()
            valid.append((row, clip_id, row.affects()))
        except DataError as error:
            rejects.append(row.reject("label", clip_id, error))
    repeats = find_repeats([(clip_id, affects) for _, clip_id, affects in valid])
    for position, problem in repeats.items():
        row, clip_id, _ = valid[position]
        rejects.append(row.reject("label", clip_id, f"Expected one row for {clip_id}, {problem}"))
    kept = [valid[position] for position in range(len(valid)) if position not in repeats]
    return LabelTable({clip_id: affects for _, clip_id, affects in kept}, rejects, table.extra_columns)


def _prefix_in(tree: FileTree) -> str | None:
    return prefix_above(tree.names, ("DataSet", "Labels"))


def _read_split(tree: FileTree, prefix: str, split: str, subset: str | None) -> _Split:
    videos, rejects, num_others = _videos_by_clip_id(tree, f"{prefix}DataSet/{_folder_of(tree, prefix, split)}/")
    above = f"{prefix}Labels/"
    table_name = f"{above}{split.capitalize()}Labels.csv"
    # Copies of the data may use a different case, or a different word for the split.
    tables = [name for name in tree.names if name.startswith(above) and name.lower().endswith(".csv")]
    others = [name for name in tables if split_named(name[len(above) : -4].lower().replace("labels", "")) == split]
    if table_name not in tree.names and len(others) == 1:
        table_name = others[0]
    if table_name not in tree.names:
        raise DataError(f"{tree.root} lacks the label file {table_name}, which DAiSEE includes.")
    with tree.open(table_name) as file:
        table = read_labels(file, table_name)
    # The video of a rejected row is not a second input.
    mentioned = table.labels.keys() | {reject.clip_id for reject in table.rejects}
    wanted = stratified_subset(table.labels) if subset else list(table.labels)
    without_video = [clip_id for clip_id in wanted if clip_id not in videos]
    without_label = sorted(videos.keys() - mentioned)
    rejects = rejects + table.rejects
    rejects += [
        _lonely(table_name, clip_id, "source", f"a video below {split.capitalize()}") for clip_id in without_video
    ]
    rejects += [_lonely(videos[clip_id], clip_id, "label", f"a row in {table_name}") for clip_id in without_label]
    records = [
        ClipRecord(clip_id, clip_id[:6], split, videos[clip_id], table.labels[clip_id])
        for clip_id in wanted
        if clip_id in videos
    ]
    counts = {"without_label": len(without_label), "without_video": len(without_video)}
    counts |= {"outside_subset": len(table.labels) - len(wanted), "other_files": num_others}
    return _Split(records, rejects, counts, table.extra_columns)


def _folder_of(tree: FileTree, prefix: str, split: str) -> str:
    """The split's folder: `Train`, or its name in this copy."""
    above = f"{prefix}DataSet/"
    folders = {name.removeprefix(above).partition("/")[0] for name in tree.names if name.startswith(above)}
    require_one_word(folders, str(tree.root))
    usual = split.capitalize()
    return usual if usual in folders else next((name for name in sorted(folders) if split_named(name) == split), usual)


def _videos_by_clip_id(tree: FileTree, folder: str) -> tuple[dict[str, str], list[Reject], int]:
    """Clip id → name of its video, rejects for repeated ids, and the number of files that are not videos."""
    names = [name for name in tree.names if name.startswith(folder)]
    if not names:
        raise DataError(f"{tree.root} has no split folder {folder[:-1]} with videos.")
    videos: dict[str, str] = {}
    rejects, num_others = [], 0
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            num_others += 1
        elif path.stem in videos:
            reason = f"{path.stem} has two videos: {name} and {videos[path.stem]}."
            rejects.append(Reject(name, path.stem, "source", reason))
        else:
            videos[path.stem] = name
    return videos, rejects, num_others


def _lonely(path: str, clip_id: str, stage: str, lacking: str) -> Reject:
    return Reject(path, clip_id, stage, f"{clip_id} lacks {lacking}.")


def _without_repeats(records: list[ClipRecord]) -> tuple[list[ClipRecord], list[Reject]]:
    """A clip that occurs in two splits is kept in the first."""
    kept: dict[str, ClipRecord] = {}
    rejects = []
    for record in records:
        first = kept.setdefault(record.clip_id, record)
        if first is not record:
            reason = f"{record.clip_id} is in two splits, {first.split} and {record.split}."
            rejects.append(Reject(record.source_path, record.clip_id, "label", reason))
    return list(kept.values()), rejects
