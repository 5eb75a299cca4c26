"""95 % intervals of scores by resampling people, differences of two models, spread over people, scores by group.

The clips of one person are similar, so that resampling clips gives far too narrow intervals; people are drawn with
replacement, each with all of their clips. Confusion matrices are counted once per person and summed per resample, so
that thousands of resamples take a moment. `bca` computes bounds from the resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..processor.input_errors import DataError
from .bca import CONFIDENCE, METHOD, Statistic, bca_intervals, effective_number, plain_number
from .metrics import (
    check_predictions,
    compute_scores,
    confusion_scores,
    is_ordered,
    pairs_within_people,
    rarest_class,
)
from .score_records import (
    Difference,
    Differences,
    Group,
    GroupScores,
    Interval,
    Intervals,
    PeopleSpread,
    Quartiles,
    Resampling,
    SuppressedGroup,
)

MIN_PEOPLE_IN_A_CELL = 5


class Predictions(NamedTuple):
    """One model's predictions for the clips."""

    predicted_ids: np.ndarray  # (num_clips,)
    scores: np.ndarray | None = None  # (num_clips, num_labels), softmax


@dataclass(frozen=True)
class _Clusters:
    """Which cluster (a person, or a clip where people are unknown) each clip belongs to."""

    of_clip: np.ndarray  # (num_clips,) index of its cluster
    number: int
    are_people: bool

    def describe(self, num_resamples: int, seed: int) -> Resampling:
        """How the intervals were made, for their readers."""
        return Resampling(
            resampled="people" if self.are_people else "clips",
            num_clusters=self.number,
            num_resamples=num_resamples,
            seed=seed,
            confidence=CONFIDENCE,
            method=METHOD,
        )


def bootstrap_intervals(
    label_ids: np.ndarray,
    predicted_ids: np.ndarray,
    label_names: Sequence[str],
    person_ids: Sequence[str] | None = None,
    scores: np.ndarray | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """95 % intervals of the scores of one model.

    Args:
        label_ids, predicted_ids: (num_clips,).
        person_ids: (num_clips,); None if unknown: then clips are resampled, and the result records it. Such intervals
            are too narrow.
        scores: (num_clips, num_labels) softmax; adds `auroc` and `auprc_minority` and, for two classes and known
            people, `within_person_auroc`.

    Returns:
        By the names of `compute_scores`, and `recall/<label>`, `precision/<label>`, `f1/<label>`. Resamples in which a
        score is undefined, or which lack a class of the sample, are left out and counted; bounds are None where fewer
        than half are left, or with only one cluster.

    Raises:
        DataError: arrays that do not match, or people known only for some clips.
    """
    model = Predictions(predicted_ids, scores)
    return bootstrap_mean(label_ids, [model], label_names, person_ids, num_resamples, seed)


def bootstrap_mean(
    label_ids: np.ndarray,
    models: Sequence[Predictions],
    label_names: Sequence[str],
    person_ids: Sequence[str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """The same for the mean of several models' scores, such as trainings of one recipe, on the same resampled people.

    The interval is over people, for these trainings only.
    """
    clusters = _cluster(person_ids, len(label_ids))
    with_scores = all(model.scores is not None for model in models)
    statistic = _mean_statistic(
        [_statistic_of(clusters, label_ids, model, label_names, with_scores) for model in models]
    )
    effective = _effective_numbers(clusters, np.asarray(label_ids), label_names)
    intervals = bca_intervals(statistic, effective, clusters.number, num_resamples, seed)
    return Intervals(**dict(clusters.describe(num_resamples, seed)), intervals=intervals)


def paired_bootstrap(
    label_ids: np.ndarray,
    first: Predictions,
    second: Predictions,
    label_names: Sequence[str],
    person_ids: Sequence[str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Differences:
    """Second model minus first on the same clips, both scored on the same resampled people; see `bootstrap_pairs`."""
    return bootstrap_pairs(label_ids, [(first, second)], label_names, person_ids, num_resamples, seed)


def bootstrap_pairs(
    label_ids: np.ndarray,
    pairs: Sequence[tuple[Predictions, Predictions]],
    label_names: Sequence[str],
    person_ids: Sequence[str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Differences:
    """Second minus first, as the mean over pairs of models, such as two recipes' trainings with the same seeds.

    All are scored on the same resampled people. The interval is over people, for these trainings only; `by_pair` shows
    the variation between seeds.

    Args:
        pairs: of models, by clip; scores of ranking are compared if all have scores.

    Raises:
        DataError: as `bootstrap_intervals`.
    """
    clusters = _cluster(person_ids, len(label_ids))
    with_scores = all(model.scores is not None for pair in pairs for model in pair)
    statistics = [
        tuple(_statistic_of(clusters, label_ids, model, label_names, with_scores) for model in pair) for pair in pairs
    ]
    of_first, of_second = (_mean_statistic([pair[i] for pair in statistics]) for i in (0, 1))
    difference = _difference_of(of_first, of_second)
    effective = _effective_numbers(clusters, np.asarray(label_ids), label_names)
    differences = bca_intervals(difference, effective, clusters.number, num_resamples, seed)
    everyone = np.ones((1, clusters.number))
    values = [statistic(everyone) for statistic in (of_first, of_second)]
    rows = {
        name: _difference(row, *(plain_number(value[name][0]) for value in values)) for name, row in differences.items()
    }
    each = [_difference_of(*pair)(everyone) for pair in statistics]
    by_pair = {name: [plain_number(values[name][0]) for values in each] for name in rows}
    return Differences(**dict(clusters.describe(num_resamples, seed)), differences=rows, by_pair=by_pair)


def _statistic_of(
    clusters: _Clusters, label_ids: np.ndarray, model: Predictions, label_names: Sequence[str], with_scores: bool
) -> Statistic:
    truth, ids, scores = check_predictions(label_ids, model.predicted_ids, len(label_names), model.scores)
    return _score_statistic(clusters, truth, ids, label_names, scores if with_scores else None)


def _mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    def mean(counts: np.ndarray) -> dict[str, np.ndarray]:
        found = [statistic(counts) for statistic in statistics]
        return {name: np.mean([values[name] for values in found], axis=0) for name in found[0]}

    return mean


def _difference_of(first: Statistic, second: Statistic) -> Statistic:
    def difference(counts: np.ndarray) -> dict[str, np.ndarray]:
        before, after = first(counts), second(counts)
        return {name: after[name] - before[name] for name in before}

    return difference


def _difference(row: Interval, first: float | None, second: float | None) -> Difference:
    excludes_zero = None if row.lower is None or row.upper is None else not row.lower <= 0 <= row.upper
    return Difference(**dict(row), first=first, second=second, excludes_zero=excludes_zero)


def spread_over_people(
    label_ids: np.ndarray, predicted_ids: np.ndarray, label_names: Sequence[str], person_ids: Sequence[str]
) -> PeopleSpread:
    """How much people differ: quartiles over people, each with the same weight.

    Raises:
        DataError: as `bootstrap_intervals`.
    """
    label_ids, predicted_ids, _ = check_predictions(label_ids, predicted_ids, len(label_names))
    clusters = _cluster(person_ids, len(label_ids))
    confusions = _confusions(clusters, label_ids, predicted_ids, len(label_names))
    clips = confusions.sum((1, 2))
    predicted, true = confusions.sum(1) / clips[:, None], confusions.sum(2) / clips[:, None]  # (num_people, num_labels)
    return PeopleSpread(
        num_people=clusters.number,
        num_people_with_both=int((confusions.sum(2) > 0).all(1).sum()) if len(label_names) == 2 else None,
        accuracy=_quartiles(np.trace(confusions, axis1=1, axis2=2) / clips),
        predicted_share={name: _quartiles(predicted[:, i]) for i, name in enumerate(label_names)},
        true_share={name: _quartiles(true[:, i]) for i, name in enumerate(label_names)},
    )


def scores_by_group(
    groups: Sequence[str | None],
    label_ids: np.ndarray,
    predicted_ids: np.ndarray,
    label_names: Sequence[str],
    person_ids: Sequence[str] | None,
    scores: np.ndarray | None = None,
) -> dict[str, Group]:
    """Scores per group, such as a gender; a clip without a group is in the group "unknown".

    A cell of fewer than five people is suppressed, as its scores would describe individuals; so is every cell if
    people are unknown. If only one cell is suppressed, its numbers follow from the others and the total: do not print
    both.

    Returns:
        By group, sorted; the minority class is that of all clips, so that groups can be compared.

    Raises:
        DataError: as `bootstrap_intervals`.
    """
    label_ids, predicted_ids, scores = check_predictions(label_ids, predicted_ids, len(label_names), scores)
    clusters = _cluster(person_ids, len(label_ids))
    names = _group_names(groups, len(label_ids))
    rarest = rarest_class(label_ids)
    minority_class = None if rarest is None else label_names[rarest]
    result: dict[str, Group] = {}
    for group in np.unique(names):
        mine = names == group
        num_people = np.unique(clusters.of_clip[mine]).size if clusters.are_people else 0
        if num_people < MIN_PEOPLE_IN_A_CELL:
            result[str(group)] = SuppressedGroup()
            continue
        mine_scores = None if scores is None else scores[mine]
        of_group = compute_scores(label_ids[mine], predicted_ids[mine], label_names, mine_scores, minority_class)
        result[str(group)] = GroupScores(num_people=num_people, **dict(of_group))
    return result


def _cluster(person_ids: Sequence[str] | None, num_clips: int) -> _Clusters:
    if person_ids is None:
        return _Clusters(np.arange(num_clips), num_clips, are_people=False)
    unknown = sum(_is_unknown(person) for person in person_ids)
    if unknown or len(person_ids) != num_clips:
        raise DataError(
            f"Expected a person for each of {num_clips} clips, got {len(person_ids) - unknown}; give all people, or "
            "none to resample clips."
        )
    people, of_clip = np.unique(np.asarray(person_ids, dtype=str), return_inverse=True)
    return _Clusters(of_clip, len(people), are_people=True)


def _is_unknown(value: object) -> bool:
    # NaN, which pandas reads from an empty cell, is the only value that differs from itself.
    return value is None or value == "" or value != value


def _group_names(groups: Sequence[str | None], num_clips: int) -> np.ndarray:
    if len(groups) != num_clips:
        raise DataError(f"Expected a group (or None) for each of {num_clips} clips, got {len(groups)}.")
    return np.asarray(["unknown" if _is_unknown(group) else str(group) for group in groups])


def _confusions(clusters: _Clusters, label_ids: np.ndarray, predicted_ids: np.ndarray, num_labels: int) -> np.ndarray:
    """(num_clusters, num_labels, num_labels), rows: truth, columns: prediction."""
    cell = (clusters.of_clip * num_labels + label_ids) * num_labels + predicted_ids
    counts = np.bincount(cell, minlength=clusters.number * num_labels**2)
    return counts.reshape(clusters.number, num_labels, num_labels).astype(float)


def _score_statistic(
    clusters: _Clusters,
    label_ids: np.ndarray,
    predicted_ids: np.ndarray,
    label_names: Sequence[str],
    scores: np.ndarray | None,
) -> Statistic:
    num_labels = len(label_names)
    confusions = _confusions(clusters, label_ids, predicted_ids, num_labels).reshape(clusters.number, -1)
    present = np.unique(label_ids)
    ranking = None if scores is None else _ranking_statistic(clusters, label_ids, scores)

    def statistic(counts: np.ndarray) -> dict[str, np.ndarray]:
        summed = (counts @ confusions).reshape(-1, num_labels, num_labels)
        drawn = confusion_scores(summed, is_ordered(label_names))
        tables = {name: drawn.pop(name) for name in ("precision", "recall", "f1")}
        drawn |= {f"{name}/{label}": tables[name][:, i] for name in tables for i, label in enumerate(label_names)}
        drawn |= ranking(counts) if ranking else {}
        # A class that is missing by chance would have a score of 0, as if the model had missed it.
        whole = (summed.sum(-1)[:, present] > 0).all(axis=1)
        return {name: np.where(whole, values, np.nan) for name, values in drawn.items()}

    return statistic


def _ranking_statistic(clusters: _Clusters, label_ids: np.ndarray, scores: np.ndarray) -> Statistic:
    present, minority = np.unique(label_ids), rarest_class(label_ids)
    ranked = [minority] if scores.shape[1] == 2 else list(present)
    rankings = {label: _Ranking(label_ids == label, scores[:, label]) for label in ranked if minority is not None}
    is_within = clusters.are_people and scores.shape[1] == 2
    names = ("auroc", "auprc_minority", *(("within_person_auroc",) if is_within else ()))
    right = pairs = np.zeros(clusters.number)
    if is_within and minority is not None:
        right, pairs = pairs_within_people(clusters.of_clip, label_ids == minority, scores[:, minority])

    def statistic(counts: np.ndarray) -> dict[str, np.ndarray]:
        if minority is None:
            return dict.fromkeys(names, np.full(len(counts), np.nan))
        weights = counts[:, clusters.of_clip]  # (num_draws, num_clips)
        auroc = np.mean([rankings[label].auroc(weights) for label in ranked], axis=0)
        found = (auroc, rankings[minority].average_precision(weights), _defined_ratio(counts @ right, counts @ pairs))
        return dict(zip(names, found, strict=False))

    return statistic


class _Ranking:
    """AUROC and average precision of one score under many weightings of the clips; the clips are sorted once."""

    def __init__(self, is_positive: np.ndarray, score: np.ndarray) -> None:
        self.order = np.argsort(-score, kind="stable")
        self.is_positive = is_positive[self.order]
        falls = np.flatnonzero(np.diff(score[self.order]))
        self.ends = np.append(falls, len(score) - 1)  # the last clip of each run of equal scores

    def _counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positives and negatives at or above each distinct score, (num_draws, num_distinct) each."""
        weights = weights[:, self.order]
        positives = np.cumsum(weights * self.is_positive, axis=1)[:, self.ends]
        return positives, np.cumsum(weights, axis=1)[:, self.ends] - positives

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """weights: (num_draws, num_clips) → (num_draws,)."""
        positives, negatives = self._counts(weights)
        steps = np.diff(negatives, axis=1, prepend=0)
        heights = positives - np.diff(positives, axis=1, prepend=0) / 2  # a tie counts half
        return _defined_ratio((steps * heights).sum(axis=1), positives[:, -1] * negatives[:, -1])

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """weights: (num_draws, num_clips) → (num_draws,)."""
        positives, negatives = self._counts(weights)
        precision = positives / np.maximum(positives + negatives, 1)  # weights are whole numbers
        steps = np.diff(positives, axis=1, prepend=0)
        return _defined_ratio((steps * precision).sum(axis=1), positives[:, -1])


def _effective_numbers(clusters: _Clusters, label_ids: np.ndarray, label_names: Sequence[str]) -> dict[str, float]:
    """By score: the effective number of clusters of all clips, or of the class that it depends on.

    For a mean over classes, that of the class with the fewest.
    """
    clips = np.stack(
        [np.bincount(clusters.of_clip[label_ids == i], minlength=clusters.number) for i in range(len(label_names))]
    )

    of_class = {label: effective_number(clips[i]) for i, label in enumerate(label_names)}
    over_classes = min(number for number in of_class.values() if number > 0)
    return {
        **dict.fromkeys(("macro_f1", "balanced_accuracy", "auroc", "auprc_minority"), over_classes),
        "within_person_auroc": effective_number(clips[0] * clips[-1]),  # pairs of two classes
        **dict.fromkeys(("accuracy", "weighted_f1", "quadratic_kappa", "mae"), effective_number(clips.sum(axis=0))),
        **{f"{name}/{label}": of_class[label] for name in ("precision", "recall", "f1") for label in label_names},
    }


def _quartiles(values: np.ndarray) -> Quartiles:
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Quartiles(lower_quartile=lower, median=median, upper_quartile=upper)


def _defined_ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
