"""Model, what goes into it and the face detector are on one device, whichever; its answers are those of the CPU."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from conftest import Command, TrainedStages, prepare_drawn
from fake_device import CUDA, fake_cuda
from PIL import Image
from tiny_models import draw_pixels, tiny_model

from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.data.preparation.prepare import prepare
from engagement_recognition.data.preparation.settings import FrameOptions, settings_for
from engagement_recognition.data.readers.sources import read_source
from engagement_recognition.evaluate_model import evaluate_model
from engagement_recognition.explanation.explain_files import explain_file
from engagement_recognition.explanation.map_checks import deletion_insertion, randomisation_check
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.inference.shipped_model import shipped_expression_model
from engagement_recognition.live.engine import LiveEngagement, LiveSettings
from engagement_recognition.modeling_engagement import EngagementForVideoClassification
from engagement_recognition.processor import face_detection
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.mtcnn_cascade import Look, RawFaces, find_faces
from engagement_recognition.processor.mtcnn_networks import TorchNetworks
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.studies import device_agreement

Result = TypeVar("Result")
CLOSE = {"rel": 1e-4, "abs": 1e-4}


@pytest.fixture
def looked_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The device of every look for faces."""
    devices: list[str] = []

    def find_and_remember(frames: np.ndarray, look: Look, networks: TorchNetworks) -> list[RawFaces]:
        devices.append(str(networks.device))
        return find_faces(frames, look, networks)

    monkeypatch.setattr(face_detection, "find_faces", find_and_remember)
    return devices


def load(folder: Path, device: str) -> tuple[Predictor, list[torch.device]]:
    """The model's predictor, and a list of where the encoder's inputs will have been."""
    predictor, read_on = Predictor.from_pretrained(str(folder), device=device), []
    predictor.model.encoder.register_forward_pre_hook(lambda module, inputs: read_on.append(inputs[0].device))
    return predictor, read_on


def on_both(folder: Path, looked_on: list[str], use: Callable[[Predictor], Result]) -> tuple[Result, Result]:
    """What comes of it on the CPU, and on the fake GPU, where model, its input and the face detector were."""
    on_cpu = use(load(folder, "cpu")[0])
    assert set(looked_on) == {"cpu"}
    looked_on.clear()
    with fake_cuda() as gpu:
        predictor, read_on = load(folder, "cuda:0")
        assert {weights.device for weights in (*predictor.model.parameters(), *predictor.model.buffers())} == {CUDA}
        on_gpu = use(predictor)
        assert gpu.operations["aten.convolution.default"] > 0
    assert set(read_on) == {CUDA} and set(looked_on) == {"cuda:0"}
    return on_cpu, on_gpu


def first_clip(data: Path) -> Path:
    return sorted(data.rglob("*.avi"))[0]


def test_a_video_is_answered_where_the_model_is(trained: TrainedStages, drawn_daisee: Path, looked_on: list[str]):
    clip = first_clip(drawn_daisee)
    cpu, gpu = on_both(trained.engagement, looked_on, lambda predictor: predictor.predict(clip))
    assert gpu.scores == pytest.approx(cpu.scores, **CLOSE) and (gpu.label, gpu.reason) == (cpu.label, cpu.reason)


def test_so_is_a_photo_and_a_video_before_a_model_of_faces(
    trained: TrainedStages, drawn_daisee: Path, looked_on: list[str], tmp_path: Path
):
    clip, photo = first_clip(drawn_daisee), tmp_path / "photo.png"
    Image.fromarray(draw_frame(draw_subject(0), FacePose())).save(photo)
    both = on_both(trained.expression, looked_on, lambda predictor: (predictor.predict(clip), predictor.predict(photo)))
    (cpu_film, cpu_photo), (gpu_film, gpu_photo) = both
    assert gpu_film.scores == pytest.approx(cpu_film.scores, **CLOSE)
    assert gpu_photo.faces[0].scores == pytest.approx(cpu_photo.faces[0].scores, **CLOSE)
    assert gpu_photo.faces[0].box_xyxy_px == cpu_photo.faces[0].box_xyxy_px


def test_live_looks_and_predicts_there(trained: TrainedStages, looked_on: list[str]):
    frames = [draw_frame(draw_subject(0), FacePose(), noise_seed=number) for number in range(3)]
    settings = LiveSettings(window_sec=0.2, predict_every_sec=0.1, small_faces=True)

    def watch(predictor: Predictor) -> dict[str, float]:
        live = LiveEngagement(predictor.speed_up(), settings)
        return [live.step(frame, number / 10) for number, frame in enumerate(frames)][-1][0].scores

    cpu, gpu = on_both(trained.engagement, looked_on, watch)
    assert gpu == pytest.approx(cpu, **CLOSE)


@pytest.mark.parametrize("kind", ["clips", "faces"])
def test_explanations_are_made_there(trained: TrainedStages, drawn_daisee: Path, looked_on: list[str], kind: str):
    folder, clip = trained.engagement if kind == "clips" else shipped_expression_model(), first_clip(drawn_daisee)
    cpu, gpu = on_both(folder, looked_on, lambda predictor: explain_file(predictor, clip).clips[0].explanation)
    assert gpu.scores == pytest.approx(cpu.scores, **CLOSE)
    assert np.abs(gpu.maps - cpu.maps).max() <= 1e-3 * cpu.maps.max()
    assert cpu.maps.any() or kind == "clips"  # whose 32 px leave a map of one place


@pytest.mark.parametrize("head", ["image", "lstm"])
def test_checks_of_heat_maps_run_there(head: str):
    torch.manual_seed(0)
    model = tiny_model("resnet", head).eval()
    pixel_values = draw_pixels(model, num_frames=2)[0]
    maps = np.random.default_rng(0).random((len(pixel_values) if head == "lstm" else 1, 32, 32), np.float32)
    label = model.config.label_names[0]

    def check(values: torch.Tensor) -> tuple[float, float]:
        moved = deletion_insertion(model, values, maps, label, steps=2, num_random_orders=1)
        return moved.deletion.area, randomisation_check(model, values, label, num_draws=1).rank_correlation

    cpu = check(pixel_values)
    with fake_cuda():
        model.to("cuda:0")
        assert check(pixel_values.to("cuda:0")) == pytest.approx(cpu, **CLOSE)


def test_an_evaluation_runs_there_and_says_so(trained: TrainedStages, drawn_daisee: Path, tmp_path: Path):
    prepared = prepare_drawn(drawn_daisee, tmp_path / "data", num_frames=4).folder
    folders = {name: shutil.copytree(trained.engagement, tmp_path / name) for name in ("cpu", "gpu")}
    cpu = evaluate_model(folders["cpu"], prepared, num_focus_clips=1, device="cpu")
    with fake_cuda() as gpu:
        measured = evaluate_model(folders["gpu"], prepared, num_focus_clips=1, device="cuda:0")
    assert gpu.operations["aten.convolution.default"] > 0
    assert '"device": "a fake GPU"' in (folders["gpu"] / "results.json").read_text()
    assert measured.calibration.as_trained.nll == pytest.approx(cpu.calibration.as_trained.nll, **CLOSE)
    assert measured.face_focus.num_clips == cpu.face_focus.num_clips == 1


def test_preparation_looks_for_faces_there_and_the_data_are_the_same(
    drawn_daisee: Path, looked_on: list[str], tmp_path: Path
):
    source = read_source(None, drawn_daisee)
    source = replace(source, records=source.records[:2])
    settings = settings_for("video", FrameOptions(num_frames=2))
    on_cpu = prepare(source, settings, drawn_daisee, tmp_path / "cpu", 1)
    looked_on.clear()
    with fake_cuda():
        on_gpu = prepare(source, settings, drawn_daisee, tmp_path / "gpu", 1, device=CUDA)
    assert set(looked_on) == {"cuda:0"} and on_gpu.fingerprint == on_cpu.fingerprint


@pytest.mark.parametrize("kind", [EngagementVideoProcessor, EngagementImageProcessor])
def test_a_processor_takes_transformers_own_device(kind: type, looked_on: list[str], tmp_path: Path):
    frame = draw_frame(draw_subject(0), FacePose())
    content = np.stack([frame] * 2) if kind is EngagementVideoProcessor else frame
    processor = kind(device="cpu")
    with fake_cuda():
        pixel_values = processor(content, device="cuda:0")["pixel_values"]
        assert pixel_values.device == CUDA and set(looked_on) == {"cuda:0"}
        assert torch.equal(pixel_values.cpu(), processor(content)["pixel_values"]), "and left the processor as it was"
    assert looked_on[-1] == "cpu"
    kind(device="cuda:0").save_pretrained(tmp_path)
    assert kind.from_pretrained(tmp_path).device is None, "where one machine looks is nobody else's business"


def test_beside_mps_faces_are_found_on_the_cpu():
    assert EngagementVideoProcessor(device="mps").face_detector.device == "cpu"
    assert EngagementVideoProcessor(device="cuda:1").face_detector.device == "cuda:1"


@pytest.mark.parametrize("command", ["predict", "explain", "evaluate", "prepare"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_loaded(
    engagement: Command, trained: TrainedStages, drawn_daisee: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    command: str,
):  # fmt: skip
    monkeypatch.setattr(EngagementForVideoClassification, "from_pretrained", None)
    arguments = {
        "predict": [first_clip(drawn_daisee), "--model", trained.engagement],
        "explain": [first_clip(drawn_daisee), "--model", trained.engagement, "--output", tmp_path / "heat.png"],
        "evaluate": [trained.engagement, "--data", drawn_daisee],
        "prepare": ["daisee", drawn_daisee, "--output", tmp_path / "data"],
    }
    code, out, err = engagement(command, *arguments[command], "--device", "cuda:7")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "no device cuda:7, only cpu" in err
    assert not any(tmp_path.iterdir())


SMALL = device_agreement.Trial(num_people=1, encoder="test_resnet", num_repeats=1)


def test_a_fake_gpu_agrees_with_the_cpu(looked_on: list[str]):
    with fake_cuda():
        found = device_agreement.compare_with_cpu("cuda:0", SMALL)
    assert set(looked_on) == {"cpu", "cuda:0"} and len(found) > 8
    assert [comparison.what for comparison in found if not comparison.agrees] == []


def test_speeds_are_those_of_each_way(looked_on: list[str]):
    speeds = device_agreement.measure_speeds("cpu", SMALL)
    assert [speed.way for speed in speeds] == ["cpu, float32, 1 a pass", "cpu, bfloat16, 1 a pass"]
    assert all(0 < speed.forward_ms < speed.file_to_label_ms for speed in speeds)


@pytest.mark.parametrize(
    "changed",
    [
        {"faces": [np.full((1, 14), 101.0)]},
        {"faces": [np.full((2, 14), 100.0)]},
        {"relative": {"logits": np.array([1.0, 5.1])}},
        {"relative": {"logits": np.array([1.0, np.nan])}},
        {"scores": {"film": np.array([[0.6, 0.4]])}},
        {"labels": {"film": [None]}},
    ],
    ids=["a pixel aside", "another face", "other logits", "no number", "other scores", "another answer"],
)
def test_the_script_finds_a_device_that_does_not_agree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, changed: dict[str, object]
):
    logits, scores = {"logits": np.array([1.0, 5.0])}, {"film": np.array([[0.5, 0.5]])}
    seen = device_agreement.Seen([np.full((1, 14), 100.0)], logits, scores, {"film": ["engaged"]})
    found = iter([device_agreement.compare(seen, other) for other in (seen, seen._replace(**changed))])
    monkeypatch.setattr(device_agreement, "compare_with_cpu", lambda *asked: next(found))
    monkeypatch.setattr(device_agreement, "measure_speeds", lambda *asked: [device_agreement.Speed("cpu", 2.0, 3.0)])
    assert device_agreement.main(["--device", "cpu"]) == 0
    assert device_agreement.main(["--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert said.count("NO: ") == 1 and "differs from the CPU in 1" in said
