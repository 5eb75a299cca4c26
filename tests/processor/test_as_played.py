"""Films as a player shows them: stored with the model and the data, and nothing changes for what was made before."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainedStages, prepare_drawn
from numbered_videos import encode

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor
from engagement_recognition.data.open_data import DataOptions, open_or_prepare
from engagement_recognition.data.preparation.prepare import plan_of
from engagement_recognition.data.preparation.prepared_data import load_prepared
from engagement_recognition.data.preparation.settings import FrameOptions, PreparationSettings, settings_for
from engagement_recognition.data.schema import ClipRecord, LabelledSource
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.inference.shipped_model import shipped_expression_model
from engagement_recognition.processor.shown_picture import tone_mapped
from engagement_recognition.processor.video_decoding import clip_frame_indices, frames_between, uniform_frame_indices
from engagement_recognition.processor.video_index import VideoIndex, index_video
from engagement_recognition.training.arguments import Recipe, plan_stages
from engagement_recognition.training.stage_data import load_stage_data

RATES = [Fraction(n, d) for n, d in ((1, 1), (4, 1), (15, 2), (24000, 1001), (25, 1), (30000, 1001), (30, 1), (60, 1))]
# Exact; Matroska's and FLV's milliseconds; MPEG-TS; QuickTime's 600; AVI's own frames.
TIMESCALES = {"exact": None, "ms": 1000, "90 kHz": 90_000, "600": 600}


def index_at(times_sec: np.ndarray, fps: float, as_played: bool = True, start_sec: float = 0.0) -> VideoIndex:
    """An index of frames at these times; of no file."""
    count = len(times_sec)
    return VideoIndex(
        path="clip.mp4", num_frames=count, fps=fps, duration_sec=float(times_sec[-1] - times_sec[0]) + 1 / fps,
        frame_times_sec=times_sec, frame_packets=np.arange(count), start_packets=np.zeros(count, np.int64),
        packet_bytes=np.ones(count, np.int64), can_skip=False, max_pixels=1, source="clip.mp4",
        width_px=2, height_px=2, as_played=as_played, start_sec=start_sec,
    )  # fmt: skip


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("timescale", TIMESCALES)
def test_at_a_constant_rate_the_same_frames_as_before(rate: Fraction, timescale: str):
    rng = np.random.default_rng(0)
    ticks_per_sec = TIMESCALES[timescale]
    for num_available in [*range(1, 40), *rng.integers(40, 20_000, 25).tolist()]:
        times_sec = np.arange(num_available) / float(rate)
        if ticks_per_sec:
            times_sec = np.rint(times_sec * ticks_per_sec) / ticks_per_sec
        index = index_at(times_sec, float(rate))
        spans: list[tuple[float | None, float | None]] = [(None, None), (0.0, None)]
        for start_sec in rng.uniform(0, index.duration_sec, 4):
            spans += [(start_sec, None), (start_sec, start_sec + rng.uniform(0.01, 1) * index.duration_sec)]
        for start_sec, end_sec in spans:
            end_sec = None if end_sec is None else min(end_sec, index.duration_sec)
            first, after = frames_between(index, start_sec, end_sec)
            for num_frames in (1, 8, 13):
                before = first + uniform_frame_indices(after - first, num_frames)
                got = clip_frame_indices(index, num_frames, "uniform", 0, start_sec, end_sec)
                assert got.tolist() == before.tolist()


def test_at_a_variable_rate_no_eighth_of_the_time_goes_without_a_frame():
    rng = np.random.default_rng(1)
    for _ in range(300):
        times_sec = np.concatenate([[0.0], np.cumsum(rng.choice([0.03, 0.04, 0.5, 4.0], rng.integers(2, 80)))])
        fps = (len(times_sec) - 1) / times_sec[-1]
        index = index_at(times_sec, fps)
        taken = clip_frame_indices(index, 8, "uniform")
        middles_sec = (np.arange(8) + 0.5) / 8 * index.duration_sec
        ends_sec = np.append(times_sec[1:], np.inf)
        assert (times_sec[taken] <= middles_sec + 1e-3).all() and (middles_sec < ends_sec[taken] + 1e-3).all()
        before = clip_frame_indices(replace(index, as_played=False), 8, "uniform")
        assert before.tolist() == uniform_frame_indices(len(times_sec), 8).tolist()


def test_the_setting_is_saved_where_it_holds_and_earlier_folders_stay_as_they_are(tmp_path: Path):
    for kind, name in ((EngagementVideoProcessor, "video_preprocessor"), (EngagementImageProcessor, "preprocessor")):
        kind(as_played=True).save_pretrained(tmp_path / "new")
        kind().save_pretrained(tmp_path / "old")
        assert json.loads((tmp_path / f"new/{name}_config.json").read_text())["as_played"] is True
        assert "as_played" not in json.loads((tmp_path / f"old/{name}_config.json").read_text())
        assert kind.from_pretrained(tmp_path / "new").as_played is True
        assert kind.from_pretrained(tmp_path / "old").as_played is False


def test_what_is_made_now_has_it_and_a_single_face_model_hands_it_to_its_videos(trained: TrainedStages):
    for folder in (shipped_expression_model(), trained.expression, trained.engagement):
        predictor = Predictor.from_pretrained(str(folder), device="cpu")
        assert predictor.processor.as_played and predictor.video_processor.as_played


def test_plans_of_earlier_versions_are_those_of_today(tmp_path: Path):
    for media, face_crop, plan in (
        ("video", True, "ca56e1da4c7ad778f03e00385bd8a72cb3506a0c89366240a4f79ce94199e2b3"),
        ("picture", False, "606884c2189b83429f34bb407ef8650c0f6ea682dce18e3152301184370478fd"),
    ):
        record = ClipRecord("a", "p", "train", "a.mp4", label="bored")
        source = LabelledSource("videos", media, [record], [], lambda _: b"")
        settings = PreparationSettings(
            num_frames=8, sampling="uniform", face_crop=face_crop, face_margin_ratio=0.2, face_crop_size_px=224
        )
        assert plan_of(source, settings, tmp_path) == plan
        assert settings_for(media, FrameOptions()).as_played == (media == "video")


def test_what_an_earlier_version_prepared_is_found_and_trains_a_model_that_reads_so(
    drawn_daisee: Path, tmp_path: Path, tiny_recipe: dict[str, object]
):
    folder = tmp_path / "data"
    old = prepare_drawn(drawn_daisee, folder, num_frames=2, face_crop=False, as_played=False)
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    del description["settings"]["as_played"]  # as it was written
    path.write_text(json.dumps(description))
    again = prepare_drawn(drawn_daisee, folder, num_frames=2, face_crop=False)
    assert again.fingerprint == old.fingerprint and load_prepared(folder).description.settings.as_played is False
    recipe = {key: value for key, value in tiny_recipe.items() if key not in ("expression", "engagement")}
    (run,) = plan_stages(Recipe({**recipe, "engagement": {"data": str(folder), "allow_leakage": True}}), {})
    data = load_stage_data(run)
    assert data.processor.as_played is False and data.description.prepared_with.as_played is False


def test_a_cache_is_prepared_again_and_says_how_to_go_on_with_the_old(
    drawn_daisee: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    frames = FrameOptions(num_frames=2, face_crop=False, as_played=False)
    options = DataOptions(drawn_daisee, frames=frames, cache_dir=tmp_path, num_processes=1)
    old = open_or_prepare(options)
    capsys.readouterr()
    new = open_or_prepare(replace(options, frames=replace(frames, as_played=None)))
    told = [line for line in capsys.readouterr().out.splitlines() if "prepared again" in line]
    assert len(told) == 1 and str(old.folder) in told[0] and "as_played false" in told[0]
    assert new.folder != old.folder and new.fingerprint == old.fingerprint  # films at a constant rate, square, SDR
    assert new.description.settings.as_played


def test_an_index_made_otherwise_is_made_again(tmp_path: Path):
    pts = [*range(20), 200]
    encode(tmp_path / "clip.mp4", num_frames=21, pts=pts)
    other = index_video(tmp_path / "clip.mp4")
    clip = EngagementVideoProcessor(face_crop=False, as_played=True).prepare_clip(tmp_path / "clip.mp4", index=other)
    assert clip.frame_indices[1:-1].tolist() == [19] * 6 and "variable rate: sampled by time" in clip.notes


def test_what_sdr_can_show_keeps_its_level_in_hdr_and_more_does_not_clip():
    # 203 cd/m2 is white to BT.2408; PQ codes of 0, 10, 50, 203, 1000 cd/m2 by BT.2100's formula.
    nits = np.array([0, 10, 50, 203, 1000])
    power = (nits / 10_000) ** (2610 / 16384)
    codes = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    pixels = np.rint(codes * 65535).astype(np.uint16)[None, :, None].repeat(3, axis=2)
    levels = tone_mapped(pixels, "PQ")[0]
    assert (np.ptp(levels, axis=1) <= 1).all()  # grey stays grey
    expected = 255 * (nits[:3] / 203) ** (1 / 2.4)
    np.testing.assert_allclose(levels[:3, 1], expected, atol=1.5)
    assert levels[2, 1] < levels[3, 1] < levels[4, 1] - 20 and levels[4, 1] >= 254
