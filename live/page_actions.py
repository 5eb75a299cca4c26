"""What happens on the web page when something is pressed or a picture arrives; layout and events are `app`'s.

A camera session exists between consent and "stop and forget". Each session has a lock of its own, so that no visitor
waits for another's video, and explanations, which hook into a model, have models of their own.
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

MAX_VIDEO_SEC = 900.0  # a page is for a look; longer videos are for the command line


@dataclass(frozen=True)
class KeptFrame:
    """A camera picture, (height, width, 3) uint8 RGB, and whose face is where in it."""

    pixels: np.ndarray
    faces: list[SeenFace]


@dataclass
class LiveSession:
    """One visitor's camera, between consent and "stop and forget"; `lock` is held while any of it is used."""

    model_name: str
    live: LiveEngagement | None  # None: it is over, and holds nothing
    states: list[PersonState] = field(default_factory=list)
    words: str = ""
    can_explain: bool = False  # as the page was last told
    frames: deque[KeptFrame] = field(default_factory=deque)  # of the last window, for "why?"
    last_frame_sec: float = -math.inf
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, model_name: str, live: LiveEngagement | None) -> None:
        """Another model's turn, which begins anew."""
        self.model_name, self.live, self.states, self.words = model_name, live, [], ""
        self.frames.clear()
        self.last_frame_sec = -math.inf

    @property
    def explained(self) -> list[int | None]:
        """Of whom something is predicted and whose face is there now; None: the whole picture."""
        return [state.number for state in self.states if state.scores and state.found]

    def keep(self, live: LiveEngagement, frame: np.ndarray, time_sec: float) -> None:
        """Remember a picture where the next of a window of `live` is due."""
        if self.frames and self.frames[0].pixels.shape != frame.shape:  # a phone was turned, or another camera chosen
            self.frames.clear()
        if not self.frames or time_sec - self.last_frame_sec >= live.window_spacing_sec:
            self.frames.append(KeptFrame(frame, live.seen_faces()))
            self.last_frame_sec = time_sec
            if len(self.frames) > live.num_frames:
                self.frames.popleft()


class Page:
    """What happens on the page; every method takes and gives what the page's parts hold."""

    def __init__(self, predictors: dict[str, Predictor], settings: LiveSettings) -> None:
        files = BoundedReader()  # anybody's uploads
        self.predictors = {
            name: _with_rule(predictor.with_reader(files), settings) for name, predictor in predictors.items()
        }
        self.settings = settings
        # An explanation hooks into its model, which must not see another's frames: models of its own, one at a time.
        self._explaining = threading.Lock()
        self._explainers: dict[str, Predictor] = {}

    def about(self, model_name: str) -> str:
        """What a model reads, and what must be known of it."""
        predictor = self.predictors[model_name]
        return model_page(_reads(predictor), predictor.warnings)

    def no_photo(self, model_name: str) -> str:
        """Why the photo tab is not for this model; "" where it is."""
        others = [name for name, predictor in self.predictors.items() if _reads_photos(predictor)]
        return "" if model_name in others else no_photo_page(model_name, _reads(self.predictors[model_name]), others)

    def start(self, has_agreed: bool, model_name: str, camera: str) -> tuple[LiveSession | None, str]:
        """A camera session, or why there is none.

        Args:
            camera: "granted", or the name of the browser's exception.
        """
        if not has_agreed:
            return None, refusal_page("Expected your consent first; tick the box above.")
        if camera != "granted":
            return None, camera_refusal(camera)
        return LiveSession(model_name, self._new_live(model_name)), ""

    def stop(self, session: LiveSession | None) -> None:
        """Forget all; whoever still holds the session, such as a picture on its way, holds nothing."""
        if session is not None:
            with session.lock:
                session.use(session.model_name, None)

    def watch(
        self, frame: np.ndarray | None, model_name: str, session: LiveSession | None
    ) -> tuple[str | None, str | None, bool | None]:
        """One camera picture, (height, width, 3) uint8 RGB → the drawn picture and, where they are new, words and
        whether there is somebody to explain.

        Without a session, which only consent gives, no picture is looked at.
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
        """Heat maps of what the camera showed last, of everybody who is there and of whom something is predicted.

        Nothing, where the session was stopped or got another model meanwhile.
        """
        if session is None:
            return refusal_page("Expected the camera's pictures, got none; start it first.")
        with session.lock:
            live, frames, numbers = session.live, list(session.frames), session.explained
            model_name = session.model_name
        if not numbers:
            return refusal_page("Nothing is predicted of anybody in the picture now, so there is nothing to explain.")
        html = _said(
            None,
            lambda: self._explain(
                model_name, "the camera", lambda it: camera_why_page(_explain_people(it, frames, numbers), it.warnings)
            ),
        )
        with session.lock:
            return html if session.live is live else ""

    def look_at_video(self, file: str | None, model_name: str, step_sec: float) -> str:
        """A prediction for the whole video, and one a span."""
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
            return _refused(path, f"Expected a video, got the photo {path}; use the tab for photos.")
        return by_model(model_name, path.name, video_page(prediction, predictor.rule), predictor.warnings)

    def _photo_page(self, path: Path, model_name: str) -> str:
        predictor = self.predictors[model_name]
        prediction = _predict(predictor, path)
        if not isinstance(prediction, PhotoPrediction):
            return _refused(path, f"Expected a photo, got the video {path}; use the tab for videos.")
        page = photo_page(predictor.processor.load_picture(path), prediction, predictor.rule)
        return by_model(model_name, path.name, page, predictor.warnings)


class _Refused(Exception):
    """What `engagement predict` refuses; the message is its line."""


def _predict(predictor: Predictor, path: Path, step_sec: float | None = None) -> VideoPrediction | PhotoPrediction:
    (prediction,) = predict_many(predictor, [path], step_sec)
    if isinstance(prediction, Refusal):
        raise NoFaceError(prediction.error) if prediction.kind == NoFaceError.__name__ else _Refused(prediction.error)
    return prediction


def _with_rule(predictor: Predictor, settings: LiveSettings) -> Predictor:
    """Files and camera are answered alike."""
    alike = copy.copy(predictor)
    alike.rule = settings.rule_of(predictor)
    return alike


def _reads_photos(predictor: Predictor) -> bool:
    return not predictor.is_video_model and predictor.video_processor.face_crop


def _reads(predictor: Predictor) -> str:
    frames = f"{predictor.video_processor.num_frames} frames"
    what = "one face" if _reads_photos(predictor) else f"a clip of {frames}" if predictor.is_video_model else frames
    return f"It reads {what} and tells {', '.join(predictor.rule.label_names)}."


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
        raise NoFaceError("Expected a face of the live picture, found none; wait a little.")
    return people


def _track_of(number: int | None, frames: list[KeptFrame]) -> FaceTrack:
    places = [next((face for face in frame.faces if face.number == number), None) for frame in frames]
    boxes = [np.full(4, np.nan) if face is None else face.box_xyxy_px for face in places]
    landmarks = [np.full((5, 2), np.nan) if face is None else face.landmarks_xy_px for face in places]
    found = np.array([face is not None for face in places])
    return FaceTrack(found, np.stack(boxes), np.stack(landmarks), found.astype(np.float32))


def _checked(path: Path, predictor: Predictor) -> Path:
    """Raises VideoTooLargeError for a video that is too long for a page."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        duration_sec = predictor.video_processor.reader.index_video(path).duration_sec
        if duration_sec > MAX_VIDEO_SEC:
            raise VideoTooLargeError(
                f"Expected a video of at most {MAX_VIDEO_SEC:g} s on this page, got {duration_sec:.0f} s in {path}; "
                "use the command `engagement predict`."
            )
    return path


def _answer(file: str | None, kind: str, look: Callable[[Path], str]) -> str:
    """What `look` makes of an upload, or why it makes nothing of it."""
    if file is None:
        return refusal_page(f"Expected a {kind}, got none; choose one first.")
    path = Path(file)
    if not path.exists():
        return refusal_page(
            f"{path.name} has been deleted here, since uploads are kept for minutes only; choose it again."
        )
    return _said(path, lambda: look(path))


def _said(path: Path | None, look: Callable[[], str]) -> str:
    """A result, or its refusal in words for somebody who only sees the page.

    Args:
        path: of an upload; None: it is the camera's.
    """
    try:
        return look()
    except NoFaceError:
        return refusal_page(NO_FACE if path is None else no_face_in(path.name))
    except (_Refused, EngagementInputError) as error:
        return _refused(path, str(error))


def _refused(path: Path | None, text: str) -> str:
    """Where uploads lie is nobody's business; Pillow quotes it, with backslashes doubled."""
    folder = "" if path is None else f"{path.parent}{os.sep}"
    return refusal_page(text.replace(folder, "").replace(repr(folder)[1:-1], ""))
