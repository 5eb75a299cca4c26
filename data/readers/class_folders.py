"""Folders named after labels, the layout of most picture and video sets: a folder or zip archive → labelled records.

`<train|validation|test>/<label>/<file>`, or `<label>/<file>` if the source has no splits; both possibly inside more
folders, and with folders inside the label's. Options for known data sets:

- the BEiT reference's pictures (bored, confused, engaged, neutral): the file names contain people's names, so pass a
  `subject_pattern` such as "^[A-Za-z]+";
- an engagement set like that of Nezami et al. (split folders, then two labels), and the output of `engagement draw`:
none;
- CK+ (`<expression>/<subject>_<session>_<frame>.png`): `subject_pattern` "^S[0-9]+".
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from ...processor.input_errors import DataError
from ...processor.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from ..schema import ClipRecord, LabelledSource, Media, Reject
from .file_trees import FileTree, open_tree, read_source_file
from .split_names import require_one_word, split_named
from .subject_pattern import SubjectPattern

SUFFIXES = {"picture": PICTURE_SUFFIXES, "video": VIDEO_SUFFIXES}
_SIDE_SUFFIXES = (".txt", ".csv", ".json", ".md")
_LAYOUTS = "<label>/<file>, or <train|validation|test>/<label>/<file>"


def split_in_name(name: str) -> str | None:
    """The split in a file name: `train.csv`, `train-00000-of-00001.parquet` or `train/0000.parquet`."""
    path = PurePosixPath(name)
    return split_named(path.stem.partition("-")[0]) or split_named(path.parent.name)


def read_class_folders(
    source: Path,
    media: Media = "picture",
    kind: str = "images",
    subject_pattern: str | None = None,
    label_names: Mapping[str, str] | None = None,
) -> LabelledSource:
    """One record per picture or video, sorted by name; labels are the folders' names in lower case.

    Args:
        source: a folder or zip archive.
        media: "picture" or "video"; other kinds of files are rejected; tables and notes (.csv, .txt) are ignored.
        kind: kind of the source.
        subject_pattern: regular expression searched in the path below the label folder; the subject is its group
            "subject", else its first group, else the whole match. A file without a match is rejected.
        label_names: folder name in lower case → label, other folders are rejected; None uses the folders' names.

    Raises:
        DataError: no folder or zip archive, no such files, files outside label folders, or fewer than two labels.
        RecipeError: `subject_pattern` is not a regular expression.
    """
    pattern = None if subject_pattern is None else SubjectPattern(subject_pattern)
    tree = open_tree(source)
    names = [name for name in tree.names if not name.lower().endswith(_SIDE_SUFFIXES)]
    files = [name for name in names if name.lower().endswith(SUFFIXES[media])]
    prefix = _check_layout(tree, files, media)
    require_one_word({name.removeprefix(prefix).partition("/")[0] for name in files}, str(source))
    has_splits = any(_split_of(name, prefix) for name in files)
    found = [_read_name(name, prefix, has_splits, media, pattern, label_names) for name in names]
    records = [result for result in found if isinstance(result, ClipRecord)]
    rejects = [*tree.rejects, *(result for result in found if isinstance(result, Reject))]
    labels = sorted({record.label for record in records if record.label})
    if len(labels) < 2:
        why = f" First reject: {rejects[0].reason}" if rejects else ""
        raise DataError(
            f"Expected {media}s of at least 2 labels in {source}, laid out as {_LAYOUTS}; got {labels or 'none'}.{why}"
        )
    return LabelledSource(kind, media, records, rejects, partial(read_source_file, str(source)))


def _check_layout(tree: FileTree, files: Sequence[str], media: str) -> str:
    """The folders above all labels and splits, such as "ER/", or ""."""
    if not files:
        suffixes = ", ".join(SUFFIXES[media])
        raise DataError(f"{tree.root} contains no {media}s ({suffixes}); check the path.{tree.refused()}")
    prefix = _top_folders(files)
    if not any(_label_folder(name, prefix) for name in files):
        raise DataError(
            f"Expected {media}s in a folder for each label in {tree.root}, laid out as {_LAYOUTS}; got {files[0]}."
        )
    return prefix


def _top_folders(files: Sequence[str]) -> str:
    parts = [PurePosixPath(name).parts for name in files]
    depth = 0
    while (
        len({part[depth] for part in parts}) == 1
        and any(len(part) > depth + 2 for part in parts)  # a label folder and a file must remain
        and split_named(parts[0][depth]) is None
    ):
        depth += 1
    return "".join(f"{folder}/" for folder in parts[0][:depth])


def _split_of(name: str, prefix: str) -> str | None:
    top, slash, _ = name.removeprefix(prefix).partition("/")
    return split_named(top) if slash else None


def _label_folder(name: str, prefix: str) -> str:
    """The label folder's name; "" if the file is in none."""
    folders = PurePosixPath(name.removeprefix(prefix)).parts[:-1]
    below_split = folders[1:] if _split_of(name, prefix) else folders
    return below_split[0] if below_split else ""


def _read_name(
    name: str,
    prefix: str,
    has_splits: bool,
    media: str,
    pattern: SubjectPattern | None,
    label_names: Mapping[str, str] | None,
) -> ClipRecord | Reject:
    clip_id = name.removeprefix(prefix)
    split, folder = _split_of(name, prefix), _label_folder(name, prefix)
    label = folder.strip().lower() if label_names is None else label_names.get(folder.strip().lower())
    below_label = clip_id.split("/", 2 if split else 1)[-1]
    subject = pattern.search(below_label) if pattern else None
    reject = partial(Reject, name, clip_id)
    if not name.lower().endswith(SUFFIXES[media]):
        return reject("source", f"{name} does not have the suffix of a {media}.")
    if has_splits and split is None:
        return reject("source", f"{name} is in no split folder, but other files are.")
    if not folder:
        return reject("label", f"{name} is in no folder that names its label.")
    if label is None:
        known = ", ".join(dict.fromkeys((label_names or {}).values()))
        return reject("label", f"The folder of {name} is {folder}, not one of {known}.")
    if pattern is not None and not subject:
        return reject("source", f"The subject pattern {pattern.pattern!r} does not match {below_label}.")
    return ClipRecord(clip_id, subject, split, name, label=label)
