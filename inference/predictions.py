"""A model's answers: for a video, its spans, a photo's faces, or a refused file; and their JSON."""

import json
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from ..processor.input_errors import printable


@dataclass(frozen=True)
class Span:
    """A span of a video and its prediction. Without a label, `reason` says why."""

    start_sec: float
    end_sec: float
    label: str | None
    scores: dict[str, float] | None
    face_coverage: float | None
    reason: str | None = None
    certainty: float | None = None


@dataclass(frozen=True)
class VideoPrediction:
    """The prediction for a whole video and, if requested, for spans of it. Without a label, `reason` says why.

    A video much longer than the clips of the training is read in windows of their length; its scores are the mean over
    the windows.
    """

    source: str
    label: str | None  # None: see `reason`
    scores: dict[str, float] | None  # by label name; calibrated if validation data allowed it
    face_coverage: float | None  # share of sampled frames with the person's face; None for whole-frame models
    num_repeated_frames: int  # sampled frames that repeat another one, since the video has too few
    timeline: list[Span] = field(default_factory=list)
    reason: str | None = None  # why there is no label
    certainty: float | None = None  # of the label that is, or would be, chosen
    num_people: int | None = None  # the most faces in one frame; None without face detection
    num_windows: int = 1  # that the video was read in
    num_unreadable_windows: int = 0  # of these; they have no scores
    spread: dict[str, float] | None = None  # standard deviation of the scores over windows; None for one
    notes: tuple[str, ...] = ()  # phrases: what a user should know about the file


@dataclass(frozen=True)
class FacePrediction:
    """One face of a photo: its place and its prediction. Without a label, `reason` says why."""

    label: str | None
    scores: dict[str, float] | None
    box_xyxy_px: list[float]
    face_probability: float | None  # None: the picture was given as a face
    reason: str | None = None
    certainty: float | None = None


@dataclass(frozen=True)
class PhotoPrediction:
    """All faces of a photo, from left to right: faces are numbered from 1 in this order."""

    source: str
    faces: list[FacePrediction]
    notes: tuple[str, ...] = ()  # as in `VideoPrediction`


@dataclass(frozen=True)
class Refusal:
    """An input that gave no prediction, and why."""

    source: str
    error: str
    kind: str | None = None  # the error's class, such as "NoFaceError"


Prediction = VideoPrediction | PhotoPrediction | Refusal


class AboutModel(TypedDict):
    """Stored with every answer: what the model was trained on, and where and how it ran."""

    trained_on: str  # "drawn people", a data set's name, or "unknown"
    calibrated: bool
    device: str
    engine: str  # library and version
    dtype: str  # of the model's arithmetic


class SpanJson(TypedDict):
    """A `Span` in JSON."""

    start_sec: float
    end_sec: float
    label: str | None
    reason: str | None
    scores: dict[str, float] | None
    certainty: float | None
    face_coverage: float | None


class VideoAnswer(TypedDict):
    """The prediction for a whole video, as an endpoint answers."""

    label: str | None
    reason: str | None
    scores: dict[str, float] | None
    certainty: float | None
    face_coverage: float | None
    num_repeated_frames: int
    num_people: int | None
    num_windows: int
    num_unreadable_windows: int
    spread: dict[str, float] | None
    notes: list[str]
    model: AboutModel


class VideoJson(VideoAnswer):
    """A `VideoPrediction` in JSON."""

    source: str
    timeline: NotRequired[list[SpanJson]]


class FaceAnswer(TypedDict):
    """A `FacePrediction` in JSON."""

    label: str | None
    reason: str | None
    scores: dict[str, float] | None
    certainty: float | None
    box_xyxy_px: list[float]
    face_probability: float | None


class PhotoAnswer(TypedDict):
    """The predictions for the faces of a picture, as an endpoint answers."""

    faces: list[FaceAnswer]
    notes: list[str]
    model: AboutModel


class PhotoJson(PhotoAnswer):
    """A `PhotoPrediction` in JSON."""

    source: str


class RefusalJson(TypedDict):
    """A `Refusal` in JSON."""

    source: str
    error: str


def to_json(result: Prediction, about: AboutModel) -> VideoJson | PhotoJson | RefusalJson:
    """Plain types, without an empty timeline."""
    if isinstance(result, Refusal):
        return {"source": result.source, "error": result.error}
    if isinstance(result, PhotoPrediction):
        return {"source": result.source, "faces": [_face_to_json(face) for face in result.faces],
                "notes": list(result.notes), "model": about}  # fmt: skip
    video: VideoJson = {
        "source": result.source,
        "label": result.label,
        "reason": result.reason,
        "scores": result.scores,
        "certainty": result.certainty,
        "face_coverage": result.face_coverage,
        "num_repeated_frames": result.num_repeated_frames,
        "num_people": result.num_people,
        "num_windows": result.num_windows,
        "num_unreadable_windows": result.num_unreadable_windows,
        "spread": result.spread,
        "notes": list(result.notes),
        "model": about,
    }
    if result.timeline:
        video["timeline"] = [_span_to_json(span) for span in result.timeline]
    return video


def _face_to_json(face: FacePrediction) -> FaceAnswer:
    return {
        "label": face.label,
        "reason": face.reason,
        "scores": face.scores,
        "certainty": face.certainty,
        "box_xyxy_px": face.box_xyxy_px,
        "face_probability": face.face_probability,
    }


def _span_to_json(span: Span) -> SpanJson:
    return {
        "start_sec": span.start_sec,
        "end_sec": span.end_sec,
        "label": span.label,
        "reason": span.reason,
        "scores": span.scores,
        "certainty": span.certainty,
        "face_coverage": span.face_coverage,
    }


def to_json_line(content: object, encoding: str | None = "utf-8") -> str:
    """JSON on one line. Characters are escaped if the encoding lacks any of them, such as those of a file name that is
    not valid text."""
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(content)
    return text


def to_lines(result: VideoPrediction | PhotoPrediction) -> list[str]:
    """For people: one line per video; for a photo one, and one per face, numbered from left to right."""
    if isinstance(result, PhotoPrediction):
        lines = [f"{printable(result.source)}: {len(result.faces)} face{'s' if len(result.faces) != 1 else ''}"]
        for number, face in enumerate(result.faces, start=1):
            found = "the whole picture" if face.face_probability is None else f"face {face.face_probability:.3f}"
            said = scores_in_words(face.scores)
            lines.append(f"  {number}: {face.label or face.reason}{said}  box {face.box_xyxy_px}, {found}")
        return lines + _note_lines(result)
    known = ["whole frames" if result.face_coverage is None else f"face in {result.face_coverage:.0%} of frames"]
    if result.num_repeated_frames:
        known.append(f"{result.num_repeated_frames} frames repeated")
    if result.num_windows > 1:
        spread = f", spread {max(result.spread.values()):.3f}" if result.spread else ""
        known.append(f"mean of {result.num_windows} windows{spread}")
    if result.num_unreadable_windows:
        known.append(f"{result.num_unreadable_windows} of them unreadable")
    said = scores_in_words(result.scores)
    answer = f"{printable(result.source)}: {result.label or result.reason}{said}  ({', '.join(known)})"
    return [answer, *_note_lines(result)]


def _note_lines(result: VideoPrediction | PhotoPrediction) -> list[str]:
    return [f"  note: {note}" for note in result.notes]


def scores_in_words(scores: dict[str, float] | None) -> str:
    """Text after a label; empty without scores."""
    return "" if scores is None else "  " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
