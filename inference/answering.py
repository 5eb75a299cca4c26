"""Files as they were read → answers. Clips and faces of consecutive files share the model's batches; answers come in
the order of the files, each as soon as the whole file is scored."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..answer_rule import AnswerRule
from ..processor.face_preparation import PreparedClip, PreparedFaces
from ..processor.film_windows import FilmWindow, answer_film, answer_window
from ..processor.input_errors import EngagementInputError
from .predictions import FacePrediction, PhotoPrediction, Refusal, Span, VideoPrediction
from .scoring import Scorer

OnWindow = Callable[[int, int], None]
NO_FRAMES = np.zeros((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True)
class VideoReading:
    """A video as a model reads it: its windows, and lazily for each the prepared clip or the error."""

    source: str
    windows: list[FilmWindow]
    clips: Iterator[PreparedClip | EngagementInputError]
    notes: tuple[str, ...] = ()  # of the file


@dataclass(frozen=True)
class PhotoReading:
    """A photo as a model reads it."""

    source: str
    faces: PreparedFaces
    faces_given: bool = False  # the picture is a face crop; no detection was run


Reading = VideoReading | PhotoReading


class Failure(NamedTuple):
    """What went wrong with one file."""

    source: str
    error: Exception


Answer = VideoPrediction | PhotoPrediction | Refusal | Failure


def answer_readings(
    scorer: Scorer, readings: Iterable[Reading | Refusal], on_window: OnWindow | None = None
) -> Iterator[Answer]:
    """One answer per reading, in order. Only the crops of one batch are in memory, and no whole frames.

    Args:
        on_window: called with the number of a video's windows read so far, and of all.
    """
    opened: deque[_OpenFile | Refusal] = deque()
    waiting: list[tuple[_OpenFile, np.ndarray]] = []
    for reading in readings:
        if isinstance(reading, Refusal):
            opened.append(reading)
        else:
            opened.append(file := _OpenFile(reading))
            for crops in file.parts(on_window):
                waiting.append((file, crops))
                if sum(scorer.num_rows(crops) for _, crops in waiting) >= scorer.batches.size:
                    _score(scorer, waiting)
        yield from _answered(scorer.rule, opened)
    _score(scorer, waiting)
    yield from _answered(scorer.rule, opened)


class _OpenFile:
    """A file whose clips, or faces, are being read and scored."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.clips: list[PreparedClip | EngagementInputError] = []  # without their frames
        self.scores: list[np.ndarray] = []  # (num_rows, num_labels) of each part
        self.error: Exception | None = None
        self._is_read, self._num_waiting = False, 0

    @property
    def is_done(self) -> bool:
        return self.error is not None or (self._is_read and not self._num_waiting)

    def parts(self, on_window: OnWindow | None) -> Iterator[np.ndarray]:
        """(num_frames, height, width, 3) of each readable clip, or of a photo's faces; none after an error."""
        try:
            if isinstance(self.reading, PhotoReading):
                self._num_waiting = 1
                yield self.reading.faces.frames
            else:
                yield from self._clips_of(self.reading, on_window)
        except Exception as error:
            self.error = error
        self._is_read = True

    def _clips_of(self, reading: VideoReading, on_window: OnWindow | None) -> Iterator[np.ndarray]:
        for number, (_, clip) in enumerate(zip(reading.windows, reading.clips, strict=True), start=1):
            if isinstance(clip, EngagementInputError):
                self.clips.append(clip)
            else:
                self.clips.append(replace(clip, frames=NO_FRAMES, whole_frames=NO_FRAMES))
                self._num_waiting += 1
                yield clip.frames
            if self.error is not None:
                return
            if on_window is not None:
                on_window(number, len(reading.windows))

    def take(self, scored: np.ndarray | Exception) -> None:
        """Take the scores of the next part, or its error."""
        self._num_waiting -= 1
        if isinstance(scored, Exception):
            self.error = self.error or scored
        else:
            self.scores.append(scored)


def _score(scorer: Scorer, waiting: list[tuple[_OpenFile, np.ndarray]]) -> None:
    """Score everything that waits, and release it."""
    scored = scorer.score([crops for _, crops in waiting])
    for (file, _), found in zip(waiting, scored, strict=True):
        file.take(found)
    waiting.clear()


def _answered(rule: AnswerRule, opened: "deque[_OpenFile | Refusal]") -> Iterator[Answer]:
    while opened and (isinstance(opened[0], Refusal) or opened[0].is_done):
        file = opened.popleft()
        yield file if isinstance(file, Refusal) else _answer(rule, file)


def _answer(rule: AnswerRule, file: _OpenFile) -> Answer:
    if file.error is not None:
        return Failure(file.reading.source, file.error)
    try:
        if isinstance(file.reading, PhotoReading):
            return _answer_photo(rule, file.reading, file.scores[0])
        return _answer_video(rule, file.reading, file)
    except Exception as error:
        return Failure(file.reading.source, error)


def _answer_video(rule: AnswerRule, reading: VideoReading, file: _OpenFile) -> VideoPrediction:
    of_file, timeline, notes, scores = [], [], list(reading.notes), iter(file.scores)
    for window, clip in zip(reading.windows, file.clips, strict=True):
        # A single-face model gives one row of scores per frame; their mean is the clip's.
        row = None if isinstance(clip, EngagementInputError) else next(scores).mean(axis=0)
        found = answer_window(rule, clip, row)
        if not isinstance(clip, EngagementInputError):
            notes += clip.notes
        if window.is_of_file:
            of_file.append(found)
        if window.is_of_timeline:
            start_sec, end_sec, answer = round(window.start_sec, 3), round(window.end_sec, 3), found.answer
            told = (answer.label, answer.scores, found.face_coverage, answer.reason, answer.certainty)
            timeline.append(Span(start_sec, end_sec, *told))
    film = answer_film(rule, of_file, reading.source)
    return VideoPrediction(
        reading.source,
        film.answer.label,
        film.answer.scores,
        film.face_coverage,
        film.num_repeated_frames,
        timeline,
        film.answer.reason,
        film.answer.certainty,
        film.num_people,
        film.num_windows,
        film.num_unreadable_windows,
        film.spread,
        tuple(dict.fromkeys([*notes, *film.notes])),
    )


def _answer_photo(rule: AnswerRule, reading: PhotoReading, scores: np.ndarray) -> PhotoPrediction:
    """scores: (num_faces, num_labels)."""
    faces, found = reading.faces, []
    for row, box, probability in zip(scores, faces.boxes_xyxy_px, faces.probabilities.tolist(), strict=True):
        face_px = None if reading.faces_given else float(max(box[2] - box[0], box[3] - box[1]))
        answer, edges = rule.answer(row, face_px=face_px), [round(float(edge), 1) for edge in box]
        probability = None if reading.faces_given else probability
        found.append(FacePrediction(answer.label, answer.scores, edges, probability, answer.reason, answer.certainty))
    return PhotoPrediction(reading.source, found, faces.notes)
