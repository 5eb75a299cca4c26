"""Predictions from an export without torch: the same crops and answers, over the command line and over HTTP."""

import configparser
import csv
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from saved_models import STATES, needs_onnx, save_ours

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor
from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.conversion.export_networks import export_networks
from engagement_recognition.hub.endpoint.export_handler import ExportHandler
from engagement_recognition.hub.endpoint.handler import Limits
from engagement_recognition.hub.endpoint.server import make_server
from engagement_recognition.inference.exported_processor import ExportedClips, ExportedPictures, load_processor
from engagement_recognition.processor.face_cropping import crop_face, face_transform, framed_transform
from engagement_recognition.processor.input_errors import ModelLoadError
from engagement_recognition.processor.tensor_preparation import sample_by_torch

RULE = AnswerRule(tuple(STATES), temperature=0.5, trained_on="drawn people", abstain_below=0.0)
# Arguments: those of `engagement`. Whatever the command prints, then which of these it imported.
RUN = """
import sys
from engagement_recognition.cli.main import main
try:
    main()
finally:
    print(*sorted({"torch", "torchvision", "transformers", "timm", "facenet_pytorch", "pyarrow"} & {*sys.modules}))
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip model's export."""
    folder = tmp_path_factory.mktemp("without")
    save_ours(folder / "model", "resnet", "lstm")
    RULE.save(folder / "model")
    export_networks(str(folder / "model"), folder / "export", "onnx")
    return folder / "export"


@pytest.fixture(scope="module")
def clip(drawn_daisee: Path) -> Path:
    return sorted(drawn_daisee.rglob("*.avi"))[0]


def picture(seed: int = 0) -> np.ndarray:
    """(288, 384, 3), uint8: edges, noise and flat places, where rounding shows."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 248, (9, 12, 3), np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    return blocks + rng.integers(0, 8, blocks.shape, np.uint8)


@pytest.mark.parametrize("crop_size_px", [224, 96, 31])
def test_crops_are_torch_s_within_a_grey_level(crop_size_px: int):
    frame, lying = picture(), np.array([[100, 90], [150, 105], [0, 0], [0, 0], [0, 0]], float)
    transforms = [
        face_transform(np.array(box), lying, crop_size_px) for box in ([90, 60, 170, 170], [-40, 200, 60, 330])
    ]
    transforms += [framed_transform(np.array([90, 60, 170.5, 170]), (0, 0.1, 0.9, 1.2), crop_size_px)]
    transforms += [np.array([[1.0, 0, -30], [0, 1, 10]]), np.array([[9.0, 0, -200], [0, 9, -200]])]
    for transform in transforms:
        ours, expected = (crop_face(frame, transform, crop_size_px, *by).astype(int) for by in ((), (sample_by_torch,)))
        assert np.abs(ours - expected).max() <= 1 and (ours != expected).mean() < 2e-3
    for thin in (frame[:1, :50], frame[:50, :1]):
        np.testing.assert_allclose(
            crop_face(thin, np.eye(2, 3), 8), crop_face(thin, np.eye(2, 3), 8, sample_by_torch), atol=1
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 64, "width": 64}},
        {"size": {"height": 120, "width": 90}, "do_rescale": False, "do_normalize": False},
        {"size": {"height": 48, "width": 48}, "do_grayscale": True, "image_mean": [0.5], "image_std": [0.25]},
        {"do_grayscale": True, "picture_norm": 100.0, "image_mean": [0.1], "image_std": [0.9]},
    ],
)
def test_pixel_values_are_torch_s_within_a_grey_level(settings: dict[str, object]):
    frames = np.stack([picture(seed)[:224, :224] for seed in range(2)])
    expected = EngagementVideoProcessor(**settings).to_pixel_values(frames).numpy()
    ours = ExportedClips(settings).to_pixel_values(frames)
    assert ours.dtype == np.float32 and ours.shape == expected.shape and ours.flags.c_contiguous
    grey = 1.0 if settings.get("do_rescale") is False else 1 / 255 / min(settings.get("image_std", [0.224]))
    if "picture_norm" in settings:
        grey = 100 / 224 / 40  # a grey level beside the norm of a picture
    assert np.abs(ours - expected).max() <= grey * 1.001 and (np.abs(ours - expected) > grey / 100).mean() < 0.01
    whole = np.stack([picture()])
    same = [
        kind.shrink_whole_frames(whole).astype(int) for kind in (ExportedClips(settings), EngagementVideoProcessor())
    ]
    assert np.abs(same[0] - same[1]).max() <= 1


def test_the_saved_settings_are_those_of_transformers(tmp_path: Path):
    settings = {"size": {"height": 30, "width": 40}, "face_framing": [0.0, 0.1, 0.9, 1.0], "as_played": True}
    for kind, exported in ((EngagementVideoProcessor, ExportedClips), (EngagementImageProcessor, ExportedPictures)):
        folder = tmp_path / kind.__name__
        saved = kind(**settings)
        saved.save_pretrained(folder)
        loaded = load_processor(folder, exported is ExportedClips)
        assert type(loaded) is exported
        known = {name: getattr(saved, name) for name in loaded.to_dict()}
        known |= {name: list(known[name]) for name in ("image_mean", "image_std")}  # of transformers a tuple
        assert known == loaded.to_dict()
        (config,) = folder.glob("*processor_config.json")
        config.write_text(config.read_text().replace('"face_crop_size_px": 224', '"face_crop_size_px": 0'))
        with pytest.raises(ModelLoadError, match="face_crop_size_px"):
            load_processor(folder, exported is ExportedClips)


@needs_onnx
def test_the_command_answers_without_torch(export: Path, clip: Path, tmp_path: Path):
    table = tmp_path / "answers.csv"
    options = ["--faces", "--json", "--output", str(table), "--timeline", "1", "--plot-dir", str(tmp_path)]
    command = [sys.executable, "-c", RUN, "predict", str(clip), "--model", str(export), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line, imported = done.stdout.splitlines()
    assert imported == ""
    answer = json.loads(line)
    assert answer["label"] in STATES and answer["model"]["engine"].startswith("onnxruntime ") and answer["timeline"]
    (row,) = csv.DictReader(table.open())
    assert row["label"] == answer["label"] and row["made_with"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)  # the table knows the export again
    assert "skips 1 files" in again.stderr


def test_without_the_detector_torch_finds_faces_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    EngagementVideoProcessor().save_pretrained(tmp_path)
    assert load_processor(tmp_path, reads_clips=True).face_detector.networks is None
    (said,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in said and "MTCNN in torch" in said
    (tmp_path / "face_detector").mkdir()
    assert load_processor(tmp_path, reads_clips=True).face_detector.networks == str(tmp_path / "face_detector")
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def address(export: Path) -> Iterator[str]:
    handler = ExportHandler(str(export), Limits(max_bytes=1 << 20))
    handler.processor.face_crop = False  # of drawn people's whole frames
    server = make_server(handler, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "http://{}:{}".format(*server.server_address[:2])
    server.shutdown()
    thread.join()
    server.server_close()


def ask(address: str, body: bytes | None, kind: str = "video/avi") -> tuple[int, dict[str, object]]:
    try:
        request = urllib.request.Request(address, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@needs_onnx
def test_a_posted_video_is_answered(address: str, clip: Path):
    status, answer = ask(address, clip.read_bytes())
    assert status == 200 and answer["label"] in STATES and sum(answer["scores"].values()) == pytest.approx(1)
    assert answer["model"]["engine"].startswith("onnxruntime ")
    assert ask(f"{address}/health", None)[0] == 200


@needs_onnx
@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"no video", "video/mp4", 422, "Expected a"),
        (b"", "video/mp4", 400, "0 bytes"),
        (b"{", "application/json", 400, "not valid JSON"),
        (b"[1]", "application/json", 400, "got none"),
        (b'{"inputs": "http://127.0.0.1/x"}', "application/json", 400, "private network"),
        (b'{"inputs": "/etc/passwd"}', "application/json", 400, "base64"),
        (bytes((1 << 20) + 1), "video/mp4", 413, f"{1 << 20} bytes"),
    ],
)
def test_bad_input_is_refused_in_one_line(address: str, body: bytes, kind: str, status: int, said: str):
    found, answer = ask(address, body, kind)
    assert (found, answer["status"]) == (status, status)
    assert said in answer["error"] and "\n" not in answer["error"]


@needs_onnx
def test_what_is_no_export_is_not_served(export: Path):
    with pytest.raises(ModelLoadError, match="engagement export"):
        ExportHandler(str(export.parent / "model"))


def test_the_container_installs_what_the_extra_names():
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = (ROOT / "hub/endpoint/requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == declared["options.extras_require"]["light"].split()
