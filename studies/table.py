"""The runs of a study → `study.json`, and from it `table.md`: published numbers beside measured ones, then findings.

By clip and, where clips have several windows, by window beside it, since the published numbers may count windows;
mean and deviation over seeds, the interval over people of seed 0, and in words whatever a reader must know before
trusting a number: a changed protocol, failed runs, a split that leaks. Nothing here trains or reads a clock: the same
runs give the same files, but for what stands under `seconds`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from ..data.atomic_files import write_whole
from ..evaluation.comparison import compare_runs
from ..evaluation.markdown import markdown_table
from ..processor.input_errors import EngagementInputError, in_one_line

STUDY_VERSION = 1
RECORD_FILE, TABLE_FILE = "study.json", "table.md"
_Record = dict[str, object]


def write_study(output: Path, study: _Record, rows: Sequence[_Record], contrasts: Sequence[_Record]) -> Path:
    """Write both files, an older one is replaced; returns the table's path.

    Args:
        study: `name`, `title`, `split`, `seeds` (how many were asked for), `changed_options`, `prepared_beforehand`.
        rows: in order, each `name`, `title`, `improves` (the row above it), `stages`, `published` and `runs`, by seed,
            as `study.py` reads them.
        contrasts: each `name`, two `rows` and a `score`; those with a seed that both rows finished are computed.
    """
    rows = [_summarise(row) for row in rows]
    found = [_contrast(asked, {row["name"]: row for row in rows}, output, study["split"]) for asked in contrasts]
    record = {"version": STUDY_VERSION, **study, "rows": rows, "contrasts": [one for one in found if one]}
    write_whole(output / RECORD_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_whole(output / TABLE_FILE, render_study(record) + "\n")
    return output / TABLE_FILE


def one_line(error: Exception, output: Path) -> str:
    """An error's reason, with folders as seen from the study's own."""
    return in_one_line(error, max_chars=500).replace(f"{output}/", "")


# --- What stands in study.json


def _summarise(row: _Record) -> _Record:
    finished = _finished(row)
    windows = [run["scores_by_window"] for run in finished if run["scores_by_window"]]
    spreads = {"measured": _spread([run["scores"] for run in finished]), "measured_by_window": _spread(windows)}
    return {**row, **spreads}


def _finished(row: Mapping[str, object]) -> list[_Record]:
    return [run for run in row["runs"] if not run["failure"]]


def _first(row: Mapping[str, object]) -> _Record | None:
    """The run whose interval is shown."""
    return next((run for run in _finished(row) if run["seed"] == 0), None)


def _spread(scores: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    return {name: _mean_and_sd([of_seed[name] for of_seed in scores]) for name in (scores[0] if scores else ())}


def _mean_and_sd(values: Sequence[float | None]) -> dict[str, float | None]:
    if None in values:
        return {"mean": None, "sd": None}
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def _contrast(asked: _Record, rows: Mapping[str, _Record], output: Path, split: str) -> _Record | None:
    """Second row minus first, by clip; None while there is no seed with this score of both."""
    if not set(asked["rows"]) <= rows.keys():
        return None
    pair, score = [rows[name] for name in asked["rows"]], asked["score"]
    with_score = ([run for run in _finished(row) if run["scores"].get(score) is not None] for row in pair)
    first, second = ({run["seed"]: run for run in runs} for runs in with_score)
    shared = [seed for seed in first if seed in second]
    if not shared:
        return None
    differences = [second[seed]["scores"][score] - first[seed]["scores"][score] for seed in shared]
    before, after = (row["published"].get(score) for row in pair)
    return {
        **asked,
        "published": None if before is None or after is None else after - before,
        "seeds": shared,
        "differences": differences,
        **_mean_and_sd(differences),
        "paired": _compare(first[0], second[0], score, output, split) if 0 in shared else None,
    }


def _compare(first: _Record, second: _Record, score: str, output: Path, split: str) -> _Record:
    """Of seed 0, over resampled people; or why these two cannot be compared so."""
    try:
        compared = compare_runs(output / first["folder"], output / second["folder"], split)
    except EngagementInputError as error:
        return {"refused": one_line(error, output)}
    return {"resampled": compared["resampled"], **compared["differences"][score]}


# --- What stands in table.md


def render_study(record: Mapping[str, object]) -> str:
    """Markdown from what `study.json` holds."""
    seeds = f"mean ± sd over {record['seeds']} seeds" if record["seeds"] > 1 else "of one seed"
    lines = [
        f"# {record['title']}: published and measured",
        "",
        *_protocol_warning(record["changed_options"]),
        f"Scores on {record['split']}, {seeds}; 95 % intervals of seed 0, by clip. The majority baseline always "
        "predicts the training set's most frequent class.",
        "",
        _score_table(record),
    ]
    if record["contrasts"]:
        header = ["contrast", "score", "published", "measured", "95 % interval, seed 0", "verdict"]
        cells = [_contrast_cells(contrast) for contrast in record["contrasts"]]
        lines += ["", "## Findings", "", "The second row minus the first, by clip.", "", markdown_table(header, cells)]
    return "\n".join([*lines, "", "## Notes", "", *(f"- {note}" for note in _notes(record))])


def _protocol_warning(changed_options: Mapping[str, str]) -> list[str]:
    if not changed_options:
        return []
    changes = ", ".join(f"--{name} {value}" for name, value in changed_options.items())
    return [f"**The protocol is not the published one: every row was trained with {changes}.**", ""]


def _score_table(record: Mapping[str, object]) -> str:
    has_windows = any(row["measured_by_window"] for row in record["rows"])
    measured = ["measured, by window", "measured, by clip"] if has_windows else ["measured"]
    header = ["system", "score", "published", *measured, "95 % interval", "majority baseline"]
    lines, shown = [], ()
    for row in record["rows"]:
        shown = shown if row["improves"] else row["published"]  # the same scores as the row above it
        lines += [_score_cells(row, score, has_windows) for score in dict.fromkeys(("macro_f1", "accuracy", *shown))]
    return markdown_table(header, lines)


def _score_cells(row: Mapping[str, object], score: str, has_windows: bool) -> list[str]:
    finished, first = _finished(row), _first(row)
    missing = "–" if finished else "failed" if row["runs"] else "not yet"
    columns = ["measured_by_window", "measured"] if has_windows else ["measured"]
    published = row["published"].get(score)
    return [
        row["title"],
        score.replace("_", " "),
        "–" if published is None else f"{published:.4f}".removesuffix("0"),
        *(_spread_text(row[column].get(score), missing) for column in columns),
        _interval_text(first and first["intervals"]["intervals"].get(score)),
        _number(finished[0]["majority_baseline"].get(score) if finished else None),
    ]


def _contrast_cells(contrast: Mapping[str, object]) -> list[str]:
    paired = contrast["paired"] or {}
    verdict = {True: "differs", False: "may be chance", None: "–"}[paired.get("excludes_zero")]
    if "refused" in paired:
        verdict = f"not comparable clip by clip: {paired['refused']}"
    return [
        contrast["name"],
        contrast["score"].replace("_", " "),
        _number(contrast["published"], "+.3f"),
        _spread_text(contrast, "–", "+.3f"),
        _interval_text(paired, "+.3f"),
        verdict,
    ]


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _spread_text(spread: Mapping[str, float | None] | None, missing: str, form: str = ".3f") -> str:
    if not spread or spread["mean"] is None:
        return missing
    return format(spread["mean"], form) + ("" if spread["sd"] is None else f" ± {spread['sd']:.3f}")


def _interval_text(interval: Mapping[str, object] | None, form: str = ".3f") -> str:
    if not interval or interval.get("lower") is None:
        return "–"
    return f"{interval['lower']:{form}} to {interval['upper']:{form}}"


# --- What must be said beside the numbers


def _notes(record: Mapping[str, object]) -> list[str]:
    notes = [*_notes_on_method(record), *_notes_on_data(record["rows"])]
    for row in record["rows"]:
        missing = record["seeds"] - len(row["runs"])
        if missing:
            notes.append(f"{row['title']}: {missing} of {record['seeds']} seeds not yet trained.")
        seeds_of = defaultdict(list)  # a row often fails in the same way with every seed
        for run in row["runs"]:
            seeds_of[f"failed: {run['failure']}" if run["failure"] else run["collapse"]].append(str(run["seed"]))
        notes += [f"{row['title']}, seed {', '.join(seeds)}: {what}" for what, seeds in seeds_of.items() if what]
    return notes


def _notes_on_method(record: Mapping[str, object]) -> list[str]:
    notes = []
    if any(row["measured_by_window"] for row in record["rows"]):
        notes.append("By clip is the mean of a clip's windows, by window counts each; do not mix them up.")
    if record["split"] == "validation":
        notes.append("Measured on validation, on which each run's best epoch was chosen: more favourable than a test.")
    if record["prepared_beforehand"]:
        notes.append(
            f"{' and '.join(record['prepared_beforehand'])} came prepared: where a recipe asks for another subset, "
            "other frames or crops, how the data was prepared counts."
        )
    return notes


def _notes_on_data(rows: Iterable[Mapping[str, object]]) -> list[str]:
    by_data, leaking, over_clips = defaultdict(list), defaultdict(list), []
    measured = [(row["title"], _finished(row)[0]) for row in rows if _finished(row)]
    for title, run in measured:
        for data in run["data"].values():
            by_data[data["source"], data["fingerprint"]].append(title)
            if data["audit"] != "passed":
                leaking[data["source"], data["audit"]].append(title)
        if run["intervals"]["resampled"] != "people":
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
