"""A recipe of drawn faces that trains in a second, and a space of its options."""

from collections.abc import Mapping
from pathlib import Path

import yaml

SPACE = {
    "learning_rate": {"low": "1e-4", "high": "1e-2", "log": True},  # as YAML takes 1e-4, for a word
    "dropout": {"low": 0, "high": 0.6},
    "label_smoothing": [0.1, 0.2],
    "augmentation.flip": {"low": 0, "high": 0.5, "step": 0.25},
}


def write_recipe(folder: Path, pictures: Path) -> Path:
    """Single faces of class folders, one stage."""
    recipe = {
        "encoder": "test_resnet", "image_size": 32, "num_preparation_processes": 1, "cache_dir": str(folder / "cache"),
        "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "seed": 0,
        "metric_for_best_model": "macro_f1",
        "engagement": {"data": str(pictures), "subject_pattern": r"^\d+", "model": "image"},
    }  # fmt: skip
    path = folder / "faces.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def write_space(folder: Path, space: Mapping[str, object] = SPACE) -> Path:
    """space.yaml."""
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(dict(space)))
    return path
