"""AUROC within one person: pairs of moments, never of people; counted once a person and summed in resamples."""

import json

import numpy as np
import pytest
from conftest import TrainedStages
from made_up_results import described, measurement

from engagement_recognition.data.schema import BINARY
from engagement_recognition.evaluation.bootstrap import (
    Predictions,
    _cluster,
    _score_statistic,
    bootstrap_intervals,
    bootstrap_pairs,
    spread_over_people,
)
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.score_records import PeopleSpread
from engagement_recognition.evaluation.split_evaluation import describe_scores
from engagement_recognition.hub.card import render_card
from engagement_recognition.inference.predictor import Predictor

NAME = "within_person_auroc"


def case(seed: int, num_people: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(person, label, softmax) of 90 clips with many ties; nobody of an odd number is ever of the first class."""
    rng = np.random.default_rng(seed)
    person = rng.integers(num_people, size=90)
    labels = np.where(person % 2, 1, (rng.random(90) < 0.6).astype(int))
    rare = (np.round(rng.random(90) * 8) + 1) / 10
    return person, labels, np.stack([rare, 1 - rare], axis=1)


def by_hand(person: np.ndarray, labels: np.ndarray, scores: np.ndarray, times: np.ndarray) -> float:
    """Each person's pairs, as often as the person was drawn, one after the other."""
    right = total = 0.0
    for i in np.flatnonzero(labels == 0):
        for j in np.flatnonzero(labels == 1):
            if person[i] == person[j]:
                margin = scores[i, 0] - scores[j, 0]
                right += times[person[i]] * (1 if margin > 0 else 0.5 if margin == 0 else 0)
                total += times[person[i]]
    return right / total


@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_all_pairs_of_one_person(seed: int):
    person, labels, scores = case(seed)
    times = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8)) + (np.arange(8) == 0)
    statistic = _score_statistic(_cluster(person, 90), labels, scores.argmax(1), BINARY, scores)
    drawn = statistic(np.stack([np.ones(8), times]))[NAME]
    assert drawn == pytest.approx([by_hand(person, labels, scores, often) for often in (np.ones(8, int), times)])
    row = bootstrap_intervals(labels, scores.argmax(1), BINARY, person, scores).intervals[NAME]
    assert row.value == pytest.approx(drawn[0]) and row.lower < row.value < row.upper
    # Only four of the eight people have pairs.
    assert row.effective_clusters <= 4 and row.few_clusters


def test_telling_people_apart_alone_is_a_half():
    # Each person has one score throughout: AUROC is high, and no moment is told from another.
    person = np.repeat(np.arange(10), 20)
    labels = (np.random.default_rng(0).random(200) < person / 10).astype(int)
    scores = np.stack([1 - person / 10, person / 10], axis=1)
    rows = bootstrap_intervals(labels, scores.argmax(1), BINARY, person, scores).intervals
    assert rows["auroc"].value > 0.75 and (rows[NAME].value, rows[NAME].lower, rows[NAME].upper) == (0.5, 0.5, 0.5)


def test_where_nobody_has_both_or_people_are_unknown_there_is_none():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels, predicted = np.array([0, 1, 0, 1]), scores.argmax(1)
    apart = bootstrap_intervals(labels, predicted, BINARY, list("abab"), scores).intervals[NAME]
    assert (apart.value, apart.lower, apart.upper, apart.effective_clusters) == (None, None, None, 0)
    one_class = bootstrap_intervals(np.ones(4, int), predicted, BINARY, list("abab"), scores).intervals
    assert one_class[NAME].value is None
    assert NAME not in bootstrap_intervals(labels, predicted, BINARY, None, scores).intervals
    assert NAME not in bootstrap_intervals(labels, predicted, BINARY, list("aabb")).intervals
    three = np.full((4, 3), 1 / 3)
    assert NAME not in bootstrap_intervals([0, 1, 2, 0], [0, 0, 0, 0], list("xyz"), list("aabb"), three).intervals


def test_two_models_are_compared_by_it():
    person, labels, scores = case(3)
    better = np.where(labels == 0, 0.95, 0.05)
    models = Predictions(scores.argmax(1), scores), Predictions(1 - (better > 0.5), np.stack([better, 1 - better], 1))
    row = bootstrap_pairs(labels, [models, models], BINARY, person).differences[NAME]
    assert row.first == pytest.approx(by_hand(person, labels, scores, np.ones(8, int)))
    assert row.second == 1 and row.value == pytest.approx(1 - row.first) and row.excludes_zero


def test_people_with_both_are_counted_and_the_terminal_says_so():
    person, labels, scores = case(1)
    assert spread_over_people(labels, scores.argmax(1), BINARY, person).num_people_with_both == 4
    assert spread_over_people([0, 1, 2], [0, 1, 2], list("xyz"), list("aaa")).num_people_with_both is None
    evaluation = measurement().evaluation
    value = evaluation.intervals.intervals[NAME].value
    assert f"within-person auroc {value:.3f} over the 6" in describe_scores(evaluation, "test")


def test_the_card_says_it_of_no_fewer_than_five_people(trained: TrainedStages):
    predictor = Predictor.from_pretrained(trained.engagement)
    results = read_results(trained.engagement)
    card = render_card(predictor.model, predictor.processor, results)
    told = results.model_copy(update={"data": described(), "measurements": [measurement()]})
    of_six = render_card(predictor.model, predictor.processor, told)
    line = "- AUROC within one person, which recognising people cannot raise: "
    assert line not in card and line in of_six and "over the 6 people who have both" in of_six


def test_an_older_file_without_it_is_read():
    told = json.loads(measurement().evaluation.people.model_dump_json())
    del told["num_people_with_both"]
    assert PeopleSpread.model_validate_json(json.dumps(told)).num_people_with_both is None
