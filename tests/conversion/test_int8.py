"""int8 is written only where labels stay what they are, and is checked on nothing that it was calibrated on."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, prepare_drawn
from saved_models import STATES, needs_onnx, save_ours
from torch import nn

from engagement_recognition import EngagementImageProcessor
from engagement_recognition.conversion import export_int8 as module
from engagement_recognition.conversion.calibration_data import Examples, find_examples
from engagement_recognition.conversion.export_int8 import export_int8
from engagement_recognition.conversion.export_networks import export_networks
from engagement_recognition.inference.export_folder import read_export
from engagement_recognition.inference.exported_engine import load_engine
from engagement_recognition.inference.find_export import find_or_make_export
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError, ModelLoadError, RecipeError

pytestmark = [
    needs_onnx,
    pytest.mark.skipif(not importlib.util.find_spec("nncf"), reason="the extra int8 is missing"),
]
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="the extra openvino is missing")
FORMATS = ["onnx", pytest.param("openvino", marks=[needs_openvino, pytest.mark.slow])]
SIZE_PX = 48


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single-face model that reads whole pictures, with an export in ONNX beside it."""
    folder = tmp_path_factory.mktemp("made") / "model"
    save_ours(folder, "resnet", image_size=SIZE_PX)
    size = {"height": SIZE_PX, "width": SIZE_PX}
    EngagementImageProcessor(size=size, face_crop=False).save_pretrained(folder)
    export_networks(str(folder), folder / "onnx", "onnx")
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, whose float32 networks are those that were made."""

    def copy(source: object, folder: Path, to: str) -> None:
        for name in ("encoder.onnx", "head.onnx"):
            shutil.copy(made / "onnx" / name, folder)

    monkeypatch.setattr(module, "write_networks", copy)
    return Path(shutil.copytree(made, tmp_path / "model"))


def as_examples(pictures: np.ndarray) -> Examples:
    return Examples([lambda picture=picture: picture for picture in pictures])


def clear_and_unclear(model: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of which float32 makes one label by far, and others of which it makes two that are nearly as high."""
    ours: nn.Module = Predictor.from_pretrained(str(model), device="cpu").model
    noise = torch.randn((600, 3, SIZE_PX, SIZE_PX), generator=torch.Generator().manual_seed(1))
    pictures = noise * torch.linspace(0.2, 2, 600)[:, None, None, None]
    with torch.no_grad():
        highest = ours(pictures).logits.topk(2).values
    order = (highest[:, 0] - highest[:, 1]).argsort().numpy()
    return pictures.numpy()[order[-120:]], pictures.numpy()[order[:120]]


@pytest.mark.parametrize("export_format", FORMATS)
def test_int8_is_written_where_labels_stay_what_they_are(
    export_format: str, model: Path, monkeypatch: pytest.MonkeyPatch
):
    clear, _ = clear_and_unclear(model)
    monkeypatch.setattr(module, "find_examples", lambda *_: (as_examples(clear[::2]), as_examples(clear[1::2])))
    output = model / f"{export_format}_int8"
    record = export_int8(str(model), output, export_format, Path("DATA"))
    assert record == read_export(output) and record.dtype == "int8"
    gate = record.gate
    assert (gate.of, gate.num_calibrated, gate.num_checked, gate.kept_float32) == ("faces", 60, 60, [])
    assert gate.label_agreement >= 0.99 and 0 < gate.largest_score_difference < 0.2
    engine = {"onnx": "onnxruntime", "openvino": "openvino"}[export_format]
    assert find_or_make_export(str(model), engine, "int8") == output
    float32, int8 = load_engine(model / "onnx"), load_engine(output)
    apart = np.abs(float32.logits(clear) - int8.logits(clear)).max()
    assert int8.dtype == "int8" and 1e-3 < apart < 1  # it is another network, and nearly the same
    weights = output / ("encoder.onnx" if export_format == "onnx" else "encoder.bin")
    assert weights.stat().st_size < (model / "onnx/encoder.onnx").stat().st_size


def test_int8_that_changes_labels_is_refused_and_says_what_less_would_give(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    clear, unclear = clear_and_unclear(model)
    absurd = clear * 1e-3  # whatever is larger is cut off
    monkeypatch.setattr(module, "find_examples", lambda *_: (as_examples(absurd), as_examples(unclear[:40])))
    with pytest.raises(ModelLoadError, match=r"of 40 faces in DATA .*more than 50") as found:
        export_int8(str(model), model / "onnx_int8", "onnx", Path("DATA"))
    said = str(found.value)
    assert all(f"% with --int8-keep {part}" in said for part in ("first", "last", "first --int8-keep last"))
    assert "\n" not in said and "attention" not in said and said.endswith(("float32.", "last.", "first."))
    assert not (model / "onnx_int8").exists()
    with pytest.raises(RecipeError, match="no part attention"):
        export_int8(str(model), model / "onnx_int8", "onnx", Path("DATA"), ["attention"])


def test_no_example_is_both_calibrated_and_checked_on(
    model: Path, drawn_expressions: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    predictor = Predictor.from_pretrained(str(model), device="cpu")
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, picture in enumerate(sorted(drawn_expressions.rglob("*.png"))[:9]):
        shutil.copy(picture, loose / f"{number}.png")
    (loose / "broken.png").write_bytes(b"no picture")
    prepared = prepare_drawn(drawn_expressions, tmp_path / "prepared")
    found = {
        "files": find_examples(predictor, loose, tmp_path),
        "prepared": find_examples(predictor, prepared.folder, tmp_path),
    }
    assert [len(half) for half in found["files"]] == [5, 4]
    assert [len(half) for half in found["prepared"]] == [len(prepared.splits[name]) for name in ("train", "validation")]
    for calibrated, checked in found.values():
        assert next(checked.batches(2)).shape == (2, 3, SIZE_PX, SIZE_PX)
        pictures = [{read().tobytes() for read in half.read} for half in (calibrated, checked)]
        assert len(pictures[0]) > 1 and pictures[0].isdisjoint(pictures[1])
    for path in loose.glob("[1-9].png"):
        path.unlink()
    with pytest.raises(DataError, match="no readable examples to check on"):
        find_examples(predictor, loose, tmp_path)


def test_the_command_says_what_is_missing(engagement: Command, model: Path, tmp_path: Path):
    wrong = {
        "add --calibration": ["--to", "onnx", "--int8"],
        "--calibration is only for --int8; add --int8": ["--to", "onnx", "--calibration", model],
        "onnx or openvino and a folder": ["--to", "stock", "--int8"],
    }
    for told, options in wrong.items():
        code, _, said = engagement("export", model, *options, "--output", tmp_path / "new")
        assert code == 2 and told in said and len(said.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.slow
def test_the_command_writes_int8_from_a_raw_source(
    engagement: Command, model: Path, drawn_expressions: Path, tmp_path: Path
):
    output = tmp_path / "int8"
    code, said, errors = engagement(
        "export", model, "--to", "onnx", "--int8", "--calibration", drawn_expressions, "--output", output,
        "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0, errors
    assert f"engagement predict FILE --model {output}" in said and "are too few" in errors
    assert Predictor.from_pretrained(str(output)).engine.label_names == tuple(STATES)
