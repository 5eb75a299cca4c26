"""A search as one figure: the score of each trial with the best so far, then the score over each option's values.

matplotlib is imported late, and only as objects; the same input gives the same bytes.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.atomic_files import write_whole
from ..evaluation.plotting import shown_name, take_literally
from ..training.run_record import OptionValue
from .tune_records import Search
from .tune_space import Range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can distinguish; shapes differ as well.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "0.45"
_COLUMNS, _PANEL_INCHES, _PNG_DPI = 3, 3.6, 150
_TEXT_PT = 10


def save_search_figure(search: Search, path: Path) -> None:
    """Write the figure as PNG; raises DataError where it cannot be written."""
    from matplotlib.figure import Figure

    rows = 1 + math.ceil(len(search.space) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_INCHES, rows * 0.8 * _PANEL_INCHES), layout="constrained")
    grid = figure.add_gridspec(rows, _COLUMNS)
    _draw_course(figure.add_subplot(grid[0, :]), search)
    for place, (name, entry) in enumerate(search.space.items()):
        axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
        _draw_option(axes, search, name, entry)
    figure.suptitle(f"{shown_name(search.recipe)}, {len(search.trials)} trials, on validation", fontsize=_TEXT_PT + 1)
    take_literally(figure)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_PNG_DPI)
    write_whole(path, content.getvalue())


def _draw_course(axes: "Axes", search: Search) -> None:
    from matplotlib.ticker import MaxNLocator

    numbered = list(enumerate(search.trials, start=1))
    scored = [(number, trial.score, trial.noise or 0.0) for number, trial in numbered if trial.score is not None]
    xs, scores, errors = (np.array(column) for column in zip(*scored, strict=True))
    best = np.maximum.accumulate(scores) if search.greater_is_better else np.minimum.accumulate(scores)
    axes.errorbar(xs, scores, errors, fmt="o", color=_BLUE, ecolor="0.75", label="trial (bar: standard error)")
    axes.step([*xs, len(search.trials)], [*best, best[-1]], where="post", color=_ORANGE, label="best so far")
    axes.plot(xs[:1], scores[:1], "s", color=_GREEN, markersize=9, label="unchanged recipe")
    first = int(np.argmax(scores == best[-1]))
    axes.plot(xs[first], scores[first], "D", color=_ORANGE, markersize=8, label="the best")
    failed = [number for number, trial in numbered if trial.score is None]
    if failed:
        axes.plot(failed, [scores.min()] * len(failed), "x", color=_GREY, label="failed")
    axes.set(xlabel="trial", ylabel=f"{search.score}, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=_TEXT_PT - 1, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5)
    _clean(axes)


def _draw_option(axes: "Axes", search: Search, name: str, entry: Range | list[OptionValue]) -> None:
    """One point per trial with a score; the recipe's own value and the best are marked."""
    from matplotlib.ticker import NullFormatter

    values = [trial.values.get(name) for trial in search.trials]
    if isinstance(entry, list):
        shown = list(dict.fromkeys([*entry, *values]))
        axes.set_xticks(range(len(shown)), [shown_name(str(value)) for value in shown])
        axes.set_xlim(-0.5, len(shown) - 0.5)
        xs: list[float | None] = [shown.index(value) for value in values]
    else:
        xs = [float(value) if isinstance(value, (int, float)) else None for value in values]
        if entry.log and all(x is None or x > 0 for x in xs):
            axes.set_xscale("log")
            ticks = [entry.low, math.sqrt(entry.low * entry.high), entry.high]
            axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
            axes.xaxis.set_minor_formatter(NullFormatter())
            reached = [*ticks, *(x for x in xs if x is not None)]
            axes.set_xlim(min(reached) / 1.3, max(reached) * 1.3)
    styles = {1: (_GREEN, "s", 9), search.best(): (_ORANGE, "D", 8)}
    for number, (trial, x) in enumerate(zip(search.trials, xs, strict=True), start=1):
        color, marker, size = styles.get(number, (_BLUE, "o", 6))
        if x is not None and trial.score is not None:
            axes.plot([x], [trial.score], marker, color=color, markersize=size)
    axes.set(xlabel=name, ylabel=search.score)
    _clean(axes)


def _clean(axes: "Axes") -> None:
    axes.tick_params(labelsize=_TEXT_PT - 1)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
