"""The model: any encoder under either head, the reference's size, order seen or not, the same in every precision."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_models import ENCODERS, HEADS, PAIRS, draw_pixels, tiny_model
from torch import nn

from engagement_recognition import EngagementConfig

TEMPORAL_HEADS = ("lstm", "transformer", "mean")
# ConvNeXT normalises behind its own pooling: with "map" that one layer is left out, and nothing pulls at its weights.
UNUSED = {("convnext", "map"): {"encoder.model.layernorm.weight", "encoder.model.layernorm.bias"}}


@pytest.fixture(autouse=True)
def cheap_first_weights(monkeypatch: pytest.MonkeyPatch):
    # Nezami's nets draw up to 38 million truncated normals, seconds each time; test_encoders looks at the real ones.
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, std=1.0, **_: nn.init.uniform_(tensor, -std, std))
    torch.manual_seed(0)


def logits_of(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(pixel_values).logits


@pytest.mark.parametrize(("encoder", "head", "features"), [
    (*pair, features) for pair, features in zip(PAIRS, ("map", "pooled") * len(ENCODERS), strict=True)
])  # fmt: skip
def test_every_encoder_trains(encoder: str, features: str, head: str):
    model = tiny_model(encoder, head, encoder_features=features).train()
    outputs = model(draw_pixels(model), labels=torch.tensor([0, 2]))
    assert outputs.logits.shape == (2, 3) and outputs.loss.shape == () and torch.isfinite(outputs.loss)
    outputs.loss.backward()
    without_gradient = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without_gradient == UNUSED.get((encoder, features), set())
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


@pytest.mark.parametrize(
    ("encoder", "map_shape"),
    [
        ("resnet18", (32, 2, 2)),
        ("mobilenetv3_large_100", (960, 2, 2)),
        ("face_vgg8_050", (256, 5, 5)),
        ("nezami_cnn", (128, 12, 12)),
        ("nezami_vgg", (512, 3, 3)),
        ("timm_vit", (192, 2, 2)),
        ("timm_swin", (32, 4, 4)),
        ("beit", (32, 4, 4)),
        ("vit", (32, 4, 4)),
        ("swin", (32, 4, 4)),
        ("convnext", (32, 2, 2)),
        ("resnet", (16, 4, 4)),
    ],
)
def test_every_encoder_gives_a_feature_map_and_features(encoder: str, map_shape: tuple[int, int, int]):
    # Explanations read the map of any encoder; tokens and channels-last maps are folded to this one form.
    for features in ("map", "pooled"):
        model = tiny_model(encoder, "image", encoder_features=features).eval()
        outputs = model.encoder(draw_pixels(model))
        assert outputs.last_hidden_state.shape == (2, *map_shape)
        assert outputs.pooler_output.shape == (2, model.encoder.feature_size)
        is_mean = outputs.pooler_output.shape[1] == map_shape[0] and torch.allclose(
            outputs.pooler_output, outputs.last_hidden_state.mean(dim=(2, 3)), atol=1e-5
        )
        assert is_mean or features == "pooled"


def test_a_token_s_place_in_the_map_is_its_patch_s_place_in_the_picture():
    # Folded in the wrong order, a heat map would point elsewhere: change one patch, see which place changes most.
    model = tiny_model("vit", "image").eval()
    plain = torch.zeros(1, 3, 32, 32)
    changed = plain.clone()
    changed[..., 8:16, 24:32] = 5.0  # patches are 8 px: row 1, column 3
    with torch.no_grad():
        difference = model.encoder(changed).last_hidden_state - model.encoder(plain).last_hidden_state
    assert int(difference.norm(dim=1).flatten().argmax()) == 1 * 4 + 3


@pytest.mark.parametrize("head", ["image", "lstm"])
def test_views_of_a_face_are_averaged_outside_training_alone(head: str):
    model = tiny_model("face_vgg8_050", head, encoder_features="pooled", initializer_range=1.0, dropout=0.0)
    pixels = draw_pixels(model)
    plain, mirrored = logits_of(model, pixels), logits_of(model, pixels.flip(-1))
    model.config.test_time_views = 2
    both = logits_of(model, pixels)
    torch.testing.assert_close(both, logits_of(model, pixels.flip(-1)))  # a face and its mirror image are one
    if head == "image":  # behind features, all is linear
        torch.testing.assert_close(both, (plain + mirrored) / 2)
    model.config.test_time_views = 10
    assert (logits_of(model, pixels) - both).abs().max() > 1e-4
    plain_map = model.encoder(pixels.flatten(0, -4)).last_hidden_state
    model.config.test_time_views = 1
    assert torch.equal(plain_map, model.encoder(pixels.flatten(0, -4)).last_hidden_state)  # what explanations read
    in_training = {}
    for views in (1, 10):
        model.config.test_time_views = views
        torch.manual_seed(0)
        in_training[views] = model.train()(pixels).logits
    assert torch.equal(in_training[1], in_training[10])


def test_faces_need_not_be_square_for_an_encoder_that_names_its_patches():
    model = tiny_model("beit", "image", encoder_features="pooled").eval()
    feature_map = model.encoder.to_feature_map(torch.zeros(1, 1 + 2 * 6, 32), (16, 48))
    assert feature_map.shape == (1, 32, 2, 6)


@pytest.mark.parametrize("head", TEMPORAL_HEADS)
def test_flipping_the_frames_order_changes_all_but_the_mean_head(head: str):
    # The mean head is the control of "does time carry information": it must be blind to order, the others not.
    model = tiny_model("beit", head, initializer_range=1.0)
    clip = draw_pixels(model, num_frames=5)
    difference = (logits_of(model, clip) - logits_of(model, clip.flip(1))).abs().max()
    assert difference < 1e-5 if head == "mean" else difference > 1e-3


SOME_PAIRS = list(zip(("nezami_cnn", "resnet18", "beit", "mobilenetv3_large_100"), HEADS, strict=True))


@pytest.mark.parametrize(("encoder", "head"), SOME_PAIRS)
def test_a_clip_s_logits_do_not_depend_on_the_rest_of_its_batch(encoder: str, head: str):
    model = tiny_model(encoder, head, encoder_features="pooled", initializer_range=1.0)
    clips = draw_pixels(model, batch_size=3)
    alone = torch.cat([logits_of(model, clip[None]) for clip in clips])
    torch.testing.assert_close(logits_of(model, clips), alone, rtol=1e-5, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-3, "clips that differ are meant to have other logits"


@pytest.mark.parametrize(("head", "shape"), [("image", (2, 2, 3, 32, 32)), ("lstm", (2, 3, 32, 32)), ("mean", (3, 32))])
def test_wrong_dimensions_are_refused_with_the_expected_ones(head: str, shape: tuple[int, ...]):
    expected = "num_channels, height, width" if head == "image" else "num_frames, num_channels, height, width"
    with pytest.raises(ValueError, match=rf"pixel_values .*\(batch_size, {expected}\), got \(\d"):
        tiny_model("beit", head)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "num_frames of at least 1, got 0"),
        ({"num_channels": 0}, "num_channels of at least 1, got 0"),
        ({"temporal_hidden_size": 0}, "temporal_hidden_size of at least 1"),
        ({"temporal": "transformer", "temporal_num_heads": 0}, "temporal_num_heads of at least 1"),
        ({"temporal": "transformer", "temporal_hidden_size": 10, "temporal_num_heads": 4}, r"\(10\) to be a multiple"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\), got 1.0"),
        ({"dropout": float("nan")}, "dropout in"),
        ({"temporal": "gru"}, r"'temporal' expected one of \('lstm', 'transformer', 'mean', 'last'\), got gru"),
        (
            {"encoder_features": "tokens"},
            r"'encoder_features' expected one of \('map', 'pooled', 'token'\), got tokens",
        ),
        ({"num_frames": "8"}, "'num_frames' expected int, got str"),
    ],
)
def test_the_config_refuses_what_no_model_can_be_built_from(fields: dict[str, object], message: str):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        EngagementConfig(**fields)


def test_the_default_config_is_the_reference_s():
    config = EngagementConfig()
    assert (config.encoder_config.architecture, config.encoder_features) == ("resnet18", "map")
    assert (config.temporal, config.temporal_hidden_size, config.temporal_num_layers) == ("lstm", 256, 1)
    assert (config.num_frames, config.image_size, config.num_channels, config.num_labels) == (8, 224, 3, 2)


@pytest.mark.parametrize(("encoder", "head"), SOME_PAIRS)
def test_half_precision_stays_near_full_precision(encoder: str, head: str):
    model = tiny_model(encoder, head, encoder_features="pooled")
    pixel_values = draw_pixels(model)
    full = logits_of(model, pixel_values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = logits_of(model, pixel_values)
    half = logits_of(model.to(torch.bfloat16), pixel_values)  # float pixels: the processor knows no model's precision
    assert half.dtype == torch.bfloat16
    tolerance = 0.05 * full.abs().max() + 0.01
    for logits in (mixed, half):
        assert (logits.float() - full).abs().max() < tolerance


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_large_100", "nezami_cnn"])
def test_channels_last_gives_the_same_logits(encoder: str):
    model = tiny_model(encoder, "lstm", encoder_features="pooled", initializer_range=1.0)
    pixel_values = draw_pixels(model)
    plain = logits_of(model, pixel_values)
    torch.testing.assert_close(
        logits_of(model.to(memory_format=torch.channels_last), pixel_values), plain, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("encoder", "head", "backend"),
    [
        ("resnet18", "lstm", "eager"),
        pytest.param("nezami_cnn", "image", "eager", marks=pytest.mark.slow),
        pytest.param("beit", "transformer", "aot_eager", marks=pytest.mark.slow),
        pytest.param("resnet18", "lstm", "inductor", marks=pytest.mark.slow),
        pytest.param("beit", "transformer", "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiled_equals_eager(encoder: str, head: str, backend: str):
    model = tiny_model(encoder, head, encoder_features="pooled", initializer_range=1.0)
    pixel_values = draw_pixels(model)
    plain = logits_of(model, pixel_values)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixel_values).logits, plain, rtol=0, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 0, "nothing was compiled"


def loss_and_gradients(model: nn.Module, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(7)  # dropout stays on: what is recomputed must meet the same masks
    loss = model(pixel_values, labels=torch.tensor([0, 2])).loss
    loss.backward()
    return loss.detach(), [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize(
    ("encoder", "layer_path", "head"),
    [
        ("resnet18", "timm_model.layer3.0.conv1", "lstm"),
        ("beit", "layers.0.mlp.fc1", "image"),
        ("beit", "layers.0.mlp.fc1", "lstm"),
        ("nezami_cnn", "timm_model.blocks.0.0", "image"),
    ],
)
def test_gradient_checkpointing_recomputes_and_changes_nothing(encoder: str, layer_path: str, head: str):
    model = tiny_model(encoder, head, encoder_features="pooled").train()
    pixel_values = draw_pixels(model)
    loss, gradients = loss_and_gradients(model, pixel_values)
    calls: list[int] = []
    model.encoder.model.get_submodule(layer_path).register_forward_hook(lambda *_: calls.append(1))
    # transformers 5.24 calls it activation checkpointing.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{kind}_checkpointing_enable")()
    checkpointed_loss, checkpointed_gradients = loss_and_gradients(model, pixel_values)
    assert len(calls) == 2, "once forwards, once more on the way back"
    torch.testing.assert_close(checkpointed_loss, loss)
    torch.testing.assert_close(checkpointed_gradients, gradients)
    getattr(model, f"{kind}_checkpointing_disable")()
    loss_and_gradients(model, pixel_values)
    assert len(calls) == 3


@pytest.mark.parametrize("head", ["image", "lstm"])
def test_the_loss_is_cross_entropy_over_the_classes(head: str):
    # transformers picks a loss by the class's name, and falls back to a language model's.
    model = tiny_model("beit", head, num_labels=2)
    outputs = model.eval()(draw_pixels(model), labels=torch.tensor([1, 0]))
    expected = nn.functional.cross_entropy(outputs.logits, torch.tensor([1, 0]))
    torch.testing.assert_close(outputs.loss, expected)
