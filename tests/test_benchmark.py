"""`engagement benchmark`: the ways are those of one model and one film, what is missing says why, and the page is made
of the record."""

import json
import runpy
from pathlib import Path

import pytest
from conftest import Command, TrainedStages

from engagement_recognition.studies.benchmark import _draw_clip
from engagement_recognition.studies.speed_page import render_performance
from engagement_recognition.studies.speed_record import SpeedRecord

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
    code, out, _ = engagement("benchmark", _draw_clip(tmp_path / "drawn.mp4"), *arguments)
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


def test_an_unknown_part_is_refused_by_name(engagement: Command):
    code, _, err = engagement("benchmark", "--part", "lukewarm")
    assert code == 2 and "lukewarm" in err and len(err.splitlines()) == 1


def test_the_page_is_that_of_the_record():
    script = runpy.run_path(str(ROOT / ".ci/readme.py"))
    page = (ROOT / script["PERFORMANCE"]).read_text(encoding="utf-8")
    assert page == render_performance(script["read_speed"](), script["SPEED_PICTURE"]), "run make readme"
