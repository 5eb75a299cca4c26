"""Files and frames of the live page, explained: which face, its heat, and the share of the heat on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..inference.predictor import Predictor
from ..processor.face_preparation import PreparedClip
from ..processor.input_errors import NoFaceError
from ..processor.media_inputs import PICTURE_SUFFIXES
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .face_focus import FaceFocus, RegionFocus, face_focus, input_transforms
from .heat_maps import ClipExplanation, explain_clip


class FaceFocusJson(TypedDict):
    """Shares of heat and of area by region, of the clip and of each frame."""

    clip: dict[str, RegionFocus]
    frames: dict[str, dict[str, list[float | None]]]
    num_frames: int
    num_without_heat: int
    num_without_face: int


class ExplainedClipJson(TypedDict):
    """An explained clip without its maps."""

    label: str
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
    clips: list[ExplainedClipJson]


@dataclass(frozen=True)
class FaceInClip:
    """Where the face is, and how much of the heat lies on it."""

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
    face: FaceInClip | None = None  # None: no face was found


@dataclass(frozen=True)
class Explanation:
    """An explained file: one clip for a video, one for each face of a photo."""

    source: str
    clips: list[ExplainedClip]


def explain_file(predictor: Predictor, path: Path, label: str | None = None, method: str = "gradcam") -> Explanation:
    """A video, or every face of a photo, through the model's own processor, so that maps lie on its very pixels.

    Args:
        label: the class to explain; default: the predicted one, in a photo each face's own.
        method: as for `explain_clip`.

    Raises:
        EngagementInputError: as `Predictor.predict` and `explain_clip`.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return Explanation(str(path), _explain_video(predictor, path, label, method))
    return Explanation(str(path), _explain_photo(predictor, path, label, method))


def explain_frames(
    predictor: Predictor, frames: np.ndarray, source: str, label: str | None = None, method: str = "gradcam"
) -> Explanation:
    """As `explain_file`, of frames (num_frames, height, width, 3) uint8 RGB: a clip of its most visible person, or,
    for a single-face model, every face of the last one. `source` is how the frames are to be called."""
    if isinstance(predictor.processor, EngagementVideoProcessor):
        return Explanation(source, _explain_video(predictor, frames, label, method))
    return Explanation(source, _explain_photo(predictor, frames[-1], label, method))


def to_json(explanation: Explanation) -> ExplanationJson:
    """Plain types, without the maps themselves."""
    return {"source": explanation.source, "clips": [_clip_to_json(clip) for clip in explanation.clips]}


def _explain_video(
    predictor: Predictor, video: Path | np.ndarray, label: str | None, method: str
) -> list[ExplainedClip]:
    processor = predictor.video_processor
    clip = processor.prepare_clip(video)
    pixel_values = processor.to_pixel_values(clip.frames)
    explanation = explain_clip(predictor.model, pixel_values, label, method, predictor.rule)
    if clip.transforms is not None:
        faces = (clip.boxes_xyxy_px, clip.landmarks_xy_px, clip.found)
        return [_with_focus(explanation, clip.frames, clip.transforms, clip.frame_times_sec, *faces)]
    return [_with_focus(explanation, clip.whole_frames, None, clip.frame_times_sec, *_look_for_face(predictor, clip))]


def _look_for_face(
    predictor: Predictor, clip: PreparedClip
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """A model of whole frames needs no face; whether its heat lies on one is all the more worth knowing."""
    try:
        person = predictor.video_processor.find_person(clip.whole_frames, clip.source)
    except NoFaceError:
        return None, None, None
    return person.boxes_xyxy_px, person.landmarks_xy_px, person.found


def _explain_photo(
    predictor: Predictor, photo: Path | np.ndarray, label: str | None, method: str
) -> list[ExplainedClip]:
    faces = predictor.prepare_photo(photo)
    pixel_values = predictor.processor.to_pixel_values(faces.frames)
    clips = []
    for i in range(len(faces.frames)):
        one = slice(i, i + 1)
        explanation = explain_clip(predictor.model, pixel_values[i], label, method, predictor.rule)
        pictures = (faces.frames[one], faces.transforms[one], np.array([np.nan]))
        if predictor.faces_given:  # where its eyes and mouth are, nobody has looked
            clips.append(ExplainedClip(explanation, *pictures))
            continue
        points = (faces.boxes_xyxy_px[one], faces.landmarks_xy_px[one], np.array([True]))
        clips.append(_with_focus(explanation, *pictures, *points))
    return clips


def _with_focus(
    explanation: ClipExplanation,
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
    return ExplainedClip(explanation, pictures, transforms, frame_times_sec, face)


def _clip_to_json(clip: ExplainedClip) -> ExplainedClipJson:
    explanation = clip.explanation
    return {
        "label": explanation.label,
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
