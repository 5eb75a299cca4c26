"""A training leaves the cores of other programs alone; threads are kept; what else the machine decides."""

import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engagement_recognition import train
from engagement_recognition.training import free_cores, machine, step_times
from engagement_recognition.training.arguments import Recipe, plan_stages
from engagement_recognition.training.free_cores import CpuTimes, FreeCores, cores_of_others, look
from engagement_recognition.training.run_record import read_training_recipe


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a machine of two cores, each of which is looked at whenever it is asked for."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(free_cores, "usable_cpus", lambda: 2)
    monkeypatch.setattr(free_cores, "_LOOK_SEC", 0)
    monkeypatch.setattr(free_cores, "_AGAIN_SEC", 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


class Machine:
    """Looked at once a second; `others` is how many of its two cores other programs use, `ours` how many we do."""

    def __init__(self, others: float, ours: float = 0.0) -> None:
        self.others, self.ours, self.found = others, ours, CpuTimes(0.0, 0.0, 0.0, 2)

    def __call__(self) -> CpuTimes:
        at, of_all, of_ours, num_cores = self.found
        self.found = CpuTimes(at + 1, of_all + self.others + self.ours, of_ours + self.ours, num_cores)
        return self.found


@pytest.mark.parametrize(("others", "threads"), [(0.0, 2), (0.2, 2), (0.7, 1), (1.0, 1), (2.0, 1)])
def test_a_training_starts_with_as_many_threads_as_there_are_free_cores(
    others: float, threads: int, capsys: pytest.CaptureFixture
):
    FreeCores("engagement", watch=Machine(others))
    assert torch.get_num_threads() == threads
    said = capsys.readouterr().out
    assert said.count("\n") == (threads < 2) and (threads == 2 or f"other programs use {others:.1f} of 2 cores" in said)


def test_a_core_that_gets_busy_is_left_and_one_that_stays_free_taken_again(capsys: pytest.CaptureFixture):
    machine = Machine(0.0)
    cores = FreeCores("engagement", watch=machine)
    machine.ours = 2.0  # what a training itself uses is nobody else's
    cores.on_step_end()
    assert torch.get_num_threads() == 2
    machine.others, machine.ours = 0.7, 1.3  # three threads share two cores
    cores.on_step_end()
    assert torch.get_num_threads() == 1
    machine.others, machine.ours = 0.0, 1.0
    cores.on_step_end(), cores.on_step_end()
    assert torch.get_num_threads() == 1  # a pause of the other program is no reason
    cores.on_step_end()
    assert torch.get_num_threads() == 2
    assert [line.split("; ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "continuing with 1 thread, not 2", "continuing with 2 threads, not 1",
    ]  # fmt: skip


def compute() -> None:
    while time.process_time() < 0.3:
        pass


def test_what_our_children_compute_is_ours():
    before = look()
    child = get_context("fork").Process(target=compute)
    child.start(), child.join()
    now = look()
    assert now.of_ours - before.of_ours >= 0.29 and now.of_all - before.of_all >= 0.2  # counted in ticks
    assert cores_of_others(before, now) * (now.at - before.at) <= now.of_all - before.of_all - 0.25


def test_threads_are_kept_in_checkpoints_and_gone_on_with(
    tiny_recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, machine = [], Machine(1.0)
    monkeypatch.setattr(
        free_cores, "FreeCores", lambda stage, kept: seen.append(kept) or FreeCores(stage, kept, machine)
    )
    options = tiny_recipe | {"expression": {}, "output_dir": str(tmp_path), "num_train_epochs": 1}
    train.train(Recipe(options), {})
    (checkpoint,) = (tmp_path / "checkpoints/engagement").glob("checkpoint-*")
    assert read_training_recipe(checkpoint).threads == 1
    assert torch.get_num_threads() == 2  # the next stage looks for itself
    machine.others = 0.0
    train.train(Recipe(options), {"resume_from_checkpoint": "true"})
    assert seen == [None, 1]


def test_a_number_of_threads_that_a_user_set_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(free_cores, "FreeCores", None)  # a call would be a TypeError
    (run,) = plan_stages(Recipe({"engagement": {"data": "clips", "use_cpu": True}}), {})
    with free_cores.free_cores(run, None) as cores:
        assert cores is None and torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("has_gpu", "free_bytes", "trainings", "expected"),
    [(False, 2**36, 1, 0), (True, 2**36, 1, 8), (True, 2**36, 4, 3), (True, 2**26, 1, 0)],
)
def test_a_gpu_has_batches_made_by_workers_where_these_can_hand_them_on(
    has_gpu: bool, free_bytes: int, trainings: int, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(machine, "usable_cpus", lambda: 16)
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free_bytes))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(trainings))
    assert machine.loader_workers() == expected


@pytest.mark.parametrize(
    ("has_amx", "asked", "expected"), [(True, "auto", True), (False, "auto", False), (True, False, False)]
)
def test_bf16_is_taken_where_the_processor_has_it(
    has_amx: bool, asked: object, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_amx, "avx512_bf16": True})
    (run,) = plan_stages(Recipe({"engagement": {"data": "clips", "bf16": asked}}), {})
    assert run.training.bf16 is expected and run.training.dataloader_num_workers == 0


def test_loading_is_a_share_of_the_steps_and_much_of_it_is_said(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 4.0, 4.0, 4.0, 10.0])
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: next(clock))
    times = step_times.StepTimes()
    assert times.loading_share() is None and times.advice(0) is None
    for _ in range(2):
        with times.waiting():
            pass
        times.on_step_end()
    assert times.loading_share() == 0.1  # 1 s of 10
    advice = times.advice(2)
    assert advice.startswith("10% of the ") and advice.endswith("waiting for pictures, with --dataloader_num_workers 2")
    times.computing = 99.0
    assert times.advice(2) is None
