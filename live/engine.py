"""Frames and their times in, predictions for everybody in the picture out: tracked, smoothed, unlabelled if uncertain.

`LiveEngagement.step` takes one frame after the other. Each person has their own window of frames and smoothed scores.
The model's own processor finds and crops faces, and a clip model's windows contain only frames in which faces were
detected, so that inputs match those of the training. The encoder reads every crop once; its features stay in memory,
not the crops. `run_live` connects a source of frames. Nobody is identified and nothing is written to disk.
Cameras and files are in `sources`, tracking in `tracking`, annotated pictures in `drawing`.
"""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..answer_rule import FACE_TOO_SMALL, MIN_FACE_COVERAGE, MIN_FACE_PX
from ..inference.predictor import Predictor
from ..processor.film_windows import CLIP_SEC
from ..processor.input_errors import EngagementInputError
from ..processor.video_decoding import TIME_TOLERANCE_SEC
from .settings import LiveSettings
from .sources import FrameSource
from .tracking import FaceTracker, LiveTrack

SHORT_VIDEO_CLIPS = 1.5  # in clips; a shorter file gets shorter windows, or it would end before one is full
CLIP_FPS = 30.0  # DAiSEE's frame rate, for windows of consecutive frames
COLLECTING, NO_FACE_FOR = "collecting", "no face for"  # beginnings of a status
RATE_STEPS = 10  # over which the shown frame rate is averaged

_Verdict = tuple[str | None, dict[str, float] | None, str | None]  # label, scores and status of a `PersonState`


@dataclass(frozen=True)
class PersonState:
    """One person at one moment. Without a label, `status` says why."""

    number: int | None  # 1, 2, ... in order of appearance; None: the whole picture, for a model of whole frames
    box_xyxy_px: tuple[float, float, float, float] | None  # None: no face, or the whole picture
    found: bool  # whether the latest detection found the face
    label: str | None
    scores: dict[str, float] | None  # smoothed, by label name
    status: str | None


@dataclass(frozen=True)
class SeenFace:
    """Where a person's face is in a frame."""

    number: int
    box_xyxy_px: np.ndarray  # (4,)
    landmarks_xy_px: np.ndarray  # (5, 2)


@dataclass(frozen=True)
class LiveResult:
    """One step of `run_live`."""

    frame: np.ndarray  # (height, width, 3), uint8 RGB
    time_sec: float
    states: list[PersonState]
    frames_per_sec: float  # steps per second, over the last ten
    delay_sec: float  # since the frame was taken
    num_dropped: int  # frames of the source skipped so far


class _Person:
    """One person's window of frames, as the encoder's features (D,), and their smoothed scores."""

    def __init__(self, num_frames: int, stride: int) -> None:
        self.num_frames, self.stride = num_frames, stride
        # More samples than frames: a window begins with each sample. None: no face was found or looked for.
        self.max_samples = stride * (num_frames - 1) + 1
        self.samples: deque[np.ndarray | None] = deque(maxlen=self.max_samples)
        self.scores: np.ndarray | None = None  # (num_labels,)

    @property
    def frames(self) -> list[np.ndarray | None]:
        """The window's frames so far, the newest last."""
        return list(self.samples)[:: -self.stride][::-1]

    def add(self, features: np.ndarray | None, num_due: int) -> None:
        """Add one detection, and how many samples have become due since the last. A slow camera's frame counts for at
        most the samples between two frames of the window; any further due samples are unseen."""
        is_first = not self.samples
        num_seen = 1 if is_first else min(num_due, self.stride)
        num_unseen = 0 if is_first else min(num_due - num_seen, self.max_samples)
        self.samples.extend([None] * num_unseen)
        self.samples.extend([features] * num_seen)

    @property
    def num_collected(self) -> int:
        """How many of a window's frames have been collected."""
        num_found = sum(features is not None for features in self.samples)
        return min(self.num_frames, -(-num_found // self.stride))

    @property
    def num_found(self) -> int:
        """How many of the window's frames show the face."""
        return sum(features is not None for features in self.frames)

    @property
    def is_ready(self) -> bool:
        """Whether the window is full and shows the face often enough."""
        return len(self.samples) == self.max_samples and self.num_found >= MIN_FACE_COVERAGE * self.num_frames

    def filled_frames(self) -> np.ndarray:
        """(num_frames, D); a frame without the face is replaced by the nearest with it (of two, the earlier)."""
        found = [(place, features) for place, features in enumerate(self.frames) if features is not None]
        nearest = [min(found, key=lambda frame: abs(i - frame[0])) for i in range(self.num_frames)]
        return np.stack([features for _, features in nearest])

    def smooth(self, scores: np.ndarray, alpha: float) -> None:
        """Exponential moving average; the first scores are used unchanged."""
        self.scores = scores if self.scores is None else alpha * scores + (1 - alpha) * self.scores


class LiveEngagement:
    """A model running on a live picture; use one object per source, since it stores who is in the picture."""

    def __init__(self, predictor: Predictor, settings: LiveSettings | None = None) -> None:
        self.settings = settings or LiveSettings()
        self.whole_frames = not predictor.video_processor.face_crop
        self._engine, self._processor = predictor.engine, predictor.video_processor
        self._is_clip_model = predictor.is_video_model
        self._num_frames = self._processor.num_frames if self._is_clip_model else 1
        self._rule = self.settings.rule_of(predictor)
        self._sample_every_sec, self._stride = self._sampling()
        settings = self.settings
        self._tracker = FaceTracker(settings.keep_lost_sec, settings.max_people, settings.min_seen_sec)
        self._people: dict[LiveTrack | None, _Person] = {}  # None: the whole picture
        self._start_sec: float | None = None
        self._num_sampled = 0
        self._time_sec = self._detected_sec = -math.inf

    @property
    def window_spacing_sec(self) -> float:
        """Seconds between two frames of a clip model's window; 0 for a single-face model."""
        return self._sample_every_sec * self._stride

    @property
    def window_sec(self) -> float:
        """How long a person must be seen before a clip model predicts; 0 for a single-face model."""
        return self.window_spacing_sec * self._num_frames

    @property
    def num_frames(self) -> int:
        """Frames per window; 1 for a single-face model."""
        return self._num_frames

    def step(self, frame: np.ndarray, time_sec: float) -> list[PersonState]:
        """One frame, (height, width, 3) uint8 RGB, and its time, never decreasing → one state per person, by number.

        Raises:
            EngagementInputError: an array of another kind, or a time before the last one.
        """
        frame = self._checked(frame, time_sec)
        num_due = self._count_due(time_sec)
        self._time_sec = time_sec
        if not self.whole_frames:
            self._follow(frame, time_sec, must_detect=self._is_clip_model and num_due > 0)
        if num_due:
            self._sample(frame, time_sec, num_due)
        if self.whole_frames:
            return [PersonState(None, None, True, *self._verdict(self._people[None]))]
        return [self._state_of(track, time_sec) for track in self._tracker.people]

    def seen_faces(self) -> list[SeenFace]:
        """Faces in the latest frame, by number; without those that the latest detection missed."""
        return [
            SeenFace(track.number, track.box_at(self._time_sec), track.landmarks_at(self._time_sec))
            for track in self._tracker.people
            if track.found and track.number is not None
        ]

    def _sampling(self) -> tuple[float, int]:
        """Seconds between two samples, and the number of samples from one frame of a window to the next."""
        if not self._is_clip_model:
            return 0.0, 1
        is_uniform = self._processor.sampling == "uniform"
        clip_sec = (self._rule.clip_sec or CLIP_SEC) if is_uniform else self._num_frames / CLIP_FPS
        window_sec = self.settings.window_sec or clip_sec
        spacing_sec = window_sec / self._num_frames
        stride = math.ceil(spacing_sec / self.settings.predict_every_sec)
        return spacing_sec / stride, stride

    def _checked(self, frame: np.ndarray, time_sec: float) -> np.ndarray:
        if (
            not isinstance(frame, np.ndarray)
            or frame.ndim != 3
            or frame.shape[2] != 3
            or frame.dtype != np.uint8
            or not frame.size
        ):
            got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise EngagementInputError(f"Expected a frame as (height, width, 3) uint8 RGB, got {got}; convert it.")
        if not self._time_sec <= time_sec < math.inf:
            raise EngagementInputError(
                f"Times in seconds must not decrease, got {time_sec} after {self._time_sec}; "
                "start a new LiveEngagement for another video."
            )
        return np.ascontiguousarray(frame)

    def _count_due(self, time_sec: float) -> int:
        """Samples that become due with this frame; at a low frame rate one frame counts as several."""
        if not self._is_clip_model:
            return 1
        if self._start_sec is None:
            self._start_sec = time_sec
        elapsed_sec = time_sec - self._start_sec + TIME_TOLERANCE_SEC
        num_due = math.floor(elapsed_sec / self._sample_every_sec) + 1 - self._num_sampled
        self._num_sampled += num_due
        return num_due

    def _follow(self, frame: np.ndarray, time_sec: float, must_detect: bool) -> None:
        is_due = time_sec - self._detected_sec >= self.settings.detect_every_sec - TIME_TOLERANCE_SEC
        if not (is_due or must_detect):
            return
        processor = self._processor
        detect = processor.face_detector.detect_thorough if self.settings.small_faces else processor.detect_faces
        self._tracker.update(detect(frame[None])[0], frame, time_sec)
        self._detected_sec = time_sec
        self._people = {track: person for track, person in self._people.items() if track in self._tracker.tracks}

    def _sample(self, frame: np.ndarray, time_sec: float, num_due: int) -> None:
        """Add this frame to everybody's window, and predict for those who are in it."""
        features = self._encode(frame, time_sec)
        for track, found in features.items():
            person = self._people.setdefault(track, _Person(self._num_frames, self._stride))
            person.add(found, num_due)
        seen = [self._people[track] for track, found in features.items() if found is not None]
        for person in seen:
            if not person.is_ready:
                person.scores = None  # older than a window in which the face was mostly missing
        ready = [person for person in seen if person.is_ready]
        for person, scores in zip(ready, self._classify(ready), strict=True):
            person.smooth(scores, self.settings.smoothing_alpha)

    def _encode(self, frame: np.ndarray, time_sec: float) -> dict[LiveTrack | None, np.ndarray | None]:
        """The features (D,) of everybody's crop; None for a face that is not visible, or too small."""
        if self.whole_frames:
            (features,) = self._features_of(self._processor.shrink_whole_frames(frame[None]))
            return {None: features}
        # People without a number may get one later, and then need a filled window; single-face models need none.
        tracks = self._tracker.tracks if self._is_clip_model else self._tracker.people
        everybody: dict[LiveTrack | None, np.ndarray | None] = dict.fromkeys(tracks)
        tracks = [track for track in tracks if track.found and not _is_too_small(track)]
        if not tracks:
            return everybody
        crops, _ = self._processor.crop(
            np.broadcast_to(frame, (len(tracks), *frame.shape)),
            np.stack([track.box_at(time_sec) for track in tracks]),
            np.stack([track.landmarks_at(time_sec) for track in tracks]),
        )
        return everybody | dict(zip(tracks, self._features_of(crops), strict=True))

    def _features_of(self, crops: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8 RGB -> (n, D)."""
        return self._engine.encode(self._processor.to_pixel_values(crops))

    def _classify(self, people: Sequence[_Person]) -> list[np.ndarray]:
        """Softmax scores, (num_labels,) per person."""
        if not people:
            return []
        features = np.stack([person.filled_frames() for person in people])  # (people, frames, D)
        logits = self._engine.classify(features if self._is_clip_model else features[:, 0])
        return list(self._rule.to_scores(logits))

    def _state_of(self, track: LiveTrack, time_sec: float) -> PersonState:
        verdict: _Verdict
        if track.is_missing(time_sec):
            verdict = (None, None, f"{NO_FACE_FOR} {time_sec - track.seen_sec:.1f} s")
        elif _is_too_small(track):
            verdict = (None, None, FACE_TOO_SMALL)
        else:
            verdict = self._verdict(self._people.get(track))
        if not track.found:  # something else may be at its expected place
            return PersonState(track.number, None, False, *verdict)
        left, top, right, bottom = (round(float(edge), 1) for edge in track.box_at(time_sec))
        return PersonState(track.number, (left, top, right, bottom), True, *verdict)

    def _verdict(self, person: _Person | None) -> _Verdict:
        if person is None or person.scores is None:
            num_collected = 0 if person is None else person.num_collected
            return None, None, f"{COLLECTING} {num_collected} of {self._num_frames} frames"
        answer = self._rule.answer(person.scores)
        return answer.label, answer.scores, answer.reason


def _is_too_small(track: LiveTrack) -> bool:
    return bool((track.box_xyxy_px[2:] - track.box_xyxy_px[:2]).max() < MIN_FACE_PX)


def window_of_short(predictor: Predictor, duration_sec: float | None) -> float | None:
    """A shorter window, in seconds, for a file hardly longer than a clip model's window, or shorter; else None."""
    if not predictor.is_video_model or predictor.video_processor.sampling != "uniform" or not duration_sec:
        return None
    return duration_sec / 3 if duration_sec < SHORT_VIDEO_CLIPS * (predictor.rule.clip_sec or CLIP_SEC) else None


def run_live(
    source: FrameSource,
    live: LiveEngagement,
    on_result: Callable[[LiveResult], None],
    stop: threading.Event | None = None,
) -> None:
    """Step through a source and pass on every result, until the source ends, `stop` is set, or Ctrl-C.

    Frames of a camera that is faster than this machine are dropped, so that results stay current; a file is read
    completely. The source is always closed.

    Raises:
        EngagementInputError: the source failed; one line says where and what to do.
    """
    num_dropped, ends_sec = 0, deque([time.perf_counter()], maxlen=RATE_STEPS + 1)
    with source:
        try:
            for taken in source.frames():
                states = live.step(taken.pixels, taken.time_sec)
                ends_sec.append(time.perf_counter())
                rate = (len(ends_sec) - 1) / (ends_sec[-1] - ends_sec[0])
                num_dropped += taken.num_dropped
                delay_sec = ends_sec[-1] - taken.taken_sec
                on_result(LiveResult(taken.pixels, taken.time_sec, states, rate, delay_sec, num_dropped))
                if stop is not None and stop.is_set():
                    return
        except KeyboardInterrupt:
            return


def to_json_line(time_sec: float, states: Sequence[PersonState]) -> str:
    """One JSON object, without a line break; `person` null means the whole picture."""
    people = [
        {
            "person": state.number,
            "box_xyxy_px": state.box_xyxy_px,
            "found": state.found,
            "label": state.label,
            "scores": state.scores and {name: round(score, 4) for name, score in state.scores.items()},
            "status": state.status,
        }
        for state in states
    ]
    return json.dumps({"time_sec": round(time_sec, 3), "people": people}, ensure_ascii=False, allow_nan=False)
