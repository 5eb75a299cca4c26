"""`engagement compare RUN_A RUN_B`: is one model better, or is the difference chance? Paired, over people.

All models must have been measured on the same clips. Each clip's mean scores are compared twice: with the highest
deciding, and with each model's own decision, fitted on validation. Several runs of each, such as three seeds, are
compared in pairs: the n-th of the first with the n-th of the second.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.json_records import Count, Record
from ..processor.input_errors import DataError
from .bootstrap import Predictions, bootstrap_mean, bootstrap_pairs
from .calibration import apply_offsets
from .markdown import markdown_table
from .metrics import ClipScores, name_collapse
from .results_file import read_results
from .score_records import Differences, Intervals, score_in_words
from .split_evaluation import read_predictions

_RANKING = ("auroc", "within_person_auroc", "auprc_minority")  # independent of the decision
SHOWN_SCORES = ("macro_f1", "balanced_accuracy", "accuracy", *_RANKING, "quadratic_kappa", "mae")


class ComparedRuns(Record):
    """What was compared."""

    first: str
    """folder of the first run; several are separated by commas"""
    second: str
    """folder of the second run; several are separated by commas"""
    split: str
    """`test`, `validation`, ..."""
    num_clips: Count
    """number of clips"""
    num_pairs: Count = 1
    """pairs of runs, over which scores and differences are means"""


class Comparison(Differences, ComparedRuns):  # in JSON the keys of the last come first
    """Models on the clips of one split, where the highest score decides; scores are means over the runs."""

    collapse: str | None = None
    """one sentence if runs predict one class for nearly every clip"""
    fitted: Differences | None = None
    """the same with the decisions fitted on validation, for scores that depend on one; null where a run has none"""
    not_fitted: str | None = None
    """why `fitted` is null"""


class _Run(NamedTuple):
    """One model's predictions for the clips, in the order of the first run."""

    clips: ClipScores
    subjects: Sequence[str | None]
    label_names: Sequence[str]
    decided_ids: np.ndarray | None  # (num_clips,) at the decision fitted on validation; None: none was fitted

    def at_argmax(self) -> Predictions:
        return Predictions(self.clips.scores.argmax(axis=1), self.clips.scores)

    def people(self) -> list[str] | None:
        return [str(subject) for subject in self.subjects] if all(self.subjects) else None


class MeanIntervals(NamedTuple):
    """95 % intervals of the mean of several trainings' scores."""

    at_argmax: Intervals
    fitted: Intervals | None  # with the decisions fitted on validation, for scores that depend on one


def compare_runs(first: Path, second: Path, split: str = "test", seed: int = 0, data: str | None = None) -> Comparison:
    """Second minus first, with 95 % intervals from resampled people; see `compare_pairs`."""
    return compare_pairs([first], [second], split, seed, data)


def compare_pairs(
    first: Sequence[Path], second: Sequence[Path], split: str = "test", seed: int = 0, data: str | None = None
) -> Comparison:
    """Second minus first as the mean over pairs of runs, with 95 % intervals from resampled people; see
    `bootstrap.bootstrap_pairs`.

    Args:
        first, second: folders; the n-th of both make a pair.
        data: name, or start of the fingerprint, of a data set that all were measured on; default: each model's own
            data, else the first that it was measured on.

    Raises:
        ModelLoadError: a folder has no predictions.
        DataError: no pairs, no such data, different labels or clips, or the same clips with different labels.
    """
    if not first or len(first) != len(second):
        raise DataError(f"Expected as many second runs as first runs, got {len(second)} and {len(first)}.")
    folders = [*first, *second]
    runs = _read_runs(folders, split, data)
    pairs = list(zip(runs[: len(first)], runs[len(first) :], strict=True))
    truth, names, people = runs[0].clips.label_ids, runs[0].label_names, runs[0].people()
    compared = bootstrap_pairs(truth, [(a.at_argmax(), b.at_argmax()) for a, b in pairs], names, people, seed=seed)
    without = [str(folder) for folder, run in zip(folders, runs, strict=True) if run.decided_ids is None]
    decided, fitted = _at_fitted_decisions(runs), None
    if decided is not None:
        in_pairs = list(zip(decided[: len(first)], decided[len(first) :], strict=True))
        fitted = bootstrap_pairs(truth, in_pairs, names, people, seed=seed)
    return Comparison(
        **dict(compared),
        first=", ".join(map(str, first)),
        second=", ".join(map(str, second)),
        split=split,
        num_clips=len(truth),
        num_pairs=len(pairs),
        collapse=_name_collapses([(_has_collapsed(a), _has_collapsed(b)) for a, b in pairs]),
        fitted=fitted,
        not_fitted=f"no decision was fitted on validation for {split} in {', '.join(without)}" if without else None,
    )


def mean_intervals(folders: Sequence[Path], split: str = "test", seed: int = 0) -> MeanIntervals:
    """Intervals for trainings measured on the same clips, over resampled people; see `bootstrap.bootstrap_mean`.

    Raises:
        ModelLoadError, DataError: as `compare_pairs`.
    """
    runs = _read_runs(folders, split, None)
    truth, names, people = runs[0].clips.label_ids, runs[0].label_names, runs[0].people()
    decided = _at_fitted_decisions(runs)
    return MeanIntervals(
        bootstrap_mean(truth, [run.at_argmax() for run in runs], names, people, seed=seed),
        bootstrap_mean(truth, decided, names, people, seed=seed) if decided else None,
    )


def _at_fitted_decisions(runs: Sequence[_Run]) -> list[Predictions] | None:
    """Without scores: those of ranking are the same as at argmax. None where a run has no decision."""
    decided = [Predictions(run.decided_ids) for run in runs if run.decided_ids is not None]
    return decided if len(decided) == len(runs) else None


def _read_runs(folders: Sequence[Path], split: str, data: str | None) -> list[_Run]:
    """In the order of the folders, all with their clips in the order of the first."""
    leader, *others = [_read_run(folder, split, data) for folder in folders]
    return [leader, *(_like(leader, run, folders[0], folder) for run, folder in zip(others, folders[1:], strict=True))]


def _read_run(folder: Path, split: str, data: str | None) -> _Run:
    fingerprint = data and _fingerprint_of(folder, data)
    predictions, names = read_predictions(folder, split, fingerprint)
    clips = predictions.by_clip()
    subjects = [predictions.subject_ids[row] for row in clips.first_rows]
    if predictions.decided_ids is not None:
        return _Run(clips, subjects, names, predictions.decided_ids[clips.first_rows])
    offsets = _fitted_offsets(folder, split, fingerprint, names)
    return _Run(clips, subjects, names, None if offsets is None else apply_offsets(clips.scores, offsets))


def _fitted_offsets(folder: Path, split: str, fingerprint: str | None, names: Sequence[str]) -> np.ndarray | None:
    """(num_labels,) offsets of the decision that was fitted on validation when this split was measured."""
    results = read_results(folder)
    on_it = [found for found in results.measurements if (found.split, found.data.fingerprint) == (split, fingerprint)]
    measured = next(iter(on_it), None) if fingerprint else results.measured_on(split)
    decision = measured.evaluation.decision if measured else None
    return np.array([decision.offsets[name] for name in names]) if decision else None


def _has_collapsed(run: _Run) -> bool:
    return name_collapse(run.clips.label_ids, run.at_argmax().predicted_ids, run.label_names) is not None


def _name_collapses(pairs: Sequence[tuple[bool, bool]]) -> str | None:
    first, second = (sum(column) for column in zip(*pairs, strict=True))
    if first == second == len(pairs):
        return "Both collapsed: where the highest score decides, one class is predicted for nearly every clip."
    if not first and not second:
        return None
    if len(pairs) == 1:
        which = "first" if first else "second"
        return f"The {which} collapsed: where the highest score decides, it predicts one class for nearly every clip."
    return (
        f"{first} of {len(pairs)} first runs and {second} of {len(pairs)} second runs collapsed: where the highest "
        "score decides, they predict one class for nearly every clip."
    )


def _fingerprint_of(folder: Path, data: str) -> str:
    results = read_results(folder)
    known = {measured.data.fingerprint: measured.data.source for measured in results.measurements}
    known |= {results.data.fingerprint: results.data.source} if results.data else {}
    found = [fingerprint for fingerprint, source in known.items() if data == source or fingerprint.startswith(data)]
    if len(found) != 1:
        names = ", ".join(f"{source} ({fingerprint[:12]})" for fingerprint, source in known.items())
        raise DataError(f"{data} is not the name or fingerprint of one data set of {folder}; it has {names}.")
    return found[0]


def _like(leader: _Run, run: _Run, first: Path, second: Path) -> _Run:
    """The run with its clips in the leader's order."""
    if run.label_names != leader.label_names:
        raise DataError(
            f"The runs have different labels: {', '.join(leader.label_names)} in {first}, and "
            f"{', '.join(run.label_names)} in {second}; only runs with the same labels can be compared."
        )
    order = _same_order(leader.clips, run.clips, first, second)
    clips = ClipScores(*(column[order] for column in run.clips))
    decided = None if run.decided_ids is None else run.decided_ids[order]
    return run._replace(clips=clips, subjects=[run.subjects[row] for row in order], decided_ids=decided)


def _same_order(clips: ClipScores, others: ClipScores, first: Path, second: Path) -> np.ndarray:
    """The position in the second run of each clip of the first."""
    place = {clip_id: row for row, clip_id in enumerate(others.clip_ids)}
    missing = [clip_id for clip_id in clips.clip_ids if clip_id not in place]
    if missing or len(place) != len(clips.clip_ids):
        raise DataError(
            f"The runs were measured on different clips: {len(clips.clip_ids)} in {first} and {len(place)} in "
            f"{second}, {len(clips.clip_ids) - len(missing)} of them shared; evaluate both on the same data, and name "
            "it with --data."
        )
    order = np.array([place[clip_id] for clip_id in clips.clip_ids])
    if (others.label_ids[order] != clips.label_ids).any():
        raise DataError(f"The same clips have different labels in {first} and {second}; evaluate both again.")
    return order


def describe_comparison(compared: Comparison) -> str:
    """A Markdown table: each score of both, the difference and its interval, at argmax and at the fitted decision."""
    seeds = f", mean of {compared.num_pairs} pairs" if compared.num_pairs > 1 else ""
    summary = (
        f"{compared.num_clips} clips of {compared.num_clusters} {compared.resampled}, {compared.split}; second minus "
        f"first{seeds}, 95 % interval"
    )
    rows = []
    for name in SHOWN_SCORES:
        rows += _rows(compared, name, "–" if name in _RANKING else "argmax")
        rows += _rows(compared.fitted, name, "fitted") if compared.fitted else []
    header = ["score", "decision", "first", "second", "difference", "interval", *(["pairs"] if seeds else []), ""]
    notes = [compared.collapse, compared.not_fitted and f"Only at argmax: {compared.not_fitted}."]
    return "\n\n".join([summary, *(note for note in notes if note), markdown_table(header, rows)])


def _rows(compared: Differences, name: str, decision: str) -> list[tuple[str, ...]]:
    """One row, or none where the score is undefined."""
    row, pairs = compared.differences.get(name), compared.by_pair.get(name, [])
    if row is None or row.value is None:
        return []
    verdict = "differs" if row.excludes_zero else "may be chance"
    if row.few_clusters or row.excludes_zero is None:
        verdict = f"too few {compared.resampled} to tell"
    scores = (f"{row.first:.3f}", f"{row.second:.3f}", f"{row.value:+.3f}")
    each = [", ".join("–" if value is None else f"{value:+.3f}" for value in pairs)] if len(pairs) > 1 else []
    return [(score_in_words(name), decision, *scores, row.in_words("unknown", "+.3f"), *each, verdict)]
