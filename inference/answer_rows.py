"""Answers as rows of a table: one per file, or per face of a photo; as CSV or Parquet, also from a large job's shards.

Answers are read as lines of JSON, one at a time: all of them together may not fit in memory.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..data.atomic_files import whole_file, writing
from ..data.json_records import read_record
from ..data.shards import SHARD_FILE, ShardRecord, read_shards
from ..processor.input_errors import DataError, printable

ANSWERS_FILE = "answers.jsonl"  # in a shard
LABELS = "label names"  # in a shard's record
MADE_WITH, NOTES = "made_with", "notes"
_BOX = ("left_px", "top_px", "right_px", "bottom_px")
_TEXTS = ("source", "label", "reason", "trained_on", NOTES, "error", MADE_WITH)
_COUNTS = ("num_repeated_frames", "num_people", "num_windows", "num_unreadable_windows", "face")
_ROWS_AT_ONCE = 10_000
Cell = str | float | int | bool | None


def columns_of(label_names: Sequence[str]) -> list[str]:
    """A table's columns; a photo has one row per face, a video one row."""
    scores, spread = [f"score/{name}" for name in label_names], [f"spread/{name}" for name in label_names]
    video = ["face_coverage", "num_repeated_frames", "num_people", "num_windows", "num_unreadable_windows", *spread]
    face = ["face", *_BOX, "face_probability"]
    about = ["trained_on", "calibrated", NOTES, "error", MADE_WITH]
    return ["source", "label", "reason", "certainty", *scores, *video, *face, *about]


def _rows_of(answer: dict[str, Any]) -> list[dict[str, Cell]]:  # as JSON has it
    """One JSON answer → one row, or for a photo one row per face."""
    shared: dict[str, Cell] = {name: answer.get(name) for name in ("error", MADE_WITH)}
    shared["source"] = printable(answer["source"])  # neither CSV nor Parquet can store every file name
    shared |= {name: answer["model"][name] for name in ("trained_on", "calibrated") if "model" in answer}
    shared[NOTES] = "; ".join(answer.get(NOTES) or ()) or None
    if "faces" not in answer:
        return [shared | _flat(answer)]
    rows = []
    for number, face in enumerate(answer["faces"], start=1):
        box = dict(zip(_BOX, face["box_xyxy_px"], strict=True))
        rows.append(shared | _flat(face) | box | {"face": number, "num_people": len(answer["faces"])})
    return rows


def _flat(answer: dict[str, Any]) -> dict[str, Cell]:  # as JSON has it
    """Single values, and scores and spread by label."""
    flat = {name: value for name, value in answer.items() if isinstance(value, Cell)}
    scores = {f"score/{name}": score for name, score in (answer.get("scores") or {}).items()}
    return flat | scores | {f"spread/{name}": value for name, value in (answer.get("spread") or {}).items()}


def csv_line(cells: Sequence[Cell]) -> str:
    """One line of a CSV table, with the line break."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def csv_lines(answer: str | bytes, columns: Sequence[str]) -> str:
    """One JSON answer → its lines in a CSV table."""
    return "".join(csv_line([row.get(name) for name in columns]) for row in _rows_of(json.loads(answer)))


def write_parquet(answers: Iterable[bytes], columns: Sequence[str], path: Path) -> None:
    """Lines of JSON → a Parquet table, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    import pyarrow  # takes a fifth of a second, needed for Parquet only
    import pyarrow.parquet

    kinds = {**dict.fromkeys(_TEXTS, pyarrow.string()), **dict.fromkeys(_COUNTS, pyarrow.int64())}
    kinds["calibrated"] = pyarrow.bool_()
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in columns])
    with (
        whole_file(path) as partial,
        writing(path),
        pyarrow.parquet.ParquetWriter(partial, schema) as writer,
    ):
        lines = iter(answers)
        while batch := list(islice(lines, _ROWS_AT_ONCE)):
            rows = [row for line in batch for row in _rows_of(json.loads(line))]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def join_answers(folder: Path, output: Path) -> tuple[int, int]:
    """Join a folder's shards into the table that one run would have made; returns the numbers of files and refusals.

    Args:
        output: a new table, .csv, .jsonl or .parquet.

    Raises:
        DataError: a shard is missing, unfinished or made with other settings, or the table exists or cannot be written.
    """
    if output.exists():
        raise DataError(f"{output} exists already; name a new table.")
    shards = read_shards(folder, "predict")
    record = read_record(shards[0] / SHARD_FILE, ShardRecord, DataError, "a shard", "run it again")
    columns, counted = columns_of(json.loads(record.made_with[LABELS] or "[]")), CountedAnswers()
    lines = counted.counting(line for shard in shards for line in _lines_of(shard))
    if output.suffix.lower() == ".parquet":
        write_parquet(lines, columns, output)
        return counted.num_files, counted.num_refused
    with whole_file(output) as partial, writing(output), partial.open("wb") as table:
        if is_csv := output.suffix.lower() == ".csv":
            table.write(csv_line(columns).encode())
        for line in lines:
            table.write(csv_lines(line, columns).encode() if is_csv else line)
    return counted.num_files, counted.num_refused


def _lines_of(shard: Path) -> Iterator[bytes]:
    with (shard / ANSWERS_FILE).open("rb") as answers:
        yield from answers


class CountedAnswers:
    """Counts answers, as lines of JSON, while they pass."""

    num_files, num_refused = 0, 0

    def counting(self, answers: Iterable[bytes]) -> Iterator[bytes]:
        """The same answers."""
        for line in answers:
            self.num_files += 1
            self.num_refused += "error" in json.loads(line)
            yield line
