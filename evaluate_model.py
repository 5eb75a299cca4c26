"""`engagement evaluate`: a trained or imported model on a prepared data set → results, predictions, figures and card.

The data must have been prepared with the settings of the model's processor; a raw source is prepared with them. The
scores are computed in `evaluation`; this module runs the model and writes into its folder.
"""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from .data.described_data import PreparedWith, TrainingData
from .data.hub_source import local_folder
from .data.json_records import refusing
from .data.open_data import (
    PREPARATION_OPTIONS,
    SOURCE_OPTIONS,
    DataOptions,
    describe_data,
    open_or_prepare,
    require_same_frames,
    with_current_names,
)
from .data.preparation.prepared_data import PreparedData, is_prepared
from .data.preparation.settings import FrameOptions
from .data.readers.sources import SourceOptions, detect_kind
from .data.schema import LABEL_SCHEMES
from .evaluation.results_file import RESULTS_FILE, read_results
from .evaluation.results_schema import Measurement, Results
from .evaluation.score_records import SplitEvaluation
from .evaluation.split_evaluation import SplitPredictions, describe_environment, evaluate_split, read_predictions
from .explanation.data_set_focus import find_clips, measure_focus
from .hub.export_folder import keep_measured
from .inference.loading import load_model
from .inference.predictor import Predictor
from .inference.scoring import Batches
from .processor.input_errors import DataError, ModelLoadError
from .processor.video_processing_engagement import EngagementVideoProcessor
from .training.stage_data import find_clean_rows, leave_out_flat
from .training.training_sets import FrameCollator, LabelledFrames, labelled_frames

_BATCH_WINDOWS, _BATCH_FACES = 8, 64


def evaluate_model(
    folder: Path,
    data: Path,
    split: str = "test",
    label_scheme: str | None = None,
    groups: Path | None = None,
    num_focus_clips: int | None = None,
    cache_dir: Path = Path("runs/cache"),
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "torch",
    batch_size: int | None = None,
    workers: int | None = None,
) -> SplitEvaluation:
    """Measure the model in `folder` on a split, and update its results file, predictions, figures and card.

    Measurements on other data are kept; an earlier one of the same data, labels and split is replaced. Threshold and
    calibration are chosen on the data's validation split or, if it has none, on that of the training data, whose
    predictions are stored with the model; without these, or on validation itself, none are chosen.

    Args:
        data: a prepared data set, local or on the Hub (hf://org/name), or a raw source.
        label_scheme: default: the one the model was trained with, else the one that matches its label names.
        groups: a CSV with a column subject_id and others, such as gender; scores are given for each group of people.
        num_focus_clips: number of random clips to explain, to measure how much of the heat lies on the face.
        device, dtype, engine: where and how the model runs; see `Placement`. A raw source is prepared on the CPU.
        batch_size: windows, or faces, per pass of the model; None: 8 windows, 64 faces.
        workers: additional processes that read prepared pictures; None: none.

    Returns:
        The evaluation of the split, as stored in `results.json`.

    Raises:
        ModelLoadError: no model, or no results file, in the folder.
        DataError: data without this split, with labels the model does not know, or, for face focus, without faces.
        RecipeError: frames prepared with other settings than the model's, no such device, or face focus of an export.
    """
    predictor = Predictor.from_pretrained(
        str(folder), device=device, dtype=dtype, engine=engine, batch_size=batch_size, workers=workers
    )
    results, data = read_results(folder), local_folder(data, cache_dir)
    if num_focus_clips:
        _ = predictor.model  # exports have none, and are refused here before the long part
    group_of = _read_groups(groups) if groups else None
    options = _options_of(predictor, results, folder, data, label_scheme, cache_dir)
    has_crops = predictor.tensor_processor.face_crop
    # For whole frames only the raw source contains face boxes; missing ones are found here, before the long part.
    focus_clips = find_clips(data, split, options.kind, options.source) if num_focus_clips and not has_crops else []
    prepared = open_or_prepare(options)
    require_same_frames(options, prepared)
    if num_focus_clips and has_crops:
        focus_clips = find_clips(prepared.folder, split)
    scheme = prepared.choose_label_scheme(options.label_scheme)
    names = list(predictor.engine.label_names)
    sets = _labelled(prepared, scheme, names, split, predictor)
    predicted = dict.fromkeys([*(["validation"] if "validation" in sets else []), split])
    found = {name: predict_windows(predictor, sets[name], name) for name in predicted}
    train_label_ids = sets["train"].label_ids if "train" in sets else _train_labels_of(results, names)
    validation, decided_on = found.get("validation") if split != "validation" else None, None
    if "validation" not in sets and (validation := _own_validation(results, folder)) is not None:
        decided_on = "training data"
    evaluation, without_duplicates = evaluate_split(
        found[split],
        validation,
        find_clean_rows(sets[split], split, prepared.folder),
        train_label_ids,
        names,
        group_of,
    )
    if num_focus_clips:
        focus = measure_focus(predictor, focus_clips, num_focus_clips)
        evaluation = evaluation.model_copy(update={"face_focus": focus})
    evaluation = evaluation.model_copy(update={"decided_on": decided_on})
    measured = Measurement(
        split=split,
        data=describe_data(prepared, scheme, {name: len(rows) for name, rows in sets.items()}),
        environment=describe_environment(
            torch.device(predictor.device), predictor.placement.engine, predictor.engine.dtype
        ),
        evaluation=evaluation,
        without_duplicates=without_duplicates,
    )
    measured = _with_known_focus(measured, results)
    results = results.with_measurement(measured)
    # The card describes the model itself, even if an export of it was measured.
    model = predictor.model if predictor.placement.engine == "torch" else load_model(str(folder))[0]
    keep_measured(model, predictor.tensor_processor, results, folder, list(found.values()), measured.data.fingerprint)
    return measured.evaluation


def _own_validation(results: Results, folder: Path) -> SplitPredictions | None:
    """The model's predictions on its training data's validation split; None if they are not stored with it."""
    if results.data is None:
        return None
    try:
        return read_predictions(folder, "validation", results.data.fingerprint)[0]
    except (DataError, ModelLoadError):  # imported, or published without predictions
        return None


def _with_known_focus(measured: Measurement, results: Results) -> Measurement:
    """With the face focus that was measured earlier on the same model and data, which is still valid."""
    known = next((found.evaluation.face_focus for found in results.measurements if found.is_of_same(measured)), None)
    if known is None or measured.evaluation.face_focus is not None:
        return measured
    return measured.model_copy(update={"evaluation": measured.evaluation.model_copy(update={"face_focus": known})})


def predict_windows(predictor: Predictor, rows: LabelledFrames, split: str) -> SplitPredictions:
    """Logits of every window of a split; shows a progress bar."""
    single_face = not predictor.is_video_model
    batches = Batches(
        predictor.placement.batch_size or (_BATCH_FACES if single_face else _BATCH_WINDOWS), predictor.device
    )
    num_workers = predictor.num_workers if predictor.num_workers > 1 else 0
    # Pixel values are made on the CPU, in a worker or in this process; the engine moves each batch to its device.
    loader = DataLoader(
        rows,
        batches.size,
        num_workers=num_workers,
        collate_fn=FrameCollator(predictor.tensor_processor.on_device("cpu"), single_face),
        multiprocessing_context="spawn" if num_workers else None,  # a fork of a process with threads can hang
    )
    logits = []
    console = Console(stderr=True)
    for batch in track(loader, f"Evaluating {split}", console=console, disable=not console.is_terminal):
        logits.append(batches.run(predictor.engine.logits, batch["pixel_values"].numpy()))
    return SplitPredictions(split, rows.keys, rows.subject_ids, np.array(rows.label_ids), np.concatenate(logits))


def _options_of(
    predictor: Predictor, results: Results, folder: Path, data: Path, label_scheme: str | None, cache_dir: Path
) -> DataOptions:
    """The settings with which data is read and prepared for this model; prepared data must have the same."""
    processor, trained_on, prepared_with = predictor.tensor_processor, results.data, _prepared_with(results, folder)
    known = (results.imported and results.imported.frames) or prepared_with
    video = processor if isinstance(processor, EngagementVideoProcessor) else None
    frames = FrameOptions(
        num_frames=video.num_frames if video else known.num_frames,
        sampling=video.sampling if video else known.sampling,
        window_stride_frames=known.window_stride_frames,
        # A clip model may have learned from face crops; in a video, its processor must detect the face.
        face_crop=processor.face_crop if known.face_crop is None else known.face_crop,
        face_crop_size_px=processor.face_crop_size_px,
        as_played=processor.as_played,
    )
    scheme = label_scheme or (trained_on and trained_on.label_scheme) or _scheme_of(results.label_names)
    is_images = not is_prepared(data) and data.exists() and detect_kind(data) == "images"
    source = SourceOptions(pictures_as="clips" if video else "pictures") if is_images else SourceOptions()
    options = DataOptions(path=data, label_scheme=scheme, source=source, frames=frames, cache_dir=cache_dir)
    if trained_on is None or not _is_training_source(data, trained_on, results):
        return options
    # Without these options the scores would be of different data: without people, with other splits, or with pictures
    # that were left out. They do not apply to a different source, as a pattern of file names shows.
    return replace(
        options,
        kind=trained_on.kind,
        source=SourceOptions(
            prepared_with.subset,
            prepared_with.subject_pattern,
            prepared_with.split_seed,
            no_subjects=bool(prepared_with.no_subjects),
            pictures_as=prepared_with.pictures_as,
            window_label=prepared_with.window_label,
        ),
        drop_conflicts=trained_on.label_conflicts is not None and trained_on.label_conflicts.dropped,
    )


def _is_training_source(path: Path, trained_on: TrainingData, results: Results) -> bool:
    if is_prepared(path) or not path.exists() or path.name != trained_on.source:
        return False
    return (results.recipe.get("data_kind") or detect_kind(path)) == trained_on.kind


def _prepared_with(results: Results, folder: Path) -> PreparedWith:
    """How the training data was prepared; in older results only the recipe records it."""
    if results.data and results.data.prepared_with:
        return results.data.prepared_with
    recipe = with_current_names(results.recipe)
    known = {name: recipe[name] for name in (*PREPARATION_OPTIONS, *SOURCE_OPTIONS) if name in recipe}
    path, remedy = folder / RESULTS_FILE, "correct it, or train the model again"
    with refusing(json.dumps(known), path, ModelLoadError, "options of preparation under recipe", remedy):
        return PreparedWith.model_validate(known, strict=False)  # options of the command line are stored as text


def _scheme_of(label_names: list[str]) -> str | None:
    """The scheme of DAiSEE's ratings with these labels, in any order; None: there is none."""
    return next((scheme for scheme, (names, _) in LABEL_SCHEMES.items() if set(names) == set(label_names)), None)


def _labelled(
    prepared: PreparedData, scheme: str, names: list[str], split: str, predictor: Predictor
) -> dict[str, LabelledFrames]:
    if split not in prepared.splits:
        raise DataError(f"{prepared.folder} has no split {split}, only {', '.join(prepared.splits)}.")
    single_face = not predictor.is_video_model
    try:
        sets = {name: labelled_frames(rows, scheme, names, single_face)[0] for name, rows in prepared.splits.items()}
    except ValueError as error:
        raise DataError(
            f"The labels in {prepared.folder} are not the model's ({', '.join(names)}): {error}; pass --label-scheme, "
            "or data with the model's labels."
        ) from error
    return {name: leave_out_flat(rows, predictor.tensor_processor)[0] for name, rows in sets.items()}


def _train_labels_of(results: Results, names: list[str]) -> list[int]:
    """The training labels, rebuilt from their counts, for data without a training split."""
    counts = results.train_label_counts
    if not counts:
        raise DataError("The data has no train split, whose label shares the baselines need; prepare it with one.")
    return [label for label, name in enumerate(names) for _ in range(counts[name])]


def _read_groups(path: Path) -> dict[str, dict[str, str]]:
    """Column → subject → group."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} could not be read as a CSV table: {error}.") from error
    columns = [name for name in (rows[0] if rows else {}) if name and name != "subject_id"]
    if not columns or "subject_id" not in rows[0]:
        raise DataError(
            f"Expected a column subject_id and at least one more in {path}, got {list(rows[0]) if rows else 'no rows'}."
        )
    return {column: {row["subject_id"]: row[column] for row in rows if row[column]} for column in columns}
