"""A table that grows with each answer: after an interruption the same command continues it.

CSV and JSON Lines are their own journal: a row that a killed process left half written is cut off when the table is
opened again. Parquet cannot grow; it is made at the end from a journal next to it. Every row contains a short
fingerprint of the model and settings, so that no table mixes two.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from ..data.growing_file import GrowingFile
from ..data.required_packages import require_packages
from ..processor.input_errors import DataError, in_one_line, printable
from .answer_rows import MADE_WITH, NOTES, columns_of, csv_line, csv_lines, write_parquet
from .predictions import AboutModel, Prediction, Refusal, to_json, to_json_line
from .predictor import Predictor

_FORMATS = (".csv", ".jsonl", ".parquet")


class _Done(TypedDict):
    """What a complete line of a table says about its file."""

    source: str
    made_with: str
    is_refused: bool
    num_lines: int  # of this file in the table


def fingerprint(predictor: Predictor, timeline_step_sec: float | None, video_track: int | None = None) -> str:
    """12 hexadecimal digits that change with weights, answer rule, preprocessing and options; not with the device, nor
    with a half precision chosen by `auto`, whose scores agree."""
    digest = hashlib.sha256()
    for piece in predictor.engine.weights():
        digest.update(piece)
    preprocessing = predictor.processor.to_dict()  # type: ignore[union-attr]  # exports and transformers both have it
    # So that tables begun by earlier versions can be continued.
    if not preprocessing.get("as_played"):
        preprocessing.pop("as_played", None)
    settings = [asdict(predictor.rule), preprocessing, predictor.faces_given, timeline_step_sec]
    settings += [] if video_track is None else [video_track]
    settings += [] if predictor.placement.dtype in ("auto", "float32") else [predictor.placement.dtype]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


class AnswerTable:
    """Rows of answers in a file; use in a `with`.

    Args:
        path: .csv, .jsonl or .parquet.
        made_with: the `fingerprint` of model and settings.

    Raises:
        DataError: a different suffix, a file with other content or from other settings, or the file cannot be written.
    """

    def __init__(self, path: Path, label_names: Sequence[str], about: AboutModel, made_with: str) -> None:
        if path.suffix.lower() not in _FORMATS:
            raise DataError(f"{path} must end in {', '.join(_FORMATS)} to be a table of answers; rename it.")
        self.path, self._about, self._made_with = path, about, made_with
        self._columns = columns_of(label_names)
        self._is_parquet = path.suffix.lower() == ".parquet"
        if self._is_parquet:
            require_packages(("pyarrow",))
        self.journal = path.with_name(f"{path.name}.jsonl") if self._is_parquet else path
        self._is_csv = self.journal.suffix.lower() == ".csv"
        self._header = csv_line(self._columns) if self._is_csv else ""
        self.done: set[str] = set()
        self.num_refused = 0
        self._file = GrowingFile(self.journal, self._read_journal())

    def _read_journal(self) -> int:
        """Record the finished files; returns where the lines of the last complete file end, in bytes."""
        if not self.journal.exists():
            if self.path.exists():
                raise DataError(f"{self.path} exists without its journal {self.journal.name} and cannot be continued; "
                                "name another table.")  # fmt: skip
            return 0
        try:
            content = self.journal.read_bytes()
        except OSError as error:
            raise DataError(
                f"The table of answers {self.journal} cannot be read ({error.strerror}); name another."
            ) from error
        earlier = [name for name in self._columns if name != NOTES]
        if self._is_csv and content.startswith(csv_line(earlier).encode()):  # begun before there were notes
            self._columns, self._header = earlier, csv_line(earlier)
        at = end = len(self._header.encode())
        if content[:at] != self._header.encode():
            if b"\n" in content or not self._header.encode().startswith(content):
                raise self._other("has other columns")
            return 0  # killed while the header was written
        lines: dict[str, int] = {}
        for line in content[at:].splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            at += len(line)
            done = self._parse(line)
            if done["made_with"] != self._made_with:
                raise self._other("contains answers of another model or with other settings")
            lines[done["source"]] = lines.get(done["source"], 0) + 1
            if lines[done["source"]] == done["num_lines"]:
                end = at
                self.done.add(done["source"])
                self.num_refused += done["is_refused"]
        return end

    def _parse(self, line: bytes) -> _Done:
        try:
            text = line.decode()
            if self._is_csv:
                row = dict(zip(self._columns, next(csv.reader([text])), strict=True))
                num_lines = int(row["num_people"]) if row["face"] else 1
                return _Done(
                    source=row["source"], made_with=row[MADE_WITH], is_refused=bool(row["error"]), num_lines=num_lines
                )
            answer = json.loads(text)
            return _Done(
                source=answer["source"], made_with=answer[MADE_WITH], is_refused="error" in answer, num_lines=1
            )
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise self._other("contains something other than answers") from error

    def _other(self, found: str) -> DataError:
        return DataError(
            f"{self.journal} {found}; only answers of the same model and settings can be continued, so name another "
            "file."
        )

    def __enter__(self) -> "AnswerTable":
        self._file.__enter__()
        if not self._file.end and self._header:
            self._append(self._header)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    def write(self, result: Prediction) -> None:
        """Write a file's answer or refusal, completely or not at all.

        Raises:
            DataError: the disk is full; earlier answers remain.
        """
        answer = to_json_line({**to_json(result, self._about), MADE_WITH: self._made_with})
        self._append(csv_lines(answer, self._columns) if self._is_csv else f"{answer}\n")
        self.done.add(self.name_of(result.source))
        self.num_refused += isinstance(result, Refusal)

    def name_of(self, source: str) -> str:
        """A file's name in `done`: in CSV escaped, if it contains line breaks or is not text."""
        return printable(source) if self._is_csv else source

    def _append(self, text: str) -> None:
        try:
            self._file.append(text)
        except OSError as error:
            raise DataError(
                f"No room for more answers in {self.journal} ({in_one_line(error)}); those of {len(self.done)} files "
                "are saved in it: make room and type the same command again."
            ) from error

    def finish(self) -> None:
        """After the last answer, make a Parquet table from its journal."""
        if not self._is_parquet:
            return
        with self.journal.open("rb") as journal:
            write_parquet(journal, self._columns, self.path)
