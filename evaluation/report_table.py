"""Models side by side: one row per measurement on test, one table per data set and labels, and notes on them.

Tables of different data or labels cannot be compared, so a model measured on several has a row in each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.audit.verdicts import FAIL, REPORT
from ..data.described_data import DescribedData
from .focus_records import FaceFocusResults, FocusRegion
from .metrics import absent_in_words
from .results_schema import Measurement, PooledTrainings, Results
from .score_records import Interval, Intervals

COLUMNS = (
    "model",
    "data",
    "test clips",
    "people",
    "macro-F1 (95 % interval over people)",
    "balanced accuracy",
    "accuracy",
    "AUROC",
    "majority macro-F1",
    "stratified-random macro-F1",
)
LIMITS = (
    "Estimates of how annotators rated apparent engagement, for research, benchmarking and teaching: not for grading "
    "or any decision about a person, and not for learners or employees in the EU, where the AI Act, Article 5(1)(f), "
    "has prohibited inferring people's emotions in education and at the workplace since 2 February 2025, save for "
    "medical or safety reasons. Whether engagement is an emotion is disputed; act as if it were."
)
DO_NOT_COMPARE = "The tables have different data or labels: do not compare their numbers with each other."
DRAWN_NOTES = (
    "Drawn people who do not exist: it says nothing about real faces.",
    "Trained on drawn people who do not exist, measured on others.",
)
_NONE = "–"


@dataclass(frozen=True)
class Run:
    """A model's folder: its name in the report, and its results."""

    name: str
    results: Results


@dataclass(frozen=True)
class ResultsTable:
    """Runs whose numbers can be compared."""

    title: str  # data and labels
    rows: list[list[str]] = field(default_factory=list)  # by COLUMNS; the last cell of a short row spans the rest
    notes: list[tuple[str, str]] = field(default_factory=list)  # the run's name, a sentence


def short_names(paths: Sequence[Path], num_parts: int) -> list[str]:
    """The last parts of each path, as many as make them unique; the full path is private."""
    parts = [path.resolve().parts for path in paths]
    while True:
        names = ["/".join(of_path[-num_parts:]) for of_path in parts]
        if len(set(names)) == len(set(parts)):
            return names
        num_parts += 1


def group_runs(runs: Iterable[Run]) -> list[ResultsTable]:
    """One table per data set and labels, in order of their first occurrence."""
    tables: dict[tuple[str | None, ...], ResultsTable] = {}
    for run in runs:
        tested = [measured for measured in run.results.measurements if measured.split == "test"]
        for measured in tested:
            table = _table_of(tables, measured.data, run.results.label_names)
            table.rows.append(_table_row(run, measured))
            table.notes.extend((run.name, note) for note in notes_on(run.results, measured))
        if not tested:
            _table_of(tables, run.results.data, run.results.label_names).rows.append(_row_without(run))
    return list(tables.values())


def _table_of(
    tables: dict[tuple[str | None, ...], ResultsTable], data: DescribedData | None, labels: Sequence[str]
) -> ResultsTable:
    """The table for these data and labels; a new one if there is none."""
    where = f"{data.in_words()} ({data.fingerprint[:12]})" if data else "none yet"
    key = (data.fingerprint, data.label_scheme, *labels) if data else (None, None, *labels)
    return tables.setdefault(key, ResultsTable(f"Data: {where}; labels: {', '.join(labels)}"))


def _row_without(run: Run) -> list[str]:
    is_new = run.results.imported and not run.results.measurements
    why = "imported, not measured yet" if is_new else "not measured on test"
    return [run.name, run.results.data.source if run.results.data else _NONE, f"{why}: run engagement evaluate"]


def _table_row(run: Run, measured: Measurement) -> list[str]:
    evaluation = measured.evaluation
    scores, intervals = evaluation.scores, evaluation.intervals
    over = "" if intervals.resampled == "people" else ", over clips"
    interval = intervals.intervals["macro_f1"].in_words("no interval")
    baselines = (evaluation.majority_baseline, evaluation.stratified_baseline)
    return [
        f"{run.name} (pooled)" if measured.pooled else run.name,
        measured.data.source,
        f"{evaluation.num_clips:,}",
        f"{intervals.num_clusters:,}" if not over else "unknown",
        f"{format_score(scores.macro_f1)} ({interval}{over})",
        *[format_score(value) for value in (scores.balanced_accuracy, scores.accuracy, scores.auroc)],
        *[format_score(baseline.macro_f1) for baseline in baselines],
    ]


def notes_on(results: Results, measured: Measurement) -> dict[str, str]:
    """Notes that a reader of a measurement must know: sentence → how serious it is."""
    evaluation, clean, trained_on = measured.evaluation, measured.without_duplicates, results.data
    notes = _drawn_note(results, measured)
    notes |= {evaluation.collapse: FAIL} if evaluation.collapse else {}
    absent = absent_in_words(evaluation.scores)
    notes |= {f"{absent[0].upper()}{absent[1:]}.": REPORT} if absent else {}
    notes |= {_describe_pooling(measured.pooled): REPORT} if measured.pooled else {}
    notes |= _audit_note(measured.data) | _people_note(evaluation.intervals)
    notes |= _focus_note(evaluation.face_focus) if evaluation.face_focus else {}
    if clean:
        left, score = f"{clean.num_clips:,}", format_score(clean.scores.macro_f1)
        notes[f"Without clips that have a duplicate in an earlier split ({left} are left): macro-F1 {score}."] = REPORT
    if trained_on and not results.is_own_data(measured):
        notes[f"Trained on other data: {trained_on.source} ({trained_on.fingerprint[:12]})."] = REPORT
    return notes


def _describe_pooling(pooled: PooledTrainings) -> str:
    seeds = f"seed{'s' * (len(pooled.seeds) > 1)} {', '.join(map(str, pooled.seeds))}"
    folds = f"{pooled.num_folds} folds{', one per person' if pooled.by_subject else ''}"
    return f"Predictions pooled over {folds}, {seeds}: each person's are from models trained on other people."


def _drawn_note(results: Results, measured: Measurement) -> dict[str, str]:
    if measured.data.drawn:
        return {DRAWN_NOTES[0]: FAIL}
    return {DRAWN_NOTES[1]: FAIL} if results.is_trained_on_drawn else {}


def _audit_note(data: DescribedData) -> dict[str, str]:
    if data.audit is None:
        return {"This split has not been audited for leakage.": REPORT}
    if data.audit.passed:
        return {}
    return {"The split failed the audit for leakage: the scores also measure memorisation.": FAIL}


def _people_note(intervals: Intervals) -> dict[str, str]:
    if intervals.resampled == "clips":
        return {"The people are unknown: intervals are over clips, and too narrow.": REPORT}
    row = intervals.intervals["macro_f1"]
    worth = f"the clips that decide it are equivalent to only {row.effective_clusters:.1f} people"
    if row.lower is None:
        return {f"No interval of macro-F1: {worth}.": REPORT}
    return {f"The interval of macro-F1 is still too narrow: {worth}.": REPORT} if row.few_clusters else {}


def _focus_note(focus: FaceFocusResults) -> dict[str, str]:
    face = focus.face
    if face.mean is None or face.chance is None:
        return {}
    found = f"{format_share(face.mean)} of its heat lies on the face, which is {format_share(face.chance)} of "
    verdict = "" if face.mean > face.chance else ": it does not look at the face more than at anything else"
    if focus.map_size and focus.is_coarse:
        verdict = f", but its maps of {'×'.join(map(str, focus.map_size))} cells are too coarse to be sure"
    return {f"{found}the picture{verdict}.": REPORT}


def format_score(value: float | None) -> str:
    """With three decimals; a dash if undefined."""
    return _NONE if value is None else f"{value:.3f}"


def format_share(value: float) -> str:
    """As a percentage."""
    return f"{100 * value:.1f} %"


def format_interval(row: Interval | FocusRegion) -> str:
    """Its bounds, or "no interval"."""
    return "no interval" if row.lower is None or row.upper is None else f"{row.lower:.3f} to {row.upper:.3f}"
