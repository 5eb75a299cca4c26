"""Predictions on a split → the records of `results.json`.

Scores by clip (mean of its windows' scores) and, separately, by window; baselines that need no model; intervals from
people, not clips; a decision and a calibration chosen only on validation. `metrics`, `bootstrap` and `calibration`
compute them; this module combines them, and stores each window's logits.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from scipy.special import softmax

from ..data.atomic_files import whole_file
from ..data.required_packages import installed_version
from ..processor.input_errors import DataError, ModelLoadError, in_one_line
from .answers import measure_answers
from .bootstrap import MIN_PEOPLE_IN_A_CELL, bootstrap_intervals, scores_by_group, spread_over_people
from .calibration import (
    FittedCalibration,
    LogitCalibration,
    apply_calibration,
    calibration_scores,
    compare_decisions,
    fit_calibration,
    risk_coverage,
)
from .metrics import (
    ClipScores,
    absent_in_words,
    compute_scores,
    majority_baseline,
    mean_scores_by_clip,
    name_collapse,
    stratified_baseline,
)
from .results_file import read_results
from .results_schema import Environment, Results
from .score_records import (
    CalibrationResults,
    Decision,
    Group,
    GroupScores,
    Scores,
    SplitEvaluation,
    SuppressedGroup,
)

PREDICTIONS_FILE = "predictions.parquet"
_LOGIT = "logit/"  # prefix of one column per label
_NULLABLE = ("data", "subject_id", "decided")
_VERSIONED_PACKAGES = ("engagement-recognition", "transformers", "torch", "timm", "av", "facenet-pytorch")


@dataclass(frozen=True)
class SplitPredictions:
    """A model's predictions for every window of a split, in the data's order."""

    split: str
    keys: Sequence[tuple[str, int]]  # clip id and window index
    subject_ids: Sequence[str | None]
    label_ids: np.ndarray  # (num_windows,)
    logits: np.ndarray  # (num_windows, num_labels)
    # (num_windows,) class index predicted for the window's clip, if each fold had its own decision.
    decided_ids: np.ndarray | None = None

    def take(self, rows: Sequence[int]) -> "SplitPredictions":
        """Some of the windows."""
        keys, subjects = [self.keys[row] for row in rows], [self.subject_ids[row] for row in rows]
        decided = None if self.decided_ids is None else self.decided_ids[rows]
        return SplitPredictions(self.split, keys, subjects, self.label_ids[rows], self.logits[rows], decided)

    def by_clip(self, calibration: LogitCalibration | None = None) -> ClipScores:
        """One row per clip: the mean of its windows' softmax."""
        scores = apply_calibration(self.logits, calibration)
        return mean_scores_by_clip([clip_id for clip_id, _ in self.keys], scores, self.label_ids)


def evaluate_split(
    predictions: SplitPredictions,
    validation: SplitPredictions | None,
    clean_rows: Sequence[int] | None,
    train_label_ids: Sequence[int],
    label_names: Sequence[str],
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[SplitEvaluation, SplitEvaluation | None]:
    """The split's evaluation, and that of the rows without a duplicate in an earlier split, if some rows have one.

    Args:
        clean_rows: the rows without one; None: all of them. The rest as in `evaluate_predictions`.
    """
    shared = (validation, train_label_ids, label_names, groups)
    whole = evaluate_predictions(predictions, *shared)
    return whole, evaluate_predictions(predictions.take(clean_rows), *shared) if clean_rows else None


def count_labels(label_ids: Sequence[int], label_names: Sequence[str]) -> dict[str, int]:
    """Label name → number of examples."""
    counts = np.bincount(np.asarray(label_ids), minlength=len(label_names))
    return dict(zip(label_names, counts.tolist(), strict=True))


def evaluate_predictions(
    predictions: SplitPredictions,
    validation: SplitPredictions | None,
    train_label_ids: Sequence[int],
    label_names: Sequence[str],
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> SplitEvaluation:
    """
    Args:
        validation: of the same model, to choose threshold and calibration on. None: neither is chosen.
        train_label_ids: for the baselines.
        groups: column → subject → group, such as {"gender": {"110001": "female"}}.
    """
    clips = predictions.by_clip()
    predicted = clips.scores.argmax(axis=1)
    subjects = [predictions.subject_ids[row] for row in clips.first_rows]
    people = subjects if all(subjects) else None  # an unknown person may be any of the others
    fitted = None if validation is None else fit_calibration(validation.logits, validation.label_ids, label_names)
    scaled = predictions.by_clip(fitted.chosen) if fitted and fitted.chosen else None
    return SplitEvaluation(
        num_clips=len(clips.clip_ids),
        num_windows=len(predictions.keys),
        scores=compute_scores(clips.label_ids, predicted, label_names, clips.scores),
        scores_by_window=_by_window(predictions, label_names),
        majority_baseline=majority_baseline(train_label_ids, clips.label_ids, label_names),
        stratified_baseline=stratified_baseline(train_label_ids, clips.label_ids, label_names),
        intervals=bootstrap_intervals(clips.label_ids, predicted, label_names, people, clips.scores),
        people=spread_over_people(clips.label_ids, predicted, label_names, people) if people else None,
        groups={
            column: _hide_what_follows(
                scores_by_group(
                    [of.get(subject or "") for subject in subjects],
                    clips.label_ids,
                    predicted,
                    label_names,
                    people,
                    clips.scores,
                ),
                len(set(subjects)),
            )
            for column, of in (groups or {}).items()
        },
        collapse=name_collapse(clips.label_ids, predicted, label_names),
        calibration=CalibrationResults(
            as_trained=calibration_scores(clips.scores, clips.label_ids),
            scaled=None if scaled is None else calibration_scores(scaled.scores, scaled.label_ids),
        ),
        risk_coverage=risk_coverage(clips.scores, clips.label_ids),
        decision=_decide(predictions, validation, fitted, label_names),
    )


def _hide_what_follows(cells: dict[str, Group], num_people: int) -> dict[str, Group]:
    """Suppress the smallest further groups until enough people are hidden: otherwise the scores of a suppressed group
    would follow from the others and the total."""
    told = {name: cell for name, cell in cells.items() if isinstance(cell, GroupScores)}
    num_hidden = num_people - sum(cell.num_people for cell in told.values())
    while told and 0 < num_hidden < MIN_PEOPLE_IN_A_CELL:
        smallest = min(told, key=lambda name: told[name].num_people)
        num_hidden += told.pop(smallest).num_people
    return {name: told.get(name, SuppressedGroup()) for name in cells}


def _by_window(predictions: SplitPredictions, label_names: Sequence[str]) -> Scores | None:
    if len({clip_id for clip_id, _ in predictions.keys}) == len(predictions.keys):
        return None
    scores = softmax(predictions.logits.astype(float), axis=1)
    return compute_scores(predictions.label_ids, scores.argmax(axis=1), label_names, scores)


def _decide(
    predictions: SplitPredictions,
    validation: SplitPredictions | None,
    fitted: FittedCalibration | None,
    label_names: Sequence[str],
) -> Decision | None:
    if validation is None or fitted is None:
        return None
    clips, held = predictions.by_clip(), validation.by_clip()
    decision = compare_decisions(fitted, held.scores, held.label_ids, clips.scores, clips.label_ids, label_names)
    if fitted.chosen is None:
        return decision
    answers = measure_answers(validation.by_clip(fitted.chosen), predictions.by_clip(fitted.chosen), label_names)
    return decision.model_copy(update={"answers": answers})


def describe_scores(evaluation: SplitEvaluation, split: str) -> str:
    """For the terminal: main scores, macro-F1's interval, the majority baseline, a collapse, scores of ranking, and
    scores at the decision fitted on validation."""
    scores, baseline = evaluation.scores, evaluation.majority_baseline
    headline = {"macro f1": scores.macro_f1, "balanced accuracy": scores.balanced_accuracy, "accuracy": scores.accuracy}
    measured = ", ".join(f"{name} {value:.3f}" for name, value in headline.items())
    interval, over = evaluation.intervals.intervals["macro_f1"], evaluation.intervals.resampled
    collapse = f". {evaluation.collapse}" if evaluation.collapse else ""
    absent = absent_in_words(scores)
    only = f"; {absent}" if absent else ""
    return (
        f"{measured} on {scores.num_examples} {split} examples (macro f1 95 % over {over}: "
        f"{interval.in_words('unknown')}); always "
        f'"{baseline.predicts}": macro f1 {baseline.macro_f1:.3f}, accuracy {baseline.accuracy:.3f}{only}'
        f"{_describe_ranking(evaluation)}{collapse}"
    )


def _describe_ranking(evaluation: SplitEvaluation) -> str:
    scores, parts = evaluation.scores, []
    if scores.auroc is not None:
        parts.append(f"auroc {scores.auroc:.3f}")
    within, people = evaluation.intervals.intervals.get("within_person_auroc"), evaluation.people
    if within is not None and within.value is not None and people is not None:
        parts.append(f"within-person auroc {within.value:.3f} over the {people.num_people_with_both} with both classes")
    if scores.auprc_minority is not None:
        parts.append(f'average precision of "{scores.minority_class}" {scores.auprc_minority:.3f}')
    if evaluation.decision is not None:
        fitted = evaluation.decision.scores.fitted
        parts.append(
            f"at the decision fitted on validation macro f1 {fitted.macro_f1:.3f}, "
            f"balanced accuracy {fitted.balanced_accuracy:.3f}"
        )
        answers = evaluation.decision.answers
        if answers is not None and answers.accuracy_answered is not None:
            parts.append(
                f"with abstaining it answers {answers.answered:.0%} of the clips, {answers.accuracy_answered:.3f} of "
                f"them correctly ({answers.accuracy:.3f} if it always answered); ece {answers.ece:.3f}"
            )
    return "".join(f"; {part}" for part in parts)


def write_predictions(
    folder: Path, splits: Sequence[SplitPredictions], label_names: Sequence[str], fingerprint: str
) -> None:
    """`predictions.parquet`: one row per window with its clip, person, true label, logits, for `compare`. For folds
    also the label by the fold's own decision, with logits calibrated in the fold.

    Existing rows of other data and splits are kept in place, and those of the same data and split replaced. Rows of
    earlier versions, which do not record their data, are replaced by those of the model's own data.

    Args:
        fingerprint: of the data set.

    Raises:
        ModelLoadError: the existing file cannot be read, or has different labels.
    """
    path, schema = folder / PREDICTIONS_FILE, _predictions_schema(label_names)
    tables = _read_tables(folder) if path.exists() else {}
    if any(table.schema.names != schema.names for table in tables.values()):
        raise ModelLoadError(
            f"The predictions in {path} have other labels than {', '.join(label_names)}; move it away."
        )
    if any(data is None for data, _ in tables) and _own_fingerprint(read_results(folder)) == fingerprint:
        measured = [(None, part.split) for part in splits]
        tables = {key: table for key, table in tables.items() if key not in measured}
    for part in splits:
        columns = {
            "data": [fingerprint] * len(part.keys),
            "split": [part.split] * len(part.keys),
            "clip_id": [clip_id for clip_id, _ in part.keys],
            "window_index": [window for _, window in part.keys],
            "subject_id": list(part.subject_ids),
            "label": [label_names[label] for label in part.label_ids],
            "decided": pyarrow.nulls(len(part.keys))
            if part.decided_ids is None
            else [label_names[label] for label in part.decided_ids],
            **{f"{_LOGIT}{name}": part.logits[:, i].astype(np.float32) for i, name in enumerate(label_names)},
        }
        tables[fingerprint, part.split] = pyarrow.table(columns).cast(schema)
    with whole_file(path) as partial:
        pyarrow.parquet.write_table(pyarrow.concat_tables(tables.values()), partial)


def read_predictions(folder: Path, split: str, fingerprint: str | None = None) -> tuple[SplitPredictions, list[str]]:
    """One split's predictions, in the data's order, and the label names.

    Args:
        fingerprint: of the data set; default: that of the model's own data, else of the first that was measured.

    Raises:
        ModelLoadError: there are no readable predictions.
        DataError: there are none of this split, or of this data.
    """
    tables = _read_tables(folder)
    of_split = {data: table for (data, found), table in tables.items() if found == split}
    if fingerprint is None:
        own = _own_fingerprint(read_results(folder)) if len(of_split) > 1 else None
        table = of_split.get(own, next(iter(of_split.values()), None))
    else:
        table = of_split.get(fingerprint)
        if table is None and None in of_split:
            is_of_it = _data_of_older_rows(read_results(folder), split, tables) == fingerprint
            table = of_split[None] if is_of_it else None
    if table is None:
        wanted = f"{split} of {fingerprint[:12]}" if fingerprint and of_split else split
        raise DataError(f"{folder / PREDICTIONS_FILE} has no predictions on {wanted}; run `engagement evaluate "
                        f"{folder} --data DATA --split {split}`.")  # fmt: skip
    columns, names = table.to_pydict(), _labels_of(table)
    keys = list(zip(columns["clip_id"], columns["window_index"], strict=True))
    label_ids = np.array([names.index(label) for label in columns["label"]], dtype=np.int64)
    logits = np.stack([columns[f"{_LOGIT}{name}"] for name in names], axis=1)
    decided = None
    if None not in columns["decided"]:
        decided = np.array([names.index(label) for label in columns["decided"]], dtype=np.int64)
    return SplitPredictions(split, keys, columns["subject_id"], label_ids, logits, decided), names


def _predictions_schema(label_names: Sequence[str]) -> pyarrow.Schema:
    text = pyarrow.string()
    columns = {"data": text, "split": text, "clip_id": text, "window_index": pyarrow.int64(), "subject_id": text,
               "label": text, "decided": text}  # fmt: skip
    return pyarrow.schema({**columns, **{f"{_LOGIT}{name}": pyarrow.float64() for name in label_names}})


def _labels_of(table: pyarrow.Table) -> list[str]:
    return [name.removeprefix(_LOGIT) for name in table.column_names if name.startswith(_LOGIT)]


def _read_tables(folder: Path) -> dict[tuple[str | None, str], pyarrow.Table]:
    """Rows by data and split, in the file's order; the data is None if an earlier version wrote them.

    Raises:
        ModelLoadError: there are no readable predictions.
    """
    path = folder / PREDICTIONS_FILE
    try:
        table = pyarrow.parquet.read_table(path)
        names = _labels_of(table)
        for column in ("data", "decided"):  # not written by earlier versions
            if column not in table.column_names:
                table = table.append_column(column, pyarrow.nulls(len(table), pyarrow.string()))
        schema = _predictions_schema(names)
        table = table.select(schema.names).cast(schema)
        empty = [name for name in schema.names if name not in _NULLABLE and table[name].null_count]
        unknown = sorted({*table["label"].to_pylist(), *table["decided"].to_pylist()} - {None, *names})
        if empty or unknown:
            raise ValueError(f"no value in {empty[0]}" if empty else f"no column {_LOGIT}{unknown[0]}")
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = in_one_line(error)
        raise ModelLoadError(f"No predictions could be read from {path} ({reason}); move the file away if there is "
                             f"one, and run `engagement evaluate {folder}`.") from error  # fmt: skip
    keys = list(zip(table["data"].to_pylist(), table["split"].to_pylist(), strict=True))
    return {key: table.take([row for row, of_row in enumerate(keys) if of_row == key]) for key in dict.fromkeys(keys)}


def _own_fingerprint(results: Results) -> str | None:
    return results.data.fingerprint if results.data else None


def _data_of_older_rows(
    results: Results, split: str, tables: Mapping[tuple[str | None, str], pyarrow.Table]
) -> str | None:
    """The data of rows that do not record it: the first measured data that no other rows record."""
    then = [measured for measured in results.measurements if (measured.data.fingerprint, measured.split) not in tables]
    of_split = [measured for measured in then if measured.split == split]
    return (of_split or then)[0].data.fingerprint if then else _own_fingerprint(results)


def describe_environment(device: torch.device, engine: str = "torch", dtype: str = "float32") -> Environment:
    """Hardware and software of a result measured in this process, on this device."""
    return Environment(
        python=platform.python_version(),
        packages={name: installed_version(name) or "not installed" for name in (*_VERSIONED_PACKAGES, engine)},
        torch_threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        engine=engine,
        dtype=dtype,
    )
