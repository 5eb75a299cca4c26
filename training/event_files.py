"""TensorBoard's event files, in `RUN/tensorboard/STAGE`; those of a fold in the fold's folder.

Trainer would put them among the checkpoints, in a folder named after the time and the machine.
"""

from pathlib import Path

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from .arguments import StageRun


class EventFiles(TensorBoardCallback):
    """Trainer's own callback, writing to `folder` unless TENSORBOARD_LOGGING_DIR is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.logging_dir = self.logging_dir or str(folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.is_world_process_zero:
            # TensorBoard drops what a killed training wrote after the checkpoint that this one resumes from.
            purged = state.global_step + 1 if state.global_step else 0
            self.tb_writer = self._SummaryWriter(log_dir=self.logging_dir, purge_step=purged)
        super().on_train_begin(args, state, control, **kwargs)


def keep_events_in_run(trainer: Trainer, run: StageRun) -> None:
    """Move the event files into the run's folder, if the run reports to TensorBoard."""
    if trainer.pop_callback(TensorBoardCallback) is not None:
        trainer.add_callback(EventFiles(run.run_dir / "tensorboard" / run.name))
