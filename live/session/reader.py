"""One recording, window by window: everybody is tracked, and the model answers for each as for a clip of them alone.

Windows and frames for the model are those of `engagement predict`: for one person alone in the picture, answers are the
same. Faces are also detected between those frames, so that tracks are not lost. The video is decoded once; memory
holds the frames of one window.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...answer_rule import UNREADABLE
from ...data.face_signals import SIGNALS, face_signals
from ...inference.predictor import Predictor
from ...processor.face_preparation import PreparedClip
from ...processor.face_tracking import FaceTrack, fill_missing
from ...processor.film_windows import FilmWindow
from ...processor.video_decoding import clip_frame_indices, frames_between
from ...processor.video_index import VideoIndex
from ...processor.video_pass import wanted_frames
from ..tracking import FaceTracker, LiveTrack
from .people import People, Person
from .records import NOBODY_SEEN, SessionRow

LOOK_EVERY_SEC = 0.625  # half the interval of eight frames in ten seconds
MIN_SEEN_SEC = 3.0  # seen for less: a passer-by
KEEP_LOST_SEC = 3.0
_SLIP_SEC = 2.5 * LOOK_EVERY_SEC  # two consecutive detections may miss a face
MAX_PEOPLE = 64  # at a time
Face = tuple[np.ndarray, np.ndarray]  # box (4,), landmarks (5, 2)
Reading = list[tuple[int, np.ndarray, np.ndarray]]  # a track's: index among a window's detections, and the face


@dataclass(frozen=True)
class WindowPlan:
    """The frames of one window that are used."""

    window: FilmWindow
    looks: np.ndarray  # (num_looks,) frame numbers, ascending
    read: np.ndarray  # (num_frames,) frame numbers for the model; some may repeat


class SessionReader:
    """Everybody seen so far in one recording; `rows_of` continues with the next window."""

    def __init__(self, predictor: Predictor, source: str) -> None:
        self._predictor, self._source = predictor, source
        self.tracker = FaceTracker(KEEP_LOST_SEC, MAX_PEOPLE, MIN_SEEN_SEC, _SLIP_SEC)
        self.people = People()
        self.num_windows = 0
        self.num_passers_by = 0
        self.num_unreadable_looks = 0

    def rows_of(self, index: VideoIndex) -> Iterator[list[SessionRow]]:
        """The rows of each window from `num_windows` on: one per person seen in it, or one that says that nobody was.

        Raises:
            VideoReadError: the file has changed since it was indexed.
        """
        plans = plan_looks(self._predictor, index)[self.num_windows :]
        if not plans:
            return
        frames = wanted_frames(index, np.unique(np.concatenate([plan.looks for plan in plans])))
        newest, picture = -1, None
        for plan in plans:
            seen: dict[LiveTrack, Reading] = defaultdict(list)
            people: dict[LiveTrack, Person] = {}  # of those seen, the ones with a number by the window's end
            pictures: dict[int, np.ndarray] = {}  # frames for the model
            for place, number in enumerate(plan.looks.tolist()):
                while newest < number:
                    newest, picture = next(frames)
                if not isinstance(picture, np.ndarray):
                    self.num_unreadable_looks += 1
                    continue
                is_read = number in plan.read
                for track, face in self._look(picture, float(index.frame_times_sec[number]), is_read).items():
                    seen[track].append((place, *face))
                    if (person := self.people.person_of(track)) is not None:
                        people[track] = person
                if is_read:
                    pictures[number] = picture
            readings: dict[Person, Reading] = defaultdict(list)
            for track, person in people.items():
                readings[person] += seen[track]
            rows = self._answer(plan, index, readings, pictures)
            self.num_windows += 1
            yield rows

    def finish(self) -> None:
        """Call after the last window."""
        self.num_passers_by += sum(track.number is None and track.num_sightings > 1 for track in self.tracker.tracks)
        self.tracker.tracks = []

    def _look(self, picture: np.ndarray, time_sec: float, is_read: bool) -> dict[LiveTrack, Face]:
        """The tracks visible in the picture, with their faces."""
        detector = self._predictor.video_processor.face_detector
        (faces,) = detector.detect_close(picture[None])
        before = list(self.tracker.tracks)
        self.tracker.update(faces, picture, time_sec)
        gone = [track for track in before if track not in self.tracker.tracks]
        self.num_passers_by += sum(track.number is None and track.num_sightings > 1 for track in gone)
        self.people.update(self.tracker.tracks, time_sec)
        seen = {track: (track.box_xyxy_px, track.landmarks_xy_px) for track in self.tracker.tracks if track.found}
        if is_read:  # use the detection of the training, if it finds the face
            (others,) = detector.detect_fast(picture[None])
            for track in seen:
                for box, landmarks in zip(others.boxes_xyxy_px, others.landmarks_xy_px, strict=True):
                    if _holds(track.box_xyxy_px, box) and _holds(box, track.box_xyxy_px):
                        seen[track] = (box, landmarks)
        return seen

    def _answer(
        self,
        plan: WindowPlan,
        index: VideoIndex,
        readings: dict[Person, Reading],
        pictures: dict[int, np.ndarray],
    ) -> list[SessionRow]:
        is_whole = all(number in pictures for number in plan.read.tolist())
        if not readings:
            return [self._row(plan, None, reason=NOBODY_SEEN if is_whole else UNREADABLE)]
        if not is_whole:
            return [
                self._row(plan, person.number, reason=UNREADABLE)
                for person in sorted(readings, key=lambda person: person.number)
            ]
        frames = np.stack([pictures[number] for number in plan.read.tolist()])
        places = np.searchsorted(plan.looks, plan.read)
        boxes = {person: _by_place(reading, places) for person, reading in readings.items()}
        everybody = sorted(readings, key=lambda person: person.number)
        clips = {person: self._clip_of(plan, index, frames, person, boxes) for person in everybody}
        seen = [clip for clip in clips.values() if clip is not None]
        scores = iter(self._predictor.score_clips(seen))
        return [
            self._row_of(plan, person, clip, None if clip is None else next(scores)) for person, clip in clips.items()
        ]

    def _clip_of(
        self,
        plan: WindowPlan,
        index: VideoIndex,
        frames: np.ndarray,
        person: Person,
        everybody: dict[Person, FaceTrack],
    ) -> PreparedClip | None:
        """A clip of one person; None if they were seen only between the model's frames."""
        own = everybody[person]
        if not own.found.any():
            return None
        filled = fill_missing(own)
        processor = self._predictor.video_processor
        crops, transforms = processor.crop(frames, filled.boxes_xyxy_px, filled.landmarks_xy_px)
        others = [track for other, track in everybody.items() if other is not person]
        for place in np.flatnonzero(~own.found):
            if any(_holds(track.boxes_xyxy_px[place], filled.boxes_xyxy_px[place]) for track in others):
                # Another person is there now: use this person's own face that is nearest in time.
                found = np.flatnonzero(own.found)
                crops[place] = crops[found[np.abs(found - place).argmin()]]
        times_sec = index.frame_times_sec[plan.read]
        return PreparedClip(
            index.path, crops, frames, plan.read, times_sec, len(plan.read) - len(np.unique(plan.read)),
            own.found, filled.boxes_xyxy_px, filled.landmarks_xy_px, own.probabilities, transforms,
        )  # fmt: skip

    def _row_of(
        self, plan: WindowPlan, person: Person, clip: PreparedClip | None, scores: np.ndarray | None
    ) -> SessionRow:
        if clip is None:
            answer = self._predictor.rule.answer(None, 0.0)
            return self._row(plan, person.number, answer.label, answer.reason, face_coverage=0.0)
        answer = self._predictor.rule.answer(scores, clip.face_coverage, clip.face_px)
        found, boxes, landmarks = clip.found, clip.boxes_xyxy_px, clip.landmarks_xy_px
        assert found is not None and boxes is not None and landmarks is not None  # set by `_clip_of`
        signals = face_signals(clip.frames, found, boxes, landmarks, clip.frame_times_sec)
        return self._row(
            plan, person.number, answer.label, answer.reason, answer.certainty, answer.scores,
            clip.face_coverage, signals,
        )  # fmt: skip

    def _row(
        self,
        plan: WindowPlan,
        person: int | None,
        label: str | None = None,
        reason: str | None = None,
        certainty: float | None = None,
        scores: dict[str, float] | None = None,
        face_coverage: float | None = None,
        signals: dict[str, float | None] | None = None,
    ) -> SessionRow:
        window, signals = plan.window, signals or dict.fromkeys(SIGNALS)
        start_sec, end_sec = round(window.start_sec, 3), round(window.end_sec, 3)
        return SessionRow(
            self._source, person, start_sec, end_sec, label, reason, certainty, scores, face_coverage, signals
        )


def plan_looks(predictor: Predictor, index: VideoIndex) -> list[WindowPlan]:
    """All windows of a recording, without gaps."""
    processor = predictor.video_processor
    plans = []
    for window in processor.windows_of(index, predictor.rule.clip_sec, None, predictor.is_video_model):
        span = window.start_sec, window.end_sec
        read = clip_frame_indices(index, processor.num_frames, processor.sampling, 0, *span)
        first, after = frames_between(index, *span)
        times_sec = np.arange(window.start_sec, window.end_sec, LOOK_EVERY_SEC)
        between = np.searchsorted(index.frame_times_sec, times_sec).clip(first, after - 1)
        # Only far enough from the model's frames for a detection of its own.
        apart_sec = np.abs(index.frame_times_sec[read] - times_sec[:, None]).min(axis=1)  # (looks,)
        between = between[apart_sec > LOOK_EVERY_SEC / 2]
        plans.append(WindowPlan(window, np.unique(np.concatenate([between, read])), read))
    return plans


def _by_place(reading: Reading, places: np.ndarray) -> FaceTrack:
    """A person's detections -> (num_frames,) entries, NaN where not found."""
    at = {place: (box, landmarks) for place, box, landmarks in reading}
    found = np.array([place in at for place in places.tolist()])
    boxes, landmarks = np.full((len(places), 4), np.nan, np.float32), np.full((len(places), 5, 2), np.nan, np.float32)
    for i in np.flatnonzero(found):
        boxes[i], landmarks[i] = at[int(places[i])]
    return FaceTrack(found, boxes, landmarks, found.astype(np.float32))


def _holds(box_xyxy: np.ndarray, other_xyxy: np.ndarray) -> bool:
    """Whether a box contains the other's centre; False for NaN."""
    middle = (other_xyxy[:2] + other_xyxy[2:]) / 2
    return bool((box_xyxy[:2] < middle).all() and (middle < box_xyxy[2:]).all())
