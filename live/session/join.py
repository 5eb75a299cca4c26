"""Joins the tables of sessions in shards; each shard's page stays in its folder."""

from pathlib import Path

import pyarrow
import pyarrow.parquet

from ...data.atomic_files import require_new_folder, whole_folder, writing
from ...data.json_records import read_record
from ...data.shards import join_csv, read_shards
from ...processor.input_errors import DataError
from .folder import PEOPLE_TABLE, REFUSED_TABLE, SESSION_FILE, WINDOWS_PARQUET, WINDOWS_TABLE, SessionRecord


def join_sessions(folder: Path, output: Path) -> int:
    """Write the tables that one session of all shards' recordings would have; returns the number of recordings.

    Args:
        output: a new folder.

    Raises:
        DataError: a shard is missing, unfinished or made with other settings; the folder exists or cannot be written.
    """
    shards = read_shards(folder, "session")
    require_new_folder(output, "joined tables")
    with whole_folder(output) as unfinished, writing(output):
        for name in (WINDOWS_TABLE, PEOPLE_TABLE, REFUSED_TABLE):
            join_csv([shard / name for shard in shards], unfinished / name)
        tables = [shard / WINDOWS_PARQUET for shard in shards]
        schema = pyarrow.parquet.read_schema(tables[0])
        with pyarrow.parquet.ParquetWriter(unfinished / WINDOWS_PARQUET, schema) as writer:
            for path in tables:
                writer.write_table(pyarrow.parquet.read_table(path))
    records = [
        read_record(shard / SESSION_FILE, SessionRecord, DataError, "a session", "run that shard again")
        for shard in shards
    ]
    return sum(len(record.recordings) for record in records)
