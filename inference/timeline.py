"""A video's timeline: lines in the terminal, a PNG, and a CSV table.

With two classes it is one line, the score of the second label; with more, one line per label. Long timelines are merged
to fit the terminal's columns. If there is no answer, the reason is shown: uncertain, or no face.
"""

import csv
import io
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.plotting import shown_name, take_literally
from .predictions import Span, VideoPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WITHOUT_BLOCKS = {ord(block): str(height) for height, block in enumerate(_BLOCKS) if height} | {
    ord("·"): ".", ord("–"): "-", ord("…"): "...",
}  # fmt: skip
_UNCERTAIN = "uncertain"
# Okabe and Ito's colours, which colour-blind people can distinguish.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
UNCERTAIN_COLOR = OKABE_ITO[4]
_MIN_COLUMNS = 10
_MANY_SPANS = 120  # points of full size would overlap
_TICK_STEPS_SEC = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_MAX_TICKS = 9


@dataclass(frozen=True)
class _Column:
    """One character in the terminal: a span, or the mean over several."""

    scores: dict[str, float] | None  # None: no face in any of them
    is_uncertain: bool


def clock(seconds: float, with_hours: bool = False) -> str:
    """mm:ss, or h:mm:ss from one hour or `with_hours`; to the nearest second."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours or with_hours else f"{minute:02}:{second:02}"


def clock_ticks(start_sec: float, end_sec: float) -> list[tuple[float, str]]:
    """Times for an axis, at whole seconds, minutes or hours, and their labels; at most ten."""
    fitting = (step for step in _TICK_STEPS_SEC if (end_sec - start_sec) / step < _MAX_TICKS)
    step_sec = next(fitting, 3600 * int(np.ceil((end_sec - start_sec) / 3600 / _MAX_TICKS)))
    ticks_sec = [float(tick) for tick in np.arange(np.ceil(start_sec / step_sec) * step_sec, end_sec + 1e-6, step_sec)]
    has_hours = int(end_sec + 0.5) >= 3600
    return [(tick_sec, clock(tick_sec, has_hours)) for tick_sec in ticks_sec]


def draw_in_terminal(
    prediction: VideoPrediction, band: tuple[float, float] | None = None, width_chars: int | None = None
) -> str:
    """A block per span, as high as the score; a dot where no face was seen, "?" below where the answer is uncertain.

    Args:
        band: scores of the second of two labels between which an answer is uncertain; for the legend.
        width_chars: None: the terminal's width; spans that do not fit are merged by their mean.
    """
    width_chars = shutil.get_terminal_size().columns if width_chars is None else width_chars
    names = _shown_labels(prediction)
    indent = max(len(name) for name in names)
    spans, num_columns = prediction.timeline, max(_MIN_COLUMNS, width_chars - indent - 3)
    groups = np.array_split(np.arange(len(spans)), min(len(spans), num_columns))
    columns = [_merge([spans[place] for place in group]) for group in groups]
    lines = []
    for name in names:
        scores = (None if column.scores is None else column.scores[name] for column in columns)
        blocks = ["·" if score is None else _BLOCKS[min(8, int(score * 9))] for score in scores]
        lines.append(f"{name:>{indent}} |{''.join(blocks)}|")
    if any(column.is_uncertain for column in columns):
        lines.append(f"{'':>{indent}}  {''.join(' ?'[column.is_uncertain] for column in columns)}".rstrip())
    with_hours = int(spans[-1].end_sec + 0.5) >= 3600
    start, end = clock(spans[0].start_sec, with_hours), clock(spans[-1].end_sec, with_hours)
    lines.append(f"{'':>{indent}}  {start}{end:>{max(len(end) + 1, len(columns) - len(start))}}")
    lines += _legend(prediction, columns, band)
    return "\n".join(lines)


def in_terminal(drawing: str, encoding: str | None) -> str:
    """The drawing; for an encoding without blocks, heights as digits from 1 to 8."""
    try:
        drawing.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return drawing.translate(_WITHOUT_BLOCKS)
    return drawing


def _shown_labels(prediction: VideoPrediction) -> list[str]:
    """All labels; of two only the second, which determines the first and has the band of uncertain scores."""
    names = _label_names(prediction) or [""]
    return names[1:] if len(names) == 2 else names


def _label_names(prediction: VideoPrediction) -> list[str]:
    """Names from the first scores found; empty if a face was never visible for long enough."""
    known = (scores for scores in (prediction.scores, *(span.scores for span in prediction.timeline)) if scores)
    return list(next(known, {}))


def _merge(spans: Sequence[Span]) -> _Column:
    seen = [span for span in spans if _shows_face(span)]
    scores = [span.scores for span in seen if span.scores is not None]
    if not scores:
        return _Column(None, False)
    means = {name: float(np.mean([row[name] for row in scores])) for name in scores[0]}
    return _Column(means, sum(map(_is_uncertain, seen)) * 2 >= len(seen))


def _shows_face(span: Span) -> bool:
    """False if there was no face, or not for long enough."""
    return span.scores is not None and span.reason in (None, _UNCERTAIN)


def _is_uncertain(span: Span) -> bool:
    return span.label is None and span.reason == _UNCERTAIN


def _legend(prediction: VideoPrediction, columns: Sequence[_Column], band: tuple[float, float] | None) -> list[str]:
    parts = []
    if len(columns) < len(prediction.timeline):
        length_sec = (prediction.timeline[-1].end_sec - prediction.timeline[0].start_sec) / len(columns)
        parts.append(f"each column is a mean over about {clock(length_sec)}")
    if any(column.is_uncertain for column in columns):
        name = _shown_labels(prediction)[0]
        parts.append("? uncertain" + ("" if band is None else f" ({name} {band[0]:.2f} to {band[1]:.2f})"))
    if any(column.scores is None for column in columns):
        parts.append("· no face")
    return ["; ".join(parts)] if parts else []


def save_plot(
    prediction: VideoPrediction, path: Path, band: tuple[float, float] | None = None, note: str | None = None
) -> None:
    """A PNG: scores over the video's minutes, grey where no face was seen, hollow points where uncertain.

    Args:
        band: scores of the second of two labels between which an answer is uncertain; shaded.
        note: what must be known about the model, such as that it was trained on drawn people; under the title.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    spans, names = prediction.timeline, _shown_labels(prediction)
    if band is not None and len(names) == 1:
        axes.axhspan(*band, color=UNCERTAIN_COLOR, alpha=0.2, lw=0, label="uncertain scores")
    for color, name in zip(OKABE_ITO, names, strict=False):
        _draw_line(axes, spans, name, color)
    _mark_uncertain(axes, spans, names)
    for has_face, stretch in itertools.groupby(spans, _shows_face):
        if not has_face:
            without = list(stretch)
            axes.axvspan(without[0].start_sec, without[-1].end_sec, color="0.85", lw=0)
    axes.set(ylim=(0, 1), ylabel="score" if len(names) > 1 else f"score of {names[0]}")
    _put_clock_below(axes, spans[0].start_sec, spans[-1].end_sec)
    title = f"Scores over time, {shown_name(prediction.source)} (grey: no face)"
    axes.set_title(title, fontsize=10, pad=6 if note is None else 20)
    if note is not None:
        at = (0.5, 1.0)
        axes.annotate(note, at, (0, 6), "axes fraction", "offset points", ha="center", va="bottom", fontsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    take_literally(figure)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _draw_line(axes: "Axes", spans: Sequence[Span], name: str, color: str) -> None:
    heights = [span.scores[name] if span.scores and _shows_face(span) else float("nan") for span in spans]
    # Always points: a span between two without a face would have no line.
    size = 4 if len(spans) <= _MANY_SPANS else 1.5
    axes.plot(_centers_sec(spans), heights, color=color, label=name, marker="o", markersize=size, lw=1.5)


def _mark_uncertain(axes: "Axes", spans: Sequence[Span], names: Sequence[str]) -> None:
    """Hollow points on the line, or on the highest of several lines."""
    if uncertain := [span for span in spans if _is_uncertain(span)]:
        heights = [max(span.scores[name] for name in names) if span.scores else float("nan") for span in uncertain]
        size, label = 4 if len(spans) <= _MANY_SPANS else 2.5, "no label:\nuncertain"
        axes.plot(_centers_sec(uncertain), heights, "o", ms=size, mfc="white", mec="black", mew=0.8, label=label)


def _centers_sec(spans: Sequence[Span]) -> list[float]:
    return [(span.start_sec + span.end_sec) / 2 for span in spans]


def _put_clock_below(axes: "Axes", start_sec: float, end_sec: float) -> None:
    ticks = clock_ticks(start_sec, end_sec)
    axes.set_xticks([tick_sec for tick_sec, _ in ticks], [shown for _, shown in ticks])
    axes.set(xlim=(start_sec, end_sec), xlabel="h:min:s" if int(end_sec + 0.5) >= 3600 else "min:s")


def timeline_rows(prediction: VideoPrediction) -> list[list[str | float]]:
    """A header and a row per span: start_sec, end_sec, label, reason, face_coverage, certainty, a column per score.

    Missing values are "": the label of a span without an answer, the reason of one with a label, scores without a face,
    face coverage for a model of whole frames.
    """
    names = _label_names(prediction)
    header = ["start_sec", "end_sec", "label", "reason", "face_coverage", "certainty", *names]
    rows: list[list[str | float]] = [[*header]]
    for span in prediction.timeline:
        scores = [_rounded(None if span.scores is None else span.scores[name], 4) for name in names]
        measures = [_rounded(span.face_coverage, 3), _rounded(span.certainty, 4)]
        rows.append([span.start_sec, span.end_sec, span.label or "", span.reason or "", *measures, *scores])
    return rows


def _rounded(value: float | None, num_digits: int) -> str | float:
    return "" if value is None else round(value, num_digits)


def timeline_csv(prediction: VideoPrediction) -> str:
    """`timeline_rows` as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(timeline_rows(prediction))
    return file.getvalue()
