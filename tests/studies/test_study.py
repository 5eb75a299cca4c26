"""A small study of our own, tried as a published one: all rows in one table, whatever fails or is killed in between."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.studies import finished_runs
from engagement_recognition.studies import reproduce as study
from engagement_recognition.studies.reproduce import Reproduction, read_study, reproduce
from engagement_recognition.studies.study_records import FailedRun, FinishedRun, StudyRecord
from engagement_recognition.studies.table import render_study
from engagement_recognition.training.arguments import Recipe
from engagement_recognition.training.trainer import EngagementTrainer

ROWS = {
    "frame": {"title": "One frame", "published": {"macro_f1": 0.4935, "accuracy": 0.575}},
    "broken": {"title": "A net that nobody has", "published": {"accuracy": 0.5}},
    "lstm": {"title": "LSTM", "published": {"macro_f1": 0.5505, "recall/disengaged": 0.26}},
}
CONTRAST = {"name": "time helps", "rows": ["frame", "lstm"], "score": "macro_f1", "also": ["accuracy_fitted"]}
FACES = {"subject_pattern": r"^\d+", "num_train_epochs": 1}
NOTHING_LEARNED = {"learning_rate": 1e-9, "early_stopping_patience": 2}  # so that it stops after its third epoch
DIFFERENCES = {
    "frame": {"model": "image"},
    "broken": {"encoder": "timm/no_such_net.in1k"},
    "faces": {"expression": FACES},
    "states": {"expression": FACES, "engagement": NOTHING_LEARNED, "num_train_epochs": 6},
}


@dataclass(frozen=True)
class Reproduced:
    """The study after two seeds, with what the terminal showed; tests read it and never write to it."""

    folder: Path
    output: Path
    outcome: Reproduction
    shown: str


def write_study(folder: Path, shared: dict[str, object], rows: dict[str, dict], **entries: object) -> Path:
    """A study folder; JSON is YAML. Improved recipes have an expression stage."""
    (folder / "improved").mkdir(parents=True, exist_ok=True)
    described = {"title": "A small study", "data": "drawn clips", "split": "test", "rows": rows, **entries}
    (folder / "study.yaml").write_text(json.dumps(described))
    for name in rows:
        recipe = {**shared, **DIFFERENCES.get(name, {})}
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
        improved = {**recipe, "expression": FACES}
        (folder / "improved" / f"{name}.yaml").write_text(json.dumps(improved))
    return folder


@pytest.fixture(scope="module")
def shared(tiny_recipe: dict[str, object]) -> dict[str, object]:
    """Whole frames in two windows a clip, for one epoch."""
    windows = {"sampling": "consecutive", "window_stride_frames": 4, "face_crop": False, "face_crop_size_px": 48}
    plain = {name: value for name, value in tiny_recipe.items() if name not in ("expression", "engagement")}
    return {**plain, **windows, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def reproduced(shared: dict[str, object], drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    folder = write_study(tmp_path_factory.mktemp("studies") / "small", shared, ROWS, contrasts=[CONTRAST])
    output, shown = tmp_path_factory.mktemp("reproduced") / "small", io.StringIO()
    with redirect_stdout(shown):
        reproduce(folder, drawn_daisee, output)
        outcome = reproduce(folder, drawn_daisee, output, seeds=2)  # seeds may be added, and what is there is kept
    return Reproduced(folder, output, outcome, shown.getvalue())


def record_of(output: Path) -> dict:
    return json.loads((output / "study.json").read_text())


def timeless_record(output: Path) -> dict:
    """Without what depends on the clock."""
    text = (output / "study.json").read_text()
    return json.loads(text, object_pairs_hook=lambda pairs: {key: value for key, value in pairs if key != "seconds"})


def rows_of(output: Path) -> dict[str, dict]:
    return {row["name"]: row for row in record_of(output)["rows"]}


def cells_of(output: Path, *begins: str) -> list[str]:
    """The one line of the table that begins with these cells."""
    lines = [line.strip("| ").split(" | ") for line in (output / "table.md").read_text().splitlines()]
    (found,) = (line for line in lines if line[: len(begins)] == list(begins))
    return found


def results_of(output: Path, name: str, seed: int) -> Results:
    return read_results(output / name / f"seed{seed}" / "engagement")


def times_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def interrupt(monkeypatch: pytest.MonkeyPatch, when: Callable[[Recipe], bool]) -> None:
    """Kill the study where the training of such a recipe would begin."""
    train = study.train

    def train_or_die(recipe: Recipe, options: dict[str, str]) -> list[Path]:
        if when(recipe):
            raise KeyboardInterrupt
        return train(recipe, options)

    monkeypatch.setattr(study, "train", train_or_die)


# --- The table


def test_every_row_and_seed_is_there(reproduced: Reproduced):
    rows = rows_of(reproduced.output)
    assert list(rows) == list(ROWS)
    assert [[run["seed"] for run in row["runs"]] for row in rows.values()] == [[0, 1]] * 3
    for name in ("frame", "lstm"):
        for run in rows[name]["runs"]:
            results = results_of(reproduced.output, name, run["seed"])
            assert results.seed == run["seed"] and run["failure"] is None
            assert run["scores"]["macro_f1"] == results.measured_on("test").evaluation.scores.macro_f1
            assert run["data"]["engagement"]["fingerprint"] == results.data.fingerprint
            assert (reproduced.output / run["folder"] / "model.safetensors").is_file()


def test_published_stands_beside_measured(reproduced: Reproduced):
    tests = [results_of(reproduced.output, "lstm", seed).measured_on("test").evaluation for seed in (0, 1)]
    by_clip, by_window = (
        [getattr(of_seed, kind).per_class["disengaged"].recall for of_seed in tests]
        for kind in ("scores", "scores_by_window")
    )
    majority = f"{tests[0].majority_baseline.per_class['disengaged'].recall:.3f}"
    cells = cells_of(reproduced.output, "LSTM", "recall/disengaged")
    assert cells[2] == "0.260" and cells[3].startswith(f"{sum(by_window) / 2:.3f} ± ")
    assert cells[4].startswith(f"{sum(by_clip) / 2:.3f} ± ") and cells[6] == majority
    assert cells_of(reproduced.output, "LSTM", "accuracy")[2] == "–"  # not published, measured all the same


def test_a_row_that_fails_in_itself_does_not_stop_the_others(reproduced: Reproduced):
    failures = reproduced.outcome.failures
    assert [line.partition(": ")[0] for line in failures] == ["broken, seed 0", "broken, seed 1"]
    assert all("no_such_net" in line and "\n" not in line for line in failures)
    assert cells_of(reproduced.output, "A net that nobody has", "accuracy")[2:5] == ["0.500", "failed", "failed"]
    assert "nobody has, seed 0, 1: failed: " in (reproduced.output / "table.md").read_text()
    assert "broken, seed 1 failed: " in reproduced.shown


def test_a_contrast_is_the_difference_of_the_runs(reproduced: Reproduced):
    (contrast,) = record_of(reproduced.output)["contrasts"]
    frame, lstm = (rows_of(reproduced.output)[name]["runs"] for name in ("frame", "lstm"))
    differences = [lstm[seed]["scores"]["macro_f1"] - frame[seed]["scores"]["macro_f1"] for seed in (0, 1)]
    assert contrast["rows"] == ["frame", "lstm"]
    judged, beside = contrast["scores"]
    assert (judged["score"], beside["score"]) == ("macro_f1", "accuracy_fitted")
    assert judged["differences"] == pytest.approx(differences)
    assert judged["published"] == pytest.approx(0.5505 - 0.4935)
    assert all(row["paired"]["value"] == pytest.approx(row["mean"]) for row in (judged, beside))
    cells = cells_of(reproduced.output, "time helps (One frame → LSTM)")
    assert cells[2] == "+0.057" and cells[3].startswith(f"{sum(differences) / 2:+.3f} ± ")
    assert cells[4] == ", ".join(f"{value:+.3f}" for value in differences)


def test_each_row_is_announced_with_the_time_left(reproduced: Reproduced):
    lines = [line for line in reproduced.shown.splitlines() if line.startswith("row ")]
    assert lines[0].startswith("row 1 of 3, seed 1 of 1: One frame; ") and "unknown" in lines[0]
    assert lines[-1].startswith("row 3 of 3, seed 2 of 2: LSTM; ") and "minute left" in lines[-1]
    assert len(lines) == 3 + 1 + 3  # the one that failed was tried again
    runs = {(name, 0): FinishedRun.model_construct(seconds=seconds) for name, seconds in (("a", 3600.0), ("b", 600.0))}
    assert study.time_left(["a", "b"], runs) == "about 1 h 10 min left"
    runs["c", 0] = FailedRun(seed=0, failure="no")
    assert study.time_left(["c"], runs) == "about 35 min left"  # as the others


def test_the_table_says_what_was_changed_and_on_which_data(
    reproduced: Reproduced, shared: dict[str, object], drawn_daisee: Path, drawn_expressions: Path, tmp_path: Path
):
    rows = {"faces": {"title": "Expressions alone", "stages": ["expression"], "published": {}}}
    folder, output = write_study(tmp_path / "faces", shared, rows), tmp_path / "out"
    options = {"image_size": "48", "expression_allow_leakage": "true", "disable_tqdm": "true"}
    reproduce(folder, drawn_daisee, output, drawn_expressions, options=options)
    table = (output / "table.md").read_text()
    assert "trained with --expression_allow_leakage true, --image_size 48." in table
    assert "was trained with" not in (reproduced.output / "table.md").read_text()
    (run,) = rows_of(output)["faces"]["runs"]
    results = read_results(output / run["folder"])
    assert run["folder"] == "faces/seed0/expression" and results.recipe["image_size"] == "48"
    assert f"- Data: expressions, fingerprint {results.data.fingerprint[:12]}: all rows." in table


def test_a_split_that_leaks_and_people_nobody_knows_are_told(reproduced: Reproduced):
    record = record_of(reproduced.output)
    assert "The audit of" not in (reproduced.output / "table.md").read_text()
    run = record["rows"][0]["runs"][0]
    run["data"]["engagement"]["audit"], run["measured_on"]["num_people"] = "failed", None
    table = render_study(StudyRecord.model_validate_json(json.dumps(record)))
    assert "**The audit of daisee failed**" in table and "too narrow: One frame." in table


# --- Going on


def test_a_finished_run_is_not_trained_again(
    reproduced: Reproduced, drawn_daisee: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = shutil.copytree(reproduced.output, tmp_path / "copy")
    before = times_of(output / "frame") | times_of(output / "lstm")
    asked = []
    interrupt(monkeypatch, lambda recipe: asked.append(recipe.options["encoder"]))
    again = reproduce(reproduced.folder, drawn_daisee, output, seeds=2)
    assert asked == ["timm/no_such_net.in1k"] * 2  # what failed is tried again
    assert times_of(output / "frame") | times_of(output / "lstm") == before
    assert again.failures == reproduced.outcome.failures
    assert (output / "study.json").read_text() == (reproduced.output / "study.json").read_text()
    assert (output / "table.md").read_text() == (reproduced.output / "table.md").read_text()


def test_a_killed_study_goes_on_and_ends_as_one_in_one_go(
    reproduced: Reproduced, drawn_daisee: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, lambda recipe: recipe.options.get("model") != "image")
        reproduce(reproduced.folder, drawn_daisee, output)
    assert cells_of(output, "One frame", "macro-F1")[2] == "0.4935" and len(rows_of(output)["frame"]["runs"]) == 1
    assert cells_of(output, "LSTM", "macro-F1")[2:5] == ["0.5505", "not yet", "not yet"]
    before = times_of(output / "frame")
    reproduce(reproduced.folder, drawn_daisee, output)
    assert times_of(output / "frame") == before
    whole, resumed = (
        [row["runs"][0] for row in timeless_record(folder)["rows"]] for folder in (reproduced.output, output)
    )
    assert resumed == whole


@pytest.mark.parametrize("changed", ["option", "recipe", "label", "study"])
def test_a_folder_that_was_begun_otherwise_is_refused(
    changed: str, reproduced: Reproduced, drawn_daisee: Path, tmp_path: Path
):
    folder = shutil.copytree(reproduced.folder, tmp_path / ("other" if changed == "study" else "small"))
    data = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    before = times_of(reproduced.output)
    edits = {"recipe": (folder / "lstm.yaml", "0.001", "0.01"), "label": (data / "Labels/TestLabels.csv", ",1,", ",2,")}
    if changed in edits:
        path, old, new = edits[changed]
        path.write_text(path.read_text().replace(old, new))
    options = {"image_size": "64"} if changed == "option" else {}
    with pytest.raises(RecipeError, match="choose a different --output"):
        reproduce(folder, data, reproduced.output, seeds=2, options=options)
    assert times_of(reproduced.output) == before


def test_a_folder_of_somebody_else_is_left_alone(reproduced: Reproduced, drawn_daisee: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=rf"{tmp_path.name}\b.* choose a new folder"):
        reproduce(reproduced.folder, drawn_daisee, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(DataError, match=rf"{tmp_path.name}\b.* choose a new folder"):
        reproduce(reproduced.folder, drawn_daisee, tmp_path / "thesis.tex")


# --- Two stages, improved rows, and a split that training does not measure


@pytest.mark.slow
def test_a_row_of_two_stages_goes_on_after_its_first(
    shared: dict[str, object], drawn_daisee: Path, drawn_expressions: Path, tmp_path: Path
):
    rows = {"states": {"stages": ["expression", "engagement"], "published": {"weighted_f1": 0.91}}}
    folder = write_study(tmp_path / "two", shared, rows, split="validation")
    step = EngagementTrainer.training_step

    def dies_in_the_third_epoch_of_stage_two(trainer: EngagementTrainer, *arguments: object) -> object:
        if Path(trainer.args.output_dir).name == "engagement" and trainer.state.epoch >= 2:
            raise KeyboardInterrupt
        return step(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EngagementTrainer, "training_step", dies_in_the_third_epoch_of_stage_two)
        reproduce(folder, drawn_daisee, tmp_path / "killed", drawn_expressions)
    stage_one = tmp_path / "killed" / "states" / "seed0" / "expression"
    before, steps = times_of(stage_one), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngagementTrainer, "training_step", lambda *given: steps.append(1) or step(*given))
        reproduce(folder, drawn_daisee, tmp_path / "killed", drawn_expressions)
    assert times_of(stage_one) == before and len(steps) == 3  # of stage two, the third epoch alone
    reproduce(folder, drawn_daisee, tmp_path / "whole", drawn_expressions)
    assert timeless_record(tmp_path / "killed") == timeless_record(tmp_path / "whole")
    weights = [tmp_path / run / "states/seed0/engagement/model.safetensors" for run in ("killed", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    (run,) = rows_of(tmp_path / "whole")["states"]["runs"]
    assert run["folder"] == "states/seed0/engagement" and set(run["data"]) == {"expression", "engagement"}
    logged = results_of(tmp_path / "whole", "states", 0).training.log
    best = max(entry["eval_macro_f1"] for entry in logged if "eval_macro_f1" in entry)  # by window, as Trainer counts
    assert run["scores_by_window"]["macro_f1"] == pytest.approx(best)
    assert "best epoch was chosen" in (tmp_path / "whole" / "table.md").read_text()


@pytest.mark.slow
def test_an_improved_row_stands_below_its_row(
    shared: dict[str, object], drawn_daisee: Path, drawn_expressions: Path, tmp_path: Path
):
    rows = {name: ROWS[name] for name in ("frame", "lstm")}
    contrast = {"name": "ours", "rows": ["lstm", "improved/lstm"], "score": "accuracy"}
    folder = write_study(tmp_path / "small", shared, rows, contrasts=[contrast])
    assert [row.name for row in read_study(folder).rows] == ["frame", "lstm"]
    planned = read_study(folder, improved=True, has_expression_data=True).rows
    assert [row.name for row in planned] == ["frame", "improved/frame", "lstm", "improved/lstm"]
    assert [len(row.stages) for row in planned] == [1, 2, 1, 2]
    assert [len(row.stages) for row in read_study(folder, improved=True).rows] == [1, 1, 1, 1]
    faces = write_study(tmp_path / "faces", shared, {"faces": {"stages": ["expression"]}})
    assert [row.stages for row in read_study(faces, True, True).rows] == [("expression",)] * 2
    write_study(folder, shared, {"lstm": ROWS["lstm"]}, contrasts=[contrast])  # one row is enough to train
    output = tmp_path / "out"
    reproduce(folder, drawn_daisee, output, drawn_expressions, improved=True)
    assert not (output / "lstm/seed0/expression").exists() and (output / "improved/lstm/seed0/expression").is_dir()
    assert results_of(output, "improved/lstm", 0).started_from == "expression"
    assert cells_of(output, "LSTM, improved", "recall/disengaged")[2] == "–"  # the same scores, and nothing published
    ((found,),) = (contrast["scores"] for contrast in record_of(output)["contrasts"])
    assert found["published"] is None and found["paired"]["value"] == pytest.approx(found["differences"][0])


def test_other_data_does_not_speak_for_a_row(reproduced: Reproduced):
    export = reproduced.output / "lstm/seed0/engagement"
    results = read_results(export)
    own = results.measured_on("test")
    elsewhere = own.data.model_copy(update={"fingerprint": "of other data"})
    other = own.model_copy(update={"split": "validation", "data": elsewhere})
    found, _ = finished_runs.measured_on_own_data(export, results.with_measurement(other), "validation")
    assert found == finished_runs.measured_on_own_data(export, results, "validation")[0] != own.evaluation


# --- What is refused before hours of training


ASKED = {
    "unknown option": ({"options": {"learning_rat": "1"}}, "frame: .*learning_rate"),
    "wrong value": ({"options": {"num_train_epochs": "many"}}, "frame: .*many"),
    "an option of the study's own": ({"options": {"engagement_seed": "3"}}, "engagement_seed"),
    "no seed": ({"seeds": 0}, "at least one seed"),
    "no data": ({"data": Path("nowhere")}, "nowhere .*drawn clips.*check the path"),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_mistake_is_found_before_anything_is_trained(
    name: str, reproduced: Reproduced, drawn_daisee: Path, tmp_path: Path
):
    asked, told = ASKED[name]
    with pytest.raises((RecipeError, DataError), match=told) as refusal:
        reproduce(reproduced.folder, **{"data": drawn_daisee, "output": tmp_path / "out", **asked})
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def test_missing_expression_data_names_the_rows(shared: dict[str, object], drawn_daisee: Path, tmp_path: Path):
    rows = {"lstm": {}, "faces": {"stages": ["expression"]}, "states": {"stages": ["expression", "engagement"]}}
    folder = write_study(tmp_path / "two", shared, {name: {"title": name, **row} for name, row in rows.items()})
    with pytest.raises(RecipeError, match=r"for faces, states; .*--expression-data"):
        reproduce(folder, drawn_daisee, tmp_path / "out")
