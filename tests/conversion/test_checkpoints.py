"""Models people already have say the same as ours after import, and files that are none are refused in one line.

The CNN + LSTM study's modules are rebuilt here from torchvision, by their published description.
"""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from saved_models import STATE_MAPS, STATES, save_stock, stock_beit, stock_timm
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet18
from transformers import AutoImageProcessor, AutoModelForImageClassification

from engagement_recognition.conversion.import_reference import import_checkpoint, import_stock_classifier
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.results_schema import ReportedByFile
from engagement_recognition.evaluation.training_log import read_training_log
from engagement_recognition.processor.input_errors import DataError, ModelLoadError

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
HEADER = "epoch,train_loss,val_loss,val_macro_f1\n"  # of a training log


class CnnLstm(nn.Module):
    """The study's module: CNN, mean over space, LSTM, last hidden state, linear layer."""

    def __init__(self, cnn: nn.Module, feature_size: int, num_classes: int) -> None:
        super().__init__()
        self.cnn_backbone = cnn
        self.lstm = nn.LSTM(feature_size, 256, num_layers=1, batch_first=True)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(256, num_classes))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        maps = self.cnn_backbone(clips.flatten(0, 1))  # (batch, frames, C, H, W) -> (batch*frames, D, h, w)
        features = maps.mean(dim=(2, 3)).unflatten(0, clips.shape[:2])
        return self.classifier(self.lstm(features)[1][0][-1])


def study_module(name: str, num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    if "lstm" not in name:
        model = mobilenet_v3_large()
        model.classifier[3] = nn.Linear(1280, num_classes)
        return model
    if "resnet18" in name:
        return CnnLstm(nn.Sequential(*list(resnet18().children())[:-2]), 512, num_classes)
    return CnnLstm(mobilenet_v3_large().features, 960, num_classes)


# the study's file: (number of classes, trainable weights, those without the encoder; published for two classes)
VARIANTS = {
    "resnet18_lstm_best": (2, 11_965_506, 788_994),
    "mobilenetv3_lstm_3class_best": (3, 4_219_698 + 257, 1_247_746 + 257),
    "mobilenetv3_framelevel_best": (2, 4_204_594, None),
    "mobilenetv3_framelevel_3class_best": (3, 4_204_594 + 1_281, None),
}


def draw_weights(model: nn.Module) -> nn.Module:
    """BatchNorms as if trained, and a last layer large enough that a difference would show in the logits."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 2.0)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
            module.num_batches_tracked.fill_(7)
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    nn.init.normal_(last.weight, std=0.3)
    return model.eval()


@pytest.mark.parametrize(("name", "bare"), [(name, place % 2 == 1) for place, name in enumerate(VARIANTS)])
def test_an_imported_checkpoint_says_what_the_original_says(name: str, bare: bool, tmp_path: Path):
    num_classes, num_trainable, num_frozen = VARIANTS[name]
    original = draw_weights(study_module(name, num_classes))
    content = {"model_state_dict": original.state_dict(), "epoch": 6, "val_f1": 0.5946}
    torch.save(original.state_dict() if bare else content, tmp_path / "a.pth")  # its name says nothing
    imported = import_checkpoint(tmp_path / "a.pth", tmp_path / "ours")

    is_video = isinstance(original, CnnLstm)
    kind = transformers.AutoModelForVideoClassification if is_video else AutoModelForImageClassification
    loaded = kind.from_pretrained(tmp_path / "ours").eval()
    assert loaded.num_parameters(only_trainable=True) == num_trainable
    loaded.encoder.requires_grad_(False)
    assert num_frozen is None or loaded.num_parameters(only_trainable=True) == num_frozen
    pixels = torch.randn(1, *([8] if is_video else []), 3, 112, 112)
    assert_same_logits(original(pixels), imported.model(pixels).logits, loaded(pixels).logits)

    results = read_results(tmp_path / "ours")
    label_names = {2: ["disengaged", "engaged"], 3: ["engaged", "bored", "other"]}[num_classes]
    assert results.label_names == [loaded.config.id2label[i] for i in range(num_classes)] == label_names
    assert results.imported.reported_by_file == (ReportedByFile() if bare else ReportedByFile(epoch=6, val_f1=0.5946))
    assert imported.results == results and results.data is None and not results.measurements


def assert_same_logits(expected: torch.Tensor, *others: torch.Tensor) -> None:
    differences = [float((logits - expected).detach().abs().max()) for logits in others]
    print(f"logits of deviation {expected.std():.2g} differ by {differences}")
    assert expected.std() > 0.05 and max(differences) <= 1e-5


@pytest.fixture(scope="module")
def one_frame_weights() -> dict[str, torch.Tensor]:
    """Of the smallest variant, for all that does not depend on the architecture."""
    return draw_weights(study_module("mobilenetv3", 2)).state_dict()


def save_and_import(content: object, folder: Path, **arguments: object) -> torch.nn.Module:
    torch.save(content, folder / "best.pth")
    return import_checkpoint(folder / "best.pth", folder / "ours", **arguments).model


CHANGES: dict[str, Callable[[dict], dict]] = {
    "data parallel": lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
    "no counters": lambda weights: {name: weight for name, weight in weights.items() if "num_batches" not in name},
    "other order": lambda weights: dict(reversed(weights.items())),
    "parameters": lambda weights: {k: nn.Parameter(w) if w.is_floating_point() else w for k, w in weights.items()},
    "optimizer": lambda weights: {"model_state_dict": weights, "optimizer_state_dict": {"state": {}, "lr": 1e-4}},
}


@pytest.fixture(scope="module")
def imported_weights(one_frame_weights: dict, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The same as they come in."""
    return save_and_import(one_frame_weights, tmp_path_factory.mktemp("plain")).state_dict()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_how_a_state_dict_was_saved_does_not_matter(
    change: Callable, one_frame_weights: dict, imported_weights: dict, tmp_path: Path
):
    for name, weight in save_and_import(change(one_frame_weights), tmp_path).state_dict().items():
        assert name.endswith("num_batches_tracked") or weight.equal(imported_weights[name])


# scikit-learn's f1_score gave np.float64, which weights_only=True alone refuses.
@pytest.mark.parametrize(
    ("val_f1", "reported", "zipped"),  # not zipped: as before PyTorch 1.6
    [
        (np.float64(0.25), 0.25, True),
        (np.float64(0.25), 0.25, False),
        (float("nan"), None, True),
        ("high", None, False),
    ],
)
def test_the_score_of_the_file_is_kept_if_it_is_a_number(
    zipped: bool, val_f1: object, reported: float | None, one_frame_weights: dict, tmp_path: Path
):
    before = set(torch.serialization.get_safe_globals())
    content = {"model_state_dict": one_frame_weights, "epoch": 3, "val_f1": val_f1}
    torch.save(content, tmp_path / "best.pth", _use_new_zipfile_serialization=zipped)
    imported = import_checkpoint(tmp_path / "best.pth", tmp_path / "ours")
    assert imported.origin.reported_by_file == ReportedByFile(epoch=3, val_f1=reported)
    assert set(torch.serialization.get_safe_globals()) == before  # what is let through here stays here


def test_label_names_can_be_given_and_are_needed_for_other_numbers(tmp_path: Path):
    weights = draw_weights(study_module("mobilenetv3", 4)).state_dict()
    with pytest.raises(DataError, match=r"best\.pth .* 4 different .*got none"):
        save_and_import(weights, tmp_path)
    assert save_and_import(weights, tmp_path, label_names=STATES).config.label2id == STATE_MAPS["label2id"]


def test_frames_are_read_as_the_study_read_them(tmp_path: Path, one_frame_weights: dict):
    frames = np.random.default_rng(0).integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((frames[:8] / 255 - mean) / std).transpose(0, 3, 1, 2)
    save_and_import(one_frame_weights, tmp_path)
    picture = AutoImageProcessor.from_pretrained(tmp_path / "ours")(frames[0])["pixel_values"]
    np.testing.assert_allclose(picture[0], expected[0], atol=1e-5)
    torch.save(study_module("resnet18_lstm", 2).state_dict(), tmp_path / "lstm.pth")
    import_checkpoint(tmp_path / "lstm.pth", tmp_path / "lstm")
    processor = transformers.AutoVideoProcessor.from_pretrained(tmp_path / "lstm")
    np.testing.assert_allclose(processor(frames)["pixel_values"][0], expected, atol=1e-5)
    wide = np.zeros((9, 48, 64, 3), dtype=np.uint8)  # squeezed to a square, and nobody looks for a face
    assert processor(wide)["pixel_values"].shape == (1, 8, 3, 112, 112)


class Code:
    """Unpickled as code, it would leave a folder named "trace" in the working directory."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("trace",)


def as_saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


CODE = pickle.dumps(Code(), protocol=2)
FIRST, LAST = "features.0.0.weight", "classifier.3.weight"
HUGE = torch.ones(1, 1).expand(10**12, 1280)  # one number in memory
# name: (the file's bytes, or what torch.save writes to it; what the user is told)
DAMAGED: dict[str, tuple[Callable[[dict], object], str]] = {
    "empty": (lambda weights: b"", "an empty file"),
    "text": (lambda weights: b"epoch,train_loss\n1,0.5\n", "damaged"),
    "cut": (lambda weights: as_saved(weights)[:10_000_000], "damaged"),
    "code, protocol 2": (lambda weights: CODE, r"code in it \(\w+.mkdir\), which"),
    "code": (lambda weights: pickle.dumps(Code()), "damaged"),
    "code in torch.save": (lambda weights: {"model_state_dict": weights, "epoch": Code()}, r"code in it \(\w+.mkdir\)"),
    "tensor": (lambda weights: weights[FIRST], "got Tensor"),
    "no weights": (lambda weights: {}, "got dict"),
    "meta tensor": (lambda weights: weights | {FIRST: weights[FIRST].to("meta")}, "dense tensors"),
    "sparse": (lambda weights: weights | {FIRST: weights[FIRST].to_sparse()}, "dense tensors"),
    "integers": (lambda weights: weights | {FIRST: weights[FIRST].int()}, "dense tensors"),
    "other network": (lambda weights: resnet18().state_dict(), "ResNet-18 .* but conv1.weight"),
    "missing": (lambda weights: {k: w for k, w in weights.items() if k != FIRST}, rf"1 missing \({FIRST}\) and 0 unkn"),
    "unknown": (lambda weights: weights | {"attention.weight": torch.ones(1)}, r"1 unknown \(attention.weight\)"),
    "shape": (lambda weights: weights | {FIRST: torch.ones(16, 1, 3, 3)}, r"\(16, 3, 3, 3\) .* \(16, 1, 3, 3\)"),
    "scalar head": (lambda weights: weights | {LAST: torch.tensor(1.0)}, rf"{LAST} .*\(2, 1280\) .* got \(\)"),
    "huge head": (lambda weights: weights | {LAST: HUGE, "classifier.3.bias": HUGE[:, 0]}, f"{10**12} different label"),
    "nan": (lambda weights: weights | {FIRST: weights[FIRST] * torch.nan}, f"{FIRST} in .* NaN or infinity"),
    "too large": (lambda weights: weights | {FIRST: weights[FIRST].double() * 1e300}, "NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_checkpoint_is_refused_in_one_line(
    name: str, one_frame_weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path, (damage, told) = tmp_path / "best.pth", DAMAGED[name]
    content = damage(one_frame_weights)
    path.write_bytes(content if isinstance(content, bytes) else as_saved(content))
    with pytest.raises((ModelLoadError, DataError), match=told) as refusal:
        import_checkpoint(path, tmp_path / "ours")
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.pth"]  # no code ran, and nothing was written


def test_what_is_no_file_is_refused_and_what_holds_something_left_alone(one_frame_weights: dict, tmp_path: Path):
    for path, told in ((tmp_path, "a folder"), (tmp_path / "best.pth", "does not exist")):
        with pytest.raises(ModelLoadError, match=told):
            import_checkpoint(path, tmp_path / "ours")
    (tmp_path / "ours").mkdir()
    save_and_import(one_frame_weights, tmp_path)  # an empty one is taken
    before = (tmp_path / "ours/config.json").read_text()
    for output in (tmp_path / "ours", tmp_path / "best.pth"):
        with pytest.raises(DataError, match="new or empty"):
            import_checkpoint(tmp_path / "best.pth", output)
    with pytest.raises(DataError, match="could not"):
        import_checkpoint(tmp_path / "best.pth", tmp_path / "best.pth" / "ours")
    assert (tmp_path / "ours/config.json").read_text() == before


# --- Stock classifiers


STOCK = {
    "beit": lambda: stock_beit(use_relative_position_bias=True),
    "beit class token": lambda: stock_beit(use_mean_pooling=False, use_absolute_position_embeddings=True),
    "beit shared bias": lambda: stock_beit(use_shared_relative_position_bias=True),
    "timm resnet": lambda: stock_timm("resnet18"),
    "timm mobilenet": lambda: stock_timm("mobilenetv3_small_050"),
    "timm vit": lambda: stock_timm("vit_tiny_patch16_224", 32, img_size=32, depth=2),
}


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_classifier_says_the_same_as_ours(name: str, tmp_path: Path):
    stock = save_stock(STOCK[name](), tmp_path / "stock")
    imported = import_stock_classifier(tmp_path / "stock", tmp_path / "ours")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "ours").eval()
    size_px = loaded.config.image_size
    noise = torch.randn(3, 3, size_px, size_px)
    assert_same_logits(stock(noise).logits, imported.model(noise).logits, loaded(noise).logits)
    assert read_results(tmp_path / "ours").label_names == list(loaded.config.id2label.values()) == STATES
    processor = AutoImageProcessor.from_pretrained(tmp_path / "ours")
    assert (processor.face_crop, processor.face_margin_ratio, processor.face_crop_size_px) == (True, 0.2, size_px)
    mean_std = ([0.5] * 3, [0.5] * 3) if "beit" in name else ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (list(processor.image_mean), list(processor.image_std)) == mean_std
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "ours").glob("*.json"))


@pytest.mark.parametrize("size", [32, {"height": 32, "width": 32}, {"shortest_edge": 32}])
def test_the_stock_processor_is_kept_and_labels_can_be_given(size: object, tmp_path: Path):
    save_stock(stock_beit(), tmp_path / "stock")
    settings = {"size": size, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4] * 3, "rescale_factor": 0.5}
    (tmp_path / "stock/preprocessor_config.json").write_text(json.dumps(settings))
    imported = import_stock_classifier(tmp_path / "stock", tmp_path / "ours", ["a", "b", "c", "d"])
    processor = AutoImageProcessor.from_pretrained(tmp_path / "ours")
    assert (processor.size["height"], processor.size["width"], processor.rescale_factor) == (32, 32, 0.5)
    assert [*processor.image_mean, *processor.image_std] == [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]
    assert imported.model.config.id2label == dict(enumerate("abcd"))


def test_old_stock_folders_are_read(tmp_path: Path):
    # Before transformers 5: a pickle, and position indices among the weights. 40 px, as nowhere else here: BEiT keeps
    # tensors by size, and training must not stumble over those of an import.
    stock = save_stock(stock_beit(use_relative_position_bias=True, image_size=40), tmp_path / "stock")
    weights = load_file(tmp_path / "stock" / WEIGHTS)
    index = "beit.encoder.layer.0.attention.attention.relative_position_bias.relative_position_index"
    (tmp_path / "stock" / WEIGHTS).unlink()
    torch.save(weights | {index: torch.zeros(26, 26, dtype=torch.int64)}, tmp_path / "stock" / PICKLED)
    model = import_stock_classifier(str(tmp_path / "stock"), tmp_path / "ours").model
    noise = torch.randn(2, 3, 40, 40)
    model(noise).logits.sum().backward()
    assert_same_logits(stock(noise).logits, model(noise).logits)


def change_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weight(folder: Path, name: str, weight: torch.Tensor | None) -> None:
    weights = load_file(folder / WEIGHTS) | {name: weight}
    save_file({k: w for k, w in weights.items() if w is not None}, folder / WEIGHTS, {"format": "pt"})


STOCK_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "cannot be imported"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "a JSON object as config.json"),
    "cut": (lambda folder: (folder / WEIGHTS).write_bytes(b"cut"), "header too small"),
    "code": (lambda folder: (folder / WEIGHTS).rename(folder / PICKLED).write_bytes(CODE), "cannot be imported"),
    "missing": (lambda folder: change_weight(folder, "classifier.bias", None), r"1 missing \(classifier.bias\)"),
    "unknown": (lambda folder: change_weight(folder, "extra", torch.ones(1)), r"1 unknown \(extra\)"),
    "shape": (lambda folder: change_weight(folder, "classifier.bias", torch.ones(7)), r"r\.bias .*\(4,\).*\(7,\)"),
    "nan": (lambda folder: change_weight(folder, "classifier.bias", torch.ones(4) / 0), "NaN or infinity"),
    "settings": (lambda folder: (folder / "preprocessor_config.json").write_text("{"), "processor's settings"),
    "wide": (lambda folder: change_json(folder / "preprocessor_config.json", size=[32, 16]), "square pictures"),
    "std": (lambda folder: change_json(folder / "preprocessor_config.json", image_std=[0, 1, 1]), "settings"),
}  # fmt: skip


@pytest.mark.parametrize("name", STOCK_DAMAGE)
def test_what_is_no_stock_classifier_is_refused_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save_stock(stock_beit(), tmp_path / "stock")
    (tmp_path / "stock/preprocessor_config.json").write_text('{"size": 32}')
    damage, told = STOCK_DAMAGE[name]
    damage(tmp_path / "stock")
    with pytest.raises(ModelLoadError, match=told) as refusal:
        import_stock_classifier(tmp_path / "stock", tmp_path / "ours")
    assert "\n" not in str(refusal.value) and str(tmp_path / "stock") in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["stock"]


def test_other_kinds_and_label_counts_are_refused(tmp_path: Path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vit = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
    save_stock(transformers.ViTForImageClassification(vit), tmp_path / "vit")
    save_stock(stock_timm("deit_tiny_distilled_patch16_224", 32, img_size=32, depth=1), tmp_path / "two heads")
    save_stock(stock_beit(), tmp_path / "stock")
    for source, told in {"vit": "'vit' is neither", "two heads": "one linear layer", "nowhere": "imported"}.items():
        with pytest.raises(ModelLoadError, match=told):
            import_stock_classifier(tmp_path / source, tmp_path / "ours")
    with pytest.raises(DataError, match=r"stock .* 4 different .*got a, b"):
        import_stock_classifier(tmp_path / "stock", tmp_path / "ours", ["a", "b"])


def test_a_training_log_is_read(tmp_path: Path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1,0.70,0.69,0.41\n2,6.5e-1,0.66,0.5\n", encoding="utf-8-sig", newline="\r\n")
    assert [list(row.values()) for row in read_training_log(path)] == [[1, 0.7, 0.69, 0.41], [2, 0.65, 0.66, 0.5]]


BAD_ROWS = (
    "1,2,3", "1,2,3,0.4,5", "1,nan,3,0.4", "1,2,inf,0.4", "1,2,three,0.4", "1,2,3,40", "1.5,2,3,0.4", "1,-2,3,0.4"
)  # fmt: skip
BAD_LOGS = {
    "": "Expected the columns", "epoch,loss\n1,2\n": "got epoch, loss", HEADER.replace("\n", ",lr\n"): "columns",
    HEADER: "increasing epochs", HEADER + "1,2,3,0.4\n2,2,3,0.4\n1,2,3,0.4\n": "one run .* got 1, 2, 1",
    "\xff\xfe\x00": "be read", HEADER + '"1,2,3,0.4': "be read",
    **{HEADER + f"0,2,3,0.4\n{row}\n": "row 2 of" for row in BAD_ROWS},
}  # fmt: skip


@pytest.mark.parametrize(("content", "told"), [*BAD_LOGS.items(), (None, "be read")])
def test_a_log_that_cannot_be_drawn_is_refused(content: str | None, told: str, tmp_path: Path):
    path = tmp_path / "log.csv"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=told) as refusal:
        read_training_log(path)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
