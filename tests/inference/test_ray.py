"""Predictions and preparations by a Ray cluster: the same tables and data sets, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import Command

from engagement_recognition.data import required_packages
from engagement_recognition.inference.ray_predict import answers_in_order
from engagement_recognition.processor.input_errors import DataError

NUM_FILES = 40
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def clips(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawn clip under many names, one of which says something else, and a file that is none."""
    folder = tmp_path_factory.mktemp("clips #1")  # no URL of that name would do
    clip = min(drawn_daisee.rglob("*.avi"))
    for number in range(NUM_FILES - 1):
        (folder / f"{number:03}.avi").symlink_to(clip)
    (folder / "broken.mp4").write_text("not a video\n" * 100)
    return folder


def command_of(*arguments: object) -> list[str]:
    program = "from engagement_recognition.data.preparation import prepare; prepare.CLIPS_PER_PART['video'] = 4; "
    program += "from engagement_recognition.cli.main import main; main()"
    return [sys.executable, "-c", program, *map(str, arguments)]


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command, in a session of its own."""
    run = subprocess.Popen(
        command_of(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def wait_for(what: Callable[[], object], run: subprocess.Popen[str], seconds: float = 400) -> object:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def actors_below(pid: int) -> list[int]:
    """Processes of actors that answer files, among those that a command started."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, said = (folder / "stat").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        found += [int(folder.name)] if said.startswith("ray::MapWorker(MapBatches(_Answerer))") else []
    return [actor for actor in found if is_below(pid, actor, parents)]


def is_below(pid: int, child: int, parents: dict[int, int]) -> bool:
    while child and child != pid:
        child = parents.get(child, 0)
    return child == pid


def committed(output: Path) -> list[Path]:
    """Checkpoints of answers that are written."""
    found = (output.with_name(f"{output.name}.ray") / "checkpoint").glob("*.parquet")
    return [path for path in found if ".pending" not in path.name]


def require_same(output: Path, expected: Path) -> None:
    found, same = (pyarrow.parquet.read_table(path) for path in (output, expected))
    assert found.schema == same.schema and found["source"] == same["source"]
    for row, other in zip(found.to_pylist(), same.to_pylist(), strict=True):
        assert row == pytest.approx(other, abs=1e-5)


@pytest.fixture(scope="module")
def expected(clips: Path) -> Path:
    """What one machine without Ray answers."""
    table = clips.parent / f"{clips.name}.parquet"
    said = subprocess.run(command_of("predict", clips, "--output", table), env=ENVIRONMENT, capture_output=True)
    assert said.returncode == 1 and pyarrow.parquet.read_table(table).num_rows == NUM_FILES
    return table


needs_ray = pytest.mark.skipif(
    required_packages.installed_version("ray") is None, reason="needs the extra ray, which this Python may not have"
)
needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")


@needs_ray
@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_is_killed_loses_no_row_and_doubles_none(clips: Path, expected: Path, tmp_path: Path):
    output = tmp_path / "answers.parquet"
    with running("predict", clips, "--output", output, "--engine", "ray", "--workers", "2") as run:
        wait_for(lambda: committed(output), run)
        killed = wait_for(lambda: actors_below(run.pid), run)
        os.kill(killed[0], signal.SIGKILL)
        assert output.with_name(f"{output.name}.ray").is_dir()  # in the middle
        _, said = run.communicate(timeout=600)
    assert run.returncode == 1 and said.splitlines()[-1].endswith("40 files, 1 of them refused"), said
    require_same(output, expected)
    assert list(tmp_path.iterdir()) == [output]


@needs_ray
@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_command_goes_on_after_a_kill(clips: Path, expected: Path, tmp_path: Path):
    output = tmp_path / "answers.parquet"
    command = ("predict", clips, "--output", output, "--engine", "ray", "--workers", "2")
    with running(*command) as run:
        wait_for(lambda: len(committed(output)) > 2, run)
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_for_the_end_of(run.pid)
    before = {path: path.stat().st_mtime_ns for path in committed(output)}
    other = subprocess.run(
        command_of(*command, "--abstain-below", "0.9"), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert other.returncode == 2 and "got others; name another file" in other.stderr.splitlines()[-1]
    with running(*command) as run:
        wait_for(lambda: len(committed(output)) > len(before), run)
        assert {path: path.stat().st_mtime_ns for path in before} == before  # none is done again
        _, said = run.communicate(timeout=600)
    assert run.returncode == 1, said
    require_same(output, expected)


def wait_for_the_end_of(pid: int) -> None:
    """Of what a killed command leaves behind, which ends by itself."""
    until = time.monotonic() + 60
    while time.monotonic() < until and any(
        int(stat.rpartition(")")[2].split()[3]) == pid for stat in map(read_or_nothing, Path("/proc").glob("[0-9]*"))
        if stat
    ):  # fmt: skip
        time.sleep(0.1)


def read_or_nothing(folder: Path) -> str:
    try:
        return (folder / "stat").read_text()
    except OSError:
        return ""


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prepared_data_are_those_of_one_machine(drawn_daisee: Path, tmp_path: Path):
    from engagement_recognition.data.preparation.prepared_data import load_prepared

    folders = {name: tmp_path / name for name in ("processes", "ray")}
    for engine, folder in folders.items():
        arguments = ("prepare", "daisee", drawn_daisee, "--output", folder, "--engine", engine, "--processes", 2)
        said = subprocess.run(command_of(*arguments), env=ENVIRONMENT, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
    first, other = (load_prepared(folder) for folder in folders.values())
    assert other.fingerprint == first.fingerprint and other.description.outputs == first.description.outputs


def test_answers_comeanswers_in_order_and_once(tmp_path: Path):
    ids = np.array([5, -3, 9, 2**62, 7], np.int64)
    told = {5: "a", -3: "b", 9: "c", 2**62: "d", 7: "e", 11: "asked for no more"}
    for number, found in enumerate(([9, 2**62], [5, -3], [11], [7, 9])):  # one is written twice
        table = pyarrow.table({"id": found, "answer": [told[one] for one in found]})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    assert list(answers_in_order(tmp_path, ids)) == [b"a", b"b", b"c", b"d", b"e", b"asked for no more"]
    (tmp_path / "1.parquet").unlink()
    with pytest.raises(DataError, match=r"one is missing; delete .*, begin anew"):
        list(answers_in_order(tmp_path, ids))


@needs_ray
def test_an_address_where_nobody_answers_is_one_line(engagement: Command, tmp_path: Path):
    (tmp_path / "clip.mp4").write_text("not a video")
    command = ("predict", tmp_path / "clip.mp4", "--engine", "ray", "--output", tmp_path / "answers.parquet")
    for address, why in (("127.0.0.1:9", "Connection refused"), ("here", "that is not host:port")):
        code, _, err = engagement(*command, "--address", address)
        assert code == 2 and err.splitlines()[-1].startswith("error: ")
        assert address in err.splitlines()[-1] and why in err.splitlines()[-1]


def test_without_ray_a_line_says_what_to_install(engagement: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    requires = lambda _: ["ray[data]>=2.60; extra == 'ray'"]  # noqa: E731
    monkeypatch.setattr(required_packages.importlib.metadata, "requires", requires)
    monkeypatch.setattr(required_packages, "installed_version", lambda _: None)
    code, _, err = engagement("predict", tmp_path, "--engine", "ray", "--output", tmp_path / "answers.parquet")
    assert code == 2 and "pip install 'ray>=2.60'" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "ray"), "Expected --output answers.parquet beside --engine ray"),
        (("--engine", "ray", "--output", "a.parquet", "--json"), "no --timeline, --json or --shard"),
        (("--engine", "ray", "--output", "a.csv"), "Expected a table called .parquet with --engine ray, got a.csv"),
        (("--engine", "ray", "--output", "a.parquet", "--device", "mps"), "Expected device auto, cpu or cuda with Ray"),
        (("--engine", "ray+abacus", "--output", "a.parquet"), "one of torch, onnxruntime, openvino, got 'abacus'"),
        (("--address", "auto"), "Expected --engine ray beside --address, got torch"),
    ],
)
def test_what_does_not_go_with_ray_is_one_line(
    options: tuple[str, ...], said: str, engagement: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    code, _, err = engagement("predict", "clip.mp4", *options)
    assert code == 2 and said in err.splitlines()[-1]
    assert not list(tmp_path.glob("*.ray"))
