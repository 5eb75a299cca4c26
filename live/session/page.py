"""A recorded session as one self-contained HTML page without scripts.

One figure per person, by number, and counts over all recordings together. There is no ranking, no overall score of a
person, and no colour for good or bad: these would invite uses that `hub.use_limits` rules out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from ...answer_rule import (
    FACE_TOO_SMALL,
    NO_FACE_LONG_ENOUGH,
    UNCERTAIN,
    UNKNOWN,
    UNREADABLE,
    AnswerRule,
)
from ...evaluation.report_table import short_names
from ...hub.use_limits import limits_as_html
from ...inference.predictions import Refusal
from ...inference.timeline import OKABE_ITO, UNCERTAIN_COLOR, clock, clock_ticks
from .person_plot import PersonPlot, plot_person, score_px
from .records import NOBODY_SEEN, SessionPerson, SessionRow, SessionVideo

NUM_BINS = 10  # of the scores' histogram
_REASONS = (UNCERTAIN, NO_FACE_LONG_ENOUGH, FACE_TOO_SMALL, UNREADABLE)
_MOST_SPANS_IN_WORDS = 12
_TEMPLATE = Path(__file__).with_name("session.html")


def render_page(
    videos: Sequence[SessionVideo],
    refused: Sequence[Refusal],
    rule: AnswerRule,
    warnings: Sequence[str] = (),
    names: str | None = None,
) -> str:
    """The whole page; it can be written as UTF-8, whatever bytes the files' names contain.

    Args:
        warnings: the model's, without a full stop.
        names: what the model predicts, if not engagement.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"clock": clock, "counted": _counted, "share": _share}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    files = short_names([Path(source) for source in (*(it.source for it in videos), *(it.source for it in refused))], 1)
    sections = [_section(video, name, rule) for video, name in zip(videos, files, strict=False)]
    page = template.render(
        limits=Markup(limits_as_html()),
        warnings=warnings,
        names=names,
        rule=rule,
        learned_from="unknown data" if rule.trained_on == UNKNOWN else rule.trained_on,
        band=rule.uncertain_band(),
        sections=sections,
        refused=[(name, it.error) for name, it in zip(files[len(videos) :], refused, strict=True)],
        counts=_count(sections, rule),
        score_px=score_px,
        colors={"score": OKABE_ITO[0], "score_on_dark": OKABE_ITO[5], "uncertain": UNCERTAIN_COLOR},
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class _Counts:
    """Counts over the windows of all recordings."""

    answers: dict[str, int]  # windows with a person, by label or reason for none
    windows: dict[str, int]  # windows of the recordings, by whether somebody was seen
    histogram: list[int]  # windows by the second label's score; empty for more than two labels

    @property
    def num_scored(self) -> int:
        """Windows in the histogram."""
        return sum(self.histogram)


def _count(sections: Sequence["_Section"], rule: AnswerRule) -> _Counts:
    of_people = [row for section in sections for row in section.video.rows if row.person is not None]
    num_nobody = sum(section.num_nobody for section in sections)
    num_unreadable = sum(section.num_unreadable for section in sections)
    num_seen = sum(section.num_windows for section in sections) - num_nobody - num_unreadable
    answers = dict.fromkeys((*rule.label_names, *_REASONS), 0)
    for row in of_people:
        answer = str(row.label or row.reason)
        answers[answer] = answers.get(answer, 0) + 1
    histogram = [0] * NUM_BINS if len(rule.label_names) == 2 else []
    for row in of_people if histogram else []:
        if row.scores is not None:
            histogram[min(NUM_BINS - 1, int(row.scores[rule.label_names[1]] * NUM_BINS))] += 1
    windows = {"somebody seen": num_seen, NOBODY_SEEN: num_nobody, UNREADABLE: num_unreadable}
    return _Counts(answers, windows, histogram)


@dataclass(frozen=True)
class _Figure:
    """A person on the page."""

    person: SessionPerson
    visits: str
    plot: PersonPlot
    in_words: str  # the figure's text alternative


@dataclass(frozen=True)
class _Section:
    """A recording on the page."""

    name: str
    video: SessionVideo
    num_windows: int
    num_nobody: int
    num_unreadable: int
    ticks: list[tuple[float, str]]  # percent of the width, time
    figures: list[_Figure]


def _section(video: SessionVideo, name: str, rule: AnswerRule) -> _Section:
    # A file without duration needs an axis too.
    end_sec = max([video.duration_sec, *(row.end_sec for row in video.rows)]) or 1.0
    by_person: dict[int | None, list[SessionRow]] = {}
    for row in video.rows:
        by_person.setdefault(row.person, []).append(row)
    without = by_person.get(None, [])
    num_nobody = sum(row.reason == NOBODY_SEEN for row in without)
    return _Section(
        name,
        video,
        len({row.start_sec for row in video.rows}),
        num_nobody,
        len(without) - num_nobody,
        [(100 * tick_sec / end_sec, shown) for tick_sec, shown in clock_ticks(0, end_sec)],
        [
            _figure(person, by_person.get(person.number, []), rule, end_sec)
            for person in sorted(video.people, key=lambda person: person.number)
        ],
    )


def _figure(person: SessionPerson, rows: Sequence[SessionRow], rule: AnswerRule, end_sec: float) -> _Figure:
    plot = plot_person(rows, rule, end_sec)
    spans = [(visit.start_sec, visit.end_sec) for visit in person.visits]
    seen = f"Seen {_spans_in_words(spans, end_sec)}." if spans else "No time known."
    return _Figure(person, seen, plot, _plot_in_words(person, rows, plot))


def _spans_in_words(spans_sec: Sequence[tuple[float, float]], end_sec: float) -> str:
    """All spans; of very many, the first ones, the number of further ones and the last."""
    with_hours = clock(end_sec).count(":") == 2
    told = [f"{clock(start, with_hours)} to {clock(end, with_hours)}" for start, end in spans_sec]
    more = len(told) - _MOST_SPANS_IN_WORDS
    if more > 1:
        told = [*told[:_MOST_SPANS_IN_WORDS], f"{more} more times, the last {told[-1]}"]
    return told[0] + "".join(
        f", {'and ' if place == len(told) else ''}{'again ' if place == 2 else ''}{span}"
        for place, span in enumerate(told[1:], start=2)
    )


def _plot_in_words(person: SessionPerson, rows: Sequence[SessionRow], plot: PersonPlot) -> str:
    """The figure in words: when there are scores, their range, and why there are none elsewhere.

    No count of labels: a number per person would invite comparison.
    """
    what = " and ".join(filter(None, [", ".join(lane.name for lane in plot.scores[:-1]), plot.scores[-1].name]))
    said = [f"Person {person.number}, {_spans_in_words([(0, plot.end_sec)], plot.end_sec)}: score of {what} over time"]
    if plot.stretches_sec:
        said.append(f"there are scores from {_spans_in_words(plot.stretches_sec, plot.end_sec)}")
    else:
        said.append("there is no score in any window")
    for lane in plot.scores:
        if scores := [row.scores[lane.name] for row in rows if row.scores is not None]:
            said.append(f"{lane.name} is between {min(scores):.2f} and {max(scores):.2f}")
    reasons = Counter(row.reason for row in rows if row.label is None and row.reason)
    said += [f"{_counted(count, 'window')} without an answer: {reason}" for reason, count in reasons.items()]
    return "; ".join(said) + "."


def _counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _share(count: int, total: int) -> str:
    """In percent; a share that would round to 0% or 100% is marked as above or below it."""
    if not total:
        return "–"
    if 0 < count / total < 0.0005:
        return "< 0.1%"
    return "> 99.9%" if 0.9995 <= count / total < 1 else f"{count / total:.1%}"
