"""transformers' Trainer with what imbalanced face data needs: weighted loss, a stop at the first non-finite loss,
checked checkpoints.

Everything else (schedules, mixed precision, several processes) is Trainer's own.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import _IncompatibleKeys
from transformers import TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput

from ..processor.input_errors import DataError, NonFiniteLossError, RecipeError
from .averaged_weights import AveragedWeights
from .checkpoints import seal_checkpoint, whole_checkpoint
from .losses import Loss, SubjectAdversary, encoder_features
from .mixing import Mixing
from .processes import forget_precision
from .run_record import TrainingRecipe, write_training_recipe
from .selection import SelectingTrainer
from .step_times import StepTimes
from .training_sets import FrameCollator, LabelledFrames

_ADVERSARY_FILE = "subject_adversary.safetensors"  # in a checkpoint


class _ZeroGrad(TrainerCallback):
    """Zeroes gradients after each step; Trainer does this only for the model."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def on_optimizer_step(self, *args: object, **kwargs: object) -> None:
        self.module.zero_grad()


class EngagementTrainer(SelectingTrainer):
    """
    Args:
        loss: from logits and class indices, see `losses.build_loss`.
        train_collator, eval_collator: training frames are augmented, others never.
        optimizer_name: "adam", "momentum" or "nesterov" (SGD, 0.9), whose weight decay is an L2 penalty: with adam on
            all parameters, as in the CNN + LSTM study; with momentum on all but biases and LayerNorms, similar to
            TFLearn's regularisers; with nesterov on all but biases and any norms; None: as set in TrainingArguments.
        lr_decay: (factor, steps): the learning rate shrinks smoothly by the factor over these steps; None: no decay.
        mixing: of training batches.
        average_decay: of an average of the weights, which is evaluated, selected and left in the model after the
            training; None: no average.
        subject_adversary: trained together with the model by its optimizer; stored in checkpoints, not in models.
        recipe: recorded in each checkpoint; None: these checkpoints cannot be resumed from.
    """

    # Our loss is a mean over the batch; Trainer divides it by the number of accumulated batches.
    loss_is_scaled_for_ga = False
    # Trainer's own types are wider.
    model: torch.nn.Module
    train_dataset: LabelledFrames
    resumed_in: Path | None = None  # folder of the checkpoint that the training resumes from

    def __init__(
        self,
        *,
        train_dataset: LabelledFrames,
        loss: Loss,
        train_collator: FrameCollator,
        eval_collator: FrameCollator,
        optimizer_name: str | None = None,
        lr_decay: tuple[float, int] | None = None,
        mixing: Mixing | None = None,
        average_decay: float | None = None,
        subject_adversary: SubjectAdversary | None = None,
        recipe: TrainingRecipe | None = None,
        **kwargs: Any,  # Trainer's own
    ) -> None:
        forget_precision()
        super().__init__(train_dataset=train_dataset, data_collator=eval_collator, **kwargs)
        self.times = StepTimes()
        self.add_callback(self.times)
        self.loss = loss
        self.train_collator = train_collator
        self.eval_collator = eval_collator
        self.optimizer_name = optimizer_name
        self.lr_decay = lr_decay
        self.mixing = mixing
        self.recipe = recipe
        self.averaged = AveragedWeights(self.model, average_decay) if average_decay else None
        if self.averaged is not None:
            self.add_callback(self.averaged)
        self.subject_adversary = subject_adversary and self.accelerator.prepare_model(subject_adversary)
        if self.subject_adversary is not None:
            self.add_callback(_ZeroGrad(self.subject_adversary))
        people = sorted({subject for subject in train_dataset.subject_ids if subject})
        self.subject_index = {subject: index for index, subject in enumerate(people)}

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of the recipe, with the subject adversary's weights as a further group."""
        if self.optimizer is not None:
            return self.optimizer
        self.optimizer = super().create_optimizer(model) if self.optimizer_name is None else self._named_optimizer()
        if self.subject_adversary is not None:
            self.optimizer.add_param_group({"params": list(self.subject_adversary.parameters())})
        return self.optimizer

    def _named_optimizer(self) -> torch.optim.Optimizer:
        """Trainer has no Adam without decoupled weight decay, and no SGD with momentum."""
        named = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        rate, decay = self.args.learning_rate, self.args.weight_decay
        if self.optimizer_name == "adam":
            return torch.optim.Adam([weight for _, weight in named], lr=rate, weight_decay=decay)
        if self.optimizer_name == "nesterov":
            decayed = {name for name, weight in named if weight.ndim > 1}
        else:
            decayed = set(self.get_decay_parameter_names(self.model))
        groups: list[dict[str, object]] = [
            {"params": [weight for name, weight in named if name in decayed]},
            {"params": [weight for name, weight in named if name not in decayed], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(
            groups, momentum=0.9, nesterov=self.optimizer_name == "nesterov", lr=rate, weight_decay=decay
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Decay by steps if a recipe sets it, else the schedule of TrainingArguments."""
        if self.lr_decay is None:
            return super().create_scheduler(num_training_steps, optimizer)
        factor, steps = self.lr_decay
        # TFLearn decays smoothly in spite of its parameter's name: its staircase is off by default.
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.create_optimizer(), lambda step: factor ** (step / steps)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[dict[str, torch.Tensor]]:
        self.data_collator = self.train_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = self.eval_collator

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, torch.Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor | int | None]:
        with self.times.waiting():
            return super().get_batch_samples(epoch_iterator, num_batches, device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        """The recipe's loss and, in training, the subject adversary's.

        Raises:
            NonFiniteLossError: names the clips; Trainer itself would log 0.0 and train on with NaN weights.
        """
        rows, labels = inputs.pop("rows"), inputs.pop("labels")
        if model.training and self.mixing is not None:
            num_labels = self.accelerator.unwrap_model(model).num_labels
            inputs["pixel_values"], labels = self.mixing(inputs["pixel_values"], labels, num_labels, self._progress())
        if self.subject_adversary is None or not model.training:
            outputs = model(**inputs)
            loss = self.loss(outputs.logits, labels)
        else:
            with encoder_features(self.accelerator.unwrap_model(model).encoder) as features:
                outputs = model(**inputs)
            loss = self.loss(outputs.logits, labels)
            subjects = [self.subject_index[self.train_dataset.subject_ids[row]] for row in rows.tolist()]
            people = torch.tensor(subjects, device=rows.device)  # (batch,)
            loss = loss + self.subject_adversary(features[0], people, self._progress())
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._name_culprits(rows.tolist()) if model.training else self._blame_weights())
        inputs["labels"] = labels  # prediction_step reads them again
        return (loss, outputs) if return_outputs else loss

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,  # optuna's, which may not be installed
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        self.resumed_in = Path(resume_from_checkpoint).parent if isinstance(resume_from_checkpoint, str) else None
        outcome = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        if self.averaged is not None:
            self.remove_callback(self.averaged)
            if self.state.best_model_checkpoint is None or not self.args.load_best_model_at_end:
                self.averaged.take_over()
            self.averaged = None
        return outcome

    def finite_log(self) -> list[dict[str, int | float | None]]:
        """The log with None for non-finite numbers, which JSON lacks: an infinite loss must not prevent the export."""
        log = self.state.log_history
        return [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in log]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # Trainer's own
        with self.averaged.in_use() if self.averaged is not None else nullcontext():
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object = None) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with whole_checkpoint(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)  # type: ignore[arg-type] # optuna's, if installed
            self.accelerator.wait_for_everyone()  # until each process has written its random state
            if self.args.should_save:
                seal_checkpoint(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save weights under their current names. transformers would write a ViT, BEiT or Swin with the names of its
        earlier versions, and Trainer, which loads checkpoints by name, would not load such an encoder."""
        if not self.args.should_save:
            return
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        folder = Path(output_dir or str(self.args.output_dir))
        model.save_pretrained(folder, state_dict=state_dict, save_original_format=False)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _issue_warnings_after_load(self, load_result: _IncompatibleKeys) -> None:
        """Raises RecipeError where Trainer would only warn, and continue with a partly loaded encoder."""
        strange = [*load_result.missing_keys, *load_result.unexpected_keys]
        if strange:
            raise RecipeError(
                f"The checkpoint's weights do not fit this model: {len(strange)} names differ (first: {strange[0]}), "
                "as in checkpoints of an earlier version; start a new training in a different output_dir."
            )

    def _load_best_model(self) -> None:
        # If the run's folder was moved, the path in the state no longer exists, and Trainer would only warn and keep
        # the last weights.
        stored = Path(str(self.state.best_model_checkpoint))
        beside = [Path(str(folder)) / stored.name for folder in (self.args.output_dir, self.resumed_in) if folder]
        found = next((path for path in (*beside, stored) if path.is_dir()), None)
        if found is None:
            raise DataError(f"The best checkpoint {stored} is missing; it was there during the training.")
        self.state.best_model_checkpoint = str(found)
        super()._load_best_model()
        if self.averaged is not None and self.state.best_model_checkpoint is not None:
            self.averaged.load(Path(self.state.best_model_checkpoint))
            self.averaged.take_over()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Also saves the recipe, the adversary and the averaged weights."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.recipe is not None and self.args.should_save:
            recipe = self.recipe.model_copy(update={"threads": torch.get_num_threads()})
            write_training_recipe(recipe, Path(output_dir))
        if self.subject_adversary is not None and self.args.should_save:
            weights = self.accelerator.unwrap_model(self.subject_adversary).state_dict()
            save_file(weights, Path(output_dir) / _ADVERSARY_FILE)
        if self.averaged is not None and self.args.should_save:
            self.averaged.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.subject_adversary is not None and checkpoint is not None:
            weights = load_file(Path(checkpoint) / _ADVERSARY_FILE)
            self.accelerator.unwrap_model(self.subject_adversary).load_state_dict(weights)
        if self.averaged is not None and checkpoint is not None:
            self.averaged.load(Path(checkpoint))

    def _progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps, 1)

    def _name_culprits(self, rows: list[int]) -> str:
        names = ", ".join(self.train_dataset.name_of(row) for row in rows[:16])
        return (
            f"The loss became non-finite at step {self.state.global_step}, in the batch of {names}; check these "
            "clips, or lower the learning rate. The weights of this run were not exported."
        )

    def _blame_weights(self) -> str:
        # The last step before an evaluation can break weights that no later step would show.
        return (
            f"The evaluation's loss was non-finite after step {self.state.global_step}; lower the learning rate. The "
            "weights of this run were not exported."
        )

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """Not counted: Trainer's estimate is for tokens, and takes longer than a step on stored features."""
        return 0

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Does nothing: Trainer would overwrite our README, which is rendered from measured results."""
