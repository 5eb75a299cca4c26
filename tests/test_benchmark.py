"""`engagement benchmark`: the ways are those of one model and one film, what is missing says why, and the page is made
of the record."""

import json
import runpy
from pathlib import Path

import pytest
from conftest import Command, TrainedStages

from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.studies import benchmark
from engagement_recognition.studies.speed_page import render_performance
from engagement_recognition.studies.speed_record import Cold, SpeedRecord

ROOT = Path(__file__).parents[1]


def test_every_engine_answers_as_the_plain_way_and_what_is_missing_says_why(
    engagement: Command, trained: TrainedStages, tmp_path: Path
):
    arguments = (
        "--model",
        trained.engagement,
        "--rounds",
        1,
        "--threads",
        1,
        "--part",
        "warm",
        "--output",
        tmp_path / "out",
    )
    code, out, _ = engagement("benchmark", benchmark._draw_clip(tmp_path / "drawn.mp4"), *arguments)
    record = SpeedRecord.model_validate_json(out)
    (warm,) = record.warm
    assert code == 0 and record.frames_identical and not record.cold and not record.training
    assert {way.name for way in warm.ways} == {"plain", "torch", "onnx", "openvino"}
    assert all(way.same_label for way in warm.ways)
    assert all(way.ratio == pytest.approx(warm.ways[0].whole_ms / way.whole_ms, abs=0.02) for way in warm.ways)
    assert warm.not_measured == {"onnx_int8": "needs --calibration", "openvino_int8": "needs --calibration"}
    assert json.loads((tmp_path / "out/benchmark.json").read_text()) == json.loads(out)
    assert (tmp_path / "out/performance.md").read_text() == render_performance(record, "benchmark.png")
    assert (tmp_path / "out/benchmark.png").stat().st_size > 10_000


def test_what_was_measured_is_kept_where_the_rest_is_not(
    monkeypatch: pytest.MonkeyPatch, engagement: Command, trained: TrainedStages, tmp_path: Path
):
    rows = [Cold(name="plain script", seconds=1.0, peak_mb=1.0, ratio=1.0)]
    monkeypatch.setattr(benchmark, "_with_exports", lambda model, *_: benchmark._Measured(model, {}))
    monkeypatch.setattr(benchmark, "measure_cold", lambda *_: rows)
    monkeypatch.setattr(benchmark, "_output_of", no_figures)
    film, folder = benchmark._draw_clip(tmp_path / "drawn.mp4"), tmp_path / "out"
    parts = ("--part", "cold", "--part", "batches", "--part", "training")
    code, out, _ = engagement("benchmark", film, "--model", trained.engagement, *parts, "--output", folder)
    record = SpeedRecord.model_validate_json((folder / "benchmark.json").read_text())
    assert code == 0 and record == SpeedRecord.model_validate_json(out)
    assert record.cold == rows and {*record.not_measured} == {"batches", "training"}
    page = (folder / "performance.md").read_text()
    assert "plain script" in page and "training: no figures" in page and "![" not in page
    assert not (folder / "benchmark.png").exists()

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "_output_of", stop)
    (folder / "benchmark.json").unlink()
    engagement("benchmark", film, "--model", trained.engagement, *parts, "--output", folder)
    assert SpeedRecord.model_validate_json((folder / "benchmark.json").read_text()).cold == rows


def no_figures(*_: object) -> str:
    raise DataError("no figures")


def test_an_unknown_part_is_refused_by_name(engagement: Command):
    code, _, err = engagement("benchmark", "--part", "lukewarm")
    assert code == 2 and "lukewarm" in err and len(err.splitlines()) == 1


def test_the_page_is_that_of_the_record():
    script = runpy.run_path(str(ROOT / ".ci/readme.py"))
    page = (ROOT / script["PERFORMANCE"]).read_text(encoding="utf-8")
    assert page == render_performance(script["read_speed"](), script["SPEED_PICTURE"]), "run make readme"
