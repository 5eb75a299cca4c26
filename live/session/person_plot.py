"""What the model said of one person over a recording, as paths for an SVG: seconds to the right, pixels down.

A score holds for its whole window, so that a line has steps. Where there is no score the line ends and the ground is
grey: nothing is drawn from the last window with one to the next.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...answer_rule import UNCERTAIN, AnswerRule
from .records import SessionRow

ONE_LINE_PX, LANE_PX, STRIP_PX = 128, 34, 14  # heights: of the only line, of one of several, of what lies below
_GAP_PX = 8  # between them, and above the first
_TOUCH_SEC = 0.1  # windows no further apart than this lie end to end


@dataclass(frozen=True)
class Lane:
    """A strip of the plot, from `top_px` down by `height_px`, with a path to fill or to draw in it."""

    name: str
    top_px: int
    height_px: int
    line: str = ""  # to draw
    dots: str = ""  # to draw thicker: windows with no neighbour, which nobody would see on the line
    area: str = ""  # to fill

    @property
    def bottom_px(self) -> int:
        """Where 0 is."""
        return self.top_px + self.height_px


@dataclass(frozen=True)
class PersonPlot:
    """All that is drawn of one person; everything lies in one SVG that is `end_sec` wide and `height_px` high."""

    end_sec: float
    height_px: int
    without_score: str  # path: windows of no score, to fill
    scores: tuple[Lane, ...]  # of two labels the second; else a lane a label, its area where it is the answer
    uncertain: Lane | None  # where there is a score and no answer; None of two labels, whose band shows it
    coverage: Lane  # how much of the frames show the face
    stretches_sec: tuple[tuple[float, float], ...]  # from when to when there are scores without a gap


def plot_person(rows: Sequence[SessionRow], rule: AnswerRule, end_sec: float) -> PersonPlot:
    """
    Args:
        rows: of one person, by time.
        end_sec: of the recording; the same for everybody in it, so that times lie below each other.
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
    """How far down a score lies."""
    return lane.top_px + (1 - score) * lane.height_px


def _score_lane(scored: Sequence[Sequence[SessionRow]], name: str, top_px: int, height_px: int) -> Lane:
    to_px = _scale(top_px, height_px, lambda row: (row.scores or {})[name])
    answered = [part for stretch in scored for part in _stretches([row for row in stretch if row.label == name])]
    line, dots = (_line([part for part in scored if (len(part) == 1) == is_lone], to_px) for is_lone in (False, True))
    return Lane(name, top_px, height_px, line, dots, _area(answered, to_px, top_px + height_px))


def _scale(top_px: int, height_px: int, to_share: Callable[[SessionRow], float]) -> Callable[[SessionRow], str]:
    return lambda row: _short(top_px + (1 - to_share(row)) * height_px, 1)


def _stretches(rows: Sequence[SessionRow]) -> Iterator[list[SessionRow]]:
    """Rows that lie end to end, together."""
    stretch: list[SessionRow] = []
    for row in rows:
        if stretch and row.start_sec - stretch[-1].end_sec > _TOUCH_SEC:
            yield stretch
            stretch = []
        stretch.append(row)
    if stretch:
        yield stretch


def _between(spans_sec: Sequence[tuple[float, float]], end_sec: float) -> list[tuple[float, float]]:
    """What the spans leave free from 0 to `end_sec`."""
    edges = [0.0, *(edge for span in spans_sec for edge in span), end_sec]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start > _TOUCH_SEC]


def _line(stretches: Sequence[Sequence[SessionRow]], to_px: Callable[[SessionRow], str]) -> str:
    return "".join(f"M{_short(rows[0].start_sec)} {to_px(rows[0])}{_steps(rows, to_px)}" for rows in stretches)


def _area(stretches: Sequence[Sequence[SessionRow]], to_px: Callable[[SessionRow], str], base_px: float) -> str:
    base = _short(base_px)
    return "".join(f"M{_short(rows[0].start_sec)} {base}{_steps(rows, to_px)}V{base}Z" for rows in stretches)


def _steps(rows: Sequence[SessionRow], to_px: Callable[[SessionRow], str]) -> str:
    """Down or up to each row's height and on to its end; equal ones are one step."""
    heights = [to_px(row) for row in rows]
    return "".join(
        f"V{height}H{_short(row.end_sec)}"
        for row, height, following in zip(rows, heights, [*heights[1:], None], strict=True)
        if height != following
    )


def _blocks(spans_sec: Sequence[tuple[float, float]], top_px: int, bottom_px: int) -> str:
    return "".join(f"M{_short(a)} {top_px}H{_short(b)}V{bottom_px}H{_short(a)}Z" for a, b in spans_sec)


def _short(number: float, num_digits: int = 2) -> str:
    """Hundreds of thousands of them make a page: no digit that nobody sees."""
    return f"{number:.{num_digits}f}".rstrip("0").rstrip(".")
