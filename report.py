"""Results files → one Markdown table; every number is read from `results.json`, none is typed."""

from collections.abc import Sequence
from pathlib import Path

from .evaluation import read_results

_SCORES = ("macro_f1", "balanced_accuracy", "accuracy")


def results_table(folders: Sequence[Path]) -> str:
    """A row a model: its scores on test, beside macro-F1 of the majority baseline.

    Raises:
        ModelLoadError: a folder has no results.
    """
    lines = ["| model | data | test examples | macro-F1 | balanced accuracy | accuracy | majority macro-F1 |"]
    lines.append("|---|---|---|---|---|---|---|")
    for folder in folders:
        results = read_results(folder)
        test = results["evaluation"]["test"]
        scores = [f"{test['scores'][name]:.3f}" for name in _SCORES]
        cells = [str(folder), results["data"]["source"], str(test["scores"]["num_examples"]), *scores]
        lines.append(f"| {' | '.join([*cells, format(test['majority_baseline']['macro_f1'], '.3f')])} |")
    return "\n".join(lines)
