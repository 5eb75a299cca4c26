"""Trainings for the rows: one finished run, copied and broken; disks that fill up, workers that are killed."""

import atexit
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from bench import Bench, Said
from full_disk import room
from safetensors.torch import load_file

from engagement_recognition import train
from engagement_recognition.data.drawn.datasets import write_expressions
from engagement_recognition.training.arguments import Recipe, StageRun, plan_stages
from engagement_recognition.training.checkpoints import choose_checkpoint
from engagement_recognition.training.run_record import read_training_recipe
from engagement_recognition.training.trainer import EngagementTrainer
from engagement_recognition.training.training_sets import LabelledFrames

NEWEST, BEFORE = "checkpoint-4", "checkpoint-2"


@cache
def _finished() -> Path:
    """Faces, a cache, and a run of three epochs of two steps with all its checkpoints; nobody writes here."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_expressions(folder / "faces", 4, 7, seed=0, size_px=48, processes=1, show_progress=False)
    train.train(Recipe(_recipe(folder, folder / "run")), {"save_total_limit": "3"})
    return folder


def _recipe(base: Path, run_dir: Path) -> dict[str, object]:
    return {
        "encoder": "test_resnet", "image_size": 32, "num_preparation_processes": 1, "cache_dir": str(base / "cache"),
        "num_train_epochs": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "disable_tqdm": True, "seed": 0,
        "augmentation": {"flip": 0.5}, "output_dir": str(run_dir),
        "expression": {"data": str(base / "faces"), "subject_pattern": r"^\d+"},
    }  # fmt: skip


class Killed(NamedTuple):
    """A run that was killed in its third epoch: two checkpoints, no model."""

    run_dir: Path
    recipe: Path

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints/expression"

    @property
    def newest(self) -> Path:
        return self.checkpoints / NEWEST

    def planned(self, resume: str = "true", **options: str) -> StageRun:
        recipe = json.loads(self.recipe.read_text())
        (run,) = plan_stages(Recipe(recipe), {"resume_from_checkpoint": resume, **options})
        return run

    def chosen(self, resume: str = "true", **options: str) -> str:
        """The checkpoint that the training would go on from."""
        found = choose_checkpoint(self.planned(resume, **options), read_training_recipe(_whole(NEWEST)))
        return found.name if found else "none"

    def train(self, bench: Bench, *options: str) -> Said:
        return bench.command("train", self.recipe, *options)


def _whole(name: str) -> Path:
    return _finished() / "run/checkpoints/expression" / name


def new_run(folder: Path, **changes: object) -> Killed:
    """A run that has not begun."""
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps({**_recipe(_finished(), folder / "run"), **changes}))
    return Killed(folder / "run", recipe)


def killed_run(folder: Path, harm: Callable[[Path], object] = lambda checkpoint: None) -> Killed:
    """Args: harm: what is done to the newest checkpoint."""
    killed = new_run(folder)
    for name in (BEFORE, NEWEST):
        shutil.copytree(_whole(name), killed.checkpoints / name)
    harm(killed.newest)
    return killed


def as_earlier_version(checkpoint: Path) -> None:
    """Without checksums."""
    (checkpoint / "SHA256SUMS").unlink()


def best_elsewhere(checkpoint: Path) -> None:
    """Its best is the one before, in a folder that is not there any more."""
    as_earlier_version(checkpoint)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state |= {"best_model_checkpoint": f"/nowhere/run/{BEFORE}", "best_global_step": 2}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))


def cut(name: str, share: float = 0.5) -> Callable[[Path], object]:
    return lambda checkpoint: os.truncate(checkpoint / name, int((checkpoint / name).stat().st_size * share))


def flip(path: Path, at: float = 0.6) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x10
    path.write_bytes(content)


def resumed_as_straight(bench: Bench, killed: Killed, *options: str) -> Said:
    """Go on, and compare with the run that was never killed: every weight, and every measured number."""
    said = killed.train(bench, *(options or ("--resume_from_checkpoint", "true")))
    resumed, straight = killed.run_dir / "expression", _finished() / "run/expression"
    assert said.code == 0, said
    weights, expected = (load_file(folder / "model.safetensors") for folder in (resumed, straight))
    assert all(torch.equal(weights[name], expected[name]) for name in expected), said
    measured, numbers = (json.loads((folder / "results.json").read_text()) for folder in (resumed, straight))
    assert measured["measurements"] == numbers["measurements"]
    return said


@contextmanager
def full_disk(limit_bytes: int, from_step: int) -> Iterator[None]:
    """No file may grow beyond the limit once that step is done; 100 000: none of the weights fit."""
    step = EngagementTrainer.training_step
    with room() as limit, pytest.MonkeyPatch.context() as patch:

        def filling(self: EngagementTrainer, *arguments: object) -> torch.Tensor:
            if self.state.global_step >= from_step:
                limit(limit_bytes)
            return step(self, *arguments)

        patch.setattr(EngagementTrainer, "training_step", filling)
        yield


def fill_up(bench: Bench, killed: Killed, limit_bytes: int, from_step: int) -> Said:
    """Train until the disk is full, look that the checkpoint before is whole, and go on when there is room."""
    with full_disk(limit_bytes, from_step):
        said = killed.train(bench)
    if said.code:
        assert not (killed.run_dir / "expression").exists(), said
        resumed_as_straight(bench, killed)
    return said


def fill_at_export(bench: Bench, killed: Killed) -> Said:
    """As `fill_up`, once all is trained and saved but the model."""
    export_model = train.export_model
    with room() as limit, pytest.MonkeyPatch.context() as patch:

        def filling(*arguments: object) -> object:
            limit(100_000)
            return export_model(*arguments)

        patch.setattr(train, "export_model", filling)
        said = killed.train(bench, "--resume_from_checkpoint", "true")
    resumed_as_straight(bench, killed)
    return said


@contextmanager
def deadly_workers() -> Iterator[None]:
    """A loader's worker is killed at its first batch, as the kernel does where memory is short."""
    get = LabelledFrames.__getitems__

    def killing(self: LabelledFrames, rows: list[int]) -> list[object]:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return get(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelledFrames, "__getitems__", killing)
        yield


def copied_data(folder: Path) -> Path:
    """Prepared faces of their own."""
    (cached,) = (path for path in (_finished() / "cache").iterdir() if path.is_dir())
    return Path(shutil.copytree(cached, folder / "data"))
