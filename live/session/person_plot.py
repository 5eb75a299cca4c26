"""One person's scores over a recording, as paths for an SVG: seconds to the right, pixels down.

A score applies to its whole window, so lines have steps. Without a score the line is interrupted and the background is
grey: windows with scores are not connected across a gap.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...answer_rule import UNCERTAIN, AnswerRule
from .records import SessionRow

ONE_LINE_PX, LANE_PX, STRIP_PX = 128, 34, 14  # heights: of a single line, of one of several, of strips below
_GAP_PX = 8  # between lanes, and above the first
_TOUCH_SEC = 0.1  # windows no further apart than this are adjacent


@dataclass(frozen=True)
class Lane:
    """A strip of the plot, `height_px` high from `top_px` down, with paths to fill or draw."""

    name: str
    top_px: int
    height_px: int
    line: str = ""  # to draw
    dots: str = ""  # to draw thicker: windows without a neighbour, too short to see as a line
    area: str = ""  # to fill

    @property
    def bottom_px(self) -> int:
        """The position of 0."""
        return self.top_px + self.height_px


@dataclass(frozen=True)
class PersonPlot:
    """One person's plot, an SVG `end_sec` wide and `height_px` high."""

    end_sec: float
    height_px: int
    without_score: str  # path to fill: windows without a score
    scores: tuple[Lane, ...]  # of two labels the second; else one per label, filled where it is the answer
    uncertain: Lane | None  # windows with scores but no answer; None for two labels, which have a band
    coverage: Lane  # share of the frames that show the face
    stretches_sec: tuple[tuple[float, float], ...]  # start and end of spans with scores and no gap


def plot_person(rows: Sequence[SessionRow], rule: AnswerRule, end_sec: float) -> PersonPlot:
    """
    Args:
        rows: one person's, by time.
        end_sec: the recording's end; the same for everybody, so that times are aligned.
    """
    scored = list(_stretches([row for row in rows if row.scores is not None]))
    is_one_line = len(rule.label_names) == 2
    names, height_px = (rule.label_names[1:], ONE_LINE_PX) if is_one_line else (rule.label_names, LANE_PX)
    tops_px = [_GAP_PX + place * (height_px + _GAP_PX) for place in range(len(names) + 2)]
    lanes = tuple(_score_lane(scored, name, top_px, height_px) for name, top_px in zip(names, tops_px, strict=False))
    below_px = tops_px[len(names)]
    uncertain = None
    if not is_one_line:
        spans_sec = [(row.start_sec, row.end_sec) for row in rows if row.label is None and row.reason == UNCERTAIN]
        uncertain = Lane(UNCERTAIN, below_px, STRIP_PX, area=_blocks(spans_sec, below_px, below_px + STRIP_PX))
        below_px += STRIP_PX + _GAP_PX
    seen = list(_stretches([row for row in rows if row.face_coverage]))
    to_px = _scale(below_px, STRIP_PX, lambda row: row.face_coverage or 0.0)
    stretches_sec = [(stretch[0].start_sec, stretch[-1].end_sec) for stretch in scored]
    return PersonPlot(
        end_sec,
        below_px + STRIP_PX,
        _blocks(_between(stretches_sec, end_sec), 0, lanes[-1].bottom_px),
        lanes,
        uncertain,
        Lane("face seen", below_px, STRIP_PX, area=_area(seen, to_px, below_px + STRIP_PX)),
        tuple(stretches_sec),
    )


def score_px(score: float, lane: Lane) -> float:
    """Vertical position of a score."""
    return lane.top_px + (1 - score) * lane.height_px


def _score_lane(scored: Sequence[Sequence[SessionRow]], name: str, top_px: int, height_px: int) -> Lane:
    to_px = _scale(top_px, height_px, lambda row: (row.scores or {})[name])
    answered = [part for stretch in scored for part in _stretches([row for row in stretch if row.label == name])]
    line, dots = (_line([part for part in scored if (len(part) == 1) == is_lone], to_px) for is_lone in (False, True))
    return Lane(name, top_px, height_px, line, dots, _area(answered, to_px, top_px + height_px))


def _scale(top_px: int, height_px: int, to_share: Callable[[SessionRow], float]) -> Callable[[SessionRow], str]:
    return lambda row: _short(top_px + (1 - to_share(row)) * height_px, 1)


def _stretches(rows: Sequence[SessionRow]) -> Iterator[list[SessionRow]]:
    """Groups of adjacent rows."""
    stretch: list[SessionRow] = []
    for row in rows:
        if stretch and row.start_sec - stretch[-1].end_sec > _TOUCH_SEC:
            yield stretch
            stretch = []
        stretch.append(row)
    if stretch:
        yield stretch


def _between(spans_sec: Sequence[tuple[float, float]], end_sec: float) -> list[tuple[float, float]]:
    """The gaps between the spans from 0 to `end_sec`."""
    edges = [0.0, *(edge for span in spans_sec for edge in span), end_sec]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start > _TOUCH_SEC]


def _line(stretches: Sequence[Sequence[SessionRow]], to_px: Callable[[SessionRow], str]) -> str:
    return "".join(f"M{_short(rows[0].start_sec)} {to_px(rows[0])}{_steps(rows, to_px)}" for rows in stretches)


def _area(stretches: Sequence[Sequence[SessionRow]], to_px: Callable[[SessionRow], str], base_px: float) -> str:
    base = _short(base_px)
    return "".join(f"M{_short(rows[0].start_sec)} {base}{_steps(rows, to_px)}V{base}Z" for rows in stretches)


def _steps(rows: Sequence[SessionRow], to_px: Callable[[SessionRow], str]) -> str:
    """Vertically to each row's height and horizontally to its end; equal heights are one step."""
    heights = [to_px(row) for row in rows]
    return "".join(
        f"V{height}H{_short(row.end_sec)}"
        for row, height, following in zip(rows, heights, [*heights[1:], None], strict=True)
        if height != following
    )


def _blocks(spans_sec: Sequence[tuple[float, float]], top_px: int, bottom_px: int) -> str:
    return "".join(f"M{_short(a)} {top_px}H{_short(b)}V{bottom_px}H{_short(a)}Z" for a, b in spans_sec)


def _short(number: float, num_digits: int = 2) -> str:
    """Without invisible digits: a page may contain hundreds of thousands of numbers."""
    return f"{number:.{num_digits}f}".rstrip("0").rstrip(".")
