"""Scores of predictions on imbalanced data, and baselines that need no model; computed by scikit-learn.

Macro-F1 and balanced accuracy come first: 95 % of DAiSEE is "engaged", so accuracy rewards a constant. All functions
go from arrays to the records of `score_records`: an undefined score is None, never NaN.
Intervals around these scores are in `bootstrap.py`, calibration and thresholds in `calibration.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    mean_absolute_error,
    precision_recall_fscore_support,
    roc_auc_score,
)

from ..data.schema import LEVELS
from ..processor.input_errors import DataError
from .score_records import ClassScores, MajorityBaseline, Scores, StratifiedBaseline

# A class is predicted for "nearly everyone" if the others get less than this share of their true number.
_COLLAPSED_SHARE = 0.1
_SOFTMAX_TOLERANCE = 1e-3  # in half precision the sum of a row may differ this much from 1


class ClipScores(NamedTuple):
    """One row per clip, in the order of the clips' first windows."""

    clip_ids: np.ndarray  # (num_clips,) str
    scores: np.ndarray  # (num_clips, num_labels), mean of the windows' softmax
    label_ids: np.ndarray  # (num_clips,)
    first_rows: np.ndarray  # (num_clips,) index of each clip's first window, which has its person or group


def compute_scores(
    label_ids: np.ndarray,
    predicted_ids: np.ndarray,
    label_names: Sequence[str],
    scores: np.ndarray | None = None,
    minority_class: str | None = None,
) -> Scores:
    """All scores of predictions, by clip or by window.

    Args:
        label_ids: (n,) true class indices.
        predicted_ids: (n,) predicted class indices.
        label_names: by index.
        scores: (n, num_labels) softmax; adds the scores that need no threshold.
        minority_class: its name; default: the rarest class that occurs in `label_ids` (the first of equals).

    Returns:
        All scores; classes that do not occur are left out of all of them. Scores of ranking are None without `scores`,
        and if the truth contains only one class (or, for `auprc_minority`, no minority); `quadratic_kappa` and `mae`
        are None except for the four levels of `schema.LEVELS`, and `quadratic_kappa` also if truth and predictions are
        all the same class.

    Raises:
        DataError: no example, arrays that do not match, unknown classes, scores that are not a softmax.
    """
    label_ids, predicted_ids, scores = check_predictions(label_ids, predicted_ids, len(label_names), scores)
    classes = list(range(len(label_names)))
    table = precision_recall_fscore_support(label_ids, predicted_ids, labels=classes, zero_division=0)
    _, recall, f1, support = table
    auroc = auprc = minority = kappa = mae = None
    if scores is not None:
        auroc, auprc, minority = _ranking_scores(label_ids, scores, label_names, minority_class)
    if is_ordered(label_names):
        is_one_class = np.unique(np.concatenate([label_ids, predicted_ids])).size == 1
        kappa = None if is_one_class else float(cohen_kappa_score(label_ids, predicted_ids, weights="quadratic"))
        mae = float(mean_absolute_error(label_ids, predicted_ids))
    return Scores(
        num_examples=len(label_ids),
        macro_f1=float(np.mean(f1[support > 0])),
        balanced_accuracy=float(np.mean(recall[support > 0])),
        accuracy=float(accuracy_score(label_ids, predicted_ids)),
        weighted_f1=float(np.average(f1, weights=support)),
        auroc=auroc,
        auprc_minority=auprc,
        minority_class=minority,
        quadratic_kappa=kappa,
        mae=mae,
        per_class={name: _class_row(*(column[i] for column in table)) for i, name in enumerate(label_names)},
        confusion_matrix=confusion_matrix(label_ids, predicted_ids, labels=classes).tolist(),
    )


def absent_in_words(scores: Scores) -> str | None:
    """The labels without examples, left out of macro-F1; None: all occur, or an older version included them."""
    absent = [name for name, of_class in scores.per_class.items() if not of_class.support]
    present = [of_class.f1 for of_class in scores.per_class.values() if of_class.support]
    if not absent or not np.isclose(scores.macro_f1, np.mean(present)):
        return None
    return f"no example is {' or '.join(absent)}: macro-F1 is over the other labels"


def majority_baseline(
    train_label_ids: Sequence[int], label_ids: np.ndarray, label_names: Sequence[str]
) -> MajorityBaseline:
    """The scores of always predicting the training set's most frequent class."""
    majority = int(np.bincount(np.asarray(train_label_ids), minlength=len(label_names)).argmax())
    scores = compute_scores(label_ids, np.full(len(label_ids), majority), label_names)
    return MajorityBaseline(predicts=label_names[majority], **dict(scores))


def stratified_baseline(
    train_label_ids: Sequence[int],
    label_ids: np.ndarray,
    label_names: Sequence[str],
    num_draws: int = 2000,
    seed: int = 0,
) -> StratifiedBaseline:
    """The expected scores of random predictions with the training set's class shares.

    Means over seeded draws, since the expectation of F1 has no closed form; only confusion matrices are drawn, with a
    multinomial for each row. `confusion_matrix` is the exact expectation.
    """
    train_ids = as_label_ids(train_label_ids, len(label_names), "training labels")
    shares = np.bincount(train_ids, minlength=len(label_names)) / len(train_ids)
    label_ids = as_label_ids(label_ids, len(label_names), "true labels")
    support = np.bincount(label_ids, minlength=len(label_names))
    rng = np.random.default_rng(seed)
    confusions = rng.multinomial(support, shares, size=(num_draws, len(support)))  # (num_draws, truth, prediction)
    has_distance = is_ordered(label_names)
    drawn = confusion_scores(confusions, has_distance)
    precision, recall, f1 = (drawn[name].mean(axis=0) for name in ("precision", "recall", "f1"))
    return StratifiedBaseline(
        predicts="at random, with the training set's shares",
        train_shares=dict(zip(label_names, shares.tolist(), strict=True)),
        num_draws=num_draws,
        seed=seed,
        num_examples=len(label_ids),
        macro_f1=float(drawn["macro_f1"].mean()),
        balanced_accuracy=float(drawn["balanced_accuracy"].mean()),
        accuracy=float(drawn["accuracy"].mean()),
        weighted_f1=float(drawn["weighted_f1"].mean()),
        quadratic_kappa=_mean_where_defined(drawn["quadratic_kappa"]) if has_distance else None,
        mae=float(drawn["mae"].mean()) if has_distance else None,
        per_class={name: _class_row(precision[i], recall[i], f1[i], support[i]) for i, name in enumerate(label_names)},
        confusion_matrix=np.outer(support, shares).tolist(),
    )


def confusion_scores(confusions: np.ndarray, ordered: bool = False) -> dict[str, np.ndarray]:
    """The scores of many confusion matrices at once, for resampling; the same as from `compute_scores`.

    Args:
        confusions: (..., num_labels, num_labels), rows: truth, columns: prediction.
        ordered: add `quadratic_kappa` and `mae`.

    Returns:
        `macro_f1`, `balanced_accuracy`, `accuracy`, `weighted_f1`: (...); `precision`, `recall` and `f1`: (...,
        num_labels). NaN where `compute_scores` gives None.
    """
    confusions = np.asarray(confusions, dtype=float)
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    true, predicted, total = confusions.sum(-1), confusions.sum(-2), confusions.sum((-2, -1))
    recall, f1 = _ratio(hits, true), _ratio(2 * hits, true + predicted)
    scores = {
        "macro_f1": np.where(true > 0, f1, 0).sum(-1) / (true > 0).sum(-1),
        "balanced_accuracy": recall.sum(-1) / (true > 0).sum(-1),  # the recall of an absent class is 0
        "accuracy": hits.sum(-1) / total,
        "weighted_f1": (f1 * true).sum(-1) / total,
        "precision": _ratio(hits, predicted),
        "recall": recall,
        "f1": f1,
    }
    if ordered:
        levels = np.arange(confusions.shape[-1])
        distance = np.abs(levels[:, None] - levels)
        chance = (true[..., :, None] * predicted[..., None, :] * distance**2).sum((-2, -1)) / total
        observed = (confusions * distance**2).sum((-2, -1))
        scores["quadratic_kappa"] = 1 - np.divide(observed, chance, out=np.full_like(chance, np.nan), where=chance > 0)
        scores["mae"] = (confusions * distance).sum((-2, -1)) / total
    return scores


def fast_macro_f1(label_ids: np.ndarray, predicted_ids: np.ndarray, num_labels: int) -> float:
    """As from `compute_scores`, without its checks and other scores."""
    confusion = np.bincount(label_ids * num_labels + predicted_ids, minlength=num_labels**2)
    return float(confusion_scores(confusion.reshape(num_labels, num_labels))["macro_f1"])


def mean_scores_by_clip(clip_ids: Sequence[str], scores: np.ndarray, label_ids: np.ndarray) -> ClipScores:
    """Windows → clips: the mean softmax of each clip's windows.

    Args:
        clip_ids: (num_windows,).
        scores: (num_windows, num_labels), softmax.
        label_ids: (num_windows,).

    Raises:
        DataError: the windows of a clip have different labels, or the arrays different lengths.
    """
    scores = np.asarray(scores, dtype=float)
    label_ids = as_label_ids(label_ids, scores.shape[-1], "true labels")
    scores = as_scores(scores, len(label_ids), scores.shape[-1])
    clip_of_window = np.asarray(clip_ids, dtype=str)
    if len(clip_of_window) != len(label_ids):
        raise DataError(f"Expected a clip id for each of {len(label_ids)} windows, got {len(clip_of_window)}.")
    names, first_rows, clip = np.unique(clip_of_window, return_index=True, return_inverse=True)
    torn = np.unique(clip_of_window[label_ids != label_ids[first_rows][clip]])
    if torn.size:
        raise DataError(
            f"The windows of {torn.size} clips have different labels (such as {', '.join(torn[:5])}); prepare the data "
            "again."
        )
    sums = np.stack([np.bincount(clip, weights=column, minlength=len(names)) for column in scores.T], axis=1)
    means = sums / np.bincount(clip)[:, None]
    order = np.argsort(first_rows)
    return ClipScores(names[order], means[order], label_ids[first_rows[order]], first_rows[order])


def name_collapse(label_ids: np.ndarray, predicted_ids: np.ndarray, label_names: Sequence[str]) -> str | None:
    """One sentence if the model predicts one class for nearly everyone, else None.

    "Nearly" depends on the truth: the other classes together get less than a tenth of their true share of predictions.
    So 97 % "engaged" is no collapse where 95 % are engaged, but it is where 50 % are. Predictions with the true shares
    are never a collapse, even if there is only one true class.
    """
    label_ids, predicted_ids, _ = check_predictions(label_ids, predicted_ids, len(label_names))
    predicted = np.bincount(predicted_ids, minlength=len(label_names)) / len(label_ids)
    true = np.bincount(label_ids, minlength=len(label_names)) / len(label_ids)
    top = int(predicted.argmax())
    if 1 - predicted[top] >= _COLLAPSED_SHARE * (1 - true[top]):
        return None
    # Large weights favour the rare class (20 to 1 in batches of 64 once gave macro-F1 0.05 at an AUROC of 0.65).
    remedy = "raise" if true[top] == true.max() else "lower"
    return (
        f"Predicts '{label_names[top]}' for {predicted[top]:.1%} of {len(label_ids)} examples, where {true[top]:.1%} "
        f"are: collapsed onto one class; {remedy} the cap of the class weights, lower the learning rate, or fit the "
        "decision threshold on validation."
    )


def pairs_within_people(person: np.ndarray, is_rare: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a rare and another clip of the same person, for an AUROC that separates moments, not people.

    Args:
        person: (num_clips,) index from 0.
        is_rare: (num_clips,) bool, whether a clip is of the rarest class.
        score: (num_clips,) of that class.

    Returns:
        By person, (num_people,) each: pairs in the right order by score, where a tie counts half, and all pairs. The
        within-person AUROC is the sum of the first divided by that of the second.
    """
    num_people = int(person.max()) + 1
    right, pairs = np.zeros(num_people), np.zeros(num_people)
    for one in np.intersect1d(person[is_rare], person[~is_rare]):
        mine = person == one
        margins = np.subtract.outer(score[mine & is_rare], score[mine & ~is_rare])
        right[one], pairs[one] = (margins > 0).sum() + (margins == 0).sum() / 2, margins.size
    return right, pairs


def is_ordered(label_names: Sequence[str]) -> bool:
    """Whether the classes are the four ordered levels, and so have a distance."""
    return tuple(label_names) == LEVELS


def rarest_class(label_ids: np.ndarray) -> int | None:
    """The class with the fewest examples, but at least one (the first of equals); None if there is only one class."""
    counts = np.bincount(label_ids)
    present = np.flatnonzero(counts)
    return int(present[counts[present].argmin()]) if present.size > 1 else None


def check_predictions(
    label_ids: np.ndarray, predicted_ids: np.ndarray, num_labels: int, scores: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The three as arrays of matching shapes.

    Raises:
        DataError: they do not match.
    """
    label_ids = as_label_ids(label_ids, num_labels, "true labels")
    predicted_ids = as_label_ids(predicted_ids, num_labels, "predictions")
    if len(label_ids) != len(predicted_ids):
        raise DataError(f"Expected a prediction for each of {len(label_ids)} labels, got {len(predicted_ids)}.")
    return label_ids, predicted_ids, None if scores is None else as_scores(scores, len(label_ids), num_labels)


def as_label_ids(label_ids: np.ndarray | Sequence[int], num_labels: int, what: str) -> np.ndarray:
    """(n,) class indices as int64.

    Raises:
        DataError: there is none, or one is not a class index.
    """
    ids = np.asarray(label_ids)
    if ids.ndim != 1 or not ids.size:
        raise DataError(f"Expected at least one example in the {what}, got an array of shape {ids.shape}.")
    if ids.dtype.kind not in "iub" and not (ids.dtype.kind == "f" and np.all(ids == np.floor(ids))):
        raise DataError(f"Expected whole numbers as {what}, got {ids.dtype}.")
    if ids.min() < 0 or ids.max() >= num_labels:
        raise DataError(f"Expected {what} from 0 to {num_labels - 1}, got {ids.min()} to {ids.max()}.")
    return ids.astype(np.int64)


def as_scores(scores: np.ndarray, num_examples: int, num_labels: int) -> np.ndarray:
    """(num_examples, num_labels) softmax as float64.

    Raises:
        DataError: a different shape, a non-finite number, or rows that do not sum to 1.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.shape != (num_examples, num_labels):
        raise DataError(f"Expected scores of shape ({num_examples}, {num_labels}), got {scores.shape}.")
    if not np.isfinite(scores).all():
        raise DataError(
            f"Expected finite scores, got {int((~np.isfinite(scores)).any(axis=1).sum())} rows with non-finite ones."
        )
    if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > _SOFTMAX_TOLERANCE:
        raise DataError("The scores of some rows do not sum to 1; pass softmax scores, not logits.")
    return scores


def _ranking_scores(
    label_ids: np.ndarray, scores: np.ndarray, label_names: Sequence[str], minority_class: str | None
) -> tuple[float | None, float | None, str | None]:
    """AUROC, average precision of the rarest class, and its name: they depend only on the order of the scores."""
    minority = rarest_class(label_ids) if minority_class is None else list(label_names).index(minority_class)
    present = np.unique(label_ids)
    is_minority = label_ids == minority
    auroc = auprc = None
    if present.size > 1:
        # With two classes the other's AUROC differs only by ties due to rounding.
        ranked = [minority] if len(label_names) == 2 else present
        auroc = float(np.mean([roc_auc_score(label_ids == label, scores[:, label]) for label in ranked]))
        auprc = float(average_precision_score(is_minority, scores[:, minority])) if is_minority.any() else None
    return auroc, auprc, None if minority is None else label_names[minority]


def _class_row(precision: float, recall: float, f1: float, support: int) -> ClassScores:
    return ClassScores(precision=float(precision), recall=float(recall), f1=float(f1), support=int(support))


def _mean_where_defined(values: np.ndarray) -> float | None:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where the whole is 0, as scikit-learn's `zero_division=0`."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
