"""`results.json`, the one versioned file of measured results in a model's folder; later commands only add keys to it.

What stands in it is described in docs/results.md. A score is never stored without label names, the data's fingerprint,
the settings and the seed; that is the duty of who writes. Which data stands behind a result, how it is named to others
and why it may not be trusted is read from here too; what older results leave out is taken as they meant it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from ..data.atomic_files import write_whole
from ..processor.input_errors import ModelLoadError, in_one_line

RESULTS_FILE = "results.json"
RESULTS_VERSION = 2
FINE_MAP = 4  # places a side, below which heat cannot tell a face from what is around it
_LAYOUTS = {"images": "class folders"}  # by kind of data, where the kind is no name that people know
_DOUBTS = {
    "unmeasured": "nothing was measured on test",
    "other data": "its scores are not of the data that was audited",
    "unaudited": "nobody has audited its data's split for leakage",
    "failed": "its data's split failed the audit for leakage, so that its scores measure memory",
}


def write_results(folder: Path, **entries: object) -> dict[str, object]:
    """Add `entries` to the folder's results file (a new one if there is none) and return all of them."""
    path = folder / RESULTS_FILE
    results = read_results(folder) if path.is_file() else {"version": RESULTS_VERSION}
    results |= entries
    write_whole(path, json.dumps(results, indent=2, allow_nan=False) + "\n")
    return results


def read_results(folder: Path) -> dict[str, object]:
    """Raises ModelLoadError when the file is missing or is not what `write_results` writes."""
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"Expected measured results in {path}, got none that can be read ({in_one_line(error)}); check the "
            "path, or train or import the model again."
        ) from error
    if not isinstance(results, dict) or results.get("version") != RESULTS_VERSION:
        raise ModelLoadError(f"Expected results of version {RESULTS_VERSION} in {path}; train or evaluate again.")
    return results


def measured_on(results: Mapping[str, object], split: str | None) -> dict[str, object]:
    """`kind`, `source`, `fingerprint` and more of the data that a split was measured on; empty where there is none."""
    trained_on, later = results.get("data", {}), results.get("evaluated_on", {}).get(split, {})
    is_same = later.get("fingerprint", trained_on.get("fingerprint")) == trained_on.get("fingerprint")
    return {**(trained_on if is_same else {}), **later}  # older evaluations do not say what kind it was


def is_trained_on_drawn(results: Mapping[str, object]) -> bool:
    """Whether the people it was trained on do not exist; results from before that was recorded do not say so."""
    return "training" in results and bool(results["data"].get("drawn"))


def describe_source(data: Mapping[str, object]) -> str:
    """A data set's name; that of drawn people must not be taken for the real one whose layout they have."""
    if not data.get("drawn"):
        return str(data["source"])
    return f"drawn people, in the layout of {_LAYOUTS.get(data['kind'], data['kind'])}"


def find_doubt(results: Mapping[str, object]) -> str | None:
    """unmeasured, other data, unaudited or failed: why the scores on test are not to be trusted; None: they are."""
    if "test" not in results.get("evaluation", {}):
        return "unmeasured"
    data, later = results["data"], results.get("evaluated_on", {}).get("test")
    if later and later["fingerprint"] != data["fingerprint"]:
        return "other data"
    if data["audit"] is None:
        return "unaudited"
    return None if data["audit"]["passed"] else "failed"


def warnings_of(results: Mapping[str, object]) -> list[str]:
    """What whoever gets the model must be told, each a sentence without a stop."""
    doubt = find_doubt(results)
    warnings = [_DOUBTS[doubt]] if doubt else []
    if is_trained_on_drawn(results):
        return ["it was trained on drawn people who do not exist, and says nothing about real faces", *warnings]
    if measured_on(results, "test").get("drawn"):
        return ["it was measured on drawn people who do not exist, which says nothing about real faces", *warnings]
    return warnings
