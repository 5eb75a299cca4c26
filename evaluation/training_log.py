"""The log of an external training, as rows of numbers."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from ..processor.input_errors import DataError

TRAINING_LOG_COLUMNS = ("epoch", "train_loss", "val_loss", "val_macro_f1")


def read_training_log(path: Path) -> list[dict[str, float]]:
    """The study's CSV log of one training → one row per epoch, by `TRAINING_LOG_COLUMNS`.

    Raises:
        DataError: not a CSV file with exactly these columns, a value out of range, or epochs that do not increase.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns, lines = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} could not be read as a CSV log of a training ({error}).") from error
    if columns != TRAINING_LOG_COLUMNS:
        expected = _name_first(TRAINING_LOG_COLUMNS)
        raise DataError(f"Expected the columns {expected} in {path}, got {_name_first(columns)}.")
    rows = [_parse_log_line(line, f"row {number} of {path}") for number, line in enumerate(lines, start=1)]
    epochs = [int(row["epoch"]) for row in rows]
    if not rows or epochs != sorted(set(epochs)):
        raise DataError(f"Expected the increasing epochs of one run in {path}, got {_name_first(epochs)}.")
    return rows


def _parse_log_line(line: dict[str | None, str | None], place: str) -> dict[str, float]:
    try:
        row = {name: float(line[name] or "") for name in TRAINING_LOG_COLUMNS}
        in_range = all(0 <= value < math.inf for value in row.values()) and row["val_macro_f1"] <= 1  # NaN is not
        if not in_range or not row["epoch"].is_integer() or None in line:  # None: values beyond the columns
            raise ValueError
    except ValueError as error:
        got = _name_first(line.values())
        raise DataError(f"Expected a whole epoch, finite losses and F1 from 0 to 1 in {place}, got {got}.") from error
    return row


def _name_first(names: Iterable[object]) -> str:
    shown = [str(name)[:80] for name in names]
    return ", ".join(shown[:4] + ["..."] * (len(shown) > 4)) or "none"
