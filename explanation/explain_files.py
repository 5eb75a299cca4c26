"""Explanations of files and of the live page's frames: the face, the heat, and the share of heat on the face."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from ..answer_rule import Answer
from ..inference.predictor import Predictor
from ..processor.face_preparation import PreparedClip
from ..processor.face_tracking import FaceTrack, fill_missing
from ..processor.film_windows import CLIP_SEC
from ..processor.input_errors import NoFaceError
from ..processor.media_files import PICTURE_SUFFIXES
from .face_focus import FaceFocus, RegionFocus, face_focus, input_transforms
from .heat_maps import ClipExplanation, explain_clip


class FaceFocusJson(TypedDict):
    """Shares of heat and area by region, for the clip and each frame."""

    clip: dict[str, RegionFocus]
    frames: dict[str, dict[str, list[float | None]]]
    num_frames: int
    num_without_heat: int
    num_without_face: int


class ExplainedClipJson(TypedDict):
    """An explained clip without its maps. Without a predicted label, `reason` says why."""

    label: str
    predicted: str | None
    reason: str | None
    method: str
    scores: dict[str, float]
    frame_times_sec: list[float | None]
    input_size_px: list[int]
    feature_map_size: list[int]
    zero_heat: list[bool]
    face_focus: FaceFocusJson | None


class ExplanationJson(TypedDict):
    """An explained file without its maps."""

    source: str
    span_sec: list[float] | None
    clips: list[ExplainedClipJson]


@dataclass(frozen=True)
class FaceInClip:
    """The face's place, and the share of heat on it."""

    boxes_xyxy_px: np.ndarray  # (num_frames, 4) in the whole frame
    found: np.ndarray  # (num_frames,) bool
    focus: FaceFocus


@dataclass(frozen=True)
class ExplainedClip:
    """An explained video, or one face of a photo as a clip of one frame, with the pictures the maps belong to."""

    explanation: ClipExplanation
    pictures: np.ndarray  # (num_frames, height, width, 3) uint8 RGB: face crops, or whole frames
    transforms: np.ndarray | None  # (num_frames, 2, 3) from pixels of the pictures to those of the whole frame
    frame_times_sec: np.ndarray  # (num_frames,), NaN for photos
    answer: Answer  # the answer for this clip; without a label, the reason
    face: FaceInClip | None = None  # None: no face was found


@dataclass(frozen=True)
class Explanation:
    """An explained file: one clip for a video, one for each face of a photo."""

    source: str
    clips: list[ExplainedClip]
    span_sec: tuple[float, float] | None = None  # in a long video, the explained window
    warnings: tuple[str, ...] = ()  # as `Predictor.warnings`


def explain_file(predictor: Predictor, path: Path, label: str | None = None, method: str = "gradcam") -> Explanation:
    """Explain a video, or every face of a photo, through the model's own processor, so that maps match its pixels.

    In a video that is read in windows, the one whose scores are nearest to the whole video's is explained.

    Args:
        label: the class to explain; default: the predicted or most probable one; in a photo, each face's own.
        method: as for `explain_clip`.

    Raises:
        EngagementInputError: as `Predictor.predict` and `explain_clip`.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES:
        photo = _explain_photo(predictor, path, label, method)
        return Explanation(str(path), photo, warnings=tuple(predictor.warnings))
    span_sec = _typical_window(predictor, path)
    start_sec, end_sec = span_sec or (None, None)
    clip = predictor.video_processor.prepare_clip(path, clip_start_sec=start_sec, clip_end_sec=end_sec)
    explained = _explain_clip(predictor, clip, label, method)
    return Explanation(str(path), [explained], span_sec, tuple(predictor.warnings))


def explain_frames(
    predictor: Predictor, frames: np.ndarray, label: str | None = None, method: str = "gradcam"
) -> ExplainedClip:
    """As `explain_file`, for the frames of a clip, (num_frames, height, width, 3) uint8 RGB."""
    return _explain_clip(predictor, predictor.video_processor.prepare_clip(frames), label, method)


def explain_track(
    predictor: Predictor, frames: np.ndarray, track: FaceTrack, label: str | None = None, method: str = "gradcam"
) -> ExplainedClip:
    """Explain one person of a live picture, tracked in these frames, (num_frames, height, width, 3) uint8 RGB.

    As in the live picture, a frame without the face uses the crop nearest in time.
    """
    processor, filled = predictor.video_processor, fill_missing(track)
    crops, transforms = processor.crop(frames, filled.boxes_xyxy_px, filled.landmarks_xy_px)
    found = np.flatnonzero(track.found)
    nearest = found[np.abs(np.arange(len(frames))[:, None] - found).argmin(axis=1)]
    explanation = _explain(predictor, predictor.to_tensor(crops[nearest]), label, method)
    boxes = filled.boxes_xyxy_px[track.found]
    face_px = float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))
    answer = _answer(predictor, explanation, float(track.found.mean()), face_px)
    faces = (filled.boxes_xyxy_px, filled.landmarks_xy_px, track.found)
    return _with_focus(explanation, answer, crops, transforms, np.full(len(frames), np.nan), *faces)


def to_json(explanation: Explanation) -> ExplanationJson:
    """Plain types, without the maps themselves."""
    return {
        "source": explanation.source,
        "span_sec": None if explanation.span_sec is None else list(explanation.span_sec),
        "clips": [_clip_to_json(clip) for clip in explanation.clips],
    }


def _typical_window(predictor: Predictor, path: Path) -> tuple[float, float] | None:
    """The window to explain; None: the video is one window."""
    clip_sec, index = predictor.rule.clip_sec, predictor.video_processor.index_file(path)
    if len(predictor.video_processor.windows_of(index, clip_sec, None, predictor.is_video_model)) == 1:
        return None
    prediction = predictor.predict_video(path, clip_sec or CLIP_SEC)
    windows = [span for span in prediction.timeline if span.scores is not None]
    if not windows:
        raise NoFaceError(f"No face in {path} is visible for long enough to explain it: {prediction.reason}.")
    rows = np.array([list((span.scores or {}).values()) for span in windows])
    # If few windows show a face, the whole video has no scores.
    mean = rows.mean(axis=0) if prediction.scores is None else np.array(list(prediction.scores.values()))
    distances = np.abs(rows - mean).sum(axis=1).round(6)  # two windows are equally near, but for float noise
    nearest = windows[int(distances.argmin())]
    return nearest.start_sec, nearest.end_sec


def _explain_clip(predictor: Predictor, clip: PreparedClip, label: str | None, method: str) -> ExplainedClip:
    explanation = _explain(predictor, predictor.to_tensor(clip.frames), label, method)
    answer = _answer(predictor, explanation, clip.face_coverage, clip.face_px)
    if clip.transforms is not None:
        faces = (clip.boxes_xyxy_px, clip.landmarks_xy_px, clip.found)
        return _with_focus(explanation, answer, clip.frames, clip.transforms, clip.frame_times_sec, *faces)
    faces = _look_for_face(predictor, clip)
    return _with_focus(explanation, answer, np.asarray(clip.whole_frames), None, clip.frame_times_sec, *faces)


def _explain(predictor: Predictor, pixel_values: torch.Tensor, label: str | None, method: str) -> ClipExplanation:
    return explain_clip(predictor.model, pixel_values, label, method, predictor.rule)


def _answer(
    predictor: Predictor, explanation: ClipExplanation, face_coverage: float | None, face_px: float | None
) -> Answer:
    return predictor.rule.answer(np.array(list(explanation.scores.values())), face_coverage, face_px)


def _look_for_face(
    predictor: Predictor, clip: PreparedClip
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """The face in whole frames, which the model does not need but face focus does; None if there is none."""
    try:
        person = predictor.video_processor.find_person(clip.whole_frames, clip.source)
    except NoFaceError:
        return None, None, None
    return person.boxes_xyxy_px, person.landmarks_xy_px, person.found


def _explain_photo(predictor: Predictor, photo: Path, label: str | None, method: str) -> list[ExplainedClip]:
    faces = predictor.prepare_photo(photo)
    pixel_values = predictor.to_tensor(faces.frames)
    clips = []
    for i, box in enumerate(faces.boxes_xyxy_px):
        explanation, one = _explain(predictor, pixel_values[i], label, method), slice(i, i + 1)
        face_px = None if predictor.faces_given else float(max(box[2] - box[0], box[3] - box[1]))
        answer = _answer(predictor, explanation, None, face_px)
        pictures = (faces.frames[one], faces.transforms[one], np.array([np.nan]))
        if predictor.faces_given:  # eyes and mouth were not detected
            clips.append(ExplainedClip(explanation, *pictures, answer))
            continue
        points = (faces.boxes_xyxy_px[one], faces.landmarks_xy_px[one], np.array([True]))
        clips.append(_with_focus(explanation, answer, *pictures, *points))
    return clips


def _with_focus(
    explanation: ClipExplanation,
    answer: Answer,
    pictures: np.ndarray,
    transforms: np.ndarray | None,
    frame_times_sec: np.ndarray,
    boxes_xyxy_px: np.ndarray | None,
    landmarks_xy_px: np.ndarray | None,
    found: np.ndarray | None,
) -> ExplainedClip:
    face = None
    if boxes_xyxy_px is not None and landmarks_xy_px is not None and found is not None:
        maps = explanation.maps
        to_frame = input_transforms(transforms, pictures.shape[1:3], maps.shape[1:], len(maps))
        face = FaceInClip(boxes_xyxy_px, found, face_focus(maps, boxes_xyxy_px, landmarks_xy_px, to_frame, found))
    return ExplainedClip(explanation, pictures, transforms, frame_times_sec, answer, face)


def _clip_to_json(clip: ExplainedClip) -> ExplainedClipJson:
    explanation = clip.explanation
    return {
        "label": explanation.label,
        "predicted": clip.answer.label,
        "reason": clip.answer.reason,
        "method": explanation.method,
        "scores": explanation.scores,
        "frame_times_sec": [None if np.isnan(time) else round(float(time), 3) for time in clip.frame_times_sec],
        "input_size_px": list(explanation.maps.shape[1:]),
        "feature_map_size": list(explanation.map_size),
        "zero_heat": explanation.zero_heat,
        "face_focus": _focus_to_json(clip.face.focus) if clip.face else None,
    }


def _focus_to_json(focus: FaceFocus) -> FaceFocusJson:
    return {
        "clip": focus.clip,
        "frames": {"heat_share": focus.heat_share, "area_share": focus.area_share},
        "num_frames": focus.num_frames,
        "num_without_heat": focus.num_without_heat,
        "num_without_face": focus.num_without_face,
    }
