"""A trained model and a user's files → predictions: a label and all scores a video, a timeline, every face of a photo.

Files only; the command line prints what this returns. A video's crops come from the model's own processor.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoVideoProcessor, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from .. import register_auto_classes
from ..configuration_engagement import EngagementConfig
from ..modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from ..processor.face_preparation import PreparedClip, PreparedFaces
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import EngagementInputError, ModelLoadError, NoFaceError, RecipeError, in_one_line
from ..processor.media_inputs import PICTURE_SUFFIXES
from ..processor.video_decoding import VideoIndex, index_video
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .fused_norms import fuse_batch_norms

_SHARED_SETTINGS = (
    "size", "image_mean", "image_std", "face_margin_ratio", "face_framing", "face_crop_size_px", "do_grayscale",
    "picture_norm",
)  # fmt: skip
_Model = TypeVar("_Model", bound=EngagementForVideoClassification | EngagementForImageClassification)


@dataclass(frozen=True)
class Span:
    """A stretch of a video and what was predicted in it; without a face there is no label."""

    start_sec: float
    end_sec: float
    label: str | None
    scores: dict[str, float] | None
    face_coverage: float | None
    reason: str | None = None  # why there is no label
    certainty: float | None = None


@dataclass(frozen=True)
class VideoPrediction:
    """What was predicted for a whole video and, if asked for, for each span of it."""

    source: str
    label: str
    scores: dict[str, float]  # after softmax, by label name
    face_coverage: float | None  # share of sampled frames with the person's face; None for whole-frame models
    num_repeated_frames: int
    timeline: list[Span] = field(default_factory=list)


@dataclass(frozen=True)
class FacePrediction:
    """One face of a photo: where it is and what was predicted for it."""

    label: str
    scores: dict[str, float]
    box_xyxy_px: list[float]
    face_probability: float | None  # None: the picture was given as a face


@dataclass(frozen=True)
class PhotoPrediction:
    """All faces of a photo, the most probable first."""

    source: str
    faces: list[FacePrediction]


@dataclass(frozen=True)
class Refusal:
    """An input that gave no prediction, and why."""

    source: str
    error: str


class SpanJson(TypedDict):
    """A `Span` as JSON has it."""

    start_sec: float
    end_sec: float
    label: str | None
    scores: dict[str, float] | None
    face_coverage: float | None


class VideoAnswer(TypedDict):
    """What was predicted for a whole video; an endpoint answers just this."""

    label: str
    scores: dict[str, float]
    face_coverage: float | None
    num_repeated_frames: int


class VideoJson(VideoAnswer):
    """A `VideoPrediction` as JSON has it."""

    source: str
    timeline: NotRequired[list[SpanJson]]


class FaceAnswer(TypedDict):
    """A `FacePrediction` as JSON has it."""

    label: str
    scores: dict[str, float]
    box_xyxy_px: list[float]
    face_probability: float | None


class PhotoAnswer(TypedDict):
    """What was predicted for the faces of a picture; an endpoint answers just this."""

    faces: list[FaceAnswer]


class PhotoJson(PhotoAnswer):
    """A `PhotoPrediction` as JSON has it."""

    source: str


class RefusalJson(TypedDict):
    """A `Refusal` as JSON has it."""

    source: str
    error: str


class Predictor:
    """A loaded model with its processor; `predict` takes any video or photo.

    With `faces_given` pictures, and frames of videos, are faces already: nobody looks for one.
    """

    def __init__(
        self,
        model: EngagementForVideoClassification | EngagementForImageClassification,
        processor: EngagementVideoProcessor | EngagementImageProcessor,
        faces_given: bool = False,
    ) -> None:
        self.model: EngagementForVideoClassification | EngagementForImageClassification = model.eval().to(
            memory_format=torch.channels_last
        )
        self.is_video_model = isinstance(model, EngagementForVideoClassification)
        self.processor = processor
        self.faces_given = faces_given
        if isinstance(processor, EngagementVideoProcessor):
            self.video_processor = processor
        else:
            # A video before a single-face model: the person's face is found in it, unless it reads whole frames.
            settings = {name: getattr(processor, name) for name in _SHARED_SETTINGS}
            self.reads_frames = processor.pictures_are_frames and not processor.face_crop
            self.video_processor = EngagementVideoProcessor(
                **settings, num_frames=model.config.num_frames, face_crop=not self.reads_frames
            )
        if faces_given:
            if not self.video_processor.face_crop:
                raise RecipeError("Expected --faces with a model of faces, got one of whole frames; leave it out.")
            self.video_processor = copy.copy(self.video_processor)
            self.video_processor.face_crop = False

    @classmethod
    def from_pretrained(cls, model: str, faces_given: bool = False) -> "Predictor":
        """From an export folder or a Hub id.

        Raises:
            ModelLoadError: nothing is there, it holds no engagement model, or parts of it are missing.
        """
        register_auto_classes()
        try:
            _require_folder_or_hub_id(model)
            config = AutoConfig.from_pretrained(model)
            _check_architecture(model, config)
            if "Video" in config.architectures[0]:
                return cls(
                    _load_whole(EngagementForVideoClassification, model),
                    AutoVideoProcessor.from_pretrained(model),
                    faces_given,
                )
            whole = _load_whole(EngagementForImageClassification, model)
            return cls(whole, AutoImageProcessor.from_pretrained(model), faces_given)
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
            if isinstance(error, EngagementInputError):
                raise
            reason = in_one_line(error)
            raise ModelLoadError(
                f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id; {reason}"
            ) from error

    def speed_up(self) -> "Predictor":
        """Fold batch norms into convolutions where that leaves the features as they are, within float noise."""
        config, encoder = self.model.config, self.model.encoder
        size = (2, config.num_channels, config.image_size, config.image_size)
        noise = torch.rand(size, generator=torch.Generator().manual_seed(0)) - 0.5
        fused = fuse_batch_norms(encoder)
        with torch.inference_mode():
            expected, got = encoder(noise).pooler_output, fused(noise).pooler_output
        if torch.allclose(got, expected, rtol=1e-3, atol=1e-4):
            self.model.encoder = fused
        return self

    def predict(self, source: Path, timeline_step_sec: float | None = None) -> VideoPrediction | PhotoPrediction:
        """
        Args:
            timeline_step_sec: also predict every span of this length in a video.

        Raises:
            EngagementInputError: the file cannot be read, shows no face, or is a photo before a clip model.
        """
        if source.suffix.lower() in PICTURE_SUFFIXES:
            return self.predict_photo(source)
        return self.predict_video(source, timeline_step_sec)

    def predict_video(self, source: Path, timeline_step_sec: float | None = None) -> VideoPrediction:
        """One prediction for the whole video, and one a span with `timeline_step_sec`."""
        index = index_video(source)
        clip = self.video_processor.prepare_clip(source, index=index)
        scores = self._score_clip(clip)
        timeline = []
        if timeline_step_sec is not None:
            starts = np.arange(0, max(index.duration_sec - timeline_step_sec / 2, 1e-9), timeline_step_sec)
            ends = np.minimum(starts + timeline_step_sec, index.duration_sec)
            timeline = [self._predict_span(source, index, *span) for span in zip(starts, ends, strict=True)]
        return VideoPrediction(
            str(source), best_label(scores), scores, clip.face_coverage, clip.num_repeated_frames, timeline
        )

    def _predict_span(self, source: Path, index: VideoIndex, start_sec: float, end_sec: float) -> Span:
        span = (round(float(start_sec), 3), round(float(end_sec), 3))
        try:
            clip = self.video_processor.prepare_clip(
                source, clip_start_sec=start_sec, clip_end_sec=end_sec, index=index
            )
        except NoFaceError:
            return Span(*span, label=None, scores=None, face_coverage=0.0)
        scores = self._score_clip(clip)
        return Span(*span, label=best_label(scores), scores=scores, face_coverage=clip.face_coverage)

    def predict_photo(self, source: Path) -> PhotoPrediction:
        """Every face of a picture, the most probable first."""
        faces = self.prepare_photo(source)
        scores = self._score(self.processor.to_pixel_values(faces.frames))
        probabilities = [None] if self.faces_given else faces.probabilities.tolist()
        predictions = [
            FacePrediction(best_label(row), row, [round(float(edge), 1) for edge in box], probability)
            for row, box, probability in zip(scores, faces.boxes_xyxy_px, probabilities, strict=True)
        ]
        return PhotoPrediction(str(source), predictions)

    def prepare_photo(self, source: Path | np.ndarray) -> PreparedFaces:
        """The faces of a photo, as the model reads them; raises EngagementInputError for a model that reads none."""
        if isinstance(self.processor, EngagementVideoProcessor):
            raise EngagementInputError(
                f"Expected a video for this clip model, got the photo {source}; pass a video, or a single-face model."
            )
        if self.reads_frames:
            raise EngagementInputError(
                f"Expected a video for this model of whole frames, got the photo {source}; pass a video."
            )
        if self.faces_given:
            return self.processor.take_as_face(source)
        try:
            return self.processor.prepare_faces(source)
        except NoFaceError as error:
            raise NoFaceError(f"{error} If the picture is a face already, pass --faces.") from error

    def _score_clip(self, clip: PreparedClip) -> dict[str, float]:
        pixel_values = self.video_processor.to_pixel_values(clip.frames)  # (frames, C, H, W)
        if self.is_video_model:
            return self._score(pixel_values[None])[0]
        frames = self._score(pixel_values)  # one row of scores a frame; their mean is the clip's
        return {name: float(np.mean([row[name] for row in frames])) for name in frames[0]}

    def _score(self, pixel_values: torch.Tensor) -> list[dict[str, float]]:
        with torch.inference_mode():
            scores = self.model(pixel_values).logits.float().softmax(dim=1)
        names = self.model.config.label_names
        return [dict(zip(names, row, strict=True)) for row in scores.tolist()]


def predict_all(
    predictor: Predictor, sources: Sequence[Path], timeline_step_sec: float | None = None
) -> list[VideoPrediction | PhotoPrediction | Refusal]:
    """One entry an input, in order; a bad one becomes a `Refusal` and the others still come out."""
    results: list[VideoPrediction | PhotoPrediction | Refusal] = []
    for source in sources:
        try:
            results.append(predictor.predict(source, timeline_step_sec))
        except EngagementInputError as error:
            results.append(Refusal(str(source), str(error)))
    return results


def to_json(result: VideoPrediction | PhotoPrediction | Refusal) -> VideoJson | PhotoJson | RefusalJson:
    """Plain types, without an empty timeline."""
    if isinstance(result, Refusal):
        return {"source": result.source, "error": result.error}
    if isinstance(result, PhotoPrediction):
        return {"source": result.source, "faces": [_face_to_json(face) for face in result.faces]}
    video: VideoJson = {
        "source": result.source,
        "label": result.label,
        "scores": result.scores,
        "face_coverage": result.face_coverage,
        "num_repeated_frames": result.num_repeated_frames,
    }
    if result.timeline:
        video["timeline"] = [_span_to_json(span) for span in result.timeline]
    return video


def _face_to_json(face: FacePrediction) -> FaceAnswer:
    return {
        "label": face.label,
        "scores": face.scores,
        "box_xyxy_px": face.box_xyxy_px,
        "face_probability": face.face_probability,
    }


def _span_to_json(span: Span) -> SpanJson:
    return {
        "start_sec": span.start_sec,
        "end_sec": span.end_sec,
        "label": span.label,
        "scores": span.scores,
        "face_coverage": span.face_coverage,
    }


def best_label(scores: dict[str, float]) -> str:
    """The label with the highest score."""
    return max(scores, key=scores.__getitem__)


def _require_folder_or_hub_id(model: str) -> None:
    """A mistyped folder is refused at once; the Hub would be asked for it again and again, and say nothing of it."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").exists() and (fold := folder.parent / "folds/1" / folder.name).exists():
            raise ModelLoadError(f"Expected a model at {model}, got pooled scores of folds; a fold's model is {fold}.")
        return
    # A folder here that holds models is meant, and not an organisation that happens to have its name.
    is_among_models = any(True for depth in ("*", "*/*") for _ in folder.parent.glob(f"{depth}/config.json"))
    if folder.exists() or model.count("/") != 1 or is_among_models:
        found = "a file" if folder.exists() else "no such folder"
        raise ModelLoadError(
            f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id (org/name), found "
            f"{found}; check the path."
        )


@contextmanager
def _without_loading_bar() -> Iterator[None]:
    """transformers' bar over weights that are there already is gone in a blink; bars of downloads stay."""
    if not transformers_logging.is_progress_bar_enabled():
        yield
        return
    shows_downloads = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # and those of downloads
    if shows_downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        if not shows_downloads:
            disable_progress_bars()


def _check_architecture(model: str, config: PreTrainedConfig) -> None:
    if not isinstance(config, EngagementConfig) or not config.architectures:
        raise ModelLoadError(f"Expected an engagement model at {model}, got a config of type {config.model_type!r}.")


def _load_whole(kind: type[_Model], model: str) -> _Model:
    """A model with every weight; transformers itself would draw missing ones at random and only warn."""
    with _without_loading_bar():
        loaded, report = kind.from_pretrained(model, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelLoadError(f"Expected all weights in {model}, {len(absent)} are missing (first: {absent[0]}).")
    broken = next((name for name, weights in loaded.state_dict().items() if not weights.isfinite().all()), None)
    if broken:
        raise ModelLoadError(f"Expected numbers as weights in {model}, got nan or infinity in {broken}; train it anew.")
    return loaded
