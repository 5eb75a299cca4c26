"""`results.json` as people edit it, and as earlier versions wrote it, in every command that reads it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blank_figures import leave_blank
from changed_results import scores_on_test
from conftest import TrainedStages
from huggingface_hub import ModelCard
from results_version_2 import version_2
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.processor.input_errors import ModelLoadError

Edit = Callable[[dict], object]
COMMANDS = {
    "report": ["report", "{sound}", "{model}", "--output", "{out}"],
    "publish": ["publish", "{model}", "--repo", "org/name", "--dry-run", "--output", "{out}"],
    "evaluate": ["evaluate", "{model}", "--data", "{data}"],
    "stock": ["export", "{model}", "--to", "stock", "--output", "{out}"],
    "onnx": ["export", "{model}", "--to", "onnx", "--output", "{out}.onnx"],
    "space": ["export", "{model}", "--to", "space", "--output", "{out}"],
}
EDITS: dict[str, tuple[Edit, str]] = {
    "no measurements": (lambda told: told.update(measurements=5), "measurements"),
    "a word for a score": (
        lambda told: told["measurements"][0]["evaluation"]["scores"].update(macro_f1="high"),
        "measurements[0].evaluation.scores.macro_f1",
    ),
    "a label renamed": (lambda told: told["label_names"].reverse(), "train_label_counts"),
    "an interval taken out": (
        lambda told: told["measurements"][0]["evaluation"]["intervals"]["intervals"].pop("macro_f1"),
        "measurements[0].evaluation.intervals.intervals.macro_f1",
    ),
    "a curve cut": (
        lambda told: told["measurements"][0]["evaluation"]["risk_coverage"]["risk"].pop(),
        "measurements[0].evaluation.risk_coverage",
    ),
    "a risk in words": (
        lambda told: told["measurements"][0]["evaluation"]["risk_coverage"]["coverage_at_risk"].update(few=None),
        "measurements[0].evaluation.risk_coverage.coverage_at_risk",
    ),
}


@pytest.fixture
def run(trained: TrainedStages, tmp_path: Path) -> Path:
    """A copy of stage two's folder that a test may write to."""
    return Path(shutil.copytree(trained.engagement, tmp_path / "engagement"))


# Every edit and every command once: all commands read the file by one function.
PAIRS = [(command, *edit) for command, edit in zip(COMMANDS.values(), EDITS.values(), strict=True)]


@pytest.mark.parametrize(("command", "edit", "key"), PAIRS, ids=EDITS)
def test_an_edited_file_is_one_line_in_every_command(
    command: list[str], edit: Edit, key: str, run: Path, prepared_crops: Path, trained: TrainedStages, tmp_path: Path
):
    if command[2:4] == ["--to", "space"]:
        pytest.importorskip("gradio")
    told = json.loads((run / "results.json").read_text())
    edit(told)
    (run / "results.json").write_text(json.dumps(told))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    places = {"sound": trained.expression, "model": run, "data": prepared_crops, "out": tmp_path / "out"}
    done = CliRunner().invoke(app, [part.format(**places) for part in command])
    assert isinstance(done.exception, ModelLoadError), done.output
    said = str(done.exception)
    assert said.startswith(f"Expected measured results in {run / 'results.json'}, got ") and key in said
    assert "\n" not in said and not done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["engagement"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_options_of_an_older_recipe_that_are_none_are_one_line(run: Path, prepared_crops: Path):
    told = json.loads((run / "results.json").read_text())
    told["data"]["prepared_with"] = None
    told["recipe"]["num_frames"] = "several"
    (run / "results.json").write_text(json.dumps(told))
    done = CliRunner().invoke(app, ["evaluate", str(run), "--data", str(prepared_crops)])
    assert isinstance(done.exception, ModelLoadError)
    assert '"several" as num_frames' in str(done.exception) and "\n" not in str(done.exception)


def test_an_export_of_an_earlier_version_goes_on(
    run: Path, prepared_crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    leave_blank(monkeypatch)
    new = read_results(run)
    (run / "results.json").write_text(json.dumps(version_2(new)))
    table = ["report", str(run), "--output", str(tmp_path / "report")]
    publication = ["publish", str(run), "--repo", "org/name", "--dry-run"]
    for command in (table, publication):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    card = ModelCard.load(run.with_name("engagement_hub") / "README.md")
    told = {found.metric_name: found.metric_value for found in card.data.eval_results}
    assert told["Macro-F1"] == round(scores_on_test(new).scores.macro_f1, 4)
    assert json.loads((run / "results.json").read_text())["version"] == 2  # reading writes nothing
    done = CliRunner().invoke(app, ["evaluate", str(run), "--data", str(prepared_crops)])
    assert done.exit_code == 0, done.output
    assert json.loads((run / "results.json").read_text())["version"] == 3
    (measured,) = read_results(run).measurements
    assert measured.evaluation.scores.confusion_matrix == scores_on_test(new).scores.confusion_matrix
    for command in (table, publication):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
