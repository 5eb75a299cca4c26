"""Training's command line: the help that explains every option, what is no option, and recipes by name."""

import re
import sys
from dataclasses import Field, fields
from pathlib import Path

import pytest
import yaml
from transformers import TrainingArguments
from typer.testing import CliRunner

from engagement_recognition import train
from engagement_recognition.cli.main import app
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.training.arguments import (
    TRAINING_DEFAULTS,
    Recipe,
    StageArguments,
    plan_stages,
    train_command,
)
from engagement_recognition.training.command_line import help_parser, parse_command_line, read_options
from engagement_recognition.training.recipes import RECIPES, find_recipe, recipe_header, recipe_names

OURS = [item.name for item in fields(StageArguments)]
TRAINERS = [item.name for item in fields(TrainingArguments) if item.init]
STUDIES = {"cnn_lstm": "CNN + LSTM", "nezami": "Nezami et al.", "beit": "BEiT study"}

# --- Help


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["train.py"])


def test_the_help_lists_every_option_within_80_columns(narrow: None, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        train.main(["demo", "--seed", "3", "--help"])  # wherever it stands
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.startswith("usage: python train.py [RECIPE]")
    assert sorted(re.findall(r"^  --(\w+)", shown, re.MULTILINE)) == sorted([*OURS, *TRAINERS])
    assert shown.index("--expression_NAME") < shown.index("data:") < shown.index("TrainingArguments")
    assert max(map(len, shown.splitlines())) <= 80
    assert "%" in shown and "%%" not in shown  # Trainer's texts escape theirs for argparse


def test_the_command_has_the_same_help_under_its_own_name(narrow: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/bin/engagement"])
    shown = CliRunner().invoke(app, ["train", "--help"])
    assert shown.exit_code == 0 and shown.stdout == help_parser().format_help()
    assert shown.stdout.startswith("usage: engagement train [RECIPE]") and "train.py" not in shown.stdout


@pytest.mark.parametrize("item", fields(StageArguments), ids=lambda item: item.name)
def test_every_option_of_ours_says_what_it_is_and_what_none_means(item: Field):
    text = item.metadata["help"]
    assert len(text) > 15
    # argparse adds the others by itself.
    assert ("(default" in text) == (item.default is None and item.name != "data")


def test_the_help_s_defaults_are_those_of_a_run():
    (run,) = plan_stages(Recipe({"engagement": {"data": "clips"}}), {})
    shown = {name: value for name, value in vars(help_parser().parse_args([])).items() if name in OURS}
    assert shown == {name: getattr(run.stage, name) for name in shown} and len(shown) > 15
    for name in set(TRAINING_DEFAULTS) - {"output_dir", "report_to"}:  # a stage's folder; none becomes []
        assert help_parser().get_default(name) == getattr(run.training, name)


# --- Mistakes

MISTAKES = {
    "a typing error": (["--lerning_rate", "1"], "'lerning_rate'; did you mean learning_rate? See {} --help."),
    "in the stage's name": (["--engagment-data", "x"], "'engagment_data'; did you mean engagement_data? See {} "),
    "like nothing": (["--zzzz", "1"], "'zzzz'; see {} --help."),
    "no value at the end": (["--seed"], "--seed needs a value; see {} --help."),
    "no value amid": (["--engagement_encoder", "--seed", "1"], "--engagement_encoder needs a value; see {} "),
    "an empty value": (["--encoder="], "--encoder needs a value"),
    "a stray word": (["--seed", "1", "2"], "'2' is neither an option"),
    "one dash": (["-seed", "1"], "'-seed' is neither an option"),
}


@pytest.mark.parametrize("command", ["python train.py", "engagement train"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_points_to_the_help(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["train.py" if "python" in command else "/bin/engagement"])
    options, told = MISTAKES[name]
    assert train_command() == command
    assert train.main(["demo", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told.format(command) in line and f"{command} --help" in line


def test_switches_need_no_value():
    options = read_options(["--engagement-bf16", "--resume_from_checkpoint", "--hub_private_repo", "--max_steps", "-1"])
    switches = dict.fromkeys(("engagement_bf16", "resume_from_checkpoint", "hub_private_repo"), "true")
    assert options == {**switches, "max_steps": "-1"}


# --- Recipes by name


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, far from the recipes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_recipe_has_a_name_and_the_list_shows_it_whole(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["recipes"]).stdout.splitlines()
    names = recipe_names()
    assert names[:3] == ["demo", "fer2013_resnet18", "from_box"]
    assert [line.split(maxsplit=1) for line in map(str.rstrip, shown[1:])] == [[n, recipe_header(n)] for n in names]
    rows = [path for path in RECIPES.rglob("*.yaml") if path.stem not in ("protocol", "our_way", "study")]
    assert {find_recipe(name) for name in names} == set(rows)


def test_a_file_comes_before_a_name_and_a_folder_does_not(elsewhere: Path):
    (elsewhere / "from_box").mkdir()
    assert parse_command_line(["from_box", "--seed", "1"]) == (RECIPES / "from_box.yaml", {"seed": "1"})
    (elsewhere / "demo").write_text("seed: 7")
    assert parse_command_line(["demo"]) == (Path("demo"), {})
    assert parse_command_line(["--seed", "1"]) == (None, {"seed": "1"})


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("demoo", "did you mean demo?"),
        ("recipes/demo.yaml", "did you mean demo?"),
        ("resnet18_lstm_subset", "did you mean cnn_lstm/resnet18_lstm_subset or "),
        ("nothing/like/it.yaml", "it.yaml'; `engagement recipes` lists all."),
        ("cnn_lstm", "named 'cnn_lstm'; "),
        ("cnn_lstm/protocol", "named 'cnn_lstm/protocol'; "),
    ],
)
def test_an_unknown_name_is_told_which_are_near(given: str, near: str, elsewhere: Path):
    with pytest.raises(RecipeError) as refused:
        find_recipe(given)
    assert near in str(refused.value) and str(refused.value).endswith("`engagement recipes` lists all.")


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_a_recipe_s_first_line_says_what_it_reproduces(path: Path):
    header = path.read_text().splitlines()[0]
    assert header.startswith("# ") and len(header) <= 110
    study = path.relative_to(RECIPES).parts[0]
    assert path.parent.name != "improved" or header.startswith("# Improved ")
    if study in STUDIES:
        assert STUDIES[study] in header
        rows = yaml.safe_load((RECIPES / study / "study.yaml").read_text())["rows"]
        assert path.stem not in rows or rows[path.stem]["title"] in header  # as `engagement reproduce` calls it
    elif not study.startswith(("fer2013", "from_box", "real")):
        assert "drawn people" in header
