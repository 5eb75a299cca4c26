"""FER2013 (Goodfellow et al. 2013) in each of its formats → pictures with one of seven expressions.

`fer2013.csv` (`emotion,pixels,Usage`), `icml_face_data.csv` (`emotion, Usage, pixels`), the competition's `train.csv`
(`emotion,pixels`; only training pictures, from which `complete_splits` draws the other splits), the Hub's parquet files
(`train-00000-of-00001.parquet`, columns `image` and `label`), or class folders. A clip id is the split and the row
within it, so that a picture has the same id in a table and in parquet. The people in the pictures are unknown.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow
import pyarrow.parquet
from PIL import Image

from ...processor.input_errors import DataError
from ...processor.media_files import PICTURE_SUFFIXES
from ..schema import EXPRESSION_OF, EXPRESSIONS, ClipRecord, LabelledSource, Reject, SourceNotes
from .class_folders import read_class_folders, split_in_name
from .file_trees import FileTree, open_tree
from .parquet_rows import label_names_of, not_whole
from .tables import Row, read_table

TABLE_NAMES = ("fer2013.csv", "icml_face_data.csv", "train.csv")
SIZE_PX = 48
_USAGES = {"training": "train", "publictest": "validation", "privatetest": "test"}
# A row of either kind of table: its record and the encoded picture, or the reason why there is none.
_Found = tuple[ClipRecord, bytes] | Reject


def read_fer2013(source: Path) -> LabelledSource:
    """Read all pictures in the order of their file; those of tables and parquet are held in memory, encoded.

    Pictures of a csv table are encoded as PNG, without loss; those of parquet files keep their encoding.

    Raises:
        DataError: the source is missing, has none of the known formats, or its table lacks a column.
    """
    is_single = source.is_file() and source.suffix.lower() in (".csv", ".parquet")
    tree = FileTree(source.parent, [source.name], []) if is_single else open_tree(source)
    table = source.name if is_single and source.suffix.lower() == ".csv" else find_table(tree)
    parquets = [name for name in tree.names if name.lower().endswith(".parquet")]
    if table:
        with tree.open(table) as file:
            return _collect(_read_csv(file, table), tree, [table])
    if parquets:
        return _collect(_read_parquets(tree, parquets), tree, parquets)
    if not any(name.lower().endswith(PICTURE_SUFFIXES) for name in tree.names):
        forms = f"{' or '.join(TABLE_NAMES)}, parquet files, or pictures in a folder for each expression"
        raise DataError(f"{source} contains none of: {forms}.{tree.refused()}")
    return read_class_folders(source, "picture", "fer2013", label_names=EXPRESSION_OF)


def find_table(tree: FileTree) -> str | None:
    """The table of pixels in a folder or archive, found by its name in either edition."""
    by_name = {PurePosixPath(name).name.lower(): name for name in reversed(tree.names)}
    found = (by_name[name] for name in TABLE_NAMES if name in by_name)
    return next(
        (name for name in found if name.lower().rpartition("/")[2] != "train.csv" or has_pixels(tree, name)), None
    )


def has_pixels(tree: FileTree, name: str) -> bool:
    """Whether a CSV table has a column of pixels."""
    with tree.open(name) as file:
        return b"pixels" in file.readline(10_000).lower()


def _collect(found: Iterable[_Found], tree: FileTree, files: list[str]) -> LabelledSource:
    records: list[ClipRecord] = []
    rejects = list(tree.rejects)
    pictures: dict[str, bytes] = {}
    for result in found:
        if isinstance(result, Reject):
            rejects.append(result)
        else:
            record, pictures[record.clip_id] = result
            records.append(record)
    notes = SourceNotes(files=files)
    return LabelledSource("fer2013", "picture", records, rejects, partial(_picture_of, pictures), notes)


def _picture_of(pictures: Mapping[str, bytes], record: ClipRecord) -> bytes:
    return pictures[record.clip_id]


def _read_csv(file: BinaryIO, name: str) -> Iterator[_Found]:
    counts: Counter[str] = Counter()
    table = read_table(file, name, required=("emotion", "pixels"), optional=("usage",))
    for row in table.rows:
        split = _USAGES.get(row.cells["usage"].lower()) if "usage" in table.columns else "train"
        if split is None:
            usage = row.cells["usage"]
            yield row.reject("table", "", f"Expected Usage as Training, PublicTest or PrivateTest, got {usage!r}")
            continue
        clip_id = f"{split}/{counts[split]:05}"
        counts[split] += 1
        yield _read_row(row, clip_id, split)


def _read_row(row: Row, clip_id: str, split: str) -> _Found:
    emotion = row.cells["emotion"]
    if row.problem:
        return row.reject("table", clip_id, row.problem)
    if emotion not in map(str, range(len(EXPRESSIONS))):
        return row.reject("label", clip_id, f"Expected emotion as 0 to {len(EXPRESSIONS) - 1}, got {emotion!r}")
    try:
        pixels = bytes(map(int, row.cells["pixels"].split()))
    except ValueError as error:
        return row.reject("decode", clip_id, f"Expected pixels as whole numbers in 0..255, got others ({error})")
    if len(pixels) != SIZE_PX**2:
        return row.reject("decode", clip_id, f"Expected {SIZE_PX**2} pixels, got {len(pixels)}")
    picture = io.BytesIO()
    Image.frombytes("L", (SIZE_PX, SIZE_PX), pixels).save(picture, "PNG")
    label = EXPRESSIONS[int(emotion)]
    return ClipRecord(clip_id, None, split, f"{row.table}#{row.line}", label=label), picture.getvalue()


def _read_parquets(tree: FileTree, names: list[str]) -> Iterator[_Found]:
    counts: Counter[str] = Counter()
    for name in names:
        split = split_in_name(name)
        if split is None:
            raise DataError(f"The name of {name} says neither train, validation nor test; rename the file.")
        with tree.open(name) as file:
            images, labels = _read_columns(file, name)
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            clip_id, path = f"{split}/{counts[split]:05}", f"{name}#{row}"
            counts[split] += 1
            content = image.get("bytes") if isinstance(image, dict) else image
            if label is None:
                yield Reject(path, clip_id, "label", f"The label of {path} is not one of FER2013's expressions.")
            elif not isinstance(content, bytes):
                yield Reject(path, clip_id, "decode", f"{path} has no encoded picture.")
            else:
                yield ClipRecord(clip_id, None, split, path, label=label), content


def _read_columns(file: BinaryIO, name: str) -> tuple[list[object], list[str | None]]:
    """The images as stored, and their expressions (None: unknown)."""
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        names = parquet.schema_arrow.names
        table = parquet.read(columns=[column for column in ("image", "label") if column in names])
        label_names = label_names_of(table.schema, "label") if "label" in names else None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise not_whole(name, error) from error
    if table.num_columns != 2:
        raise DataError(f"{name} lacks the columns image and label; it has {', '.join(names)}.")
    labels = [_expression_of(label, label_names or list(EXPRESSIONS)) for label in table["label"].to_pylist()]
    return table["image"].to_pylist(), labels


def _expression_of(label: object, names: list[str]) -> str | None:
    if isinstance(label, int):
        label = names[label] if 0 <= label < len(names) else None
    return EXPRESSION_OF.get(label.strip().lower()) if isinstance(label, str) else None
