"""Trainings that are killed, alone and as several processes: the rerun ends as if nothing had been."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TrainedStages
from places import ROOT
from stages import engagement_alone, results_of

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def kill_at(folder: Path, seed: int, *kinds: str) -> str:
    """The last line of `killed_trainings`."""
    command = [sys.executable, str(ROOT / "tests/helpers/killed_trainings.py"), str(folder), str(seed), *kinds]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout.splitlines()[-1]


def test_two_kills_in_a_step_and_in_a_save_change_nothing(tmp_path: Path):
    assert kill_at(tmp_path, 0, "step=1", "save=1") == "moments 2, killed 2, equal 2"


@pytest.mark.slow
def test_twenty_two_kills_change_nothing(tmp_path: Path):
    line = kill_at(tmp_path, 1, "step=9", "save=7", "export=2", "preparation=4")
    assert line.startswith("moments 22, ") and line.endswith("equal 22")
    assert int(line.split("killed ")[1].split(",")[0]) >= 20  # a few come too late, when all is done


# --- Several processes


def launch(recipe: Path, *options: str, program: Path = ROOT / "train.py", **more: str) -> subprocess.Popen:
    """Two processes as `accelerate launch` starts them on GPUs: on a CPU it starts one, unless there is MPI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    # A session of its own, so that a kill reaches the launcher and its processes, and nobody else.
    return subprocess.Popen(
        [*launcher, "--master_port", str(port), str(program), str(recipe), *options],
        env={**ENVIRONMENT, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(started: subprocess.Popen, fails: bool = False) -> str:
    """What it said until its end, which comes within minutes."""
    try:
        said = started.communicate(timeout=300)[0]
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        raise
    assert (started.returncode != 0) == fails, said[-3000:]
    return said


def recipe_for_two(trained: TrainedStages, run: Path, **changes: object) -> Path:
    recipe = engagement_alone(trained, run) | {"num_train_epochs": 4, "per_device_train_batch_size": 2, **changes}
    path = run.with_suffix(".json")
    path.write_text(json.dumps(recipe))
    return path


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_with_equal_weights_and_scores(trained: TrainedStages, tmp_path: Path):
    calm, killed = (recipe_for_two(trained, tmp_path / name) for name in ("calm", "killed"))
    finish(launch(calm))
    started = launch(killed)
    while not list((tmp_path / "killed/checkpoints/engagement").glob("checkpoint-*/SHA256SUMS")):
        assert started.poll() is None
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    (checkpoint, *_) = (tmp_path / "killed/checkpoints/engagement").glob("checkpoint-*")
    assert {path.name for path in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert not (tmp_path / "killed/engagement").exists()
    finish(launch(killed, "--resume_from_checkpoint", "true"))
    first, second = (results_of(tmp_path / name / "engagement")["measurements"] for name in ("calm", "killed"))
    assert first == second and first[0]["evaluation"]["scores"]["num_examples"] == 3
    weights = [(tmp_path / name / "engagement/model.safetensors").read_bytes() for name in ("calm", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_evaluate_as_many_examples_as_one(trained: TrainedStages, tmp_path: Path):
    finish(launch(recipe_for_two(trained, tmp_path / "run", num_train_epochs=1)))
    together, alone = map(results_of, (tmp_path / "run/engagement", trained.engagement))
    assert together["measurements"][0]["evaluation"]["scores"]["num_examples"] == 3
    assert together["data"] == alone["data"]
    evaluated = [entry["eval_num_examples"] for entry in together["training"]["log"] if "eval_loss" in entry]
    assert evaluated == [3]


SLOW_FIRST = """
import os, sys, time
from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.train import main
from engagement_recognition.training import stage_data

work = stage_data.open_or_prepare

def prepare_for_long(options):
    if os.environ["LOCAL_RANK"] == "0":
        time.sleep(20)
        if "FAILS" in os.environ:
            raise DataError("Expected a disk at data, got none; mount it.")
    return work(options)

stage_data.open_or_prepare = prepare_for_long
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_others_wait_longer_than_torch_does_and_end_with_the_first(fails: bool, trained: TrainedStages, tmp_path: Path):
    # Its own barrier gives up after `ddp_timeout`, and the run would end while the first process prepares.
    program = tmp_path / "train_slowly.py"
    program.write_text(SLOW_FIRST)
    recipe = recipe_for_two(trained, tmp_path / "run", num_train_epochs=1, ddp_timeout=8)
    said = finish(launch(recipe, program=program, **({"FAILS": "1"} if fails else {})), fails)
    errors = [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]
    assert len(errors) == (2 if fails else 0), said[-3000:]
    assert all("mount it" in line for line in errors) and any("process 0" in line.lower() for line in errors) == fails
