"""Which checkpoint a training keeps, and by which score."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainedStages
from made_up_results import results
from sklearn.metrics import f1_score, roc_auc_score

from engagement_recognition import train
from engagement_recognition.evaluation.engagement_metric import EngagementMetric
from engagement_recognition.evaluation.results_schema import Selection
from engagement_recognition.evaluation.selection_scores import (
    auprc_standard_error,
    auroc_standard_error,
    fitted_macro_f1,
    selection_scores,
)
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.training.arguments import Recipe
from engagement_recognition.training.selection import choose_score, describe_selection, full_name, kept_evaluation

NAMES = ["disengaged", "engaged"]
BALANCED, RARE = [0] * 3 + [1] * 7, [0] * 29 + [1] * 71


def log_of(*evaluations: tuple[float, float], error: float = 0.02) -> list[dict[str, float]]:
    """(AUROC, loss) by epoch, among the other rows that Trainer logs."""
    rows = []
    for epoch, (score, loss) in enumerate(evaluations, start=1):
        rows += [
            {"epoch": epoch, "step": 10 * epoch, "loss": 0.1},
            {"epoch": epoch, "step": 10 * epoch, "eval_loss": loss, "eval_auroc": score, "eval_auroc_se": error},
        ]
    return rows


# --- The score


@pytest.mark.parametrize(
    ("asked", "train", "validation", "chosen"),
    [
        ("auto", BALANCED, BALANCED, "macro_f1"),  # 30 % is not under 30 %
        ("auto", RARE, BALANCED, "auroc"),
        ("auto", BALANCED, RARE, "auroc"),
        ("auto", RARE, [1, 1], "macro_f1"),  # of one class nothing ranks
        ("auto", [0, 1, 2, 3], [0, 1, 2, 3], "auroc"),
        ("macro_f1", RARE, RARE, "macro_f1"),
        ("eval_weighted_f1", RARE, RARE, "weighted_f1"),
        ("auprc", BALANCED, BALANCED, "auprc_minority"),
    ],
)
def test_the_score_fits_the_classes_unless_it_was_named(asked: str, train: list, validation: list, chosen: str):
    assert choose_score(asked, train, validation, [*NAMES, "a", "b"]) == chosen


def test_a_score_that_cannot_select_is_one_line():
    with pytest.raises(RecipeError, match="got 'auroq'"):
        full_name("auroq")
    with pytest.raises(RecipeError, match=r"auroc .* validation, .* only engaged; pass macro_f1"):
        choose_score("auroc", RARE, [1, 1], NAMES)


# --- Standard errors


@pytest.mark.parametrize("num_labels", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_standard_error_of_auroc_is_its_spread_over_samples(num_labels: int):
    rng = np.random.default_rng(0)
    aurocs, errors = [], []
    for _ in range(300):
        labels = np.repeat(np.arange(num_labels), [20, 120, 60][:num_labels])
        logits = rng.normal(size=(len(labels), num_labels)) + np.eye(num_labels)[labels]
        scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        aurocs.append(np.mean([roc_auc_score(labels == label, scores[:, label]) for label in range(num_labels)]))
        errors.append(auroc_standard_error(labels, scores))
    assert np.mean(errors) == pytest.approx(np.std(aurocs), rel=0.1)


def test_of_two_classes_the_error_is_delongs():
    labels, score = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.4, 0.6, 0.05])
    wins = np.array([[(high > low) + (high == low) / 2 for low in score[:2]] for high in score[2:]])  # written out
    variance = wins.mean(1).var() / 3 + wins.mean(0).var() / 2
    assert wins.mean() == pytest.approx(roc_auc_score(labels, score))
    assert auroc_standard_error(labels, np.stack([1 - score, score], 1)) == pytest.approx(np.sqrt(variance))


def test_macro_f1_at_fitted_offsets_sees_what_argmax_does_not():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [20, 180])
    score = np.clip(0.8 + 0.1 * labels + 0.04 * rng.normal(size=200), 0.51, 0.99)  # nobody is called 0
    scores = np.stack([1 - score, score], 1)
    value, error = fitted_macro_f1(labels, scores)
    assert f1_score(labels, scores.argmax(1), average="macro", zero_division=0) < 0.5 < 0.8 < value
    assert 0.01 < error < 0.06
    assert selection_scores("macro_f1_fitted", labels, scores) == {
        "macro_f1_fitted": value,
        "macro_f1_fitted_se": error,
    }
    assert auprc_standard_error(labels == 0, scores[:, 0]) == pytest.approx(
        selection_scores("auprc_minority", labels, scores)["auprc_minority_se"]
    )
    assert selection_scores("accuracy", labels, scores) == {}


# --- The checkpoint


@pytest.mark.parametrize(
    ("evaluations", "kept_epoch"),
    [
        ([(0.60, 0.5), (0.70, 0.6), (0.65, 0.4)], 2),  # a lower loss further away than the noise counts for nothing
        ([(0.60, 0.5), (0.69, 0.5), (0.70, 0.6)], 2),  # a new best within noise does not either
        ([(0.60, 0.5), (0.69, 0.6), (0.70, 0.5)], 3),
        ([(0.70, 0.6), (0.69, 0.5), (0.69, 0.4)], 3),
        ([(0.68, 0.4), (0.695, 0.5), (0.71, 0.6)], 3),  # the first is within noise of the second alone
        ([(0.60, 0.5), (float("nan"), 0.4)], 1),
    ],
)
def test_within_noise_of_the_best_the_lowest_loss_is_kept(evaluations: list, kept_epoch: int):
    kept = kept_evaluation(log_of(*evaluations), "auroc", True)
    assert kept.step == 10 * kept_epoch
    scores = [score for score, _ in evaluations if score == score]
    assert kept.best_score == max(scores) and kept.score >= max(scores) - 0.02


def test_of_a_score_without_an_error_only_equals_are_decided_by_the_loss():
    log = [{"step": 1, "eval_loss": 0.5, "eval_macro_f1": 0.47}, {"step": 2, "eval_loss": 0.4, "eval_macro_f1": 0.47}]
    assert kept_evaluation(log, "macro_f1", True).step == 2
    assert kept_evaluation([*log, {"step": 3, "eval_loss": 0.9, "eval_macro_f1": 0.48}], "macro_f1", True).step == 3
    assert kept_evaluation(log, "loss", False).step == 2
    assert kept_evaluation(log, "auroc", True) is None


def test_a_score_that_never_moved_is_named():
    constant = describe_selection(log_of((0.5, 3.0), (0.5, 2.0), (0.5, 2.5)), "auroc", True)
    assert constant.step == 20 and constant.num_evaluations == 3
    assert constant.warning is not None and "auroc was the same in all 3" in constant.warning
    assert describe_selection(log_of((0.5, 3.0), (0.51, 2.0)), "auroc", True).warning is None
    assert describe_selection(log_of((0.5, 3.0)), "auroc", True).warning is None  # one evaluation cannot move
    assert "macro_f1 was undefined" in describe_selection(log_of((0.5, 3.0)), "macro_f1", True).warning


def test_whoever_gets_the_model_is_told_that_nothing_selected_it():
    told = results()
    constant = Selection(**describe_selection(log_of((0.5, 3.0), (0.5, 2.0)), "auroc", True)._asdict())
    training = told.training.model_copy(update={"selection": constant})
    assert told.model_copy(update={"training": training}).warnings() == [*told.warnings(), constant.warning]
    assert constant.in_words() == f"nothing: {constant.warning}"


def test_the_chosen_checkpoint_outlives_those_after_it_and_is_the_model(
    trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    aurocs = iter((0.5, 0.9, 0.5, 0.6, 0.5))
    monkeypatch.setattr(
        EngagementMetric, "score_trainer_predictions", lambda *_: {"auroc": next(aurocs, 0.5), "auroc_se": 0.1}
    )
    recipe = {key: value for key, value in trained.recipe.items() if key != "engagement"}
    recipe |= {"output_dir": str(tmp_path), "num_train_epochs": 5, "metric_for_best_model": "auroc"}
    (folder,) = train.train(Recipe(recipe), {})
    results = json.loads((folder / "results.json").read_text())
    evaluated = [row for row in results["training"]["log"] if "eval_auroc" in row]
    selection = results["training"]["selection"]
    assert selection.pop("step") == evaluated[1]["step"]
    assert selection == {"score": "auroc", "value": 0.9, "noise": 0.1, "num_evaluations": 5, "warning": None}
    checkpoints = {path.name for path in (tmp_path / "checkpoints/expression").iterdir()}
    assert checkpoints == {f"checkpoint-{evaluated[i]['step']}" for i in (1, 4)}
    kept = tmp_path / f"checkpoints/expression/checkpoint-{evaluated[1]['step']}/model.safetensors"
    assert kept.read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "auroc 0.900, one of 5 evaluations" in (folder / "README.md").read_text()


def test_among_seven_expressions_each_is_rare_and_ranking_selects(trained: TrainedStages):
    training = json.loads((trained.expression / "results.json").read_text())["training"]
    assert training["selection"]["score"] == "auroc" and training["selection"]["noise"] > 0
    assert training["selection"]["step"] == kept_evaluation(training["log"], "auroc", True).step
