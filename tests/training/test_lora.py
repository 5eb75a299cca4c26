"""LoRA: adapters learn, the encoder's own weights do not, and what is exported is a model as any other."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_trial import clean_process
from installed_versions import pretend
from safetensors.torch import load_file
from stages import same_weights
from tiny_models import ENCODERS, draw_pixels, tiny_model
from transformers import AutoModel, TimmWrapperConfig

from engagement_recognition import EngagementForImageClassification, EngagementForVideoClassification, train
from engagement_recognition.inference.model_source import check_model
from engagement_recognition.modeling_engagement import EngagementPreTrainedModel
from engagement_recognition.processor.input_errors import ModelLoadError, RecipeError
from engagement_recognition.training.arguments import Recipe, StageRun, plan_stages
from engagement_recognition.training.lora import add_adapters, merge_adapters

pytest.importorskip("peft")
Weights = dict[str, torch.Tensor]
# name: how many layers are adapted
NUM_ADAPTED = {"vit": 4, "beit": 4, "swin": 4, "timm_vit": 2, "timm_swin": 2, "timm_beit": 2, "mobilevit": 9}


@pytest.fixture(autouse=True)
def more_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose fused layer timm reads without calling it, and one with BatchNorm layers."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    beit = TimmWrapperConfig(architecture="beit_base_patch16_224", model_args=sizes)
    monkeypatch.setitem(ENCODERS, "timm_beit", (lambda: beit, 3, 32))
    monkeypatch.setitem(ENCODERS, "mobilevit", (lambda: TimmWrapperConfig(architecture="mobilevit_xxs"), 3, 128))


def planned(**options: object) -> StageRun:
    return plan_stages(Recipe({"engagement": {"data": "clips", "lora_rank": 2, **options}}), {})[0]


def base_weights(model: EngagementPreTrainedModel) -> Weights:
    """The encoder's own, buffers included, under the names that they have without adapters."""
    stored = {name.replace(".base_layer", ""): value.clone() for name, value in model.encoder.state_dict().items()}
    return {name: value for name, value in stored.items() if ".lora_" not in name}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("encoder", NUM_ADAPTED)
def test_adapters_learn_alone_and_merging_them_changes_no_logits(encoder: str, checkpointing: bool):
    torch.manual_seed(0)
    model = tiny_model(encoder, "mean")
    pixels, before = draw_pixels(model), base_weights(model)
    with torch.no_grad():
        first = model.eval()(pixels).logits
        add_adapters(model, planned())
        assert torch.equal(model.eval()(pixels).logits, first)  # B begins with zeros
    if checkpointing:
        model.gradient_checkpointing_enable()
    learning = {name: weight for name, weight in model.encoder.named_parameters() if weight.requires_grad}
    assert len(learning) == 2 * NUM_ADAPTED[encoder] and all(".lora_" in name for name in learning)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(2):
        optimizer.zero_grad()
        model.train()(pixels).logits.square().sum().backward()
        for name, weight in learning.items():
            assert weight.grad is not None, name
        optimizer.step()
    for name, weight in learning.items():  # A moves once B is no longer zero
        assert weight.grad.abs().max() > 0, name
    assert same_weights(base_weights(model), before)  # BatchNorm's statistics too
    with torch.no_grad():
        trained = model.eval()(pixels).logits
        merge_adapters(model, planned())
        merged = model(pixels).logits
    assert (trained - first).abs().max() > 1e-3
    torch.testing.assert_close(merged, trained, atol=1e-5, rtol=0)
    assert base_weights(model).keys() == model.encoder.state_dict().keys() == before.keys()


# --- Through train.py


@pytest.fixture(scope="module")
def recipe(tiny_recipe: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Stage two alone, of adapters in a small pretrained BEiT."""
    folder = tmp_path_factory.mktemp("encoders") / "beit"
    torch.manual_seed(0)
    AutoModel.from_config(ENCODERS["beit"][0]()).save_pretrained(folder)
    model = {"encoder": str(folder), "lora_rank": 2, "num_frames": 2, "temporal": "mean"}
    return {**tiny_recipe, **model, "learning_rate": 0.02, "expression": {}}


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Weights, torch.Tensor]]:
    """Of each training at its end: the encoder's own weights, and logits of drawn pixels, before the merge."""
    seen: list[tuple[Weights, torch.Tensor]] = []

    def look_and_merge(model: EngagementPreTrainedModel, run: StageRun) -> None:
        with torch.no_grad():
            seen.append((base_weights(model), model.eval()(draw_pixels(model)).logits))
        merge_adapters(model, run)

    monkeypatch.setattr(train, "merge_adapters", look_and_merge)
    return seen


def logits_in_a_clean_process(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    with clean_process() as process:
        return process.logits(folder, pixels)


def logits_here(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return EngagementForVideoClassification.from_pretrained(folder).eval()(pixels).logits


@pytest.mark.parametrize(
    "predict", [logits_here, pytest.param(logits_in_a_clean_process, marks=pytest.mark.slow)], ids=["here", "clean"]
)
def test_the_export_is_the_trained_model_merged(
    predict: Callable[[Path, torch.Tensor], torch.Tensor], recipe: dict[str, object], tmp_path: Path,
    unmerged: list[tuple[Weights, torch.Tensor]], capsys: pytest.CaptureFixture,
):  # fmt: skip
    (folder,) = train.train(Recipe({**recipe, "average_decay": 0.9, "output_dir": str(tmp_path / "run")}), {})
    # Two adapted layers in each of two: A and B of 2 x 32; the head of 32 features.
    assert f"LoRA in 4 layers; {4 * 2 * 2 * 32 + 33 * 2:,} of " in capsys.readouterr().out
    ((base, logits),) = unmerged
    pretrained = AutoModel.from_pretrained(str(recipe["encoder"])).state_dict()
    assert same_weights(base, {name: pretrained[name.removeprefix("model.")] for name in base})
    model = EngagementForVideoClassification.from_pretrained(folder)
    torch.testing.assert_close(predict(folder, draw_pixels(model)), logits, atol=1e-5, rtol=0)
    exported = {name: value for name, value in base_weights(model).items() if not torch.equal(value, base[name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in exported} == {"q_proj", "v_proj"}
    assert not list(folder.rglob("*adapter*")) and check_model(str(folder)) is EngagementForVideoClassification
    assert json.loads((folder / "results.json").read_text())["recipe"]["lora_rank"] == 2
    checkpoint = next((tmp_path / "run/checkpoints/engagement").glob("checkpoint-*"))
    kept = json.loads((checkpoint / "training_recipe.json").read_text())
    assert kept["options"]["lora_rank"] == 2 and kept["versions"]["peft"] == importlib.metadata.version("peft")
    with pytest.raises(ModelLoadError, match="adapters that are not merged"):
        check_model(str(checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize("average_decay", [None, 0.9])
def test_an_interrupted_training_ends_with_the_same_bits(
    average_decay: float | None, recipe: dict[str, object], tmp_path: Path, steps: list[int]
):
    options = {**recipe, "average_decay": average_decay}
    interrupted, straight = (Recipe({**options, "output_dir": str(tmp_path / name)}) for name in ("first", "second"))
    with pytest.raises(KeyboardInterrupt):
        train.train(interrupted, {})
    (resumed,) = train.train(interrupted, {"resume_from_checkpoint": "true"})
    assert steps == [0, 1, 2, 3, 2, 3]
    (whole,) = train.train(straight, {})
    assert same_weights(*(load_file(folder / "model.safetensors") for folder in (resumed, whole)))
    with pytest.raises(RecipeError, match="lora_rank 2, got 4"):
        train.train(interrupted, {"resume_from_checkpoint": "true", "lora_rank": "4"})


@pytest.mark.slow
def test_stage_two_adapts_what_stage_one_merged(
    recipe: dict[str, object], tiny_recipe: dict[str, object], tmp_path: Path,
    unmerged: list[tuple[Weights, torch.Tensor]],
):  # fmt: skip
    both = {**recipe, "expression": tiny_recipe["expression"], "num_train_epochs": 1, "output_dir": str(tmp_path)}
    expression, engagement = train.train(Recipe(both), {})
    (before_one, _), (before_two, _) = unmerged
    handed_on = base_weights(EngagementForImageClassification.from_pretrained(expression))
    assert same_weights(before_two, handed_on) and not same_weights(before_one, handed_on)
    exported = base_weights(EngagementForVideoClassification.from_pretrained(engagement))
    assert exported.keys() == handed_on.keys() and not same_weights(exported, handed_on)


# --- What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder": "resnet18"}, "lora_rank 2 in stage engagement needs an encoder with attention layers"),
        ({"encoder": "face_vgg8"}, "attention layers"),
        ({"start_from": "box", "grayscale": True}, "attention layers"),
        ({"encoder": "vit_tiny_patch16_224", "lora_rank": 192}, "lora_rank below 192"),
        ({"freeze_encoder": True}, "freeze_encoder false"),
        ({"cache_features": True}, "cache_features false"),
        ({"lora_rank": 0}, "lora_rank of at least 1"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant false"),
    ],
    ids=str,
)
def test_what_cannot_be_adapted_is_refused_before_data_is_read(
    options: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    recipe = tmp_path / "recipe.yaml"
    section = {"data": str(tmp_path / "nowhere"), "lora_rank": 2, "output_dir": str(tmp_path / "run"), **options}
    recipe.write_text(json.dumps({"engagement": section}))  # JSON is YAML
    assert train.main([str(recipe)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_without_peft_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    pretend(monkeypatch, "peft", None)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ['peft>=0.21.2; extra == "lora"'])
    assert train.main(["--engagement_data", "nowhere", "--lora_rank", "8", "--encoder", "vit_tiny_patch16_224"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "peft none" in said and "pip install 'peft>=0.21.2'" in said
