"""A trained model and a user's files → predictions: label and scores per video, a timeline, every face of a photo.

This module prints nothing; the command line prints what it returns. A video's crops come from the model's own
processor, and the answer from the answer rule stored with its weights.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from ..answer_rule import DRAWN_PEOPLE, AnswerRule
from ..processor.clip_preparation import ClipPreparation
from ..processor.face_preparation import PreparedClip, PreparedFaces
from ..processor.input_errors import EngagementInputError, NoFaceError, RecipeError
from ..processor.media_files import PICTURE_SUFFIXES
from ..processor.media_reader import MediaReader
from ..processor.picture_preparation import PicturePreparation
from .answering import Failure, OnWindow, PhotoReading, Reading, VideoReading, answer_readings
from .engines import Engine
from .export_folder import is_export
from .exported_processor import ExportedClips, ExportedPictures
from .find_export import load_exported
from .placement import Placement, default_batch_size
from .predictions import AboutModel, PhotoPrediction, Refusal, VideoPrediction
from .scoring import Batches, Scorer

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

    from ..processor.image_processing_engagement import EngagementImageProcessor
    from ..processor.video_processing_engagement import EngagementVideoProcessor
    from .torch_engine import Model, TorchEngine

_SHARED_SETTINGS = (
    "size", "image_mean", "image_std", "face_margin_ratio", "face_framing", "face_crop_size_px", "do_grayscale",
    "picture_norm", "as_played",
)  # fmt: skip


class Predictor:
    """A loaded model with its processor; `predict` takes any video or photo.

    Args:
        model: a model of ours, or an engine that runs one.
        faces_given: pictures, and frames of videos, are face crops already: no face detection.
        device, dtype, batch_size, workers: where and how the model and the face detector run; see `Placement`.
        rule: how logits become an answer; None: the one loaded with the model, else an uncalibrated one.
    """

    def __init__(
        self,
        model: "Model | Engine",
        processor: ClipPreparation | PicturePreparation,
        faces_given: bool = False,
        device: str = "auto",
        rule: AnswerRule | None = None,
        dtype: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        kind = model.name.partition(" ")[0] if _is_engine(model) else "torch"
        self.placement = Placement(device, dtype, kind, batch_size, workers)
        if _is_engine(model):
            self.engine: Engine = model
        else:  # torch takes a second to import, and exports do not need it
            from .devices import choose_device
            from .torch_engine import TorchEngine

            rule = rule or model.answer_rule
            self.engine = TorchEngine(model, choose_device(device), dtype, rule)
        self.device = self.engine.device
        self.rule = rule or AnswerRule(self.engine.label_names)
        self.is_video_model = self.engine.reads_clips
        rows = batch_size or default_batch_size(self.device) * (1 if self.is_video_model else self.engine.num_frames)
        self.batches = Batches(rows, self.device)
        self.processor = processor = processor.on_device(self.device)
        self.faces_given = faces_given
        if isinstance(processor, ClipPreparation):
            self.video_processor = processor
        else:
            # For videos with a single-face model: the person's face is found, unless the model reads whole frames.
            self.reads_frames = processor.pictures_are_frames and not processor.face_crop
            self.video_processor = _of_clips(processor, self.engine.num_frames, not self.reads_frames)
            self.video_processor = self.video_processor.on_device(self.device)
        if faces_given:
            if not self.video_processor.face_crop:
                raise RecipeError("--faces does not apply to a model of whole frames; leave it out.")
            self.video_processor = copy.copy(self.video_processor)
            self.video_processor.face_crop = False

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        faces_given: bool = False,
        device: str = "auto",
        abstain_below: float | None = None,
        dtype: str = "auto",
        engine: str = "torch",
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> "Predictor":
        """From a model's folder, a Hub id, or a folder written by `engagement export`, which determines the engine.

        Args:
            faces_given: as for `Predictor`.
            device, dtype, engine, batch_size, workers: as for `Placement`.
            abstain_below: a certainty that replaces the one in the model's answer rule.

        Raises:
            ModelLoadError: there is nothing, or no engagement model, or parts of it are missing.
            RecipeError: no such device, dtype or engine.
        """
        Placement(device, dtype, engine, batch_size, workers)  # refused before anything is loaded
        if engine != "torch" or is_export(Path(model)):
            networks, processor, rule = load_exported(model, engine, dtype)
            rule = rule if abstain_below is None else replace(rule, abstain_below=abstain_below)
            return cls(networks, processor, faces_given, "cpu", rule, dtype, batch_size, workers)
        from ..data.required_packages import require_packages

        require_packages()  # before any of them is imported
        from .devices import choose_device
        from .loading import load_model, rule_of

        choose_device(device)
        loaded = load_model(model)
        rule = rule_of(loaded, Path(model))
        if abstain_below is not None:
            rule = replace(rule, abstain_below=abstain_below)
        return cls(*loaded, faces_given, device, rule, dtype, batch_size, workers)

    @property
    def model(self) -> "Model":
        """The torch model, for gradients or weights; raises RecipeError for an export."""
        if _is_of_torch(self.engine):
            return self.engine.model
        raise RecipeError(f"This needs the model in the engine torch, got {self.engine.name}; use the model's folder.")

    @property
    def tensor_processor(self) -> "EngagementVideoProcessor | EngagementImageProcessor":
        """The processor of transformers, for torch code outside the engine; for an export, one of the same settings."""
        from ..processor.image_processing_engagement import EngagementImageProcessor
        from ..processor.video_processing_engagement import EngagementVideoProcessor

        if isinstance(self.processor, (EngagementVideoProcessor, EngagementImageProcessor)):
            return self.processor
        assert isinstance(self.processor, (ExportedClips, ExportedPictures))
        kind = EngagementVideoProcessor if isinstance(self.processor, ExportedClips) else EngagementImageProcessor
        return kind(**self.processor.to_dict())  # type: ignore[arg-type]  # settings read from its config

    def to_tensor(self, crops: np.ndarray) -> "torch.Tensor":
        """(num_frames, height, width, 3) uint8 RGB -> (num_frames, C, size, size), as input of the torch model."""
        import torch

        return torch.as_tensor(self.video_processor.to_pixel_values(crops))

    @property
    def about(self) -> AboutModel:
        """What is stored with every answer."""
        return {
            "trained_on": self.rule.trained_on,
            "calibrated": self.rule.is_calibrated,
            "device": self.device,
            "engine": self.engine.name,
            "dtype": self.engine.dtype,
        }

    @property
    def warnings(self) -> list[str]:
        """Warnings to show once per run, each a sentence without a full stop."""
        warnings = []
        if self.rule.trained_on == DRAWN_PEOPLE:
            warnings.append("this model learned from drawn people who do not exist; it says nothing about real faces")
        if not self.rule.is_calibrated:
            warnings.append("this model is uncalibrated: its scores do not say how often it is right")
        return warnings

    @property
    def scorer(self) -> Scorer:
        """Computes scores of crops, by the predictor's current rule."""
        return Scorer(self.engine, self.processor, self.rule, self.batches)

    @property
    def num_workers(self) -> int:
        """How many files are read at once: at most one per usable processor."""
        asked = self.placement.workers or 1
        if asked == 1:
            return 1
        from ..data.worker_processes import usable_cpus  # joblib takes a while to import

        return min(asked, usable_cpus())

    @property
    def reader(self) -> MediaReader:
        """Opens the files."""
        return self.video_processor.reader

    def with_reader(self, reader: MediaReader) -> "Predictor":
        """A copy with the same model that opens files with this reader."""
        changed = copy.copy(self)
        changed.processor = self.processor.with_reader(reader)
        changed.video_processor = self.video_processor.with_reader(reader)
        return changed

    def speed_up(self) -> "Predictor":
        """Optimise the model, worthwhile before many files; scores stay the same within float noise."""
        if _is_of_torch(self.engine):
            self.engine.fuse()
        return self

    def predict(
        self, source: Path, timeline_step_sec: float | None = None, video_track: int | None = None
    ) -> VideoPrediction | PhotoPrediction:
        """The prediction for a video or photo.

        Args:
            timeline_step_sec: also predict spans of a video, at this interval.
            video_track: which of several, from 1; None: the default one.

        Raises:
            EngagementInputError: the file cannot be read, shows no face, or is a photo given to a clip model.
        """
        return self.answer(self.read(source, timeline_step_sec, video_track))

    def predict_video(self, source: Path, timeline_step_sec: float | None = None) -> VideoPrediction:
        """One prediction for the whole video and, with `timeline_step_sec`, one per span."""
        answer = self.answer(self.read_video(source, timeline_step_sec))
        assert isinstance(answer, VideoPrediction)
        return answer

    def predict_photo(self, source: Path) -> PhotoPrediction:
        """Every face of a picture, from left to right."""
        answer = self.answer(PhotoReading(str(source), self.prepare_photo(source), self.faces_given))
        assert isinstance(answer, PhotoPrediction)
        return answer

    def read(self, source: Path, timeline_step_sec: float | None = None, video_track: int | None = None) -> Reading:
        """A file as the model reads it; a video's windows are read lazily, while they are answered."""
        if source.suffix.lower() in PICTURE_SUFFIXES:
            return PhotoReading(str(source), self.prepare_photo(source), self.faces_given)
        return self.read_video(source, timeline_step_sec, video_track)

    def read_video(
        self, source: Path, timeline_step_sec: float | None = None, video_track: int | None = None
    ) -> VideoReading:
        """As `read`."""
        index = self.video_processor.index_file(source, video_track)
        windows = self.video_processor.windows_of(index, self.rule.clip_sec, timeline_step_sec, self.is_video_model)
        spans = [(window.start_sec, window.end_sec) for window in windows]
        return VideoReading(str(source), windows, self.video_processor.prepare_spans(source, spans, index), index.notes)

    def answer(self, reading: Reading, on_window: OnWindow | None = None) -> VideoPrediction | PhotoPrediction:
        """
        Args:
            on_window: called with the number of a video's windows read so far, and of all.

        Raises:
            EngagementInputError: no window can be read, or none shows a face.
        """
        (answer,) = answer_readings(self.scorer, [reading], on_window)
        if isinstance(answer, Failure):
            raise answer.error
        assert not isinstance(answer, Refusal)  # a reading is never answered by one
        return answer

    def prepare_photo(self, source: Path | np.ndarray) -> PreparedFaces:
        """The faces of a photo, as the model reads them; raises EngagementInputError if it reads no photos."""
        if isinstance(self.processor, ClipPreparation):
            raise EngagementInputError(
                f"This model reads clips, got the photo {source}; pass a video, or a single-face model."
            )
        if self.reads_frames:
            raise EngagementInputError(f"This model reads whole video frames, got the photo {source}; pass a video.")
        if self.faces_given:
            return self.processor.take_as_face(source)
        try:
            return self.processor.prepare_faces(source)
        except NoFaceError as error:
            raise NoFaceError(f"{error} If the picture is a face already, pass --faces.") from error

    def score_clips(self, clips: Sequence[PreparedClip]) -> np.ndarray:
        """(num_clips, num_labels), as the answer rule gives them, for a single-face model the mean over the frames;
        `batch_size` clips per forward pass.

        Raises:
            EngagementInputError: the model cannot read one of them, or a pass does not fit in memory.
        """
        scores = np.empty((len(clips), len(self.rule.label_names)))
        for number, scored in enumerate(self.scorer.score([clip.frames for clip in clips])):
            if isinstance(scored, Exception):
                raise scored
            scores[number] = scored.mean(axis=0)
        return scores


def _is_engine(model: "Model | Engine") -> "TypeIs[Engine]":
    return hasattr(model, "reads_clips")


def _is_of_torch(engine: Engine) -> TypeGuard["TorchEngine"]:
    return hasattr(engine, "fuse")  # its class cannot be imported without torch


def _of_clips(processor: PicturePreparation, num_frames: int, face_crop: bool) -> ClipPreparation:
    """The video processor for a single-face model, with the settings of its picture processor."""
    if isinstance(processor, ExportedPictures):
        return processor.of_clips(_SHARED_SETTINGS, num_frames, face_crop)
    from ..processor.video_processing_engagement import EngagementVideoProcessor

    settings = {name: getattr(processor, name) for name in _SHARED_SETTINGS}
    return EngagementVideoProcessor(**settings, num_frames=num_frames, face_crop=face_crop)
