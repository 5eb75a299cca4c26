"""The runs of a study → `study.json`: each row's scores over seeds, and the contrasts over the seeds that rows share.

The standard deviation over seeds shows the variation between trainings; 95 % intervals of the means are over people and
show the variation between samples of people. A contrast compares the same people and the same seeds, in pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import ParamSpec, TypeVar

from ..evaluation.comparison import Comparison, MeanIntervals, compare_pairs, mean_intervals
from ..evaluation.results_file import RESULTS_FILE
from ..evaluation.score_records import Intervals
from ..processor.input_errors import EngagementInputError, in_one_line
from .study_records import (
    Contrast,
    FinishedRun,
    MeasuredContrast,
    MeasuredDifference,
    MeasuredRow,
    NotComparable,
    RowRuns,
    RunDifference,
    Spread,
    StudyHead,
    StudyRecord,
)

FITTED = "_fitted"  # suffix of a score with the decision fitted on validation
FITTED_SCORES = ("macro_f1", "balanced_accuracy", "accuracy", "weighted_f1")
_Folders = tuple[tuple[Path, int], ...]  # each with the modification time of its results
_Given = ParamSpec("_Given")
_Outcome = TypeVar("_Outcome")


def summarise_study(
    output: Path, head: StudyHead, rows: Sequence[RowRuns], contrasts: Sequence[Contrast]
) -> StudyRecord:
    """
    Args:
        output: the study's folder.
        rows: in order.
        contrasts: only those whose rows exist are included.
    """
    by_name = {row.name: row for row in rows}
    asked = [contrast for contrast in contrasts if set(contrast.rows) <= by_name.keys()]
    return StudyRecord(
        **dict(head),
        rows=[_summarise(row, output, head.split) for row in rows],
        contrasts=[_contrast(contrast, by_name, output, head.split) for contrast in asked],
    )


def one_line(error: Exception, output: Path) -> str:
    """An error's message, with paths relative to the study's folder."""
    return in_one_line(error, max_chars=500).replace(f"{output}/", "")


def _summarise(row: RowRuns, output: Path, split: str) -> MeasuredRow:
    distinct = list({run.folder: run for run in row.finished}.values())  # a mean of seeds is counted once
    windows = [run.scores_by_window for run in distinct if run.scores_by_window]
    return MeasuredRow(
        **dict(row),
        measured=_spread([run.scores for run in distinct]),
        measured_by_window=_spread(windows),
        intervals=_intervals(distinct, output, split) if distinct else None,
    )


def _spread(scores: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    return {name: _mean_and_sd([of_seed[name] for of_seed in scores]) for name in (scores[0] if scores else ())}


def _mean_and_sd(values: Sequence[float | None]) -> Spread:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values) or not values:
        return Spread(mean=None, sd=None)
    return Spread(mean=fmean(defined), sd=stdev(defined) if len(defined) > 1 else None)


def _intervals(runs: Sequence[FinishedRun], output: Path, split: str) -> Intervals | NotComparable:
    found = _or_refused(_intervals_of_mean, output, _stamped(runs, output), split)
    if isinstance(found, NotComparable):
        return found
    fitted = found.fitted.intervals if found.fitted else {}
    decided = {name + FITTED: fitted[name] for name in FITTED_SCORES if name in fitted}
    return found.at_argmax.model_copy(update={"intervals": found.at_argmax.intervals | decided})


def _contrast(asked: Contrast, rows: Mapping[str, RowRuns], output: Path, split: str) -> MeasuredContrast:
    pair = [rows[name] for name in asked.rows]
    scores = [_difference(pair, score, output, split) for score in dict.fromkeys((asked.score, *asked.also))]
    return MeasuredContrast(name=asked.name, rows=asked.rows, scores=scores, caveat=asked.caveat)


def _difference(rows: Sequence[RowRuns], score: str, output: Path, split: str) -> MeasuredDifference:
    """Second row minus first, over the seeds that both finished."""
    first, second = ({run.seed: run for run in row.finished if run.scores.get(score) is not None} for row in rows)
    shared = [seed for seed in first if seed in second]
    differences = [(second[seed].scores[score] or 0) - (first[seed].scores[score] or 0) for seed in shared]
    published = [row.published[score] for row in rows if score in row.published]
    return MeasuredDifference(
        score=score,
        published=published[1] - published[0] if len(published) == 2 else None,
        seeds=shared,
        differences=differences,
        **dict(_mean_and_sd(differences)),
        paired=_compare(shared, first, second, score, output, split) if shared else None,
    )


def _compare(
    seeds: Sequence[int],
    first: Mapping[int, FinishedRun],
    second: Mapping[int, FinishedRun],
    score: str,
    output: Path,
    split: str,
) -> RunDifference | NotComparable:
    """The difference over resampled people, or why it cannot be computed."""
    pair = [_stamped([of_row[seed] for seed in seeds], output) for of_row in (first, second)]
    compared = _or_refused(_compare_pairs, output, pair[0], pair[1], split)
    if isinstance(compared, NotComparable):
        return compared
    differences = compared.differences
    if score.endswith(FITTED):
        if compared.fitted is None:
            return NotComparable(refused=str(compared.not_fitted).replace(f"{output}/", ""))
        differences = compared.fitted.differences
    name = score.removesuffix(FITTED)
    if name not in differences:
        return NotComparable(refused=f"{name} cannot be computed by resampling people")
    return RunDifference(**dict(differences[name]), resampled=compared.resampled)


def _or_refused(
    measure: Callable[_Given, _Outcome], output: Path, *given: _Given.args, **named: _Given.kwargs
) -> _Outcome | NotComparable:
    try:
        return measure(*given, **named)
    except EngagementInputError as error:
        return NotComparable(refused=one_line(error, output))


def _stamped(runs: Sequence[FinishedRun], output: Path) -> _Folders:
    folders = [output / run.folder for run in runs]
    return tuple((folder, (folder / RESULTS_FILE).stat().st_mtime_ns) for folder in folders)


# The files are rewritten after every run, while most runs do not change: their resampling is cached.
@cache
def _intervals_of_mean(runs: _Folders, split: str) -> MeanIntervals:
    return mean_intervals([folder for folder, _ in runs], split)


@cache
def _compare_pairs(first: _Folders, second: _Folders, split: str) -> Comparison:
    return compare_pairs([folder for folder, _ in first], [folder for folder, _ in second], split)
