"""A finished run's folder → its record in the study: scores, the people they were measured on, and the data."""

from collections.abc import Mapping
from pathlib import Path

from ..evaluation.results_file import read_results
from ..evaluation.results_schema import PooledTrainings, Results
from ..evaluation.score_records import Scores, SplitEvaluation
from ..evaluation.split_evaluation import evaluate_predictions, read_predictions
from ..processor.input_errors import ModelLoadError, RecipeError
from ..training.arguments import Stage
from .study_records import FinishedRun, MeasuredOn, RunData
from .summary import FITTED, FITTED_SCORES


def is_finished(export: Path) -> bool:
    """Whether the run has results: an export folder is written atomically. The study's plan records its options."""
    try:
        read_results(export)
    except ModelLoadError:
        return False
    return True


def read_finished(output: Path, exports: Mapping[Stage, Path], seed: int, split: str) -> FinishedRun:
    """The record of a finished run; `seconds` is the duration of the training since it was last resumed.

    Args:
        output: the study's folder.
        exports: by stage; the last one is measured.
    """
    results = {stage: read_results(export) for stage, export in exports.items()}
    data = {stage: _describe_data(of_stage, exports[stage]) for stage, of_stage in results.items()}
    (*_, export), (*_, of_last) = exports.values(), results.values()
    evaluation, pooled = measured_on_own_data(export, of_last, split)
    by_window = evaluation.scores_by_window
    return FinishedRun(
        seed=seed,
        folder=export.relative_to(output).as_posix(),
        scores={**_flat(evaluation.scores), **_beyond_argmax(evaluation)},
        scores_by_window=None if by_window is None else _flat(by_window),
        majority_baseline=_flat(evaluation.majority_baseline),
        measured_on=_describe_people(evaluation, pooled),
        collapse=evaluation.collapse,
        data=data,
        seconds=sum(of_stage.training.seconds for of_stage in results.values() if of_stage.training),
    )


def measured_on_own_data(export: Path, results: Results, split: str) -> tuple[SplitEvaluation, PooledTrainings | None]:
    """On the data it was trained on. Training only measures test; validation is measured here, from predictions."""
    measured = results.measured_on(split)
    if measured is not None and results.is_own_data(measured):
        return measured.evaluation, measured.pooled
    predictions, names = read_predictions(export, split)
    counts = results.train_label_counts
    train_label_ids = [label for label, name in enumerate(names) for _ in range(counts[name])]
    return evaluate_predictions(predictions, None, train_label_ids, names), None


def _flat(scores: Scores) -> dict[str, float | None]:
    """The main scores, and those of each class under the names of `bootstrap`."""
    flat: dict[str, float | None] = {
        "macro_f1": scores.macro_f1,
        "balanced_accuracy": scores.balanced_accuracy,
        "accuracy": scores.accuracy,
        "weighted_f1": scores.weighted_f1,
        "auroc": scores.auroc,
        "auprc_minority": scores.auprc_minority,
    }
    for label, row in scores.per_class.items():
        flat |= {f"recall/{label}": row.recall, f"precision/{label}": row.precision, f"f1/{label}": row.f1}
    return flat


def _beyond_argmax(evaluation: SplitEvaluation) -> dict[str, float | None]:
    """The score within people, and scores at the decision fitted on validation."""
    within = evaluation.intervals.intervals.get("within_person_auroc")
    fitted = _flat(evaluation.decision.scores.fitted) if evaluation.decision else {}
    return {
        "within_person_auroc": within.value if within else None,
        **{name + FITTED: fitted.get(name) for name in FITTED_SCORES},
    }


def _describe_people(evaluation: SplitEvaluation, pooled: PooledTrainings | None) -> MeasuredOn:
    rarest, people = evaluation.scores.minority_class, evaluation.people
    return MeasuredOn(
        num_clips=evaluation.num_clips,
        num_people=people.num_people if people else None,
        rarest_class=rarest,
        num_rarest_clips=evaluation.scores.per_class[rarest].support if rarest else 0,
        num_people_with_both=people.num_people_with_both if people else None,
        num_folds=pooled.num_folds if pooled else None,
    )


def _describe_data(results: Results, export: Path) -> RunData:
    data = results.data
    if data is None:
        raise RecipeError(f"{export} contains an imported model, not one trained by the study; remove that folder.")
    return RunData(
        source=data.source,
        fingerprint=data.fingerprint,
        audit="missing" if data.audit is None else "passed" if data.audit.passed else "failed",
        leakage_allowed=data.leakage_allowed,
        drawn=data.drawn,
    )
