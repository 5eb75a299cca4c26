"""The rows of a prepared data set in the Hub's format, Parquet files with pictures, classes and lists; and back.

`data/SPLIT-00000-of-00001.parquet` opens with `datasets` alone, and the Hub's viewer shows its pictures. The pictures'
bytes are unchanged; columns without any known value are left out. Both directions work row group by row group, so
that a data set may be larger than memory.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from datasets import List as Repeated
from datasets.arrow_writer import ArrowWriter
from datasets.table import table_cast

from ..processor.input_errors import DataError, in_one_line
from .preparation.prepared_data import FEATURES
from .schema import AFFECTS, LEVELS, SPLITS, order_label_names

TABLES_FOLDER = "data"
_FILE_BYTES = 500 << 20  # the datasets library's own file size
_GROUP_BYTES = 32 << 20  # a reader holds this much in memory, and a stream waits for it


def _hub_features(known: Collection[str], labels: Iterable[str]) -> Features:
    """The columns' types for the Hub's viewer; ratings are classes too, named by their levels."""
    shown = {
        "frames": Repeated(Image()),
        "label": ClassLabel(names=list(labels)),
        **{affect: ClassLabel(names=list(LEVELS)) for affect in AFFECTS},
    }
    return Features({name: shown.get(name, FEATURES[name]) for name in FEATURES if name in known})


def write_tables(splits: DatasetDict, folder: Path, file_bytes: int = _FILE_BYTES) -> list[str]:
    """Write the files of every split below `folder`; returns their names relative to it. The same rows give the same
    bytes, so that files which the Hub already has are not uploaded again.

    Args:
        file_bytes: largest size of a file's content.
    """
    known = {name for name in FEATURES for rows in splits.values() if rows.data.column(name).null_count < len(rows)}
    labels = {label for rows in splits.values() for label in rows.unique("label") if label is not None}
    features, names = _hub_features(known, order_label_names(labels)), []
    (folder / TABLES_FOLDER).mkdir(parents=True, exist_ok=True)
    for split in (split for split in SPLITS if split in splits):
        rows = splits[split].select_columns(list(features)).with_format("arrow")
        row_bytes = max(1, rows.data.nbytes // len(rows))
        num_files = min(len(rows), math.ceil(rows.data.nbytes / file_bytes))
        for index in range(num_files):
            names.append(f"{TABLES_FOLDER}/{split}-{index:05}-of-{num_files:05}.parquet")
            part = rows.shard(num_files, index, contiguous=True)
            with pyarrow.parquet.ParquetWriter(folder / names[-1], features.arrow_schema) as writer:
                for table in part.iter(max(1, _GROUP_BYTES // row_bytes)):
                    writer.write_table(table_cast(table, features.arrow_schema))
    return names


def read_tables(folder: Path, output: Path) -> Dataset:
    """Write all rows below `folder`, as they were prepared, to one Arrow file at `output`.

    Raises:
        DataError: the files are not such tables.
    """
    with ArrowWriter(path=str(output), features=FEATURES) as writer:
        for split in SPLITS:
            for path in sorted((folder / TABLES_FOLDER).glob(f"{split}-*.parquet")):
                for table, labels in _groups_of(path):
                    writer.write_table(_as_prepared(table, labels))
        writer.finalize()
    return Dataset.from_file(str(output))


def _groups_of(path: Path) -> Iterator[tuple[pyarrow.Table, list[str]]]:
    """A file's row groups, and the names of its labels."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            features = Features.from_arrow_schema(file.schema_arrow)
            labels = getattr(features.get("label"), "names", [])
            if features != _hub_features(features, labels):
                raise DataError(f"{path.name} does not have the columns of a prepared data set.")
            for group in range(file.num_row_groups):
                yield file.read_row_group(group), labels
    except pyarrow.ArrowException as error:
        raise DataError(f"{path.name} could not be read as Parquet ({in_one_line(error)}).") from error


def _as_prepared(table: pyarrow.Table, labels: list[str]) -> pyarrow.Table:
    columns = []
    for field in FEATURES.arrow_schema:
        if field.name not in table.column_names:
            columns.append(pyarrow.nulls(len(table), field.type))
            continue
        column = table.column(field.name).combine_chunks()
        if field.name == "frames":
            column = _bytes_of(column)
        elif field.name == "label":
            column = pyarrow.array(labels, pyarrow.string()).take(column)
        columns.append(column.cast(field.type))
    return pyarrow.table(columns, schema=FEATURES.arrow_schema)


def _bytes_of(pictures: pyarrow.ListArray) -> pyarrow.ListArray:
    """Lists of {bytes, path} → lists of bytes."""
    lengths = pyarrow.compute.list_value_length(pictures).to_numpy(zero_copy_only=False)
    ends = pyarrow.array([0, *lengths.cumsum().tolist()], pyarrow.int32())
    return pyarrow.ListArray.from_arrays(ends, pictures.flatten().field("bytes"))
