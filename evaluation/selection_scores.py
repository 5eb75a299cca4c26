"""Scores for selecting checkpoints, in addition to `compute_scores`: standard errors, and macro-F1 at fitted offsets.

Standard errors are over clips, or windows, as if each were of a different person: they estimate how much two epochs of
one training differ by chance, which is less than two samples of people differ.
"""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from .calibration import apply_offsets, fit_offsets
from .metrics import confusion_scores, rarest_class

_NUM_DRAWS = 200


def selection_scores(name: str | None, label_ids: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """What Trainer logs for its selection score: the standard error and, for `macro_f1_fitted`, the score itself.

    Nothing for other scores: for those, only equal scores are within noise.

    Args:
        label_ids: (n,).
        scores: (n, num_labels), softmax.
    """
    if name == "macro_f1_fitted":
        value, error = fitted_macro_f1(label_ids, scores)
        return {name: value, f"{name}_se": error}
    if name == "auroc" and np.unique(label_ids).size > 1:
        return {f"{name}_se": auroc_standard_error(label_ids, scores)}
    minority = rarest_class(label_ids)
    if name == "auprc_minority" and minority is not None:
        return {f"{name}_se": auprc_standard_error(label_ids == minority, scores[:, minority])}
    return {}


def auroc_standard_error(label_ids: np.ndarray, scores: np.ndarray) -> float:
    """Of `compute_scores`' AUROC, after DeLong et al. 1988; with more than two classes, of the mean over the classes.

    Each example's placement is the share of the other group that it is ranked correctly against; the variance of the
    mean placement is the AUROC's. An example counts in every class: its deviations are summed before squaring.
    """
    present = np.unique(label_ids)
    # With two classes, both have the same AUROC.
    ranked = present if scores.shape[1] > 2 else present[:1]
    deviation = np.zeros(len(label_ids))
    for label in ranked:
        mine = label_ids == label
        beaten = rankdata(scores[:, label])  # minus the rank in its own group: how many of the other it is above
        for group in (mine, ~mine):
            beaten[group] -= rankdata(scores[group, label])
        placement = np.where(mine, beaten / (~mine).sum(), 1 - beaten / mine.sum())
        deviation += (placement - placement[mine].mean()) / np.where(mine, mine.sum(), (~mine).sum())
    return float(np.sqrt((deviation**2).sum()) / len(ranked))


def auprc_standard_error(is_minority: np.ndarray, score: np.ndarray) -> float:
    """Of average precision, as for a share of the minority's examples (Boyd, Eng and Page 2013)."""
    share = float(average_precision_score(is_minority, score))
    return float(np.sqrt(share * (1 - share) / is_minority.sum()))


def fitted_macro_f1(label_ids: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Macro-F1 at the offsets fitted on the same examples, and its standard error over resampled confusion matrices."""
    num_labels = scores.shape[1]
    cells = label_ids * num_labels + apply_offsets(scores, fit_offsets(scores, label_ids))
    confusion = np.bincount(cells, minlength=num_labels**2)
    drawn = np.random.default_rng(0).multinomial(len(cells), confusion / len(cells), size=_NUM_DRAWS)
    value, *others = confusion_scores(np.vstack([confusion, drawn]).reshape(-1, num_labels, num_labels))["macro_f1"]
    return float(value), float(np.std(others))
