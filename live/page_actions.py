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
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from ..explanation.explain_files import ExplainedClip, explain_file, explain_frames
from ..inference.predictor import Predictor
from ..processor.face_tracking import pair_cheapest_first
from ..processor.input_errors import EngagementInputError, NoFaceError, VideoTooLargeError
from ..processor.media_inputs import PICTURE_SUFFIXES, load_picture
from ..processor.video_decoding import index_video
from .engine import LiveEngagement, PersonState
from .page_html import (
    NO_FACE,
    by_model,
    camera_refusal,
    camera_why_page,
    live_picture,
    live_words,
    no_face_in,
    number_faces,
    photo_page,
    refusal_page,
    video_page,
    why_page,
)
from .settings import LiveSettings

MAX_VIDEO_SEC = 900.0  # a page is for a look; longer videos are for the command line
SAME_FACE_OVERLAP = 0.3  # of two boxes in one picture, intersection over union


@dataclass
class LiveSession:
    """One visitor's camera, between consent and "stop and forget"; `lock` is held while any of it is used."""

    model_name: str
    live: LiveEngagement | None  # None: it is over, and holds nothing
    states: list[PersonState] = field(default_factory=list)
    words: str = ""
    frames: deque[np.ndarray] = field(default_factory=deque)  # of the last window, for "why?"
    frame_states: list[PersonState] = field(default_factory=list)  # of the last of them
    last_frame_sec: float = -math.inf
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, model_name: str, live: LiveEngagement | None) -> None:
        """Another model's turn, which begins anew."""
        self.model_name, self.live, self.states, self.words = model_name, live, [], ""
        self.frames.clear()
        self.frame_states, self.last_frame_sec = [], -math.inf

    def keep(self, live: LiveEngagement, frame: np.ndarray, time_sec: float) -> None:
        """Remember a picture where the next of a window of `live` is due."""
        if self.frames and self.frames[0].shape != frame.shape:  # a phone was turned, or another camera chosen
            self.frames.clear()
        if not self.frames or time_sec - self.last_frame_sec >= live.window_spacing_sec:
            self.frames.append(frame)
            self.frame_states, self.last_frame_sec = self.states, time_sec
            if len(self.frames) > live.num_frames:
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
            session.states = session.live.step(frame, now_sec)
            session.keep(session.live, frame, now_sec)
            words = live_words(session.states)
            is_new, session.words = words != session.words, words
            return live_picture(frame, session.states), words if is_new else None

    def explain_camera(self, session: LiveSession | None) -> str:
        """Heat maps of what the camera showed last: of a clip model one person's, of another everybody's.

        Nothing, where the session was stopped or got another model meanwhile.
        """
        if session is None:
            return refusal_page("Expected the camera's pictures, got none; start it first.")
        with session.lock:
            live, frames, states = session.live, list(session.frames), session.frame_states
            model_name, has_scores = session.model_name, any(state.scores for state in session.states)
        if not has_scores:
            return refusal_page("Nothing has been predicted yet, so there is nothing to explain; wait a little.")
        html = _said(
            None, lambda: self._explain(model_name, "the camera", lambda it: _camera_why(it, np.stack(frames), states))
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
        min_face_px = self.settings.min_face_px if path.suffix.lower() in PICTURE_SUFFIXES else 0
        threshold = self._threshold(model_name)

        def look(predictor: Predictor) -> str:
            explanation = explain_file(predictor, _checked(path))
            return why_page(explanation, [_has_label(clip, threshold, min_face_px) for clip in explanation.clips])

        return self._explain(model_name, path.name, look)

    def _explain(self, model_name: str, source: str, look: Callable[[Predictor], str]) -> str:
        with self._explaining:
            if model_name not in self._explainers:
                self._explainers[model_name] = copy.deepcopy(self.predictors[model_name])
            return by_model(model_name, source, look(self._explainers[model_name]))

    def _new_live(self, model_name: str) -> LiveEngagement:
        return LiveEngagement(self.predictors[model_name], self.settings)

    def _threshold(self, model_name: str) -> float:
        return self.settings.threshold(len(self.predictors[model_name].model.config.label_names))

    def _video_page(self, path: Path, model_name: str, step_sec: float) -> str:
        prediction = self.predictors[model_name].predict_video(_checked(path), timeline_step_sec=step_sec)
        return by_model(model_name, path.name, video_page(prediction, self._threshold(model_name)))

    def _photo_page(self, path: Path, model_name: str) -> str:
        prediction = self.predictors[model_name].predict_photo(path)
        states = number_faces(prediction, self.settings.min_face_px, self._threshold(model_name))
        return by_model(model_name, path.name, photo_page(load_picture(path), states))


def _has_label(clip: ExplainedClip, threshold: float, min_face_px: float) -> bool:
    """Whether `number_faces` and `video_page` give it one."""
    if clip.face is not None and min_face_px:
        left, top, right, bottom = clip.face.boxes_xyxy_px[0]
        if max(right - left, bottom - top) < min_face_px:
            return False
    return max(clip.explanation.scores.values()) >= threshold


def _camera_why(predictor: Predictor, frames: np.ndarray, states: list[PersonState]) -> str:
    """frames: (num_frames, height, width, 3) uint8 RGB; states: of the last of them."""
    explanation = explain_frames(predictor, frames, "camera")
    clips, numbers = explanation.clips, _numbers_of(explanation.clips, states)
    if not predictor.is_video_model and any(state.number is not None for state in states):
        # As the live picture: by number, and without those whom it says nothing of.
        scored = {state.number for state in states if state.scores}
        known = sorted((number, i) for i, number in enumerate(numbers) if number in scored)
        if not known:
            raise NoFaceError("Expected a face of the live picture, found none; wait a little.")
        numbers, clips = [number for number, _ in known], [clips[i] for _, i in known]
    return camera_why_page(replace(explanation, clips=clips), numbers)


def _numbers_of(clips: list[ExplainedClip], states: list[PersonState]) -> list[int | None]:
    """Of each clip, the number of the person whose box its face has in the last picture."""
    numbers: list[int | None] = [None] * len(clips)
    people = [state for state in states if state.number is not None]
    seen = {i: clip.face.boxes_xyxy_px[-1] for i, clip in enumerate(clips) if clip.face and clip.face.found[-1]}
    if people and seen:
        faces = torch.tensor(np.stack(list(seen.values())), dtype=torch.float32)
        overlaps = box_iou(faces, torch.tensor([state.box_xyxy_px for state in people])).numpy()
        for row, column in pair_cheapest_first(np.where(overlaps >= SAME_FACE_OVERLAP, -overlaps, np.inf)):
            numbers[list(seen)[row]] = people[column].number
    return numbers


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
    except EngagementInputError as error:
        # Where uploads lie is nobody's business; Pillow quotes it, with backslashes doubled.
        folder = "" if path is None else f"{path.parent}{os.sep}"
        return refusal_page(str(error).replace(folder, "").replace(repr(folder)[1:-1], ""))
