"""What happens on the web page when something is pressed or a picture arrives; layout and events are `app`'s.

A camera session exists between consent and "stop and forget". Each session has a lock of its own, so that no visitor
waits for another's video, and explanations, which hook into a model, have models of their own.
"""

import copy
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .app_pages import (
    camera_refusal,
    live_picture,
    live_words,
    no_face_in,
    number_faces,
    photo_page,
    refusal_page,
    video_page,
    why_page,
)
from .explain import Explanation, explain_file, explain_frames
from .live import LiveEngagement, LiveSettings, PersonState
from .predict import PICTURE_SUFFIXES, Predictor
from .processor.input_errors import EngagementInputError, NoFaceError, VideoTooLargeError
from .processor.media_inputs import load_picture
from .processor.video_decoding import index_video

MAX_VIDEO_SEC = 900.0  # a page is for a look; longer videos are for the command line


@dataclass
class LiveSession:
    """One visitor's camera, between consent and "stop and forget"; `lock` is held while any of it is used."""

    model_name: str
    live: LiveEngagement | None  # None: it is over, and holds nothing
    states: list[PersonState] = field(default_factory=list)
    words: str = ""
    frames: deque[np.ndarray] = field(default_factory=deque)  # of the last window, for "why?"
    last_frame_sec: float = -math.inf
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, model_name: str, live: LiveEngagement | None) -> None:
        """Another model's turn, which begins anew."""
        self.model_name, self.live, self.states, self.words = model_name, live, [], ""
        self.frames.clear()
        self.last_frame_sec = -math.inf

    def keep(self, frame: np.ndarray, time_sec: float) -> None:
        """Remember a picture where the next of a window is due."""
        if self.frames and self.frames[0].shape != frame.shape:  # a phone was turned, or another camera chosen
            self.frames.clear()
        if not self.frames or time_sec - self.last_frame_sec >= self.live.window_spacing_sec:
            self.frames.append(frame)
            self.last_frame_sec = time_sec
            if len(self.frames) > self.live.num_frames:
                self.frames.popleft()


class Page:
    """What happens on the page; every method takes and gives what the page's parts hold."""

    def __init__(self, predictors: dict[str, Predictor], settings: LiveSettings) -> None:
        self.predictors = predictors
        self.settings = settings
        # An explanation hooks into its model, which must not see another's frames: models of its own, one at a time.
        self._explaining = threading.Lock()
        self._explainers: dict[str, Predictor] = {}

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
    ) -> tuple[str | None, str | None]:
        """One camera picture, (height, width, 3) uint8 RGB → the drawn picture, and words where they are new.

        Without a session, which only consent gives, no picture is looked at.
        """
        if frame is None or session is None:
            return None, None
        with session.lock:
            if session.live is None:
                return None, None
            if model_name != session.model_name:
                session.use(model_name, self._new_live(model_name))
            now_sec = time.monotonic()
            session.keep(frame, now_sec)
            session.states = session.live.step(frame, now_sec)
            words = live_words(session.states)
            is_new, session.words = words != session.words, words
            return live_picture(frame, session.states), words if is_new else None

    def explain_camera(self, session: LiveSession | None) -> str:
        """Heat maps of what the camera showed last: of a clip model one person's, of another everybody's."""
        if session is None:
            return refusal_page("Expected the camera's pictures, got none; start it first.")
        with session.lock:
            frames, states, model_name = list(session.frames), session.states, session.model_name
        if not any(state.scores for state in states):
            return refusal_page("Nothing has been predicted yet, so there is nothing to explain; wait a little.")
        is_unsure = not any(state.label for state in states)
        return _said(
            "the camera",
            lambda: self._why_page(
                model_name, lambda predictor: explain_frames(predictor, np.stack(frames), "camera"), is_unsure
            ),
        )

    def look_at_video(self, file: str | None, model_name: str, step_sec: float) -> str:
        """A prediction for the whole video, and one a span."""
        return _answer(file, "video", lambda path: self._video_page(path, model_name, step_sec))

    def look_at_photo(self, file: str | None, model_name: str) -> str:
        """A prediction for every face."""
        return _answer(file, "photo", lambda path: self._photo_page(path, model_name))

    def explain(self, file: str | None, model_name: str) -> str:
        """Heat maps of a video or photo."""
        return _answer(
            file,
            "file to explain",
            lambda path: self._why_page(model_name, lambda predictor: explain_file(predictor, _checked(path))),
        )

    def _why_page(self, model_name: str, look: Callable[[Predictor], Explanation], is_unsure: bool = False) -> str:
        with self._explaining:
            if model_name not in self._explainers:
                self._explainers[model_name] = copy.deepcopy(self.predictors[model_name])
            return why_page(look(self._explainers[model_name]), is_unsure)

    def _new_live(self, model_name: str) -> LiveEngagement:
        return LiveEngagement(self.predictors[model_name], self.settings)

    def _threshold(self, model_name: str) -> float:
        return self.settings.threshold(self.predictors[model_name].model.config.num_labels)

    def _video_page(self, path: Path, model_name: str, step_sec: float) -> str:
        prediction = self.predictors[model_name].predict_video(_checked(path), timeline_step_sec=step_sec)
        return video_page(prediction, self._threshold(model_name))

    def _photo_page(self, path: Path, model_name: str) -> str:
        prediction = self.predictors[model_name].predict_photo(path)
        states = number_faces(prediction, self.settings.min_face_px, self._threshold(model_name))
        return photo_page(load_picture(path), states)


def _checked(path: Path) -> Path:
    """Raises VideoTooLargeError for a video that is too long for a page."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        duration_sec = index_video(path).duration_sec
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
    return _said(path.name, lambda: look(path))


def _said(name: str, look: Callable[[], str]) -> str:
    """A result, or its refusal in words for somebody who only sees the page."""
    try:
        return look()
    except NoFaceError:
        return refusal_page(no_face_in(name))
    except EngagementInputError as error:
        # Where uploads lie is nobody's business.
        return refusal_page(re.sub(rf"\S*{re.escape(os.sep)}(?={re.escape(name)})", "", str(error)))
