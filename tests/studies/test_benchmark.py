"""`engagement benchmark`: the ways are those of one model and one film, what is missing says why, and the page is made
of the record."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest
from conftest import Command, TrainedStages
from places import ROOT
from stopped_trainings import interrupt

from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.studies import benchmark
from engagement_recognition.studies.speed_page import render_performance
from engagement_recognition.studies.speed_record import Cold, SpeedRecord


@pytest.fixture
def film(drawn_daisee: Path) -> Path:
    return min(drawn_daisee.glob("DataSet/Test/*/*/*"))


def test_every_engine_answers_as_the_plain_way_and_what_is_missing_says_why(
    engagement: Command, trained: TrainedStages, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export_networks = benchmark.export_networks

    def without_openvino(model: str, output: Path, to: str) -> object:
        if to == "openvino":
            raise EngagementInputError("Expected openvino, got none.")
        return export_networks(model, output, to)

    monkeypatch.setattr(benchmark, "export_networks", without_openvino)
    options = ("--model", trained.engagement, "--rounds", 1, "--threads", 1, "--part", "warm")
    code, out, _ = engagement("benchmark", film, *options, "--output", tmp_path / "out")
    record = SpeedRecord.model_validate_json(out)
    (warm,) = record.warm
    assert code == 0 and record.frames_identical and not record.cold and not record.training
    assert {way.name for way in warm.ways} == {"plain", "torch", "onnx"}
    assert all(way.same_label for way in warm.ways)
    assert all(way.ratio == pytest.approx(warm.ways[0].whole_ms / way.whole_ms, abs=0.02) for way in warm.ways)
    int8 = dict.fromkeys(("onnx_int8", "openvino_int8"), "needs --calibration")
    assert warm.not_measured == {"openvino": "Expected openvino, got none.", **int8}
    assert json.loads((tmp_path / "out/benchmark.json").read_text()) == json.loads(out)
    assert (tmp_path / "out/performance.md").read_text() == render_performance(record, "benchmark.png")
    assert (tmp_path / "out/benchmark.png").stat().st_size > 10_000


def test_what_was_measured_is_kept_where_the_rest_is_not(
    monkeypatch: pytest.MonkeyPatch, engagement: Command, trained: TrainedStages, film: Path, tmp_path: Path
):
    rows = [Cold(name="plain script", seconds=1.0, peak_mb=1.0, ratio=1.0)]
    monkeypatch.setattr(benchmark, "export_networks", lambda *_: None)
    monkeypatch.setattr(benchmark, "measure_cold", lambda *_: rows)
    monkeypatch.setattr("subprocess.run", lambda command, **_: subprocess.CompletedProcess(command, 3, ""))
    folder = tmp_path / "out"
    parts = ("--part", "cold", "--part", "batches", "--part", "training")
    code, out, _ = engagement("benchmark", film, "--model", trained.engagement, *parts, "--output", folder)
    record = SpeedRecord.model_validate_json((folder / "benchmark.json").read_text())
    assert code == 0 and record == SpeedRecord.model_validate_json(out)
    assert record.cold == rows and {*record.not_measured} == {"batches", "training"}
    page = (folder / "performance.md").read_text()
    assert "plain script" in page
    assert re.search(r"^- batches: .*\bbatch_speed ", page, flags=re.M)  # a long command is cut
    assert re.search(r"^- training: .*\btraining_speed .* code 3;", page, flags=re.M)
    assert "![" not in page and not (folder / "benchmark.png").exists()

    monkeypatch.setattr("subprocess.run", lambda *_, **__: interrupt())
    (folder / "benchmark.json").unlink()
    engagement("benchmark", film, "--model", trained.engagement, *parts, "--output", folder)
    assert SpeedRecord.model_validate_json((folder / "benchmark.json").read_text()).cold == rows


def test_an_unknown_part_is_refused_by_name(engagement: Command):
    code, _, err = engagement("benchmark", "--part", "lukewarm")
    assert code == 2 and "lukewarm" in err and len(err.splitlines()) == 1


def test_the_page_is_that_of_the_record():
    script = runpy.run_path(str(ROOT / ".ci/readme.py"))
    page = (ROOT / script["PERFORMANCE"]).read_text(encoding="utf-8")
    assert page == render_performance(script["read_speed"](), script["SPEED_PICTURE"]), "run make readme"
