"""Stage two in folds: the same recipe once per fold, each in its own folder, then one measurement of all people.

`OUTPUT_DIR/folds/1/engagement` is an ordinary export; `OUTPUT_DIR/engagement` contains the pooled results and
predictions, and no model. Folds that start from a folder of folds start from the model with the same number, with the
same people.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from ..data.audit.folds import SUBJECT, DealtFolds, EarlierFolds, deal_folds
from ..processor.input_errors import DataError, LeakageError, ModelLoadError, RecipeError
from ..training.arguments import Options, Recipe, StageRun
from ..training.stage_data import StageData, open_stage_data, split_stage_data
from .calibration import apply_calibration, fit_calibration
from .pooled_folds import pool_folds, pooled_results, write_pooled
from .results_file import RESULTS_FILE, read_results
from .results_schema import PooledTrainings, Results, Training
from .split_evaluation import SplitPredictions, read_predictions

FOLDS_FOLDER = "folds"
_LEAST_SCORE = 1e-12  # so that the logarithm is finite
# A finished fold does not depend on these options; seed and data are compared separately.
_HARMLESS = {
    "output_dir", "resume_from_checkpoint", "cache_dir", "num_preparation_processes", "dataloader_num_workers",
    "disable_tqdm", "data", "seed",
}  # fmt: skip


@dataclass(frozen=True)
class FoldedStage:
    """A stage's data divided into folds, numbered from 0."""

    run: StageRun
    dealt: DealtFolds

    def __len__(self) -> int:
        return self.dealt.num_folds

    def run_of(self, fold: int) -> StageRun:
        """The stage's run for one fold, in its own folder."""
        run_dir = self.run.run_dir / FOLDS_FOLDER / str(fold + 1)
        training = copy(self.run.training)  # each training sets values in it, such as the selection score
        training.output_dir = str(run_dir / "checkpoints" / self.run.name)
        return replace(self.run, training=training, run_dir=run_dir)

    def data_of(self, fold: int) -> StageData:
        """The fold's people for training, validation and test."""
        return split_stage_data(self.run, self.dealt.fold(fold), self.dealt.audit)

    def finished(self, fold: int, recipe: Recipe) -> Results | None:
        """The results of a finished fold; None: it is not finished.

        Args:
            recipe: its options as recorded in results.

        Raises:
            RecipeError: they are of a different seed, options or data.
        """
        export = self.run_of(fold).export_dir
        if not (export / RESULTS_FILE).is_file():
            return None
        found = read_results(export)
        is_same = (
            found.data is not None
            and found.data.fingerprint == self.dealt.fingerprint(fold)
            and found.seed == self.run.training.seed
            and _what_is_learned(found.recipe) == _what_is_learned(recipe.options)
        )
        if not is_same:
            raise RecipeError(
                f"{export} contains a fold with a different seed, options or data; choose a different --output_dir."
            )
        return found

    def predictions(self, fold: int) -> tuple[SplitPredictions, SplitPredictions]:
        """The predictions of the fold's model for its validation people and its test people."""
        export, fingerprint = self.run_of(fold).export_dir, self.dealt.fingerprint(fold)
        validation, _ = read_predictions(export, "validation", fingerprint)
        test, _ = read_predictions(export, "test", fingerprint)
        return validation, test


def _what_is_learned(recipe: Options) -> dict[str, JsonValue]:
    return {name: value for name, value in recipe.items() if name not in _HARMLESS}


def start_to_check(run: StageRun) -> str | Path | None:
    """The model that the stage, or its first fold, starts from.

    Raises:
        RecipeError: start_from is a folder of folds, but the stage is not trained in folds.
    """
    start = run.stage.start_from
    if start and is_folder_of_folds(start) and not run.stage.folds:
        raise RecipeError(
            f"start_from {start} contains folds; pass --folds too, or start from one fold's model, such as "
            f"{start_of_fold(start, 0)}."
        )
    return start_of_fold(start, 0)


def start_of_fold(start_from: str | Path | None, fold: int) -> str | Path | None:
    """The model that a fold starts from: in a folder of folds, the one with the same number."""
    if start_from is None or not is_folder_of_folds(start_from):
        return start_from
    return Path(start_from) / FOLDS_FOLDER / str(fold + 1) / "engagement"


def is_folder_of_folds(folder: str | Path) -> bool:
    """Whether the folder belongs to a training in folds, finished or not."""
    return (Path(folder) / FOLDS_FOLDER).is_dir()


def load_folds(run: StageRun) -> FoldedStage:
    """Audit the stage's data and divide its people into the run's number of folds.

    Raises:
        RecipeError: folds with a push to the Hub; too few folds; different people from those of the folds to start
            from.
        DataError: a person is unknown, or there are too few people; else as `load_stage_data`.
        LeakageError: leakage that no division of the people can avoid.
    """
    if run.push_to_hub:
        raise RecipeError("--push_to_hub cannot be used with --folds, which give pooled scores, not one model to push.")
    folds, start = run.stage.folds or 0, run.stage.start_from
    earlier = _earlier_folds(Path(start), folds) if start and is_folder_of_folds(start) else None
    prepared = open_stage_data(run)
    scheme = prepared.choose_label_scheme(run.stage.label_scheme)
    return FoldedStage(run, deal_folds(prepared, folds, scheme, earlier))


def _earlier_folds(folder: Path, folds: int | str) -> EarlierFolds:
    """The test and validation people of the folds to start from."""
    asked = "folds by subject" if folds == SUBJECT else f"{folds} folds"
    try:
        measured = read_results(folder / "engagement").measured_on("test")
        found = measured.pooled if measured else None
        num_folds = found.num_folds if found else 0
        exports = [folder / FOLDS_FOLDER / str(fold + 1) / "engagement" for fold in range(num_folds)]
        tested, selected = (
            [[str(person) for person in read_predictions(export, split)[0].subject_ids] for export in exports]
            for split in ("test", "validation")
        )
    except ModelLoadError as error:
        raise RecipeError(f"start_from {folder} needs {asked}, all of them finished: {error}") from error
    if found is None or (SUBJECT if found.by_subject else found.num_folds) != folds:
        got = f"{num_folds}{' by subject' if found and found.by_subject else ''}"
        raise RecipeError(f"start_from {folder} needs {asked}, got {got}; pass the same --folds as there.")
    if sum(len(set(people)) for people in tested) > len(set().union(*tested)):
        raise LeakageError(f"Some people are in several folds of {folder}; train these folds again.")
    return EarlierFolds(tested, selected)


def average_seeds(runs: Sequence[Path], output: Path) -> Results:
    """One measurement of the mean of several seeds' scores, fold by fold, in `output/engagement`.

    Each training's scores are calibrated in its fold, averaged, and then calibrated and decided again like one model's.

    Args:
        runs: folders of folds of one recipe, such as `runs/first/seed0`.

    Raises:
        DataError: fewer than two runs, or runs with different data or folds.
        ModelLoadError: a fold lacks its results or predictions.
    """
    if len(runs) < 2:
        raise DataError(f"Expected at least two runs in folds to average, got {len(runs)}.")
    pooled = [read_results(run / "engagement") for run in runs]
    measured = [found for results in pooled if (found := results.measured_on("test")) is not None]
    folds = [found.pooled.num_folds if found.pooled else 0 for found in measured]
    dealt = {(found.data.fingerprint, num) for found, num in zip(measured, folds, strict=True)}
    if len(measured) < len(runs) or not folds[0] or len(dealt) > 1:
        raise DataError(f"These runs do not have the same data in the same folds: {', '.join(map(str, runs))}.")
    exports = [[run / FOLDS_FOLDER / str(fold + 1) / "engagement" for run in runs] for fold in range(folds[0])]
    averaged = pool_folds([_average(of_fold) for of_fold in exports], pooled[0].label_names)
    finished = [read_results(of_fold[0]) for of_fold in exports]
    data = measured[0].data
    by_subject = bool(measured[0].pooled and measured[0].pooled.by_subject)
    results = pooled_results(finished, data.fingerprint, data.split or "", averaged.evaluation, by_subject)
    seeds = [seed for found in measured if found.pooled for seed in found.pooled.seeds]
    seconds = sum(found.training.seconds for found in pooled if found.training)
    results = results.model_copy(
        update={
            "measurements": [
                results.measurements[0].model_copy(
                    update={"pooled": PooledTrainings(seeds=seeds, num_folds=folds[0], by_subject=by_subject)}
                )
            ],
            "training": Training(seconds=seconds, log=[]),
        }
    )
    write_pooled(output / "engagement", results, averaged.predictions)
    return results


def _average(exports: Sequence[Path]) -> tuple[SplitPredictions, SplitPredictions]:
    """For one fold: the mean of its seeds' calibrated scores, on validation and on test."""
    found = [[read_predictions(export, split)[0] for export in exports] for split in ("validation", "test")]
    names = read_results(exports[0]).label_names
    chosen = [fit_calibration(part.logits, part.label_ids, names).chosen for part in found[0]]
    means = [
        np.mean([apply_calibration(part.logits, own) for part, own in zip(parts, chosen, strict=True)], axis=0)
        for parts in found
    ]
    validation, test = (
        replace(parts[0], logits=np.log(np.maximum(mean, _LEAST_SCORE)))
        for parts, mean in zip(found, means, strict=True)
    )
    return validation, test


def time_left(seconds: float, num_done: int, num_todo: int) -> str:
    """In words, estimated from the folds that were trained in this run."""
    if not num_done:
        return "time left unknown"
    minutes = round(seconds / num_done * num_todo / 60)
    return f"about {minutes} min left" if minutes else "less than a minute left"
