"""Predictions and results as training writes them, made up here in a moment: nothing is trained."""

import json
from dataclasses import replace
from functools import cache

import numpy as np

from engagement_recognition.data.described_data import AuditSummary, DescribedData, PreparedWith, TrainingData
from engagement_recognition.data.schema import BINARY
from engagement_recognition.evaluation.focus_records import FaceFocusResults, FocusPeople, FocusRegion, FocusSanity
from engagement_recognition.evaluation.results_schema import Environment, Measurement, Results, Training
from engagement_recognition.evaluation.score_records import SplitEvaluation
from engagement_recognition.evaluation.split_evaluation import SplitPredictions, evaluate_split

NAMES = list(BINARY)
OWN, OTHER = "a1" * 32, "b2" * 32  # fingerprints


def predictions(split: str = "test", seed: int = 0, num_people: int = 6) -> SplitPredictions:
    """Two clips a person, of two windows each; one in three is read wrongly."""
    rng = np.random.default_rng(seed)
    keys = [(f"{split}_{person}_{clip}", window) for person in range(num_people) for clip in "ab" for window in (0, 1)]
    label_ids = np.array([int(key[0].endswith("b")) for key in keys])
    logits = rng.normal(size=(len(keys), 2)) + np.eye(2)[label_ids]
    subjects = [key[0].split("_")[1] for key in keys]
    return SplitPredictions(split, keys, subjects, label_ids, logits.astype(np.float32))


def described(fingerprint: str = OWN, source: str = "DAiSEE") -> DescribedData:
    return DescribedData(
        kind="daisee", source=source, fingerprint=fingerprint, drawn=False, label_scheme="binary",
        audit=AuditSummary(passed=True),
    )  # fmt: skip


def measurement(split: str = "test", data: DescribedData | None = None, seed: int = 0) -> Measurement:
    """Of a split that has windows without a twin, with groups and a decision."""
    whole, clean = _evaluated(split, seed)
    return Measurement(split=split, data=data or described(), evaluation=whole, without_duplicates=clean)


@cache  # thousands of resamples
def _evaluated(split: str, seed: int) -> tuple[SplitEvaluation, SplitEvaluation | None]:
    found, validation = predictions(split, seed), predictions("validation")
    groups = {"hair": {str(person): "dark" for person in range(6)}, "eyes": {"0": "green"}}
    return evaluate_split(found, validation, range(16), [0, 1, 1], NAMES, groups)


def results() -> Results:
    """Of a model that was trained and measured on test."""
    trained_on = TrainingData(
        **dict(described()), prepared_with=PreparedWith(num_frames=8, sampling="uniform", face_crop_size_px=256)
    )
    environment = Environment(python="3.11.7", packages={"torch": "2.10"}, torch_threads=2)
    measured = measurement().model_copy(update={"environment": environment})
    return Results(
        stage="engagement", label_names=NAMES, started_from="expression", seed=0, recipe={"encoder": "resnet18"},
        data=trained_on, train_label_counts={"disengaged": 1, "engaged": 2},
        training=Training(seconds=1.5, log=[{"epoch": 1.0, "step": 3, "loss": 0.5}]), environment=environment,
        measurements=[measured],
    )  # fmt: skip


def face_focus(face: FocusRegion, **changes: object) -> FaceFocusResults:
    """Of a face, with eyes and mouth alike."""
    return FaceFocusResults(
        num_clips=20, num_without_face=0, num_without_heat=0, num_unreadable=0, label="predicted", seed=0,
        face=face, eyes=face, mouth=face, people=FocusPeople(suppressed=False, num_people=8, lowest_means=[]),
        sanity=FocusSanity(num_clips=5), **changes,
    )  # fmt: skip


def without_bias(measured: Measurement) -> Measurement:
    """Version 2 knew the temperature alone, and nothing of answers."""
    told = json.loads(measured.model_dump_json())
    for evaluation in (told["evaluation"], told["without_duplicates"]):
        evaluation["decision"] |= {"bias": None, "answers": None}
    return Measurement.model_validate_json(json.dumps(told))


def shuffled(found: SplitPredictions, seed: int) -> SplitPredictions:
    """The same windows with other logits."""
    return replace(found, logits=np.random.default_rng(seed).normal(size=found.logits.shape).astype(np.float32))
