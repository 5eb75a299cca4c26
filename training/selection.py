"""Which evaluation's checkpoint a training keeps: by a score, and within its noise by the lowest loss.

Where one class is rare, macro-F1 by argmax is constant until the class is first predicted, so that the first epoch
would win the tie. Scores of ranking change every epoch. Everything here is computed from the rows that Trainer logs and
stores in each checkpoint, so that a resumed training decides like one that was never stopped.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from transformers import Trainer

from ..processor.input_errors import RecipeError

AUTO = "auto"
RARE_SHARE = 0.3  # below it, argmax may never predict the class
_SHORT_NAMES = {"auprc": "auprc_minority"}
_RANKING = ("auroc", "auprc_minority")  # undefined where only one class occurs
_SCORES = (
    "macro_f1", "macro_f1_fitted", "balanced_accuracy", "accuracy", "weighted_f1", *_RANKING, "quadratic_kappa", "mae",
    "loss",
)  # fmt: skip
_SAME = 1e-12

LogRow = Mapping[str, float]  # of Trainer's log


class KeptEvaluation(NamedTuple):
    """The evaluation of the kept checkpoint, and the best score so far, which a different one may have reached."""

    step: int
    score: float
    best_score: float
    noise: float | None  # standard error of the best score; None: unknown, and only equal scores are within noise


class SelectionOutcome(NamedTuple):
    """How the checkpoint of a finished training was selected; `warning` if the score could not decide."""

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
        raise RecipeError(f"Expected metric_for_best_model to be one of {known}, got {score!r}.")
    return name


def choose_score(
    asked: str, train_label_ids: Sequence[int], validation_label_ids: Sequence[int], label_names: Sequence[str]
) -> str:
    """The score that selects checkpoints and stops early.

    `auto` is AUROC if the rarest class of training or validation has a share below 30 %, else macro-F1, also if
    validation contains only one class, for which AUROC is undefined. Any other score is used as given.

    Raises:
        RecipeError: no such score, or a score of ranking while validation contains only one class.
    """
    name, present = full_name(asked), np.unique(validation_label_ids)
    if name in _RANKING and present.size < 2:
        raise RecipeError(
            f"metric_for_best_model {asked} needs at least two classes in validation, which contains only "
            f"{label_names[present[0]]}; pass macro_f1, or split the data differently."
        )
    if name != AUTO:
        return name
    rarest = min(_rarest_share(train_label_ids), _rarest_share(validation_label_ids))
    return "auroc" if rarest < RARE_SHARE and present.size > 1 else "macro_f1"


def _rarest_share(label_ids: Sequence[int]) -> float:
    counts = np.bincount(np.asarray(label_ids))
    return float(counts[counts > 0].min() / counts.sum())


def kept_evaluation(log: Iterable[LogRow], score: str, greater_is_better: bool) -> KeptEvaluation | None:
    """Which of the logged evaluations is kept, decided one by one in their order; None: the score was never defined.

    An evaluation replaces the kept one if it is within noise (one standard error of the best score so far) and has a
    lower loss, or if it is a new best and the kept one is not within its noise. The order matters, since a checkpoint
    that is not kept is deleted; the one kept at the end is always within noise of the best.

    Args:
        log: Trainer's rows; the standard error is in the score's row, as `eval_<score>_se`.
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
    """How the checkpoint was selected, with a warning if the score never changed or was never defined."""
    values = [row[f"eval_{score}"] for row in _evaluations(log, score)]
    kept = kept_evaluation(log, score, greater_is_better)
    if kept is None:
        undefined = f"{score} was undefined in every evaluation: the last weights were kept, good or bad"
        return SelectionOutcome(score, None, None, None, 0, undefined)
    has_moved = len(values) < 2 or max(values) - min(values) > _SAME
    constant = f"{score} was the same in all {len(values)} evaluations: only the loss selected the checkpoint"
    return SelectionOutcome(score, kept.step, kept.score, kept.noise, len(values), None if has_moved else constant)


class SelectingTrainer(Trainer):
    """Trainer whose best checkpoint is `kept_evaluation`'s: a higher score within noise does not count as better."""

    def selected(self) -> SelectionOutcome | None:
        """How the checkpoint was selected; None: none was, and the last weights were kept."""
        score, greater_is_better = self.args.metric_for_best_model, bool(self.args.greater_is_better)
        if not score or not self.args.load_best_model_at_end:
            return None
        return describe_selection(self.state.log_history, score, greater_is_better)

    def _determine_best_metric(self, metrics: dict[str, float], trial: object) -> bool:
        # Trainer has no public hook for this rule. It logs `metrics` before this call, and protects the checkpoint of
        # `best_global_step` from `save_total_limit`. Early stopping compares with `best_metric`: the best so far.
        if self.args.metric_for_best_model is None:
            return False
        score, greater_is_better = self.args.metric_for_best_model, bool(self.args.greater_is_better)
        kept = kept_evaluation(self.state.log_history, score, greater_is_better)
        if kept is None:
            return False
        self.state.best_metric, self.state.best_global_step = kept.best_score, kept.step
        return kept.step == self.state.global_step
