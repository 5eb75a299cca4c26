"""MTCNN, ours and the library's: the same faces, whatever runs the networks and however large the pictures are."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from torch.nn.functional import interpolate

from engagement_recognition.conversion.export_detector import FILES, LICENSE_FILE, export_face_detector
from engagement_recognition.data.drawn.faces import FacePose, Person, draw_people, draw_subject
from engagement_recognition.processor import mtcnn_cascade
from engagement_recognition.processor.area_sums import AreaSums
from engagement_recognition.processor.face_detection import FaceDetections, FaceDetector
from engagement_recognition.processor.input_errors import DataError, ModelLoadError
from engagement_recognition.processor.mtcnn_cascade import Look, find_faces
from engagement_recognition.processor.mtcnn_networks import OnnxNetworks, TorchNetworks
from engagement_recognition.studies import face_speed

LOOKS = [Look(40), Look(20, (0.4, 0.3, 0.5), 0.84)]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """None, one and three people, one of them over the edge, and noise: (4, 240, 320, 3)."""
    people = [
        Person(draw_subject(seed), FacePose(), xy, 60) for seed, xy in ((1, (60, 90)), (2, (170, 120)), (4, (290, 100)))
    ]
    drawn = [draw_people(some, 320, 240) for some in ([], people[:1], people)]
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    return np.stack([*drawn, noise])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "detector"
    assert export_face_detector(folder) < 1e-4
    return folder


def by_probability(boxes: np.ndarray, probabilities: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(num_faces, 15), the surest first."""
    rows = np.concatenate([np.reshape(boxes, (-1, 4)), np.reshape(landmarks, (-1, 10)), np.c_[probabilities]], axis=1)
    return rows[np.argsort(-rows[:, -1])]


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("look", LOOKS, ids=["plain", "hard"])
def test_the_same_faces_as_the_library(frames: np.ndarray, exported: Path, look: Look, engine: str):
    theirs = MTCNN(
        keep_all=True, min_face_size=look.min_face_size_px, thresholds=look.thresholds, factor=look.scale_step
    )
    expected = list(zip(*theirs.detect(frames, landmarks=True), strict=True))
    got = find_faces(frames, look, TorchNetworks("cpu") if engine == "torch" else OnnxNetworks(exported))
    assert [len(faces.boxes_xyxy_px) for faces in got] == [0 if boxes is None else len(boxes) for boxes, *_ in expected]
    assert len(got[1].boxes_xyxy_px) >= 1 and len(got[2].boxes_xyxy_px) >= 3
    for faces, (boxes, probabilities, landmarks) in zip(got, expected, strict=True):
        if boxes is not None:
            wanted = by_probability(boxes, np.array(probabilities, np.float32), landmarks)
            np.testing.assert_allclose(by_probability(*faces), wanted.astype(np.float32), atol=1e-2)


def test_the_study_compares_both_ways_of_looking(capsys: pytest.CaptureFixture, tmp_path: Path):
    face_speed.main(["--frames", "4", "--json", str(tmp_path / "speed.json")])
    (speed,) = json.loads((tmp_path / "speed.json").read_text())
    assert "drawn people" in capsys.readouterr().out
    assert speed["num_faces"] == len(speed["ious"]) >= 4 and speed["same_count"] == speed["num_frames"] == 4
    assert min(speed["ious"]) > 0.999
    moved = FaceDetections(np.array([[10, 10, 30, 30]], np.float32), np.ones(1), np.zeros((1, 5, 2)))
    assert face_speed.best_iou(np.array([10, 20, 30, 40], np.float32), moved) == pytest.approx(1 / 3)


def test_many_candidates_are_compared_in_parts_with_the_same_result(
    frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    networks, look = TorchNetworks("cpu"), LOOKS[1]
    expected = find_faces(frames, look, networks)
    monkeypatch.setattr(mtcnn_cascade, "_MOST_AT_ONCE", 8)
    monkeypatch.setattr(mtcnn_cascade, "_MOST_PAIRS", 1)
    monkeypatch.setattr(mtcnn_cascade, "_MOST_CANDIDATES", 7)
    for faces, wanted in zip(find_faces(frames, look, networks), expected, strict=True):
        np.testing.assert_allclose(by_probability(*faces), by_probability(*wanted), atol=1e-3)


@pytest.mark.parametrize("longest_block_px", [1, 10_000], ids=["channels share words", "a word a channel"])
def test_means_over_areas_are_torch_s_to_the_bit(frames: np.ndarray, longest_block_px: int):
    frames = np.concatenate([frames, np.full_like(frames[:1], 255)])
    sums, pictures = AreaSums(frames, longest_block_px), torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    corners = np.array([[0, 0, 320, 240], [17, 30, 18, 33], [5, 7, 66, 72], [100, 0, 320, 50], [0, 100, 24, 124]])
    got = [sums.reduced(73, 97), *sums.parts(np.arange(5), corners, 24)[:, None]]
    wanted = [interpolate(pictures, size=(73, 97), mode="area")]
    for picture, (left, top, right, bottom) in zip(pictures, corners, strict=True):
        wanted.append(interpolate(picture[None, :, top:bottom, left:right], size=(24, 24), mode="area"))
    for means, expected in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(means, expected.permute(0, 2, 3, 1).numpy())


def test_faces_are_found_without_torch(frames: np.ndarray, exported: Path, tmp_path: Path):
    np.save(tmp_path / "frames.npy", frames[:3])
    program = f"""
import sys
import numpy as np
from engagement_recognition.processor.face_detection import FaceDetections, FaceDetector
found = FaceDetector(networks={str(exported)!r}).detect_fast(np.load({str(tmp_path / "frames.npy")!r}))
assert "torch" not in sys.modules and "facenet_pytorch" not in sys.modules
np.save({str(tmp_path / "boxes.npy")!r}, np.concatenate([faces.boxes_xyxy_px for faces in found]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
    wanted = np.concatenate([faces.boxes_xyxy_px for faces in FaceDetector().detect_fast(frames[:3])])
    np.testing.assert_allclose(np.load(tmp_path / "boxes.npy"), wanted, atol=1e-2)


def test_a_detector_s_files_and_what_is_no_detector(exported: Path, tmp_path: Path, frames: np.ndarray):
    assert "MIT License" in (exported / LICENSE_FILE).read_text()
    assert sum((exported / name).stat().st_size for name in FILES) < 2_000_000
    with pytest.raises(DataError, match=r"pnet\.onnx"):
        export_face_detector(exported)
    (tmp_path / "pnet.onnx").write_bytes(b"not ONNX")
    with pytest.raises(ModelLoadError, match="does not run"):
        FaceDetector(networks=tmp_path).detect_fast(frames)
    (tmp_path / "pnet.onnx").unlink()
    with pytest.raises(ModelLoadError, match=r"no pnet\.onnx; export it"):
        FaceDetector(networks=tmp_path).detect_fast(frames)
