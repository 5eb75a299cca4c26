"""AffectNet (Mollahosseini et al. 2017) → pictures with one of eight expressions: FER2013's seven, and contempt.

First edition: the lists `training.csv` and `validation.csv` of human annotations (the second often without a header),
with the face's box for each picture below `Manually_Annotated_Images`. Later edition for eight labels:
`<train_set|val_set>/images/<n>.jpg`, which are faces, and `annotations/<n>_exp.npy`. The test set was never published:
the validation set is used as test, and `complete_splits` draws a new validation set from train. Valence, arousal,
landmarks and automatic annotations are not read. The people are unknown.
http://mohammadmahoor.com/pages/databases/affectnet/
"""

import codecs
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image

from ...processor.input_errors import ArchiveError, DataError, in_one_line
from ...processor.media_files import PICTURE_SUFFIXES
from ...processor.media_inputs import load_picture
from ..schema import ClipRecord, LabelledSource, SourceNotes
from .file_trees import FileTree, fetch_file, open_tree, read_source_file
from .listed_files import LabelNames, Listed, match_files
from .split_names import split_named
from .tables import Row, read_table

_PATH, _EXPRESSION = "subdirectory_filepath", "expression"
_BOX = ("face_x", "face_y", "face_width", "face_height")
_HEADER = (_PATH, *_BOX, "facial_landmarks", _EXPRESSION, "valence", "arousal")
_EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
_LABELS = LabelNames(
    {str(number): name for number, name in enumerate(_EXPRESSIONS)},
    {"8": "none of the expressions", "9": "the annotator was uncertain", "10": "no face"},
)
_ANNOTATION = re.compile(r"(?P<folder>(?:.*/)?(?P<split>[^/]+)/)annotations/(?P<number>[^/]+)_exp\.npy", re.IGNORECASE)
_LEAST_INSIDE = 0.5  # of a box; less means that the list is of whole pictures and the pictures are already cropped
_TEST_IS_VALIDATION = "test is the published validation set, since the test set was never published"


def is_affectnet(tree: FileTree) -> bool:
    """Whether the tree contains one of its lists, or annotations of single pictures."""
    return bool(_lists_of(tree)) or any(_ANNOTATION.fullmatch(name) for name in tree.names)


def read_affectnet(source: Path, face_crop: bool = False) -> LabelledSource:
    """Read all pictures in the order of the lists, or of their names.

    Args:
        face_crop: whether faces will be detected in the pictures later; else they are cropped to the lists' boxes.
            Pictures without boxes in their list, and those of the later edition, are used unchanged.

    Raises:
        DataError: neither lists nor annotations, two lists for one split, or pictures in several folders.
    """
    tree = open_tree(source)
    lists = _lists_of(tree)
    pictures = [name for name in tree.names if name.lower().endswith(PICTURE_SUFFIXES)]
    if lists:
        splits = _splits_of({name: PurePosixPath(name).stem for name in lists}, source)
        listed = [entry for name in lists for entry in _read_list(tree, name, splits[name], face_crop)]
        folder = _picture_folder(listed, pictures, source)
        files = ((name.removeprefix(folder), name) for name in pictures if name.startswith(folder))
    else:
        found = [match for name in tree.names if (match := _ANNOTATION.fullmatch(name))]
        if not found:
            raise DataError(
                f"{source} has neither AffectNet's lists (training.csv, validation.csv) nor its folders train_set and "
                f"val_set with annotations.{tree.refused()}"
            )
        splits = _splits_of({match["folder"]: match["split"] for match in found}, source)
        listed = [_read_annotation(tree, match, splits[match["folder"]]) for match in found]
        files = ((str(PurePosixPath(name).with_suffix("")), name) for name in pictures)
    records, rejects = match_files(listed, files, _LABELS, "picture")
    told = None if "validation" in splits.values() or "test" not in splits.values() else _TEST_IS_VALIDATION
    notes = SourceNotes(files=lists or None, split=told)
    read = partial(_read_face, str(source))
    return LabelledSource("affectnet", "picture", records, [*tree.rejects, *rejects], read, notes)


def _lists_of(tree: FileTree) -> list[str]:
    """Lists of splits; the list of automatically annotated pictures has no split in its name."""
    tables = [name for name in tree.names if name.lower().endswith(".csv") and split_named(PurePosixPath(name).stem)]
    return [name for name in tables if _is_list(tree, name)]


def _is_list(tree: FileTree, name: str) -> bool:
    with tree.open(name) as file:
        first = file.readline(10_000).decode("utf-8", "replace").lower()
    cells = first.split(",")
    return _PATH in first or (len(cells) == len(_HEADER) and cells[0].strip('"').endswith(PICTURE_SUFFIXES))


def _splits_of(names: Mapping[str, str], source: Path) -> dict[str, str]:
    """List or folder → its split; a validation set without a test set is used as test."""
    told = {name: split_named(name_of_split) or "" for name, name_of_split in names.items()}
    for split in set(told.values()):
        if not split:
            raise DataError(f"Expected train_set and val_set in {source}, got {', '.join(sorted(names.values()))}.")
        if len(same := sorted(name for name in told if told[name] == split)) > 1:
            raise DataError(f"{source} has more than one {split}: {' and '.join(same)}; keep one.")
    if "test" not in told.values():
        told = {name: "test" if split == "validation" else split for name, split in told.items()}
    return told


def _read_list(tree: FileTree, name: str, split: str, face_crop: bool) -> Iterator[Listed]:
    with tree.open(name) as file:
        content, lines_added = _with_header(file)
        table = read_table(content, name, required=(_PATH, _EXPRESSION), optional=_BOX)
        has_box = not face_crop and set(_BOX) <= set(table.columns)
        for full in table.rows:
            cells = {column: full.cells[column] for column in table.columns}  # without landmarks, which are 400 MB
            row = replace(full, line=full.line - lines_added, cells=cells)
            path = row.cells[_PATH].replace("\\", "/")
            box = [row.cells[column] for column in _BOX] if has_box else []
            is_box = all(side.isdigit() for side in box) and "0" not in box[2:]
            problem = None if is_box else f"Expected {', '.join(_BOX)} as whole numbers, got {', '.join(box)}"
            clip_id = f"{path}@{','.join(box)}" if box else path
            yield Listed(row, path, clip_id, split, row.cells[_EXPRESSION], problem=problem)


def _with_header(file: BinaryIO) -> tuple[BinaryIO, int]:
    """The list, with a header added if it has none, and the number of added lines."""
    if _PATH in file.readline(10_000).decode("utf-8", "replace").lower():
        file.seek(0)
        return file, 0
    file.seek(0)
    return io.BytesIO(f"{','.join(_HEADER)}\n".encode() + file.read().removeprefix(codecs.BOM_UTF8)), 1


def _picture_folder(listed: list[Listed], pictures: list[str], source: Path) -> str:
    """Prefix of the lists' paths, such as "Manually_Annotated_Images/"; "" if no picture is found."""
    by_name: dict[str, list[str]] = {}
    for name in pictures:
        by_name.setdefault(PurePosixPath(name).name.lower(), []).append(name)
    for entry in listed:
        end = f"/{entry.file.lower()}"
        places = by_name.get(end.rpartition("/")[2], [])
        folders = [f"/{name}"[: -len(end) + 1][1:] for name in places if f"/{name}".lower().endswith(end)]
        if len(folders) > 1:
            got = " and ".join(folder or "the top folder" for folder in folders)
            raise DataError(f"AffectNet's pictures are in several folders of {source}: {got}; keep one.")
        if folders:
            return folders[0]
    return ""


def _read_annotation(tree: FileTree, match: re.Match[str], split: str) -> Listed:
    label, problem = "", None
    try:
        with tree.open(match[0]) as file:
            label = str(np.load(file).item()).removesuffix(".0")
    except (ValueError, EOFError, ArchiveError) as error:
        problem = f"Expected the number of an expression, got: {in_one_line(error)}"
    clip_id = f"{match['folder']}images/{match['number']}"
    return Listed(Row(match[0], 0, {}, problem, counted_in="value"), clip_id, clip_id, split, label)


def _read_face(root: str, record: ClipRecord) -> Path | bytes:
    """The picture's file, or its crop to the box in the clip id, encoded without loss.

    Raises:
        DataError: most of the box is outside the picture.
        ImageReadError: it is not a picture.
    """
    box = record.clip_id.removeprefix(record.clip_id.rpartition("@")[0])
    if not re.fullmatch(r"@\d+,\d+,\d+,\d+", box):
        return read_source_file(root, record)
    left, top, width, height = map(int, box[1:].split(","))
    pixels = load_picture(fetch_file(root, record.source_path))
    face = pixels[top : top + height, left : left + width]
    if face.shape[0] * face.shape[1] < _LEAST_INSIDE * width * height:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise DataError(
            f"The face's box {box[1:]} (x, y, width, height) is outside {record.source_path}, a picture of {size} "
            f"pixels; if the pictures are already cropped, remove {', '.join(_BOX)} from the list."
        )
    content = io.BytesIO()
    Image.fromarray(face).save(content, "BMP")
    return content.getvalue()
