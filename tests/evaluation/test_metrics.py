"""Scores equal scikit-learn's, on random cases and at the edges; baselines, clips, collapse, the `evaluate` metric."""

import re
import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    precision_score,
    roc_auc_score,
)
from transformers import EvalPrediction

from engagement_recognition.data.schema import BINARY, LEVELS
from engagement_recognition.evaluation.engagement_metric import EngagementMetric
from engagement_recognition.evaluation.metrics import (
    compute_scores,
    confusion_scores,
    majority_baseline,
    mean_scores_by_clip,
    name_collapse,
    stratified_baseline,
)
from engagement_recognition.processor.input_errors import DataError

# The shares of the classes in truth, by what the case is about.
SHARES = {
    "two": (0.3, 0.7),
    "two, rare": (0.03, 0.97),
    "three": (0.5, 0.3, 0.2),
    "four, one missing": (0.1, 0.0, 0.4, 0.5),
    "five, only two there": (0.0, 0.5, 0.0, 0.5, 0.0),
    "seven": (0.1, 0.02, 0.18, 0.3, 0.1, 0.1, 0.2),
    "one class only": (0.0, 1.0, 0.0),
}


def draw_case(shares: tuple[float, ...], seed: int, size: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, argmax predictions, softmax); the scores know a little, and some are tied."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), size, p=shares)
    evidence = np.round(rng.normal(size=(size, len(shares))) + np.eye(len(shares))[labels], 1)
    scores = np.exp(evidence) / np.exp(evidence).sum(axis=1, keepdims=True)
    return labels, scores.argmax(axis=1), scores


def names_of(shares: tuple[float, ...]) -> tuple[str, ...]:
    return LEVELS if len(shares) == 4 else tuple("abcdefg"[: len(shares)])


# --- Against scikit-learn


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_scores_are_scikit_learn_s(shares: tuple[float, ...], seed: int):
    labels, predicted, scores = draw_case(shares, seed)
    names = names_of(shares)
    ours = compute_scores(labels, predicted, names, scores)
    everyone = {"labels": range(len(names)), "zero_division": 0}
    present = {"labels": np.unique(labels), "zero_division": 0}
    assert ours.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro", **present))
    with warnings.catch_warnings(action="ignore"):  # of predictions that are in no truth
        assert ours.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    precision = precision_score(labels, predicted, average=None, **everyone)
    assert [row.precision for row in ours.per_class.values()] == pytest.approx(precision)
    assert ours.auroc == pytest.approx(scikit_learn_s_auroc(labels, scores))
    if len(names) == 4:
        assert ours.quadratic_kappa == pytest.approx(cohen_kappa_score(labels, predicted, weights="quadratic"))
        assert ours.mae == pytest.approx(mean_absolute_error(labels, predicted))


def scikit_learn_s_auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    present = np.unique(labels)
    if len(present) == 1:
        return None
    if scores.shape[1] == 2:
        minority = np.bincount(labels).argmin()
        return roc_auc_score(labels == minority, scores[:, minority])
    if len(present) == scores.shape[1]:
        return roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    return np.mean([roc_auc_score(labels == label, scores[:, label]) for label in present])


@pytest.mark.parametrize("seed", range(6))
def test_the_minority_s_precision_recall_area_is_scikit_learn_s(seed: int):
    labels, predicted, scores = draw_case(SHARES["two, rare"], seed, size=300)
    ours = compute_scores(labels, predicted, BINARY, scores)
    assert ours.minority_class == "disengaged"
    assert ours.auprc_minority == pytest.approx(average_precision_score(labels == 0, scores[:, 0]))
    # Named, it stays the same class in a group where another one is rarer.
    of_engaged = compute_scores(labels, predicted, BINARY, scores, minority_class="engaged")
    assert of_engaged.auprc_minority == pytest.approx(average_precision_score(labels == 1, scores[:, 1]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_many_confusion_matrices_at_once_give_the_same(shares: tuple[float, ...], seed: int):
    cases = [draw_case(shares, 10 * seed + i)[:2] for i in range(3)]
    one_by_one = [compute_scores(*case, names_of(shares)) for case in cases]
    ordered = len(shares) == 4
    at_once = confusion_scores(np.array([scores.confusion_matrix for scores in one_by_one]), ordered)
    for name in ("macro_f1", "balanced_accuracy", "accuracy", *(("quadratic_kappa", "mae") if ordered else ())):
        assert at_once[name].tolist() == pytest.approx([getattr(scores, name) for scores in one_by_one])
    for name in ("precision", "recall", "f1"):
        expected = [[getattr(row, name) for row in scores.per_class.values()] for scores in one_by_one]
        np.testing.assert_allclose(at_once[name], expected)


# --- Properties


def test_a_constant_is_at_chance():
    labels = np.repeat([0, 1], [5, 95])
    scores = compute_scores(labels, np.ones(100, int), BINARY, np.full((100, 2), 0.5))
    assert scores.accuracy == 0.95 and scores.balanced_accuracy == scores.auroc == 0.5
    assert scores.macro_f1 == pytest.approx(0.487, abs=1e-3)  # what the reference reports for "always engaged"
    assert scores.auprc_minority == pytest.approx(0.05)


def test_undefined_scores_are_none():
    labels = np.full(6, 2)
    scores = compute_scores(labels, labels, LEVELS, np.eye(4)[labels])
    assert scores.auroc is scores.auprc_minority is scores.minority_class is scores.quadratic_kappa is None
    absent = compute_scores([0, 1, 1], [0, 1, 1], LEVELS, np.eye(4)[[0, 1, 1]], minority_class="high")
    assert absent.auprc_minority is None and absent.auroc == 1.0


BAD_ARRAYS = {
    "none": (([], [], None), "at least one example"),
    "lengths": (([0, 1], [0], None), "a prediction for each of 2"),
    "unknown class": (([0, 2], [0, 1], None), "from 0 to 1, got 0 to 2"),
    "not whole": (([0, 0.5], [0, 1], None), "whole numbers"),
    "logits": (([0, 1], [0, 1], [[2.0, -1.0], [0.0, 3.0]]), "pass softmax"),
    "nan": (([0, 1], [0, 1], [[np.nan, 1.0], [0.0, 1.0]]), "1 rows with"),
    "shape": (([0, 1], [0, 1], [[1.0], [1.0]]), r"shape \(2, 2\), got \(2, 1\)"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_scored_are_refused(arrays: tuple, message: str):
    labels, predicted, scores = arrays
    with pytest.raises(DataError, match=message):
        compute_scores(labels, predicted, BINARY, scores)


# --- Baselines


def test_the_random_baseline_is_what_drawing_labels_gives():
    train, labels = np.repeat([0, 1, 2], [20, 30, 50]), np.repeat([0, 1, 2], [10, 50, 40])
    baseline = stratified_baseline(train, labels, "abc")
    rng = np.random.default_rng(5)
    drawn = [compute_scores(labels, rng.choice(3, 100, p=[0.2, 0.3, 0.5]), "abc") for _ in range(200)]
    for name in ("macro_f1", "balanced_accuracy", "accuracy"):
        values = [getattr(scores, name) for scores in drawn]
        mean, error = np.mean(values), np.std(values) / np.sqrt(200)
        assert getattr(baseline, name) == pytest.approx(mean, abs=4 * error)
    # Accuracy and the matrix have closed forms.
    assert baseline.accuracy == pytest.approx(0.1 * 0.2 + 0.5 * 0.3 + 0.4 * 0.5, abs=0.005)
    np.testing.assert_allclose(baseline.confusion_matrix, np.outer([10, 50, 40], [0.2, 0.3, 0.5]))
    assert baseline.train_shares == {"a": 0.2, "b": 0.3, "c": 0.5}


def test_baselines_are_seeded():
    train, labels = [0, 1, 2, 3, 3], np.array([0, 1, 2, 3])
    first, second = (stratified_baseline(train, labels, LEVELS) for _ in range(2))
    assert first == second
    assert first.quadratic_kappa == pytest.approx(0, abs=0.03)
    assert majority_baseline(train, labels, LEVELS).quadratic_kappa == 0


# --- Windows to clips


def test_a_clip_s_score_is_the_mean_of_its_windows():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.0, 1.0]])
    clips = mean_scores_by_clip(["b", "a", "b", "a"], scores, np.array([0, 1, 0, 1]))
    assert clips.clip_ids.tolist() == ["b", "a"]  # as they came
    np.testing.assert_allclose(clips.scores, [[0.7, 0.3], [0.1, 0.9]])
    assert clips.label_ids.tolist() == [0, 1] and clips.first_rows.tolist() == [0, 1]


def test_windows_that_differ_in_label_are_refused():
    with pytest.raises(DataError, match=r"1 clips .* \(such as b\)"):
        mean_scores_by_clip(["a", "b", "b"], np.full((3, 2), 0.5), np.array([0, 1, 0]))
    with pytest.raises(DataError, match="a clip id for each of 2"):
        mean_scores_by_clip(["a"], np.full((2, 2), 0.5), np.array([0, 1]))


# --- Collapse


def two_classes(first: int, second: int) -> np.ndarray:
    return np.repeat([0, 1], [first, second])


@pytest.mark.parametrize(
    ("true", "predicted", "collapsed"),
    [
        (two_classes(5, 95), two_classes(3, 97), False),  # as the truth is
        (two_classes(50, 50), two_classes(3, 97), True),
        (two_classes(50, 50), two_classes(10, 90), False),  # bad, but it does tell people apart
        (two_classes(5, 95), two_classes(98, 2), True),  # heavy weights push to the rare class
        (two_classes(5, 95), two_classes(0, 100), True),
        (two_classes(0, 100), two_classes(0, 100), False),  # and right
        (two_classes(0, 100), two_classes(95, 5), True),
    ],
)
def test_collapse_depends_on_the_true_shares(true: np.ndarray, predicted: np.ndarray, collapsed: bool):
    assert (name_collapse(true, predicted, BINARY) is not None) == collapsed


def test_a_collapse_is_named_in_words():
    named = name_collapse(two_classes(5, 95), two_classes(98, 2), BINARY)
    assert re.match("Predicts 'disengaged' for 98.0% .*5.0% are: collapsed", named)
    assert "lower the cap" in named and "\n" not in named
    assert "raise the cap" in name_collapse(two_classes(5, 95), two_classes(0, 100), BINARY)


# --- The `evaluate` metric


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_the_metric_gives_exactly_the_scores(shares: tuple[float, ...]):
    labels, predicted, scores = draw_case(shares, 3)
    names = names_of(shares)
    metric = EngagementMetric(names)
    ranked, plain = compute_scores(labels, predicted, names, scores), compute_scores(labels, predicted, names)
    assert metric.compute(predictions=scores, references=labels) == ranked.model_dump()
    assert metric.compute(predictions=predicted, references=labels) == plain.model_dump()
    constant = np.zeros_like(labels)
    with_scores = metric.compute(predictions=constant, references=labels, scores=scores)
    assert with_scores == compute_scores(labels, constant, names, scores).model_dump()


def test_the_metric_takes_batches_and_leaves_no_files(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    labels, predicted, scores = draw_case(SHARES["three"], 4)
    metric = EngagementMetric("abc")
    for start in range(0, len(labels), 32):
        metric.add_batch(predictions=scores[start : start + 32], references=labels[start : start + 32])
    assert metric.compute() == compute_scores(labels, predicted, "abc", scores).model_dump()
    assert not list(tmp_path.iterdir())


def test_trainer_gets_plain_numbers_of_its_logits():
    labels, predicted, scores = draw_case(SHARES["three"], 5)
    logits = np.log(scores) + 7  # a softmax does not see a constant
    metric = EngagementMetric("abc")
    for predictions in (logits, (logits, "hidden states")):
        logged = metric.score_trainer_predictions(EvalPrediction(predictions, labels))
        assert logged["macro_f1"] == compute_scores(labels, predicted, "abc").macro_f1
        assert "auroc" in logged and all(isinstance(value, int | float) for value in logged.values())
    alone = metric.score_trainer_predictions(EvalPrediction(logits[labels == 0], labels[labels == 0]))
    assert "auroc" not in alone and alone["num_examples"] == (labels == 0).sum()
