"""CSV tables as found in practice: UTF-8 or UTF-16, padded headers in any case, CRLF, semicolons or tabs, a first
line `sep=;`, additional columns, and the datasets library's column names.

A file that is not such a table is refused as a whole; an invalid row is returned with its problem, for its reader to
reject. Rows are read one by one, since FER2013's table is 290 MB.
"""

import csv
import io
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ...processor.input_errors import DataError
from ..schema import AFFECTS, Reject
from .split_names import split_named
from .table_text import open_text

# Other names for our columns: in the Hub's metadata.csv, and in common use.
_ALIASES = {"file_name": "path", "filename": "path", "file_path": "path", "filepath": "path",
            "subject": "subject_id", "participant_id": "subject_id", "person_id": "subject_id"}  # fmt: skip
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?\s*", re.IGNORECASE)  # Excel writes it above the header


@dataclass(frozen=True)
class Row:
    """One row below the header; cells by column name in lower case, stripped."""

    table: str
    line: int  # of the file, from 1; the last one if a quoted cell spans several
    cells: dict[str, str]
    problem: str | None  # too few or too many cells
    counted_in: str = "line"  # or "row", from 0, for a table that is not text

    def text(self, column: str) -> str:
        """A cell that must not be empty.

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

    def split(self) -> str:
        """The split in the column `split`.

        Raises:
            DataError: it is none, or missing.
        """
        text = self.cells.get("split", "")
        if (split := split_named(text)) is None:
            raise DataError(f"Expected split as train, validation or test in every row or in none, got {text!r}")
        return split

    def check_width(self) -> None:
        """Raises DataError if the row has more or fewer cells than the header."""
        if self.problem:
            raise DataError(self.problem)

    def reject(self, stage: str, clip_id: str, reason: object) -> Reject:
        """Reject for this row; file and line are added to the reason."""
        return Reject(self.table, clip_id, stage, f"{reason} in {self.counted_in} {self.line} of {self.table}.")


@dataclass(frozen=True)
class Table:
    """A table's known columns, the names of the others, and its rows, to be read once while the file is open."""

    columns: list[str]
    extra_columns: list[str]
    rows: Iterator[Row]


def read_table(file: BinaryIO, name: str, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Open a table by its header; column names are compared in lower case, with spaces as underscores, and `file_name`
    is read as `path`.

    Cells are separated by commas, by semicolons or tabs if the header then has every required column, or by the
    character in a first line such as `sep=;`.

    Raises:
        DataError: the file is empty, not UTF-8 or UTF-16 text, or lacks a column; while rows are read: there are none,
            or a quote is not closed.
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
        raise DataError(f"{name} is empty; it needs a header and rows.")
    delimiter = next((sign for sign in signs if set(required) <= set(_header(first, sign, known))), signs[0])
    header = _header(first, delimiter, known)
    missing = [column for column in required if column not in header]
    if missing:
        raise DataError(
            f"{name} needs the columns {', '.join(required)}, missing: {', '.join(missing)}; "
            f"its first line reads {first.strip()[:80]!r}."
        )
    found = [column for column in header if column in known]
    twice = {column for column in found if found.count(column) > 1}
    if twice:
        raise DataError(f"{name} has the column {', '.join(sorted(twice))} twice; rename one.")
    rows = _read_rows(lines, delimiter, name, header, first_line)
    return Table(found, [column for column in header if column and column not in known], rows)


def read_words(file: BinaryIO, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """The lines of a list without a header, with words separated by spaces; empty lines are skipped.

    Raises:
        DataError: the list is empty, or not UTF-8 or UTF-16 text.
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
        raise DataError(f"{name} has no lines.")


def require_subjects(columns: Sequence[str], name: str) -> None:
    """Raises DataError for a table without a column of people; not called if they are declared unknown."""
    if "subject_id" not in columns:
        raise DataError(
            f"{name} lacks the column subject_id, it has {', '.join(columns)}; add it, since only a split by person "
            "shows how a model performs on new people, or pass --no-subjects to `engagement prepare` (no_subjects: "
            "true in a recipe), which the results will record."
        )


def is_blank(cell: str) -> bool:
    """Whether a cell is empty, or has what spreadsheets and pandas write for empty cells."""
    return cell.lower() in ("", "nan")


def find_repeats(entries: Sequence[tuple[Hashable, object]]) -> dict[int, str]:
    """Which (key, value) pairs to reject, by position: repeats of equal pairs, and all pairs of a key with different
    values."""
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
    """Column names in lower case, with other names and spellings of known columns replaced by ours.

    If a table has both our name and another name for a column, ours is used.
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
    except csv.Error:  # for instance one extremely long cell: it contains none of our columns
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
            f"{name} is not valid CSV: unbalanced quotes at line {line} ({error}); save it again."
        ) from error
    if is_empty:
        raise DataError(f"{name} has no rows below its header.")


def _not_utf8(name: str, error: UnicodeError) -> DataError:
    reason = error.reason if isinstance(error, UnicodeDecodeError) else error
    return DataError(f"{name} is not UTF-8 text ({reason}); save it as CSV UTF-8.")
