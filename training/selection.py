"""Which evaluation's checkpoint a training keeps: by a score that moves, and within its noise by the lowest loss.

Where one class is rare, macro-F1 by argmax is the same constant in every epoch until the class is predicted at all, so
that the first epoch would win the tie. What ranks moves. Everything here follows from the rows that Trainer logs and
stores in each checkpoint, so that a resumed training decides as one that was never stopped.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from transformers import Trainer

from ..processor.input_errors import RecipeError

AUTO = "auto"
RARE_SHARE = 0.3  # a class below it is rare enough for argmax never to predict it
_SHORT_NAMES = {"auprc": "auprc_minority"}
_RANKING = ("auroc", "auprc_minority")  # undefined where one class alone is true
_SCORES = (
    "macro_f1", "macro_f1_fitted", "balanced_accuracy", "accuracy", "weighted_f1", *_RANKING, "quadratic_kappa", "mae",
    "loss",
)  # fmt: skip
_SAME = 1e-12

LogRow = Mapping[str, float]  # of Trainer's log


class KeptEvaluation(NamedTuple):
    """Where the checkpoint that is kept was evaluated, and the best score so far, which may be another's."""

    step: int
    score: float
    best_score: float
    noise: float | None  # standard error of the best score; None: it is not known, and only equals are within noise


class SelectionOutcome(NamedTuple):
    """What a finished training went by; `warning` says where that was nothing."""

    score: str
    step: int | None
    value: float | None
    noise: float | None
    num_evaluations: int
    warning: str | None


def full_name(score: str) -> str:
    """A score as Trainer logs it, from its short name or with Trainer's prefix.

    Raises:
        RecipeError: there is no such score.
    """
    name = score.removeprefix("eval_")
    name = _SHORT_NAMES.get(name, name)
    if name not in (AUTO, *_SCORES):
        known = ", ".join((AUTO, *_SCORES, *_SHORT_NAMES))
        raise RecipeError(f"Expected one of {known} as metric_for_best_model, got {score!r}.")
    return name


def choose_score(
    asked: str, train_label_ids: Sequence[int], validation_label_ids: Sequence[int], label_names: Sequence[str]
) -> str:
    """The score that checkpoints and early stopping go by.

    `auto` is AUROC where the rarest class of training or validation has less than 30 %, else macro-F1; also where
    validation holds one class alone, of which nothing ranks. Whatever else was asked for stays.

    Raises:
        RecipeError: no such score, or one that ranks where validation holds one class alone.
    """
    name, present = full_name(asked), np.unique(validation_label_ids)
    if name in _RANKING and present.size < 2:
        raise RecipeError(
            f"Expected at least two classes in validation for metric_for_best_model {asked}, got "
            f"{label_names[present[0]]} alone; pass macro_f1, or split the data otherwise."
        )
    if name != AUTO:
        return name
    rarest = min(_rarest_share(train_label_ids), _rarest_share(validation_label_ids))
    return "auroc" if rarest < RARE_SHARE and present.size > 1 else "macro_f1"


def _rarest_share(label_ids: Sequence[int]) -> float:
    counts = np.bincount(np.asarray(label_ids))
    return float(counts[counts > 0].min() / counts.sum())


def kept_evaluation(log: Iterable[LogRow], score: str, greater_is_better: bool) -> KeptEvaluation | None:
    """Which of the logged evaluations is kept, decided one by one as they came; None: the score was never defined.

    An evaluation takes the place of the kept one where it is within noise (one standard error of the best score so far)
    and has a lower loss, or where it is a new best from which the kept one is further away. One by one, since a
    checkpoint that was passed over is deleted; what is kept at the end is always within noise of the best.

    Args:
        log: Trainer's rows; the standard error stands in those beside the score, as `eval_<score>_se`.
    """
    key, sign = f"eval_{score}", 1 if greater_is_better else -1
    kept: LogRow | None = None
    best: LogRow | None = None
    for row in _evaluations(log, score):
        if kept is None or best is None:
            kept = best = row
            continue
        if sign * row[key] > sign * best[key]:
            best = row
        least = sign * best[key] - best.get(f"{key}_se", 0.0)
        is_better = sign * row[key] >= least and row["eval_loss"] < kept["eval_loss"]
        if is_better or sign * kept[key] < least:
            kept = row
    if kept is None or best is None:
        return None
    return KeptEvaluation(int(kept["step"]), kept[key], best[key], best.get(f"{key}_se"))


def _evaluations(log: Iterable[LogRow], score: str) -> list[LogRow]:
    """Rows of evaluations in which the score is a number."""
    return [row for row in log if np.isfinite(row.get(f"eval_{score}", np.nan))]


def describe_selection(log: Sequence[LogRow], score: str, greater_is_better: bool) -> SelectionOutcome:
    """What a finished training went by, with a warning where the score never moved, or was never defined."""
    values = [row[f"eval_{score}"] for row in _evaluations(log, score)]
    kept = kept_evaluation(log, score, greater_is_better)
    if kept is None:
        undefined = f"{score} was undefined in every evaluation: the last weights were kept, whatever they are"
        return SelectionOutcome(score, None, None, None, 0, undefined)
    has_moved = len(values) < 2 or max(values) - min(values) > _SAME
    constant = f"{score} was the same in all {len(values)} evaluations: the selection had nothing to go by but the loss"
    return SelectionOutcome(score, kept.step, kept.score, kept.noise, len(values), None if has_moved else constant)


class SelectingTrainer(Trainer):
    """Trainer whose best checkpoint is `kept_evaluation`'s: a higher score within noise is no better one."""

    def selected(self) -> SelectionOutcome | None:
        """What the finished training went by; None: no checkpoint was chosen, but the last weights kept."""
        score, greater_is_better = self.args.metric_for_best_model, bool(self.args.greater_is_better)
        if not score or not self.args.load_best_model_at_end:
            return None
        return describe_selection(self.state.log_history, score, greater_is_better)

    def _determine_best_metric(self, metrics: dict[str, float], trial: object) -> bool:
        # Trainer has no public place for this rule. It has logged `metrics` before it asks, and protects the checkpoint
        # of `best_global_step` from `save_total_limit`. Early stopping compares with `best_metric`: the best so far.
        if self.args.metric_for_best_model is None:
            return False
        score, greater_is_better = self.args.metric_for_best_model, bool(self.args.greater_is_better)
        kept = kept_evaluation(self.state.log_history, score, greater_is_better)
        if kept is None:
            return False
        self.state.best_metric, self.state.best_global_step = kept.best_score, kept.step
        return kept.step == self.state.global_step
