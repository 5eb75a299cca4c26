"""The files of a search: `search.json`, from which it resumes, and `trials.csv`, the same as a table."""

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
    """values of the searched options"""
    score: float | None
    """score of the kept epoch on validation; null: it failed"""
    noise: float | None = None
    """standard error of the score; null: unknown"""
    seconds: NotNegative
    """duration since it was last resumed"""
    failure: str | None = None
    """why there is no score"""


class Search(Record):
    """`search.json`."""

    recipe: str
    """name of the recipe's file"""
    training: TrainingRecipe
    """the unchanged recipe's training, and its data"""
    expression: dict[str, OptionValue] | None
    """options of stage one, which was trained once before; null: there was none"""
    space: dict[str, Range | list[OptionValue]]
    """ranges and choices"""
    score: str
    """score that compares epochs and trials"""
    greater_is_better: bool
    """whether a higher score is better"""
    begun: Count = 0
    """how often the next trial was started and not finished"""
    trials: list[Trial] = []
    """finished trials in order; the first has the recipe's own values"""

    def best(self) -> int | None:
        """The number, from 1, of the first of the best trials; None: none has a score."""
        sign, numbered = 1 if self.greater_is_better else -1, enumerate(self.trials, start=1)
        scored = [(sign * trial.score, -number) for number, trial in numbered if trial.score is not None]
        return -max(scored)[1] if scored else None


def read_search(output: Path) -> Search | None:
    """The search in a folder; None if there is none.

    Raises:
        RecipeError: it is damaged.
    """
    path = output / RECORD_FILE
    if not path.exists():
        return None
    return read_record(path, Search, RecipeError, "a search to resume", "choose a different --output, or restore it")


def require_same(output: Path, kept: Search, now: Search) -> None:
    """Raises RecipeError, with the differences, if the search in a folder was started with other settings."""
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
            f"To resume the search in {output}, expected {'; '.join(differing)}. Use the same settings, or choose a "
            "different --output."
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
