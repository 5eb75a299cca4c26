"""A checkpoint gives every weight back, whatever names transformers saves an encoder's weights under."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stages import same_weights
from tiny_models import ENCODERS, draw_pixels, tiny_model
from torch import nn
from transformers import AutoModel, TrainingArguments

from engagement_recognition import EngagementForImageClassification, train
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.training.arguments import Recipe
from engagement_recognition.training.trainer import EngagementTrainer


def trainer_of(model: nn.Module, folder: Path) -> EngagementTrainer:
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", max_steps=1)
    nothing = SimpleNamespace(subject_ids=[])
    return EngagementTrainer(
        model=model, args=arguments, train_dataset=nothing, loss=None, train_collator=None, eval_collator=None
    )


@pytest.mark.parametrize("encoder", ["vit", "beit", "swin", "timm_vit", "convnext"])
def test_every_weight_comes_back(encoder: str, tmp_path: Path):
    model, other = tiny_model(encoder, "image"), tiny_model(encoder, "image")
    assert not same_weights(model.state_dict(), other.state_dict())
    trainer_of(model, tmp_path).save_model(str(tmp_path / "checkpoint"))
    trainer_of(other, tmp_path)._load_from_checkpoint(str(tmp_path / "checkpoint"))
    assert same_weights(model.state_dict(), other.state_dict())
    pixels = draw_pixels(model)
    loaded = EngagementForImageClassification.from_pretrained(tmp_path / "checkpoint").eval()
    with torch.no_grad():
        assert torch.equal(loaded(pixels).logits, model.eval()(pixels).logits)


def test_a_checkpoint_with_other_names_is_refused(tmp_path: Path):
    model = tiny_model("beit", "image")
    model.save_pretrained(tmp_path)  # as earlier versions wrote checkpoints
    with pytest.raises(RecipeError, match="earlier version") as refused:
        trainer_of(model, tmp_path)._load_from_checkpoint(str(tmp_path))
    assert "\n" not in str(refused.value)


def the_first_is_best(trainer: EngagementTrainer, metrics: dict[str, float], trial: object = None) -> bool:
    if trainer.state.best_global_step:
        return False
    trainer.state.best_metric, trainer.state.best_global_step = metrics["eval_loss"], trainer.state.global_step
    return True


@pytest.mark.slow
def test_the_epoch_that_is_kept_is_exported_whole(
    tiny_recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(EngagementTrainer, "_determine_best_metric", the_first_is_best)
    AutoModel.from_config(ENCODERS["beit"][0]()).save_pretrained(tmp_path / "encoder")
    recipe = {key: value for key, value in tiny_recipe.items() if key != "engagement"}
    more = {"encoder": str(tmp_path / "encoder"), "output_dir": str(tmp_path)}
    (folder,) = train.train(Recipe({**recipe, **more}), {})
    checkpoints = (tmp_path / "checkpoints/expression").glob("checkpoint-*")
    in_order = sorted(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))
    loaded = map(EngagementForImageClassification.from_pretrained, (folder, *in_order))
    exported, first, last = (model.state_dict() for model in loaded)
    assert same_weights(first, exported) and not same_weights(last, exported)
