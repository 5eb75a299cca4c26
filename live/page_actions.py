"""The web page's actions when a button is pressed or a picture arrives; layout and events are in `page`.

A camera session exists between consent and "stop and forget". Each session has its own lock, so that no visitor waits
for another's video, and explanations, which hook into a model, use separate models.
"""

import copy
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..explanation.explain_files import ExplainedClip, explain_file, explain_frames, explain_track
from ..inference.many_files import predict_many
from ..inference.predictions import PhotoPrediction, Refusal, VideoPrediction
from ..inference.predictor import Predictor
from ..processor.bounded_reader import BoundedReader
from ..processor.face_tracking import FaceTrack
from ..processor.input_errors import EngagementInputError, NoFaceError, VideoTooLargeError
from ..processor.media_files import PICTURE_SUFFIXES
from ..processor.video_decoding import uniform_frame_indices
from .engine import LiveEngagement, PersonState, SeenFace
from .page_html import (
    NO_FACE,
    by_model,
    camera_refusal,
    camera_why_page,
    live_picture,
    live_words,
    model_page,
    no_face_in,
    no_photo_page,
    photo_page,
    refusal_page,
    video_page,
    why_page,
)
from .settings import LiveSettings

MAX_VIDEO_SEC = 900.0  # longer videos are for the command line


@dataclass(frozen=True)
class KeptFrame:
    """A camera picture, (height, width, 3) uint8 RGB, and the people's faces in it."""

    pixels: np.ndarray
    faces: list[SeenFace]


@dataclass
class LiveSession:
    """One visitor's camera, between consent and "stop and forget"; hold `lock` while using any of it."""

    model_name: str
    live: LiveEngagement | None  # None: the session is over and empty
    states: list[PersonState] = field(default_factory=list)
    words: str = ""
    can_explain: bool = False  # as last sent to the page
    frames: deque[KeptFrame] = field(default_factory=deque)  # the last window, for "Why?"
    last_frame_sec: float = -math.inf
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, model_name: str, live: LiveEngagement | None) -> None:
        """Switch to another model, with an empty session; None ends the session."""
        self.model_name, self.live, self.states, self.words = model_name, live, [], ""
        self.frames.clear()
        self.last_frame_sec = -math.inf

    @property
    def explained(self) -> list[int | None]:
        """Numbers of people with a prediction and a visible face; None: the whole picture."""
        return [state.number for state in self.states if state.scores and state.found]

    def keep(self, live: LiveEngagement, frame: np.ndarray, time_sec: float) -> None:
        """Store a picture if the next frame of a window of `live` is due."""
        if self.frames and self.frames[0].pixels.shape != frame.shape:  # a phone was rotated, or the camera changed
            self.frames.clear()
        if not self.frames or time_sec - self.last_frame_sec >= live.window_spacing_sec:
            self.frames.append(KeptFrame(frame, live.seen_faces()))
            self.last_frame_sec = time_sec
            if len(self.frames) > live.num_frames:
                self.frames.popleft()


class Page:
    """The page's actions; methods take and return the values of the page's components."""

    def __init__(self, predictors: dict[str, Predictor], settings: LiveSettings) -> None:
        files = BoundedReader()  # uploads may come from anybody
        self.predictors = {
            name: _with_rule(predictor.with_reader(files), settings) for name, predictor in predictors.items()
        }
        self.settings = settings
        # An explanation hooks into its model, which must not run on others' frames: separate models, one at a time.
        self._explaining = threading.Lock()
        self._explainers: dict[str, Predictor] = {}

    def about(self, model_name: str) -> str:
        """What a model reads, and its warnings."""
        predictor = self.predictors[model_name]
        return model_page(_reads(predictor), predictor.warnings)

    def no_photo(self, model_name: str) -> str:
        """Why this model takes no photos; "" if it does."""
        others = [name for name, predictor in self.predictors.items() if _reads_photos(predictor)]
        return "" if model_name in others else no_photo_page(model_name, _reads(self.predictors[model_name]), others)

    def start(self, has_agreed: bool, model_name: str, camera: str) -> tuple[LiveSession | None, str]:
        """A camera session, or the reason why there is none.

        Args:
            camera: "granted", or the name of the browser's exception.
        """
        if not has_agreed:
            return None, refusal_page("The camera needs your consent first; tick the box above.")
        if camera != "granted":
            return None, camera_refusal(camera)
        return LiveSession(model_name, self._new_live(model_name)), ""

    def stop(self, session: LiveSession | None) -> None:
        """Delete all data of the session, also for requests that still refer to it."""
        if session is not None:
            with session.lock:
                session.use(session.model_name, None)

    def watch(
        self, frame: np.ndarray | None, model_name: str, session: LiveSession | None
    ) -> tuple[str | None, str | None, bool | None]:
        """One camera picture, (height, width, 3) uint8 RGB → the annotated picture and, if they changed, words and
        whether there is a prediction to explain.

        Without a session, which requires consent, no picture is processed.
        """
        if frame is None or session is None:
            return None, None, None
        with session.lock:
            if session.live is None:
                return None, None, None
            if model_name != session.model_name:
                session.use(model_name, self._new_live(model_name))
            now_sec = time.monotonic()
            session.states = session.live.step(frame, now_sec)
            session.keep(session.live, frame, now_sec)
            words = live_words(session.states)
            can_explain = bool(session.explained)
            news = (
                words if words != session.words else None,
                can_explain if can_explain != session.can_explain else None,
            )
            session.words, session.can_explain = words, can_explain
            return live_picture(frame, session.states, self.predictors[model_name].rule), *news

    def explain_camera(self, session: LiveSession | None) -> str:
        """Heat maps of the camera's latest pictures, for everybody who is visible and has a prediction.

        Empty if the session was stopped or switched to another model meanwhile.
        """
        if session is None:
            return refusal_page("There are no camera pictures yet; start the camera first.")
        with session.lock:
            live, frames, numbers = session.live, list(session.frames), session.explained
            model_name = session.model_name
        if not numbers:
            return refusal_page(
                "There is no prediction for anybody in the picture now, so there is nothing to explain."
            )
        html = _said(
            None,
            lambda: self._explain(
                model_name, "the camera", lambda it: camera_why_page(_explain_people(it, frames, numbers), it.warnings)
            ),
        )
        with session.lock:
            return html if session.live is live else ""

    def look_at_video(self, file: str | None, model_name: str, step_sec: float) -> str:
        """A prediction for the whole video, and one per span."""
        return _answer(file, "video", lambda path: self._video_page(path, model_name, step_sec))

    def look_at_photo(self, file: str | None, model_name: str) -> str:
        """A prediction for every face."""
        return _answer(file, "photo", lambda path: self._photo_page(path, model_name))

    def explain(self, file: str | None, model_name: str) -> str:
        """Heat maps of a video or photo."""
        return _answer(file, "file to explain", lambda path: self._file_why_page(path, model_name))

    def _file_why_page(self, path: Path, model_name: str) -> str:
        return self._explain(model_name, path.name, lambda it: why_page(explain_file(it, _checked(path, it))))

    def _explain(self, model_name: str, source: str, look: Callable[[Predictor], str]) -> str:
        with self._explaining:
            if model_name not in self._explainers:
                self._explainers[model_name] = copy.deepcopy(self.predictors[model_name])
            explainer = self._explainers[model_name]
            return by_model(model_name, source, look(explainer), explainer.warnings)

    def _new_live(self, model_name: str) -> LiveEngagement:
        return LiveEngagement(self.predictors[model_name], self.settings)

    def _video_page(self, path: Path, model_name: str, step_sec: float) -> str:
        predictor = self.predictors[model_name]
        prediction = _predict(predictor, _checked(path, predictor), step_sec)
        if not isinstance(prediction, VideoPrediction):
            return _refused(path, f"{path} is a photo, not a video; use the tab for photos.")
        return by_model(model_name, path.name, video_page(prediction, predictor.rule), predictor.warnings)

    def _photo_page(self, path: Path, model_name: str) -> str:
        predictor = self.predictors[model_name]
        prediction = _predict(predictor, path)
        if not isinstance(prediction, PhotoPrediction):
            return _refused(path, f"{path} is a video, not a photo; use the tab for videos.")
        page = photo_page(predictor.processor.load_picture(path), prediction, predictor.rule)
        return by_model(model_name, path.name, page, predictor.warnings)


class _Refused(Exception):
    """A refusal as of `engagement predict`, with the same message."""


def _predict(predictor: Predictor, path: Path, step_sec: float | None = None) -> VideoPrediction | PhotoPrediction:
    (prediction,) = predict_many(predictor, [path], step_sec)
    if isinstance(prediction, Refusal):
        raise NoFaceError(prediction.error) if prediction.kind == NoFaceError.__name__ else _Refused(prediction.error)
    return prediction


def _with_rule(predictor: Predictor, settings: LiveSettings) -> Predictor:
    """A predictor for files with the camera's answer rule."""
    alike = copy.copy(predictor)
    alike.rule = settings.rule_of(predictor)
    return alike


def _reads_photos(predictor: Predictor) -> bool:
    return not predictor.is_video_model and predictor.video_processor.face_crop


def _reads(predictor: Predictor) -> str:
    frames = f"{predictor.video_processor.num_frames} frames"
    what = "one face" if _reads_photos(predictor) else f"a clip of {frames}" if predictor.is_video_model else frames
    return f"It reads {what} and predicts {', '.join(predictor.rule.label_names)}."


def _explain_people(
    predictor: Predictor, frames: list[KeptFrame], numbers: Collection[int | None]
) -> list[tuple[int | None, ExplainedClip]]:
    pixels = np.stack([frame.pixels for frame in frames])
    if None in numbers:
        return [(None, explain_frames(predictor, pixels))]
    num_frames = predictor.video_processor.num_frames if predictor.is_video_model else 1
    wanted = uniform_frame_indices(len(frames), num_frames)
    kept, people = [frames[index] for index in wanted], []
    for number in numbers:
        track = _track_of(number, kept)
        if track.found.any():
            people.append((number, explain_track(predictor, pixels[wanted], track)))
    if not people:
        raise NoFaceError("No face of the live picture was found; wait a little.")
    return people


def _track_of(number: int | None, frames: list[KeptFrame]) -> FaceTrack:
    places = [next((face for face in frame.faces if face.number == number), None) for frame in frames]
    boxes = [np.full(4, np.nan) if face is None else face.box_xyxy_px for face in places]
    landmarks = [np.full((5, 2), np.nan) if face is None else face.landmarks_xy_px for face in places]
    found = np.array([face is not None for face in places])
    return FaceTrack(found, np.stack(boxes), np.stack(landmarks), found.astype(np.float32))


def _checked(path: Path, predictor: Predictor) -> Path:
    """Raises VideoTooLargeError for a video that is too long for the page."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        duration_sec = predictor.video_processor.reader.index_video(path).duration_sec
        if duration_sec > MAX_VIDEO_SEC:
            raise VideoTooLargeError(
                f"This page takes videos of at most {MAX_VIDEO_SEC:g} s, got {duration_sec:.0f} s in {path}; use the "
                "command `engagement predict`."
            )
    return path


def _answer(file: str | None, kind: str, look: Callable[[Path], str]) -> str:
    """The result of `look` for an upload, or its refusal."""
    if file is None:
        return refusal_page(f"Choose a {kind} first.")
    path = Path(file)
    if not path.exists():
        return refusal_page(
            f"{path.name} was deleted from this page, which keeps uploads only for minutes; choose it again."
        )
    return _said(path, lambda: look(path))


def _said(path: Path | None, look: Callable[[], str]) -> str:
    """A result, or its refusal in words for somebody who only sees the page.

    Args:
        path: an upload; None: the camera.
    """
    try:
        return look()
    except NoFaceError:
        return refusal_page(NO_FACE if path is None else no_face_in(path.name))
    except (_Refused, EngagementInputError) as error:
        return _refused(path, str(error))


def _refused(path: Path | None, text: str) -> str:
    """A refusal without the uploads' folder, which must stay private; Pillow quotes it with doubled backslashes."""
    folder = "" if path is None else f"{path.parent}{os.sep}"
    return refusal_page(text.replace(folder, "").replace(repr(folder)[1:-1], ""))
