"""A video's timeline as a plot: in the terminal, and as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.plotting import shown_name, take_literally
from .predictions import VideoPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLOCKS = " ▁▂▃▄▅▆▇█"
# Okabe and Ito's colours, told apart by colour-blind eyes too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def draw_in_terminal(prediction: VideoPrediction) -> str:
    """One line a label: a block a span, as high as the label's score; a dot where no face was seen."""
    names = list(prediction.scores)
    width = max(len(name) for name in names)
    lines = []
    for name in names:
        blocks = [_block(None if span.scores is None else span.scores[name]) for span in prediction.timeline]
        lines.append(f"{name:>{width}} |{''.join(blocks)}|")
    end = f" {prediction.timeline[-1].end_sec:g} s"
    lines.append(f"{'':>{width}}  0 s{end:>{max(1, len(prediction.timeline) - 3)}}")
    return "\n".join(lines)


def _block(score: float | None) -> str:
    return "·" if score is None else _BLOCKS[min(8, int(score * 9))]


def save_plot(prediction: VideoPrediction, path: Path) -> None:
    """A PNG: a line a label over the video's seconds, grey where no face was seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    spans = prediction.timeline
    for color, name in zip(_COLORS, prediction.scores, strict=False):
        scores = [None if span.scores is None else span.scores[name] for span in spans]
        _draw_line(axes, [(span.start_sec + span.end_sec) / 2 for span in spans], scores, color, name)
    for span in spans:
        if span.scores is None:
            axes.axvspan(span.start_sec, span.end_sec, color="0.85", lw=0)
    axes.set(ylim=(0, 1), xlim=(0, spans[-1].end_sec), xlabel="seconds", ylabel="score")
    axes.set_title(f"Predicted engagement, {shown_name(prediction.source)} (grey: no face)", fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    take_literally(figure)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _draw_line(
    axes: "Axes", centers_sec: Sequence[float], scores: Sequence[float | None], color: str, name: str
) -> None:
    heights = [float("nan") if score is None else score for score in scores]
    axes.plot(centers_sec, heights, color=color, label=name, marker="o", markersize=3, lw=1.5)
