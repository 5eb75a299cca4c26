"""One step and one evaluation of transformers' Trainer on a model of one weight, with a run's own options, before data
is prepared.

Trainer, accelerate, torch's loaders and its compiler check combinations of options in many places, some only at the
first step; a trial step finds what they refuse, in any version, before hours of preparation.
"""

import tempfile
import warnings
from copy import copy

import torch
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from ..processor.input_errors import RecipeError, in_one_line
from .processes import forget_precision


class _OneWeight(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(batch, 1) -> a loss, and (batch, 1) logits."""
        logits = self.layer(x)
        return {"loss": logits.square().mean(), "logits": logits}


def try_one_step(training: TrainingArguments, early_stopping_patience: int | None) -> None:
    """Skipped with several processes: sharding a model over them needs a large one.

    Raises:
        RecipeError: a library refuses the options; the message is the library's.
    """
    if training.world_size > 1:
        return
    forget_precision()
    try:
        if early_stopping_patience:
            EarlyStoppingCallback(early_stopping_patience).on_train_begin(training, TrainerState(), TrainerControl())
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the training repeats them
            rows = [{"x": torch.ones(1)}] * 2
            trainer = Trainer(_OneWeight(), _of_one_step(training, folder), train_dataset=rows, eval_dataset=rows)
            trainer.pop_callback(PrinterCallback)
            trainer.train()
            trainer.evaluate()
    except Exception as error:  # each library fails in its own way
        raise RecipeError(f"A trial step with these options failed: {in_one_line(error)}") from error
    finally:
        forget_precision()


def _of_one_step(training: TrainingArguments, folder: str) -> TrainingArguments:
    """The options, without those that need the run's own model, data and folders."""
    own = copy(training)
    own.output_dir, own.report_to, own.disable_tqdm, own.resume_from_checkpoint = folder, [], True, None
    own.max_steps = own.per_device_train_batch_size = own.gradient_accumulation_steps = 1
    own.eval_strategy = own.logging_strategy = IntervalStrategy.NO
    own.save_strategy, own.load_best_model_at_end, own.metric_for_best_model = SaveStrategy.NO, False, None
    own.eval_on_start, own.neftune_noise_alpha, own.include_num_input_tokens_seen = False, None, "no"
    own.activation_checkpointing = own.gradient_checkpointing = False
    own.optim, own.lr_scheduler_type = OptimizerNames.ADAMW_TORCH, SchedulerType.CONSTANT  # tried separately
    own.dataloader_num_workers = min(1, own.dataloader_num_workers)
    return own
