"""Tables of labelled pictures, CSV or Parquet → records: single pictures, or windows of frames in order.

One table, or a folder (or archive) of several: columns `path` (below the table's folder), or `image` or `bytes`
(encoded, as the datasets library stores them); `label`, or DAiSEE's four affects, or both; `subject_id`; and
optionally `split` (else taken from the file name), `clip_id` and `frame_index`. Pictures within a table are held in
memory, encoded.
"""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ...processor.input_errors import DataError
from ...processor.media_files import PICTURE_SUFFIXES
from ..schema import AFFECTS, ClipRecord, Content, LabelledSource, Reject, SourceNotes
from .class_folders import split_in_name
from .file_trees import FileTree, fetch_file, open_tree
from .found_files import find_among, find_below
from .frame_windows import Frame, WindowOptions, cut_windows
from .parquet_rows import PICTURE_COLUMNS, PictureRow, read_parquet
from .split_names import require_one_word
from .tables import Row, find_repeats, is_blank, read_table, require_subjects

SUFFIXES = (".csv", ".parquet")
_COLUMNS = ("label", *AFFECTS, "subject_id", "split", "clip_id", "frame_index")


@dataclass(frozen=True)
class _Table:
    """One file's columns and rows, and the split in its file name."""

    columns: list[str]
    rows: list[PictureRow]
    split: str | None


@dataclass(frozen=True)
class _Place:
    """A row's position: its clip or person, and its number there (given, or counted in the table's order)."""

    sequence: str | None
    index: int | None
    clip_id: str | None


def find_tables(tree: FileTree) -> list[str]:
    """The tables of pictures in a folder: Parquet files, else CSV tables directly in it with a split in their names,
    and the datasets library's own next to its pictures."""
    parquets = [name for name in tree.names if name.lower().endswith(".parquet")]
    tables = [
        name
        for name in tree.names
        if is_metadata(name) or ("/" not in name and name.lower().endswith(".csv") and split_in_name(name))
    ]
    return parquets or [name for name in tables if has_pictures(tree, name)]


def is_metadata(name: str) -> bool:
    """Whether a file is the datasets library's table for a folder of pictures or videos."""
    return PurePosixPath(name).name.lower() == "metadata.csv"


def has_pictures(tree: FileTree, name: str) -> bool:
    """Whether a CSV table has a column of paths, the first of which has a picture's suffix."""
    with tree.open(name) as file:
        try:
            rows = read_table(file, name, required=("path",)).rows
            first = next(rows, None)
        except DataError:
            return False
    return first is not None and first.cells["path"].lower().endswith(PICTURE_SUFFIXES)


def read_picture_tables(
    source: Path, windows: WindowOptions, as_clips: bool | None = None, no_subjects: bool = False
) -> LabelledSource:
    """
    Args:
        as_clips: windows of frames in order, or (False) single pictures; None: windows if there is a `frame_index`.
            Frames are grouped by `clip_id` if rows share one, else by person; without a `frame_index` they are in the
            table's order.
        no_subjects: the people are declared unknown; a column `subject_id` is then not read.

    Raises:
        DataError: a table lacks a column, is empty or is damaged; or frames have neither a clip nor a person.
        RecipeError: the window label cannot be computed.
    """
    is_single = source.is_file() and source.suffix.lower() in SUFFIXES
    tree = FileTree(source.parent, [source.name], []) if is_single else open_tree(source)
    names = [source.name] if is_single else find_tables(tree)
    if not names:
        raise DataError(f"{source} contains no tables of pictures (.csv or .parquet).{tree.refused()}")
    tables = [_read_table(tree, name, no_subjects) for name in names]
    for told in (
        (PurePosixPath(name).stem.partition("-")[0] for name in names),
        (PurePosixPath(name).parent.name for name in names),
    ):
        require_one_word(told, str(source))
    require_one_word({row.row.cells.get("split", "") for table in tables for row in table.rows}, str(source))
    columns = set[str]().union(*(table.columns for table in tables))
    if as_clips is None:
        as_clips = "frame_index" in columns
    frames, contents, rejects = _read_pictures(tree, tables, no_subjects, as_clips)
    notes = SourceNotes(files=names, no_subjects=no_subjects or None)
    read = partial(_read_content, str(tree.root), contents)
    rejects = [*tree.rejects, *rejects]
    if not as_clips:
        return LabelledSource("images", "picture", [frame.picture for frame in frames], rejects, read, notes)
    found = cut_windows(frames, windows)
    notes = replace(notes, window_label=windows.label, frames_left_over=found.left_over)
    return LabelledSource("images", "frames", found.records, [*rejects, *found.rejects], read, notes)


def cut_class_folders(source: LabelledSource, root: Path, windows: WindowOptions) -> LabelledSource:
    """Pictures of class folders as frames in order: `<label>/<clip>/0001.jpg`, sorted by the last number in the names.

    Raises:
        DataError: no picture lies in a folder of its clip.
        RecipeError: the window label cannot be computed.
    """
    frames: list[Frame] = []
    rejects: list[Reject] = []
    for picture in source.records:
        folder, _, name = picture.clip_id.rpartition("/")
        number = re.search(r"(\d+)\D*$", name.rpartition(".")[0])
        # Frames directly in the folder of the label or split belong to no clip.
        if folder.count("/") < (2 if picture.split else 1):
            reason = f"{picture.clip_id} is not in a folder of its clip, inside the label's folder."
            rejects.append(Reject(picture.source_path, picture.clip_id, "source", reason))
        elif number is None:
            reason = f"The name of {picture.clip_id} has no number to sort frames by."
            rejects.append(Reject(picture.source_path, picture.clip_id, "source", reason))
        else:
            frames.append(Frame(picture, folder, int(number[1])))
    if not frames:
        raise DataError(
            f"{root} contains no numbered frames in a folder for each clip; first reject: {rejects[0].reason}"
        )
    kept, repeated = _without_repeats(frames)
    found = cut_windows(kept, windows)
    notes = replace(source.notes, window_label=windows.label, frames_left_over=found.left_over)
    rejects = [*source.rejects, *rejects, *repeated, *found.rejects]
    read = partial(_read_content, str(root), {})
    return LabelledSource(source.kind, "frames", found.records, rejects, read, notes)


def _without_repeats(frames: Sequence[Frame]) -> tuple[list[Frame], list[Reject]]:
    """Rejects all frames with the same number in one folder (`1.jpg`, `01.jpg`), since it is unclear which is right."""
    counts = Counter((frame.sequence, frame.index) for frame in frames)
    repeated = [frame for frame in frames if counts[frame.sequence, frame.index] > 1]
    rejects = [
        Reject(
            frame.picture.source_path,
            frame.picture.clip_id,
            "source",
            f"Frame {frame.index} of {frame.sequence} occurs twice, with different names.",
        )
        for frame in repeated
    ]
    return [frame for frame in frames if counts[frame.sequence, frame.index] == 1], rejects


def _read_content(root: str, contents: Mapping[str, bytes], record: ClipRecord) -> Content:
    def read(path: str) -> Path | bytes:
        return contents[path] if path in contents else fetch_file(root, path)

    return read(record.source_path) if record.frame_paths is None else [read(path) for path in record.frame_paths]


def _read_table(tree: FileTree, name: str, no_subjects: bool) -> _Table:
    with tree.open(name) as file:
        if name.lower().endswith(".parquet"):
            parquet = read_parquet(file, name, _COLUMNS)
            columns, rows = parquet.columns, list(parquet.rows)
        else:
            table = read_table(file, name, required=("path",), optional=_COLUMNS)
            columns = [*table.columns, *table.extra_columns]
            rows = [PictureRow(row, row.cells.get("path") or None) for row in table.rows]
    _check_columns(columns, name, no_subjects)
    return _Table(columns, rows, split_in_name(name))


def _check_columns(columns: Sequence[str], name: str, no_subjects: bool) -> None:
    pictures = ("path",) if name.lower().endswith(".csv") else PICTURE_COLUMNS
    affects = [affect for affect in AFFECTS if affect in columns]
    if not set(pictures) & set(columns) or ("label" not in columns and len(affects) < len(AFFECTS)):
        raise DataError(
            f"{name} needs a column of pictures ({' or '.join(pictures)}), and label or {', '.join(AFFECTS)}; "
            f"it has {', '.join(columns)}."
        )
    if 0 < len(affects) < len(AFFECTS):
        missing = ", ".join(affect for affect in AFFECTS if affect not in affects)
        raise DataError(f"{name} needs all four affects or none; missing: {missing}.")
    if not no_subjects:
        require_subjects(columns, name)


def _read_pictures(
    tree: FileTree, tables: Sequence[_Table], no_subjects: bool, as_clips: bool
) -> tuple[list[Frame], dict[str, bytes], list[Reject]]:
    """Pictures with their positions, the contents of those stored in a table, and rejected rows."""
    found: list[tuple[Row, Frame, bytes | None]] = []
    rejects: list[Reject] = []
    has_splits = any(table.split for table in tables) or any(
        not is_blank(item.row.cells.get("split", "")) for table in tables for item in table.rows
    )
    in_archive = None if tree.root.is_dir() else set(tree.names)
    for table, item, place in _with_places(tables, no_subjects, as_clips):
        row, stage = item.row, "table"
        try:
            row.check_width()
            # The row's own split, else the one in the file name.
            split = (is_blank(row.cells.get("split", "")) and table.split) or row.split() if has_splits else None
            subject = None if no_subjects else row.text("subject_id")
            if as_clips and (place.sequence is None or place.index is None):
                raise DataError(f"Expected frame_index as a whole number, got {row.cells.get('frame_index', '')!r}")
            stage = "label"
            label = row.text("label").lower() if "label" in table.columns else None
            affects = row.affects() if "engagement" in table.columns else {}
            stage = "source"
            path, content = _find_picture(item, tree.root, in_archive)
        except DataError as error:
            rejects.append(row.reject(stage, place.clip_id or "", error))
            continue
        group = row.cells.get("clip_id") or None
        picture = ClipRecord(place.clip_id or path, subject, split, path, affects, label, group_id=group)
        found.append((row, Frame(picture, place.sequence or "", place.index or 0), content))
    repeats = find_repeats(
        [
            ((frame.sequence, frame.index) if as_clips else frame.picture.clip_id, _value(frame, content))
            for _, frame, content in found
        ]
    )
    for position, problem in repeats.items():
        row, frame, _ = found[position]
        what = f"frame {frame.index} of {frame.sequence}" if as_clips else frame.picture.clip_id
        rejects.append(row.reject("table", frame.picture.clip_id, f"Expected {what} once, {problem}"))
    kept = [entry for position, entry in enumerate(found) if position not in repeats]
    contents = {frame.picture.source_path: content for _, frame, content in kept if content is not None}
    return [frame for _, frame, _ in kept], contents, rejects


def _value(frame: Frame, content: bytes | None) -> tuple[object, ...]:
    """Values by which two rows at the same position count as the same row twice."""
    picture = frame.picture
    pixels = picture.source_path if content is None else hashlib.sha256(content).hexdigest()
    return picture.label, tuple(picture.affects.items()), picture.subject_id, picture.split, pixels


def _with_places(
    tables: Sequence[_Table], no_subjects: bool, as_clips: bool
) -> Iterator[tuple[_Table, PictureRow, _Place]]:
    """Every row with its position; unusable rows are counted too, so that they leave a gap."""
    cells = [(table, item, item.row.cells) for table in tables for item in table.rows]
    clips = Counter(of.get("clip_id", "") for _, _, of in cells)
    has_index = any("frame_index" in table.columns for table in tables)
    by_clip = clips.keys() != {""} and (has_index or max(clips.values()) > 1)
    if as_clips and not by_clip and no_subjects:
        raise DataError(
            "Putting frames in order needs a clip_id or known people; pass --as pictures (pictures_as: pictures in a "
            "recipe), or name the clips."
        )
    counted: Counter[str] = Counter()
    for table, item, of in cells:
        clip_id = of.get("clip_id") or None
        sequence = clip_id if by_clip else None if no_subjects else of.get("subject_id") or None
        index = None
        if has_index:
            index = int(of["frame_index"]) if of.get("frame_index", "").isdigit() else None
        elif sequence is not None:
            index = counted[sequence]
            counted[sequence] += 1
        is_alone = clip_id is not None and clips[clip_id] == 1
        has_place = (has_index or by_clip) and sequence is not None and index is not None
        name = f"{sequence}#{index}" if has_place and not is_alone else clip_id
        yield table, item, _Place(sequence, index, name)


def _find_picture(item: PictureRow, root: Path, in_archive: Collection[str] | None) -> tuple[str, bytes | None]:
    """The location of a row's picture, and its bytes if it is stored in the table.

    Raises:
        DataError: the row has none, or names a file that does not exist or is outside the table's folder.
    """
    if item.picture is None:
        raise DataError("There is no picture")
    if isinstance(item.picture, bytes):
        return f"{item.row.table}#{item.row.line}", item.picture
    path = _below(item.row.table, item.picture)
    path = find_below(root, path) if in_archive is None else find_among(in_archive, path)
    try:
        is_there = (root / path).is_file() if in_archive is None else path in in_archive
    except OSError:  # a name that is too long, for instance
        is_there = False
    if not is_there:
        raise DataError(f"There is no picture {path}, named")
    return path, None


def _below(table: str, path: str) -> str:
    """Convert a path relative to the table's folder to one relative to the root."""
    path = path.replace("\\", "/")
    below = posixpath.normpath(posixpath.join(posixpath.dirname(table), path))
    if path.startswith("/") or path[1:2] == ":" or below.split("/")[0] == "..":
        raise DataError(f"Expected a path below the table's folder, got {path!r}")
    return below
