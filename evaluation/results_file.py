"""`results.json`, the one versioned file of measured results in a model's folder; later commands only add keys to it.

What stands in it is described in docs/results.md. A score is never stored without label names, the data's fingerprint,
the settings and the seed; that is the duty of who writes.
"""

import json
from pathlib import Path

from ..processor.input_errors import ModelLoadError

RESULTS_FILE = "results.json"
RESULTS_VERSION = 2


def write_results(folder: Path, **entries: object) -> dict[str, object]:
    """Add `entries` to the folder's results file (a new one if there is none) and return all of them."""
    path = folder / RESULTS_FILE
    results = read_results(folder) if path.is_file() else {"version": RESULTS_VERSION}
    results |= entries
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return results


def read_results(folder: Path) -> dict[str, object]:
    """Raises ModelLoadError when the file is missing or is not what `write_results` writes."""
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelLoadError(
            f"Expected measured results in {path}, got none that can be read ({reason}); check the path, or train or "
            "import the model again."
        ) from error
    if not isinstance(results, dict) or results.get("version") != RESULTS_VERSION:
        raise ModelLoadError(f"Expected results of version {RESULTS_VERSION} in {path}; train or evaluate again.")
    return results
