"""The data of one training stage: a prepared data set, or a raw source, which is first prepared and audited into the
cache → splits with labels, the processor that made their frames, and a record of both.

The processor built here is exported with the model, so that serving prepares frames as training did. Data whose split
cannot be trusted is refused.
"""

import json
from collections.abc import Collection, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict, TypeVar

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from ..data.audit.page import read_duplicates
from ..data.described_data import AuditSummary, ChannelPixels, TrainingData
from ..data.hub_source import is_on_hub
from ..data.open_data import (
    PREPARATION_OPTIONS,
    DataOptions,
    describe_data,
    describe_preparation,
    open_or_prepare,
    require_audit,
)
from ..data.preparation.prepared_data import PreparedData, is_prepared
from ..data.preparation.settings import FrameOptions, PreparationSettings
from ..data.readers.sources import SourceOptions
from ..data.schema import SPLITS
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import DataError, EngagementInputError, RecipeError
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .arguments import StageArguments, StageRun
from .face_framing import measure_framing
from .processes import first_on_each_node
from .training_sets import FrameCollator, LabelledExample, LabelledFrames, labelled_frames

_Processor = EngagementVideoProcessor | EngagementImageProcessor
_Json = TypeVar("_Json")


class _ProcessorSettings(TypedDict, total=False):
    """What either processor takes."""

    face_crop: bool
    face_margin_ratio: float
    face_crop_size_px: int
    as_played: bool
    size: dict[str, int]
    do_grayscale: bool
    picture_norm: float | None
    image_mean: list[float]
    image_std: list[float]


@dataclass(frozen=True)
class StageData:
    """One stage's splits, label names by index, processor, and the description of the data for the results."""

    train: LabelledFrames
    validation: LabelledFrames
    test: LabelledFrames
    label_names: list[str]
    processor: EngagementVideoProcessor | EngagementImageProcessor
    description: TrainingData
    clean_test_rows: list[int] | None  # of test, without duplicates of earlier splits; None: there are none


def load_stage_data(run: StageRun) -> StageData:
    """Windows for a video model, single faces for an image model.

    Raises:
        DataError: the source is missing or has a different layout, or a split of it is empty.
        LeakageError: the audit failed or is missing, and leakage was not allowed.
        RecipeError: an option that does not fit the data.
    """
    prepared = open_stage_data(run)
    if not run.stage.allow_leakage:
        require_audit(prepared)
    return split_stage_data(run, prepared)


def open_stage_data(run: StageRun) -> PreparedData:
    """The stage's data, prepared, before its split is audited; raises as `load_stage_data`."""
    stage = run.stage
    if stage.model not in ("video", "image"):
        raise RecipeError(f"Expected model to be video or image, got {stage.model!r}.")
    prepared = first_on_each_node(run.training, partial(open_or_prepare, _data_options(stage)))
    if is_on_hub(_path_of(stage)) or is_prepared(_path_of(stage)):
        _check_settings(stage, prepared, run.on_command_line)
    return prepared


def split_stage_data(run: StageRun, prepared: PreparedData, audited: AuditSummary | None = None) -> StageData:
    """The splits of audited data, ready to train on; raises as `load_stage_data`.

    Args:
        audited: the audit of a split made here (a fold), whose near-duplicates are in one split. None: the data's own
            audit applies.
    """
    stage = run.stage
    _check_model_fits(stage, prepared)
    scheme = prepared.choose_label_scheme(stage.label_scheme)
    names = prepared.label_names(scheme)
    processor = _processor_of(stage, prepared)
    sets, unlabelled, flat = {}, {}, {}
    for split in SPLITS:
        rows, unlabelled[split] = labelled_frames(prepared.splits[split], scheme, names, stage.model == "image")
        sets[split], flat[split] = leave_out_flat(rows, processor)
    _check_labels(names, sets)
    if isinstance(processor, EngagementImageProcessor) and not (processor.face_crop or processor.pictures_are_frames):
        processor.face_framing = measure_framing(sets["train"])
    train_pixels = None
    if "train" in (stage.image_mean, stage.image_std):
        train_pixels = _standardise(processor, sets["train"], stage)
    described = describe_data(prepared, scheme, {split: len(rows) for split, rows in sets.items()})
    if audited is not None:
        described = described.model_copy(update={"audit": audited})
    description = TrainingData(
        **dict(described),
        leakage_allowed=stage.allow_leakage,
        without_label_under_scheme=unlabelled,
        prepared_with=describe_preparation(prepared),
        flat_pictures_left_out=None if stage.picture_norm is None else flat,
        train_pixels=train_pixels,
        oversampled_to=stage.oversample_to or None,
    )
    clean_rows = find_clean_rows(sets["test"], "test", prepared.folder) if audited is None else None
    if stage.oversample_to:
        sets["train"] = sets["train"].oversampled(stage.oversample_to, run.training.seed)
    _check_batches(run.training, len(sets["train"]))
    return StageData(**sets, label_names=names, processor=processor, description=description,
                     clean_test_rows=clean_rows)  # fmt: skip


def _path_of(stage: StageArguments) -> Path:
    if stage.data is None:
        raise RecipeError("The stage has no data; pass --data with a prepared data set or a raw source.")
    return Path(stage.data)


def _data_options(stage: StageArguments) -> DataOptions:
    return DataOptions(
        path=_path_of(stage),
        label_scheme=stage.label_scheme,
        kind=stage.data_kind,
        source=SourceOptions(
            stage.subset,
            stage.subject_pattern,
            no_subjects=stage.no_subjects,
            # A single-face model reads single pictures, unless pictures_as says otherwise.
            pictures_as=stage.pictures_as or ("pictures" if stage.model == "image" else None),
            window_label=stage.window_label,
            votes=Path(stage.votes) if stage.votes else None,
            vote_labels=stage.vote_labels,
        ),
        frames=frame_options(stage),
        drop_conflicts=stage.drop_conflicts,
        cache_dir=Path(stage.cache_dir),
        num_processes=stage.num_preparation_processes,
    )


def frame_options(stage: StageArguments) -> FrameOptions:
    """The options of a recipe about frames."""
    return FrameOptions(**{name: getattr(stage, name) for name in PREPARATION_OPTIONS})


def _check_settings(stage: StageArguments, prepared: PreparedData, on_command_line: Collection[str]) -> None:
    """Settings of prepared data override a recipe's values, but an option on the command line must not be ignored."""
    is_pictures = prepared.description.media == "picture"
    for name in ("face_crop", "face_crop_size_px") if is_pictures else PREPARATION_OPTIONS:
        stored, given = getattr(prepared.description.settings, name), getattr(stage, name)
        if name in on_command_line and given is not None and given != stored:
            raise RecipeError(
                f"{prepared.folder} was prepared with {name} {stored}, got {given}; leave the option out, or prepare "
                "the data again."
            )


def _check_model_fits(stage: StageArguments, prepared: PreparedData) -> None:
    if stage.model == "video" and prepared.description.media == "picture":
        raise RecipeError(
            f"A video model needs clips, and {stage.data} contains single pictures; pass --model image or, for a raw "
            "source of frames in order, --pictures_as clips."
        )
    absent = [split for split in SPLITS if split not in prepared.splits]
    if absent:
        raise DataError(
            f"{prepared.folder} has no examples in the {' or '.join(absent)} split; train on data that has train, "
            "validation and test, and measure on this with `engagement evaluate MODEL --data`."
        )


def _check_labels(names: list[str], sets: dict[str, LabelledFrames]) -> None:
    for split, rows in sets.items():
        if len(set(rows.label_ids)) < (2 if split == "train" else 1):
            raise DataError(
                f"Expected {'at least two labels' if split == 'train' else 'labelled examples'} in {split}, got "
                f"{len(rows)} examples with {len(set(rows.label_ids))} labels; the labels are {', '.join(names)}."
            )


def _check_batches(training: TrainingArguments, num_rows: int) -> None:
    """Without this check, Trainer fails at the first step with an unclear message."""
    splits = isinstance(training.accelerator_config, AcceleratorConfig) and training.accelerator_config.split_batches
    num_needed = training.per_device_train_batch_size * (1 if splits else training.world_size)
    if training.dataloader_drop_last and num_rows < num_needed:
        raise DataError(
            f"dataloader_drop_last needs at least one whole batch of {num_needed} training examples, got {num_rows}; "
            "leave it out, or lower --per_device_train_batch_size."
        )


def find_clean_rows(rows: LabelledFrames, split: str, folder: Path) -> list[int] | None:
    """Rows without a duplicate in an earlier split; None if the audit found no duplicates."""
    twins = read_duplicates(folder, split)
    return [row for row, key in enumerate(rows.keys) if key not in twins] if twins else None


def _processor_of(stage: StageArguments, prepared: PreparedData) -> _Processor:
    made = prepared.description.settings
    settings = _processor_settings(stage, made)
    if prepared.description.media != "video":  # it does not apply to pictures
        settings["as_played"] = stage.as_played is not False
    if stage.model == "video":
        if prepared.description.media == "frames":  # already face crops; in a video, faces must be detected
            settings["face_crop"] = True
        return EngagementVideoProcessor(**settings, num_frames=made.num_frames, sampling=made.sampling)
    is_frame = prepared.description.media not in ("picture", "frames")
    return EngagementImageProcessor(**settings, pictures_are_frames=is_frame)


def _processor_settings(stage: StageArguments, made: PreparationSettings) -> _ProcessorSettings:
    """Crops as in the data, turned into pixel values as the stage asks."""
    assert stage.image_size is not None  # set by `check_options`
    settings: _ProcessorSettings = {
        "face_crop": made.face_crop,
        "face_margin_ratio": made.face_margin_ratio,
        "face_crop_size_px": made.face_crop_size_px,
        "as_played": made.as_played,
        "size": {"height": stage.image_size, "width": stage.image_size},
        "do_grayscale": stage.grayscale,
        "picture_norm": stage.picture_norm,
    }
    # "train" is measured once the training pictures are known.
    if stage.image_mean is not None and stage.image_mean != "train":
        settings["image_mean"] = parse_json(stage.image_mean, "image_mean", list)
    if stage.image_std is not None and stage.image_std != "train":
        settings["image_std"] = parse_json(stage.image_std, "image_std", list)
    return settings


def leave_out_flat(rows: LabelledFrames, processor: _Processor) -> tuple[LabelledFrames, int]:
    """The rows without flat pictures, which `picture_norm` cannot scale, and how many were left out.

    Nezami et al. drop them too; FER2013 contains a dozen. Without `picture_norm` no picture is read.
    """
    if processor.picture_norm is None:
        return rows, 0
    collate = FrameCollator(processor, rows.single_face)
    kept = [row for batch in _batches(rows) for row in _accepted(batch, collate)]
    return rows.take(kept), len(rows) - len(kept)


def _accepted(batch: list[LabelledExample], collate: FrameCollator) -> list[int]:
    """The rows that the processor accepts; they are tried one by one only if it refuses the batch."""
    try:
        collate(batch)
    except EngagementInputError:
        return [] if len(batch) == 1 else [row for example in batch for row in _accepted([example], collate)]
    return [example["row"] for example in batch]


def _standardise(processor: _Processor, rows: LabelledFrames, stage: StageArguments) -> ChannelPixels:
    """Give the processor the training pixels' own mean or standard deviation, where the recipe says `train`."""
    mean, std = measure_pixels(rows, processor)
    print(f"training pixels: mean {mean}, standard deviation {std}")
    if stage.image_mean == "train":
        processor.image_mean = list(mean)
    if stage.image_std == "train":
        processor.image_std = list(std)
    return ChannelPixels(mean=mean, std=std)


def measure_pixels(rows: LabelledFrames, processor: _Processor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels, before the processor normalises them.

    If there is a `picture_norm`, it is applied first: Nezami et al. then centre and scale by the training set's.
    """
    plain = copy(processor)
    plain.do_normalize = False
    collate = FrameCollator(plain, rows.single_face)
    count = 0
    total = squares = torch.zeros((), dtype=torch.float64)
    for batch in _batches(rows):
        pixels = collate(batch)["pixel_values"].movedim(-3, 0).flatten(1)  # (..., C, H, W) -> (C, pixels)
        count += pixels.shape[1]
        total = total + pixels.sum(1, dtype=torch.float64)  # () or (C,) + (C,) -> (C,)
        squares = squares + pixels.square().sum(1, dtype=torch.float64)
    mean = total / count
    std = (squares / count - mean.square()).sqrt()
    return [round(value, 6) + 0.0 for value in mean.tolist()], [round(value, 6) for value in std.tolist()]  # no -0.0


def _batches(rows: LabelledFrames, size: int = 16) -> Iterator[list[LabelledExample]]:
    for start in range(0, len(rows), size):
        yield [rows[row] for row in range(start, min(start + size, len(rows)))]


def parse_json(text: str, name: str, kind: type[_Json]) -> _Json:
    """The JSON list or mapping in an option; raises RecipeError where it is not one."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"Expected {name} as JSON, got {text!r}.") from error
    if not isinstance(value, kind):
        raise RecipeError(f"Expected {name} as a JSON {kind.__name__}, got {text!r}.")
    return value
