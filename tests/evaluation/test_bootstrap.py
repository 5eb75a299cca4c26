"""Intervals hold the truth as often as they say, with people as clusters; differences, spread and groups."""

import time
from dataclasses import dataclass

import numpy as np
import pytest

from engagement_recognition.data.schema import BINARY, LEVELS
from engagement_recognition.evaluation.bootstrap import (
    Predictions,
    _cluster,
    _score_statistic,
    bootstrap_intervals,
    paired_bootstrap,
    scores_by_group,
    spread_over_people,
)
from engagement_recognition.evaluation.metrics import compute_scores
from engagement_recognition.evaluation.score_records import (
    GroupScores,
    Interval,
    Intervals,
    Quartiles,
    Scores,
    SuppressedGroup,
)
from engagement_recognition.processor.input_errors import DataError


@dataclass(frozen=True)
class Population:
    """People who differ: in how often they are engaged, and in how well the model reads them."""

    base: float  # log odds of the second class for the person in the middle
    clips: tuple[int, int] = (8, 25)  # least and most of a person

    def draw(self, rng: np.random.Generator, num_people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(person, label, prediction, softmax) by clip."""
        person = np.repeat(np.arange(num_people), rng.integers(self.clips[0], self.clips[1] + 1, num_people))
        share = 1 / (1 + np.exp(-(self.base + rng.standard_normal(num_people))))
        label = (rng.random(len(person)) < share[person]).astype(int)
        shift = 0.7 * rng.standard_normal(num_people)
        evidence = 1.5 * (label - 0.5) + 0.3 * self.base + shift[person] + rng.standard_normal(len(person))
        second = 1 / (1 + np.exp(-evidence))
        return person, label, (evidence > 0).astype(int), np.stack([1 - second, second], axis=1)

    def truth(self) -> Scores:
        _, labels, predicted, scores = self.draw(np.random.default_rng(99), 100_000)
        return compute_scores(labels, predicted, BINARY, scores)


def coverage(population: Population, num_people: int, num_samples: int, score: str = "macro_f1") -> float:
    """The share of samples of people whose interval holds the score of all people."""
    rng, truth = np.random.default_rng(num_people), getattr(population.truth(), score)
    held = 0
    for seed in range(num_samples):
        person, labels, predicted, scores = population.draw(rng, num_people)
        scores = scores if score == "auroc" else None
        result = bootstrap_intervals(labels, predicted, BINARY, person.astype(str), scores, 1000, seed)
        interval = result.intervals[score]
        held += interval.lower is not None and interval.lower <= truth <= interval.upper
    return held / num_samples


BALANCED_AS_THE_SUBSET, RARE_AS_DAISEE = Population(1.2), Population(3.2)  # 27 % and 6 % are of the first class


@pytest.mark.slow
@pytest.mark.parametrize("score", ["macro_f1", "auroc"])
@pytest.mark.parametrize("population", [BALANCED_AS_THE_SUBSET, RARE_AS_DAISEE], ids=["27 percent", "6 percent"])
@pytest.mark.parametrize("num_people", [10, 20, 40, 60])
def test_intervals_hold_the_truth(population: Population, num_people: int, score: str):
    num_samples = 4000 if score == "macro_f1" else 1000  # AUROC takes long
    share = coverage(population, num_people, num_samples, score)
    print(f"{score}, {num_people} people: {share:.4f}")
    # 93 to 97 %, give or take two standard errors of this estimate.
    tolerance = 2 * np.sqrt(0.95 * 0.05 / num_samples)
    assert 0.93 - tolerance <= share <= 0.97 + tolerance


@pytest.mark.slow
def test_five_people_with_a_rare_class_are_too_few():
    # Known and said (`few_clusters`): no bootstrap makes up for people it has not seen.
    assert coverage(RARE_AS_DAISEE, 5, 1000) < 0.8
    person, labels, predicted, _ = RARE_AS_DAISEE.draw(np.random.default_rng(1), 5)
    assert bootstrap_intervals(labels, predicted, BINARY, person).intervals["macro_f1"].few_clusters


@pytest.mark.slow
def test_intervals_of_a_difference_hold_the_truth():
    # The second model hears the first and some noise, and is as much worse as that makes it.
    rng, held = np.random.default_rng(0), 0
    worse = lambda predicted: np.where(rng.random(len(predicted)) < 0.1, 1 - predicted, predicted)  # noqa: E731
    _, labels, predicted, _ = BALANCED_AS_THE_SUBSET.draw(rng, 100_000)
    macro_f1 = [compute_scores(labels, ids, BINARY).macro_f1 for ids in (predicted, worse(predicted))]
    for seed in range(1000):
        person, labels, predicted, _ = BALANCED_AS_THE_SUBSET.draw(rng, 30)
        models = Predictions(predicted), Predictions(worse(predicted))
        row = paired_bootstrap(labels, *models, BINARY, person, 1000, seed).differences["macro_f1"]
        held += row.lower <= macro_f1[1] - macro_f1[0] <= row.upper
    print(f"difference, 30 people: {held / 1000:.3f}")
    assert 0.93 <= held / 1000 <= 0.97


# --- What is resampled


def test_resampling_clips_would_be_too_narrow():
    person, labels, predicted, _ = Population(1.2, clips=(60, 80)).draw(np.random.default_rng(0), 20)
    people = bootstrap_intervals(labels, predicted, BINARY, person.astype(str))
    clips = bootstrap_intervals(labels, predicted, BINARY)
    assert (people.resampled, clips.resampled) == ("people", "clips")
    assert (people.num_clusters, clips.num_clusters) == (20, len(labels))
    assert width(people) > 1.5 * width(clips)


def width(result: Intervals) -> float:
    interval = result.intervals["macro_f1"]
    return interval.upper - interval.lower


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_labels", range(2, 8))
def test_a_person_drawn_twice_is_all_of_their_clips_twice(num_labels: int, seed: int):
    rng = np.random.default_rng(seed)
    person, labels = rng.integers(9, size=120), rng.integers(num_labels, size=120)
    scores = np.round(rng.dirichlet(np.ones(num_labels), 120) * 20).astype(int) + 1.0  # many ties
    scores /= scores.sum(axis=1, keepdims=True)
    predicted, names = scores.argmax(axis=1), LEVELS if num_labels == 4 else tuple("abcdefg"[:num_labels])
    minority = names[np.bincount(labels, minlength=num_labels).argmin()]
    statistic = _score_statistic(_cluster(person, 120), labels, predicted, names, scores)
    counts = rng.multinomial(9, np.full(9, 1 / 9))
    rows = np.repeat(np.arange(120), counts[person])
    by_hand = compute_scores(labels[rows], predicted[rows], names, scores[rows], minority)
    drawn = statistic(counts[None].astype(float))
    drawn.pop("within_person_auroc", None)  # pairs of a person with themselves count once a draw
    for name, value in drawn.items():
        score, _, label = name.partition("/")
        expected = getattr(by_hand.per_class[label] if label else by_hand, score)
        assert value[0] == pytest.approx(expected), name


def test_values_are_those_of_the_scores_and_lie_inside():
    person, labels, predicted, scores = BALANCED_AS_THE_SUBSET.draw(np.random.default_rng(3), 25)
    result = bootstrap_intervals(labels, predicted, BINARY, person, scores)
    of_all = compute_scores(labels, predicted, BINARY, scores)
    for name in ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "auprc_minority"):
        row = result.intervals[name]
        assert row.value == pytest.approx(getattr(of_all, name)) and row.lower < row.value < row.upper
    assert {"recall/disengaged", "precision/engaged", "f1/engaged"} <= result.intervals.keys()


def test_seeds_decide_and_the_order_of_clips_does_not():
    person, labels, predicted, scores = BALANCED_AS_THE_SUBSET.draw(np.random.default_rng(4), 15)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    first = bootstrap_intervals(labels, predicted, BINARY, person, scores, seed=7)
    moved = (values[shuffled] for values in (labels, predicted, person, scores))
    labels2, predicted2, person2, scores2 = moved
    second = bootstrap_intervals(labels2, predicted2, BINARY, person2, scores2, seed=7)
    other = bootstrap_intervals(labels, predicted, BINARY, person, scores, seed=8)
    for name, row in first.intervals.items():
        for bound in ("value", "lower", "upper"):
            assert getattr(row, bound) == pytest.approx(getattr(second.intervals[name], bound), rel=1e-9)
    assert first.intervals["macro_f1"] != other.intervals["macro_f1"]


def test_two_thousand_clips_take_a_moment():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(2, size=2000), rng.dirichlet(np.ones(2), 2000)
    started = time.process_time()
    bootstrap_intervals(labels, scores.argmax(axis=1), BINARY, rng.integers(20, size=2000), scores)
    assert time.process_time() - started < 5  # 0.6 s where this was written


def test_one_person_or_one_class_gives_no_bounds():
    labels, predicted = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    alone = bootstrap_intervals(labels, predicted, BINARY, ["anna"] * 4).intervals["macro_f1"]
    assert (alone.lower, alone.upper) == (None, None) and alone.value > 0.5 and alone.few_clusters
    scores = np.array([[0.6, 0.4]] * 4)
    engaged = bootstrap_intervals(np.ones(4, int), predicted, BINARY, list("abcd"), scores)
    assert engaged.intervals["auroc"] == Interval(
        value=None, lower=None, upper=None, num_undefined=2000, effective_clusters=4.0, few_clusters=True
    )


def test_a_class_that_one_person_carries_is_seen():
    # Of 12 people one is ever disengaged: a third of the resamples know nothing of the class, and all hang on one.
    person = np.repeat(np.arange(12), 10)
    labels = np.where((person == 0) & (np.arange(120) < 5), 0, 1)
    predicted = np.where(np.arange(120) % 4, labels, 1 - labels)
    rows = bootstrap_intervals(labels, predicted, BINARY, person).intervals
    assert rows["macro_f1"].num_undefined == pytest.approx(2000 * (11 / 12) ** 12, rel=0.1)
    assert rows["recall/disengaged"].effective_clusters == 1 and rows["macro_f1"].few_clusters
    assert rows["accuracy"].effective_clusters == 12 and not rows["accuracy"].few_clusters


@pytest.mark.parametrize("unknown", [None, "", float("nan")])
def test_people_known_for_some_clips_only_are_refused(unknown: object):
    with pytest.raises(DataError, match="for each of 2 clips, got 1"):
        bootstrap_intervals([0, 1], [0, 1], BINARY, ["anna", unknown])


# --- Two models


def test_a_model_differs_from_itself_by_nothing():
    person, labels, predicted, scores = BALANCED_AS_THE_SUBSET.draw(np.random.default_rng(5), 20)
    same = paired_bootstrap(labels, Predictions(predicted, scores), Predictions(predicted, scores), BINARY, person)
    for row in same.differences.values():
        assert (row.value, row.lower, row.upper, row.excludes_zero) == (0, 0, 0, False)


def test_a_better_model_is_seen_as_better_and_the_other_way_round():
    person, labels, predicted, _ = BALANCED_AS_THE_SUBSET.draw(np.random.default_rng(6), 20)
    better = np.where(np.arange(len(labels)) % 3 == 0, labels, predicted)
    models = Predictions(predicted), Predictions(better)
    forth, back = (paired_bootstrap(labels, *pair, BINARY, person).differences for pair in (models, models[::-1]))
    row, mirrored = forth["macro_f1"], back["macro_f1"]
    assert row.excludes_zero and row.lower > 0 and "auroc" not in forth
    assert row.value == pytest.approx(row.second - row.first) == -mirrored.value
    assert row.lower == pytest.approx(-mirrored.upper, abs=2e-3)
    assert row.second == pytest.approx(compute_scores(labels, better, BINARY).macro_f1)
    # On the same people two models vary together: their difference is far better known than either.
    alone = bootstrap_intervals(labels, predicted, BINARY, person)
    assert row.upper - row.lower < 0.75 * width(alone)


# --- People and groups


def test_spread_counts_each_person_once():
    person = np.repeat(list("abcde"), [1, 1, 1, 1, 20])
    labels, predicted = np.ones(24, int), np.where(person == "a", 0, 1)
    spread = spread_over_people(labels, predicted, BINARY, person)
    assert spread.num_people == 5
    assert spread.accuracy == Quartiles(lower_quartile=1, median=1, upper_quartile=1)
    assert spread.predicted_share["disengaged"].median == 0 and spread.true_share["engaged"].median == 1
    half = spread_over_people(labels, np.where(np.isin(person, list("abc")), 0, 1), BINARY, person)
    assert half.accuracy == Quartiles(lower_quartile=0, median=0, upper_quartile=1)


def grouped_case() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(groups, labels, predictions, people, softmax): six women, five men, four others, one clip of nobody knows."""
    people = np.repeat(np.arange(15), 8)
    groups = np.select([people < 6, people < 11], ["woman", "man"], "other").astype(object)
    groups[0] = None
    rng = np.random.default_rng(0)
    labels, scores = (rng.random(120) < 0.8).astype(int), rng.dirichlet(np.ones(2), 120)
    return groups, labels, scores.argmax(axis=1), people, scores


def test_groups_have_scores_of_their_own():
    groups, labels, predicted, people, scores = grouped_case()
    mine = groups == "man"
    labels[mine & (np.arange(120) % 8 > 1)] = 0  # among men the rarer class of all is the more frequent one
    by_group = scores_by_group(groups, labels, predicted, BINARY, people, scores)
    expected = compute_scores(labels[mine], predicted[mine], BINARY, scores[mine], "disengaged")
    assert labels.mean() > 0.5 > labels[mine].mean()
    assert by_group["man"] == GroupScores(num_people=5, **dict(expected))


def test_a_cell_of_few_people_is_there_without_a_number():
    groups, labels, predicted, people, _ = grouped_case()
    by_group = scores_by_group(groups, labels, predicted, BINARY, people)
    assert by_group["other"] == by_group["unknown"] == SuppressedGroup()
    assert list(by_group) == ["man", "other", "unknown", "woman"] and not by_group["woman"].suppressed
    # Nobody knows how many people a group holds: no cell may be shown.
    nameless = scores_by_group(groups, labels, predicted, BINARY, None)
    assert all(group == SuppressedGroup() for group in nameless.values())
    with pytest.raises(DataError, match=r"a group .* for each of 120"):
        scores_by_group(groups[:3], labels, predicted, BINARY, people)
