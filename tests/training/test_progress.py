"""What a training prints: a line an epoch, and a bar on a terminal alone."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from engagement_recognition import train
from engagement_recognition.training.arguments import Recipe
from engagement_recognition.training.progress import EpochLines, in_words, tell_epochs


class OneWeight(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = x * self.weight
        return {"loss": (logits - labels).square().mean(), "logits": logits}


def lines_of_a_training(folder: Path, capfd: pytest.CaptureFixture, **options: object) -> tuple[list[str], str]:
    """What three epochs of two steps print on stdout, and on stderr."""
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)} for _ in range(4)]
    defaults = {"num_train_epochs": 3, "eval_strategy": "epoch", "logging_strategy": "epoch", "report_to": "none"}
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=2, use_cpu=True, save_strategy="no", **{**defaults, **options}
    )
    trainer = Trainer(
        model=OneWeight(), args=arguments, train_dataset=rows, eval_dataset=rows,
        compute_metrics=lambda found: {"macro_f1": 0.5},
    )  # fmt: skip
    tell_epochs(trainer, "expression")
    capfd.readouterr()
    trainer.train()
    printed = capfd.readouterr()
    return printed.out.splitlines(), printed.err


def test_an_epoch_is_a_line_with_the_score_that_is_gone_by(tmp_path: Path, capfd: pytest.CaptureFixture):
    lines, errors = lines_of_a_training(tmp_path, capfd, metric_for_best_model="macro_f1")
    assert len(lines) == 3 and "it/s" not in errors
    assert lines[0].startswith("expression, epoch 1 of 3: loss 1.000; ") and "macro_f1 0.500, loss " in lines[0]
    assert lines[0].endswith(" s left") and lines[1].endswith(" s left") and "left" not in lines[2]


def test_a_recipe_prints_lines_and_no_dictionaries(
    tiny_recipe: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture
):
    capfd.readouterr()
    train.train(Recipe({**tiny_recipe, "output_dir": str(tmp_path), "disable_tqdm": False}), {})
    out, err = capfd.readouterr()
    epochs = [line.partition(":")[0] for line in out.splitlines() if ", epoch " in line]
    assert epochs == [f"{stage}, epoch {n} of 2" for stage in ("expression", "engagement") for n in (1, 2)]
    assert "{'" not in out and "it/s" not in err and "shards" not in err


def test_losses_between_evaluations_are_lines_too(tmp_path: Path, capfd: pytest.CaptureFixture):
    lines, _ = lines_of_a_training(tmp_path, capfd, logging_strategy="steps", logging_steps=1, num_train_epochs=1)
    assert [line.partition(";")[0] for line in lines[:2]] == [
        "expression, epoch 0.5 of 1: loss 1.000", "expression, epoch 1 of 1: loss 1.000",
    ]  # fmt: skip
    assert len(lines) == 3 and lines[2].startswith("expression, epoch 1 of 1: validation macro_f1 0.500")


def test_without_evaluations_the_loss_alone_is_told(tmp_path: Path, capfd: pytest.CaptureFixture):
    lines, _ = lines_of_a_training(tmp_path, capfd, eval_strategy=IntervalStrategy.NO)
    assert len(lines) == 3 and all("validation" not in line for line in lines)


@pytest.mark.parametrize(("options", "has_bar"), [({}, True), ({"disable_tqdm": True}, False)])
def test_a_terminal_has_a_bar_unless_it_is_disabled(
    options: dict[str, bool], has_bar: bool, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    lines, errors = lines_of_a_training(tmp_path, capfd, **options)
    assert ("6/6" in errors) == has_bar
    assert sum(line.startswith("expression, epoch ") for line in lines) == 3


def test_a_callback_of_a_notebook_stays(tmp_path: Path):
    trainer = Trainer(model=OneWeight(), args=TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    trainer.callback_handler.callbacks.clear()
    tell_epochs(trainer, "expression")
    assert not any(isinstance(callback, EpochLines) for callback in trainer.callback_handler.callbacks)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (95, "2 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_times_are_told_in_two_numbers_at_most(seconds: float, words: str):
    assert in_words(seconds) == words
