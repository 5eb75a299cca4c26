"""How reliable scores are, when to abstain, and where to decide: calibration, risk-coverage, thresholds.

Temperature (Guo et al., "On Calibration of Modern Neural Networks", 2017) with a bias for each class, and decision
offsets, are fitted on the validation split and applied to test; test labels are only used to compute scores.
Calibration is only for confidence: offsets and threshold apply to the model's uncalibrated scores, which are what a
user has. Functions go from arrays to the records of `score_records`; an undefined number is None.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from ..processor.input_errors import DataError
from .metrics import as_label_ids, as_scores, compute_scores, confusion_scores, fast_macro_f1
from .score_records import (
    Calibration,
    CalibrationBin,
    Decision,
    DecisionMacroF1,
    DecisionScores,
    OperatingPoint,
    RiskCoverage,
)

NUM_BINS = 15  # as Guo et al.
RISKS = (0.01, 0.05, 0.1, 0.2)
_TEMPERATURES = (0.05, 20.0)  # for a validation split without errors the best temperature would be 0
_LARGEST_SHIFT = 10.0  # of a class's mean calibrated logit: odds of e^10, which no validation split can support
_AT_BOUND = 1e-3  # relative distance below which the fit has reached a bound
_CURVE_POINTS = 101
_LEAST_SCORE = 1e-12  # so that the logarithm is finite


class LogitCalibration(NamedTuple):
    """Confidence is softmax((logits + bias) / temperature)."""

    temperature: float
    bias: np.ndarray  # (num_labels,), the first 0


class FittedCalibration(NamedTuple):
    """A calibration fitted on validation, or the reason why there is none."""

    chosen: LogitCalibration | None
    refused: str | None


def calibration_scores(scores: np.ndarray, label_ids: np.ndarray, num_bins: int = NUM_BINS) -> Calibration:
    """The distance between the score of the predicted class and the share of such predictions that are right.

    Args:
        scores: (n, num_labels), softmax.
        label_ids: (n,).

    Returns:
        `ece` is the one usually reported in the literature; `ece_equal_mass` does not depend on a few full bins.

    Raises:
        DataError: no example, arrays that do not match, scores that are not a softmax.
    """
    scores, label_ids = _checked(scores, label_ids)
    confidence, is_right = scores.max(axis=1), scores.argmax(axis=1) == label_ids
    edges = np.linspace(0, 1, num_bins + 1)
    of_width = _bins_of_equal_width(confidence, num_bins)
    true_scores = scores[np.arange(len(scores)), label_ids]
    one_hot = np.eye(scores.shape[1])[label_ids]
    bins = [
        _bin_row(float(edges[i]), float(edges[i + 1]), confidence[of_width == i], is_right[of_width == i])
        for i in range(num_bins)
    ]
    return Calibration(
        ece=_calibration_error(confidence, is_right, of_width),
        ece_equal_mass=_calibration_error(confidence, is_right, _bins_of_equal_mass(confidence, num_bins)),
        brier=float(np.mean(np.sum((scores - one_hot) ** 2, axis=1))),
        nll=max(0.0, float(-np.mean(np.log(np.maximum(true_scores, _LEAST_SCORE))))),
        num_bins=num_bins,
        bins=bins,
    )


def calibration_error(confidence: np.ndarray, is_right: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal width; (n,) confidences and (n,) whether each was right."""
    return _calibration_error(confidence, is_right, _bins_of_equal_width(confidence, num_bins))


def fit_calibration(
    validation_logits: np.ndarray, validation_label_ids: np.ndarray, label_names: Sequence[str]
) -> FittedCalibration:
    """The temperature T in [0.05, 20] and the biases b for which softmax((logits + b) / T) has the least negative
    log-likelihood of Platt's smoothed targets: vector scaling with one scale for all classes.

    T above 1: the model was too sure; below 1: not sure enough. Class weights shift the logits of a rare class, which
    a bias can undo, but no temperature. A split without one of the classes, and a fit that reaches a bound, are
    refused: then the split is not enough to calibrate.

    Args:
        validation_logits: (n, num_labels), never those of test.
        validation_label_ids: (n,).

    Raises:
        DataError: no example, arrays that do not match, logits that are not finite.
    """
    logits = np.asarray(validation_logits, dtype=float)
    label_ids = as_label_ids(validation_label_ids, logits.shape[-1], "validation labels")
    if logits.shape[:1] != label_ids.shape or logits.ndim != 2 or not np.isfinite(logits).all():
        raise DataError(f"Expected finite logits, one row for each of {len(label_ids)} labels, got {logits.shape}.")
    missing = [name for label, name in enumerate(label_names) if not (label_ids == label).any()]
    if missing:
        return FittedCalibration(None, f"validation has no example of {', '.join(missing)} to fit a bias on")
    logits = logits - logits.mean(axis=1, keepdims=True)  # which does not change the softmax
    centre = logits.mean(axis=0)  # subtracted, so that scale and biases are nearly independent
    scale, *shifts = _fit_scale_and_shifts(logits - centre, label_ids)
    refused = _bound_reached(1 / scale, np.array(shifts), label_names)
    bias = np.array([0.0, *shifts]) / scale - centre
    return FittedCalibration(None if refused else LogitCalibration(1 / scale, bias - bias[0]), refused)


def _fit_scale_and_shifts(logits: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    """(num_labels,): 1 / T, and the shifts of the scaled logits of all classes but the first."""
    targets = _smoothed_targets(label_ids, logits.shape[1])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        rows = log_softmax(parameters[0] * logits + np.append(0, parameters[1:]), axis=1)
        residual = (np.exp(rows) - targets) / len(rows)
        gradient = np.append((residual * logits).sum(), residual.sum(axis=0)[1:])
        return -float((rows * targets).sum() / len(rows)), gradient

    # In scale and shifts the loss is convex, so that any minimum is the global one.
    lowest, highest = _TEMPERATURES
    num_shifts = logits.shape[1] - 1
    bounds = [(1 / highest, 1 / lowest), *[(-_LARGEST_SHIFT, _LARGEST_SHIFT)] * num_shifts]
    options = {"ftol": 1e-14, "gtol": 1e-8, "maxiter": 1000}
    found = minimize(loss, [1.0, *[0.0] * num_shifts], jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x


def _smoothed_targets(label_ids: np.ndarray, num_labels: int) -> np.ndarray:
    """(n, num_labels): (N + 1) / (N + 2) for the true class of N examples, the rest shared by the others, as in Platt
    ("Probabilistic Outputs for Support Vector Machines", 1999). Otherwise a small split without errors would give
    certainty, and one that is almost separable by a shift an infinite shift."""
    counts = np.bincount(label_ids, minlength=num_labels)[label_ids][:, None]
    is_true = np.eye(num_labels, dtype=bool)[label_ids]
    return np.where(is_true, (counts + 1) / (counts + 2), 1 / ((counts + 2) * (num_labels - 1)))


def _bound_reached(temperature: float, shifts: np.ndarray, label_names: Sequence[str]) -> str | None:
    """Why a fit cannot be used as a calibration; None: it can."""
    lowest, highest = _TEMPERATURES
    if temperature <= lowest * (1 + _AT_BOUND):
        return f"the temperature reached its bound of {lowest:g}: validation has too few errors to calibrate on"
    if temperature >= highest * (1 - _AT_BOUND):
        return f"the temperature reached its bound of {highest:g}: on validation the scores do not separate the labels"
    if np.abs(shifts).max() >= _LARGEST_SHIFT * (1 - _AT_BOUND):
        return f"the bias of {label_names[1 + int(np.abs(shifts).argmax())]} reached its bound on validation"
    return None


def apply_calibration(logits: np.ndarray, calibration: LogitCalibration | None = None) -> np.ndarray:
    """(n, num_labels) logits → softmax((logits + bias) / temperature), same shape; None: plain softmax."""
    logits = np.asarray(logits, dtype=float)
    return softmax(logits if calibration is None else (logits + calibration.bias) / calibration.temperature, axis=1)


def risk_coverage(scores: np.ndarray, label_ids: np.ndarray, risks: Sequence[float] = RISKS) -> RiskCoverage:
    """The gain of abstaining below a confidence: the error among the most confident share (the coverage).

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017. Examples of equal confidence are
    answered together: between them the curve is the average over random orders.

    Args:
        scores: (n, num_labels), softmax; the confidence is the largest one.
        risks: shares of errors for which the coverage is returned.

    Returns:
        The curve at up to 101 points; `aurc` is over all examples.

    Raises:
        DataError: as `calibration_scores`.
    """
    scores, label_ids = _checked(scores, label_ids)
    confidence, is_wrong = scores.max(axis=1), scores.argmax(axis=1) != label_ids
    # Sorted by decreasing confidence; `run` numbers the runs of equal ones.
    distinct, run, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    ends, errors = np.cumsum(counts), np.cumsum(np.bincount(run, weights=is_wrong))
    answered = np.arange(1, len(scores) + 1)
    risk = np.interp(answered, np.append(0, ends), np.append(0, errors)) / answered
    shown = np.unique(np.linspace(0, len(scores) - 1, _CURVE_POINTS).round().astype(int))
    coverage = ends / len(scores)
    return RiskCoverage(
        coverage=(answered[shown] / len(scores)).tolist(),
        risk=risk[shown].tolist(),
        aurc=float(risk.mean()),
        risk_at_full_coverage=float(risk[-1]),
        coverage_at_risk={f"{wanted:g}": _last_within(wanted, errors / ends, coverage, -distinct) for wanted in risks},
    )


def fit_offsets(validation_scores: np.ndarray, validation_label_ids: np.ndarray) -> np.ndarray:
    """(num_labels,) offsets on log scores whose argmax has the highest macro-F1 on validation.

    Two classes: exact, all thresholds are tried. More: one class at a time, exactly, until none gains (at most 20
    rounds), which gives a local optimum. The first class's offset is 0. Among equals the one closest to plain argmax is
    taken, and plain argmax itself if nothing gains.

    Raises:
        DataError: as `calibration_scores`.
    """
    scores, label_ids = _checked(validation_scores, validation_label_ids)
    log_scores = np.log(np.maximum(scores, _LEAST_SCORE))
    offsets, best = np.zeros(scores.shape[1]), fast_macro_f1(label_ids, log_scores.argmax(axis=1), scores.shape[1])
    for _ in range(20):
        before = best
        for label in range(1 if scores.shape[1] == 2 else 0, scores.shape[1]):
            offset, reached = _best_offset(log_scores + offsets, label_ids, label)
            if reached > best + 1e-12:
                offsets[label] += offset
                best = reached
        if best == before or scores.shape[1] == 2:
            break
    return offsets - offsets[0]


def apply_offsets(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n, num_labels) softmax and (num_labels,) offsets → (n,) predicted class indices."""
    return (np.log(np.maximum(scores, _LEAST_SCORE)) + offsets).argmax(axis=1)


def compare_decisions(
    calibration: FittedCalibration,
    validation_scores: np.ndarray,
    validation_label_ids: np.ndarray,
    test_scores: np.ndarray,
    test_label_ids: np.ndarray,
    label_names: Sequence[str],
) -> Decision:
    """The decision fitted on validation and plain argmax, on both splits.

    Args:
        calibration: also fitted on validation, and stored with the decision; the scores here are without it.

    Raises:
        DataError: as `calibration_scores`.
    """
    offsets = fit_offsets(validation_scores, validation_label_ids)
    decisions = [(scores.argmax(axis=1), apply_offsets(scores, offsets)) for scores in (validation_scores, test_scores)]
    validation = [compute_scores(validation_label_ids, decided, label_names).macro_f1 for decided in decisions[0]]
    test = [compute_scores(test_label_ids, decided, label_names, test_scores) for decided in decisions[1]]
    chosen = calibration.chosen
    return Decision(
        temperature=chosen.temperature if chosen else None,
        bias=dict(zip(label_names, chosen.bias.tolist(), strict=True)) if chosen else None,
        calibration_refused=calibration.refused,
        offsets=dict(zip(label_names, offsets.tolist(), strict=True)),
        threshold=float(1 / (1 + np.exp(offsets[1]))) if len(offsets) == 2 else None,
        validation_macro_f1=DecisionMacroF1(argmax=validation[0], fitted=validation[1]),
        scores=DecisionScores(argmax=test[0], fitted=test[1]),
    )


def _checked(scores: np.ndarray, label_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label_ids = as_label_ids(label_ids, np.shape(scores)[-1], "true labels")
    return as_scores(scores, len(label_ids), np.shape(scores)[-1]), label_ids


def _last_within(
    wanted: float, risk: np.ndarray, coverage: np.ndarray, confidence: np.ndarray
) -> OperatingPoint | None:
    allowed = np.flatnonzero(risk <= wanted)
    if not len(allowed):
        return None
    return OperatingPoint(coverage=float(coverage[allowed[-1]]), confidence=float(confidence[allowed[-1]]))


def _bins_of_equal_width(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """(n,) the bin of each example; a bin includes its upper edge, as in Guo et al."""
    edges = np.linspace(0, 1, num_bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)


def _bins_of_equal_mass(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """(n,) the bin of each example; equal confidences are in the same bin."""
    _, rank = np.unique(confidence, return_inverse=True)
    first = np.searchsorted(np.sort(rank), rank, side="left")
    return first * num_bins // len(confidence)


def _calibration_error(confidence: np.ndarray, is_right: np.ndarray, bin_of_each: np.ndarray) -> float:
    gaps = np.bincount(bin_of_each, weights=confidence - is_right)  # count x (mean confidence - accuracy)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin_row(lower: float, upper: float, confidence: np.ndarray, is_right: np.ndarray) -> CalibrationBin:
    if not len(confidence):
        return CalibrationBin(lower=lower, upper=upper, count=0, confidence=None, accuracy=None)
    mean, accuracy = float(confidence.mean()), float(is_right.mean())
    return CalibrationBin(lower=lower, upper=upper, count=len(confidence), confidence=mean, accuracy=accuracy)


def _best_offset(log_scores: np.ndarray, label_ids: np.ndarray, label: int) -> tuple[float, float]:
    """The offset of one class, the others fixed, with the highest macro-F1; and that macro-F1.

    As the offset grows, examples change one by one from their best other class to this one: all confusion matrices on
    the way are sums of single changes.
    """
    num_labels = log_scores.shape[1]
    others = log_scores.copy()
    others[:, label] = -np.inf
    needed = others.max(axis=1) - log_scores[:, label]  # the smallest offset that gives the example this class
    order = np.argsort(needed, kind="stable")
    truth, other = label_ids[order], others.argmax(axis=1)[order]
    turns = np.zeros((len(order) + 1, num_labels, num_labels))
    np.add.at(turns[0], (truth, other), 1)
    steps = np.arange(1, len(order) + 1)
    turns[steps, truth, other] -= 1
    turns[steps, truth, label] += 1
    macro_f1 = confusion_scores(np.cumsum(turns, axis=0))["macro_f1"]
    needed = needed[order]
    candidates = np.concatenate([[needed[0] - 1], (needed[1:] + needed[:-1]) / 2, [needed[-1] + 1]])
    # Examples with equal `needed` change together: there is no offset between them.
    is_between = np.concatenate([[True], np.diff(needed) > 1e-9, [True]])
    best = macro_f1[is_between].max()
    good = candidates[is_between & (macro_f1 >= best - 1e-12)]
    return float(good[np.abs(good).argmin()]), float(best)
