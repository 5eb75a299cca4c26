"""Which data stands behind a result, how it is named to others, and why it may not be trusted.

Everything is read from what `results.json` holds; what older results leave out is taken as they meant it.
"""

from collections.abc import Mapping

_LAYOUTS = {"images": "class folders"}  # by kind of data, where the kind is no name that people know
_DOUBTS = {
    "unmeasured": "nothing was measured on test",
    "other data": "its scores are not of the data that was audited",
    "unaudited": "nobody has audited its data's split for leakage",
    "failed": "its data's split failed the audit for leakage, so that its scores measure memory",
}


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
