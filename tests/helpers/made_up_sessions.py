"""Recorded sessions that never were: rows as `live.session.records` has them, with scores from a formula."""

import math
from collections.abc import Callable, Sequence

from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.live.session.records import SessionPerson, SessionRow, SessionVideo, Visit

TWO = AnswerRule(("bored", "engaged"), temperature=1.0, trained_on="drawn people")
SEVEN = AnswerRule(("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"), trained_on="FER2013")
WINDOW_SEC = 10.0


def scores_of(rule: AnswerRule, height: float) -> dict[str, float]:
    """A wave's height, 0 to 1, as scores that sum to 1: of two labels it is the second's."""
    if len(rule.label_names) == 2:
        return dict(zip(rule.label_names, (1 - height, height), strict=True))
    logits = [5 * math.sin(7 * height + place) for place in range(len(rule.label_names))]
    total = sum(map(math.exp, logits))
    return {name: math.exp(logit) / total for name, logit in zip(rule.label_names, logits, strict=True)}


def row_of(
    rule: AnswerRule,
    person: int,
    place: int,
    height: float | None,
    coverage: float = 1.0,
    source: str = "film.mp4",
    reason: str = "no face long enough",
) -> SessionRow:
    """The window at this place; without a height there is no score, for this reason."""
    span_sec = (place * WINDOW_SEC, (place + 1) * WINDOW_SEC)
    if height is None:
        return SessionRow(source, person, *span_sec, None, reason, face_coverage=coverage)
    scores = scores_of(rule, height)
    label = max(scores, key=scores.__getitem__)
    is_certain = scores[label] >= rule.threshold
    answer = (label, None) if is_certain else (None, "uncertain")
    return SessionRow(source, person, *span_sec, *answer, scores[label], scores, coverage)


def wave(person: int, place: int) -> float:
    """A height that moves slowly, and a little by itself."""
    slow = math.sin(place / (17 + 3 * person) + person) + 0.35 * math.sin(place * 1.7 + person)
    return 0.5 + 0.36 * slow


def person_of(number: int, *visits_sec: tuple[float, float], may_be: int | None = None) -> SessionPerson:
    """Somebody with these visits."""
    return SessionPerson(number, tuple(Visit(*visit) for visit in visits_sec), may_be)


def video_of(
    rule: AnswerRule,
    num_people: int,
    num_windows: int,
    source: str = "film.mp4",
    height_at: Callable[[int, int], float | None] = wave,
) -> SessionVideo:
    """Everybody is there throughout."""
    end_sec = num_windows * WINDOW_SEC
    numbers = range(1, num_people + 1)
    rows = [
        row_of(rule, number, k, height_at(number, k), 1 - k % 5 / 10, source)
        for k in range(num_windows)
        for number in numbers
    ]
    return SessionVideo(source, end_sec, tuple(rows), tuple(person_of(number, (0, end_sec)) for number in numbers))


def rows_of(rule: AnswerRule, heights: Sequence[float | None], person: int = 1) -> tuple[SessionRow, ...]:
    """One person's windows from the beginning on."""
    return tuple(row_of(rule, person, place, height) for place, height in enumerate(heights))
