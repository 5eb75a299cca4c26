"""Single stages of the recipes in conftest.py: trained again, or their data alone; what a training leaves behind."""

import json
from pathlib import Path

import torch
from conftest import TrainedStages
from safetensors.torch import load_file

from engagement_recognition.training.arguments import Recipe, plan_stages
from engagement_recognition.training.stage_data import StageData, load_stage_data


def engagement_alone(trained: TrainedStages, run_dir: Path, **changes: object) -> dict[str, object]:
    """Stage two of the trained recipe again, from the same stage one, into another folder."""
    section = {**trained.recipe["engagement"], "start_from": str(trained.expression), **changes}
    return {**trained.recipe, "output_dir": str(run_dir), "expression": {}, "engagement": section}


def load(
    tiny_recipe: dict[str, object], data: Path, stage: str = "engagement", typed: dict | None = None, **options: object
) -> StageData:
    """What a stage of the tiny recipe would be trained on."""
    recipe = {key: value for key, value in tiny_recipe.items() if key not in ("expression", "engagement")}
    (run,) = plan_stages(Recipe({**recipe, stage: {"data": str(data), **options}}), typed or {})
    return load_stage_data(run)


def weights_of(folder: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    stored = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())
