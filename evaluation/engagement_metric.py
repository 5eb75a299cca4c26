"""The scores of `metrics.compute_scores` as an `evaluate.Metric`, for Trainer and other callers.

It is our own class, since `evaluate.load` downloads metrics. It keeps its input in memory and writes no files. It does
not need to synchronise processes: Trainer gathers predictions before it computes scores.
"""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from transformers import EvalPrediction

from .metrics import compute_scores
from .selection_scores import selection_scores

_DESCRIPTION = "Macro-F1, balanced accuracy and further scores for imbalanced data."
_INPUTS = """
Args:
    predictions: class indices (n,), or softmax scores (n, num_labels), whose argmax is the prediction.
    references: (n,) true class indices.
    scores: (n, num_labels) softmax, if `predictions` are class indices that are not its argmax.
    minority_class: its name; default: the rarest class among the references.

Returns:
    The result of `compute_scores`, as a dictionary.
"""


class EngagementMetric(evaluate.Metric):
    """The scores of this project as a metric of the evaluate library and of Trainer.

    Args:
        label_names: by class index.
        selection_score: the score that selects a training's checkpoint; Trainer also gets its standard error.

    Used as `EngagementMetric(names).compute(predictions=..., references=...)`, in batches by `add_batch`, or as
    `Trainer(compute_metrics=EngagementMetric(names).score_trainer_predictions)`.
    """

    def __init__(self, label_names: Sequence[str], selection_score: str | None = None) -> None:
        self.label_names = tuple(label_names)
        self.selection_score = selection_score
        super().__init__(keep_in_memory=True)

    def score_trainer_predictions(self, prediction: EvalPrediction) -> dict[str, float]:
        """The scores of Trainer's logits that are numbers; Trainer can log neither tables nor None."""
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        scores = softmax(np.asarray(logits, dtype=float), axis=-1)
        label_ids = np.asarray(prediction.label_ids)
        # Not `compute`, which copies every number into a table first.
        result = self._compute(predictions=scores, references=label_ids)
        numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
        return numbers | selection_scores(self.selection_score, label_ids, scores)

    def _info(self) -> evaluate.MetricInfo:
        reference = datasets.Value("int64")
        scores = datasets.Features({"predictions": datasets.List(datasets.Value("float64")), "references": reference})
        class_ids = datasets.Features({"predictions": datasets.Value("int64"), "references": reference})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=[scores, class_ids]
        )

    def _build_data_dir(self) -> str:
        # evaluate creates a folder in the user's cache even for a metric that is kept in memory.
        return ""

    def _compute(
        self,
        *,
        predictions: ArrayLike,
        references: ArrayLike,
        scores: np.ndarray | None = None,
        minority_class: str | None = None,
    ) -> dict[str, object]:
        predicted = np.asarray(predictions)
        if predicted.ndim == 2:
            scores, predicted = predicted, predicted.argmax(axis=1)
        found = compute_scores(np.asarray(references), predicted, self.label_names, scores, minority_class)
        return found.model_dump()
