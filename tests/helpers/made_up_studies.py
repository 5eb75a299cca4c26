"""Finished runs of studies as training writes them, made up here in a moment, and what a study makes of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_up_results import NAMES, OWN, results

from engagement_recognition.evaluation.calibration import apply_offsets
from engagement_recognition.evaluation.results_file import write_results
from engagement_recognition.evaluation.results_schema import Measurement, PooledTrainings
from engagement_recognition.evaluation.split_evaluation import SplitPredictions, evaluate_split, write_predictions
from engagement_recognition.studies.finished_runs import read_finished
from engagement_recognition.studies.study_records import Contrast, RowRuns, StudyHead, StudyRecord
from engagement_recognition.studies.summary import summarise_study

SCORES = ["auroc", "within_person_auroc", "balanced_accuracy_fitted"]


def people(split: str, skill: float, seed: int, num_people: int = 24) -> SplitPredictions:
    """Eight clips a person, a window each, one in four "disengaged"; the same people and labels with every seed.

    Args:
        skill: how far apart the logits of the classes are, over noise of one.
    """
    keys = [(f"{split}_{person}_{clip}", 0) for person in range(num_people) for clip in range(8)]
    label_ids = np.array([int(clip % 4 != 0) for _ in range(num_people) for clip in range(8)])
    noise = np.random.default_rng(seed).normal(size=(len(keys), 2))
    subjects = [key.split("_")[1] for key, _ in keys]
    return SplitPredictions(split, keys, subjects, label_ids, (noise + skill * np.eye(2)[label_ids]).astype(np.float32))


def write_run(folder: Path, skill: float, seed: int, num_folds: int | None = None) -> None:
    """An export folder without a model."""
    found, like = people("test", skill, seed), results()
    whole, _ = evaluate_split(found, people("validation", skill, seed + 100), None, [0, 1, 1, 1], NAMES)
    pooled = PooledTrainings(seeds=[seed], num_folds=num_folds) if num_folds else None
    measured = Measurement(split="test", data=like.data.as_measured(), evaluation=whole, pooled=pooled)
    training = like.training.model_copy(update={"seconds": 150.0})
    folder.mkdir(parents=True)
    write_results(folder, like.model_copy(update={"measurements": [measured], "seed": seed, "training": training}))
    if pooled:
        offsets = np.array([whole.decision.offsets[label] for label in NAMES])
        found = replace(found, decided_ids=apply_offsets(found.by_clip().scores, offsets))
    write_predictions(folder, [found], NAMES, OWN)


def made_up_study(
    output: Path,
    skills: Mapping[str, float],
    contrasts: list[Contrast],
    num_seeds: int = 2,
    num_folds: int | None = None,
    name: str = "small",
) -> StudyRecord:
    """A study without published numbers, every row trained.

    Args:
        output: a new folder.
        skills: by row.
    """
    rows = []
    for row, skill in skills.items():
        runs = []
        for seed in range(num_seeds):
            export = output / row / f"seed{seed}" / "engagement"
            write_run(export, skill, seed, num_folds)
            runs.append(read_finished(output, {"engagement": export}, seed, "test"))
        title = row.replace("_", " ").capitalize()
        rows.append(RowRuns(name=row, title=title, improves=False, stages=["engagement"], published={}, runs=runs))
    head = StudyHead(
        name=name, title=f"A {name} study", split="test", seeds=num_seeds, scores=SCORES,
        notes=["Nothing was chosen on these people; they were looked at once."],
        command=f"engagement reproduce {name} --data daisee --seeds {num_seeds}",
        changed_options={}, prepared_beforehand=[],
    )  # fmt: skip
    return summarise_study(output, head, rows, contrasts)
