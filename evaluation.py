"""Predictions of a trained model on a split → `results.json` in the model's folder.

One versioned file to which later commands only add keys. Scores are never stored without label names, the data's
fingerprint, the settings and the seed.
"""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from .metrics import compute_scores, majority_baseline
from .processor.input_errors import ModelLoadError

RESULTS_FILE = "results.json"
RESULTS_VERSION = 1
_VERSIONED_PACKAGES = ("engagement-recognition", "transformers", "torch", "timm", "av", "facenet-pytorch")


def evaluate_logits(
    logits: np.ndarray, label_ids: np.ndarray, train_label_ids: Sequence[int], label_names: Sequence[str]
) -> dict[str, object]:
    """Scores of argmax predictions beside the majority baseline's.

    Args:
        logits: (n, num_labels).
        label_ids: (n,).
    """
    return {
        "scores": compute_scores(label_ids, logits.argmax(axis=1), label_names),
        "majority_baseline": majority_baseline(train_label_ids, label_ids, label_names),
    }


def describe_environment() -> dict[str, object]:
    """Versions that a result depends on."""
    packages = {name: version(name) for name in _VERSIONED_PACKAGES}
    return {"python": platform.python_version(), "torch_threads": torch.get_num_threads(), **packages}


def write_results(folder: Path, **entries: object) -> dict[str, object]:
    """Add `entries` to the folder's results file (a new one if there is none) and return all of them."""
    path = folder / RESULTS_FILE
    results = read_results(folder) if path.is_file() else {"version": RESULTS_VERSION}
    results |= entries
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return results


def read_results(folder: Path) -> dict[str, object]:
    """Raises ModelLoadError when the file is missing or is not what `write_results` writes."""
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"Expected measured results in {path}, got none that can be read ({error}).") from error
    if not isinstance(results, dict) or results.get("version") != RESULTS_VERSION:
        raise ModelLoadError(f"Expected results of version {RESULTS_VERSION} in {path}; train or evaluate again.")
    return results
