"""Weights: drawn as each part wants them, saved and loaded exactly, taken over from elsewhere without a scratch."""

import copy
import json
from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ENCODERS, PAIRS, draw_pixels, tiny_config, tiny_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperModel,
)

from engagement_recognition import (
    EngagementConfig,
    EngagementForImageClassification,
    EngagementForVideoClassification,
    register_auto_classes,
)

MODEL_CLASSES = (EngagementForImageClassification, EngagementForVideoClassification)
SMALL_HEAD = {"temporal_hidden_size": 16, "num_labels": 3}


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


@pytest.fixture
def cheap_first_weights(monkeypatch: pytest.MonkeyPatch):
    # Nezami's nets draw up to 38 million truncated normals, seconds each time.
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, std=1.0, **_: nn.init.uniform_(tensor, -std, std))


def assert_same_tensors(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=0, msg=lambda text, n=name: f"{n}: {text}")


def logits_of(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(pixel_values).logits


def train_a_little(model: nn.Module) -> nn.Module:
    """Every weight and every running statistic away from where it began, which a redraw could give again."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


# First weights


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_a_timm_encoder_from_scratch_keeps_timm_s_own_first_weights(model_class: type):
    # The wrapper would redraw every layer from N(0, 0.02), from which a deep net of convolutions does not train.
    model = model_class(EngagementConfig(**SMALL_HEAD))
    for name, weight in model.encoder.model.timm_model.state_dict().items():
        if weight.ndim == 4:  # timm draws ResNets by He's rule: variance 2 / fan_out
            fan_out = weight.shape[0] * weight[0, 0].numel()
            assert float(weight.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
    torch.manual_seed(0)
    timm_s_own = timm.create_model("resnet18", num_classes=0).state_dict()
    torch.manual_seed(0)
    assert_same_tensors(model_class(EngagementConfig()).encoder.model.timm_model.state_dict(), timm_s_own)


@pytest.mark.parametrize("encoder", ["nezami_cnn", pytest.param("nezami_vgg", marks=pytest.mark.slow)])
def test_nezami_s_nets_start_as_tflearn_draws_them(encoder: str):
    net = tiny_model(encoder, "image", encoder_features="pooled").encoder.model.timm_model
    for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
        bound = (3 / conv.weight[0].numel()) ** 0.5  # "uniform_scaling"
        assert 0.95 * bound < float(conv.weight.detach().abs().max()) <= bound * 1.000001
        assert float(conv.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not conv.bias.any()
    for layer in (module for module in net.dense if isinstance(module, nn.Linear)):
        assert 0.035 < float(layer.weight.detach().abs().max()) <= 0.04  # a normal of 0.02, cut at two deviations
        assert float(layer.weight.detach().std()) == pytest.approx(0.0176, rel=0.02)
    assert net.dense[-3].out_features == 1024


@pytest.mark.usefixtures("cheap_first_weights")
def test_nezami_s_cnn_normalises_like_tensorflow():
    # tf.nn.local_response_normalization(x, depth_radius=5, bias=1, alpha=1e-4, beta=0.75), written out.
    net = timm.create_model("nezami_cnn")
    feature_map = torch.randn(1, 64, 3, 3) * 30
    squares = nn.functional.pad(feature_map**2, (0, 0, 0, 0, 5, 5))
    sums = torch.stack([squares[:, channel : channel + 11].sum(1) for channel in range(64)], dim=1)
    expected = feature_map / (1 + 1e-4 * sums) ** 0.75
    torch.testing.assert_close(net.blocks[0][2](feature_map), expected, rtol=1e-4, atol=1e-4)


def assert_freshly_drawn(model: EngagementForVideoClassification) -> None:
    fresh = {name: weight for name, weight in model.state_dict().items() if not name.startswith("encoder.")}
    for name, weight in fresh.items():
        assert torch.isfinite(weight).all(), name
        if "bias" in name:
            assert not weight.any(), name
        elif "norm" not in name:
            # Drawn, not filled: values differ, lie about 0, and are neither vanishing nor huge.
            assert 0.005 < float(weight.std()) < 0.5 and abs(float(weight.mean())) < 0.02, name


@pytest.mark.parametrize("head", ["lstm", "transformer", "mean", "last"])
def test_the_heads_start_small_and_unbiased(head: str):
    model = tiny_model("resnet18", head, temporal_hidden_size=64)
    assert_freshly_drawn(model)
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(("head", "alike"), [("last", True), ("mean", False)])
def test_the_last_head_sees_no_frame_but_the_last(head: str, alike: bool):
    model = tiny_model("resnet18", head).eval()
    pixel_values = draw_pixels(model)
    changed = pixel_values.clone()
    changed[:, :-1] = 0
    assert torch.equal(logits_of(model, changed), logits_of(model, pixel_values)) == alike


# Saving and loading


@pytest.mark.usefixtures("cheap_first_weights")
@pytest.mark.parametrize(("encoder", "head"), PAIRS)
def test_a_saved_model_loads_exactly(encoder: str, head: str, tmp_path: Path):
    features = "map" if head == "lstm" else "pooled"
    model = train_a_little(tiny_model(encoder, head, encoder_features=features))
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert not loaded.training
    assert_same_tensors(loaded.state_dict(), model.state_dict())
    pixel_values = draw_pixels(model)
    torch.testing.assert_close(logits_of(loaded, pixel_values), logits_of(model, pixel_values), rtol=0, atol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_saved_config_loads_as_it_was(encoder: str, tmp_path: Path):
    fields = {"temporal": "transformer", "encoder_features": "pooled", "dropout": 0.25, "temporal_num_layers": 2}
    names = {"id2label": {0: "disengaged", 1: "engaged"}, "label2id": {"disengaged": 0, "engaged": 1}}
    config = tiny_config(encoder, **fields, num_labels=2, **names)
    config.save_pretrained(tmp_path)
    register_auto_classes()
    for loaded in (EngagementConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is EngagementConfig
        assert type(loaded.encoder_config) is type(config.encoder_config)
        assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
        assert {"id2label": loaded.id2label, "label2id": loaded.label2id} == names


def test_the_auto_classes_load_ours(tmp_path: Path):
    register_auto_classes()
    for head, auto_class in (("image", AutoModelForImageClassification), ("lstm", AutoModelForVideoClassification)):
        model = tiny_model("beit", head)
        model.save_pretrained(tmp_path / head)
        loaded = auto_class.from_pretrained(tmp_path / head)
        assert type(loaded) is type(model)
        assert_same_tensors(loaded.state_dict(), model.state_dict())


def test_loaded_weights_do_not_hang_on_the_file(tmp_path: Path):
    # Mapped from the file, the model would change, or crash the process, when a training run overwrites the folder.
    model = tiny_model("beit", "lstm")
    model.save_pretrained(tmp_path)
    loaded = EngagementForVideoClassification.from_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"\xff" * (file.stat().st_size // 2))
    assert_same_tensors(loaded.state_dict(), model.state_dict())


# Pretrained encoders


@pytest.mark.parametrize("features", ["map", "pooled"])
@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_a_local_beit_arrives_untouched(model_class: type, features: str, tmp_path: Path):
    pretrained = train_a_little(AutoModel.from_config(tiny_config("beit").encoder_config))
    pretrained.save_pretrained(tmp_path)
    model = model_class.from_encoder(tmp_path, encoder_features=features, **SMALL_HEAD)
    expected = pretrained.state_dict()
    if features == "map":  # the pooler lies behind the map
        expected = {name: weight for name, weight in expected.items() if not name.startswith("pooler.")}
    assert_same_tensors(model.encoder.model.state_dict(), expected)
    assert model.config.num_labels == 3 and model.classifier.out_features == 3
    model.save_pretrained(tmp_path / "exported")
    assert str(tmp_path) not in (tmp_path / "exported/config.json").read_text()  # configs are published


def save_as_wrapper(folder: Path, wrapper_class: type = TimmWrapperModel) -> dict[str, torch.Tensor]:
    wrapper = train_a_little(wrapper_class(TimmWrapperConfig(architecture="resnet18")))
    wrapper.save_pretrained(folder)
    return {name: weight for name, weight in wrapper.timm_model.state_dict().items() if not name.startswith("fc.")}


save_as_wrapped_classifier = partial(save_as_wrapper, wrapper_class=TimmWrapperForImageClassification)


def save_as_timm_s_repository(folder: Path) -> dict[str, torch.Tensor]:
    """The layout of `timm/resnet18.a1_in1k` on the Hub: timm's own names, with a classifier of 1,000 classes."""
    net = train_a_little(timm.create_model("resnet18"))
    settings = {"architecture": "resnet18", "num_classes": 1000, "num_features": 512}
    settings["pretrained_cfg"] = {"tag": "test", "num_classes": 1000, "input_size": [3, 224, 224], "classifier": "fc"}
    folder.joinpath("config.json").write_text(json.dumps(settings), encoding="utf-8")
    weights = {name: weight.contiguous() for name, weight in net.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return {name: weight for name, weight in weights.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("save", [save_as_wrapper, save_as_wrapped_classifier, save_as_timm_s_repository])
@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_a_local_timm_encoder_arrives_untouched(model_class: type, save, tmp_path: Path):
    expected = save(tmp_path)
    model = model_class.from_encoder(str(tmp_path), **SMALL_HEAD)
    assert model.config.encoder_features == "map"
    assert_same_tensors(model.encoder.model.timm_model.state_dict(), expected)


@pytest.mark.parametrize("encoder", ["resnet18", "beit"])
def test_stage_two_starts_with_stage_one_s_encoder(encoder: str, tmp_path: Path):
    features = "map" if encoder == "resnet18" else "pooled"
    stage_one = train_a_little(tiny_model(encoder, "image", num_labels=7, encoder_features=features))
    stage_one.save_pretrained(tmp_path)
    stage_two = EngagementForVideoClassification.from_encoder(tmp_path, temporal_hidden_size=64, num_labels=2)
    assert_same_tensors(stage_two.encoder.state_dict(), stage_one.encoder.state_dict())
    assert stage_two.config.encoder_features == features
    assert_freshly_drawn(stage_two)


@pytest.mark.parametrize("head", ["lstm", "transformer"])
def test_heads_that_a_checkpoint_does_not_hold_are_drawn(head: str, tmp_path: Path):
    # from_pretrained builds on the meta device: what no file fills is memory nobody has written to, unless drawn.
    stage_one = tiny_model("beit", "image", num_labels=7)
    stage_one.save_pretrained(tmp_path)
    config = tiny_config("beit", temporal=head, temporal_hidden_size=64, num_labels=2)
    stage_two, report = EngagementForVideoClassification.from_pretrained(
        tmp_path, config=config, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {name.split(".")[0] for name in report["missing_keys"]} <= {"temporal", "classifier"}
    assert_same_tensors(stage_two.encoder.state_dict(), stage_one.encoder.state_dict())
    assert_freshly_drawn(stage_two)


def test_a_bare_architecture_starts_from_random_weights():
    first, second = (EngagementForImageClassification.from_encoder("resnet18") for _ in range(2))
    assert first.config.encoder_config.architecture == "resnet18"
    assert not torch.equal(first.encoder.model.timm_model.conv1.weight, second.encoder.model.timm_model.conv1.weight)


@pytest.mark.parametrize("encoder", ["timm/no-such-net.for_tests", "no-such-organisation/no-such-beit", "no_such_net"])
def test_without_network_one_line_says_what_and_what_instead(encoder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError) as caught:
        EngagementForVideoClassification.from_encoder(encoder)
    message = str(caught.value)
    assert "\n" not in message
    assert f"'{encoder}'" in message and "neither found" in message and "on the Hub" in message
    assert "pass a local folder" in message and "resnet18" in message


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path):
    tiny_config("beit").encoder_config.save_pretrained(tmp_path)
    with pytest.raises(OSError, match=rf"{tmp_path.name}.*no weights in it") as caught:
        EngagementForVideoClassification.from_encoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_cover_the_encoder_are_refused(tmp_path: Path):
    # transformers fills the gap with random weights and says so in a log; training would then start from noise.
    AutoModel.from_config(tiny_config("beit").encoder_config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1." not in name and "layer.1." not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"no weights for \d+ layers of the encoder"):
        EngagementForVideoClassification.from_encoder(tmp_path)


def test_a_config_is_not_shared_between_models():
    config = tiny_config("beit")
    model = EngagementForVideoClassification(config)
    before = copy.deepcopy(config.to_dict())
    EngagementForVideoClassification.from_encoder("resnet18", num_labels=5)
    assert model.config.to_dict() == before


@pytest.mark.usefixtures("cheap_first_weights")
@pytest.mark.parametrize(("encoder", "num_channels"), [("resnet18", 1), ("nezami_cnn", 3)])
def test_a_bare_architecture_takes_as_many_channels_as_asked(encoder: str, num_channels: int):
    model = EngagementForImageClassification.from_encoder(encoder, num_channels=num_channels, image_size=48)
    assert model.config.encoder_features == ("map" if encoder == "resnet18" else "pooled")
    assert logits_of(model, draw_pixels(model)).shape == (2, 2)


def test_stage_two_cannot_change_stage_one_s_channels(tmp_path: Path):
    EngagementForImageClassification.from_encoder("resnet18", num_channels=1).save_pretrained(tmp_path)
    assert EngagementForVideoClassification.from_encoder(tmp_path).config.num_channels == 1
    with pytest.raises(ValueError, match=rf"{tmp_path.name} was trained with num_channels 1"):
        EngagementForVideoClassification.from_encoder(tmp_path, num_channels=3)


def test_a_frozen_encoder_does_not_go_on_adapting():
    # BatchNorm's running statistics are no weights: requires_grad alone leaves them drifting in every training step.
    model = tiny_model("resnet18", "lstm")
    model.encoder.requires_grad_(False)
    before = copy.deepcopy(model.encoder.state_dict())
    model.train()(draw_pixels(model))
    assert_same_tensors(model.encoder.state_dict(), before)
    assert model.dropout.training and model.temporal.training
    model.encoder.requires_grad_(True)
    model.train()(draw_pixels(model))
    assert not torch.equal(model.encoder.model.timm_model.bn1.running_mean, before["model.timm_model.bn1.running_mean"])
