"""The report as one self-contained HTML page (`report.html`), which loads nothing and needs no script.

Its figures are drawn again by `figures.save_figures`, so that none is missing or older than the numbers.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2

from ..data.described_data import DescribedData
from .bootstrap import MIN_PEOPLE_IN_A_CELL
from .figures import name_figures, save_figures, save_training_curves
from .report_table import (
    COLUMNS,
    DO_NOT_COMPARE,
    DRAWN_NOTES,
    LIMITS,
    Run,
    format_interval,
    format_score,
    format_share,
    group_runs,
    notes_on,
    short_names,
)
from .results_schema import Environment, ImportedFrom, Measurement, Results
from .training_log import read_training_log

_SCORES = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "auroc": "AUROC",
    "auprc_minority": "AUPRC of the rarest class",
    "quadratic_kappa": "quadratic kappa",
    "mae": "mean absolute error (levels)",
}
_GROUP_SCORES = {name: _SCORES[name] for name in ("macro_f1", "balanced_accuracy", "accuracy", "auroc")}
_LEVEL_SCORES = ("quadratic_kappa", "mae")  # only for the four levels
_FOCUS_REGIONS = {"face": "face box", "eyes": "eyes and brows", "mouth": "mouth"}
_TEMPLATE = Path(__file__).with_name("report.html")


def render_page(runs: Sequence[Run], training_logs: Sequence[Path]) -> str:
    """The page; logs are CSV files in the format of `read_training_log`.

    Raises:
        DataError: a file that is not a log.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    logs = _draw_logs(training_logs)  # first: a file that is no log is found before the long part
    environment.filters |= {"score": format_score, "share": format_share, "interval": format_interval}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        tables=group_runs(runs),
        columns=COLUMNS,
        limits=LIMITS,
        do_not_compare=DO_NOT_COMPARE,
        score_names=_SCORES,
        level_scores=_LEVEL_SCORES,
        group_scores=_GROUP_SCORES,
        focus_regions=_FOCUS_REGIONS,
        min_people=MIN_PEOPLE_IN_A_CELL,
        sections=[_section(run) for run in runs],
        drawn_notes=DRAWN_NOTES,
        logs=logs,
    )


@dataclass(frozen=True)
class _Measured:
    """A measurement as the page shows it."""

    title: str
    measured: Measurement
    facts: dict[str, str]
    notes: dict[str, str]
    is_own_data: bool  # whose audit the section of the model shows
    figures: list[str]  # addresses within the page: confusion, reliability, risk over coverage


@dataclass(frozen=True)
class _Section:
    """A model as the page shows it."""

    run: Run
    facts: dict[str, str]
    settings: str
    parts: list[_Measured]
    training_curves: str | None  # address within the page


def _section(run: Run) -> _Section:
    results = run.results
    with TemporaryDirectory() as folder:
        figures = _embedded(save_figures(Path(folder), results))
    return _Section(
        run,
        _facts(results),
        results.model_dump_json(indent=1, include={"recipe", "imported", "environment"}, exclude_none=True),
        [
            _Measured(
                _title_of(results, measured),
                measured,
                _measured_facts(results, measured),
                notes_on(results, measured),
                results.is_own_data(measured),
                [figures[f"{name}_{kind}"] for kind in ("confusion", "reliability", "risk_coverage")],
            )
            for name, measured in zip(name_figures(results), results.measurements, strict=True)
        ],
        figures.get("training_curves"),
    )


def _title_of(results: Results, measured: Measurement) -> str:
    """Data that is not the model's own is shown with its fingerprint: two sources may have the same name."""
    of_others = results.data is not None and not results.is_own_data(measured)
    told = [measured.data.fingerprint[:12]] * of_others + ["pooled"] * (measured.pooled is not None)
    return f"On {measured.split} of {measured.data.in_words()}" + (f" ({', '.join(told)})" if told else "")


def _facts(results: Results) -> dict[str, str]:
    """Origin of the model: what was trained or imported, from which weights, on which data."""
    facts = {"task": results.stage, "started from": results.started_from}
    facts |= {name: str(results.recipe[name]) for name in ("encoder", "temporal", "loss") if name in results.recipe}
    facts |= _origin_facts(results.imported) if results.imported else {}
    facts |= _data_facts(results.data) if results.data else {}
    if results.training:
        facts |= {"training labels": _listed(results.train_label_counts), "seed": str(results.seed)}
        facts["training took"] = f"{results.training.seconds:,.1f} s"
        if results.training.selection:
            facts["checkpoint kept for"] = results.training.selection.in_words()
    return facts


def _origin_facts(imported: ImportedFrom) -> dict[str, str]:
    facts = {"architecture": imported.system, "weights": f"{imported.num_weights:,}"}
    reported = imported.reported_by_file.model_dump(exclude_none=True) if imported.reported_by_file else {}
    told = ", ".join(f"{name} {value:g}" for name, value in reported.items())
    return facts | ({"its file reports (not measured here)": told} if told else {})


def _data_facts(data: DescribedData) -> dict[str, str]:
    """Facts about data; if an earlier version measured it, only those that it recorded."""
    scheme = f", label scheme {data.label_scheme}" if data.label_scheme else ""
    facts = {"data": f"{data.in_words()} ({data.kind}){scheme}", "fingerprint": data.fingerprint}
    facts |= {"split": data.split or "unknown", "examples": _listed(data.examples)} if data.examples else {}
    facts |= {"known people": _listed(data.subjects)} if data.subjects else {}
    if data.inputs is not None:
        facts["inputs"] = f"{data.inputs:,}, of which {data.rejected or 0:,} could not be used"
    return facts


def _measured_facts(results: Results, measured: Measurement) -> dict[str, str]:
    """Facts about the measured data, unless the model's own facts contain them, and about device and engine."""
    facts = {} if results.is_own_data(measured) else _data_facts(measured.data)
    return facts | ({"ran on": _describe_environment(measured.environment)} if measured.environment else {})


def _describe_environment(environment: Environment) -> str:
    device = f"{environment.device}, " if environment.device else ""
    engine = environment.engine or "torch"
    number = environment.packages.get(engine)
    precision = f"{environment.dtype}, " if environment.dtype else ""
    return f"{device}{engine}{f' {number}' if number else ''}, {precision}{environment.torch_threads} threads"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


@dataclass(frozen=True)
class _Log:
    """The log of an external training as the page shows it."""

    name: str
    rows: list[dict[str, float]]
    figure: str  # address within the page


def _draw_logs(paths: Sequence[Path]) -> list[_Log]:
    logs = []
    for name, path in zip(short_names(paths, 1), paths, strict=True):
        rows = read_training_log(path)
        with TemporaryDirectory() as folder:
            figures = _embedded(save_training_curves(rows, Path(folder) / "curves"))
        logs.append(_Log(name, rows, figures["curves"]))
    return logs


def _embedded(files: Iterable[Path]) -> dict[str, str]:
    """As a data address, each SVG is a separate document, so that names in two of them cannot clash."""
    return {
        path.stem: f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
        for path in files
        if path.suffix == ".svg"
    }
