"""Calibration, abstention and thresholds: against scikit-learn, against brute force, and fitted on validation alone."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss

from engagement_recognition.data.schema import BINARY
from engagement_recognition.evaluation.calibration import (
    FittedCalibration,
    LogitCalibration,
    apply_calibration,
    apply_offsets,
    calibration_scores,
    compare_decisions,
    fit_calibration,
    fit_offsets,
    risk_coverage,
)
from engagement_recognition.evaluation.score_records import OperatingPoint
from engagement_recognition.processor.input_errors import DataError


def draw_logits(
    num_labels: int, size: int = 300, true_temperature: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels): the labels are drawn from softmax(logits / true_temperature)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(size, num_labels))
    shares = softmax(logits / true_temperature, axis=1)
    labels = (shares.cumsum(axis=1) < rng.random((size, 1))).sum(axis=1)
    return logits, labels


# --- Calibration


@pytest.mark.parametrize("num_labels", range(2, 8))
def test_likelihood_and_brier_are_what_they_are_elsewhere(num_labels: int):
    logits, labels = draw_logits(num_labels, seed=num_labels)
    scores = softmax(logits, axis=1)
    ours = calibration_scores(scores, labels)
    assert ours.nll == pytest.approx(log_loss(labels, scores, labels=range(num_labels)))
    rows = [sum((p - (k == label)) ** 2 for k, p in enumerate(row)) for row, label in zip(scores, labels, strict=True)]
    assert ours.brier == pytest.approx(np.mean(rows))


def test_the_error_is_the_mean_gap_of_the_bins():
    # Two bins: confidence 0.6 is right half of the time, 0.9 always: 4/6 * 0.1 + 2/6 * 0.1.
    scores = np.array([[0.6, 0.4]] * 4 + [[0.9, 0.1]] * 2)
    ours = calibration_scores(scores, np.array([0, 0, 1, 1, 0, 0]))
    assert ours.ece == pytest.approx(0.1) and ours.ece_equal_mass == pytest.approx(0.1)
    assert ours.num_bins == len(ours.bins) == 15
    filled = {round(row.confidence, 6): (row.count, row.accuracy) for row in ours.bins if row.count}
    assert filled == {0.6: (4, 0.5), 0.9: (2, 1.0)}
    empty = next(row for row in ours.bins if not row.count)
    assert empty.confidence is None and empty.accuracy is None


def test_bins_hold_their_upper_edge_and_everyone_once():
    scores = np.array([[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]])  # 0.8 is the edge of the bins 11 and 12
    bins = calibration_scores(scores, np.zeros(3, int)).bins
    assert [row.count for row in bins] == [0] * 7 + [1, 0, 0, 0, 1, 0, 0, 1]


def test_a_perfect_model_has_no_error_and_a_sure_wrong_one_has_all():
    one_hot = np.eye(3)[[0, 1, 2, 1]]
    perfect, wrong = (calibration_scores(one_hot, labels) for labels in ([0, 1, 2, 1], [1, 2, 0, 0]))
    assert [getattr(perfect, name) for name in ("ece", "ece_equal_mass", "brier", "nll")] == [0] * 4
    assert [getattr(wrong, name) for name in ("ece", "ece_equal_mass", "brier")] == [1, 1, 2] and np.isfinite(wrong.nll)


def test_the_order_of_examples_does_not_matter():
    logits, labels = draw_logits(3)
    scores = softmax(np.round(logits), axis=1)  # many equal confidences
    shuffled = np.random.default_rng(1).permutation(len(labels))
    calibration, curve = ("ece", "ece_equal_mass", "brier", "nll"), ("aurc", "risk")
    for measure, names in ((calibration_scores, calibration), (risk_coverage, curve)):
        first, second = measure(scores, labels), measure(scores[shuffled], labels[shuffled])
        for name in names:
            assert getattr(first, name) == pytest.approx(getattr(second, name))


# --- Temperature and bias


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("num_labels", [2, 4, 7])
def test_temperature_and_bias_are_found_again(temperature: float, num_labels: int):
    logits, labels = draw_logits(num_labels, size=20_000, true_temperature=temperature)
    shift = np.linspace(3, -3, num_labels)  # as of class weights; none of it is in the truth
    fitted = fit_calibration(logits - shift, labels, [str(label) for label in range(num_labels)]).chosen
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(fitted.bias, shift - shift[0], atol=0.2)
    around = [
        log_loss(labels, apply_calibration(logits - shift, LogitCalibration(fitted.temperature * factor, fitted.bias)))
        for factor in (0.98, 1, 1.02)
    ]
    assert min(around) == around[1]


def test_a_bias_undoes_the_prior_that_weights_have_shifted():
    rng = np.random.default_rng(0)
    labels = (rng.random(2000) < 0.9).astype(int)
    second = 1.5 * rng.normal(size=2000) + 2 * labels - 1  # what weights of 9 to 1 learn: both classes equally likely
    logits = np.stack([np.zeros(2000), second], axis=1)
    fitted = fit_calibration(logits, labels, BINARY).chosen
    temperature_alone = LogitCalibration(fitted.temperature, np.zeros(2))
    losses = [log_loss(labels, apply_calibration(logits, c)) for c in (None, temperature_alone, fitted)]
    assert losses[2] < 0.7 * min(losses[:2])
    assert apply_calibration(logits)[:, 1].mean() < 0.75
    assert apply_calibration(logits, fitted)[:, 1].mean() == pytest.approx(labels.mean(), abs=1e-4)


CANNOT_TELL = {
    "the wrong way round": ([[0.5, 0.0], [0.0, 0.5]], [1, 0], "bound of 20"),
    "one class alone": ([[0.5, 0.0], [0.0, 0.5]], [1, 1], "no example of disengaged"),
    "one in a hundred thousand": (np.zeros((100_000, 2)), [0] + [1] * 99_999, "bias of engaged reached its bound"),
}


@pytest.mark.parametrize(("logits", "labels", "words"), CANNOT_TELL.values(), ids=CANNOT_TELL)
def test_a_split_that_cannot_tell_gives_no_calibration(logits: list, labels: list[int], words: str):
    chosen, refused = fit_calibration(np.array(logits), labels, ["disengaged", "engaged"])
    assert chosen is None and words in refused and "\n" not in refused


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_split_without_an_error_asks_for_no_certainty(shift: float):
    logits = np.array([[0.5 + shift, 0.0], [shift, 0.5]])
    chosen, refused = fit_calibration(logits, [0, 1], BINARY)
    scores = apply_calibration(logits, chosen)
    # Platt's targets of one example a class: two in three.
    assert refused is None and scores == pytest.approx(np.array([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]), abs=1e-3)


@pytest.mark.parametrize("logits", [[[np.nan, 1.0]], [[np.inf, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
def test_logits_that_fit_nothing_are_refused(logits: list[list[float]]):
    with pytest.raises(DataError, match=r"finite logits, .* each of 1"):
        fit_calibration(logits, [0], BINARY)


# --- Abstaining


def test_risk_and_coverage_by_hand():
    # By falling confidence: right, right, wrong, right, wrong.
    confidence = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    curve = risk_coverage(np.stack([confidence, 1 - confidence], axis=1), np.array([0, 0, 1, 0, 1]), (0, 0.25, 0.3, 1))
    assert curve.coverage == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert curve.aurc == pytest.approx(np.mean([0, 0, 1 / 3, 1 / 4, 2 / 5]))
    assert curve.risk_at_full_coverage == 0.4
    found = {risk: point.coverage for risk, point in curve.coverage_at_risk.items()}
    assert found == {"0": 0.4, "0.25": 0.8, "0.3": 0.8, "1": 1}  # beyond the bump at 0.6
    assert curve.coverage_at_risk["0.25"].confidence == 0.7


def test_equal_confidences_are_answered_together():
    scores = np.full((10, 2), 0.5)
    curve = risk_coverage(scores, np.repeat([0, 1], [9, 1]), risks=(0.05, 0.1))
    assert curve.risk == pytest.approx([0.1] * 10) and curve.aurc == pytest.approx(0.1)
    assert curve.coverage_at_risk["0.05"] is None  # no threshold leaves out the wrong one alone
    assert curve.coverage_at_risk["0.1"] == OperatingPoint(coverage=1, confidence=0.5)


def test_a_confidence_that_knows_more_has_less_area():
    logits, labels = draw_logits(4, size=3000)
    knowing = risk_coverage(softmax(logits, axis=1), labels)
    guessing = risk_coverage(np.eye(4)[logits.argmax(axis=1)], labels)
    assert knowing.risk_at_full_coverage == guessing.risk_at_full_coverage == pytest.approx(guessing.aurc)
    assert knowing.aurc < 0.7 * guessing.aurc
    assert len(knowing.coverage) == 101 and knowing.coverage[-1] == 1


# --- Deciding


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_of_two_classes_is_the_best_there_is(seed: int):
    rng = np.random.default_rng(seed)
    labels = (rng.random(60) < 0.85).astype(int)
    second = np.round(1 / (1 + np.exp(-(rng.normal(size=60) + labels + 1))), 2)  # some are equal
    scores = np.stack([1 - second, second], axis=1)
    offsets = fit_offsets(scores, labels)
    reached = f1_score(labels, apply_offsets(scores, offsets), average="macro", zero_division=0)
    thresholds = np.append(np.unique(second), 2)
    best = max(f1_score(labels, second >= threshold, average="macro", zero_division=0) for threshold in thresholds)
    assert reached == pytest.approx(best) and offsets[0] == 0


@pytest.mark.parametrize("num_labels", range(3, 8))
def test_offsets_of_many_classes_repair_a_shift(num_labels: int):
    logits, labels = draw_logits(num_labels, size=600, seed=num_labels)
    shift = np.linspace(0, 3, num_labels)
    scores = softmax(logits + shift, axis=1)
    offsets = fit_offsets(scores, labels)
    macro_f1 = [
        f1_score(labels, predicted, average="macro", zero_division=0)
        for predicted in (scores.argmax(axis=1), apply_offsets(scores, offsets), logits.argmax(axis=1))
    ]
    # Without the shift is what an oracle would decide; on the split it is fitted on, the fit may not be worse.
    assert macro_f1[0] < macro_f1[1] and macro_f1[1] > macro_f1[2] - 0.01


def test_what_cannot_gain_stays_plain_argmax():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    assert fit_offsets(scores, np.array([0, 1, 1])).tolist() == [0, 0]
    assert fit_offsets(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])).tolist() == [0, 0, 0]


def test_a_model_that_leans_to_the_rare_class_is_repaired_by_validation_alone():
    # Seen: heavy weights, macro-F1 0.05 at an AUROC of 0.65; the scores know, only the threshold does not.
    rng = np.random.default_rng(0)
    labels = (rng.random(1200) < 0.95).astype(int)
    second = 1 / (1 + np.exp(-(rng.normal(size=1200) + 2 * labels - 5)))
    scores = np.stack([1 - second, second], axis=1)
    validation, test = slice(0, 600), slice(600, None)
    fitted = FittedCalibration(LogitCalibration(1.5, np.array([0.0, 0.25])), None)
    result = compare_decisions(fitted, scores[validation], labels[validation], scores[test], labels[test], BINARY)
    argmax, offset = result.scores.argmax, result.scores.fitted
    assert argmax.macro_f1 < 0.1 < 0.6 < offset.macro_f1
    predicted = (second[test] >= result.threshold).astype(int)
    assert f1_score(labels[test], predicted, average="macro") == pytest.approx(offset.macro_f1)
    assert argmax.auroc == offset.auroc
    assert result.temperature == 1.5 and result.bias == dict(zip(BINARY, (0.0, 0.25), strict=True))
    # Another test split leaves what was fitted as it was, and so does a calibration that was refused.
    refused = FittedCalibration(None, "why")
    other = compare_decisions(refused, scores[validation], labels[validation], scores[:50], 1 - labels[:50], BINARY)
    assert other.threshold == result.threshold and other.offsets == result.offsets
    assert (other.temperature, other.bias, other.calibration_refused) == (None, None, "why")


@pytest.mark.parametrize("measure", [calibration_scores, risk_coverage, fit_offsets])
def test_logits_in_place_of_scores_are_refused(measure):
    with pytest.raises(DataError, match="pass softmax"):
        measure(np.array([[3.0, -1.0]]), np.array([0]))
