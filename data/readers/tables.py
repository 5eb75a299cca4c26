"""CSV tables as people really have them: UTF-8 or UTF-16, padded headers in any case, CRLF, semicolons or tabs, a first
line `sep=;`, more columns, and columns under the names that the datasets library gives them.

A file that is not such a table at all is refused as a whole; a row that does not fit comes out with its problem, for
its reader to reject. Rows are read one by one, since FER2013's table is 290 MB.
"""

import csv
import io
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ...processor.input_errors import DataError
from ..schema import AFFECTS, Reject
from .table_text import open_text

# Of columns, in place of our names: of a Hub's metadata.csv, and as people call them.
_ALIASES = {"file_name": "path", "filename": "path", "file_path": "path", "filepath": "path",
            "subject": "subject_id", "participant_id": "subject_id", "person_id": "subject_id"}  # fmt: skip
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?\s*", re.IGNORECASE)  # Excel's own, above the header


@dataclass(frozen=True)
class Row:
    """One row below the header; cells by column name in lower case, without padding."""

    table: str
    line: int  # of the file, from 1; the last one where a quoted cell spans several
    cells: dict[str, str]
    problem: str | None  # too few or too many cells
    counted_in: str = "line"  # or "row", from 0, of a table that is no text

    def text(self, column: str) -> str:
        """A cell that must hold something.

        Raises:
            DataError: it is empty or NaN.
        """
        if is_blank(self.cells[column]):
            raise DataError(f"Expected a value for {column}, got {self.cells[column]!r}")
        return self.cells[column]

    def affects(self) -> dict[str, int]:
        """The four affects by name.

        Raises:
            DataError: one of them is not a level.
        """
        for name in AFFECTS:
            if self.cells[name] not in ("0", "1", "2", "3"):
                raise DataError(f"Expected {name} as 0, 1, 2 or 3, got {self.cells[name]!r}")
        return {name: int(self.cells[name]) for name in AFFECTS}

    def check_width(self) -> None:
        """Raises DataError for a row with more or fewer cells than the header."""
        if self.problem:
            raise DataError(self.problem)

    def reject(self, stage: str, clip_id: str, reason: object) -> Reject:
        """This row as an input that did not come out; file and line are added to the reason."""
        return Reject(self.table, clip_id, stage, f"{reason} in {self.counted_in} {self.line} of {self.table}.")


@dataclass(frozen=True)
class Table:
    """A table's known columns, the names of its others, and its rows, to be read once and while the file is open."""

    columns: list[str]
    extra_columns: list[str]
    rows: Iterator[Row]


def read_table(file: BinaryIO, name: str, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Open a table by its header; column names are compared in lower case, with blanks as underscores, and `file_name`
    is read as `path`.

    Commas separate the cells; semicolons or tabs do if the header then has every required column, and whatever a first
    line `sep=;` says.

    Raises:
        DataError: the file is empty, no UTF-8 or UTF-16 text, or lacks a column; while rows are read: there is none, or
            a quote is not closed.
    """
    lines = open_text(file, name)
    known = (*required, *optional)
    first, first_line, signs = "", 0, ",;\t"
    try:
        while not first.strip() and (first := lines.readline()):
            first_line += 1
            if told := _SEPARATOR_LINE.fullmatch(first):
                first, signs = "", told[1]
    except UnicodeError as error:
        raise _not_utf8(name, error) from error
    if not first.strip():
        raise DataError(f"Expected a header and rows in {name}, got an empty file.")
    delimiter = next((sign for sign in signs if set(required) <= set(_header(first, sign, known))), signs[0])
    header = _header(first, delimiter, known)
    missing = [column for column in required if column not in header]
    if missing:
        raise DataError(
            f"Expected the columns {', '.join(required)} in {name}, missing: {', '.join(missing)}; "
            f"its first line reads {first.strip()[:80]!r}."
        )
    found = [column for column in header if column in known]
    twice = {column for column in found if found.count(column) > 1}
    if twice:
        raise DataError(f"Expected each column once in {name}, got {', '.join(sorted(twice))} twice; rename one.")
    rows = _read_rows(lines, delimiter, name, header, first_line)
    return Table(found, [column for column in header if column and column not in known], rows)


def read_words(file: BinaryIO, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """The lines of a list without a header, whose words stand apart by blanks; empty ones are left out.

    Raises:
        DataError: it is empty, or no UTF-8 or UTF-16 text.
    """
    is_empty = True
    try:
        for number, line in enumerate(open_text(file, name), start=1):
            words = line.split()
            if not words:
                continue
            is_empty = False
            problem = None if len(words) == len(columns) else f"Expected {len(columns)} words, got {len(words)}"
            padded = words + [""] * (len(columns) - len(words))
            yield Row(name, number, dict(zip(columns, padded, strict=False)), problem)
    except UnicodeError as error:
        raise _not_utf8(name, error) from error
    if is_empty:
        raise DataError(f"Expected lines in {name}, got none.")


def require_subjects(columns: Sequence[str], name: str) -> None:
    """Raises DataError for a table that does not say who is in its pictures, while nobody said that none knows."""
    if "subject_id" not in columns:
        raise DataError(
            f"Expected the column subject_id in {name}, got {', '.join(columns)}; add it, since only a split by person "
            "tells how a model does on new people, or pass --no-subjects to `engagement prepare` (no_subjects: true in "
            "a recipe), which the results will say."
        )


def is_blank(cell: str) -> bool:
    """Nothing there, or what spreadsheets and pandas write for nothing."""
    return cell.lower() in ("", "nan")


def find_repeats(entries: Sequence[tuple[Hashable, object]]) -> dict[int, str]:
    """Which of (key, value) must go, by position: the later of equal ones, and all of a key with different values."""
    first: dict[Hashable, object] = {}
    conflicting = {key for key, value in entries if first.setdefault(key, value) != value}
    repeats, seen = {}, set()
    for position, (key, _) in enumerate(entries):
        if key in conflicting:
            repeats[position] = "got it again with other values"
        elif key in seen:
            repeats[position] = "got it a second time"
        seen.add(key)
    return repeats


def our_names(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Columns as people write them, in lower case; those that are known, by another name or spelling, as we name them.

    A name of our own comes before another that stands for the same.
    """
    plain = [column.strip().lower() for column in columns]
    spelt = [re.sub(r"[\s_-]+", "_", column) for column in plain]
    taken = {column for column in spelt if column in known}
    named = []
    for as_is, column in zip(plain, spelt, strict=True):
        ours = column if column in known else _ALIASES.get(column, "")
        is_free = column in known or (ours in known and ours not in taken)
        named.append(ours if is_free else as_is)
        taken.add(named[-1])
    return named


def _header(line: str, delimiter: str, known: Sequence[str]) -> list[str]:
    try:
        return our_names(next(csv.reader([line], delimiter=delimiter)), known)
    except csv.Error:  # one endless cell, for instance: none of our columns is in it
        return []


def _read_rows(
    lines: io.TextIOWrapper, delimiter: str, name: str, header: Sequence[str], first_line: int
) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    is_empty = True
    try:
        for cells in reader:
            if not cells:
                continue  # an empty line
            is_empty = False
            problem = None if len(cells) == len(header) else f"Expected {len(header)} cells, got {len(cells)}"
            padded = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
            yield Row(name, first_line + reader.line_num, dict(zip(header, padded, strict=False)), problem)
    except UnicodeError as error:
        raise _not_utf8(name, error) from error
    except csv.Error as error:
        line = first_line + reader.line_num
        raise DataError(
            f"Expected CSV with balanced quotes in {name}, stopped at line {line} ({error}); save it anew."
        ) from error
    if is_empty:
        raise DataError(f"Expected rows below the header in {name}, got none.")


def _not_utf8(name: str, error: UnicodeError) -> DataError:
    reason = error.reason if isinstance(error, UnicodeDecodeError) else error
    return DataError(f"Expected UTF-8 text in {name}, got something else ({reason}); save it as CSV UTF-8.")
