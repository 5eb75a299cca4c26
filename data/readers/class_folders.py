"""Folders named after labels, as most picture and video sets unpack: a folder or zip archive → labelled records.

`<train|validation|test>/<label>/<file>`, or `<label>/<file>` where the source has no splits; both possibly below more
folders, and with folders below the label's. What the known sets need:

- the BEiT reference's pictures (bored, confused, engaged, neutral): people's names are in the file names, so pass a
  `subject_pattern` such as "^[A-Za-z]+";
- an engagement set as of Nezami et al. (split folders, then two labels), and what `engagement draw` writes: as it is;
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
    """The split that a file's name tells: `train.csv`, `train-00000-of-00001.parquet` or `train/0000.parquet`."""
    path = PurePosixPath(name)
    return split_named(path.stem.partition("-")[0]) or split_named(path.parent.name)


def read_class_folders(
    source: Path,
    media: Media = "picture",
    kind: str = "images",
    subject_pattern: str | None = None,
    label_names: Mapping[str, str] | None = None,
) -> LabelledSource:
    """One record a picture or video, sorted by name; labels are the folders' names in lower case.

    Args:
        source: a folder or zip archive.
        media: "picture" or "video"; files of another kind are rejected, tables and notes (.csv, .txt) are left out.
        kind: what the source calls itself.
        subject_pattern: regular expression searched in the path below the label folder; the subject is its group
            "subject", else its first group, else all of the match. A file without a match is rejected.
        label_names: folder name in lower case → label, all others being rejected; None takes the names as they are.

    Raises:
        DataError: no folder or zip archive, no such files, files in no label folder, or fewer than two labels.
        RecipeError: `subject_pattern` is no regular expression.
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
        why = f" The first reject: {rejects[0].reason}" if rejects else ""
        raise DataError(
            f"Expected {media}s of at least 2 labels in {source}, laid out as {_LAYOUTS}; got {labels or 'none'}.{why}"
        )
    return LabelledSource(kind, media, records, rejects, partial(read_source_file, str(source)))


def _check_layout(tree: FileTree, files: Sequence[str], media: str) -> str:
    """The folders above all labels and splits, "" or for instance "ER/"."""
    if not files:
        suffixes = ", ".join(SUFFIXES[media])
        raise DataError(f"Expected {media}s ({suffixes}) in {tree.root}, found none; check the path.{tree.refused()}")
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
        and any(len(part) > depth + 2 for part in parts)  # a label folder and a file remain
        and split_named(parts[0][depth]) is None
    ):
        depth += 1
    return "".join(f"{folder}/" for folder in parts[0][:depth])


def _split_of(name: str, prefix: str) -> str | None:
    top, slash, _ = name.removeprefix(prefix).partition("/")
    return split_named(top) if slash else None


def _label_folder(name: str, prefix: str) -> str:
    """The folder's name; "" where the file lies in none."""
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
        return reject("source", f"Expected a {media}, got {name}, which is not a {media} by its suffix.")
    if has_splits and split is None:
        return reject("source", f"Expected {name} in a split folder, as others are; it is in none.")
    if not folder:
        return reject("label", f"Expected {name} in a folder that names its label; it is in none.")
    if label is None:
        known = ", ".join(dict.fromkeys((label_names or {}).values()))
        return reject("label", f"Expected one of {known} as the folder of {name}, got {folder}.")
    if pattern is not None and not subject:
        return reject("source", f"Expected a subject by the pattern {pattern.pattern!r} in {below_label}, found none.")
    return ClipRecord(clip_id, subject, split, name, label=label)
