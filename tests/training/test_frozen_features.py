"""A frozen encoder's features: normalised for the temporal head, kept from epoch to epoch; how a head knows order."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from stages import engagement_alone, same_weights, weights_of
from tiny_models import draw_pixels, tiny_model

from engagement_recognition import EngagementForVideoClassification, train
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.split_evaluation import read_predictions
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.training import frozen_features
from engagement_recognition.training.arguments import Recipe, StageRun, plan_stages
from engagement_recognition.training.augmentation import Augmentation
from engagement_recognition.training.frozen_features import KeptFeatures, frames_or_features
from engagement_recognition.training.option_checks import check_options_alone
from engagement_recognition.training.training_sets import FrameCollator


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


@pytest.fixture(scope="module")
def recipe(trained: TrainedStages) -> dict[str, object]:
    """Stage two with a frozen encoder, from the trained stage one."""
    return engagement_alone(trained, Path("nowhere"), freeze_encoder=True, normalize_features=True)


@pytest.mark.parametrize("model", ["video", "image"])
def test_features_that_are_kept_train_the_head_that_pixels_train(
    model: str, recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read, encoded = [], []
    forward, decode = KeptFeatures.forward, frozen_features.decode_picture
    monkeypatch.setattr(KeptFeatures, "forward", lambda self, features, **_: read.append(1) or forward(self, features))
    monkeypatch.setattr(frozen_features, "decode_picture", lambda content: encoded.append(1) or decode(content))

    def run(name: str, **more: object) -> Path:
        options = recipe | {"output_dir": str(tmp_path / name)}
        options["engagement"] = {**recipe["engagement"], "model": model, **more}
        read.clear(), encoded.clear()
        return train.train(Recipe(options), {})[0]

    kept = run("kept")
    assert read and encoded
    plain = run("plain", cache_features=False)
    assert not read and not encoded
    on_disk = run("on_disk", cache_features=True)
    assert read and encoded
    again = run("again", cache_features=True)
    assert read and not encoded  # the file is found
    ours, theirs, mapped, found = (
        read_predictions(folder, "test")[0].logits for folder in (kept, plain, on_disk, again)
    )
    assert np.abs(ours - theirs).max() < 1e-4 and np.abs(theirs).max() > 1e-3
    assert np.array_equal(ours, mapped) and np.array_equal(ours, found)
    assert [read_results(folder).training.features_kept for folder in (kept, plain)] == [True, False]
    weights = weights_of(kept, "encoder.")
    assert same_weights(weights, weights_of(plain, "encoder."))
    checkpoint = next((tmp_path / "kept/checkpoints/engagement").glob("checkpoint-*"))
    assert weights_of(checkpoint, "encoder.").keys() == weights.keys()
    file = max(Path(str(recipe["cache_dir"]), "features").glob("*.npy"), key=lambda path: path.stat().st_mtime)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match=rf"{file.name} .*; delete the file"):
        run("damaged", cache_features=True)


CHANGING = [{}, {"augmentation": '{"flip": 0.5}'}, {"cutmix": 0.5}, {"mixup": 0.5}, {"subject_adversary": 0.1}]


def planned(options: dict[str, object], **typed: str) -> StageRun:
    return plan_stages(Recipe({"engagement": {"data": "clips", "model": "image", **options}}), typed)[0]


@pytest.mark.parametrize("options", CHANGING, ids=str)
def test_features_that_change_are_not_kept(options: dict[str, object]):
    options = {"freeze_encoder": bool(options), **options}
    run, model = planned(options), tiny_model("resnet18", "image")
    augmentation = Augmentation.from_recipe(json.loads(run.stage.augmentation))
    with frames_or_features(model, run, None, augmentation) as (learned, collator):
        assert learned is None and collator is FrameCollator  # what it was given, unread
    name = next(name for name in reversed(options))
    with pytest.raises(RecipeError, match=f"{name} .* cache_features") as refused:
        check_options_alone(planned(options | {"cache_features": True}))
    assert "\n" not in str(refused.value)


def test_a_recipe_augments_no_features_and_says_so(capsys: pytest.CaptureFixture):
    recipe = {"freeze_encoder": True, "augmentation": {"flip": 0.5}}
    run = planned(recipe, cache_features="true")
    assert "augmentation off" in capsys.readouterr().out
    assert json.loads(run.stage.augmentation) == run.given["augmentation"] == {}
    check_options_alone(run)
    with pytest.raises(RecipeError, match="augmentation"):  # typed too: which of the two was meant?
        check_options_alone(planned(recipe, cache_features="true", augmentation='{"flip": 0.1}'))


def test_features_too_many_for_the_memory_are_said(
    recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(frozen_features, "LARGEST_BYTES", 0)
    folder = train.train(Recipe(recipe | {"output_dir": str(tmp_path)}), {})[0]
    assert "--cache_features true" in capsys.readouterr().out
    assert read_results(folder).training.features_kept is False


@pytest.mark.parametrize("positions", ["sinusoidal", "convolutional"])
def test_a_transformer_knows_the_order_of_frames(positions: str, tmp_path: Path):
    torch.manual_seed(0)
    model = tiny_model("resnet18", "transformer", temporal_positions=positions).eval()
    features = torch.randn(2, model.config.num_frames, model.encoder.feature_size)
    with torch.no_grad():
        forward, backward = model.classify_features(features), model.classify_features(features.flip(1))
        assert not torch.allclose(forward, backward, atol=1e-6)
        model.save_pretrained(tmp_path)
        again = EngagementForVideoClassification.from_pretrained(tmp_path)
        assert torch.equal(again.classify_features(features), forward)
        assert model.classify_features(features[:, :1]).shape == forward.shape  # of any number of frames
