"""Results as figures, each as PNG and SVG: confusion matrix, reliability, risk and coverage, training curves.

They read the records of `score_records` and the log of a training, and compute nothing. Colour-blind readers can
distinguish the colours, and no meaning depends on colour alone; text is readable in a paper's column and on a phone.
The same input gives the same bytes. matplotlib is imported late, and only as objects: no window, no global figure.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..processor.input_errors import DataError
from .plotting import take_literally
from .results_schema import Results, Selection
from .score_records import Calibration, RiskCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES_FOLDER = "figures"  # in the model's folder
FIGURE_NAME = re.compile(r"(\w+_(confusion|reliability|risk_coverage)|training_curves)\.(png|svg)")
_SOURCE_CHARACTERS = 40  # limit, as file names have a maximum length
LogRow = Mapping[str, float | None]  # of a training's log
# Okabe and Ito's colours, which colour-blind readers can distinguish.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "0.45"
_TEXT_PT, _SMALL_TEXT_PT = 11, 10
_PNG_DPI = 200
_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2}
_CURVES = {
    "train_loss": ("training loss", _BLUE, "o"),
    "val_loss": ("validation loss", _ORANGE, "s"),
    "val_macro_f1": ("validation macro-F1", _GREEN, "^"),
}
_TRAINER_NAMES = {"loss": "train_loss", "eval_loss": "val_loss", "eval_macro_f1": "val_macro_f1"}


def save_confusion(
    confusion_matrix: Sequence[Sequence[float]], label_names: Sequence[str], path: Path, title: str | None = None
) -> list[Path]:
    """Counts and shares per true class: each row sums to 100 %, so that a rare class is as visible as a common one.

    Args:
        confusion_matrix: (num_labels, num_labels), rows: truth, columns: prediction.
        path: of the figure; its suffix is replaced by .png and .svg.

    Returns:
        The two files written.
    """
    counts = np.asarray(confusion_matrix, dtype=float)
    true = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, true, out=np.zeros_like(counts), where=true > 0)
    side_inches = 2.2 + 0.75 * len(label_names)
    figure = _new_figure(side_inches, side_inches - 0.3)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        share = shares[row, column]
        text = f"{counts[row, column]:,.0f}\n{_percent(round(share, 2))}"
        color = "white" if share > 0.6 else "black"  # readable on the blue behind it
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=_SMALL_TEXT_PT)
    names = [name.replace(" ", "\n") for name in label_names]
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true (100 % per row)", title=title)
    axes.tick_params(length=0)
    return _save(figure, path)


def save_reliability(calibration: Calibration, path: Path, title: str | None = None) -> list[Path]:
    """Accuracy over confidence, and below it the number of examples in each bin.

    Args:
        path: as in `save_confusion`.
    """
    figure = _new_figure(4.6, 5.2)
    axes, below = figure.subplots(nrows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    filled = [row for row in calibration.bins if row.count]
    left, width = [row.lower for row in filled], [row.upper - row.lower for row in filled]
    confidence, accuracy = [row.confidence for row in filled], [row.accuracy for row in filled]
    bars = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    axes.bar(left, accuracy, width, color=_BLUE, label="accuracy", **bars)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="calibrated")
    axes.plot(confidence, confidence, "o", color=_ORANGE, markersize=5, label="mean confidence")
    axes.vlines(confidence, accuracy, confidence, color=_ORANGE, linewidth=1.5)
    axes.set(ylabel="share right", ylim=(0, 1), xlim=(0, 1), title=title)
    text = f"ECE {calibration.ece:.3f}"
    axes.text(0.97, 0.04, text, transform=axes.transAxes, ha="right", va="bottom", bbox=_LABEL_BOX)
    axes.legend(loc="upper left", frameon=False, fontsize=_SMALL_TEXT_PT)
    below.bar(left, [row.count for row in filled], width, color=_GREY, **bars)
    below.set(xlabel="confidence (score of the predicted class)", ylabel="examples")
    return _save(figure, path)


def save_risk_coverage(
    curves: RiskCoverage | Mapping[str, RiskCoverage], path: Path, title: str | None = None
) -> list[Path]:
    """The share of errors among the most confident examples, over the share of examples answered.

    Args:
        curves: one, or several by name.
        path: as in `save_confusion`.
    """
    named = {"": curves} if isinstance(curves, RiskCoverage) else curves
    figure = _new_figure(5, 3.8)
    axes = figure.subplots()
    styles = zip((_BLUE, _ORANGE, _GREEN, _GREY), ("-", "--", "-.", ":"), strict=True)
    for (name, curve), (color, line) in zip(named.items(), styles, strict=False):
        area = f"AURC {curve.aurc:.3f}"
        label = f"{name} ({area})" if name else area
        axes.plot(curve.coverage, curve.risk, color=color, linestyle=line, linewidth=2, label=label)
    highest = max(max(curve.risk) for curve in named.values())
    axes.set(xlabel="coverage (share answered)", ylabel="risk (share wrong)", title=title)
    axes.set(xlim=(0, 1), ylim=(0, min(1, 1.1 * highest) or 0.1))
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    axes.grid(color="0.9")
    axes.legend(frameon=False, fontsize=_SMALL_TEXT_PT)
    return _save(figure, path)


def save_training_curves(
    log: Sequence[LogRow], path: Path, title: str | None = None, selection: Selection | None = None
) -> list[Path]:
    """Losses and validation macro-F1 over epochs; marks the epoch whose checkpoint was kept or, if unknown, the best.

    Args:
        log: Trainer's own rows, or rows with `epoch` and some of `train_loss`, `val_loss`, `val_macro_f1`; non-finite
            numbers, None in the log, are left out.
        path: as in `save_confusion`.
        selection: which checkpoint was kept; the score that selected it is drawn too.

    Raises:
        DataError: the log contains no such number.
    """
    curves = _read_curves(log)
    figure = _new_figure(5, 5.2)
    losses, scores = figure.subplots(nrows=2, sharex=True)
    for name, (epochs, values) in curves.items():
        label, color, marker = _CURVES[name]
        axes = scores if name == "val_macro_f1" else losses
        # Markers only for few points: Trainer may log the loss more often than once per epoch.
        marks = {"marker": marker, "markersize": 5} if len(epochs) <= 40 else {}
        axes.plot(epochs, values, color=color, label=label, linewidth=1.8, **marks)
    losses.set(ylabel="loss", title=title)
    scores.set(xlabel="epoch", ylabel="macro-F1", ylim=(0, 1))
    if selection is not None and selection.step is not None:
        _mark_kept(losses, scores, log, selection)
    elif "val_macro_f1" in curves:
        _mark_best(scores, *curves["val_macro_f1"])
    scores.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, scores):
        axes.grid(color="0.9")
        if axes.lines:
            axes.legend(frameon=False, fontsize=_SMALL_TEXT_PT)
    return _save(figure, path)


def _read_curves(log: Sequence[LogRow]) -> dict[str, tuple[list[float], list[float]]]:
    """By curve: epochs and values."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in log:
        epoch = row.get("epoch")
        # The last row of Trainer's log has `train_loss` as a mean over the whole run, and `train_runtime`.
        if epoch is None or "train_runtime" in row:
            continue
        for key, value in row.items():
            name = _TRAINER_NAMES.get(key, key)
            if name in _CURVES and value is not None:
                epochs, values = curves.setdefault(name, ([], []))
                epochs.append(float(epoch))
                values.append(float(value))
    if not curves:
        raise DataError(
            f"The training log has {len(log)} rows, but none with an epoch and any of {', '.join(_CURVES)}."
        )
    return {name: curves[name] for name in _CURVES if name in curves}


def _mark_best(axes: "Axes", epochs: Sequence[float], values: Sequence[float]) -> None:
    best = int(np.argmax(values))
    label = f"best: {values[best]:.3f} at epoch {epochs[best]:g}"
    axes.plot(epochs[best], values[best], "*", color=_ORANGE, markersize=14, zorder=3, linestyle="", label=label)


def _mark_kept(losses: "Axes", scores: "Axes", log: Sequence[LogRow], selection: Selection) -> None:
    """Mark the epoch whose checkpoint was kept, and draw the score that selected it, if it is from 0 to 1."""
    evaluations = [row for row in log if row.get(f"eval_{selection.score}") is not None]
    name = selection.score.removesuffix("_minority").replace("_", " ")
    if selection.score not in ("macro_f1", "loss", "mae", "quadratic_kappa"):
        points = [(row["epoch"], row[f"eval_{selection.score}"]) for row in evaluations]
        scores.plot(*zip(*points, strict=True), "D-", color=_BLUE, markersize=4, label=f"validation {name}")
        scores.set(ylabel="score")
    kept = next((row["epoch"] for row in evaluations if row.get("step") == selection.step), None)
    if kept is not None:
        losses.axvline(kept, color=_GREY, linestyle=":")
        scores.axvline(kept, color=_GREY, linestyle=":", label=f"kept: {name} {selection.value:.3f} at epoch {kept:g}")


def _percent(share: float, _: object = None) -> str:
    return f"{100 * share:.3g} %"


def _new_figure(width_inches: float, height_inches: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _save(figure: "Figure", path: Path) -> list[Path]:
    """PNG for screens, SVG for papers."""
    import matplotlib

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_fontsize(_TEXT_PT)
        axes.tick_params(labelsize=_SMALL_TEXT_PT)
    take_literally(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    figure.savefig(png, dpi=_PNG_DPI)
    figure.set_layout_engine("none")  # laid out once
    # Without a fixed salt, or with a date, every SVG would differ from the last.
    with matplotlib.rc_context({"svg.hashsalt": "engagement"}):
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def name_figures(results: Results) -> list[str]:
    """By measurement, the unique prefix of its figures' names: only the split for the model's main measurement."""
    names: list[str] = []
    for measured in results.measurements:
        data, name = measured.data, measured.split
        if measured is not results.measured_on(name):
            name = f"{name}_{data.source[:_SOURCE_CHARACTERS]}_{data.fingerprint[:8]}"
        name = re.sub(r"[\W_]+", "_", name, flags=re.ASCII)
        while name in names:
            name += "_again"  # the same data with other labels, or from several trainings
        names.append(name)
    return names


def save_figures(folder: Path, results: Results) -> list[Path]:
    """For every measurement: confusion, reliability, risk over coverage; and training curves, as PNG and SVG.

    Older figures of other measurements are removed.
    """
    place = folder / FIGURES_FOLDER
    place.mkdir(exist_ok=True)
    files = []
    for name, measured in zip(name_figures(results), results.measurements, strict=True):
        parts = {name: measured.evaluation, f"{name}_without_duplicates": measured.without_duplicates}
        for part, evaluation in parts.items():
            if evaluation:
                confusion = evaluation.scores.confusion_matrix
                files += save_confusion(confusion, results.label_names, place / f"{part}_confusion")
                files += save_reliability(evaluation.calibration.as_trained, place / f"{part}_reliability")
                files += save_risk_coverage(evaluation.risk_coverage, place / f"{part}_risk_coverage")
    if results.training and results.training.log:
        files += save_training_curves(
            results.training.log, place / "training_curves", selection=results.training.selection
        )
    for path in place.iterdir():
        if FIGURE_NAME.fullmatch(path.name) and path not in files:
            path.unlink()
    return files
