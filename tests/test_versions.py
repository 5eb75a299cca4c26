"""Which versions are needed is said once, checked before they are used, and told in one line wherever it fails."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, TrainedStages
from installed_versions import pretend
from packaging.requirements import Requirement
from packaging.version import Version
from places import ROOT

from engagement_recognition import configuration_engagement, train
from engagement_recognition.cli.environment import describe_environment
from engagement_recognition.data.required_packages import OF_A_MODEL, pip_lines, required_packages, what_to_install
from engagement_recognition.processor import video_container

# What a machine with an old PyAV sees; the versions of all else are as they are.
OLD_PYAV = """
import importlib.metadata, sys
really = importlib.metadata.version
importlib.metadata.version = lambda name: "16.1.0" if name == "av" else really(name)
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import av
av.__version__ = "16.1.0"
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline
for load in (
    lambda **trusted: pipeline("video-classification", sys.argv[1], **trusted),
    lambda **trusted: AutoModelForVideoClassification.from_pretrained(sys.argv[1], **trusted),
    lambda **trusted: AutoVideoProcessor.from_pretrained(sys.argv[1], **trusted),
):
    try:
        load(trust_remote_code=True)
    except ImportError as error:
        print(error)
"""
TOO_OLD = "Expected av>=17.1, got {}; pip install 'av>=17.1'."


def test_a_published_model_says_which_library_is_too_old(trained: TrainedStages, tmp_path: Path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", OLD_PYAV, trained.engagement],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [TOO_OLD.format("16.1.0")] * 3


@pytest.mark.parametrize("version", ["16.1.0", None])
def test_commands_say_it_in_one_line(
    version: str | None, engagement: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    pretend(monkeypatch, "av", version)
    code, _, err = engagement("predict", "nothing.mp4", "--model", "nothing")
    assert code == 2 == train.main(["no recipe.yaml"])
    line = "error: " + TOO_OLD.format(f"av {version or 'none'}")
    assert [*err.splitlines(), *capfd.readouterr().err.splitlines()] == [line, line]


def test_env_works_where_nothing_else_does(engagement: Command, monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, "av", "16.1.0")
    pretend(monkeypatch, "timm", None)
    code, out, _ = engagement("env")
    assert code == 0 and "av 16.1.0 (needs >=17.1)" in out


def test_env_says_what_a_report_needs(engagement: Command):
    _, said, _ = engagement("env")
    values = dict(line.removeprefix("- ").split(": ", 1) for line in said.splitlines())
    assert values["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert re.match(r"\d+ usable of \d+", values["processors"])
    assert "threads" in values["torch"] and "CUDA" in values["torch"]
    assert "reads h264, hevc, vp8, vp9, av1" in values["PyAV"] and "writes h264" in values["PyAV"]
    assert {needed.name for needed in required_packages()} == set(re.findall(r"(?:^|, )([\w-]+) ", values["packages"]))
    assert str(Path.home()) not in said and str(ROOT) not in said  # it is pasted where everybody reads it


def test_env_tells_a_library_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "ModuleNotFoundError" in dict(describe_environment())["PyAV"]


def test_newer_than_known_is_no_problem(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, "av", "999.0")
    assert what_to_install(required_packages()) is None


def test_the_bounds_in_a_model_s_code_are_those_of_setup_cfg():
    lowest = {needed.name: Version(next(iter(needed.specifier)).version) for needed in required_packages()}
    in_code = {name: Version(version) for name, version in configuration_engagement.OLDEST.items()}
    assert in_code == {name: lowest[name] for name in OF_A_MODEL}
    assert configuration_engagement.OLDEST["av"] == video_container.OLDEST_PYAV
    assert len(pip_lines(OF_A_MODEL)) == len(OF_A_MODEL)


def test_the_lowest_versions_are_pins_within_what_is_asked_for():
    lines = runpy.run_path(str(ROOT / ".ci/lowest_versions.py"))["lowest_versions"](ROOT / "setup.cfg")
    pins = {Requirement(line).name: next(iter(Requirement(line).specifier)) for line in lines}
    assert len(pins) == len(lines)
    for needed in required_packages():
        assert pins[needed.name].operator == "==" and needed.specifier.contains(pins[needed.name].version)


def test_the_other_python_is_one_that_setup_cfg_names():
    script = runpy.run_path(str(ROOT / ".ci/other_python.py"))
    assert (3, 11) in script["supported_versions"](ROOT / "setup.cfg")
    assert script["makes_environments"](sys.executable, sys.version_info[:2])
    assert not script["makes_environments"](sys.executable, (2, 7))
