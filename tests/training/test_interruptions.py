"""Ctrl-C and SIGTERM, wherever they come: one line with the command that goes on, and a shell's exit code."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import TrainedStages
from stopped_trainings import stop_in

from engagement_recognition import train
from engagement_recognition.training.interruptions import Terminated, TrainingInterrupted, how_to_go_on


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def typed(trained: TrainedStages, tmp_path: Path) -> list[str]:
    """Stage two alone, in a folder whose name has to be quoted."""
    (tmp_path / "recipe.json").write_text(json.dumps(trained.recipe | {"expression": {}}))
    return [str(tmp_path / "recipe.json"), "--output_dir", str(tmp_path / "a run")]


def said_of(options: list[str], capfd: pytest.CaptureFixture) -> tuple[int, str]:
    """Exit code, and the one line on stderr that says why."""
    capfd.readouterr()
    code = train.main(options)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("stopped")]
    return code, line


def test_sigterm_before_the_first_checkpoint_begins_again_and_after_it_goes_on(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        stop_in(patch, 1, partial(os.kill, os.getpid(), signal.SIGTERM))
        code, line = said_of(typed, capfd)
    assert code == 143 and "SIGTERM" in line and "no checkpoint" in line and "prepared data is kept" in line
    assert line.endswith(f" with {shlex.join(['engagement', 'train', *typed])}")
    with monkeypatch.context() as patch:
        stop_in(patch, 4, partial(os.kill, os.getpid(), signal.SIGTERM))
        code, line = said_of(typed, capfd)
    assert code == 143 and "checkpoints" in line and "are kept" in line
    words = shlex.split(line.partition("resume with engagement train ")[2])
    assert words == [*typed, "--resume_from_checkpoint", "true"]
    # Of another training: what lies there now was not written by the one that is stopped.
    with monkeypatch.context() as patch:
        stop_in(patch, 1, partial(os.kill, os.getpid(), signal.SIGINT))
        code, line = said_of(typed, capfd)
    assert code == 130 and "Ctrl-C" in line and "no checkpoint" in line
    assert train.main(words) == 0 and (tmp_path / "a run/engagement/results.json").is_file()
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(
    ("place", "resumes"),
    [
        ("train.read_recipe", False),
        ("train.load_stage_data", False),
        ("training.trainer.EngagementTrainer.predict", True),
        ("train.export_model", True),
    ],
)
def test_ctrl_c_is_one_line_wherever_it_comes(
    place: str, resumes: bool, typed: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    def stopped(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(f"engagement_recognition.{place}", stopped)
    code, line = said_of(typed, capfd)
    assert code == 130 and ("resume with" in line) == resumes


def test_the_command_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch):
    stop = TrainingInterrupted(Terminated(), goes_on=True)
    resumed = ["--engagement_resume_from_checkpoint", "runs/x/checkpoint-5", "--resume-from-checkpoint"]
    line = how_to_go_on(stop, ["my recipe.yaml", *resumed, "--seed=3", "--bf16"])
    assert line.endswith("engagement train 'my recipe.yaml' --seed=3 --bf16 --resume_from_checkpoint true")
    monkeypatch.setattr(sys, "argv", ["sub/train.py", "demo"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-u", "sub/train.py", "demo"])
    assert how_to_go_on(KeyboardInterrupt(), None).endswith("start again with python3 -u sub/train.py demo")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "launch command and python3 -u sub/train.py demo" in how_to_go_on(stop, None)
