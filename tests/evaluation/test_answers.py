"""The answer rule: calibrated scores, a label or why there is none, windows of a film, what validation says of it."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TrainedStages
from scipy.special import softmax

from engagement_recognition.answer_rule import ANSWER_RULE_FILE, AnswerRule
from engagement_recognition.evaluation.answers import answer_rule, measure_answers
from engagement_recognition.evaluation.metrics import ClipScores
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.film_windows import answer_film, answer_window, plan_windows
from engagement_recognition.processor.input_errors import NoFaceError, VideoReadError

BINARY = ("disengaged", "engaged")
RULE = AnswerRule(BINARY, 2.0, (0.0, 1.0), (0.0, 0.5), 0.7, "drawn people", 10.0)


def test_scores_and_label_by_hand():
    (scores,) = RULE.to_scores(np.array([[1.0, 2.0]]))
    assert scores == pytest.approx(softmax([0.5, 1.5]))
    (label,), (certainty,) = RULE.decide(scores[None])
    assert label == 1 and certainty == pytest.approx(softmax([0.5, 2.0])[1])
    assert AnswerRule(BINARY).to_scores(np.array([[1.0, 2.0]]))[0] == pytest.approx(softmax([1.0, 2.0]))
    assert (AnswerRule(BINARY).threshold, AnswerRule(BINARY).is_calibrated) == (0.6, False)


@pytest.mark.parametrize(
    ("scores", "coverage", "face_px", "label", "reason"),
    [
        ([0.1, 0.9], 1.0, 80, "engaged", None),
        ([0.9, 0.1], None, None, "disengaged", None),
        ([0.5, 0.5], 1.0, 80, None, "uncertain"),
        ([0.1, 0.9], 0.49, 80, None, "no face long enough"),
        ([0.1, 0.9], 0.5, 39, None, "face too small"),
        (None, 0.0, None, None, "no face long enough"),
        (None, None, None, None, "frames that cannot be read"),
    ],
)
def test_without_a_label_there_is_a_reason(
    scores: list[float] | None, coverage: float | None, face_px: float | None, label: str | None, reason: str | None
):
    answer = RULE.answer(None if scores is None else np.array(scores), coverage, face_px)
    assert (answer.label, answer.reason) == (label, reason)
    assert (answer.scores is None) == (reason not in (None, "uncertain")) == (answer.certainty is None)


@pytest.mark.parametrize("offset", [-1.0, 0.0, 2.0])
def test_the_band_is_where_there_is_no_label(offset: float):
    rule = AnswerRule(BINARY, 1.0, offsets=(0.0, offset), abstain_below=0.7)
    low, high = rule.uncertain_band()
    for score, is_uncertain in ((low - 1e-6, False), (low + 1e-6, True), (high - 1e-6, True), (high + 1e-6, False)):
        assert (rule.answer(np.array([1 - score, score])).reason == "uncertain") is is_uncertain
    assert AnswerRule(("a", "b", "c")).uncertain_band() is None


def test_it_lies_beside_the_weights_and_comes_back(tmp_path: Path, trained: TrainedStages):
    RULE.save(tmp_path)
    assert AnswerRule.from_pretrained(tmp_path) == RULE
    (tmp_path / ANSWER_RULE_FILE).write_text(json.dumps({"label_names": BINARY, "bias": [1]}))
    with pytest.raises(ValueError, match=r"answer_rule\.json is not a valid"):
        AnswerRule.from_pretrained(tmp_path)
    predictor = Predictor.from_pretrained(str(trained.engagement))
    assert predictor.rule == predictor.model.answer_rule
    assert predictor.rule == answer_rule(read_results(trained.engagement), predictor.processor)
    assert predictor.rule.clip_sec == pytest.approx(2.0, abs=0.01) and predictor.rule.trained_on == "drawn people"
    predictor.model.save_pretrained(tmp_path / "again")  # it may have been trained on since
    assert AnswerRule.from_pretrained(tmp_path / "again") is None


def drawn_clips(num: int, rare_share: float, seed: int) -> ClipScores:
    rng = np.random.default_rng(seed)
    labels = (rng.random(num) > rare_share).astype(int)
    margin = np.log((1 - rare_share) / rare_share) + (2 * labels - 1) + rng.normal(size=num)
    scores = softmax(np.stack([np.zeros(num), margin], axis=1), axis=1)
    return ClipScores(np.arange(num).astype(str), scores, labels, np.arange(num))


def test_the_least_certain_are_not_answered_and_those_answered_are_more_often_right():
    validation, test = drawn_clips(400, 0.5, 0), drawn_clips(4000, 0.5, 1)
    answers = measure_answers(validation, test, BINARY)
    assert answers.answered == pytest.approx(0.9, abs=0.05) and answers.accuracy_answered > answers.accuracy + 0.01
    assert answers.offsets == {"disengaged": 0.0, "engaged": 0.0}  # what the best threshold gains here is chance


def test_a_rare_class_has_a_threshold_of_its_own():
    answers = measure_answers(drawn_clips(2000, 0.05, 0), drawn_clips(2000, 0.05, 1), BINARY)
    assert answers.offsets["engaged"] < -0.5  # "disengaged" at a score below a half


@pytest.mark.parametrize(
    ("duration_sec", "step_sec", "expected"),
    [
        (15.0, None, [(0, 15)]),
        (15.1, None, [(0, 10), (10, 15.1)]),
        (21.0, None, [(0, 10), (10, 21.0)]),  # a rest below the time between two frames
        (22.0, None, [(0, 10), (10, 20), (20, 22)]),
        (10.0, 5.0, [(0, 5), (0, 10), (5, 10)]),
        (16.0, 4.0, [(0, 10), (4, 14), (8, 16), (10, 16)]),
    ],
)
def test_windows_of_a_film(duration_sec: float, step_sec: float | None, expected: list[tuple[float, float]]):
    windows = plan_windows(duration_sec, 8, 10.0, step_sec)
    assert [(window.start_sec, window.end_sec) for window in windows] == expected
    of_file = [window for window in windows if window.is_of_file]
    assert of_file[0].start_sec == 0 and of_file[-1].end_sec == duration_sec
    assert all(first.end_sec == then.start_sec for first, then in pairwise(of_file))


def test_a_film_is_the_mean_of_the_windows_that_show_the_face():
    seen = {"face_px": 80.0, "num_repeated_frames": 0, "num_people": 1}
    whole, quarter = (SimpleNamespace(face_coverage=share, **seen) for share in (1.0, 0.25))
    windows = [
        answer_window(RULE, whole, np.array([0.1, 0.9])),
        answer_window(RULE, whole, np.array([0.3, 0.7])),
        answer_window(RULE, quarter, np.array([1.0, 0.0])),  # not long enough to count
        answer_window(RULE, NoFaceError("Expected a face."), None),
        answer_window(RULE, VideoReadError("Expected frames."), None),
    ]
    film = answer_film(RULE, windows[:3], "film.mp4")
    assert film.answer.label == "engaged" and film.answer.scores["engaged"] == pytest.approx(0.8)
    assert film.spread["engaged"] == pytest.approx(0.1) and film.face_coverage == 0.75
    seldom = answer_film(RULE, [windows[0], *windows[2:]], "film.mp4")
    assert (seldom.answer.reason, seldom.answer.scores) == ("no face long enough", None)
    assert (seldom.num_windows, seldom.num_unreadable_windows) == (4, 1)
    assert seldom.face_coverage == pytest.approx(1.25 / 3)
    with pytest.raises(NoFaceError, match="none in its 3 windows"):
        answer_film(RULE, [windows[3]] * 3, "film.mp4")
    with pytest.raises(VideoReadError, match="frames"):
        answer_film(RULE, [windows[3], windows[4]], "film.mp4")
