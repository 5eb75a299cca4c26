"""What a search keeps in its folder: `search.json`, from which it goes on, and `trials.csv`, the same as a table."""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from ..data.atomic_files import write_whole
from ..data.json_records import Count, NotNegative, Record, read_record, write_record
from ..processor.input_errors import RecipeError
from ..training.run_record import OptionValue, TrainingRecipe, inputs_that_differ, options_that_differ
from .tune_space import Range

RECORD_FILE = "search.json"


class Trial(Record):
    """One training of the search, finished."""

    values: dict[str, OptionValue]
    """of the options that are searched"""
    score: float | None
    """on validation, of the epoch that was kept; null: it failed"""
    noise: float | None = None
    """standard error of the score; null: not known"""
    seconds: NotNegative
    """how long it took, in its last sitting"""
    failure: str | None = None
    """why there is no score"""


class Search(Record):
    """`search.json`."""

    recipe: str
    """name of the recipe's file"""
    training: TrainingRecipe
    """what the recipe itself trains, on which data"""
    expression: dict[str, OptionValue] | None
    """options of stage one, which was trained once before; null: none was"""
    space: dict[str, Range | list[OptionValue]]
    """what was tried"""
    score: str
    """by which epochs and trials are compared"""
    greater_is_better: bool
    """whether a higher score is better"""
    begun: Count = 0
    """how often the trial after these was begun and not finished"""
    trials: list[Trial] = []
    """as they were finished; the first has the recipe's own values"""

    def best(self) -> int | None:
        """The number, from 1, of the first trial that none surpasses; None: none has a score."""
        sign, numbered = 1 if self.greater_is_better else -1, enumerate(self.trials, start=1)
        scored = [(sign * trial.score, -number) for number, trial in numbered if trial.score is not None]
        return -max(scored)[1] if scored else None


def read_search(output: Path) -> Search | None:
    """None where none was begun.

    Raises:
        RecipeError: it is damaged.
    """
    path = output / RECORD_FILE
    if not path.exists():
        return None
    return read_record(path, Search, RecipeError, "a search to go on with", "choose another --output, or restore it")


def require_same(output: Path, kept: Search, now: Search) -> None:
    """Raises RecipeError where the search in a folder began otherwise than this one would; it says in what."""
    differing = [] if kept.training.stage == now.training.stage else [f"stage {kept.training.stage}"]
    differing += options_that_differ(kept.training, now.training.options)
    differing += inputs_that_differ(kept.training, now.training)
    pairs: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = [
        ("", kept.training.versions, now.training.versions),
        ("expression_", kept.expression or {}, now.expression or {}),
        ("in its space ", kept.space, now.space),
    ]
    for what, before, after in pairs:
        names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
        differing += [f"{what}{name} {_shown(before.get(name))}, got {_shown(after.get(name))}" for name in names]
    if differing:
        raise RecipeError(
            f"Expected, to go on with the search in {output}, {'; '.join(differing)}. Go on with what it began with, "
            "or choose another --output."
        )


def _shown(entry: object) -> str:
    return str(entry.model_dump(exclude_defaults=True) if isinstance(entry, Range) else entry)


def write_search(output: Path, search: Search) -> None:
    """The record and its table; raises DataError where they cannot be written."""
    table = StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["trial", search.score, "standard_error", "seconds", *search.space, "failure"])
    for number, trial in enumerate(search.trials, start=1):
        values = [trial.values.get(name) for name in search.space]
        rows.writerow([number, trial.score, trial.noise, round(trial.seconds, 1), *values, trial.failure])
    write_record(output / RECORD_FILE, search)
    write_whole(output / "trials.csv", table.getvalue())
