"""Results in the words of version 2 of their file."""

import json

from made_up_results import results

from engagement_recognition.evaluation.results_schema import Results


def version_2(told: Results | None = None) -> dict:
    """The same in the words of version 2."""
    new = json.loads((told or results()).model_dump_json(by_alias=True))
    evaluation = {}
    for measured in new["measurements"]:
        evaluation[measured["split"]] = old_evaluation(measured["evaluation"])
        if measured["without_duplicates"]:
            evaluation[measured["split"] + "_without_duplicates"] = old_evaluation(measured["without_duplicates"])
    kept = ("stage", "label_names", "seed", "recipe", "started_from", "data", "training", "train_label_counts")
    environment = new["environment"] or {}
    packages = environment.pop("packages", {})
    old = {"version": 2, **{name: new[name] for name in kept}, "environment": {**environment, **packages}}
    return without_nulls({**old, "evaluation": evaluation, "evaluated_on": {}})


def old_evaluation(new: dict) -> dict:
    calibration, decision = dict(new["calibration"]), dict(new["decision"])
    calibration["temperature"] = decision.pop("temperature") or 20.0  # a bound was no reason to refuse a fit
    decision["test"] = decision.pop("scores")
    del decision["answers"]
    return {**new, "calibration": calibration, "decision": decision}


def without_nulls(value: object) -> object:
    """Version 2 left a key out where version 3 says null; a null that version 2 said is not missed either."""
    needed = ("people", "collapse", "threshold", "lower", "upper", "value", "confidence", "accuracy", "mean", "chance")
    needed += ("ratio", "num_people")
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(inner) for key, inner in value.items() if inner is not None or key in needed}
