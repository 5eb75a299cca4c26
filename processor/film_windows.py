"""Divides a film into windows and combines their results: a film much longer than the clips that a model learned from
is read in windows of their length, and the mean of the windows' scores is the answer for the film."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .face_preparation import PreparedClip
from .input_errors import EngagementInputError, NoFaceError

CLIP_SEC = 10.0  # of DAiSEE; used if the length of a model's training clips is unknown
MOST_SPANS = 12_000  # of a timeline: more than three hours in steps of a second
_MUCH_LONGER = 1.5  # times a clip
AnswerRule = Any  # defined in `answer_rule`, which is one folder up here and in the same folder on the Hub
Answer = Any


class FilmWindow(NamedTuple):
    """A part of a film that is read as one clip."""

    start_sec: float
    end_sec: float
    is_of_file: bool  # counts for the answer of the whole file; such windows follow each other without gaps
    is_of_timeline: bool


def plan_windows(
    duration_sec: float,
    num_frames: int,
    clip_sec: float | None = None,
    step_sec: float | None = None,
    reads_clips: bool = True,
    begin_sec: float = 0.0,
    source: str = "the film",
) -> list[FilmWindow]:
    """The windows of a film, sorted by start.

    A film of up to one and a half clips is one window. An incomplete last window is kept; a rest shorter than the time
    between two frames of a window is added to the previous one.

    Args:
        num_frames: number of frames per window.
        clip_sec: length of the clips that the model learned from; None: ten seconds.
        step_sec: for a timeline with one window per step; None: no timeline.
        reads_clips: whether the model reads clips. Its windows keep their length in a long film, and overlap if the
            step is shorter; in a short film, and for a single-face model, windows are as long as the step.
        begin_sec: start of the film's picture, by the film's clock.
        source: the film's name, for messages.

    Raises:
        EngagementInputError: the step is not positive, or too short for the length of the film.
    """
    if step_sec is not None:
        _check_step(duration_sec, step_sec, source)
    clip_sec = clip_sec or CLIP_SEC
    is_long = duration_sec > _MUCH_LONGER * clip_sec
    of_file = _spans(duration_sec, num_frames, clip_sec, clip_sec) if is_long else [(0.0, duration_sec)]
    of_timeline = []
    if step_sec is not None:
        window_sec = max(clip_sec, step_sec) if is_long and reads_clips else step_sec
        of_timeline = _spans(duration_sec, num_frames, window_sec, step_sec)
    in_file, in_timeline = set(of_file), set(of_timeline)
    return [
        FilmWindow(begin_sec + span[0], begin_sec + span[1], span in in_file, span in in_timeline)
        for span in sorted(in_file | in_timeline)
    ]


def _check_step(duration_sec: float, step_sec: float, source: str) -> None:
    if not 0 < step_sec < math.inf:  # false for NaN
        raise EngagementInputError(
            f"The timeline's step must be above 0 s, got {step_sec:g}, for {source}; leave it out, or pass 5."
        )
    if duration_sec / step_sec > MOST_SPANS:
        least_sec = math.ceil(10 * duration_sec / MOST_SPANS) / 10
        raise EngagementInputError(
            f"A timeline has at most {MOST_SPANS:,} spans, got {duration_sec / step_sec:,.0f} (one every "
            f"{step_sec:g} s of {duration_sec:,.0f} s) in {source}; use a step of at least {least_sec:g} s."
        )


def _spans(duration_sec: float, num_frames: int, window_sec: float, step_sec: float) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    least_sec = min(window_sec, step_sec) / num_frames
    while not spans or (spans[-1][1] < duration_sec and len(spans) * step_sec <= duration_sec - least_sec):
        start_sec = len(spans) * step_sec
        spans.append((start_sec, min(start_sec + window_sec, duration_sec)))
    if spans[-1][1] < duration_sec <= spans[-1][1] + least_sec:
        spans[-1] = (spans[-1][0], duration_sec)
    return spans


class WindowAnswer(NamedTuple):
    """Result for one window."""

    answer: Answer
    scores: np.ndarray | None  # (num_labels,)
    face_coverage: float | None = None
    face_px: float | None = None
    num_repeated_frames: int = 0
    num_people: int | None = None  # None: no face was looked for
    problem: EngagementInputError | None = None


class FilmAnswer(NamedTuple):
    """Result for a whole film."""

    answer: Answer
    face_coverage: float | None
    num_repeated_frames: int
    num_people: int | None  # largest number of faces in one frame; None: no face was looked for
    num_windows: int
    num_unreadable_windows: int
    spread: dict[str, float] | None  # standard deviation of scores over the windows that count; None for one window

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on the person that the answer is about."""
        if self.num_people is None or self.num_people < 2:
            return ()
        return (f"{self.num_people} people, of whom one is read",)


def answer_window(
    rule: AnswerRule, clip: PreparedClip | EngagementInputError, scores: np.ndarray | None
) -> WindowAnswer:
    """
    Args:
        clip: the prepared clip, or the error from preparing it.
        scores: (num_labels,) of the clip; None if there are none.
    """
    if isinstance(clip, EngagementInputError):
        is_without_face = isinstance(clip, NoFaceError)
        coverage, num_people = (0.0, 0) if is_without_face else (None, None)
        return WindowAnswer(rule.answer(None, coverage), None, coverage, num_people=num_people, problem=clip)
    answer = rule.answer(scores, clip.face_coverage, clip.face_px)
    return WindowAnswer(answer, scores, clip.face_coverage, clip.face_px, clip.num_repeated_frames, clip.num_people)


def answer_film(rule: AnswerRule, windows: Sequence[WindowAnswer], source: str) -> FilmAnswer:
    """
    Args:
        windows: at least one; they cover the film without gaps.

    Raises:
        EngagementInputError: none can be read, or none shows a face.
    """
    problems = [window.problem for window in windows if window.problem is not None]
    if len(problems) == len(windows):
        unreadable = [problem for problem in problems if not isinstance(problem, NoFaceError)]
        if unreadable or len(windows) == 1:
            raise [*unreadable, *problems][0]
        raise NoFaceError(
            f"Expected a face in {source}, found none in its {len(windows)} windows; pass a video in which a face "
            "is visible."
        )
    readable = [window for window in windows if window.problem is None or isinstance(window.problem, NoFaceError)]
    coverages = [window.face_coverage for window in readable if window.face_coverage is not None]
    coverage = float(np.mean(coverages)) if coverages else None
    people = [window.num_people for window in readable if window.num_people is not None]
    # A single window always counts; of several, those that show the face long enough and large enough.
    counted = [window for window in readable if window.answer.scores is not None] if len(windows) > 1 else readable
    sizes_px = [window.face_px for window in counted if window.face_px is not None]
    rows = [window.scores for window in counted if window.scores is not None]
    answer = rule.answer(
        np.mean(rows, axis=0) if rows else None,
        coverage if rows or coverage is None else 0.0,
        float(np.median(sizes_px)) if sizes_px else None,
    )
    spread = None
    if len(windows) > 1 and answer.scores is not None:
        spread = dict(zip(rule.label_names, np.std(rows, axis=0).tolist(), strict=True))
    num_repeated = sum(window.num_repeated_frames for window in readable)
    num_unreadable = len(windows) - len(readable)
    return FilmAnswer(answer, coverage, num_repeated, max(people, default=None), len(windows), num_unreadable, spread)
