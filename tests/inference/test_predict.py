"""The `engagement` command: files in, lines or JSON out, one line for what cannot be used, and the exit codes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import Command, TrainedStages
from huggingface_hub import utils as hub_bars
from person_videos import HEIGHT_PX, WIDTH_PX, person_frame, refusals, write_video
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, TimmWrapperConfig
from transformers.utils import logging

from engagement_recognition.configuration_engagement import EngagementConfig
from engagement_recognition.data.drawn.faces import FacePose, Person, draw_people, draw_subject
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.modeling_engagement import EngagementForVideoClassification
from engagement_recognition.processor.input_errors import ModelLoadError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
        container.mux([*stream.encode(frame), *stream.encode()])
    return path


EMPTY_ROOM = np.full((HEIGHT_PX, WIDTH_PX, 3), 90, np.uint8)


pytestmark = pytest.mark.usefixtures("one_reader")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files of every kind that people pass."""
    folder = tmp_path_factory.mktemp("inputs")
    write_video(folder / "good one é.mp4", [person_frame(0, roll) for roll in range(-4, 4)])
    write_video(folder / "half.mp4", [person_frame()] * 8 + [EMPTY_ROOM] * 8)
    write_video(folder / "one_frame.avi", [person_frame(1)])
    write_video(folder / "no_face.mp4", [EMPTY_ROOM] * 8)
    write_sound(folder / "sound.mp4")
    (folder / "nothing.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "folder.mp4").mkdir()
    two = [Person(draw_subject(seed), FacePose(), (x, 230), 150) for seed, x in ((2, 180), (4, 460))]
    Image.fromarray(draw_people(two)).save(folder / "two.png")
    Image.fromarray(np.full((240, 320, 3), 90, np.uint8)).save(folder / "wall.png")
    (folder / "broken.png").write_bytes((folder / "two.png").read_bytes()[:2000])
    return folder


BAD = {
    "nothing.mp4": "0 bytes|empty",
    "text.mp4": "text|video",
    "folder.mp4": "director|folder",
    "sound.mp4": "video stream",
    "missing.mp4": "no such file",
    "no_face.mp4": "face",
}


# --- Videos


def test_good_videos_exit_0_and_say_what_was_seen(engagement: Command, inputs: Path, trained: TrainedStages):
    code, out, err = engagement(
        "predict", inputs / "good one é.mp4", inputs / "half.mp4", "--model", trained.engagement
    )
    assert code == 0 and "refused" not in err
    good, half = out.splitlines()
    assert re.search(r"good one é\.mp4: ((dis)?engaged|uncertain)  disengaged 0\.\d{3}, engaged 0\.\d{3}", good)
    assert "face in 100%" in good
    assert "face in 50% of frames" in half and "repeated" not in out


def test_one_bad_video_exits_1_and_the_others_still_come_out(engagement: Command, inputs: Path, trained: TrainedStages):
    good = inputs / "good one é.mp4"
    code, out, err = engagement("predict", good, inputs / "text.mp4", good, "--model", trained.engagement)
    assert code == 1
    assert len(out.splitlines()) == 2 and out.splitlines()[0] == out.splitlines()[1]
    assert len(refusals(err)) == 1


def test_every_bad_file_is_refused_in_one_line_of_its_own(engagement: Command, inputs: Path, trained: TrainedStages):
    code, out, err = engagement("predict", *(inputs / name for name in BAD), "--model", trained.engagement)
    assert code == 2 and out == ""
    lines = refusals(err)
    assert len(lines) == len(BAD) and err.strip().splitlines()[-len(BAD) :] == lines
    for line, (name, reason) in zip(lines, BAD.items(), strict=True):
        assert name in line and re.search(reason, line.replace(str(inputs), "").replace(name, ""), re.IGNORECASE), line


def test_json_is_json(engagement: Command, inputs: Path, trained: TrainedStages):
    videos = [inputs / "half.mp4", inputs / "nothing.mp4"]
    code, out, _ = engagement("predict", *videos, "--model", trained.engagement, "--json")
    prediction, refusal = map(json.loads, out.splitlines())
    assert code == 1
    assert sum(prediction["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert (prediction["label"] is None) == (prediction["reason"] == "uncertain")
    assert prediction["model"]["trained_on"] == "drawn people" and prediction["num_people"] == 1
    assert set(prediction["scores"]) == {"disengaged", "engaged"} and prediction["face_coverage"] == 0.5
    assert set(refusal) == {"source", "error"} and refusal["source"] == str(videos[1])


def test_a_single_frame_is_repeated_and_that_is_said(engagement: Command, inputs: Path, trained: TrainedStages):
    code, out, _ = engagement("predict", inputs / "one_frame.avi", "--model", trained.engagement)
    assert code == 0 and "3 frames repeated" in out


def test_the_command_says_what_the_processor_and_the_model_say(inputs: Path, trained: TrainedStages):
    video = inputs / "good one é.mp4"
    predictor = Predictor.from_pretrained(str(trained.engagement))
    logits = predictor.model(**predictor.processor(str(video))).logits[0].softmax(0)
    assert list(predictor.predict(video).scores.values()) == pytest.approx(logits.tolist(), abs=1e-6)


# --- Timelines


def test_a_timeline_is_a_plot_and_spans_without_a_face_have_no_label(
    engagement: Command, inputs: Path, trained: TrainedStages, tmp_path: Path
):
    plots = tmp_path / "plots"
    options = ("--model", trained.engagement, "--timeline", "1", "--plot-dir", plots)
    code, out, _ = engagement("predict", inputs / "half.mp4", *options)
    assert code == 0
    (row,) = re.findall(r"engaged \|(.+)\|", out)
    assert len(row) == 3 and row.endswith("·") and "·" not in row[:2]  # windows of the two seconds it learned from
    assert (plots / "half_timeline.csv").read_text().startswith("start_sec,end_sec,label,reason,")
    with Image.open(plots / "half_timeline.png") as picture:
        assert picture.format == "PNG" and picture.width > 500
    code, out, _ = engagement("predict", inputs / "half.mp4", *options, "--json")
    timeline = json.loads(out)["timeline"]
    assert [(span["start_sec"], span["end_sec"]) for span in timeline] == [(0, 2), (1, 3), (2, 4)]
    assert [span["reason"] == "no face long enough" for span in timeline] == [False, False, True]
    assert [span["scores"] is None for span in timeline] == [False, False, True]


def test_inputs_of_one_name_have_a_plot_each(engagement: Command, inputs: Path, trained: TrainedStages, tmp_path: Path):
    for name in ("a/clip.mp4", "b/clip.mp4", "b/clip_1.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(inputs / "half.mp4", tmp_path / name)
    videos = [*sorted(tmp_path.glob("*/*.mp4")), inputs / "half.mp4"]
    options = ("--model", trained.engagement, "--timeline", "2", "--plot-dir", tmp_path / "plots")
    code, out, _ = engagement("predict", *videos, *options)
    names = [f"{name}_timeline.png" for name in ("clip_2", "clip_3", "clip_1", "half")]
    assert code == 0 and re.findall(r"timeline: .*/(.+png),", out) == names
    assert sorted(path.name for path in (tmp_path / "plots").glob("*.png")) == sorted(names)


def test_plots_that_cannot_be_written_are_refused_before_the_model_is_loaded(engagement: Command, inputs: Path):
    options = ("--timeline", "1", "--model", "no/such/model", "--plot-dir", inputs / "text.mp4")
    code, out, err = engagement("predict", inputs / "half.mp4", *options)
    assert (code, out) == (2, "") and re.fullmatch(r"error: .*text\.mp4 .*writ.*; .+\n", err)


# --- Photos and single-face models


def test_every_face_of_a_photo_comes_out(engagement: Command, inputs: Path, trained: TrainedStages, tmp_path: Path):
    code, out, _ = engagement("predict", inputs / "two.png", "--model", trained.expression, "--json")
    photo = json.loads(out)
    assert code == 0 and len(photo["faces"]) == 2
    centers = [(face["box_xyxy_px"][0] + face["box_xyxy_px"][2]) / 2 for face in photo["faces"]]  # left to right
    assert centers == pytest.approx([180, 460], abs=25)
    for face in photo["faces"]:
        assert len(face["scores"]) == 7 and sum(face["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert face["face_probability"] > 0.9
    code, out, _ = engagement("predict", inputs / "two.png", "--model", trained.expression)
    assert code == 0 and "2 faces" in out and out.count("box [") == 2
    tiff = tmp_path / "two.tiff"
    Image.open(inputs / "two.png").save(tiff)
    assert len(Predictor.from_pretrained(str(trained.expression)).predict(tiff).faces) == 2


def test_bad_photos_are_refused_by_name(engagement: Command, inputs: Path, trained: TrainedStages):
    photos = [inputs / name for name in ("wall.png", "broken.png", "missing.png")]
    code, _, err = engagement("predict", *photos, "--model", trained.expression)
    assert code == 2
    assert all(photo.name in line for photo, line in zip(photos, refusals(err), strict=True))


def test_a_photo_before_a_clip_model_is_refused(engagement: Command, inputs: Path, trained: TrainedStages):
    code, _, err = engagement("predict", inputs / "two.png", "--model", trained.engagement)
    assert code == 2 and "two.png" in err and "single-face model" in err and len(refusals(err)) == 1


def test_a_single_face_model_scores_a_video(engagement: Command, inputs: Path, trained: TrainedStages):
    # Its pictures were faces already (face_crop is off); in a video the face must be found first.
    code, out, _ = engagement("predict", inputs / "half.mp4", "--model", trained.expression, "--json")
    prediction = json.loads(out)
    assert code == 0 and prediction["face_coverage"] == 0.5
    assert len(prediction["scores"]) == 7 and sum(prediction["scores"].values()) == pytest.approx(1, abs=1e-5)


# --- Models that are none


def spoil(folder: Path, how: str) -> None:
    """Damage a model folder."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "no weights":
        weights.unlink()
    elif how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "broken weights":
        broken = load_file(weights)
        broken["classifier.weight"][0, 0] = float("nan")
        save_file(broken, weights, {"format": "pt"})
    elif how == "other weights":
        config.write_text(config.read_text().replace('"temporal_hidden_size": 16', '"temporal_hidden_size": 24'))
    elif how == "no config":
        config.unlink()
    elif how == "bad config":
        config.write_text("{")
    elif how == "unknown head":
        config.write_text(config.read_text().replace('"lstm"', '"gru"'))
    elif how == "no processor":
        (folder / "video_preprocessor_config.json").unlink()
    elif how == "another model":
        config.write_text('{"model_type": "bert"}')


@pytest.mark.parametrize(
    "how",
    ["no weights", "cut weights", "broken weights", "other weights", "no config", "bad config", "unknown head",
     "no processor", "another model", "missing folder"],
)  # fmt: skip
def test_what_is_no_model_is_one_line(
    how: str, engagement: Command, inputs: Path, trained: TrainedStages, tmp_path: Path
):
    folder = tmp_path / "model"
    if how != "missing folder":
        shutil.copytree(trained.engagement, folder)
        spoil(folder, how)
    code, out, err = engagement("predict", inputs / "half.mp4", "--model", folder)
    assert code == 2 and out == "" and "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(folder) in errors[0] and err.endswith(errors[0] + "\n")


@pytest.mark.parametrize("name", ["nothing", "file", "folder/nothing", "a/b/c", "nowhere"])
def test_a_folder_that_is_not_there_is_refused_before_the_hub_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", None)  # a call would be another error
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder/model").mkdir(parents=True)
    (tmp_path / "folder/model/config.json").touch()
    (tmp_path / "file").touch()
    for model in (name, str(tmp_path / name)):
        with pytest.raises(ModelLoadError, match=r"(is a file|no such folder); check the path"):
            Predictor.from_pretrained(model)


def test_the_hub_is_asked_for_what_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def no_hub(model: str) -> None:
        asked.append(model)
        raise OSError("the Hub does not answer")

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", no_hub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()  # of something else
    with pytest.raises(ModelLoadError, match="the Hub does not answer"):
        Predictor.from_pretrained("org/name")
    assert asked == ["org/name"]


@pytest.mark.parametrize(("bars", "downloads"), [(True, True), (True, False), (False, False)])
def test_loading_shows_no_bar_and_leaves_the_setting(
    bars: bool, downloads: bool, trained: TrainedStages, capfd: pytest.CaptureFixture, restored_bars: None
):
    logging.enable_progress_bar() if bars else logging.disable_progress_bar()
    hub_bars.enable_progress_bars() if downloads else hub_bars.disable_progress_bars()
    Predictor.from_pretrained(str(trained.engagement))
    assert capfd.readouterr().err == ""
    assert (logging.is_progress_bar_enabled(), not hub_bars.are_progress_bars_disabled()) == (bars, downloads)


@pytest.fixture
def restored_bars() -> Iterator[None]:
    shown, downloads_hidden = logging.is_progress_bar_enabled(), hub_bars.are_progress_bars_disabled()
    yield
    logging.enable_progress_bar() if shown else logging.disable_progress_bar()
    hub_bars.disable_progress_bars() if downloads_hidden else hub_bars.enable_progress_bars()


# --- The other commands


def test_the_report_s_numbers_are_the_results(engagement: Command, trained: TrainedStages, tmp_path: Path):
    code, out, _ = engagement("report", trained.expression, trained.engagement)
    assert code == 0
    for folder in (trained.expression, trained.engagement):
        (row,) = (line for line in out.splitlines() if f"{folder.name} |" in line[: line.find("|", 1) + 1])
        test = json.loads((folder / "results.json").read_text())["measurements"][0]["evaluation"]
        scores = [test["scores"][name] for name in ("macro_f1", "balanced_accuracy", "accuracy")]
        assert all(f"{score:.3f}" in row for score in (*scores, test["majority_baseline"]["macro_f1"]))
    code, _, err = engagement("report", tmp_path)
    assert code == 2 and err.startswith("error: ") and len(err.splitlines()) == 1


def test_training_through_the_command_reports_mistakes(engagement: Command, tmp_path: Path):
    code, _, err = engagement("train", tmp_path / "none.yaml", "--seed", "3")
    assert code == 2 and err.splitlines()[-1].startswith("error: ") and "none.yaml" in err


def test_help_answers_at_once():
    resource = pytest.importorskip("resource")  # Windows has none
    program = "import sys; from engagement_recognition.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", program, "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "predict" in done.stdout
    assert not {"torch", "transformers", "timm", "av", "datasets"} & set(done.stdout.split())
    assert min(seconds) < 1


def test_folding_batch_norms_leaves_the_scores_and_drops_the_norms(tmp_path: Path):
    config = EngagementConfig(encoder_config=TimmWrapperConfig(architecture="resnet18"), image_size=32, num_labels=2)
    model = EngagementForVideoClassification(config)
    for module in model.modules():  # statistics as after training; fresh ones would hide a wrong fold
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    pixel_values = torch.randn(1, 3, 3, 32, 32)
    expected = model.eval()(pixel_values).logits
    predictor = Predictor(model, EngagementVideoProcessor()).speed_up()
    assert torch.allclose(predictor.model(pixel_values).logits, expected, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in predictor.model.modules())
