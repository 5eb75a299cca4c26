"""The processor of an export: the settings of the model's processor, without torch or transformers."""

import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ..data.required_packages import require_packages
from ..processor.clip_preparation import ClipPreparation
from ..processor.face_detection import FaceDetector
from ..processor.face_preparation import FacePreparation
from ..processor.input_errors import EngagementInputError, ModelLoadError, in_one_line
from ..processor.picture_preparation import PicturePreparation
from ..processor.processor_settings import RULES, require_sound

DETECTOR_FOLDER = "face_detector"
Setting = str | float | bool | list[float] | dict[str, int] | None
_SETTINGS = (*RULES, "size", "image_mean", "image_std", "as_played", "do_center_crop", "do_pad")
# Where transformers looks for settings; the first existing file counts. The first may contain several processors.
_OF_CLIPS = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
_OF_PICTURES = ("processor_config.json", "preprocessor_config.json")


class _Exported(FacePreparation):
    """
    Args:
        settings: by the names in `FacePreparation`; others, such as `auto_map`, are ignored.
        detector: folder of the face detector's networks; None: MTCNN of facenet-pytorch, which needs torch.

    Raises:
        EngagementInputError: a setting does not give pixel values.
    """

    def __init__(self, settings: Mapping[str, Setting], detector: Path | None = None) -> None:
        self.detector = detector
        for name in _SETTINGS:
            if name in settings:
                setattr(self, name, settings[name])
        if not isinstance(self.size, dict) or not {"height", "width"} <= self.size.keys():
            raise EngagementInputError(f"The processor's size needs height and width, got {self.size!r}.")
        require_sound(self)

    @property
    def face_detector(self) -> FaceDetector:
        """As `FacePreparation.face_detector`, with the export's own networks."""
        if self.detector is not None:
            return FaceDetector(networks=str(self.detector))
        require_packages(("torch", "facenet-pytorch"))
        return FaceDetector()

    def to_dict(self) -> dict[str, Setting]:
        """The settings to save."""
        return {name: getattr(self, name) for name in _SETTINGS if hasattr(self, name)}


class ExportedClips(_Exported, ClipPreparation):
    """For a clip model."""


class ExportedPictures(_Exported, PicturePreparation):
    """For a single-face model."""

    def of_clips(self, names: tuple[str, ...], num_frames: int, face_crop: bool) -> ExportedClips:
        """The video processor for the same model, with the named settings."""
        shared = {name: copy.copy(getattr(self, name)) for name in names}
        return ExportedClips({**shared, "num_frames": num_frames, "face_crop": face_crop}, self.detector)


def load_processor(folder: Path, reads_clips: bool) -> ExportedClips | ExportedPictures:
    """The processor of an export. If faces must be found and the folder has no face detector, a line on standard
    error says so, and MTCNN in torch is used.

    Raises:
        ModelLoadError: its settings are missing or do not give pixel values.
    """
    kind = ExportedClips if reads_clips else ExportedPictures
    path, settings = _read_settings(folder, reads_clips)
    detector = folder / DETECTOR_FOLDER
    try:
        processor = kind(settings, detector if detector.is_dir() else None)
    except (EngagementInputError, TypeError, KeyError) as error:
        raise ModelLoadError(f"{in_one_line(error, 500).rstrip('.')} (in {path}).") from error
    # A model trained on face crops still needs faces found in photos and videos.
    if processor.detector is None and not (processor.pictures_are_frames or (reads_clips and not processor.face_crop)):
        said = f"{folder} has no {DETECTOR_FOLDER}: faces are found by MTCNN in torch; export the model again"
        print(said, file=sys.stderr, flush=True)
    return processor


def _read_settings(folder: Path, reads_clips: bool) -> tuple[Path, Mapping[str, Setting]]:
    """A file and the settings in it."""
    part = "video_processor" if reads_clips else "image_processor"
    for path in (folder / name for name in (_OF_CLIPS if reads_clips else _OF_PICTURES)):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelLoadError(
                f"The processor's settings in {path} cannot be read ({in_one_line(error)}); export the model again."
            ) from error
        if path.name == "processor_config.json":
            content = content.get(part) if isinstance(content, dict) else None
            if content is None:
                continue
        if not isinstance(content, dict):
            raise ModelLoadError(f"{path} does not contain a processor's settings; export the model again.")
        return path, content
    raise ModelLoadError(f"{folder} contains no processor's settings; export the model again.")
