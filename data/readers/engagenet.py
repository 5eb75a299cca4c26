"""EngageNet (Singh et al., ICMI 2023, "Do I Have Your Attention") → clips with one of four levels of engagement.

Videos of 10 s named `subject_<number>_<token>_vid_<video>_<clip>.mp4` in the folders Train, Validation and Test, and
one table per split (`train_engagement_labels`, `validation_...`, `test_engagement_labels`) with the columns `chunk` (a
video's name) and `label`. Some tables are published as workbooks (.xlsx) and must be saved as CSV first. The counts
are in the README of https://github.com/engagenet/engagenet_baselines; names of files and labels follow several public
readers of the data. The tables define the split, wherever a video is stored.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from ...processor.input_errors import DataError
from ...processor.media_files import VIDEO_SUFFIXES
from ..schema import ENGAGENET_LEVELS, LabelledSource, SourceNotes
from .file_trees import FileTree, open_tree, read_source_file
from .listed_files import LabelNames, Listed, match_files
from .split_names import split_named
from .table_text import WORKBOOK_SUFFIXES
from .tables import read_table

_TABLE = re.compile(r"(?P<split>[a-z]+)_engagement_labels(?P<suffix>\.[a-z]+)", re.IGNORECASE)
_SUBJECT = re.compile(r"subject_([^_]+)_", re.IGNORECASE)
_NOBODY = "the subject is not present"
_LABELS = LabelNames(
    {name: name for name in ENGAGENET_LEVELS}, {"snp(subject-not-present)": _NOBODY, "snp": _NOBODY}
)  # fmt: skip


def is_engagenet(tree: FileTree) -> bool:
    """Whether the tree contains one of its tables under its published name."""
    return any(_split_of(name) for name in tree.names)


def read_engagenet(source: Path) -> LabelledSource:
    """Read all clips in the order of the tables, in their official split; the person is in a video's name.

    Raises:
        DataError: no table, two tables for one split, a table only as a workbook, or one that lacks a column.
    """
    tree = open_tree(source)
    tables = _find_tables(tree)
    videos = [name for name in tree.names if name.lower().endswith(VIDEO_SUFFIXES)]
    listed = (entry for split, name in tables.items() for entry in _read_table(tree, name, split))
    records, rejects = match_files(
        listed, ((PurePosixPath(name).stem, name) for name in videos), _LABELS, "video"
    )  # fmt: skip
    notes = SourceNotes(files=list(tables.values()))
    read = partial(read_source_file, str(source))
    return LabelledSource("engagenet", "video", records, [*tree.rejects, *rejects], read, notes)


def _split_of(name: str) -> str | None:
    table = _TABLE.fullmatch(PurePosixPath(name).name)
    is_known = table and table["suffix"].lower() in (".csv", *WORKBOOK_SUFFIXES)
    return split_named(table["split"]) if table and is_known else None


def _find_tables(tree: FileTree) -> dict[str, str]:
    """Split → its CSV table."""
    found = [(split, name) for name in tree.names if (split := _split_of(name))]
    if not found:
        raise DataError(
            f"{tree.root} contains none of EngageNet's tables, such as train_engagement_labels.csv; pass the folder "
            f"with the tables and the videos.{tree.refused()}"
        )
    tables: dict[str, str] = {}
    for split, name in found:
        if not name.lower().endswith(".csv"):
            continue
        if split in tables:
            raise DataError(f"{tree.root} has two tables of {split}, {tables[split]} and {name}; keep one.")
        tables[split] = name
    for split, name in found:
        if split not in tables:
            raise DataError(
                f"The table of {split} in {tree.root} is the workbook {name}; save it in a spreadsheet program as CSV "
                f"UTF-8, in the same folder, as {PurePosixPath(name).stem}.csv."
            )
    return tables


def _read_table(tree: FileTree, name: str, split: str) -> Iterator[Listed]:
    with tree.open(name) as file:
        for row in read_table(file, name, required=("chunk", "label")).rows:
            path = PurePosixPath(row.cells["chunk"].replace("\\", "/"))
            clip_id = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
            subject = _SUBJECT.match(clip_id)
            problem = None if subject else f"Expected subject_<number>_... as chunk, got {row.cells['chunk']!r}"
            label = re.sub(r"[\s_-]+", "-", row.cells["label"])
            yield Listed(row, clip_id, clip_id, split, label, subject and subject[1], problem)
