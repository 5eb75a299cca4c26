"""A trained model and a user's files → predictions: a label and all scores a video, a timeline, every face of a photo.

Files only; the command line prints what this returns. A video's crops come from the model's own processor, and what is
said of its scores from the answer rule that lies beside its weights.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..answer_rule import DRAWN_PEOPLE, AnswerRule
from ..processor.face_preparation import PreparedClip, PreparedFaces
from ..processor.film_windows import FilmWindow, WindowAnswer, answer_film, answer_window
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import EngagementInputError, NoFaceError, RecipeError
from ..processor.media_files import PICTURE_SUFFIXES
from ..processor.media_reader import MediaReader
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .devices import choose_device
from .engines import Engine
from .export_folder import is_export
from .find_export import load_exported
from .loading import load_model, rule_of
from .placement import Placement
from .predictions import AboutModel, FacePrediction, PhotoPrediction, Span, VideoPrediction
from .torch_engine import Model, TorchEngine

if TYPE_CHECKING:
    import torch

_SHARED_SETTINGS = (
    "size", "image_mean", "image_std", "face_margin_ratio", "face_framing", "face_crop_size_px", "do_grayscale",
    "picture_norm", "as_played",
)  # fmt: skip


@dataclass(frozen=True)
class VideoReading:
    """A video as a model reads it: its windows, and of each the prepared clip or what is wrong with it, when asked."""

    source: str
    windows: list[FilmWindow]
    clips: Iterator[PreparedClip | EngagementInputError]
    notes: tuple[str, ...] = ()  # of the file


@dataclass(frozen=True)
class PhotoReading:
    """A photo as a model reads it."""

    source: str
    faces: PreparedFaces


class Predictor:
    """A loaded model with its processor; `predict` takes any video or photo.

    Args:
        model: a model of ours, or an engine that runs one.
        faces_given: pictures, and frames of videos, are faces already: nobody looks for one.
        device, dtype, batch_size, workers: where the model runs and faces are found, and how; see `Placement`.
        rule: how logits become an answer; None: the one that was loaded with the model, else an uncalibrated one.
    """

    def __init__(
        self,
        model: Model | Engine,
        processor: EngagementVideoProcessor | EngagementImageProcessor,
        faces_given: bool = False,
        device: str = "auto",
        rule: AnswerRule | None = None,
        dtype: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.placement = Placement(device, dtype, batch_size=batch_size, workers=workers)
        if isinstance(model, Model):
            rule = rule or model.answer_rule
            self.engine: Engine = TorchEngine(model, choose_device(device))
        else:
            self.engine = model
        self.device = self.engine.device
        self.rule = rule or AnswerRule(self.engine.label_names)
        self.is_video_model = self.engine.reads_clips
        self.processor = processor = processor.on_device(self.device)
        self.faces_given = faces_given
        if isinstance(processor, EngagementVideoProcessor):
            self.video_processor = processor
        else:
            # A video before a single-face model: the person's face is found in it, unless it reads whole frames.
            settings = {name: getattr(processor, name) for name in _SHARED_SETTINGS}
            self.reads_frames = processor.pictures_are_frames and not processor.face_crop
            self.video_processor = EngagementVideoProcessor(
                **settings, num_frames=self.engine.num_frames, face_crop=not self.reads_frames, device=self.device
            )
        if faces_given:
            if not self.video_processor.face_crop:
                raise RecipeError("Expected --faces with a model of faces, got one of whole frames; leave it out.")
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
        """From a model's folder, a Hub id, or a folder that `engagement export` wrote, which names its engine itself.

        Args:
            faces_given: as for `Predictor`.
            device, dtype, engine, batch_size, workers: as for `Placement`.
            abstain_below: a certainty, in place of that of the model's answer rule.

        Raises:
            ModelLoadError: nothing is there, it holds no engagement model, or parts of it are missing.
            RecipeError: no such device, dtype or engine.
        """
        Placement(device, dtype, engine, batch_size, workers)  # refused before anything is loaded
        if engine != "torch" or is_export(Path(model)):
            *exported, rule = load_exported(model, engine, dtype)
            rule = rule if abstain_below is None else replace(rule, abstain_below=abstain_below)
            return cls(*exported, faces_given, "cpu", rule, dtype, batch_size, workers)
        choose_device(device)
        loaded = load_model(model)
        rule = rule_of(loaded, Path(model))
        if abstain_below is not None:
            rule = replace(rule, abstain_below=abstain_below)
        return cls(*loaded, faces_given, device, rule, dtype, batch_size, workers)

    @property
    def model(self) -> Model:
        """The model itself, for what asks for gradients or weights; raises RecipeError for an export."""
        if isinstance(self.engine, TorchEngine):
            return self.engine.model
        raise RecipeError(
            f"Expected the engine torch for this, which asks for the model itself, got {self.engine.name}."
        )

    @property
    def about(self) -> AboutModel:
        """What is to stand beside every answer."""
        return {
            "trained_on": self.rule.trained_on,
            "calibrated": self.rule.is_calibrated,
            "device": self.device,
            "engine": self.engine.name,
        }

    @property
    def warnings(self) -> list[str]:
        """What a user must be told once a run, each a sentence without a stop."""
        warnings = []
        if self.rule.trained_on == DRAWN_PEOPLE:
            warnings.append("this model learned from drawn people who do not exist; it says nothing about real faces")
        if not self.rule.is_calibrated:
            warnings.append("this model is uncalibrated: its scores do not say how often it is right")
        return warnings

    @property
    def reader(self) -> MediaReader:
        """Who opens files for it."""
        return self.video_processor.reader

    def with_reader(self, reader: MediaReader) -> "Predictor":
        """A copy, of the same model, for which this reader opens files."""
        changed = copy.copy(self)
        changed.processor = self.processor.with_reader(reader)
        changed.video_processor = self.video_processor.with_reader(reader)
        return changed

    def speed_up(self) -> "Predictor":
        """What costs a moment and pays when many files follow; scores stay as they are, within float noise."""
        if isinstance(self.engine, TorchEngine):
            self.engine.fuse()
        return self

    def predict(
        self, source: Path, timeline_step_sec: float | None = None, video_track: int | None = None
    ) -> VideoPrediction | PhotoPrediction:
        """
        Args:
            timeline_step_sec: also predict a span of a video every so many seconds.
            video_track: of a video with several, from 1; None: the default one.

        Raises:
            EngagementInputError: the file cannot be read, shows no face, or is a photo before a clip model.
        """
        return self.answer(self.read(source, timeline_step_sec, video_track))

    def predict_video(self, source: Path, timeline_step_sec: float | None = None) -> VideoPrediction:
        """One prediction for the whole video and, with `timeline_step_sec`, one a span."""
        return self.answer_video(self.read_video(source, timeline_step_sec))

    def predict_photo(self, source: Path) -> PhotoPrediction:
        """Every face of a picture, from left to right."""
        return self.answer_photo(PhotoReading(str(source), self.prepare_photo(source)))

    def read(
        self, source: Path, timeline_step_sec: float | None = None, video_track: int | None = None
    ) -> VideoReading | PhotoReading:
        """A file as the model reads it; of a video the windows are read while they are answered."""
        if source.suffix.lower() in PICTURE_SUFFIXES:
            return PhotoReading(str(source), self.prepare_photo(source))
        return self.read_video(source, timeline_step_sec, video_track)

    def read_video(
        self, source: Path, timeline_step_sec: float | None = None, video_track: int | None = None
    ) -> VideoReading:
        """As `read`."""
        index = self.video_processor.index_file(source, video_track)
        windows = self.video_processor.windows_of(index, self.rule.clip_sec, timeline_step_sec, self.is_video_model)
        spans = [(window.start_sec, window.end_sec) for window in windows]
        return VideoReading(str(source), windows, self.video_processor.prepare_spans(source, spans, index), index.notes)

    def answer(
        self, reading: VideoReading | PhotoReading, on_window: Callable[[int, int], None] | None = None
    ) -> VideoPrediction | PhotoPrediction:
        """What the model makes of what was read; see `answer_video`."""
        if isinstance(reading, PhotoReading):
            return self.answer_photo(reading)
        return self.answer_video(reading, on_window)

    def answer_video(
        self, reading: VideoReading, on_window: Callable[[int, int], None] | None = None
    ) -> VideoPrediction:
        """
        Args:
            on_window: told the number of windows done, and of all.

        Raises:
            EngagementInputError: no window can be read, or none shows a face.
        """
        of_file, timeline, notes = [], [], list(reading.notes)
        for number, (window, clip) in enumerate(zip(reading.windows, reading.clips, strict=True), start=1):
            scores = None if isinstance(clip, EngagementInputError) else self.score_clip(clip)
            found = answer_window(self.rule, clip, scores)
            if not isinstance(clip, EngagementInputError):
                notes += clip.notes
            if window.is_of_file:
                of_file.append(found)
            if window.is_of_timeline:
                timeline.append(_to_span(window, found))
            if on_window is not None:
                on_window(number, len(reading.windows))
        film = answer_film(self.rule, of_file, reading.source)
        return VideoPrediction(
            reading.source,
            film.answer.label,
            film.answer.scores,
            film.face_coverage,
            film.num_repeated_frames,
            timeline,
            film.answer.reason,
            film.answer.certainty,
            film.num_people,
            film.num_windows,
            film.num_unreadable_windows,
            film.spread,
            tuple(dict.fromkeys([*notes, *film.notes])),
        )

    def answer_photo(self, reading: PhotoReading) -> PhotoPrediction:
        """Every face of a picture, from left to right."""
        faces = reading.faces
        scores = self._score(self.processor.to_pixel_values(faces.frames))
        found = []
        for row, box, probability in zip(scores, faces.boxes_xyxy_px, faces.probabilities.tolist(), strict=True):
            face_px = None if self.faces_given else float(max(box[2] - box[0], box[3] - box[1]))
            answer, edges = self.rule.answer(row, face_px=face_px), [round(float(edge), 1) for edge in box]
            probability = None if self.faces_given else probability
            found.append(
                FacePrediction(answer.label, answer.scores, edges, probability, answer.reason, answer.certainty)
            )
        return PhotoPrediction(reading.source, found, faces.notes)

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

    def score_clip(self, clip: PreparedClip) -> np.ndarray:
        """(num_labels,), as the answer rule makes them; of a single-face model the mean over the frames."""
        pixel_values = self.video_processor.to_pixel_values(clip.frames)  # (frames, C, H, W)
        if self.is_video_model:
            return self._score(pixel_values[None])[0]
        return self._score(pixel_values).mean(axis=0)  # one row of scores a frame; their mean is the clip's

    def _score(self, pixel_values: "np.ndarray | torch.Tensor") -> np.ndarray:
        """(n, ...) -> (n, num_labels), as the rule makes them."""
        return self.rule.to_scores(self.engine.logits(pixel_values))


def _to_span(window: FilmWindow, found: WindowAnswer) -> Span:
    answer = found.answer
    return Span(
        round(window.start_sec, 3), round(window.end_sec, 3), answer.label, answer.scores, found.face_coverage,
        answer.reason, answer.certainty,
    )  # fmt: skip
