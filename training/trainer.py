"""transformers' Trainer with what imbalanced face data needs: weighted loss, a stop at the first bad number, resume.

Everything else (schedules, mixed precision, several processes, checkpoints) is Trainer's own.
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

_ADVERSARY_FILE = "subject_adversary.safetensors"  # of a checkpoint


class _ZeroGrad(TrainerCallback):
    """After each step; Trainer does it for the model alone."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def on_optimizer_step(self, *args: object, **kwargs: object) -> None:
        self.module.zero_grad()


class EngagementTrainer(SelectingTrainer):
    """
    Args:
        loss: from logits and class indices, see `losses.build_loss`.
        train_collator, eval_collator: training frames are augmented, others never.
        optimizer_name: "adam", "momentum" or "nesterov" (SGD, 0.9), whose weight decay is an L2 penalty: on all
            parameters with adam, as the CNN + LSTM reference trains, on all but biases and LayerNorms with momentum,
            much as TFLearn's regularisers, on none of a layer's biases and norms with nesterov; None: what
            TrainingArguments say.
        lr_decay: (factor, steps): the learning rate shrinks smoothly, by the factor in so many steps; None: no decay.
        mixing: of training batches.
        average_decay: of an average of the weights, which is what is evaluated, selected and left in the model after
            the training; None: no average.
        subject_adversary: trained beside the model and by its optimizer; it is in checkpoints, and in no model.
        recipe: what decides the weights, kept in each checkpoint; None: nobody goes on from these.
    """

    # Our loss is a mean over the batch; Trainer divides it by the number of accumulated batches.
    loss_is_scaled_for_ga = False
    # Trainer itself allows for others, and for none.
    model: torch.nn.Module
    train_dataset: LabelledFrames
    resumed_in: Path | None = None  # where the checkpoint lies that the training goes on from

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
        """The one asked for, with the subject adversary's weights as a further group."""
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
        """Decay by steps where a recipe asks for it, else what TrainingArguments say."""
        if self.lr_decay is None:
            return super().create_scheduler(num_training_steps, optimizer)
        factor, steps = self.lr_decay
        # TFLearn decays smoothly, although it names the steps: its staircase is off by default.
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
            NonFiniteLossError: naming the clips; Trainer itself would log 0.0 and go on with NaN weights.
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
            loss = loss + self.subject_adversary(features[0], self._subjects_of(rows), self._progress())
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._name_culprits(rows.tolist()) if model.training else self._blame_weights())
        inputs["labels"] = labels  # prediction_step looks for them again
        return (loss, outputs) if return_outputs else loss

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,  # optuna need not be there
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
        """The log as JSON holds it: a loss that overflowed must not cost the trained model."""
        log = self.state.log_history
        return [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in log]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # Trainer's own
        with self.averaged.in_use() if self.averaged is not None else nullcontext():
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object = None) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with whole_checkpoint(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)  # type: ignore[arg-type] # optuna's, whoever has it
            self.accelerator.wait_for_everyone()  # each process has written its random numbers
            if self.args.should_save:
                seal_checkpoint(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Under the names that weights have here. transformers would write those of a ViT, BEiT or Swin as its earlier
        versions called them, and Trainer, which loads a checkpoint by name, would leave such an encoder as it was."""
        if not self.args.should_save:
            return
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        folder = Path(output_dir or str(self.args.output_dir))
        model.save_pretrained(folder, state_dict=state_dict, save_original_format=False)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _issue_warnings_after_load(self, load_result: _IncompatibleKeys) -> None:
        """Raises RecipeError where Trainer would warn, and go on with an encoder that is half the checkpoint's."""
        strange = [*load_result.missing_keys, *load_result.unexpected_keys]
        if strange:
            raise RecipeError(
                f"Expected the weights of this model in the checkpoint, got {len(strange)} other names (first: "
                f"{strange[0]}); an earlier version wrote it so: train anew in another output_dir."
            )

    def _load_best_model(self) -> None:
        # Where the run's folder was moved, the path that the state holds is not there any more, and Trainer would warn
        # and keep the last weights.
        stored = Path(str(self.state.best_model_checkpoint))
        beside = [Path(str(folder)) / stored.name for folder in (self.args.output_dir, self.resumed_in) if folder]
        found = next((path for path in (*beside, stored) if path.is_dir()), None)
        if found is None:
            raise DataError(f"Expected the best checkpoint in {stored}, found none; it was there during the training.")
        self.state.best_model_checkpoint = str(found)
        super()._load_best_model()
        if self.averaged is not None and self.state.best_model_checkpoint is not None:
            self.averaged.load(Path(self.state.best_model_checkpoint))
            self.averaged.take_over()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Also the recipe, the adversary beside the optimizer that trains it, and the averaged weights."""
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

    def _subjects_of(self, rows: torch.Tensor) -> torch.Tensor:
        """(batch,) indices of the people in these training rows."""
        subjects = [self.subject_index[self.train_dataset.subject_ids[row]] for row in rows.tolist()]
        return torch.tensor(subjects, device=rows.device)

    def _progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps, 1)

    def _name_culprits(self, rows: list[int]) -> str:
        names = ", ".join(self.train_dataset.name_of(row) for row in rows[:16])
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

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """Not counted: Trainer's estimate is of tokens, and takes longer than a step on features that are kept."""
        return 0

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Trainer would write its own README over ours, which is rendered from measured results."""
