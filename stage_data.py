"""The data of one training stage: raw folder → splits with labels, the processor that made their frames, and a record.

The processor built here is the one exported with the model, so that serving makes its frames as training did.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from .data.daisee import read_daisee
from .data.face_pictures import fingerprint_pictures, load_face_pictures
from .data.preparation import prepare_clips
from .data.schema import LABEL_SCHEMES
from .data.training_sets import LabelledFrames, clips_with_labels, pictures_with_labels
from .processor.face_preparation import FacePreparation
from .processor.image_processing_engagement import EngagementImageProcessor
from .processor.input_errors import RecipeError
from .processor.video_processing_engagement import EngagementVideoProcessor
from .run_arguments import StageArguments, StageRun


@dataclass(frozen=True)
class StageData:
    """One stage's splits, label names by index, processor, and what goes into the results about them."""

    train: LabelledFrames
    validation: LabelledFrames
    test: LabelledFrames
    label_names: list[str]
    processor: FacePreparation
    description: dict[str, object]


def load_stage_data(run: StageRun) -> StageData:
    """Clips for a video model, single face pictures for an image model.

    Raises:
        DataError: the folder is missing or laid out otherwise, or nothing in it can be used.
        RecipeError: an unknown label scheme, or a list of numbers that is none.
    """
    if run.stage.model not in ("video", "image"):
        raise RecipeError(f"Expected model: video or image, got {run.stage.model!r}.")
    data = _load_clips(run) if run.stage.model == "video" else _load_pictures(run)
    counts = {split: len(getattr(data, split)) for split in ("train", "validation", "test")}
    data.description.update(source=Path(run.stage.data).name, examples=counts)
    return data


def _load_pictures(run: StageRun) -> StageData:
    splits = load_face_pictures(Path(run.stage.data))
    # The pictures are faces already: nothing is detected in them.
    processor = EngagementImageProcessor(**_pixel_settings(run.stage), face_crop=False)
    sets = {name: pictures_with_labels(rows) for name, rows in splits.items()}
    description = {"kind": "face pictures", "fingerprint": fingerprint_pictures(splits)}
    names = splits["train"].features["label"].names
    return StageData(**sets, label_names=names, processor=processor, description=description)


def _load_clips(run: StageRun) -> StageData:
    stage = run.stage
    if stage.label_scheme not in LABEL_SCHEMES:
        raise RecipeError(f"Expected a label scheme among {', '.join(LABEL_SCHEMES)}, got {stage.label_scheme!r}.")
    processor = EngagementVideoProcessor(
        **_pixel_settings(stage), num_frames=stage.num_frames, sampling=stage.sampling, face_crop=stage.face_crop
    )
    found = read_daisee(Path(stage.data))
    with run.training.main_process_first(desc="preparing clips"):
        prepared = prepare_clips(found.clips, processor, Path(stage.cache_dir), stage.num_preparation_processes)
    label_names = list(LABEL_SCHEMES[stage.label_scheme][0])
    sets = {name: clips_with_labels(rows, stage.label_scheme, label_names) for name, rows in prepared.splits.items()}
    description = {
        "kind": "clips",
        "label_scheme": stage.label_scheme,
        "fingerprint": prepared.fingerprint,
        "rejected": len(prepared.rejects),
        "without_label": len(found.without_label),
        "without_video": len(found.without_video),
        "subjects": {name: len(set(rows["subject_id"])) for name, rows in prepared.splits.items()},
    }
    return StageData(**sets, label_names=label_names, processor=processor, description=description)


def _pixel_settings(stage: StageArguments) -> dict[str, object]:
    settings: dict[str, object] = {
        "size": {"height": stage.image_size, "width": stage.image_size},
        "face_crop_size_px": stage.face_crop_size,
        "do_grayscale": stage.grayscale,
        "picture_norm": stage.picture_norm,
    }
    for name in ("image_mean", "image_std"):
        if getattr(stage, name):
            settings[name] = parse_json(getattr(stage, name), name, list)
    return settings


def parse_json(text: str, name: str, kind: type) -> object:
    """An option that holds a JSON list or mapping; raises RecipeError when it does not."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"Expected {name} as JSON, got {text!r}.") from error
    if not isinstance(value, kind):
        raise RecipeError(f"Expected {name} as a JSON {kind.__name__}, got {text!r}.")
    return value
