"""`engagement tune`: every option takes effect, test is not looked at, and a search goes on as one never stopped."""

import csv
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Command
from installed_versions import pretend
from tuned_faces import SPACE, write_space

from engagement_recognition import train
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.processor.input_errors import EngagementInputError, NonFiniteLossError, RecipeError
from engagement_recognition.studies import tune as tuning
from engagement_recognition.studies import tune_space
from engagement_recognition.studies.tune_records import Search, read_search
from engagement_recognition.training import training_sets
from engagement_recognition.training.arguments import StageRun, plan_stages, read_recipe
from engagement_recognition.training.losses import build_loss
from engagement_recognition.training.option_checks import check_options_alone
from engagement_recognition.training.selection import SelectionOutcome
from engagement_recognition.training.stage_data import StageData, load_stage_data
from engagement_recognition.training.trainer import EngagementTrainer

pytest.importorskip("optuna")
Values = Mapping[str, object]


@pytest.fixture(scope="module")
def recipe(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single faces of class folders in a second, one stage."""
    folder = tmp_path_factory.mktemp("faces")
    recipe = {
        "encoder": "test_resnet", "image_size": 32, "num_preparation_processes": 1, "cache_dir": str(folder / "cache"),
        "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "seed": 0,
        "metric_for_best_model": "macro_f1",
        "engagement": {"data": str(drawn_expressions), "subject_pattern": r"^\d+", "model": "image"},
    }  # fmt: skip
    (folder / "faces.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "faces.yaml"


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[EngagementTrainer]:
    """Those of the trials."""
    seen: list[EngagementTrainer] = []
    really = tuning.stage_trainer

    @contextmanager
    def look(*arguments: object) -> Iterator[object]:
        with really(*arguments) as found:
            seen.append(found[0])
            yield found

    monkeypatch.setattr(tuning, "stage_trainer", look)
    return seen


@pytest.fixture
def without_test(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at a picture of test fails."""
    (run,) = plan_stages(read_recipe(recipe), {})
    train.check_options(run)
    test = load_stage_data(run).test
    pictures = {content for row in test.rows["frames"] for content in row}
    really = training_sets.decode_picture

    def refuse(content: bytes) -> object:
        assert content not in pictures, "a picture of test was read"
        return really(content)

    monkeypatch.setattr(training_sets, "decode_picture", refuse)
    with pytest.raises(AssertionError, match="picture of test"):
        test[0]


def test_a_search_ends_in_a_recipe_that_trains_what_it_found(
    engagement: Command, recipe: Path, tmp_path: Path, trainers: list[EngagementTrainer], without_test: None,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    output = tmp_path / "out put"
    command = ("tune", recipe, "--space", write_space(tmp_path), "--trials", 2, "--output", output)
    code, out, err = engagement(*command, "--weight_decay", "0.01")
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith("trial ")]
    assert [line.split(":")[0] for line in lines] == ["trial 1 of 2", "trial 2 of 2"]
    assert "left" in lines[0] and "epoch" not in out and f"engagement train '{output}/best.yaml'" in out
    assert sorted(path.name for path in output.iterdir()) == ["best.yaml", "search.json", "trials.csv", "trials.png"]

    search = read_search(output)
    own = {"learning_rate": 1e-3, "dropout": 0.5, "label_smoothing": 0.0, "augmentation.flip": 0.0}
    assert search.score == "macro_f1" and search.trials[0].values == own
    logits, labels = torch.eye(7), torch.arange(7)
    for trial, trainer in zip(search.trials, trainers, strict=True):
        rate, dropout, smoothing, flip = (trial.values[name] for name in SPACE)
        assert (trainer.args.learning_rate, trainer.args.weight_decay, trainer.args.seed) == (rate, 0.01, 0)
        assert trainer.model.config.dropout == dropout and trainer.train_collator.augmentation.flip == flip
        loss = build_loss("cross_entropy", trainer.train_dataset.label_ids, 7, 5.0, label_smoothing=smoothing)
        assert trainer.loss(logits, labels) == loss(logits, labels)
    assert search.trials[1].values not in (own, {**own, "dropout": search.trials[1].values["dropout"]})
    with (output / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dropout"]) for row in rows] == [trial.values["dropout"] for trial in search.trials]

    monkeypatch.undo()  # now test is measured, once
    assert train.main([str(output / "best.yaml")]) == 0
    number = search.best()
    selection = read_results(output / "best/engagement").training.selection
    assert (selection.score, selection.value) == ("macro_f1", search.trials[number - 1].score)
    header = (output / "best.yaml").read_text().splitlines()[0]
    assert "faces.yaml" in header and f"trial {number}, macro_f1 " in header


# --- The search, without a training


@pytest.fixture(scope="module")
def faces(recipe: Path) -> StageData:
    """The recipe's, opened once."""
    return load_stage_data(plan_stages(read_recipe(recipe), {})[0])


@pytest.fixture
def scored(faces: StageData, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The options of each trial in the place of its training; the score is highest at dropout 0.3."""
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(tuning, "load_stage_data", lambda run: faces)
    for module in (tuning, tune_space):  # an encoder is built each time
        monkeypatch.setattr(module, "check_options", check_options_alone)
    monkeypatch.setattr(tuning, "save_search_figure", lambda search, path: path.touch())
    monkeypatch.setattr("gc.collect", lambda: 0)  # Trainer's, twice a trial, among all that tests have imported

    def score(run: StageRun, *arguments: object) -> SelectionOutcome:
        seen.append(dict(run.given))
        value = 1 - abs(run.stage.dropout - 0.3)
        return SelectionOutcome("macro_f1", 2, value, 0.01, 2, None)

    monkeypatch.setattr(tuning, "train_candidate", score)
    monkeypatch.setattr(tuning, "_RANDOM_TRIALS", 2)
    return seen


def found(search: Search) -> list[tuple[Values, float | None, str | None]]:
    return [(trial.values, trial.score, trial.failure) for trial in search.trials]


def test_a_search_that_goes_on_proposes_what_one_never_stopped_would(
    recipe: Path, tmp_path: Path, scored: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
):
    space = write_space(tmp_path)
    straight = tuning.tune(recipe, tmp_path / "straight", 6, space)
    really = tuning.train_candidate

    def stop(run: StageRun, *arguments: object) -> SelectionOutcome:
        if len(read_search(tmp_path / "stopped").trials) == 4:
            monkeypatch.setattr(tuning, "train_candidate", really)
            raise KeyboardInterrupt
        return really(run)

    tuning.tune(recipe, tmp_path / "stopped", 3, space)
    monkeypatch.setattr(tuning, "train_candidate", stop)
    with pytest.raises(KeyboardInterrupt):
        tuning.tune(recipe, tmp_path / "stopped", 6, space)
    kept = read_search(tmp_path / "stopped")
    assert len(kept.trials) == 4 and kept.begun == 0
    assert found(tuning.tune(recipe, tmp_path / "stopped", 6, space)) == found(straight)
    trained = len(scored)
    assert found(tuning.tune(recipe, tmp_path / "stopped", 2, space)) == found(straight)  # nothing is lost or done
    assert len(scored) == trained
    other = tuning.tune(recipe, tmp_path / "other", 6, space, {"seed": "1"})
    assert found(other)[0] == found(straight)[0] and found(other)[1:] != found(straight)[1:]


def test_trials_that_fail_are_recorded_and_the_search_goes_on(
    recipe: Path, tmp_path: Path, scored: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):  # fmt: skip
    really = tuning.train_candidate
    errors = {
        2: NonFiniteLossError("Expected a finite loss."), 3: torch.OutOfMemoryError("CUDA out of memory."),
        4: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    }  # fmt: skip

    def fail(run: StageRun, *arguments: object) -> SelectionOutcome:
        number = int(run.run_dir.name.removeprefix("trial_"))
        if number in errors:
            raise errors[number]
        if number == 5:
            return SelectionOutcome("macro_f1", None, None, None, 0, "macro_f1 was undefined")
        return really(run)

    monkeypatch.setattr(tuning, "train_candidate", fail)
    search = tuning.tune(recipe, tmp_path / "output", 6, write_space(tmp_path))
    failures = [trial.failure for trial in search.trials]
    assert failures == [
        None, "Expected a finite loss.", "memory was full", "memory was full", "macro_f1 was undefined", None,
    ]  # fmt: skip
    assert "trial 3 of 6: failed, memory was full" in capsys.readouterr().out
    errors[7] = RuntimeError("a mistake of ours")
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        tuning.tune(recipe, tmp_path / "output", 7, write_space(tmp_path))
    assert len(read_search(tmp_path / "output").trials) == 6
    errors[1] = NonFiniteLossError("Expected a finite loss.")
    with pytest.raises(RecipeError, match=r"faces.yaml, failed: Expected a finite"):
        tuning.tune(recipe, tmp_path / "none", 2, write_space(tmp_path))


def test_what_kills_its_process_again_and_again_fails(recipe: Path, tmp_path: Path, scored: list[dict[str, object]]):
    search = tuning.tune(recipe, tmp_path / "output", 1, write_space(tmp_path))
    kept = json.loads((tmp_path / "output/search.json").read_text())
    (tmp_path / "output/search.json").write_text(json.dumps({**kept, "begun": 3}))
    search = tuning.tune(recipe, tmp_path / "output", 3, write_space(tmp_path))
    assert [trial.failure for trial in search.trials] == [None, "its process was killed 3 times", None]


def test_the_same_values_are_trained_once(recipe: Path, tmp_path: Path, scored: list[dict[str, object]]):
    search = tuning.tune(recipe, tmp_path / "output", 6, write_space(tmp_path, {"dropout": [0.5, 0.4]}))
    assert len(search.trials) == 6 and len(scored) == len({trial.values["dropout"] for trial in search.trials})


def test_stage_one_is_trained_once_and_kept(
    recipe: Path, drawn_expressions: Path, tmp_path: Path, scored: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    both = tmp_path / "both.yaml"
    section = {"data": str(drawn_expressions), "subject_pattern": r"^\d+"}
    both.write_text(yaml.safe_dump({"base": str(recipe), "num_train_epochs": 1, "expression": section}))
    expression = tmp_path / "output/stage_one/expression"
    trained: list[Path] = []
    really = tuning.train
    monkeypatch.setattr(tuning, "train", lambda *arguments: trained.extend(really(*arguments)))
    for trials in (1, 2):
        tuning.tune(both, tmp_path / "output", trials, write_space(tmp_path))
    assert trained == [expression]
    assert [options["start_from"] for options in scored] == [str(expression)] * 2
    (best,) = plan_stages(read_recipe(tmp_path / "output/best.yaml"), {})
    assert best.name == "engagement" and best.stage.start_from == str(expression)
    with pytest.raises(RecipeError, match=r"expression_learning_rate 0\.001, got 0\.5"):
        tuning.tune(both, tmp_path / "output", 2, write_space(tmp_path), {"expression_learning_rate": "0.5"})


# --- What is refused


def refuse(match: str, recipe: Path, output: Path, trials: int = 1, **more: object) -> None:
    with pytest.raises(EngagementInputError, match=match) as caught:
        tuning.tune(recipe, output, trials, **more)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_searched_is_refused_before_anything_is_written(recipe: Path, tmp_path: Path):
    output = tmp_path / "output"
    empty = tmp_path / "empty.yaml"
    empty.write_text("seed: 0\n")
    refuse("--engagement_data", empty, output)
    refuse("at least one trial, got 0", recipe, output, 0)
    refuse("no search space", recipe, output, space=tmp_path / "none.yaml")
    for options, said in (
        ({"folds": "3"}, "no folds"), ({"output_dir": "elsewhere"}, r"--output_dir\b.* --output\."),
        ({"load_best_model_at_end": "false"}, "load_best_model_at_end"), ({"engagement_data": "nowhere"}, "nowhere"),
        ({"push_to_hub": "true", "hub_model_id": "o/n"}, "no push_to_hub"),
    ):  # fmt: skip
        refuse(said, recipe, output, options=options)
    encoders = write_space(tmp_path, {"encoder": ["resnet18", "test_resnet"]})
    refuse("starts from box", recipe, output, space=encoders, options={"start_from": "box", "grayscale": "true"})
    assert not output.exists()
    output.mkdir()
    (output / "thesis.txt").touch()
    refuse("new or empty folder", recipe, output)


def test_another_search_in_the_folder_is_refused_and_nothing_is_lost(
    recipe: Path, faces: StageData, tmp_path: Path, scored: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    output, space = tmp_path / "output", write_space(tmp_path)
    tuning.tune(recipe, output, 2, space)
    before = (output / "search.json").read_bytes()
    refuse("learning_rate 0.001, got 0.5", recipe, output, 3, space=space, options={"learning_rate": "0.5"})
    refuse("weight_decay", recipe, output, 3)  # the default space
    other = {**SPACE, "dropout": {"low": 0, "high": 0.3}}
    refuse("in its space dropout", recipe, output, 3, space=write_space(tmp_path, other))
    description = faces.description.model_copy(update={"fingerprint": "other"})
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "load_stage_data", lambda run: replace(faces, description=description))
        refuse(r"data with fingerprint \w+, got other", recipe, output, 3, space=write_space(tmp_path))
    really = tuning.installed_version
    monkeypatch.setattr(tuning, "installed_version", lambda name: f"{really(name)}.1")
    refuse("optuna .*, got ", recipe, output, 3, space=write_space(tmp_path))
    assert (output / "search.json").read_bytes() == before
    (output / "search.json").write_bytes(before[:100])
    refuse("a search to resume in", recipe, output, 3, space=space)


def test_without_optuna_a_line_says_what_to_install(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, "optuna", None)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ['optuna>=5; extra == "tune"'])
    refuse("Expected optuna>=5, got optuna none; pip install 'optuna>=5'", recipe, tmp_path / "output")


# --- Killed


@pytest.mark.slow
def test_a_search_killed_in_a_training_ends_as_one_never_killed(recipe: Path, tmp_path: Path):
    space = write_space(tmp_path)

    def command(output: str) -> list[str]:
        main = "from engagement_recognition.cli.main import main; main()"
        words = ["tune", recipe, "--space", space, "--trials", 3, "--output", tmp_path / output]
        return [sys.executable, "-c", main, *map(str, words), "--num_train_epochs", "6"]

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command("calm"), check=True, env=environment, capture_output=True)
    for number in (1, 2, 3):
        started = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL)
        while not list((tmp_path / f"killed/trial_{number}").rglob("SHA256SUMS")):
            assert started.poll() is None
            time.sleep(0.02)
        started.send_signal(signal.SIGKILL)
        started.wait()
    subprocess.run(command("killed"), check=True, env=environment, capture_output=True)
    calm, killed = (read_search(tmp_path / name) for name in ("calm", "killed"))
    assert found(calm) == found(killed) and len(killed.trials) == 3
