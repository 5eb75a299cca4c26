"""Predictions of folds → one measurement of all people: calibrated and decided within each fold, then pooled.

Logits of two trainings have no common scale. Each fold's temperature, bias and decision are fitted on its validation
people; nothing is fitted on pooled scores, as all of their people are test people.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ..data.atomic_files import whole_folder, writing
from ..data.described_data import DescribedData, TrainingData
from .calibration import (
    apply_calibration,
    apply_offsets,
    calibration_scores,
    fit_calibration,
    fit_offsets,
)
from .figures import save_figures
from .metrics import ClipScores, compute_scores
from .results_file import write_results
from .results_schema import Measurement, PooledTrainings, Results, Training
from .score_records import Calibration, CalibrationResults, Decision, DecisionMacroF1, DecisionScores, SplitEvaluation
from .split_evaluation import SplitPredictions, evaluate_predictions, write_predictions

_SPLIT = "test"


class PooledFolds(NamedTuple):
    """All people, each predicted by the model of the fold in which they are tested."""

    predictions: SplitPredictions  # with logits calibrated in their fold
    evaluation: SplitEvaluation


class _Fold(NamedTuple):
    test: SplitPredictions  # without calibration
    calibrated: SplitPredictions
    offsets: np.ndarray  # (num_labels,), of calibrated scores
    validation_macro_f1: DecisionMacroF1
    refused: str | None  # why it was not calibrated


def pool_folds(folds: Sequence[tuple[SplitPredictions, SplitPredictions]], label_names: Sequence[str]) -> PooledFolds:
    """
    Args:
        folds: each fold's predictions for its validation and its test people.
    """
    decided = [_decide(validation, test, label_names) for validation, test in folds]
    raw, pooled = _join([fold.test for fold in decided]), _join([fold.calibrated for fold in decided])
    # The baselines use the labels of all people: each fold's training people have nearly the same shares.
    evaluation = evaluate_predictions(pooled, None, pooled.label_ids.tolist(), label_names)
    clips = pooled.by_clip()
    calibration = CalibrationResults(as_trained=_calibration(raw.by_clip()), scaled=_calibration(clips))
    decision = _decision(decided, pooled, clips, label_names)
    return PooledFolds(pooled, evaluation.model_copy(update={"calibration": calibration, "decision": decision}))


def _decide(validation: SplitPredictions, test: SplitPredictions, label_names: Sequence[str]) -> _Fold:
    fitted = fit_calibration(validation.logits, validation.label_ids, label_names)
    held, clips = validation.by_clip(fitted.chosen), test.by_clip(fitted.chosen)
    offsets = fit_offsets(held.scores, held.label_ids)
    by_clip = dict(zip(clips.clip_ids.tolist(), apply_offsets(clips.scores, offsets).tolist(), strict=True))
    decided_ids = np.array([by_clip[clip_id] for clip_id, _ in test.keys], dtype=np.int64)
    argmax, at_offsets = held.scores.argmax(axis=1), apply_offsets(held.scores, offsets)
    # Logits whose softmax is calibrated: the logarithm of that softmax.
    logits = np.log(np.maximum(apply_calibration(test.logits, fitted.chosen), np.finfo(np.float32).tiny))
    return _Fold(
        test,
        SplitPredictions(_SPLIT, test.keys, test.subject_ids, test.label_ids, logits, decided_ids),
        offsets,
        DecisionMacroF1(
            argmax=compute_scores(held.label_ids, argmax, label_names).macro_f1,
            fitted=compute_scores(held.label_ids, at_offsets, label_names).macro_f1,
        ),
        fitted.refused,
    )


def _join(parts: Sequence[SplitPredictions]) -> SplitPredictions:
    decided = [part.decided_ids for part in parts if part.decided_ids is not None]
    return SplitPredictions(
        _SPLIT,
        [key for part in parts for key in part.keys],
        [subject for part in parts for subject in part.subject_ids],
        np.concatenate([part.label_ids for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate(decided) if decided else None,
    )


def _calibration(clips: ClipScores) -> Calibration:
    return calibration_scores(clips.scores, clips.label_ids)


def _decision(
    folds: Sequence[_Fold], pooled: SplitPredictions, clips: ClipScores, label_names: Sequence[str]
) -> Decision:
    decided_ids = clips.scores.argmax(axis=1) if pooled.decided_ids is None else pooled.decided_ids[clips.first_rows]
    refused = [f"fold {number}: {fold.refused}" for number, fold in enumerate(folds, 1) if fold.refused]
    return Decision(
        temperature=None,
        calibration_refused="; ".join(refused) or None,
        offsets=dict(zip(label_names, np.mean([fold.offsets for fold in folds], axis=0).tolist(), strict=True)),
        threshold=None,
        validation_macro_f1=DecisionMacroF1(
            argmax=fmean(fold.validation_macro_f1.argmax for fold in folds),
            fitted=fmean(fold.validation_macro_f1.fitted for fold in folds),
        ),
        scores=DecisionScores(
            argmax=compute_scores(clips.label_ids, clips.scores.argmax(axis=1), label_names, clips.scores),
            fitted=compute_scores(clips.label_ids, decided_ids, label_names, clips.scores),
        ),
    )


def pooled_results(
    folds: Sequence[Results], fingerprint: str, how: str, evaluation: SplitEvaluation, by_subject: bool = False
) -> Results:
    """The results of all folds together, with one measurement and no training log.

    Args:
        folds: of one recipe and seed.
        fingerprint: of the data in folds.
        how: where the folds come from, in words.
        by_subject: each fold was tested on one person, and on people who share a recording with them.
    """
    first = folds[0]
    data = _data_of_all(folds, fingerprint, how)
    seconds = sum(fold.training.seconds for fold in folds if fold.training)
    measured = Measurement(
        split=_SPLIT,
        data=DescribedData(**{name: getattr(data, name) for name in DescribedData.model_fields}),
        environment=first.environment,
        pooled=PooledTrainings(seeds=[first.seed or 0], num_folds=len(folds), by_subject=by_subject),
        evaluation=evaluation,
    )
    counts = Counter[str]()
    for fold in folds:
        if (found := fold.measured_on(_SPLIT)) is not None:
            counts.update({name: row.support for name, row in found.evaluation.scores.per_class.items()})
    return first.model_copy(
        update={
            "data": data,
            "train_label_counts": {name: counts[name] for name in first.label_names},
            "training": Training(seconds=seconds, log=[]),
            "measurements": [measured],
        }
    )


def _data_of_all(folds: Sequence[Results], fingerprint: str, how: str) -> TrainingData:
    parts = [fold.data for fold in folds if fold.data is not None]
    examples = {_SPLIT: sum(part.examples.get(_SPLIT, 0) for part in parts)}
    subjects = {_SPLIT: sum(part.subjects.get(_SPLIT, 0) for part in parts)}
    update = {"fingerprint": fingerprint, "split": how, "examples": examples, "subjects": subjects}
    return parts[0].model_copy(update={**update, "train_pixels": None, "without_label_under_scheme": {}})


def write_pooled(folder: Path, results: Results, predictions: SplitPredictions) -> None:
    """Write a folder with results, predictions and figures, and no model, atomically; an older one is replaced."""
    fingerprint = results.measurements[0].data.fingerprint
    with whole_folder(folder) as unfinished, writing(folder):
        write_results(unfinished, results)
        write_predictions(unfinished, [predictions], results.label_names, fingerprint)
        save_figures(unfinished, results)
