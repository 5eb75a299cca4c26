"""RAF-DB's basic part (Li and Deng, CVPR 2017) → pictures with one of FER2013's seven expressions.

Published layout: `EmoLabel/list_patition_label.txt` (spelled so; lines `train_00001.jpg 5`), and the pictures
`Image/aligned/train_00001_aligned.jpg` (faces of 100 pixels) and `Image/original/train_00001.jpg` (whole). Layout of a
common copy: `DATASET/<train|test>/<1 to 7>/train_00001_aligned.jpg`. The split is in the file name; validation does not
exist and is drawn from train by `complete_splits`. The people are unknown. http://www.whdeng.cn/RAF/model1.html
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from ...processor.input_errors import DataError
from ...processor.media_files import PICTURE_SUFFIXES
from ..schema import EXPRESSION_OF, LabelledSource, SourceNotes
from .class_folders import read_class_folders
from .file_trees import FileTree, open_tree, read_source_file
from .listed_files import LabelNames, Listed, match_files
from .split_names import split_named
from .tables import read_words

_LIST_NAMES = ("list_patition_label.txt", "list_partition_label.txt")
_LABELS = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
_BY_NUMBER = {str(number): name for number, name in enumerate(_LABELS, start=1)}
_COMPOUND = {str(number) for number in range(8, 12)}
_COPIED = re.compile(r"[1-7]/(train|test)_\d+_aligned\.\w+$", re.IGNORECASE)


def is_rafdb(tree: FileTree) -> bool:
    """Whether the tree contains its list, or its pictures in a folder for each label number."""
    return bool(_lists_of(tree)) or any(_COPIED.search(name) for name in tree.names)


def read_rafdb(source: Path, face_crop: bool = False) -> LabelledSource:
    """Read all pictures in the order of the list, or of their names if there is no list.

    Args:
        face_crop: whether faces will be detected later; then the whole pictures are read, if they exist.

    Raises:
        DataError: neither a list nor label folders, several lists, the list of compound expressions, or only whole
            pictures without `face_crop`.
    """
    tree = open_tree(source)
    lists = _lists_of(tree)
    if not lists:
        folders = {part.lower() for name in tree.names for part in PurePosixPath(name).parts[:-1]}
        if not folders & (_BY_NUMBER | EXPRESSION_OF).keys():
            raise DataError(
                f"Expected RAF-DB's list ({_LIST_NAMES[0]}), or its pictures in folders 1 to 7, in {source}, got "
                f"neither.{tree.refused()}"
            )
        return read_class_folders(source, "picture", "rafdb", label_names=_BY_NUMBER | EXPRESSION_OF)
    if len(lists) > 1:
        raise DataError(f"{source} contains several lists of RAF-DB: {' and '.join(lists)}; pass the folder of one.")
    listed = list(_read_list(tree, lists[0]))
    pictures = [(_clip_id_of(name), name) for name in _choose_pictures(tree, face_crop)]
    records, rejects = match_files(listed, pictures, LabelNames(_BY_NUMBER, {}), "picture")
    read = partial(read_source_file, str(source))
    return LabelledSource(
        "rafdb", "picture", records, [*tree.rejects, *rejects], read, SourceNotes(files=lists)
    )  # fmt: skip


def _lists_of(tree: FileTree) -> list[str]:
    return [name for name in tree.names if PurePosixPath(name).name.lower() in _LIST_NAMES]


def _clip_id_of(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).stem.removesuffix("_aligned")


def _read_list(tree: FileTree, name: str) -> Iterator[Listed]:
    with tree.open(name) as file:
        for row in read_words(file, name, ("file", "label")):
            clip_id, label = _clip_id_of(row.cells["file"]), row.cells["label"]
            if label in _COMPOUND:
                raise DataError(
                    f"Line {row.line} of {name} has the label {label}, so this is the list of compound expressions; "
                    "pass the folder basic, with the expressions 1 to 7."
                )
            split = split_named(clip_id.partition("_")[0])
            problem = None if split else f"Expected train_<number> or test_<number>, got {row.cells['file']!r}"
            yield Listed(row, clip_id, clip_id, split or "", label, problem=problem)


def _choose_pictures(tree: FileTree, face_crop: bool) -> list[str]:
    """The aligned faces, or the whole pictures if faces will be detected in them."""
    pictures = [name for name in tree.names if name.lower().endswith(PICTURE_SUFFIXES)]
    aligned = [name for name in pictures if "aligned" in name.lower()]
    whole = [name for name in pictures if "aligned" not in name.lower()]
    if face_crop:
        return whole or aligned
    if whole and not aligned:
        raise DataError(
            f"{tree.root} contains only whole pictures, such as {whole[0]}; add RAF-DB's aligned faces "
            "(Image/aligned), or pass --face-crop (face_crop: true in a recipe), which detects the faces."
        )
    return aligned
