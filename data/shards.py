"""One job in shards, on as many machines as there are: each does its share of the inputs and knows of no other.

A shard lies in a folder of its own, which holds `shard.json` once the shard is whole. Joining them gives what one run
would have given, after a check that all are there and were made alike.
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
_NAMED_AT_MOST = 8  # of the shards that are missing
_Input = TypeVar("_Input")


@dataclass(frozen=True)
class Shard:
    """Which share of a job's inputs: the `number`th, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `3/500`; raises RecipeError for anything else, and for a number out of range."""
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise RecipeError(f"Expected --shard NUMBER/COUNT, from 1/500 to 500/500 for instance, got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def share(self, inputs: Sequence[_Input]) -> Sequence[_Input]:
        """Inputs that follow each other; all shares together are all inputs, in their order. Empty where there are
        fewer inputs than shards."""
        start, end = (len(inputs) * number // self.count for number in (self.number - 1, self.number))
        return inputs[start:end]

    def folder(self, output: Path) -> Path:
        """Where the shard lies within a folder of shards."""
        return output / f"shard-{self.number:05}-of-{self.count:05}"


class ShardRecord(Record):
    """`shard.json`: which shard of which job."""

    version: Literal[1]
    job: Job
    number: Count
    """from 1"""
    count: Count
    inputs: str
    """SHA-256 of the list of all inputs of the job, not of the shard's alone"""
    made_with: dict[str, str | None]
    """settings and versions, which are the same in all shards that can be joined"""


def digest_of(inputs: Iterable[object]) -> str:
    """SHA-256 of inputs, or settings, that JSON can hold, one after the other."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(json.dumps(item, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def finish_shard(folder: Path, job: Job, shard: Shard, inputs: str, made_with: Mapping[str, str | None]) -> None:
    """Mark the shard as whole.

    Raises:
        DataError: it cannot be written.
    """
    known = {**made_with, DISTRIBUTION: installed_version(DISTRIBUTION)}
    record = ShardRecord(version=1, job=job, number=shard.number, count=shard.count, inputs=inputs, made_with=known)
    write_record(folder / SHARD_FILE, record)


def read_shards(folder: Path, job: Job) -> list[Path]:
    """The folders of all shards, in order.

    Raises:
        DataError: one is missing or not finished, or they are of several divisions, jobs, inputs or settings.
    """
    found = {
        Shard(int(match["number"]), int(match["count"])): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _FOLDER.fullmatch(path.name))
    }
    if not found:
        raise DataError(f"Expected shards in {folder}, found none; engagement {job} --shard makes them.")
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise DataError(
            f"Expected shards of one division in {folder}, got some of {counts[0]} and some of {counts[1]}; move those "
            "of one of them elsewhere."
        )
    missing = [number for number in range(1, counts[0] + 1) if not _is_whole(found, Shard(number, counts[0]))]
    if missing:
        more = f" and {len(missing) - _NAMED_AT_MOST} more" if len(missing) > _NAMED_AT_MOST else ""
        named = ", ".join(map(str, missing[:_NAMED_AT_MOST]))
        raise DataError(
            f"Expected {counts[0]} finished shards in {folder}, missing or not finished: {named}{more}; run these "
            "again, each goes on where it was."
        )
    folders = [found[Shard(number, counts[0])] for number in range(1, counts[0] + 1)]
    _require_alike(folders, job)
    return folders


def join_csv(tables: Sequence[Path], output: Path) -> None:
    """Tables of the same columns below each other, as they are."""
    with output.open("wb") as joined:
        for number, path in enumerate(tables):
            with path.open("rb") as file:
                header = file.readline()
                joined.write(header if not number else b"")
                shutil.copyfileobj(file, joined)


def _is_whole(found: dict[Shard, Path], shard: Shard) -> bool:
    return shard in found and (found[shard] / SHARD_FILE).is_file()


def _require_alike(folders: Sequence[Path], job: Job) -> None:
    first = None
    for path in folders:
        record = read_record(path / SHARD_FILE, ShardRecord, DataError, "a shard", "delete its folder and run it again")
        first = first or record
        if record.job != job:
            raise DataError(f"Expected shards of engagement {job}, got one of engagement {record.job} in {path}.")
        if record.inputs != first.inputs:
            raise DataError(
                f"Expected shards of one list of inputs, got another in {path.name} than in {folders[0].name}: files "
                "or labels have changed between them; run all shards again, into a new folder."
            )
        names = sorted(record.made_with.keys() | first.made_with.keys())
        differs = next((name for name in names if record.made_with.get(name) != first.made_with.get(name)), None)
        if differs:
            raise DataError(
                f"Expected shards made alike, got {differs} {first.made_with.get(differs)} in {folders[0].name} and "
                f"{record.made_with.get(differs)} in {path.name}; run the ones that differ again, into a new folder."
            )
