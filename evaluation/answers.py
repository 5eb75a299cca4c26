"""How a model answers, fitted on validation, and the accuracy of these answers on another split.

Calibrated scores decide: the highest or, with two labels, the threshold with the best macro-F1, if it gains more on
validation than a standard error: on a few dozen clips the best threshold is mostly chance. (With seven labels,
offsets for macro-F1 moved one by 0.8, gained 0.005 on test and lost as much accuracy: nobody would understand why a
score of 0.3 loses to one of 0.2.) The least certain clips get no label. The fitted values are in results under
`decision.answers`; `answer_rule` turns them into the rule that is stored with the weights.
"""

from collections.abc import Sequence

import numpy as np

from ..answer_rule import DRAWN_PEOPLE, UNKNOWN, AnswerRule
from ..processor.face_preparation import FacePreparation
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .calibration import calibration_error, fit_offsets
from .metrics import ClipScores, fast_macro_f1
from .results_schema import Results
from .score_records import Answers, Decision
from .selection_scores import fitted_macro_f1

ANSWERED_SHARE = 0.9  # of validation; errors are most frequent in the least certain tenth
MOST_CERTAINTY_ASKED = 0.8  # a model that is right four times in five may answer


def measure_answers(validation: ClipScores, test: ClipScores, label_names: Sequence[str]) -> Answers:
    """Offsets and minimum certainty chosen on validation, and the accuracy of such answers on test.

    Args:
        validation, test: calibrated in the same way as served scores.
    """
    offsets = np.zeros(len(label_names))
    if len(label_names) == 2:
        fitted, standard_error = fitted_macro_f1(validation.label_ids, validation.scores)
        if fitted - fast_macro_f1(validation.label_ids, validation.scores.argmax(axis=1), 2) > standard_error:
            offsets = fit_offsets(validation.scores, validation.label_ids)
    rule = AnswerRule(tuple(label_names), offsets=tuple(offsets.tolist()))
    _, certainty = rule.decide(validation.scores)
    threshold = min(float(np.quantile(certainty, 1 - ANSWERED_SHARE, method="lower")), MOST_CERTAINTY_ASKED)
    decided, certainty = rule.decide(test.scores)
    is_right, is_answered = decided == test.label_ids, certainty >= threshold
    return Answers(
        offsets=dict(zip(label_names, offsets.tolist(), strict=True)),
        abstain_below=threshold,
        answered=float(is_answered.mean()),
        accuracy=float(is_right.mean()),
        accuracy_answered=float(is_right[is_answered].mean()) if is_answered.any() else None,
        ece=calibration_error(test.scores[np.arange(len(decided)), decided], is_right),
    )


def clip_sec_of(results: Results, processor: FacePreparation) -> float | None:
    """Length of the training clips, as far as it follows from their frames; None: unknown, or single pictures."""
    span_sec = results.data.window_span_sec if results.data else None
    if not span_sec or not isinstance(processor, EngagementVideoProcessor):
        return None
    # Uniform frames are the centres of equal segments: half a segment is missing at either end.
    is_uniform = processor.sampling == "uniform" and processor.num_frames > 1
    return span_sec * processor.num_frames / (processor.num_frames - 1) if is_uniform else span_sec


def answer_rule(results: Results, processor: FacePreparation) -> AnswerRule:
    """The rule according to a model's results; uncalibrated for a model that was never measured."""
    trained_on = DRAWN_PEOPLE if results.is_trained_on_drawn else results.data.in_words() if results.data else UNKNOWN
    rule = AnswerRule(tuple(results.label_names), trained_on=trained_on, clip_sec=clip_sec_of(results, processor))
    measured = results.headline()
    decision = measured.evaluation.decision if measured and not measured.pooled else None
    return rule if decision is None else _fitted(rule, decision)


def _fitted(rule: AnswerRule, decision: Decision) -> AnswerRule:
    names, temperature, answers = rule.label_names, decision.temperature, decision.answers
    if temperature is None:  # validation was too small to calibrate, and so for a decision
        return rule
    bias = [decision.bias[name] if decision.bias else 0.0 for name in names]
    if answers:
        offsets, abstain_below = [answers.offsets[name] for name in names], answers.abstain_below
    elif len(names) > 2:
        offsets, abstain_below = [0.0] * len(names), None
    else:  # older results: their offsets apply to uncalibrated scores
        shifts = zip(names, bias, strict=True)
        offsets, abstain_below = [(decision.offsets[name] - shift) / temperature for name, shift in shifts], None
    return AnswerRule(names, temperature, tuple(bias), tuple(offsets), abstain_below, rule.trained_on, rule.clip_sec)
