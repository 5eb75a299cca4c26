"""Trainings that are stopped, resumed, doubled."""

import os
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bench import Bench, Said
from fake_device import fake_cuda
from forked import exit_code_of, in_a_fork
from rows import Comes, Refused, Row
from trainings import (
    BEFORE,
    NEWEST,
    Killed,
    copied_data,
    deadly_workers,
    fill_at_export,
    fill_up,
    flip,
    killed_run,
    new_run,
    resumed_as_straight,
)

from engagement_recognition.data.locked_folder import alone_in
from engagement_recognition.data.worker_processes import spawned
from engagement_recognition.training.arguments import Recipe, plan_stages
from engagement_recognition.training.processes import by_the_first, use_one_gpu
from engagement_recognition.training.stage_data import open_stage_data

# --- 34: options without sense, told before data is prepared


def _told_before_work(bench: Bench, killed: Killed, *options: str) -> Said:
    cache = killed.run_dir.parent / "cache"
    said = killed.train(bench, *options, "--cache_dir", str(cache))
    assert not cache.exists() and not killed.run_dir.exists(), said
    return said


_SENSELESS = {
    "learning rate nan": ("learning_rate", "nan"),
    "learning rate 0": ("learning_rate", "0"),
    "learning rate infinite": ("learning_rate", "inf"),
    "batch size 0": ("per_device_train_batch_size", "0"),
    "evaluation batch size -1": ("per_device_eval_batch_size", "-1"),
    "seed -1": ("seed", "-1"),
    "seed beyond numpy's": ("seed", "4294967296"),
    "gradient accumulation 0": ("gradient_accumulation_steps", "0"),
    "epochs nan": ("num_train_epochs", "nan"),
    "epochs 0": ("num_train_epochs", "0"),
    "max steps 0": ("max_steps", "0"),
    "warmup nan": ("warmup_steps", "nan"),
    "weight decay -1": ("weight_decay", "-1"),
    "metric of nobody": ("metric_for_best_model", "f1_micro"),
    "label smoothing 2": ("label_smoothing", "2"),
    "head of nobody": ("temporal", "gru"),
    "loss of nobody": ("loss", "hinge"),
    "dropout 1": ("dropout", "1"),
    "three views": ("test_time_views", "3"),
    "deviation 0": ("image_std", "[0.5, 0, 0.5]"),
    "fp16 on the CPU": ("fp16", "true"),
    "optimizer of nobody": ("optim", "adamw_tensorflow"),
    "tracker of nobody": ("report_to", "notepad"),
    "columns removed": ("remove_unused_columns", "true"),
    "workers -1": ("dataloader_num_workers", "-1"),
}
_OPTIONS = [
    Row(
        f"option: {name}",
        new_run,
        lambda bench, run, option=option, value=value: _told_before_work(bench, run, f"--{option}", value),
        Refused((option,)),
        kind=34,
    )
    for name, (option, value) in _SENSELESS.items()
]


# --- 38: one folder, one run


def _while_another_trains(bench: Bench, killed: Killed) -> Said:
    killed.run_dir.mkdir(exist_ok=True)
    with alone_in(killed.run_dir, "training"):
        return killed.train(bench)


def _output_below_a_file(folder: Path) -> Killed:
    (folder / "file").write_text("no folder")
    return new_run(folder, output_dir=str(folder / "file/run"))


_FOLDERS = [
    Row(
        "two trainings in one folder",
        new_run,
        _while_another_trains,
        Refused(("/run", "nother training", "choose another folder")),
        kind=38,
    ),
    Row(
        "the lock of a killed run is no lock",
        lambda folder: (folder / "run.lock").write_text("4711") and killed_run(folder),
        resumed_as_straight,
        Comes(),
        kind=38,
    ),
    Row(
        "output folder below a file",
        _output_below_a_file,
        lambda bench, killed: _told_before_work(bench, killed),
        Refused(("file", "choose another place")),
        kind=32,
    ),
    Row(
        "output folder where nobody can write",
        lambda folder: new_run(folder, output_dir="/proc/run"),
        lambda bench, killed: _told_before_work(bench, killed),
        Refused(("/proc/run", "choose another place")),
        kind=32,
    ),
    Row(
        "disk full while weights of a checkpoint are written",
        new_run,
        lambda bench, killed: fill_up(bench, killed, 100_000, 2),
        Refused((NEWEST, "File too large", f"{BEFORE} stays whole", "--resume_from_checkpoint true")),
        kind=32,
    ),
    Row(
        "disk full while the optimizer of a checkpoint is written",
        new_run,
        lambda bench, killed: fill_up(bench, killed, 2_000_000, 2),
        Refused((NEWEST, f"{BEFORE} stays whole", "--resume_from_checkpoint true")),
        kind=32,
    ),
    Row(
        "disk full while the model is written",
        killed_run,
        lambda bench, killed: fill_at_export(bench, killed),
        Refused(("run/expression", "File too large", "--resume_from_checkpoint true")),
        kind=32,
    ),
]  # fmt: skip


# --- 13, 41, 43: what the machine does


def _flipped(folder: Path, keep_checksums: bool = True) -> Path:
    data = copied_data(folder)
    flip(next((data / "train").glob("*.arrow")), 0.5)
    if not keep_checksums:
        (data / "SHA256SUMS").unlink()
    return data


def _flip_the_cache(folder: Path) -> Killed:
    """A run with a cache of its own, in which a bit has flipped."""
    killed = new_run(folder, cache_dir=str(folder / "cache"))
    prepared = open_stage_data(killed.planned())
    flip(next((prepared.folder / "train").glob("*.arrow")), 0.5)
    return killed


def _two_gpus(folder: Path) -> int:
    with fake_cuda(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "set_device", lambda device: None)
        (run,) = plan_stages(Recipe({"engagement": {"data": "clips"}, "output_dir": str(folder)}), {})
        assert run.training.n_gpu == 2
        use_one_gpu(run.training)
        return run.training.n_gpu


def _a_killed_worker() -> object:
    with spawned(os._exit, [9], 1, os.getpid) as futures:
        return futures[0].result()


def _with_deadly_workers(bench: Bench, killed: Killed) -> Said:
    with deadly_workers():
        return killed.train(bench, "--dataloader_num_workers", "1")


def _waits_longer_than_the_groups_patience(bench: Bench, folder: Path) -> list[str]:
    def take_part(number: int) -> None:
        meeting = f"file://{folder / 'meeting'}"
        torch.distributed.init_process_group("gloo", meeting, timedelta(seconds=1), rank=number, world_size=2)
        training = SimpleNamespace(world_size=2, process_index=number, local_process_index=number)
        print(by_the_first(training, lambda: time.sleep(2) or "prepared"))

    said = [folder / "0.txt", folder / "1.txt"]
    both = [in_a_fork(partial(take_part, number), file) for number, file in enumerate(said)]
    assert [exit_code_of(fork) for fork in both] == [0, 0], [file.read_text() for file in said]
    return [file.read_text().strip() for file in said]


_MACHINE = [
    Row("one of two prepares for longer than the group has patience", lambda folder: folder,
        _waits_longer_than_the_groups_patience, Comes(that=lambda said: said == ["prepared"] * 2), kind=42),
    Row(
        "a bit flipped in prepared data",
        _flipped,
        lambda bench, data: bench.command("train", "--expression_data", data, "--encoder", "test_resnet"),
        Refused(("train/data-00000-of-00001.arrow", "prepare it again")),
        kind=13,
    ),
    Row(
        "a bit flipped in prepared data of an earlier version",
        lambda folder: _flipped(folder, keep_checksums=False),
        lambda bench, data: bench.command("train", "--expression_data", data, "--encoder", "test_resnet"),
        Refused(("/data is damaged", "pixels of train/happy/", "prepare it again")),
        kind=13,
    ),
    Row(
        "a bit flipped in the cache",
        _flip_the_cache,
        resumed_as_straight,
        Comes(says=("prepared again", "changed since")),
        kind=13,
    ),
    Row("two GPUs and one process", lambda folder: folder, lambda bench, folder: _two_gpus(folder),
        Comes(that=lambda n_gpu: n_gpu == 1), kind=41),
    Row("a killed worker of a preparation", lambda folder: folder, lambda bench, folder: _a_killed_worker(),
        Refused(("worker", "killed", "fewer processes")), kind=43),
    Row("a killed worker of a loader", new_run, _with_deadly_workers,
        Refused(("worker", "killed", "--dataloader_num_workers")), kind=43),
]  # fmt: skip

ROWS = [*_OPTIONS, *_FOLDERS, *_MACHINE]
