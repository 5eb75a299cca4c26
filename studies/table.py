"""The runs of a study → `study.json`, and from it `table.md`: measured scores, published ones if any, and contrasts.

Scores are by clip and, if clips have several windows, also by window, since published numbers may be by window; with
mean and deviation over seeds, intervals over people, and notes that a reader must know: a changed protocol, failed
runs, a split with leakage. The same runs give the same files, except for `seconds`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from ..data.atomic_files import write_whole
from ..data.json_records import write_record
from ..evaluation.markdown import markdown_table
from ..evaluation.score_records import Interval, Intervals, score_in_words
from .study_records import (
    Contrast,
    FinishedRun,
    MeasuredDifference,
    MeasuredOn,
    MeasuredRow,
    NotComparable,
    RowRuns,
    Spread,
    StudyHead,
    StudyRecord,
)
from .summary import FITTED, summarise_study

RECORD_FILE, TABLE_FILE = "study.json", "table.md"
FITTED_NOTE = '"Fitted" uses the decision fitted on validation people; all other scores use argmax, or only ranking.'
_USUAL_SCORES = ("macro_f1", "accuracy")
_NONE = "–"


def write_study(output: Path, head: StudyHead, rows: Sequence[RowRuns], contrasts: Sequence[Contrast]) -> Path:
    """Write both files, replacing older ones; returns the table's path. See `summarise_study`."""
    record = summarise_study(output, head, rows, contrasts)
    write_record(output / RECORD_FILE, record)
    write_whole(output / TABLE_FILE, render_study(record) + "\n")
    return output / TABLE_FILE


def render_study(record: StudyRecord) -> str:
    """The content of `study.json` as Markdown."""
    seeds = f"mean ± sd over {record.seeds} seeds" if record.seeds > 1 else "one seed"
    mean = " for the mean over seeds" if record.seeds > 1 else ""
    fitted = [FITTED_NOTE] if any(score.endswith(FITTED) for score in record.scores) else []
    lines = [
        f"# {record.title}{': published and measured' if has_published(record) else ''}",
        "",
        *protocol_warning(record),
        " ".join([f"Scores on {record.split}, by clip, {seeds}; 95 % intervals over people{mean}.", *fitted]),
        "",
        *(f"{line}\n" for line in describe_people(record)),
        score_table(record),
    ]
    if record.contrasts:
        lines += ["", "## Findings", "", "The second row minus the first, with the same seeds on the same people.", ""]
        lines += [contrast_table(record)]
    return "\n".join([*lines, "", "## Notes", "", *(f"- {note}" for note in notes_of(record))])


def has_published(record: StudyRecord) -> bool:
    """Whether there are published scores."""
    return any(row.published for row in record.rows)


def protocol_warning(record: StudyRecord) -> list[str]:
    """A paragraph if options override the recipes, else nothing."""
    if not record.changed_options:
        return []
    changes = ", ".join(f"--{name} {value}" for name, value in record.changed_options.items())
    what = "The protocol is not the published one: every" if has_published(record) else "Every"
    return [f"**{what} row was trained with {changes}.**", ""]


def describe_people(record: StudyRecord) -> list[str]:
    """The people that the rows were measured on: one sentence, or one per group of rows."""
    rows_on: dict[str, list[str]] = defaultdict(list)
    measured = [row for row in record.rows if row.finished]
    for row in measured:
        rows_on[_people_in_words(row.finished[0].measured_on)].append(row.title)
    if len(rows_on) == 1:
        return [f"Measured on {people}." for people in rows_on]
    return [f"{'; '.join(titles)}: measured on {people}." for people, titles in rows_on.items()]


def _people_in_words(measured: MeasuredOn) -> str:
    people = "an unknown number of people" if measured.num_people is None else f"{measured.num_people:,} people"
    text = f"{measured.num_clips:,} clips of {people}"
    if measured.rarest_class:
        both = measured.num_people_with_both
        having = f" ({both:,} people have both classes)" if both is not None else ""
        text += f', {measured.num_rarest_clips:,} of them "{measured.rarest_class}"{having}'
    if measured.num_folds:
        text += f", in {measured.num_folds} folds of people, each predicted by a model that has not seen them"
    return text


# --- Rows by system


def score_table(record: StudyRecord) -> str:
    """With published numbers one line per score; without any, one column per score."""
    return _published_table(record) if has_published(record) else _plain_table(record)


def _published_table(record: StudyRecord) -> str:
    has_windows = any(row.measured_by_window for row in record.rows)
    measured = ["measured, by window", "measured, by clip"] if has_windows else ["measured"]
    header = ["system", "score", "published", *measured, "95 % interval", "majority baseline", "minutes per run"]
    lines: list[list[str]] = []
    published: Iterable[str] = ()
    for row in record.rows:
        published = published if row.improves else row.published  # the same scores as the row above it
        scores = dict.fromkeys((*(record.scores or _USUAL_SCORES), *published))
        lines += [_score_cells(row, score, has_windows) for score in scores]
    return markdown_table(header, lines)


def _score_cells(row: MeasuredRow, score: str, has_windows: bool) -> list[str]:
    columns = [row.measured_by_window, row.measured] if has_windows else [row.measured]
    published = row.published.get(score)
    return [
        row.title,
        score_in_words(score),
        _NONE if published is None else f"{published:.4f}".removesuffix("0"),
        *(_spread_text(column.get(score), _missing(row)) for column in columns),
        _interval_text(_interval_of(row, score)),
        _number(_without_model(row.finished[0], score) if row.finished else None),
        _minutes(row),
    ]


def _plain_table(record: StudyRecord) -> str:
    judged_by = [contrast.scores[0].score for contrast in record.contrasts]
    scores = record.scores or list(dict.fromkeys((*judged_by, *_USUAL_SCORES)))
    lines = [[row.title, *(_plain_cell(row, score) for score in scores), _minutes(row)] for row in record.rows]
    finished = [row.finished[0] for row in record.rows if row.finished]
    if finished and all(run.majority_baseline == finished[0].majority_baseline for run in finished):
        chance = [_number(_without_model(finished[0], score)) for score in scores]
        lines.append(["no model: always the most frequent class", *chance, _NONE])
    return markdown_table(["system", *map(score_in_words, scores), "minutes per run"], lines)


def _plain_cell(row: MeasuredRow, score: str) -> str:
    text, interval = _spread_text(row.measured.get(score), _missing(row)), _interval_of(row, score)
    return text if interval is None else f"{text} ({_interval_text(interval)})"


def _without_model(run: FinishedRun, score: str) -> float | None:
    """The score of always predicting the most frequent class, which ranks all clips equally."""
    measured = run.measured_on
    if score in ("auroc", "within_person_auroc"):
        return 0.5 if measured.rarest_class else None
    if score == "auprc_minority":
        return measured.num_rarest_clips / measured.num_clips if measured.rarest_class else None
    return run.majority_baseline.get(score.removesuffix(FITTED))


def _interval_of(row: MeasuredRow, score: str) -> Interval | None:
    return row.intervals.intervals.get(score) if isinstance(row.intervals, Intervals) else None


def _missing(row: MeasuredRow) -> str:
    return _NONE if row.finished else "failed" if row.runs else "not yet"


def _minutes(row: MeasuredRow) -> str:
    minutes = fmean(run.seconds for run in row.finished) / 60 if row.finished else None
    return _NONE if minutes is None else "below 1" if minutes < 1 else f"{minutes:.0f}"


# --- Contrasts


def contrast_table(record: StudyRecord) -> str:
    """One line per score of each contrast, first the one that judges it."""
    has = has_published(record)
    published = ["published"] if has else []
    titles = {row.name: row.title for row in record.rows}
    header = ["contrast", "score", *published, "difference", "each seed", "95 % interval", "verdict"]
    lines = [
        [
            f"{contrast.name} ({' → '.join(titles[name] for name in contrast.rows)})" if number == 0 else "",
            score_in_words(difference.score),
            *([_number(difference.published, "+.3f")] if has else []),
            difference_text(difference),
            ", ".join(f"{value:+.3f}" for value in difference.differences) or _NONE,
            difference_interval(difference),
            verdict(difference),
        ]
        for contrast in record.contrasts
        for number, difference in enumerate(contrast.scores)
    ]
    return markdown_table(header, lines)


def difference_text(difference: MeasuredDifference) -> str:
    """Mean ± sd over seeds."""
    return _spread_text(Spread(mean=difference.mean, sd=difference.sd), _NONE, "+.3f")


def difference_interval(difference: MeasuredDifference) -> str:
    """Over people; with a fourth digit where a bound that excludes zero would be rounded to it."""
    paired = difference.paired
    if paired is None or isinstance(paired, NotComparable):
        return _NONE
    is_near_zero = paired.excludes_zero and any(
        bound is not None and round(bound, 3) == 0 for bound in (paired.lower, paired.upper)
    )
    return _interval_text(paired, "+.4f" if is_near_zero else "+.3f")


def verdict(difference: MeasuredDifference) -> str:
    """The conclusion from a difference's interval over people, in words."""
    paired = difference.paired
    if paired is None:
        return "not measured yet"
    if isinstance(paired, NotComparable):
        return f"not comparable clip by clip: {paired.refused}"
    if paired.few_clusters or paired.value is None or paired.excludes_zero is None:
        return f"too few {paired.resampled} to tell"
    if not paired.excludes_zero:
        return "not shown: interval includes zero"
    told = "helps: interval above zero" if paired.value > 0 else "hurts: interval below zero"
    # The interval is only over people; disagreement between seeds shows in the single differences.
    agree = all(value * paired.value > 0 for value in difference.differences)
    told += "" if agree else ", but not with every seed"
    return told if paired.resampled == "people" else f"{told}, but over clips, too narrow"


def _number(value: float | None, form: str = ".3f") -> str:
    return _NONE if value is None else format(value, form)


def _spread_text(spread: Spread | None, missing: str, form: str = ".3f") -> str:
    if spread is None or spread.mean is None:
        return missing
    return format(spread.mean, form) + ("" if spread.sd is None else f" ± {spread.sd:.3f}")


def _interval_text(interval: Interval | None, form: str = ".3f") -> str:
    return _NONE if interval is None else interval.in_words(_NONE, form)


# --- Notes on the numbers


def notes_of(record: StudyRecord) -> list[str]:
    """The study's own notes, then those on its runs."""
    caveats = [f"{contrast.name}: {contrast.caveat}" for contrast in record.contrasts if contrast.caveat]
    on_data = [*_data_notes(record.rows), *trust_notes(record.rows)]
    return [*record.notes, *caveats, *_notes_on_method(record), *on_data, *seed_notes(record), *_notes_on_runs(record)]


def seed_notes(record: StudyRecord) -> list[str]:
    """Rows with fewer seeds than the others, or not yet trained with all of theirs."""
    notes = []
    for row in record.rows:
        asked = record.seeds if row.seeds is None else row.seeds
        missing = asked - len(row.runs)
        if missing > 0:
            notes.append(f"{row.title}: {missing} of {asked} seeds not yet trained.")
        elif asked < record.seeds:
            notes.append(f"{row.title}: {asked} seed{'s' if asked > 1 else ''}, where other rows have {record.seeds}.")
    return notes


def _notes_on_runs(record: StudyRecord) -> list[str]:
    notes = []
    rows_with: dict[str, list[str]] = defaultdict(list)  # several rows often fail in the same way
    for row in record.rows:
        seeds_of: dict[str | None, list[str]] = defaultdict(list)  # a row often fails in the same way with every seed
        for run in row.runs:
            what = run.collapse if isinstance(run, FinishedRun) else f"failed: {run.failure}"
            seeds_of[what].append(str(run.seed))
        if isinstance(row.intervals, NotComparable):
            notes.append(f"{row.title} has no intervals: {row.intervals.refused}")
        for what, seeds in seeds_of.items():
            if what:
                rows_with[what].append(f"{row.title}, seed {', '.join(seeds)}")
    return [*notes, *(f"{'; '.join(rows)}: {what}" for what, rows in rows_with.items())]


def _notes_on_method(record: StudyRecord) -> list[str]:
    notes = []
    if any(row.measured_by_window for row in record.rows):
        notes.append("By clip: the mean of a clip's windows; by window: each window on its own. Do not mix them up.")
    if record.split == "validation":
        notes.append("Measured on validation, on which each run's best epoch was chosen: better than on a test split.")
    if record.prepared_beforehand:
        notes.append(
            f"{' and '.join(record.prepared_beforehand)} was already prepared: its subset, frames and crops are used, "
            "whatever the recipes say."
        )
    return notes


def _data_notes(rows: Iterable[MeasuredRow]) -> list[str]:
    by_data: dict[tuple[str, str], list[str]] = defaultdict(list)
    measured = [(row.title, row.finished[0]) for row in rows if row.finished]
    for title, run in measured:
        for data in run.data.values():
            by_data[data.source, data.fingerprint].append(title)
    return [
        f"Data: {source}, fingerprint {known[:12]}: {_named(of, len(measured))}."
        for (source, known), of in by_data.items()
    ]


def trust_notes(rows: Iterable[MeasuredRow]) -> list[str]:
    """Why scores say less than they seem to: leakage, drawn people, unknown people."""
    leaking: dict[tuple[str, str], list[str]] = defaultdict(list)
    over_clips, drawn = [], []
    measured = [(row.title, row.finished[0]) for row in rows if row.finished]
    for title, run in measured:
        for data in run.data.values():
            if data.audit != "passed":
                leaking[data.source, data.audit].append(title)
            if data.drawn:
                drawn.append(title)
        if run.measured_on.num_people is None:
            over_clips.append(title)

    notes = []
    for (source, state), of in leaking.items():
        notes.append(
            f"**The audit of {source} {'is missing' if state == 'missing' else 'failed'}**: its split cannot be "
            f"trusted, but training was allowed: {_named(of, len(measured))}."
        )
    if drawn:
        notes.append(
            f"**Drawn (synthetic) people**, which say nothing about real faces: {_named(drawn, len(measured))}."
        )
    if over_clips:
        named = _named(over_clips, len(measured))
        notes.append(f"The people are unknown, so intervals are over clips, and too narrow: {named}.")
    return notes


def _named(titles: list[str], num_rows: int) -> str:
    return "all rows" if len(titles) == num_rows else "; ".join(titles)
