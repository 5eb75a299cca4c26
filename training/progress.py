"""Progress of a training: one line per epoch, and a progress bar on a terminal.

Trainer itself prints each row of its log as a dictionary; all rows are in `results.json`.
"""

import sys
import time

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy


class EpochLines(ProgressCallback):
    """One line per evaluation: epoch, loss, the score that selects checkpoints, time left; if losses are logged more
    often, also one line per logged loss.

    Args:
        stage: printed at the start of each line.
        has_bar: also show Trainer's own progress bar.
    """

    def __init__(self, stage: str, has_bar: bool) -> None:
        super().__init__()
        self.stage, self.has_bar = stage, has_bar
        self.loss: float | None = None  # logged, and not printed yet
        self.began = 0.0
        self.first_step = 0  # above 0 in a resumed training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.loss, self.began, self.first_step = None, time.monotonic(), state.global_step
        if self.has_bar:
            super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.has_bar:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: object = None,
        **kwargs: object,
    ) -> None:
        if self.has_bar:
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        self.loss = logs["loss"]
        is_evaluated_next = args.eval_strategy == args.logging_strategy == IntervalStrategy.EPOCH
        if not is_evaluated_next:
            self._say(args, state, [])

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        super().on_evaluate(args, state, control, **kwargs)
        metrics, score = metrics or {}, args.metric_for_best_model or "loss"
        score = "macro_f1" if score == "loss" else score  # the loss is printed anyway
        told = []
        if f"eval_{score}" in metrics:
            told.append(f"{score} {metrics[f'eval_{score}']:.3f}")
        if "eval_loss" in metrics:
            told.append(f"loss {metrics['eval_loss']:.3f}")
        self._say(args, state, told)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.has_bar:
            super().on_train_end(args, state, control, **kwargs)

    def _say(self, args: TrainingArguments, state: TrainerState, on_validation: list[str]) -> None:
        if not state.is_world_process_zero:
            return
        parts = [] if self.loss is None else [f"loss {self.loss:.3f}"]
        parts += [f"validation {', '.join(on_validation)}"] if on_validation else []
        self.loss = None
        line = f"{self.stage}, epoch {state.epoch or 0:.3g} of {args.num_train_epochs:.3g}: {'; '.join(parts)}"
        steps, num_left = state.global_step - self.first_step, state.max_steps - state.global_step
        if steps > 0 and num_left > 0:
            line += f"; {in_words((time.monotonic() - self.began) / steps * num_left)} left"
        if self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)


def in_words(seconds: float) -> str:
    """A duration such as `40 s`, `3 min` or `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def tell_epochs(trainer: Trainer, stage: str) -> None:
    """Print lines instead of Trainer's dictionaries; a bar only on a terminal, and not with `disable_tqdm`.

    In a notebook, Trainer's own table is kept.
    """
    wants_bar = trainer.pop_callback(ProgressCallback) is not None
    if wants_bar or trainer.pop_callback(PrinterCallback) is not None:
        trainer.add_callback(EpochLines(stage, wants_bar and sys.stderr.isatty()))
