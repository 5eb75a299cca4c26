"""Exported models say what the models they came from say, in forms that need none of our code, or are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from saved_models import MEAN, STATE_MAPS, STATES, STD, needs_onnx, save_ours, save_stock, stock_beit, stock_timm
from scipy.special import softmax
from tiny_models import draw_pixels
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
from typer.testing import CliRunner

from engagement_recognition import EngagementImageProcessor
from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.cli.main import app
from engagement_recognition.conversion.export_onnx import export_onnx
from engagement_recognition.conversion.export_stock import export_stock
from engagement_recognition.conversion.import_reference import import_stock_classifier
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, ModelLoadError


def logits_apart(model: nn.Module, other: nn.Module) -> float:
    """The largest difference of their logits."""
    pixels = draw_pixels(model, batch_size=3, seed=7)
    with torch.no_grad():
        return float((model(pixels).logits - other(pixels).logits).abs().max())


@pytest.mark.parametrize(
    ("encoder", "features", "architecture"),  # features as stock models pool
    [
        ("beit", "pooled", "Beit"),
        ("resnet18", "map", "TimmWrapper"),
        ("mobilenetv3_large_100", "pooled", "TimmWrapper"),
        ("timm_vit", "pooled", "TimmWrapper"),
        ("vit", "token", "ViT"),
        ("swin", "pooled", "Swin"),
        ("convnext", "pooled", "ConvNext"),
        ("resnet", "pooled", "ResNet"),
    ],
)
def test_a_stock_folder_says_the_same_and_comes_back(encoder: str, features: str, architecture: str, tmp_path: Path):
    model = save_ours(tmp_path / "ours", encoder, encoder_features=features)
    difference = export_stock(tmp_path / "ours", tmp_path / "stock")
    stock = AutoModelForImageClassification.from_pretrained(tmp_path / "stock").eval()
    assert type(stock).__name__ == f"{architecture}ForImageClassification"
    assert stock.config.id2label == STATE_MAPS["id2label"]
    as_loaded = logits_apart(model, stock)
    for tensor in (*stock.parameters(), *stock.buffers()):
        tensor.data = tensor.data.clone()  # mapped from the file they lie unaligned, and kernels round otherwise
    print(f"{encoder}: logits differ by {as_loaded:.2g} as loaded, by {logits_apart(model, stock):.2g} aligned")
    assert as_loaded <= 1e-4 and logits_apart(model, stock) <= 1e-6 and difference <= 1e-6
    assert {path.suffix for path in (tmp_path / "stock").iterdir()} == {".json", ".safetensors", ".md"}  # and no code
    config = (tmp_path / "stock/config.json").read_text()
    assert "auto_map" not in config and str(tmp_path) not in config

    if architecture not in ("Beit", "TimmWrapper"):
        return  # their stock form is not read back
    again = import_stock_classifier(tmp_path / "stock", tmp_path / "again").model
    for key, weight in again.state_dict().items():
        assert weight.equal(model.state_dict()[key]), key
    # A map's mean is taken by another operation than a pooling layer's.
    assert logits_apart(model, again) <= (1e-6 if features == "map" else 0)


@pytest.mark.parametrize("build", [lambda: stock_beit(use_relative_position_bias=True), lambda: stock_timm("resnet18")])
def test_an_imported_stock_model_goes_back_as_it_came(build: Callable[[], nn.Module], tmp_path: Path):
    save_stock(build(), tmp_path / "stock")
    import_stock_classifier(tmp_path / "stock", tmp_path / "ours")
    assert export_stock(tmp_path / "ours", tmp_path / "again") == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("stock", "again"))
    assert before.keys() == after.keys() and all(after[name].equal(weight) for name, weight in before.items())


@pytest.mark.parametrize("encoder", ["beit", "resnet18", "convnext"])
def test_crops_are_resized_and_normalised_as_ours_are(encoder: str, tmp_path: Path):
    model = save_ours(tmp_path / "ours", encoder, encoder_features="pooled")
    export_stock(tmp_path / "ours", tmp_path / "stock")
    size_px = model.config.image_size
    ours, stock = (AutoImageProcessor.from_pretrained(tmp_path / name) for name in ("ours", "stock"))
    random = np.random.default_rng(0)
    for height, width in ((size_px, size_px), (120, 90)):
        crop = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = ours(crop, face_crop=False)["pixel_values"]
        got = stock(Image.fromarray(crop), return_tensors="pt")["pixel_values"]
        assert got.shape == expected.shape == (1, 3, size_px, size_px)
        levels = float((got - expected).abs().max()) * min(STD) * 255
        assert levels <= (0.01 if height == size_px else 1.01)  # resized by PIL or by torchvision: to a grey level
    classifier = pipeline("image-classification", model=str(tmp_path / "stock"))  # no code is trusted
    with torch.no_grad():
        scores = model(**ours(crop, face_crop=False)).logits[0].softmax(dim=0)
    got = {row["label"]: row["score"] for row in classifier(Image.fromarray(crop))}
    assert got == pytest.approx({STATES[i]: float(score) for i, score in enumerate(scores)}, abs=0.01)


# name: (encoder, head, features, what is said)
REFUSED = {
    "lstm": ("resnet18", "lstm", "map", "reads clips .temporal head 'lstm'"),
    "transformer": ("beit", "transformer", "pooled", "temporal head 'transformer'"),
    "nezami cnn": ("nezami_cnn", "image", "map", "'nezami_cnn', which is in our code"),
    "mobilenet map": ("mobilenetv3_large_100", "image", "map", "'map' features without 2 .*timm_model.conv_head.bias"),
    "beit map": ("beit", "image", "map", r"'map' features without 2 .* beit.pooler.layernorm.bias"),
    "timm vit map": ("timm_vit", "image", "map", "'map' features"),
    "vit pooled": ("vit", "image", "pooled", r"'pooled' features of layers .* lacks \(first: vit.pooler.dense.bias"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_stock_architecture_holds_is_refused_in_one_line(name: str, tmp_path: Path):
    encoder, head, features, told = REFUSED[name]
    save_ours(tmp_path / "ours", encoder, head, encoder_features=features)
    with pytest.raises(ModelLoadError, match=told) as refusal:
        export_stock(tmp_path / "ours", tmp_path / "stock")
    print(refusal.value)
    assert "\n" not in str(refusal.value) and str(tmp_path / "ours") in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_grey_pictures_and_other_folders_are_refused(tmp_path: Path):
    save_ours(tmp_path / "ours", "resnet18")
    EngagementImageProcessor(size={"height": 64, "width": 64}, picture_norm=100.0).save_pretrained(tmp_path / "ours")
    with pytest.raises(ModelLoadError, match="scales them to a norm"):
        export_stock(tmp_path / "ours", tmp_path / "stock")
    for export in (export_stock, export_onnx):
        with pytest.raises(ModelLoadError, match="Expected an engagement model"):
            export(tmp_path / "nowhere", tmp_path / "new.onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    EngagementImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "ours")
    (tmp_path / "full/model.onnx").touch()
    for export, output in ((export_stock, tmp_path / "full"), (export_onnx, tmp_path / "full/model.onnx")):
        with pytest.raises(DataError, match=r"Expected a new|exists already|new or empty"):
            export(tmp_path / "ours", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "ours"]


@needs_onnx
@pytest.mark.parametrize("encoder", ["resnet", pytest.param("beit", marks=pytest.mark.slow)])
def test_the_command_writes_onnx_that_says_the_same(encoder: str, tmp_path: Path):
    import onnxruntime

    model = save_ours(tmp_path / "ours", encoder, encoder_features="pooled")
    options = ["export", str(tmp_path / "ours"), "--to", "onnx", "--output", str(tmp_path / "new/model.onnx")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0 and "logits differ by at most" in done.stdout
    session = onnxruntime.InferenceSession(tmp_path / "new/model.onnx", providers=["CPUExecutionProvider"])
    pixels = draw_pixels(model, batch_size=5)
    with torch.no_grad():
        expected = model(pixels).logits.numpy()
    (logits,) = session.run(None, {"pixel_values": pixels.numpy()})
    assert expected.std() > 0.1 and np.abs(logits - expected).max() <= 1e-5
    told = json.loads(session.get_modelmeta().custom_metadata_map["answer_rule"])
    assert (told["temperature"], told["trained_on"]) == (None, "unknown") and told["abstain_below"] > 1 / len(STATES)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]  # weights included


RULE = {"temperature": 0.3, "bias": (0.2, -0.1, 0.05, 0.0), "abstain_below": 0.55, "trained_on": "drawn people"}
OFFSETS = (2.0, 0.5, 1.0, -2.0)


def check_decided(model: nn.Module, rule: AnswerRule, pixels: torch.Tensor, logits: np.ndarray) -> None:
    """The highest is the rule's label, its softmax the rule's certainty, and the offsets lead back to the scores."""
    with torch.no_grad():
        raw = model(pixels).logits.numpy()
    scores = rule.to_scores(raw)
    decided, certainty = rule.decide(scores)
    assert len({*decided, *raw.argmax(axis=1)}) > 1 and (decided != raw.argmax(axis=1)).any(), "else it tells nothing"
    assert (logits.argmax(axis=1) == decided).all()
    assert softmax(logits, axis=1).max(axis=1) == pytest.approx(certainty, abs=1e-4)
    assert softmax(logits - rule.offsets, axis=1) == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("encoder", ["beit", "resnet18"])
@pytest.mark.parametrize("offsets", [OFFSETS, (0.0,) * 4], ids=["decided", "calibrated"])
def test_a_stock_folder_gives_the_label_that_we_give(encoder: str, offsets: tuple[float, ...], tmp_path: Path):
    model = save_ours(tmp_path / "ours", encoder, encoder_features="pooled")
    rule = AnswerRule(tuple(STATES), offsets=offsets, **RULE)
    rule.save(tmp_path / "ours")
    assert export_stock(tmp_path / "ours", tmp_path / "stock") <= 1e-4
    stock, pixels = AutoModelForImageClassification.from_pretrained(tmp_path / "stock").eval(), draw_pixels(model, 64)
    with torch.no_grad():
        check_decided(model, rule, pixels, stock(pixels).logits.numpy())
    card = " ".join((tmp_path / "stock/README.md").read_text().split())
    assert "which was trained on drawn people" in card and "gives no label below 0.550" in card
    assert ("with the offsets 2, 0.5, 1, -2" in card) == any(offsets)
    assert ("Its scores are calibrated" in card) != any(offsets)


def test_a_model_without_a_rule_is_exported_as_it_is_and_says_so(tmp_path: Path):
    model = save_ours(tmp_path / "ours", "beit", encoder_features="pooled")
    export_stock(tmp_path / "ours", tmp_path / "stock")
    weights = load_file(tmp_path / "stock/model.safetensors")
    assert weights["classifier.weight"].equal(model.classifier.weight.data)
    assert "It is uncalibrated" in (tmp_path / "stock/README.md").read_text()


@needs_onnx
def test_onnx_of_a_clip_model_gives_the_label_that_we_give_for_any_batch_and_tells_the_rule(tmp_path: Path):
    import onnxruntime

    model = save_ours(tmp_path / "ours", "resnet", "lstm")
    rule = AnswerRule(tuple(STATES), offsets=OFFSETS, clip_sec=10.0, **RULE)
    rule.save(tmp_path / "ours")
    assert export_onnx(tmp_path / "ours", tmp_path / "model.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = draw_pixels(model, 64)
    (logits,) = session.run(None, {"pixel_values": pixels.numpy()})
    check_decided(model, rule, pixels, logits)
    for batch_size in (1, 2):
        (few,) = session.run(None, {"pixel_values": pixels[:batch_size].numpy()})
        np.testing.assert_allclose(few, logits[:batch_size], atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["label_names"]) == STATES
    assert AnswerRule(**json.loads(metadata["answer_rule"])) == rule
    settings = json.loads(metadata["preprocessor_config"])
    assert settings["image_mean"] == MEAN and str(tmp_path) not in str(metadata)


@needs_onnx
def test_onnx_that_says_something_else_is_refused(tmp_path: Path):
    model = save_ours(tmp_path / "ours", "resnet")
    model.classifier.weight.data *= 1e6  # float noise alone exceeds the limit
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(ModelLoadError, match=r"differ by .*more than 0\.001") as refusal:
        export_onnx(tmp_path / "ours", tmp_path / "model.onnx")
    assert "\n" not in str(refusal.value) and [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    versions = {"onnx": "1.16.2", "onnxruntime": "99.0"}
    monkeypatch.setattr("engagement_recognition.data.required_packages.installed_version", versions.get)
    expected = r"Expected onnx>=1.19, onnxscript>=0.6.2, got onnx 1.16.2, onnxscript none; pip install 'onnx>=1.19'"
    with pytest.raises(EngagementInputError, match=expected) as refusal:
        export_onnx(tmp_path / "ours", tmp_path / "model.onnx")
    assert "\n" not in str(refusal.value)
