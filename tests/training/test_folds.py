"""Stage two in folds: people dealt once, killed and resumed, pooled scores, what is refused."""

import json
import os
import shlex
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Command, TrainedStages, prepare_drawn
from stages import engagement_alone, same_weights, weights_of
from stopped_trainings import stop_in

from engagement_recognition import train
from engagement_recognition.data.audit import folds
from engagement_recognition.data.audit.folds import SUBJECT, deal_folds
from engagement_recognition.data.preparation.prepared_data import PreparedData
from engagement_recognition.evaluation.bootstrap import bootstrap_intervals
from engagement_recognition.evaluation.calibration import apply_calibration, apply_offsets, fit_calibration, fit_offsets
from engagement_recognition.evaluation.comparison import compare_runs
from engagement_recognition.evaluation.pooled_folds import pool_folds
from engagement_recognition.evaluation.report import results_table
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.split_evaluation import SplitPredictions, read_predictions
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError, ModelLoadError, RecipeError
from engagement_recognition.training.arguments import Recipe

FOLDS = 3
NAMES = ["disengaged", "engaged"]


@pytest.fixture(scope="module")
def prepared(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_drawn(drawn_daisee, tmp_path_factory.mktemp("prepared") / "data", num_frames=4)


@pytest.fixture(scope="module")
def recipe(trained: TrainedStages, prepared: PreparedData) -> dict[str, object]:
    """Stage two from the trained stage one, in folds."""
    return engagement_alone(trained, Path("nowhere"), data=str(prepared.folder), folds=FOLDS)


@pytest.fixture(scope="module")
def folds_run(recipe: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole training in folds."""
    return run(recipe, tmp_path_factory.mktemp("folds") / "run")


def run(recipe: dict[str, object], output: Path, **options: str) -> Path:
    (folder,) = train.train(Recipe({**recipe, "output_dir": str(output)}), options)
    assert folder == output / "engagement"
    return output


def logits_by_clip(folder: Path) -> dict[str, list[float]]:
    found, _ = read_predictions(folder, "test")
    return dict(zip((clip for clip, _ in found.keys), found.logits.tolist(), strict=True))


def test_each_person_is_tested_once_and_known_to_nothing_that_tests_them(prepared: PreparedData):
    dealt = deal_folds(prepared, FOLDS, "binary")
    dealt_folds = [dealt.fold(fold) for fold in range(FOLDS)]
    people = [{split: set(fold.splits[split]["subject_id"]) for split in fold.splits} for fold in dealt_folds]
    for of_fold in people:
        assert not of_fold["train"] & of_fold["validation"]
        assert not (of_fold["train"] | of_fold["validation"]) & of_fold["test"]
    everybody = set().union(*(fold["subject_id"] for fold in prepared.splits.values()))
    assert sorted(person for of_fold in people for person in of_fold["test"]) == sorted(everybody)
    assert [people[fold]["validation"] for fold in range(FOLDS)] == [
        people[(fold + 1) % FOLDS]["test"] for fold in range(FOLDS)
    ]
    assert len({fold.fingerprint for fold in dealt_folds} | {prepared.fingerprint, dealt.fingerprint()}) == FOLDS + 2
    assert np.array_equal(deal_folds(prepared, FOLDS, "binary").deal.part, dealt.deal.part)
    assert "fold 2 of 3" in dealt_folds[1].description.notes.split
    assert dealt_folds[0].description.splits["test"].subjects == len(people[0]["test"])


@pytest.mark.parametrize(
    "num_folds, words", [(2, "^2 folds .*at least 3"), (6, "^6 folds .*at least 6 people .*got 5")]
)
def test_a_number_of_folds_that_cannot_be_dealt_is_one_line(prepared: PreparedData, num_folds: int, words: str):
    with pytest.raises((RecipeError, DataError), match=words):
        deal_folds(prepared, num_folds, "binary")


def test_by_subject_one_person_is_tested_and_a_share_of_the_others_selects(prepared: PreparedData):
    dealt = deal_folds(prepared, SUBJECT, "binary")
    parts = [dealt.fold(fold).splits for fold in range(dealt.num_folds)]
    people = [{split: set(rows["subject_id"]) for split, rows in splits.items()} for splits in parts]
    assert [len(of_fold["test"]) for of_fold in people] == [1] * 5
    assert len(set().union(*(of_fold["test"] for of_fold in people))) == 5
    for of_fold in people:
        assert sum(map(len, of_fold.values())) == len(set().union(*of_fold.values())) == 5
        assert len(of_fold["validation"]) == 1 and len(of_fold["train"]) == 3
    # Neither are these five folds of as many parts, nor do results say so.
    assert dealt.fingerprint() != deal_folds(prepared, 5, "binary").fingerprint() and "one person each" in dealt.how


def deal_people(people: np.ndarray, labels: list[str], monkeypatch: pytest.MonkeyPatch) -> folds.DealtFolds:
    """Clips of these people, none of whom shares a recording with another, without a picture."""
    found = SimpleNamespace(rows=SimpleNamespace(label=labels, subject_id=people.astype(str).tolist()), findings=[])
    monkeypatch.setattr(folds, "audit", lambda data, label_scheme: found)
    monkeypatch.setattr(folds, "whole_groups", lambda found: (people, 0))
    monkeypatch.setattr(folds, "all_rows", lambda data: None)
    return deal_folds(None, SUBJECT, "own")


def test_of_many_people_by_subject_a_fifth_selects_with_its_share_of_every_class(monkeypatch: pytest.MonkeyPatch):
    people = np.repeat(np.arange(40), 10)
    labels = ["disengaged" if row % 10 < (person % 4) else "engaged" for row, person in enumerate(people.tolist())]
    deal = deal_people(people, labels, monkeypatch).deal
    is_rare = np.array(labels) == "disengaged"
    assert np.array_equal(deal.part, people)  # each is tested alone
    for fold in range(40):
        selects = (deal.share == deal.selects[fold]) & (people != fold)
        assert 6 <= len(set(people[selects])) <= 10
        assert abs(is_rare[selects].mean() - is_rare.mean()) < 0.05


def test_a_label_that_one_person_alone_shows_is_told_before_the_first_fold(monkeypatch: pytest.MonkeyPatch):
    people = np.repeat(np.arange(10), 4)
    for shows, words in (
        ({3}, r"fold \d+ of 10 has only engaged: .*; add people"),
        (set(range(0, 10, 2)), None),
    ):
        labels = ["disengaged" if person in shows else "engaged" for person in people.tolist()]
        with pytest.raises(DataError, match=words) if words else nullcontext():
            deal_people(people, labels, monkeypatch)


def test_pooled_results_are_one_entry_over_all_people(folds_run: Path, prepared: PreparedData):
    results = read_results(folds_run / "engagement")
    (measured,) = results.measurements
    assert measured.pooled and (measured.pooled.seeds, measured.pooled.num_folds) == ([0], FOLDS)
    assert measured.evaluation.num_clips == sum(len(rows) for rows in prepared.splits.values()) == 15
    assert measured.evaluation.intervals.num_clusters == 5 and measured.data.audit and measured.data.audit.passed
    assert results.doubt() is None and results.training and results.training.seconds > 0
    assert results.train_label_counts == {
        name: row.support for name, row in measured.evaluation.scores.per_class.items()
    }
    pooled, names = read_predictions(folds_run / "engagement", "test")
    assert names == NAMES and pooled.decided_ids is not None
    own = [read_predictions(folds_run / f"folds/{fold}/engagement", "test")[0] for fold in (1, 2, 3)]
    assert list(pooled.keys) == [key for part in own for key in part.keys]
    with pytest.raises(ModelLoadError, match="a fold's model is"):
        Predictor.from_pretrained(str(folds_run / "engagement"))
    assert Predictor.from_pretrained(str(folds_run / "folds/1/engagement")).model.config.label_names == NAMES
    compared = compare_runs(folds_run / "engagement", folds_run / "engagement")
    assert compared.not_fitted is None and compared.fitted is not None
    assert compared.fitted.differences["macro_f1"].first == measured.evaluation.decision.scores.fitted.macro_f1


def test_killed_within_the_second_fold_and_resumed_the_scores_are_equal(
    recipe: dict[str, object], folds_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in(patch, 4, method="evaluate")  # two epochs a fold
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run/engagement").exists()
    first = tmp_path / "run/folds/1/engagement/model.safetensors"
    written = first.stat().st_mtime_ns
    capsys.readouterr()
    run(recipe, tmp_path / "run", resume_from_checkpoint="true")
    said = capsys.readouterr().out
    assert "fold 1 of 3" not in said and "fold 2 of 3" in said and "left" in said
    assert first.stat().st_mtime_ns == written
    assert logits_by_clip(tmp_path / "run/engagement") == logits_by_clip(folds_run / "engagement")
    resumed, whole = (read_results(folder / "engagement").measurements for folder in (tmp_path / "run", folds_run))
    assert resumed == whole

    with pytest.raises(RecipeError, match="a fold with a different seed"):
        run(recipe, tmp_path / "run", resume_from_checkpoint="true", learning_rate="0.5")


@pytest.fixture(scope="module")
def by_subject(recipe: dict[str, object]) -> dict[str, object]:
    section = {**recipe["engagement"], "folds": SUBJECT, "freeze_encoder": True}
    return {**recipe, "engagement": section, "num_train_epochs": 1}


@pytest.mark.slow
def test_by_subject_terminated_and_gone_on_with_as_told_the_scores_are_equal(
    by_subject: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    whole = run(by_subject, tmp_path / "whole")
    (tmp_path / "recipe.json").write_text(json.dumps({**by_subject, "output_dir": str(tmp_path / "killed")}))
    with monkeypatch.context() as patch:
        stop_in(patch, 3, partial(os.kill, os.getpid(), signal.SIGTERM), "evaluate")
        assert train.main([str(tmp_path / "recipe.json")]) == 143
    told = capfd.readouterr().err.partition("resume with engagement train ")[2]
    assert train.main(shlex.split(told)) == 0
    said = capfd.readouterr().out
    assert "fold 2 of 5" not in said and "fold 3 of 5" in said
    tables = [read_predictions(folder / "engagement", "test")[0] for folder in (whole, tmp_path / "killed")]
    assert np.array_equal(tables[0].logits, tables[1].logits) and list(tables[0].keys) == list(tables[1].keys)
    resumed, calm = (read_results(folder / "engagement").measurements for folder in (tmp_path / "killed", whole))
    assert resumed == calm and calm[0].pooled and calm[0].pooled.by_subject and calm[0].pooled.num_folds == 5
    assert calm[0].evaluation.intervals.num_clusters == 5 and calm[0].evaluation.num_clips == 15
    assert "5 folds, one per person, seed 0" in results_table([whole / "engagement"])

    section = {**by_subject["engagement"], "start_from": str(whole)}
    again = run({**by_subject, "engagement": section}, tmp_path / "again")
    for fold in range(1, 6):
        for split in ("test", "validation"):
            first, second = (
                read_predictions(folder / f"folds/{fold}/engagement", split)[0] for folder in (whole, again)
            )
            assert list(first.keys) == list(second.keys)
    with pytest.raises(RecipeError, match=r"needs 5 folds, got 5 by subject"):
        run({**by_subject, "engagement": {**section, "folds": 5}}, tmp_path / "other")


def test_folds_go_on_from_folds_with_the_same_people(recipe: dict[str, object], folds_run: Path, tmp_path: Path):
    section = {**recipe["engagement"], "start_from": str(folds_run), "freeze_encoder": True}
    again = run({**recipe, "engagement": section, "num_train_epochs": 1}, tmp_path / "run")
    for fold in range(1, FOLDS + 1):
        first, second = (folder / f"folds/{fold}/engagement" for folder in (folds_run, again))
        before, after = (read_predictions(folder, "test")[0] for folder in (first, second))
        assert list(before.keys) == list(after.keys)
        assert same_weights(*(weights_of(folder, "encoder.") for folder in (first, second)))
    with pytest.raises(RecipeError, match=r"start_from .* contains folds; pass --folds"):
        run({**recipe, "engagement": {**section, "folds": None}}, tmp_path / "other")
    with pytest.raises(RecipeError, match=r"needs 4 folds, got 3; "):
        run({**recipe, "engagement": {**section, "folds": 4}}, tmp_path / "other")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"expression_folds": "3"}, "not to stage one"),
        ({"engagement_data": "none", "expression_data": "somewhere"}, "pass --engagement_data"),
        (
            {"engagement_push_to_hub": "true", "engagement_hub_model_id": "a/b"},
            "--push_to_hub cannot be used with --folds",
        ),
    ],
)
def test_what_has_no_folds_is_one_line(
    recipe: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture, options: dict[str, str], words: str
):
    (tmp_path / "recipe.yaml").write_text(json.dumps({**recipe, "output_dir": str(tmp_path / "run")}))
    typed = [text for name, value in options.items() for text in (f"--{name}", value)]
    assert train.main([str(tmp_path / "recipe.yaml"), *typed]) == 2
    assert words in capfd.readouterr().err and not (tmp_path / "run").exists()


def predictions(split: str, seed: int, shift: float, scale: float) -> SplitPredictions:
    """120 clips of 6 people, whose second logit tells the label as well as in any other fold, on a scale of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(120) % 4 > 0).astype(int)
    logits = np.zeros((120, 2))
    logits[:, 1] = scale * (1.2 * labels + rng.normal(size=120)) + shift
    keys = [(f"{split}{seed}_{row}", 0) for row in range(120)]
    return SplitPredictions(split, keys, [f"p{seed}_{row % 6}" for row in range(120)], labels, logits)


def test_folds_on_different_scales_are_calibrated_before_they_are_pooled():
    scales = [(0.0, 1.0), (30.0, 0.1), (-20.0, 8.0)]
    folds = [
        (predictions("validation", 10 + seed, *of_fold), predictions("test", seed, *of_fold))
        for seed, of_fold in enumerate(scales)
    ]
    pooled = pool_folds(folds, NAMES)
    raw = np.concatenate([test.logits[:, 1] for _, test in folds])
    plain = bootstrap_intervals(pooled.predictions.label_ids, np.zeros(360, int), NAMES, None, _softmax(raw))
    assert plain.intervals["auroc"].value < 0.65 < 0.75 < pooled.evaluation.scores.auroc
    for (validation, test), decided in zip(folds, np.split(pooled.predictions.decided_ids, 3), strict=True):
        chosen = fit_calibration(validation.logits, validation.label_ids, NAMES).chosen
        offsets = fit_offsets(apply_calibration(validation.logits, chosen), validation.label_ids)
        assert np.array_equal(decided, apply_offsets(apply_calibration(test.logits, chosen), offsets))
    calibration = pooled.evaluation.calibration
    assert calibration.scaled and calibration.scaled.ece < 0.08 < calibration.as_trained.ece
    assert pooled.evaluation.decision.scores.fitted.macro_f1 > 0.65


def test_people_of_one_class_are_pooled_like_others():
    parts = []
    for person in range(6):
        test = predictions("test", person, 0.0, 1.0)
        rows = np.flatnonzero(test.label_ids == person % 2)[:20]  # each shows one class alone
        keys, subjects = [test.keys[row] for row in rows], [f"p{person}"] * len(rows)
        one = SplitPredictions("test", keys, subjects, test.label_ids[rows], test.logits[rows])
        parts.append((predictions("validation", 10 + person, 0.0, 1.0), one))
    found = pool_folds(parts, NAMES).evaluation
    assert found.scores.auroc > 0.65 and found.intervals.num_clusters == 6
    assert found.people and (found.people.num_people, found.people.num_people_with_both) == (6, 0)


def test_the_mean_of_seeds_is_one_measurement(folds_run: Path, tmp_path: Path, engagement: Command):
    code, said, _ = engagement("average", folds_run, folds_run, "--output", tmp_path / "mean")
    assert code == 0 and "auroc" in said
    mean, single = (read_results(folder / "engagement").measurements[0] for folder in (tmp_path / "mean", folds_run))
    assert mean.pooled and mean.pooled.seeds == [0, 0] and mean.pooled.num_folds == FOLDS
    # The mean of a training with itself: calibrated once more, which changes no calibrated score.
    ours, theirs = (read_predictions(folder / "engagement", "test")[0] for folder in (tmp_path / "mean", folds_run))
    assert np.abs(ours.logits - theirs.logits).max() < 1e-3 and np.array_equal(ours.decided_ids, theirs.decided_ids)
    assert mean.evaluation.scores == single.evaluation.scores
    assert compare_runs(tmp_path / "mean/engagement", folds_run / "engagement").num_clips == 15
    for runs, words in (([folds_run], "at least two runs"), ([folds_run, tmp_path], "Expected measured results")):
        code, _, said = engagement("average", *runs, "--output", tmp_path / "other")
        assert code != 0 and words in said and not (tmp_path / "other").exists()


def _softmax(second: np.ndarray) -> np.ndarray:
    share = 1 / (1 + np.exp(-second))
    return np.stack([1 - share, share], axis=1)
