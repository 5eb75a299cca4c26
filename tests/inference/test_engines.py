"""Engines other than torch: an export folder says what its model says, without torch, and only for that model."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import STATES, needs_onnx, save_ours
from tiny_models import draw_pixels
from torch import nn

from engagement_recognition import EngagementVideoProcessor
from engagement_recognition.configuration_engagement import AnswerRule
from engagement_recognition.conversion.export_networks import (
    complete_folder,
    export_networks,
    open_source,
    to_format,
)
from engagement_recognition.inference import find_export
from engagement_recognition.inference.export_folder import EXPORT_FILE, is_export, read_export
from engagement_recognition.inference.exported_engine import OnnxEngine, OpenVinoEngine, load_engine
from engagement_recognition.inference.find_export import exports_folder, find_or_make_export
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, ModelLoadError

needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="the extra openvino is missing")
pytestmark = needs_onnx
FORMATS = [pytest.param("onnx"), pytest.param("openvino", marks=needs_openvino)]
RULE = AnswerRule(tuple(STATES), temperature=0.5, bias=(0.2, -0.1, 0.0, 0.1), trained_on="drawn people")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip model with an export in ONNX beside it; tests copy it and write to the copies."""
    folder = tmp_path_factory.mktemp("made") / "model"
    save_ours(folder, "resnet", "lstm")
    EngagementVideoProcessor.from_pretrained(folder, face_crop=False).save_pretrained(folder)  # so without a detector
    RULE.save(folder)
    export_networks(str(folder), folder / "onnx", "onnx")
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def as_format(folder: Path, export_format: str) -> Path:
    """The export beside the model in another format, without asking torch for its networks again."""
    if export_format == "onnx":
        return folder / "onnx"
    output = folder / export_format
    output.mkdir()
    for name in ("encoder", "head"):
        to_format(folder / f"onnx/{name}.onnx", output, export_format)
    complete_folder(open_source(str(folder)), output, export_format)
    return output


def loaded(folder: Path) -> nn.Module:
    return Predictor.from_pretrained(str(folder), device="cpu").model


@pytest.mark.parametrize("export_format", FORMATS)
def test_an_engine_says_what_the_model_says(export_format: str, model: Path):
    export = as_format(model, export_format)
    engine, ours = load_engine(export, threads=1), loaded(model)
    assert (engine.device, engine.dtype, engine.reads_clips) == ("cpu", "float32", True)
    assert engine.label_names == tuple(STATES) and engine.num_frames == 2
    for batch_size in (1, 3):
        pixels = draw_pixels(ours, batch_size, seed=batch_size)
        with torch.no_grad():
            expected, features = ours(pixels).logits.numpy(), ours.encoder(pixels.flatten(0, 1)).pooler_output.numpy()
        assert expected.std() > 0.1 and engine.logits(pixels) == pytest.approx(expected, abs=1e-4)
        assert engine.logits(pixels.numpy()) == pytest.approx(expected, abs=1e-4)
        encoded = engine.encode(pixels.flatten(0, 1))
        assert encoded == pytest.approx(features, abs=1e-4)
        assert engine.classify(encoded.reshape(batch_size, 2, -1)) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ModelLoadError, match="nan or infinity"):
        engine.logits(np.full((1, 2, 3, 32, 32), np.nan, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("export_format", FORMATS)
@pytest.mark.parametrize(("encoder", "head"), [("beit", "image"), ("mobilenetv3_large_100", "transformer")])
def test_other_networks_come_out_the_same(encoder: str, head: str, export_format: str, tmp_path: Path):
    save_ours(tmp_path / "ours", encoder, head, encoder_features="pooled")
    record = export_networks(str(tmp_path / "ours"), tmp_path / "export", export_format)
    assert record.logits_difference <= 1e-4 and record.reads_clips is (head != "image")


@pytest.mark.parametrize("export_format", FORMATS)
def test_an_export_runs_without_torch_and_tells_nobody(export_format: str, model: Path):
    export = as_format(model, export_format)
    code = (
        "import sys, numpy, pathlib; from engagement_recognition.inference.exported_engine import load_engine;"
        f"engine = load_engine(pathlib.Path({str(export)!r}));"
        "print(engine.logits(numpy.zeros((1, 2, 3, 32, 32), 'float32')).shape);"
        "print(*{'torch', 'transformers', 'openvino_telemetry'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shape, modules = done.stdout.splitlines()  # the second line is empty
    assert (shape, modules) == ("(1, 4)", "")


@needs_openvino
def test_a_signal_finds_its_stack_after_an_engine_has_gone(model: Path):
    # With a core for each network this was a segmentation fault, on processors with AVX-512 alone.
    code = (
        "import gc, pathlib, signal; from engagement_recognition.inference.exported_engine import load_engine;"
        "signal.signal(signal.SIGINT, lambda *_: print('heard'));"
        f"engine = load_engine(pathlib.Path({str(as_format(model, 'openvino'))!r}));"
        "del engine; gc.collect(); signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "heard"), done.stderr


def test_a_folder_holds_all_that_answers_need(model: Path):
    record = read_export(model / "onnx")
    assert set(record.source_sha256) == {
        "answer_rule.json", "config.json", "model.safetensors", "video_preprocessor_config.json",
    }  # fmt: skip
    assert str(model) not in (model / "onnx" / EXPORT_FILE).read_text()
    predictor = Predictor.from_pretrained(str(model / "onnx"))  # no engine is named: the folder is for one
    ours = Predictor.from_pretrained(str(model), device="cpu")
    assert predictor.rule == ours.rule == RULE and predictor.about["engine"].startswith("onnxruntime ")
    for name in ("size", "image_mean", "image_std", "num_frames", "face_margin_ratio"):
        exported, own = (
            json.dumps(one.processor.to_dict()[name]) for one in (predictor, ours)
        )  # tuples are lists there
        assert exported == own, name
    (model / "taken").mkdir()
    (model / "taken/notes.txt").touch()
    with pytest.raises(DataError, match="new or empty folder"):
        export_networks(str(model), model / "taken", "onnx")


def edit_record(export: Path, **changes: object) -> None:
    known = json.loads((export / EXPORT_FILE).read_text())
    (export / EXPORT_FILE).write_text(json.dumps({**known, **changes}))


# name: (what happens to the folder, what is said)
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no head": (lambda folder: (folder / "head.onnx").unlink(), "has no head.onnx"),
    "half a network": (lambda folder: (folder / "encoder.onnx").write_bytes(b"half"), "cannot run the networks in"),
    "another's head": (lambda folder: shutil.copy(folder / "encoder.onnx", folder / "head.onnx"), "of another model"),
    "other labels": (
        lambda folder: edit_record(folder, label_names=["yes", "no"]),
        "other shapes than its export.json",
    ),
    "unknown key": (lambda folder: edit_record(folder, more=1), "unknown key more"),
    "later version": (lambda folder: edit_record(folder, version=2), "got 2 as version"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_export_is_refused_in_one_line(name: str, model: Path):
    damage, told = DAMAGE[name]
    damage(model / "onnx")
    with pytest.raises(ModelLoadError, match=told) as refusal:
        OnnxEngine(model / "onnx")
    print(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_was_not_asked_for_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch):
    for engine, dtype, told in (("openvino", "auto", "not for openvino"), ("torch", "int8", "in int8")):
        with pytest.raises(ModelLoadError, match=told):
            find_or_make_export(str(model / "onnx"), engine, dtype)
    with pytest.raises(ModelLoadError, match="use the engine onnxruntime"):
        OpenVinoEngine(model / "onnx")
    with pytest.raises(ModelLoadError, match=r"--to onnx --int8 --calibration DATA --output .*onnx_int8"):
        find_or_make_export(str(model), "onnxruntime", "int8")
    with pytest.raises(ModelLoadError, match="no such folder"):
        find_or_make_export(str(model / "nowhere"), "onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("engagement_recognition.data.required_packages.installed_version", lambda name: None)
    with pytest.raises(EngagementInputError, match="got onnxruntime none; pip install 'onnxruntime"):
        OnnxEngine(model / "onnx")


def never(*arguments: object) -> None:
    raise AssertionError(f"nobody asked for {arguments}")


def test_the_export_beside_a_model_is_taken_and_one_of_other_weights_refused(model: Path):
    assert find_or_make_export(str(model), "onnxruntime", make=never) == model / "onnx"
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"different model\.safetensors .*; delete it"):
        find_or_make_export(str(model), "onnxruntime", make=never)


def test_an_export_of_another_answer_rule_is_refused(model: Path):
    AnswerRule(tuple(STATES)).save(model)
    with pytest.raises(ModelLoadError, match=r"different answer_rule\.json .*; delete it"):
        Predictor.from_pretrained(str(model), engine="onnxruntime")


def test_without_one_an_export_is_made_once_in_the_cache(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    kept, calls = shutil.move(model / "onnx", tmp_path / "kept"), []

    def make(source: str, export_format: str, output: Path) -> None:
        calls.append((source, export_format))
        shutil.copytree(kept, output)

    monkeypatch.setattr(find_export, "make_in_own_process", make)
    before = sorted(model.rglob("*"))
    made = find_or_make_export(str(model), "onnxruntime")
    assert made.parent == exports_folder() and is_export(made) and calls == [(str(model), "onnx")]
    assert f"exported once for onnxruntime, to {made}" in capsys.readouterr().err
    assert find_or_make_export(str(model), "onnxruntime") == made and len(calls) == 1
    assert not capsys.readouterr().err and sorted(model.rglob("*")) == before
    edit_record(made, version=2)  # of a later version of this package, or damaged
    assert find_or_make_export(str(model), "onnxruntime") == made and len(calls) == 2
    assert "made again" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_of_its_own_makes_it_and_hands_on_what_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    shutil.rmtree(model / "onnx")
    predictor = Predictor.from_pretrained(str(model), engine="onnxruntime")
    pixels = draw_pixels(loaded(model))
    with torch.no_grad():
        expected = loaded(model)(pixels).logits.numpy()
    assert predictor.engine.logits(pixels) == pytest.approx(expected, abs=1e-4)
    (model / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="Expected"):
        find_or_make_export(str(model), "onnxruntime")
