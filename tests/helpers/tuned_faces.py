"""A space of options that a search may try."""

from collections.abc import Mapping
from pathlib import Path

import yaml

SPACE = {
    "learning_rate": {"low": "1e-4", "high": "1e-2", "log": True},  # as YAML takes 1e-4, for a word
    "dropout": {"low": 0, "high": 0.6},
    "label_smoothing": [0.1, 0.2],
    "augmentation.flip": {"low": 0, "high": 0.5, "step": 0.25},
}


def write_space(folder: Path, space: Mapping[str, object] = SPACE) -> Path:
    """space.yaml."""
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(dict(space)))
    return path
