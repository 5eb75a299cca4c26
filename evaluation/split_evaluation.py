"""Predictions on a split → everything a sceptic asks for, as the records of `results.json`.

By clip (mean of its windows' scores) first, by window beside it and never mixed up; baselines that need no model;
intervals from people, not clips; a decision and a temperature chosen on validation alone. The arithmetic is in
`metrics`, `bootstrap` and `calibration`; this room puts it together, and keeps each window's logits beside it.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from scipy.special import softmax

from ..data.atomic_files import whole_file
from ..processor.input_errors import DataError, ModelLoadError, in_one_line
from .bootstrap import MIN_PEOPLE_IN_A_CELL, bootstrap_intervals, scores_by_group, spread_over_people
from .calibration import apply_temperature, calibration_scores, compare_decisions, fit_temperature, risk_coverage
from .metrics import (
    ClipScores,
    compute_scores,
    majority_baseline,
    mean_scores_by_clip,
    name_collapse,
    stratified_baseline,
)
from .results_schema import Environment
from .score_records import (
    CalibrationResults,
    Decision,
    Group,
    GroupScores,
    Scores,
    SplitEvaluation,
    SuppressedGroup,
)

PREDICTIONS_FILE = "predictions.parquet"
_VERSIONED_PACKAGES = ("engagement-recognition", "transformers", "torch", "timm", "av", "facenet-pytorch")


@dataclass(frozen=True)
class SplitPredictions:
    """What a model says of every window of a split, in the data's order."""

    split: str
    keys: Sequence[tuple[str, int]]  # clip id and window index
    subject_ids: Sequence[str | None]
    label_ids: np.ndarray  # (num_windows,)
    logits: np.ndarray  # (num_windows, num_labels)

    def take(self, rows: Sequence[int]) -> "SplitPredictions":
        """Some of the windows."""
        keys, subjects = [self.keys[row] for row in rows], [self.subject_ids[row] for row in rows]
        return SplitPredictions(self.split, keys, subjects, self.label_ids[rows], self.logits[rows])

    def by_clip(self, temperature: float = 1.0) -> ClipScores:
        """One row a clip: the mean of its windows' softmax."""
        scores = apply_temperature(self.logits, temperature)
        return mean_scores_by_clip([clip_id for clip_id, _ in self.keys], scores, self.label_ids)


def evaluate_split(
    predictions: SplitPredictions,
    validation: SplitPredictions | None,
    clean_rows: Sequence[int] | None,
    train_label_ids: Sequence[int],
    label_names: Sequence[str],
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[SplitEvaluation, SplitEvaluation | None]:
    """The split's evaluation, and that of the rows without a twin in training, where some have one.

    Args:
        clean_rows: those that have none; None: all of them. The rest as `evaluate_predictions`.
    """
    shared = (validation, train_label_ids, label_names, groups)
    whole = evaluate_predictions(predictions, *shared)
    return whole, evaluate_predictions(predictions.take(clean_rows), *shared) if clean_rows else None


def count_labels(label_ids: Sequence[int], label_names: Sequence[str]) -> dict[str, int]:
    """Label name → number of examples."""
    counts = np.bincount(np.asarray(label_ids), minlength=len(label_names))
    return dict(zip(label_names, counts.tolist(), strict=True))


def evaluate_predictions(
    predictions: SplitPredictions,
    validation: SplitPredictions | None,
    train_label_ids: Sequence[int],
    label_names: Sequence[str],
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> SplitEvaluation:
    """
    Args:
        validation: of the same model; what is chosen (threshold, temperature) is chosen on it. None: nothing is chosen.
        train_label_ids: for the baselines.
        groups: column → subject → group, such as {"gender": {"110001": "female"}}.
    """
    clips = predictions.by_clip()
    predicted = clips.scores.argmax(axis=1)
    subjects = [predictions.subject_ids[row] for row in clips.first_rows]
    people = subjects if all(subjects) else None  # one unknown person can be anyone of the others
    temperature = None if validation is None else fit_temperature(validation.logits, validation.label_ids)
    return SplitEvaluation(
        num_clips=len(clips.clip_ids),
        num_windows=len(predictions.keys),
        scores=compute_scores(clips.label_ids, predicted, label_names, clips.scores),
        scores_by_window=_by_window(predictions, label_names),
        majority_baseline=majority_baseline(train_label_ids, clips.label_ids, label_names),
        stratified_baseline=stratified_baseline(train_label_ids, clips.label_ids, label_names),
        intervals=bootstrap_intervals(clips.label_ids, predicted, label_names, people, clips.scores),
        people=spread_over_people(clips.label_ids, predicted, label_names, people) if people else None,
        groups={
            column: _hide_what_follows(
                scores_by_group(
                    [of.get(subject or "") for subject in subjects],
                    clips.label_ids,
                    predicted,
                    label_names,
                    people,
                    clips.scores,
                ),
                len(set(subjects)),
            )
            for column, of in (groups or {}).items()
        },
        collapse=name_collapse(clips.label_ids, predicted, label_names),
        calibration=_calibrate(predictions, temperature),
        risk_coverage=risk_coverage(clips.scores, clips.label_ids),
        decision=_decide(clips, validation, temperature, label_names),
    )


def _hide_what_follows(cells: dict[str, Group], num_people: int) -> dict[str, Group]:
    """A suppressed group's scores follow from the rest and the total: the smallest others are suppressed with it, until
    those hidden are enough people."""
    told = {name: cell for name, cell in cells.items() if isinstance(cell, GroupScores)}
    num_hidden = num_people - sum(cell.num_people for cell in told.values())
    while told and 0 < num_hidden < MIN_PEOPLE_IN_A_CELL:
        smallest = min(told, key=lambda name: told[name].num_people)
        num_hidden += told.pop(smallest).num_people
    return {name: told.get(name, SuppressedGroup()) for name in cells}


def _by_window(predictions: SplitPredictions, label_names: Sequence[str]) -> Scores | None:
    if len({clip_id for clip_id, _ in predictions.keys}) == len(predictions.keys):
        return None
    scores = softmax(predictions.logits.astype(float), axis=1)
    return compute_scores(predictions.label_ids, scores.argmax(axis=1), label_names, scores)


def _calibrate(predictions: SplitPredictions, temperature: float | None) -> CalibrationResults:
    """As the model is and, with a temperature fitted on validation, as it could be."""
    clips, scaled = predictions.by_clip(), None
    if temperature is not None:
        at_temperature = predictions.by_clip(temperature)
        scaled = calibration_scores(at_temperature.scores, at_temperature.label_ids)
    return CalibrationResults(as_trained=calibration_scores(clips.scores, clips.label_ids), scaled=scaled)


def _decide(
    clips: ClipScores, validation: SplitPredictions | None, temperature: float | None, label_names: Sequence[str]
) -> Decision | None:
    if validation is None or temperature is None:
        return None
    held = validation.by_clip()
    return compare_decisions(temperature, held.scores, held.label_ids, clips.scores, clips.label_ids, label_names)


def describe_scores(evaluation: SplitEvaluation, split: str) -> str:
    """For the terminal: headline scores, macro-F1's interval, the majority baseline, and a collapse."""
    scores, baseline = evaluation.scores, evaluation.majority_baseline
    headline = {"macro f1": scores.macro_f1, "balanced accuracy": scores.balanced_accuracy, "accuracy": scores.accuracy}
    measured = ", ".join(f"{name} {value:.3f}" for name, value in headline.items())
    interval, over = evaluation.intervals.intervals["macro_f1"], evaluation.intervals.resampled
    collapse = f". {evaluation.collapse}" if evaluation.collapse else ""
    return (
        f"{measured} on {scores.num_examples} {split} examples (macro f1 95 % over {over}: "
        f"{interval.in_words('unknown')}); always "
        f'"{baseline.predicts}": macro f1 {baseline.macro_f1:.3f}, accuracy {baseline.accuracy:.3f}{collapse}'
    )


def write_predictions(folder: Path, splits: Sequence[SplitPredictions], label_names: Sequence[str]) -> None:
    """`predictions.parquet`: a row a window with its clip, person, true label, logits; what `compare` reads."""
    columns: dict[str, list] = {name: [] for name in ("split", "clip_id", "window_index", "subject_id", "label")}
    for part in splits:
        columns["split"] += [part.split] * len(part.keys)
        columns["clip_id"] += [clip_id for clip_id, _ in part.keys]
        columns["window_index"] += [window for _, window in part.keys]
        columns["subject_id"] += list(part.subject_ids)
        columns["label"] += [label_names[label] for label in part.label_ids]
    logits = np.concatenate([part.logits for part in splits]).astype(np.float32)
    columns |= {f"logit/{name}": logits[:, i].tolist() for i, name in enumerate(label_names)}
    with whole_file(folder / PREDICTIONS_FILE) as partial:
        pyarrow.parquet.write_table(pyarrow.table(columns), partial)


def read_predictions(folder: Path, split: str) -> tuple[SplitPredictions, list[str]]:
    """One split's predictions, and the label names.

    Raises:
        ModelLoadError: there are none that can be read.
        DataError: none of this split.
    """
    path = folder / PREDICTIONS_FILE
    try:
        table = pyarrow.parquet.read_table(path).to_pydict()
        names = [name.removeprefix("logit/") for name in table if name.startswith("logit/")]
        rows = [row for row, found in enumerate(table["split"]) if found == split]
        keys = [(table["clip_id"][row], table["window_index"][row]) for row in rows]
        subjects = [table["subject_id"][row] for row in rows]
        label_ids = np.array([names.index(table["label"][row]) for row in rows], dtype=np.int64)
        logits = np.array([[table[f"logit/{name}"][row] for name in names] for row in rows])
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = in_one_line(error)
        raise ModelLoadError(f"Expected predictions in {path}, got none that can be read ({reason}); run `engagement "
                             f"evaluate {folder}`.") from error  # fmt: skip
    if not rows:
        raise DataError(f"Expected predictions of {split} in {path}, found none; run `engagement evaluate {folder} "
                        f"--data DATA --split {split}`.")  # fmt: skip
    return SplitPredictions(split, keys, subjects, label_ids, logits), names


def describe_environment(device: torch.device) -> Environment:
    """What a result measured in this process, on this device, depends on."""
    return Environment(
        python=platform.python_version(),
        packages={name: version(name) for name in _VERSIONED_PACKAGES},
        torch_threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        engine="torch",
    )
