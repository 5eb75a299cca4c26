"""Parquet tables of pictures, read row by row like CSV tables: cells as text, and the picture itself."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Features

from ...processor.input_errors import DataError
from ..schema import EXPRESSION_OF, EXPRESSIONS
from .tables import Row, our_names

PICTURE_COLUMNS = ("image", "bytes", "path")


@dataclass(frozen=True)
class PictureRow:
    """A row and its picture: encoded, or the path of a file; None if there is neither."""

    row: Row
    picture: bytes | str | None


@dataclass(frozen=True)
class ParquetTable:
    """An open table: its columns in lower case, and its rows, which can be read once, while the file is open."""

    columns: list[str]
    rows: Iterator[PictureRow]


def read_parquet(file: BinaryIO, name: str, wanted: Sequence[str]) -> ParquetTable:
    """Open a table, reading the wanted columns and the first of `PICTURE_COLUMNS`.

    Raises:
        DataError: not a complete parquet file.
    """
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        schema = parquet.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise not_whole(name, error) from error
    stored: dict[str, str] = {}
    for column, ours in zip(schema.names, our_names(schema.names, (*PICTURE_COLUMNS, *wanted)), strict=True):
        stored.setdefault(ours, column)
    picture = next((stored[column] for column in PICTURE_COLUMNS if column in stored), None)
    cells = {column: stored[column] for column in wanted if column in stored and stored[column] != picture}
    names = label_names_of(schema, cells["label"]) if "label" in cells else None
    return ParquetTable(list(stored), _rows(parquet, name, cells, picture, names))


def is_fer2013(file: BinaryIO, name: str) -> bool:
    """Whether a parquet table is an edition of FER2013: `image` and `label`, no people, and its seven expressions.

    Named classes are recognised by their names; other labels only if each of the seven occurs.

    Raises:
        DataError: not a complete parquet file.
    """
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        columns = set(parquet.schema_arrow.names)
        if not {"image", "label"} <= columns or "subject_id" in columns:
            return False
        names = label_names_of(parquet.schema_arrow, "label")
        found = names or set(parquet.read(columns=["label"])["label"].unique().to_pylist()) - {None}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise not_whole(name, error) from error
    if names is None and found == set(range(len(EXPRESSIONS))):
        return True
    return {EXPRESSION_OF.get(str(label).strip().lower()) for label in found} == set(EXPRESSIONS)


def label_names_of(schema: pyarrow.Schema, column: str) -> list[str] | None:
    """The names of a column's label numbers, as the datasets library stores them; None if there are none."""
    label_type = Features.from_arrow_schema(pyarrow.schema([schema.field(column)], metadata=schema.metadata))[column]
    return list(label_type.names) if isinstance(label_type, ClassLabel) else None


def _rows(
    parquet: pyarrow.parquet.ParquetFile,
    name: str,
    cells: dict[str, str],
    picture: str | None,
    label_names: Sequence[str] | None,
) -> Iterator[PictureRow]:
    number = 0
    try:
        for batch in parquet.iter_batches(columns=[*cells.values(), *([picture] if picture else [])]):
            for values in batch.to_pylist():
                texts = {column: _as_text(values[stored]) for column, stored in cells.items()}
                if label_names is not None:
                    label = texts["label"]  # a number; the datasets library writes -1 for a missing label
                    texts["label"] = (
                        label_names[int(label)] if label.isdigit() and int(label) < len(label_names) else ""
                    )
                found = values[picture] if picture else None
                if isinstance(found, dict):  # the datasets library's struct
                    found = found.get("bytes") or found.get("path")
                is_usable = isinstance(found, (bytes, str)) and found
                yield PictureRow(Row(name, number, texts, None, "row"), found if is_usable else None)
                number += 1
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise not_whole(name, error) from error


def _as_text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers into floats if a value is missing
        return str(int(value))
    return str(value).strip()


def not_whole(name: str, error: Exception) -> DataError:
    """The error for a file that Parquet's reader refuses."""
    reason = str(error).partition("\n")[0]
    return DataError(f"{name} is not a complete parquet file ({reason}); download it again.")
