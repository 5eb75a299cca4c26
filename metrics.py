"""Scores of predictions on imbalanced data, beside the majority baseline; scikit-learn does the arithmetic.

Macro-F1 and balanced accuracy come first: 95 % of DAiSEE is "engaged", so that accuracy rewards a constant.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support


def compute_scores(label_ids: np.ndarray, predicted_ids: np.ndarray, label_names: Sequence[str]) -> dict[str, object]:
    """
    Args:
        label_ids: (n,) true class indices.
        predicted_ids: (n,) predicted class indices.
        label_names: by index.

    Returns:
        `macro_f1`, `balanced_accuracy` (over the classes present), `accuracy`, `per_class` (precision, recall, f1,
        support by name), `confusion_matrix` (rows: truth, columns: prediction) and `num_examples`.
    """
    classes = list(range(len(label_names)))
    precision, recall, f1, support = precision_recall_fscore_support(
        label_ids, predicted_ids, labels=classes, zero_division=0
    )
    per_class = {
        name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": int(support[i])}
        for i, name in enumerate(label_names)
    }
    return {
        "macro_f1": float(np.mean(f1)),
        "balanced_accuracy": float(np.mean(recall[support > 0])) if support.any() else 0.0,
        "accuracy": float(accuracy_score(label_ids, predicted_ids)),
        "num_examples": len(label_ids),
        "per_class": {name: {key: _plain(value) for key, value in row.items()} for name, row in per_class.items()},
        "confusion_matrix": confusion_matrix(label_ids, predicted_ids, labels=classes).tolist(),
    }


def majority_baseline(
    train_label_ids: Sequence[int], label_ids: np.ndarray, label_names: Sequence[str]
) -> dict[str, object]:
    """The scores of always predicting the training set's most frequent class."""
    majority = int(np.bincount(np.asarray(train_label_ids), minlength=len(label_names)).argmax())
    scores = compute_scores(label_ids, np.full(len(label_ids), majority), label_names)
    return {"predicts": label_names[majority], **scores}


def _plain(value: object) -> object:
    return float(value) if isinstance(value, np.floating) else value
