"""Results files → one Markdown table and one HTML page; every number is read from `results.json`, none is typed.

A row a model, beside baselines that need none. Models of other data or labels stand in tables of their own, for their
numbers do not compare. The page (`report.html`) holds everything itself, loads nothing and needs no script; its figures
are drawn anew by `publish.save_figures`, so that none is missing or older than the numbers beside it. What only the
page needs is imported late: the table takes a moment.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2

from ..data.audit.verdicts import FAIL, REPORT
from ..processor.input_errors import DataError, ModelLoadError
from .markdown import escape_markdown, markdown_table
from .results_file import RESULTS_FILE, describe_source, is_trained_on_drawn, measured_on, read_results

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
PAGE_FILE, TABLE_FILE = "report.html", "report.md"
SCORES = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "auroc": "AUROC",
    "auprc_minority": "AUPRC of the rarest class",
    "quadratic_kappa": "quadratic kappa",
    "mae": "mean absolute error (levels)",
}
_GROUP_SCORES = {name: SCORES[name] for name in ("macro_f1", "balanced_accuracy", "accuracy", "auroc")}
LIMITS = (
    "Estimates of how annotators rated apparent engagement, for research, benchmarking and teaching: not for grading "
    "or any decision about a person, and not for learners or employees in the EU, where the AI Act, Article 5(1)(f), "
    "has prohibited inferring people's emotions in education and at the workplace since 2 February 2025, save for "
    "medical or safety reasons. Whether engagement is an emotion is disputed; act as if it were."
)
_FOCUS_REGIONS = {"face": "face box", "eyes": "eyes and brows", "mouth": "mouth"}
_SETTINGS = ("recipe", "imported", "environment", "evaluated_on")
_DO_NOT_COMPARE = "The tables are of different data or labels: do not compare numbers of one with those of another."
_DRAWN_NOTES = (
    "Drawn people who do not exist: it says nothing about real faces.",
    "Trained on drawn people who do not exist, measured on others.",
)
_CLEAN = "_without_duplicates"
_NONE = "–"
_TEMPLATE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Run:
    """A model's folder, as the report names and reads it."""

    name: str
    results: dict[str, object]

    @property
    def evaluation(self) -> dict[str, dict]:
        """By split; empty for a model that was imported and not measured yet."""
        return self.results.get("evaluation", {})

    def measured_on(self, split: str) -> dict[str, object]:
        """`kind`, `source`, `fingerprint`, ... of a split's data; empty where there is none."""
        return measured_on(self.results, split.removesuffix(_CLEAN))

    def audit_passed(self, split: str) -> bool | None:
        """Of the data the split was measured on; None: nobody has audited it."""
        if evaluated := self._evaluated_on(split):
            return evaluated["audit_passed"]
        audit = self.results["data"]["audit"]
        return audit and audit["passed"]

    def _evaluated_on(self, split: str) -> dict[str, object] | None:
        """What `engagement evaluate` measured last; None where the scores are from training."""
        return self.results.get("evaluated_on", {}).get(split.removesuffix(_CLEAN))


@dataclass(frozen=True)
class ResultsTable:
    """Runs whose numbers compare."""

    title: str  # data and labels
    rows: list[list[str]] = field(default_factory=list)  # by COLUMNS; the last cell of a short row takes the rest
    notes: list[tuple[str, str]] = field(default_factory=list)  # the run's name, a sentence


def results_table(folders: Sequence[Path]) -> str:
    """Scores on test as Markdown: a row a model, a table a data set and its labels, with what to know of them below.

    Raises:
        ModelLoadError: a folder has no results.
    """
    tables = _group_runs(_read_runs(folders))
    parts = [_DO_NOT_COMPARE] if len(tables) > 1 else []
    for table in tables:
        parts += [f"**{escape_markdown(table.title)}**", markdown_table(COLUMNS, table.rows)]
        parts.append("\n".join(f"- {escape_markdown(f'{name}: {_emphasised(note)}')}" for name, note in table.notes))
    return "\n\n".join(part for part in parts if part)


def write_report(folders: Sequence[Path], output: Path, training_logs: Sequence[Path] = ()) -> list[Path]:
    """The table as `report.md`; with a section a model, and all figures, as `report.html`.

    Args:
        output: a folder; made where there is none.
        training_logs: CSV logs as `checkpoints.read_training_log` reads them, drawn as curves.

    Returns:
        The two files. The same results give the same bytes.

    Raises:
        ModelLoadError: a folder has no results.
        DataError: a log that is none, or an output that cannot be written.
    """
    page = _render_page(_read_runs(folders), training_logs)
    table = f"# Measured results\n\n{LIMITS}\n\n{results_table(folders)}\n"
    files = {output / PAGE_FILE: page, output / TABLE_FILE: table}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"Expected to write the report to {output}, could not ({error}).") from error
    return list(files)


def _read_runs(folders: Sequence[Path]) -> list[Run]:
    folders = list({folder.resolve(): folder for folder in folders}.values())
    runs = [Run(name, read_results(folder)) for name, folder in zip(_short_names(folders, 2), folders, strict=True)]
    for run, folder in zip(runs, folders, strict=True):
        if "label_names" not in run.results:
            raise ModelLoadError(f"Expected label_names in {folder / RESULTS_FILE}; train or import the model again.")
    return runs


def _short_names(paths: Sequence[Path], num_parts: int) -> list[str]:
    """The last parts of each path, as many as tell them apart: where they lay is nobody's business."""
    parts = [path.resolve().parts for path in paths]
    while True:
        names = ["/".join(of_path[-num_parts:]) for of_path in parts]
        if len(set(names)) == len(set(parts)):
            return names
        num_parts += 1


def _group_runs(runs: Iterable[Run]) -> list[ResultsTable]:
    tables: dict[tuple, ResultsTable] = {}
    for run in runs:
        data, labels = run.measured_on("test"), run.results["label_names"]
        key = (data.get("fingerprint"), data.get("label_scheme"), *labels)
        where = f"{describe_source(data)} ({data['fingerprint'][:12]})" if data else "none yet"
        table = tables.setdefault(key, ResultsTable(f"Data: {where}; labels: {', '.join(labels)}"))
        table.rows.append(_table_row(run, data.get("source", _NONE)))
        table.notes.extend((run.name, note) for note in _notes(run, "test"))
    return list(tables.values())


def _table_row(run: Run, source: str) -> list[str]:
    evaluation = run.evaluation.get("test")
    if evaluation is None:
        is_new = "imported" in run.results and not run.evaluation
        why = "imported, not measured yet" if is_new else "not measured on test"
        return [run.name, source, f"{why}: run engagement evaluate"]
    scores, intervals = evaluation["scores"], evaluation["intervals"]
    over = "" if intervals["resampled"] == "people" else ", over clips"
    interval = _format_interval(intervals["intervals"]["macro_f1"])
    return [
        run.name,
        source,
        f"{evaluation['num_clips']:,}",
        f"{intervals['num_clusters']:,}" if not over else "unknown",
        f"{_format_score(scores['macro_f1'])} ({interval}{over})",
        *[_format_score(scores[name]) for name in ("balanced_accuracy", "accuracy", "auroc")],
        *[_format_score(evaluation[name]["macro_f1"]) for name in ("majority_baseline", "stratified_baseline")],
    ]


def _notes(run: Run, split: str) -> dict[str, str]:
    """What must be known before a split's scores are believed: a sentence → how grave it is."""
    evaluation = run.evaluation.get(split)
    if evaluation is None:
        return {}
    measured, trained = run.measured_on(split), run.results["data"]
    notes = _drawn_note(run, measured)
    notes |= {evaluation["collapse"]: FAIL} if evaluation["collapse"] else {}
    notes |= _audit_note(run.audit_passed(split)) | _people_note(evaluation["intervals"])
    notes |= _focus_note(evaluation.get("face_focus"))
    if clean := run.evaluation.get(split + _CLEAN):
        left, score = f"{clean['num_clips']:,}", _format_score(clean["scores"]["macro_f1"])
        notes[f"Without clips that have a twin in training ({left} are left): macro-F1 {score}."] = REPORT
    if measured["fingerprint"] != trained["fingerprint"]:
        notes[f"Trained on other data: {trained['source']} ({trained['fingerprint'][:12]})."] = REPORT
    return notes


def _drawn_note(run: Run, measured: Mapping[str, object]) -> dict[str, str]:
    if measured.get("drawn"):
        return {_DRAWN_NOTES[0]: FAIL}
    return {_DRAWN_NOTES[1]: FAIL} if is_trained_on_drawn(run.results) else {}


def _audit_note(passed: bool | None) -> dict[str, str]:
    if passed is None:
        return {"Nobody has audited this split for leakage.": REPORT}
    return {} if passed else {"The split failed the audit for leakage: the scores measure memory, too.": FAIL}


def _people_note(intervals: Mapping[str, object]) -> dict[str, str]:
    if intervals["resampled"] == "clips":
        return {"Nobody knows the people: intervals are over clips, and too narrow.": REPORT}
    row = intervals["intervals"]["macro_f1"]
    worth = f"the clips that decide it are worth no more than {row['effective_clusters']:.1f} people"
    if row["lower"] is None:
        return {f"No interval of macro-F1: {worth}.": REPORT}
    return {f"The interval of macro-F1 is still too narrow: {worth}.": REPORT} if row["few_clusters"] else {}


def _focus_note(focus: Mapping[str, object] | None) -> dict[str, str]:
    from .results_file import FINE_MAP

    face = focus and focus["face"]
    if not face or face["mean"] is None:
        return {}
    found = f"{_format_share(face['mean'])} of its heat lies on the face, which is {_format_share(face['chance'])} of "
    if min(focus.get("map_size", [FINE_MAP])) < FINE_MAP:  # older results do not tell it
        verdict = f", but its maps of {'×'.join(map(str, focus['map_size']))} places are too coarse to tell"
    else:
        verdict = "" if face["mean"] > face["chance"] else ": it does not look at the face more than at anything else"
    return {f"{found}the picture{verdict}.": REPORT}


def _emphasised(note: str) -> str:
    return f"**{note}**" if note in _DRAWN_NOTES else note


def _format_score(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _format_share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _format_interval(row: Mapping[str, float | None]) -> str:
    return "no interval" if row["lower"] is None else f"{row['lower']:.3f} to {row['upper']:.3f}"


def _render_page(runs: Sequence[Run], training_logs: Sequence[Path]) -> str:
    from .bootstrap import MIN_PEOPLE_IN_A_CELL

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"score": _format_score, "share": _format_share, "interval": _format_interval}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        tables=_group_runs(runs),
        columns=COLUMNS,
        limits=LIMITS,
        do_not_compare=_DO_NOT_COMPARE,
        score_names=SCORES,
        group_scores=_GROUP_SCORES,
        focus_regions=_FOCUS_REGIONS,
        clean_suffix=_CLEAN,
        min_people=MIN_PEOPLE_IN_A_CELL,
        sections=[_section(run) for run in runs],
        describe_source=describe_source,
        drawn_notes=_DRAWN_NOTES,
        logs=_draw_logs(training_logs),
    )


def _section(run: Run) -> dict[str, object]:
    """What the template shows of a run beside its results."""
    splits = [split for split in run.evaluation if not split.endswith(_CLEAN)]
    groups = {split: run.evaluation[split]["groups"] for split in splits}
    return {
        "run": run,
        "splits": splits,
        "facts": _facts(run.results),
        "settings": {name: run.results[name] for name in _SETTINGS if name in run.results},
        "notes": {split: _notes(run, split) for split in splits},
        "groups": groups,
        "figures": _draw_figures(run),
    }


def _facts(results: Mapping[str, object]) -> dict[str, str]:
    """What was trained or imported, from what, on what."""
    recipe = results.get("recipe", {})
    facts = {"task": results["stage"], "started from": results["started_from"]}
    facts |= {name: str(recipe[name]) for name in ("encoder", "temporal", "loss") if name in recipe}
    facts |= _origin_facts(results["imported"]) if "imported" in results else {}
    facts |= _data_facts(results["data"]) if "data" in results else {}
    if "training" in results:
        facts |= {"training labels": _listed(results["train_label_counts"]), "seed": str(results["seed"])}
        facts["training took"] = f"{results['training']['seconds']:,.1f} s"
    return facts


def _origin_facts(imported: Mapping[str, object]) -> dict[str, str]:
    facts = {"architecture": imported["system"], "weights": f"{imported['num_weights']:,}"}
    reported = {name: value for name, value in imported.get("reported_by_file", {}).items() if value is not None}
    told = ", ".join(f"{name} {value:g}" for name, value in reported.items())
    return facts | ({"its file reports (not measured here)": told} if told else {})


def _data_facts(data: Mapping[str, object]) -> dict[str, str]:
    return {
        "data": f"{describe_source(data)} ({data['kind']}), label scheme {data['label_scheme']}",
        "fingerprint": data["fingerprint"],
        "split": data["split"] or "not said",
        "examples": _listed(data["examples"]),
        "known people": _listed(data["subjects"]),
        "inputs": f"{data['inputs']:,}, of which {data['rejected']:,} could not be used",
    }


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _draw_figures(run: Run) -> dict[str, str]:
    """Figure's name, such as `test_confusion` → its address within the page."""
    from .figures import save_figures

    if not run.evaluation:
        return {}
    with TemporaryDirectory() as folder:
        return _embedded(save_figures(Path(folder), run.results))


def _draw_logs(paths: Sequence[Path]) -> list[dict[str, object]]:
    from .figures import save_training_curves
    from .training_log import read_training_log

    logs = []
    for name, path in zip(_short_names(paths, 1), paths, strict=True):
        rows = read_training_log(path)
        with TemporaryDirectory() as folder:
            figures = _embedded(save_training_curves(rows, Path(folder) / "curves"))
        logs.append({"name": name, "rows": rows, "figure": figures["curves"]})
    return logs


def _embedded(files: Iterable[Path]) -> dict[str, str]:
    """As data, each SVG is a document of its own: names in one cannot clash with those in another."""
    return {
        path.stem: f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
        for path in files
        if path.suffix == ".svg"
    }
