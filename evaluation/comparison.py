"""`engagement compare RUN_A RUN_B`: is one model better, or were these just other people? Paired, over people.

Both models must have been measured on the same clips; what is compared is each clip's mean score.
"""

from pathlib import Path

import numpy as np

from ..data.json_records import Count, Record
from ..processor.input_errors import DataError
from .bootstrap import Predictions, paired_bootstrap
from .markdown import markdown_table
from .metrics import ClipScores
from .results_file import read_results
from .score_records import Differences
from .split_evaluation import read_predictions

SHOWN_SCORES = ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "auprc_minority", "quadratic_kappa", "mae")


class ComparedRuns(Record):
    """What was compared."""

    first: str
    """folder of the first"""
    second: str
    """folder of the second"""
    split: str
    """`test`, `validation`, ..."""
    num_clips: Count
    """clips"""


class Comparison(Differences, ComparedRuns):  # in JSON the keys of the last come first
    """Two models on the clips of one split."""


def compare_runs(first: Path, second: Path, split: str = "test", seed: int = 0, data: str | None = None) -> Comparison:
    """Second minus first, with 95 % intervals from resampled people; see `bootstrap.paired_bootstrap`.

    Args:
        data: name of a data set that both were measured on, or how its fingerprint begins; default: each model's own
            data, else what it was measured on first.

    Raises:
        ModelLoadError: a folder has no predictions.
        DataError: no such data, other labels, other clips, or the same clips under other labels.
    """
    (one, names), (other, other_names) = (
        read_predictions(folder, split, data and _fingerprint_of(folder, data)) for folder in (first, second)
    )
    if names != other_names:
        raise DataError(
            f"Expected runs with the same labels, got {', '.join(names)} in {first} and {', '.join(other_names)} in "
            f"{second}."
        )
    clips, others = one.by_clip(), other.by_clip()
    order = _same_order(clips, others, first, second)
    subjects = [one.subject_ids[row] for row in clips.first_rows]
    compared = paired_bootstrap(
        clips.label_ids,
        Predictions(clips.scores.argmax(axis=1), clips.scores),
        Predictions(others.scores[order].argmax(axis=1), others.scores[order]),
        names,
        subjects if all(subjects) else None,
        seed=seed,
    )
    return Comparison(**dict(compared), first=str(first), second=str(second), split=split, num_clips=len(subjects))


def _fingerprint_of(folder: Path, data: str) -> str:
    results = read_results(folder)
    known = {measured.data.fingerprint: measured.data.source for measured in results.measurements}
    known |= {results.data.fingerprint: results.data.source} if results.data else {}
    found = [fingerprint for fingerprint, source in known.items() if data == source or fingerprint.startswith(data)]
    if len(found) != 1:
        names = ", ".join(f"{source} ({fingerprint[:12]})" for fingerprint, source in known.items())
        raise DataError(f"Expected the name or fingerprint of one data set of {folder} ({names}), got {data}.")
    return found[0]


def _same_order(clips: ClipScores, others: ClipScores, first: Path, second: Path) -> np.ndarray:
    """Where in the second run each clip of the first lies."""
    place = {clip_id: row for row, clip_id in enumerate(others.clip_ids)}
    missing = [clip_id for clip_id in clips.clip_ids if clip_id not in place]
    if missing or len(place) != len(clips.clip_ids):
        raise DataError(
            f"Expected the same clips, got {len(clips.clip_ids)} in {first} and {len(place)} in {second}, "
            f"{len(clips.clip_ids) - len(missing)} of them shared; evaluate both on the same data, and name it with "
            "--data."
        )
    order = np.array([place[clip_id] for clip_id in clips.clip_ids])
    if (others.label_ids[order] != clips.label_ids).any():
        raise DataError(f"Expected the same labels for the same clips in {first} and {second}; evaluate both anew.")
    return order


def describe_comparison(compared: Comparison) -> str:
    """A Markdown table: each score of both, the difference and its interval."""
    summary = (
        f"{compared.num_clips} clips of {compared.num_clusters} {compared.resampled}, {compared.split}; second minus "
        "first, 95 % interval"
    )
    rows = []
    for name in SHOWN_SCORES:
        row = compared.differences.get(name)
        if row and row.value is not None:
            bounds = row.in_words("unknown", "+.3f")
            verdict = "differs" if row.excludes_zero else "may be chance"
            if row.few_clusters or row.excludes_zero is None:
                verdict = f"too few {compared.resampled} to tell"
            scores = (f"{row.first:.3f}", f"{row.second:.3f}", f"{row.value:+.3f}")
            rows.append((name.replace("_", " "), *scores, bounds, verdict))
    table = markdown_table(("score", "first", "second", "difference", "interval", ""), rows)
    return f"{summary}\n\n{table}"
