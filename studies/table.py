"""The runs of a study → `study.json`, and from it `table.md`: published numbers beside measured ones, then findings.

By clip and, where clips have several windows, by window beside it, since the published numbers may count windows;
mean and deviation over seeds, the interval over people of seed 0, and in words whatever a reader must know before
trusting a number: a changed protocol, failed runs, a split that leaks. Nothing here trains or reads a clock: the same
runs give the same files, but for what stands under `seconds`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from ..data.atomic_files import write_whole
from ..data.json_records import write_record
from ..evaluation.comparison import compare_runs
from ..evaluation.markdown import markdown_table
from ..evaluation.score_records import Interval
from ..processor.input_errors import EngagementInputError, in_one_line
from .study_records import (
    Contrast,
    FinishedRun,
    MeasuredContrast,
    MeasuredRow,
    NotComparable,
    RowRuns,
    RunDifference,
    Spread,
    StudyHead,
    StudyRecord,
)

RECORD_FILE, TABLE_FILE = "study.json", "table.md"


def write_study(output: Path, head: StudyHead, rows: Sequence[RowRuns], contrasts: Sequence[Contrast]) -> Path:
    """Write both files, an older one is replaced; returns the table's path.

    Args:
        rows: in order.
        contrasts: those with a seed that both rows finished are computed.
    """
    by_name = {row.name: row for row in rows}
    found = [_contrast(asked, by_name, output, head.split) for asked in contrasts]
    record = StudyRecord(
        **dict(head), rows=[_summarise(row) for row in rows], contrasts=[one for one in found if one is not None]
    )
    write_record(output / RECORD_FILE, record)
    write_whole(output / TABLE_FILE, render_study(record) + "\n")
    return output / TABLE_FILE


def one_line(error: Exception, output: Path) -> str:
    """An error's reason, with folders as seen from the study's own."""
    return in_one_line(error, max_chars=500).replace(f"{output}/", "")


# --- What stands in study.json


def _summarise(row: RowRuns) -> MeasuredRow:
    windows = [run.scores_by_window for run in row.finished if run.scores_by_window]
    measured = _spread([run.scores for run in row.finished])
    return MeasuredRow(**dict(row), measured=measured, measured_by_window=_spread(windows))


def _spread(scores: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    return {name: _mean_and_sd([of_seed[name] for of_seed in scores]) for name in (scores[0] if scores else ())}


def _mean_and_sd(values: Sequence[float | None]) -> Spread:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return Spread(mean=None, sd=None)
    return Spread(mean=fmean(defined), sd=stdev(defined) if len(defined) > 1 else None)


def _contrast(asked: Contrast, rows: Mapping[str, RowRuns], output: Path, split: str) -> MeasuredContrast | None:
    """Second row minus first, by clip; None while there is no seed with this score of both."""
    if not set(asked.rows) <= rows.keys():
        return None
    before, after = (rows[name] for name in asked.rows)
    first, second = _scores_by_seed(before, asked.score), _scores_by_seed(after, asked.score)
    shared = [seed for seed in first if seed in second]
    if not shared:
        return None
    differences = [second[seed] - first[seed] for seed in shared]
    published = [row.published[asked.score] for row in (before, after) if asked.score in row.published]
    return MeasuredContrast(
        **dict(asked),
        published=published[1] - published[0] if len(published) == 2 else None,
        seeds=shared,
        differences=differences,
        **dict(_mean_and_sd(differences)),
        paired=_compare(before.first, after.first, asked.score, output, split) if 0 in shared else None,
    )


def _scores_by_seed(row: RowRuns, name: str) -> dict[int, float]:
    """Of the finished runs that define the score."""
    known = ((run.seed, run.scores.get(name)) for run in row.finished)
    return {seed: score for seed, score in known if score is not None}


def _compare(
    first: FinishedRun | None, second: FinishedRun | None, score: str, output: Path, split: str
) -> RunDifference | NotComparable | None:
    """Over resampled people; or why these two cannot be compared so."""
    if first is None or second is None:
        return None
    try:
        compared = compare_runs(output / first.folder, output / second.folder, split)
    except EngagementInputError as error:
        return NotComparable(refused=one_line(error, output))
    return RunDifference(**dict(compared.differences[score]), resampled=compared.resampled)


# --- What stands in table.md


def render_study(record: StudyRecord) -> str:
    """Markdown from what `study.json` holds."""
    seeds = f"mean ± sd over {record.seeds} seeds" if record.seeds > 1 else "of one seed"
    lines = [
        f"# {record.title}: published and measured",
        "",
        *_protocol_warning(record.changed_options),
        f"Scores on {record.split}, {seeds}; 95 % intervals of seed 0, by clip. The majority baseline always "
        "predicts the training set's most frequent class.",
        "",
        _score_table(record),
    ]
    if record.contrasts:
        header = ["contrast", "score", "published", "measured", "95 % interval, seed 0", "verdict"]
        cells = [_contrast_cells(contrast) for contrast in record.contrasts]
        lines += ["", "## Findings", "", "The second row minus the first, by clip.", "", markdown_table(header, cells)]
    return "\n".join([*lines, "", "## Notes", "", *(f"- {note}" for note in _notes(record))])


def _protocol_warning(changed_options: Mapping[str, str]) -> list[str]:
    if not changed_options:
        return []
    changes = ", ".join(f"--{name} {value}" for name, value in changed_options.items())
    return [f"**The protocol is not the published one: every row was trained with {changes}.**", ""]


def _score_table(record: StudyRecord) -> str:
    has_windows = any(row.measured_by_window for row in record.rows)
    measured = ["measured, by window", "measured, by clip"] if has_windows else ["measured"]
    header = ["system", "score", "published", *measured, "95 % interval", "majority baseline"]
    lines: list[list[str]] = []
    shown: Iterable[str] = ()
    for row in record.rows:
        shown = shown if row.improves else row.published  # the same scores as the row above it
        lines += [_score_cells(row, score, has_windows) for score in dict.fromkeys(("macro_f1", "accuracy", *shown))]
    return markdown_table(header, lines)


def _score_cells(row: MeasuredRow, score: str, has_windows: bool) -> list[str]:
    missing = "–" if row.finished else "failed" if row.runs else "not yet"
    columns = [row.measured_by_window, row.measured] if has_windows else [row.measured]
    published = row.published.get(score)
    return [
        row.title,
        score.replace("_", " "),
        "–" if published is None else f"{published:.4f}".removesuffix("0"),
        *(_spread_text(column.get(score), missing) for column in columns),
        _interval_text(row.first.intervals.intervals.get(score) if row.first else None),
        _number(row.finished[0].majority_baseline.get(score) if row.finished else None),
    ]


def _contrast_cells(contrast: MeasuredContrast) -> list[str]:
    paired, interval, verdict = contrast.paired, None, "–"
    if isinstance(paired, NotComparable):
        verdict = f"not comparable clip by clip: {paired.refused}"
    elif paired is not None:
        interval, verdict = paired, {True: "differs", False: "may be chance", None: "–"}[paired.excludes_zero]
    return [
        contrast.name,
        contrast.score.replace("_", " "),
        _number(contrast.published, "+.3f"),
        _spread_text(Spread(mean=contrast.mean, sd=contrast.sd), "–", "+.3f"),
        _interval_text(interval, "+.3f"),
        verdict,
    ]


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _spread_text(spread: Spread | None, missing: str, form: str = ".3f") -> str:
    if spread is None or spread.mean is None:
        return missing
    return format(spread.mean, form) + ("" if spread.sd is None else f" ± {spread.sd:.3f}")


def _interval_text(interval: Interval | None, form: str = ".3f") -> str:
    return "–" if interval is None else interval.in_words("–", form)


# --- What must be said beside the numbers


def _notes(record: StudyRecord) -> list[str]:
    notes = [*_notes_on_method(record), *_notes_on_data(record.rows)]
    for row in record.rows:
        missing = record.seeds - len(row.runs)
        if missing:
            notes.append(f"{row.title}: {missing} of {record.seeds} seeds not yet trained.")
        seeds_of: dict[str | None, list[str]] = defaultdict(list)  # a row often fails in the same way with every seed
        for run in row.runs:
            what = run.collapse if isinstance(run, FinishedRun) else f"failed: {run.failure}"
            seeds_of[what].append(str(run.seed))
        notes += [f"{row.title}, seed {', '.join(seeds)}: {what}" for what, seeds in seeds_of.items() if what]
    return notes


def _notes_on_method(record: StudyRecord) -> list[str]:
    notes = []
    if any(row.measured_by_window for row in record.rows):
        notes.append("By clip is the mean of a clip's windows, by window counts each; do not mix them up.")
    if record.split == "validation":
        notes.append("Measured on validation, on which each run's best epoch was chosen: more favourable than a test.")
    if record.prepared_beforehand:
        notes.append(
            f"{' and '.join(record.prepared_beforehand)} came prepared: where a recipe asks for another subset, "
            "other frames or crops, how the data was prepared counts."
        )
    return notes


def _notes_on_data(rows: Iterable[MeasuredRow]) -> list[str]:
    by_data: dict[tuple[str, str], list[str]] = defaultdict(list)
    leaking: dict[tuple[str, str], list[str]] = defaultdict(list)
    over_clips = []
    measured = [(row.title, row.finished[0]) for row in rows if row.finished]
    for title, run in measured:
        for data in run.data.values():
            by_data[data.source, data.fingerprint].append(title)
            if data.audit != "passed":
                leaking[data.source, data.audit].append(title)
        if run.intervals.resampled != "people":
            over_clips.append(title)

    def named(titles: list[str]) -> str:
        return "all rows" if len(titles) == len(measured) else "; ".join(titles)

    notes = [f"Data: {source}, fingerprint {known[:12]}: {named(of)}." for (source, known), of in by_data.items()]
    for (source, state), of in leaking.items():
        notes.append(
            f"**The audit of {source} {'is missing' if state == 'missing' else 'failed'}**: its split cannot be "
            f"trusted, and training was allowed all the same: {named(of)}."
        )
    if over_clips:
        notes.append(f"Nobody knows the people, so that intervals are over clips, too narrow: {named(over_clips)}.")
    return notes
