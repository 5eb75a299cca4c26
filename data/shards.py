"""One job in shards, on any number of machines: each processes its share of the inputs, independent of the others.

A shard has its own folder, which contains `shard.json` once the shard is complete. Joining shards gives the result of a
single run, after a check that all exist and were made with the same settings.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from ..processor.input_errors import DataError, RecipeError
from .json_records import Count, Record, read_record, write_record
from .required_packages import DISTRIBUTION, installed_version

SHARD_FILE = "shard.json"
Job = Literal["prepare", "predict", "session"]
_FOLDER = re.compile(r"shard-(?P<number>\d{5,})-of-(?P<count>\d{5,})")
_NAMED_AT_MOST = 8  # of the missing shards
_Input = TypeVar("_Input")


@dataclass(frozen=True)
class Shard:
    """A share of a job's inputs: the `number`th, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse a text such as `3/500`; raises RecipeError for anything else, and for a number out of range."""
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise RecipeError(f"Expected --shard NUMBER/COUNT, such as 1/500 to 500/500, got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def share(self, inputs: Sequence[_Input]) -> Sequence[_Input]:
        """Consecutive inputs; all shares together are all inputs in their order. May be empty if there are fewer inputs
        than shards."""
        start, end = (len(inputs) * number // self.count for number in (self.number - 1, self.number))
        return inputs[start:end]

    def folder(self, output: Path) -> Path:
        """The shard's folder within a folder of shards."""
        return output / f"shard-{self.number:05}-of-{self.count:05}"


class ShardRecord(Record):
    """`shard.json`: identifies a shard and its job."""

    version: Literal[1]
    job: Job
    number: Count
    """from 1"""
    count: Count
    inputs: str
    """SHA-256 of the list of all inputs of the job, not only the shard's"""
    made_with: dict[str, str | None]
    """settings and versions, which must be equal in shards to be joined"""


def digest_of(inputs: Iterable[object]) -> str:
    """SHA-256 of inputs, or settings, that can be stored in JSON, in order."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(json.dumps(item, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def finish_shard(folder: Path, job: Job, shard: Shard, inputs: str, made_with: Mapping[str, str | None]) -> None:
    """Mark the shard as complete.

    Raises:
        DataError: it cannot be written.
    """
    known = {**made_with, DISTRIBUTION: installed_version(DISTRIBUTION)}
    record = ShardRecord(version=1, job=job, number=shard.number, count=shard.count, inputs=inputs, made_with=known)
    write_record(folder / SHARD_FILE, record)


def read_shards(folder: Path, job: Job) -> list[Path]:
    """The folders of all shards, in order.

    Raises:
        DataError: one is missing or not finished, or they differ in count, job, inputs or settings.
    """
    found = {
        Shard(int(match["number"]), int(match["count"])): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _FOLDER.fullmatch(path.name))
    }
    if not found:
        raise DataError(f"{folder} contains no shards; make them with engagement {job} --shard.")
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise DataError(
            f"{folder} mixes shards of {counts[0]} with shards of {counts[1]}; move one of these sets to a different "
            "folder."
        )
    whole = {shard.number for shard, path in found.items() if (path / SHARD_FILE).is_file()}
    missing = [number for number in range(1, counts[0] + 1) if number not in whole]
    if missing:
        more = f" and {len(missing) - _NAMED_AT_MOST} more" if len(missing) > _NAMED_AT_MOST else ""
        named = ", ".join(map(str, missing[:_NAMED_AT_MOST]))
        raise DataError(
            f"Expected {counts[0]} finished shards in {folder}, missing or not finished: {named}{more}; run these "
            "again, they resume where they stopped."
        )
    folders = [found[Shard(number, counts[0])] for number in range(1, counts[0] + 1)]
    _require_alike(folders, job)
    return folders


def join_csv(tables: Sequence[Path], output: Path) -> None:
    """Concatenate tables with the same columns."""
    with output.open("wb") as joined:
        for number, path in enumerate(tables):
            with path.open("rb") as file:
                header = file.readline()
                joined.write(header if not number else b"")
                shutil.copyfileobj(file, joined)


def _require_alike(folders: Sequence[Path], job: Job) -> None:
    first = None
    for path in folders:
        record = read_record(path / SHARD_FILE, ShardRecord, DataError, "a shard", "delete its folder and run it again")
        first = first or record
        if record.job != job:
            raise DataError(f"{path} is a shard of engagement {record.job}, not of engagement {job}.")
        if record.inputs != first.inputs:
            raise DataError(
                f"{path.name} has a different list of inputs from {folders[0].name}: files or labels have changed "
                "between them; run all shards again, into a new folder."
            )
        names = sorted(record.made_with.keys() | first.made_with.keys())
        differs = next((name for name in names if record.made_with.get(name) != first.made_with.get(name)), None)
        if differs:
            raise DataError(
                f"Shards differ in {differs}: {first.made_with.get(differs)} in {folders[0].name}, "
                f"{record.made_with.get(differs)} in {path.name}; run the ones that differ again, into a new folder."
            )
