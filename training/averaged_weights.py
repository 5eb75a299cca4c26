"""An exponential moving average of the weights, which is evaluated, selected and exported instead of the last ones.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the average is torch's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from ..processor.input_errors import RecipeError

_FILE = "averaged_weights.safetensors"  # in a checkpoint, next to the weights that the training resumes from
_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class AveragedWeights(TrainerCallback):
    """Updates the average after each step of a model.

    Args:
        model: the model in training, on its device.
        decay: of the average; 0.999 averages over about a thousand steps. It starts lower, so that the first weights
            are forgotten.

    Raises:
        RecipeError: a decay outside (0, 1).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise RecipeError(f"Expected average_decay above 0 and below 1, got {decay}; 0.999 is usual.")
        self.model = model

        def update(averaged: _Tensors, current: _Tensors, count: torch.Tensor | int) -> None:
            steps = int(count)
            get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

        self.average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)

    def on_optimizer_step(self, *args: object, **kwargs: object) -> None:
        self.average.update_parameters(self.model)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model has the averaged weights while the context lasts."""
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.take_over()
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def take_over(self) -> None:
        """Give the model the averaged weights for good."""
        self.model.load_state_dict(self.average.module.state_dict())

    def save(self, checkpoint: Path) -> None:
        save_model(self.average, str(checkpoint / _FILE))

    def load(self, checkpoint: Path) -> None:
        """Raises RecipeError where the training had no average when the checkpoint was written."""
        if not (checkpoint / _FILE).is_file():
            raise RecipeError(
                f"{checkpoint} has no averaged weights: it was trained without average_decay; resume without this "
                "option, or start a new training in a different output_dir."
            )
        load_model(self.average, str(checkpoint / _FILE))
