"""Recipes in, export folders out: the two stages, what they hand on, and how they stop."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from safetensors.torch import load_file
from stages import engagement_alone, results_of, same_weights, weights_of

from engagement_recognition import train
from engagement_recognition.evaluation.figures import save_training_curves
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.training.arguments import Recipe, plan_stages
from engagement_recognition.training.checkpoints import what_is_wrong
from engagement_recognition.training.command_line import read_options
from engagement_recognition.training.trainer import EngagementTrainer


def errors_of(argv: list[str], capfd: pytest.CaptureFixture) -> str:
    """What `train.py` says to a mistake: one line on stderr, and exit code 2."""
    capfd.readouterr()
    assert train.main(argv) == 2
    stderr = capfd.readouterr().err
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and stderr.endswith(lines[0] + "\n"), stderr
    return lines[0]


def write_recipe(recipe: object, path: Path) -> str:
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return str(path)


# --- Two stages


def test_each_stage_ends_in_one_folder_without_pickles(trained: TrainedStages):
    code = {"answer_rule.py", "configuration_engagement.py", "modeling_engagement.py", "face_encoders.py"}
    expected = {"model.safetensors", "config.json", "results.json", "README.md", "face_preparation.py", *code}
    for folder, processor in ((trained.expression, "image"), (trained.engagement, "video")):
        files = {path.name for path in folder.rglob("*")}
        config = "preprocessor_config.json" if processor == "image" else "video_preprocessor_config.json"
        assert expected | {config, f"{processor}_processing_engagement.py"} <= files
        assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pyc"))]
    assert {path.name for path in trained.run_dir.iterdir()} == {"checkpoints", "expression", "engagement"}


def test_stage_two_starts_from_stage_one_s_encoder(trained: TrainedStages):
    handed_on = weights_of(trained.expression, "encoder.")
    before = {name: tensor for name, tensor in trained.first_weights["engagement"].items() if name in handed_on}
    assert same_weights(before, handed_on)
    assert not same_weights(weights_of(trained.engagement, "encoder."), handed_on)  # and it learned further
    drawn = trained.first_weights["expression"]
    assert not all(torch.equal(drawn[name], tensor) for name, tensor in handed_on.items())


@pytest.mark.parametrize("stage", ["expression", "engagement"])
def test_results_hold_together(stage: str, trained: TrainedStages):
    results = results_of(trained.run_dir / stage)
    scores, baseline = (results["measurements"][0]["evaluation"][name] for name in ("scores", "majority_baseline"))
    confusion = np.array(scores["confusion_matrix"])
    hits, counts = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = np.divide(2 * hits, counts, out=np.zeros(len(hits)), where=counts > 0)
    assert scores["macro_f1"] == pytest.approx(f1.mean())
    assert confusion.sum() == scores["num_examples"] == results["data"]["examples"]["test"]
    assert [row["support"] for row in scores["per_class"].values()] == confusion.sum(axis=1).tolist()
    assert list(scores["per_class"]) == results["label_names"]
    config = json.loads((trained.run_dir / stage / "config.json").read_text())
    assert [config["id2label"][str(i)] for i in range(len(f1))] == results["label_names"]
    assert baseline["predicts"] in results["label_names"] and baseline["num_examples"] == scores["num_examples"]
    assert (results["seed"], results["version"], len(results["data"]["fingerprint"])) == (0, 3, 64)


def test_results_count_what_was_left_out(trained: TrainedStages):
    data = results_of(trained.engagement)["data"]
    assert data["examples"] == {"train": 9, "validation": 3, "test": 3}
    assert data["inputs"] == 15 + data["rejected"] and data["rejects_by_stage"] == {"label": 1, "source": 1}
    assert data["subjects"] == {"train": 3, "validation": 1, "test": 1}


def test_the_same_seed_gives_the_same_weights_and_scores(trained: TrainedStages, tmp_path: Path):
    (again,) = train.train(Recipe(engagement_alone(trained, tmp_path)), {})
    assert same_weights(weights_of(again), weights_of(trained.engagement))
    assert results_of(again)["measurements"] == results_of(trained.engagement)["measurements"]
    (other,) = train.train(Recipe(engagement_alone(trained, tmp_path, num_train_epochs=1)), {"seed": "3"})
    assert not same_weights(weights_of(other), weights_of(trained.engagement))  # and an older export is replaced
    assert results_of(other)["seed"] == 3


def test_a_loss_that_is_not_finite_costs_no_model(trained: TrainedStages, tmp_path: Path, monkeypatch):
    log = EngagementTrainer.log

    def log_without_end(trainer: EngagementTrainer, logs: dict[str, float], *rest: object) -> None:
        log(trainer, logs | ({"loss": float("inf")} if "loss" in logs else {}), *rest)

    monkeypatch.setattr(EngagementTrainer, "log", log_without_end)
    (folder,) = train.train(Recipe(engagement_alone(trained, tmp_path)), {})
    log_read = results_of(folder)["training"]["log"]
    assert [row["loss"] for row in log_read if "loss" in row] == [None, None]
    assert all(path.is_file() for path in save_training_curves(log_read, tmp_path / "curves"))


def test_what_a_model_starts_from_is_read_before_anything_is_prepared(
    trained: TrainedStages, tmp_path: Path, capfd: pytest.CaptureFixture
):
    start = Path(shutil.copytree(trained.expression, tmp_path / "start"))
    (start / "results.json").write_text('{"version": 3, "stage": 1}')
    recipe = {**engagement_alone(trained, tmp_path, start_from=str(start)), "cache_dir": str(tmp_path / "cache")}
    line = errors_of([write_recipe(recipe, tmp_path / "recipe.yaml")], capfd)
    assert "measured results in" in line and str(start / "results.json") in line
    assert not (tmp_path / "engagement").exists() and not (tmp_path / "cache").exists()


def test_an_image_model_can_be_stage_two_alone(trained: TrainedStages, tmp_path: Path):
    pictures = trained.recipe["expression"]["data"]
    changes = {"data": pictures, "model": "image", "num_train_epochs": 1}
    (folder,) = train.train(Recipe(engagement_alone(trained, tmp_path, **changes)), {})
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["EngagementForImageClassification"]
    assert folder == tmp_path / "engagement" and results_of(folder)["started_from"] == "expression"


def test_a_frozen_encoder_stays_as_it_was(trained: TrainedStages, tmp_path: Path):
    # BatchNorm's running statistics too: they change in every training step, gradients or not.
    (folder,) = train.train(Recipe(engagement_alone(trained, tmp_path, freeze_encoder=True)), {})
    assert same_weights(weights_of(folder, "encoder."), weights_of(trained.expression, "encoder."))
    assert not same_weights(weights_of(folder, "temporal."), weights_of(trained.engagement, "temporal."))


# --- Stopping and going on


@pytest.mark.parametrize("max_steps", [-1, 1], ids=["seen in training", "seen in evaluation"])
def test_a_non_finite_loss_stops_the_run(
    max_steps: int, trained: TrainedStages, tmp_path: Path, capfd: pytest.CaptureFixture
):
    # Trainer itself logs 0.0, goes on with NaN weights, and "finishes".
    recipe = engagement_alone(trained, tmp_path / "run", learning_rate=1e30, max_steps=max_steps)
    line = errors_of([write_recipe(recipe, tmp_path / "recipe.yaml")], capfd)
    assert "loss" in line and "non-finite" in line and "learning rate" in line
    assert max_steps == 1 or "9000" in line  # the clips of the batch, by name
    assert not list(tmp_path.glob("run/engagement*"))


def test_an_interrupted_run_goes_on_from_its_last_whole_checkpoint(
    trained: TrainedStages, tmp_path: Path, steps: list[int]
):
    recipe = engagement_alone(trained, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train.train(Recipe(recipe), {})
    assert not list(tmp_path.glob("engagement*"))  # nothing that a next run would trust
    half = tmp_path / "checkpoints/engagement/checkpoint-99"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\x00" * 100)
    (resumed,) = train.train(Recipe(recipe), {"resume_from_checkpoint": "true"})
    assert steps == [0, 1, 2, 3, 2, 3]  # two steps an epoch; the first epoch is not trained again
    assert same_weights(weights_of(resumed), weights_of(trained.engagement))


def test_a_subject_adversary_goes_on_too_and_is_in_no_model(trained: TrainedStages, tmp_path: Path, steps: list[int]):
    recipe = engagement_alone(trained, tmp_path / "interrupted", subject_adversary=1.0)
    with pytest.raises(KeyboardInterrupt):
        train.train(Recipe(recipe), {})
    (resumed,) = train.train(Recipe(recipe), {"resume_from_checkpoint": "true"})
    (straight,) = train.train(Recipe({**recipe, "output_dir": str(tmp_path / "straight")}), {})
    adversaries = [
        load_file(tmp_path / run / "checkpoints/engagement/checkpoint-4/subject_adversary.safetensors")
        for run in ("interrupted", "straight")
    ]
    assert same_weights(*adversaries) and same_weights(weights_of(resumed), weights_of(straight))
    assert weights_of(straight).keys() == weights_of(trained.engagement).keys()
    assert not same_weights(weights_of(straight), weights_of(trained.engagement))  # and it did something


def test_averaged_weights_are_exported_and_go_on_where_they_were(
    trained: TrainedStages, tmp_path: Path, steps: list[int]
):
    options = {"average_decay": 0.9, "optimizer": "nesterov", "cutmix": 0.5}
    recipe = engagement_alone(trained, tmp_path / "interrupted", **options)
    with pytest.raises(KeyboardInterrupt):
        train.train(Recipe(recipe), {})
    (resumed,) = train.train(Recipe(recipe), {"resume_from_checkpoint": "true"})
    (straight,) = train.train(Recipe({**recipe, "output_dir": str(tmp_path / "straight")}), {})
    assert same_weights(weights_of(resumed), weights_of(straight))
    checkpoints = sorted((tmp_path / "straight/checkpoints/engagement").glob("checkpoint-*"))
    averages = [load_file(checkpoint / "averaged_weights.safetensors") for checkpoint in checkpoints]
    exported = weights_of(straight)
    of_exported = [
        same_weights({name: average[f"module.{name}"] for name in exported}, exported) for average in averages
    ]
    assert sum(of_exported) == 1  # the epoch that was selected
    assert not any(same_weights(weights_of(checkpoint), exported) for checkpoint in checkpoints)
    for checkpoint in checkpoints:
        (checkpoint / "averaged_weights.safetensors").unlink()
        (checkpoint / "SHA256SUMS").unlink()  # as one of an earlier version
    with pytest.raises(RecipeError, match="without average_decay"):
        train.train(Recipe({**recipe, "output_dir": str(tmp_path / "straight")}), {"resume_from_checkpoint": "true"})


def test_a_checkpoint_is_whole_or_passed_over(trained: TrainedStages, tmp_path: Path):
    whole = trained.run_dir / "checkpoints/engagement"
    assert what_is_wrong(whole / "checkpoint-4") is None
    for number, missing in ((5, "trainer_state.json"), (6, "optimizer.pt"), (7, "model.safetensors")):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        for name in {"trainer_state.json", "optimizer.pt", "model.safetensors"} - {missing}:
            (folder / name).write_bytes((whole / "checkpoint-4" / name).read_bytes())
    (tmp_path / "checkpoint-7/model.safetensors").write_bytes(b"cut")
    assert all(what_is_wrong(folder) for folder in tmp_path.iterdir())


# --- Recipes and options


@pytest.mark.parametrize(("given", "resumes"), [("false", False), ("true", True)])
def test_resuming_can_be_declined(given: str, resumes: bool):
    (run,) = plan_stages(Recipe({"engagement": {"data": "clips"}}), {"resume_from_checkpoint": given})
    assert bool(run.training.resume_from_checkpoint) == resumes


def test_an_option_is_read_under_its_old_name_too():
    recipe = Recipe({"face_crop_size": 96, "engagement": {"data": "clips"}})
    (of_recipe,), (typed,) = (plan_stages(recipe, options) for options in ({}, {"engagement_face_crop_size": "64"}))
    assert (of_recipe.stage.face_crop_size_px, typed.stage.face_crop_size_px) == (96, 64)
    assert typed.on_command_line == {"face_crop_size_px"} and of_recipe.given["face_crop_size_px"] == 96


BAD_RECIPES = {
    "unknown key": ({"learning_rat": 0.1}, "did you mean learning_rate"),
    "unknown key of a stage": ({"engagement": {"temporl": "lstm"}}, "did you mean temporal"),
    "wrong type": ({"learning_rate": "fast"}, "not valid: argument --learning_rate"),
    "no switch": ({"bf16": "maybe"}, "not valid: "),
    "order of one": ({"shuffle_frames": True, "engagement": {"model": "image"}}, "shuffle_frames needs clips"),
    "a stage that is a list": ({"engagement": ["data"]}, "under engagement:"),
    "no data": ({"engagement": {}}, "engagement_data"),
    "missing data folder": ({"engagement": {"data": "nowhere"}}, "nowhere"),
    "unknown model": ({"engagement": {"model": "sound"}}, "sound"),
    "unknown augmentation": ({"augmentation": {"blur": 1}}, "blur"),
    "augmentation that is a word": ({"augmentation": "strong"}, "strong"),
    "bad mean": ({"image_mean": "grey"}, "image_mean"),
    "unknown encoder": ({"encoder": "resnet17b"}, "resnet17b"),
    "unknown temporal head": ({"temporal": "gru"}, "gru"),
    "dropout of 2": ({"dropout": 2}, "dropout"),
    "grey from colour": ({"grayscale": True, "engagement": {"start_from": "TRAINED"}}, "num_channels 3"),
    "missing start": ({"engagement": {"start_from": "runs/nowhere"}}, "runs/nowhere"),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_bad_recipe_is_one_line(
    name: str, tiny_recipe: dict[str, object], trained: TrainedStages, tmp_path: Path, capfd: pytest.CaptureFixture
):
    changes, told = BAD_RECIPES[name]
    recipe = {**tiny_recipe, "output_dir": str(tmp_path / "run"), "expression": {}, **changes}
    if isinstance(recipe["engagement"], dict) and name != "no data":
        recipe["engagement"] = {**tiny_recipe["engagement"], **recipe["engagement"]}
        if recipe["engagement"].get("start_from") == "TRAINED":
            recipe["engagement"]["start_from"] = str(trained.expression)
    assert told in errors_of([write_recipe(recipe, tmp_path / "recipe.yaml")], capfd)
    assert not list(tmp_path.glob("run/engagement*"))


@pytest.mark.parametrize(
    "content", [None, "- a list", "a: b: c", "\x00", "", "on: 1", "run_name: 2026-11-28"], ids=repr
)
def test_what_is_no_recipe_is_one_line(content: str | None, tmp_path: Path, capfd: pytest.CaptureFixture):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    assert "recipe.yaml" in errors_of([str(path)], capfd)
    assert str(tmp_path) in errors_of([str(tmp_path)], capfd)  # nor is a folder


def test_options_reach_the_stage_they_name():
    recipe = {"learning_rate": 1e-3, "seed": 0, "engagement": {"data": "clips", "learning_rate": 2e-3}}
    options = read_options(
        ["--expression_data", "pictures", "--engagement-learning-rate=5e-4", "--seed", "3", "--bf16"]
    )
    expression, engagement = plan_stages(Recipe(recipe), options)
    assert (expression.stage.data, engagement.stage.data) == ("pictures", "clips")
    assert (expression.training.learning_rate, engagement.training.learning_rate) == (1e-3, 5e-4)
    assert expression.training.seed == engagement.training.seed == 3
    assert expression.training.bf16 and engagement.training.bf16
    assert (expression.stage.model, engagement.stage.model) == ("image", "video")


def test_grey_pictures_train_a_grey_encoder(trained: TrainedStages, tmp_path: Path):
    pictures = trained.recipe["expression"]["data"]
    changes = {"data": pictures, "model": "image", "grayscale": True, "max_steps": 1, "start_from": None}
    (folder,) = train.train(Recipe(engagement_alone(trained, tmp_path, **changes)), {})
    assert weights_of(folder)["encoder.model.timm_model.conv1.0.weight"].shape[1] == 1
