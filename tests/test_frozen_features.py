"""A frozen encoder's features, normalised for the temporal head and remembered from epoch to epoch."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TrainedStages
from tiny_models import draw_pixels, tiny_model

from engagement_recognition import EngagementForVideoClassification, train
from engagement_recognition.modeling_engagement import EngagementFrameEncoder
from engagement_recognition.training import frozen_features
from engagement_recognition.training.arguments import Recipe, StageArguments
from engagement_recognition.training.augmentation import Augmentation
from engagement_recognition.training.frozen_features import can_remember, remembered_features


@pytest.mark.parametrize("head", ["lstm", "transformer", "mean"])
def test_normalised_features_reach_the_head_at_mean_0_and_variance_1(head: str, tmp_path: Path):
    torch.manual_seed(0)
    model = tiny_model("resnet18", head, normalize_features=True).train()
    seen: list[torch.Tensor] = []
    model.temporal.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = 0.3 * torch.rand(16, 2, model.encoder.feature_size) + 0.3
    for _ in range(150):  # until the running mean and variance have settled
        model.classify_features(features)
    model.eval().classify_features(features)
    for read in (seen[0], seen[-1]):  # in training by the batch, outside by what was seen in training
        torch.testing.assert_close(read.mean((0, 1)), torch.zeros(read.shape[-1]), atol=0.05, rtol=0)
        torch.testing.assert_close(read.std((0, 1)), torch.ones(read.shape[-1]), atol=0.05, rtol=0)
    model.save_pretrained(tmp_path)
    again = EngagementForVideoClassification.from_pretrained(tmp_path)
    pixels = draw_pixels(model)
    with torch.no_grad():
        assert torch.equal(again.eval()(pixels).logits, model(pixels).logits)


def test_without_the_option_a_model_has_no_normalisation():
    assert not [name for name in tiny_model("resnet18").state_dict() if "normalization" in name]


def test_a_frame_is_encoded_once_and_its_features_are_those_of_the_encoder():
    encoder = tiny_model("resnet18", "image").eval().encoder.requires_grad_(False)
    pixels = torch.randn(6, 3, 64, 64)
    expected, encoded = encoder(pixels).pooler_output, []
    with pytest.MonkeyPatch.context() as patch:
        read = EngagementFrameEncoder._read
        patch.setattr(
            EngagementFrameEncoder, "_read", lambda self, frames: (encoded.append(len(frames)), read(self, frames))[1]
        )
        with remembered_features(encoder):
            for rows in ([0, 1, 2, 2], [2, 1, 5], [5, 0]):
                torch.testing.assert_close(encoder(pixels[rows]).pooler_output, expected[rows], rtol=1e-4, atol=1e-5)
        assert encoded == [3, 1]
        assert encoder(pixels).last_hidden_state is not None and encoded == [3, 1, 6]


def test_features_beyond_the_memory_are_computed_again(monkeypatch: pytest.MonkeyPatch):
    encoder = tiny_model("resnet18", "image").eval().encoder.requires_grad_(False)
    monkeypatch.setattr(frozen_features, "_LARGEST_NUMBERS", 2 * encoder.feature_size)
    pixels = torch.randn(4, 3, 64, 64)
    expected = encoder(pixels).pooler_output
    with remembered_features(encoder):
        for rows in ([0, 1], [2, 0, 3], [3, 2, 1]):
            torch.testing.assert_close(encoder(pixels[rows]).pooler_output, expected[rows], rtol=1e-4, atol=1e-5)


def test_a_training_that_remembers_features_learns_what_one_that_does_not_learns(
    trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = {key: value for key, value in trained.recipe.items() if key != "expression"}
    section = {**recipe["engagement"], "start_from": str(trained.expression), "freeze_encoder": True}
    section |= {"normalize_features": True}
    losses = {}
    for remembers in (True, False):
        monkeypatch.setattr(train, "can_remember", lambda stage, augmentation, asked=remembers: asked)
        options = {**recipe, "output_dir": str(tmp_path / str(remembers)), "engagement": section}
        (folder,) = train.train(Recipe(options), {})
        results = json.loads((folder / "results.json").read_text())
        losses[remembers] = [row.get("loss", row.get("eval_loss")) for row in results["training"]["log"]]
        assert json.loads((folder / "config.json").read_text())["normalize_features"] is True
    assert losses[True][:-1] == pytest.approx(losses[False][:-1], rel=1e-3)  # the last row is of the whole training


@pytest.mark.parametrize(
    ("options", "remembers"),
    [
        ({"freeze_encoder": True}, True),
        ({}, False),
        ({"freeze_encoder": True, "cutmix": 0.5}, False),
        ({"freeze_encoder": True, "mixup": 0.5}, False),
        ({"freeze_encoder": True, "subject_adversary": 0.1}, False),
        ({"freeze_encoder": True, "augmentation": {"flip": 0.5}}, False),
    ],
)
def test_features_that_change_are_not_remembered(options: dict[str, object], remembers: bool):
    stage = StageArguments(**{name: value for name, value in options.items() if name != "augmentation"})
    assert can_remember(stage, Augmentation.from_recipe(options.get("augmentation", {}))) == remembers
