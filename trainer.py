"""transformers' Trainer with what imbalanced face data needs: weighted loss, a stop at the first bad number, resume.

Everything else (schedules, mixed precision, several processes, checkpoints) is Trainer's own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional
from transformers import EvalPrediction, Trainer

from .data.training_sets import FrameCollator, LabelledFrames
from .metrics import compute_scores
from .processor.input_errors import NonFiniteLossError


def class_weights(label_ids: Sequence[int], num_labels: int, cap: float) -> torch.Tensor:
    """(num_labels,) weights of the loss, as the CNN + LSTM reference computes them.

    Inverse frequency, divided by the smallest, clamped at `cap`, rescaled to sum to the number of classes. A class
    without examples counts as one example. A cap of 1 weighs all classes alike.
    """
    counts = torch.bincount(torch.as_tensor(label_ids), minlength=num_labels).clamp(min=1)
    weights = (counts.max() / counts.float()).clamp(max=cap)
    return weights * num_labels / weights.sum()


class EngagementTrainer(Trainer):
    """
    Args:
        loss_weights: (num_labels,), weights of the cross-entropy.
        train_collator, eval_collator: training frames are augmented, others never.
    """

    # Our loss is a mean over the batch; Trainer divides it by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(
        self, *, loss_weights: torch.Tensor, train_collator: FrameCollator, eval_collator: FrameCollator, **kwargs: Any
    ) -> None:
        super().__init__(data_collator=eval_collator, **kwargs)
        self.loss_weights = loss_weights
        self.train_collator = train_collator
        self.eval_collator = eval_collator

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        self.data_collator = self.train_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = self.eval_collator

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        """Weighted cross-entropy.

        Raises:
            NonFiniteLossError: naming the clips; Trainer itself would log 0.0 and go on with NaN weights.
        """
        rows, labels = inputs.pop("rows"), inputs.pop("labels")
        outputs = model(**inputs)
        loss = functional.cross_entropy(outputs.logits.float(), labels, self.loss_weights.to(outputs.logits.device))
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._name_culprits(rows.tolist()) if model.training else self._blame_weights())
        inputs["labels"] = labels  # prediction_step looks for them again
        return (loss, outputs) if return_outputs else loss

    def _name_culprits(self, rows: list[int]) -> str:
        data: LabelledFrames = self.train_dataset
        names = ", ".join(data.name_of(row) for row in rows[:16])
        return (
            f"Expected a finite loss, got a non-finite one at step {self.state.global_step} in the batch of {names}; "
            "look at these clips, or lower the learning rate. The weights of this run were not exported."
        )

    def _blame_weights(self) -> str:
        # The last step before an evaluation can break weights that no later step would show.
        return (
            f"Expected a finite loss in evaluation, got a non-finite one after step {self.state.global_step}; lower "
            "the learning rate. The weights of this run were not exported."
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Trainer would write its own README over ours, which is rendered from measured results."""


def trainer_metrics(prediction: EvalPrediction, label_names: Sequence[str]) -> dict[str, float]:
    """What Trainer logs and selects the best model on."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    scores = compute_scores(np.asarray(prediction.label_ids), np.asarray(logits).argmax(axis=1), label_names)
    return {name: scores[name] for name in ("macro_f1", "balanced_accuracy", "accuracy", "num_examples")}


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; Trainer itself takes the highest number, whole or not."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if _is_whole(path):
            return path
    return None


def _is_whole(checkpoint: Path) -> bool:
    # trainer_state.json is the last file Trainer writes into a checkpoint.
    if not (checkpoint / "trainer_state.json").is_file() or not (checkpoint / "optimizer.pt").is_file():
        return False
    try:
        with safe_open(str(checkpoint / "model.safetensors"), framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False
