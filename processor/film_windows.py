"""Which stretches of a film are read, and what they say together: a film much longer than the clips that a model
learned from goes in windows of their length, and the mean of what is answered in them is the answer for the film."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .face_preparation import PreparedClip
from .input_errors import EngagementInputError, NoFaceError

CLIP_SEC = 10.0  # of DAiSEE; where nobody knows how long the clips were that a model learned from
MOST_SPANS = 12_000  # of a timeline: more than three hours, second by second
_MUCH_LONGER = 1.5  # times a clip
AnswerRule = Any  # `answer_rule` has it and its `Answer`: a folder above here, and beside this on the Hub
Answer = Any


class FilmWindow(NamedTuple):
    """A stretch of a film that is read as one clip."""

    start_sec: float
    end_sec: float
    is_of_file: bool  # counts in what is said of the whole file; these lie end to end
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
    """The windows of a film, by their starts.

    Up to one and a half clips are read at once. The last part-window is kept; a rest shorter than the time between two
    frames of a window belongs to the one before.

    Args:
        num_frames: read of each window.
        clip_sec: length of the clips that the model learned from; None: ten seconds.
        step_sec: a timeline is wanted, of a window every so many seconds.
        reads_clips: such a model's windows keep their length in a long film, and overlap where the step is shorter;
            in a short one, and of a single-face model, windows are as long as the step.
        begin_sec: of the film's picture, by the film's clock.
        source: the film's name, for messages.

    Raises:
        EngagementInputError: a step that is none, or so short that a timeline would have no end.
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
    if not 0 < step_sec < math.inf:  # NaN is neither
        raise EngagementInputError(
            f"Expected a timeline's step above 0 s, got {step_sec:g}, for {source}; leave it out, or pass 5."
        )
    if duration_sec / step_sec > MOST_SPANS:
        least_sec = math.ceil(10 * duration_sec / MOST_SPANS) / 10
        raise EngagementInputError(
            f"Expected a timeline of at most {MOST_SPANS:,} spans, got {duration_sec / step_sec:,.0f} (one every "
            f"{step_sec:g} s of {duration_sec:,.0f} s) in {source}; a step of {least_sec:g} s would do."
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
    """What was found in one window."""

    answer: Answer
    scores: np.ndarray | None  # (num_labels,)
    face_coverage: float | None = None
    face_px: float | None = None
    num_repeated_frames: int = 0
    num_people: int | None = None  # None: nobody looked
    problem: EngagementInputError | None = None


class FilmAnswer(NamedTuple):
    """What is said of a whole film."""

    answer: Answer
    face_coverage: float | None
    num_repeated_frames: int
    num_people: int | None  # the most faces in one frame; None: nobody looked
    num_windows: int
    num_unreadable_windows: int
    spread: dict[str, float] | None  # standard deviation of the scores over the windows that count; None of one alone

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of whom the answer is about."""
        if self.num_people is None or self.num_people < 2:
            return ()
        return (f"{self.num_people} people, of whom one is read",)


def answer_window(
    rule: AnswerRule, clip: PreparedClip | EngagementInputError, scores: np.ndarray | None
) -> WindowAnswer:
    """
    Args:
        clip: or what is wrong with it.
        scores: (num_labels,) of the clip; None where there is none.
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
        windows: at least one; they lie end to end over the film.

    Raises:
        EngagementInputError: none can be read, or none shows a face.
    """
    problems = [window.problem for window in windows if window.problem is not None]
    if len(problems) == len(windows):
        unreadable = [problem for problem in problems if not isinstance(problem, NoFaceError)]
        if unreadable or len(windows) == 1:
            raise [*unreadable, *problems][0]
        raise NoFaceError(
            f"Expected a face in {source}, found none in {len(windows)} windows of it; pass a video in which a face "
            "is visible."
        )
    readable = [window for window in windows if window.problem is None or isinstance(window.problem, NoFaceError)]
    coverages = [window.face_coverage for window in readable if window.face_coverage is not None]
    coverage = float(np.mean(coverages)) if coverages else None
    people = [window.num_people for window in readable if window.num_people is not None]
    # A single window has its own say; of several those count that show the face long enough, and large enough.
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
