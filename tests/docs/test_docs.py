"""What README and docs/ say holds: links lead somewhere, commands parse and run, numbers are those measured."""

import configparser
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from doc_pages import blocks, text_of
from places import ROOT
from typer.testing import CliRunner

from engagement_recognition import train
from engagement_recognition.cli.main import app
from engagement_recognition.hub.use_limits import EXPLAINED_IN, LIMITS_AND_WHY, limits_as_html, limits_for_terminal
from engagement_recognition.live.page_html import statement
from engagement_recognition.studies import demo_verdict
from engagement_recognition.training.arguments import Recipe, plan_stages, read_recipe
from engagement_recognition.training.command_line import read_options

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*.ipynb"))]
MORE_PAGES = [ROOT / "CHANGELOG.md", ROOT / "model_card.md", *sorted((ROOT / ".github").rglob("*.md"))]
UsageError = typer.BadParameter.__base__  # click's, which newer versions of typer have their own copy of
COMMANDS = typer.main.get_command(app).commands
AFTER_DEMO = "<!-- after make demo -->"  # stands before a block that runs once `make demo` has
RUNS = "<!-- runs -->"  # stands before blocks that run, a page's in order, in an empty folder
PASSED_ON = ("reproduce", "shortcut", "tune")  # they hand options that they do not know to train.py
# So that the slow test takes minutes: they override what the docs and recipes say.
SMALL_DRAW = ["--clips-per-subject", "4"]
SMALL_TRAIN = ["--encoder", "test_resnet", "--image_size", "32", "--num_train_epochs", "1"]


class ReachedDataError(Exception):
    """Raised in place of reading data: all that was typed has been accepted."""


def shown_commands(page: Path, marker: str = "") -> list[str]:
    """Lines of shell, but for comments."""
    lines = [line for block in blocks(page, "bash", marker) for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def demo_commands() -> list[str]:
    """What `make demo` runs."""
    rule = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndemo: setup\n")[2].partition("\n\n")[0]
    return [line.strip().replace("$(BIN)/", "") for line in rule.splitlines()]


def mentioned_commands(page: Path) -> list[str]:
    """Code within a sentence that begins as a command does; it may be the name alone."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if span.startswith(("engagement ", "python train.py ", "make "))]


ALL_SHOWN = [(page.name, line) for page in PAGES for line in shown_commands(page)]
ALL_SHOWN += [("Makefile", line) for line in demo_commands()]
ALL_MENTIONED = [(page.name, span) for page in PAGES for span in mentioned_commands(page)]


def test_the_readme_is_short_and_its_parts_are_those_of_the_files_they_come_from():
    text = README.read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if not line.startswith("|")]) <= 160  # tables grow with measurements
    script = runpy.run_path(str(ROOT / ".ci/readme.py"))
    renewed = script["renewed"]
    assert renewed(text) == text, "run make readme"
    limits = (ROOT / EXPLAINED_IN).read_text(encoding="utf-8")
    assert script["with_limits"](limits) == limits, "run make readme"
    assert (ROOT / "docs/evidence.md").read_text(encoding="utf-8") == script["evidence_page"](), "run make readme"
    assert "Article 5(1)(f)" in text and "This is not legal advice." in text and "0.385" in text
    with pytest.raises(ValueError, match="<!-- evidence -->"):
        renewed("# No place for a table\n")


@pytest.mark.parametrize("path", sorted((ROOT / "docs/measured").rglob("*.json")), ids=lambda path: path.stem)
def test_results_that_are_shown_name_no_folder_of_a_machine(path: Path):
    assert not re.findall(r'"(?:/|~|[A-Za-z]:\\)[^"]*"', path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [*PAGES, *MORE_PAGES], ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere_and_to_a_heading_that_is_there(page: Path):
    text = text_of(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    found = [target.partition("#") for target in targets if "://" not in target]
    places = [(page.parent / name if name else page, anchor) for name, _, anchor in found]
    assert [path for path, _ in places if not path.exists()] == []
    assert [(path.name, anchor) for path, anchor in places if anchor and anchor not in anchors(path)] == []
    assert page != README or len(places) > 10, "the links are no longer seen"


def anchors(page: Path) -> list[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)]


def test_every_page_is_reached_from_the_index_and_the_index_from_the_readme():
    index = ROOT / "docs/README.md"
    targets = set(re.findall(r"\]\(([^)\s#]+)\)", text_of(index)))
    assert {page.name for page in PAGES if page.parent == index.parent and page != index} <= targets
    assert "](docs/README.md)" in text_of(README)


def test_whoever_sees_the_limits_is_told_which_page_explains_them():
    for text in (LIMITS_AND_WHY, limits_for_terminal(), limits_as_html(), statement(is_local=True)):
        assert EXPLAINED_IN in text
    for path in ("hub/card.py", "hub/data_card.py", "hub/space.py", "conversion/export_stock.py"):
        assert "must_not=LIMITS_AND_WHY" in (ROOT / path).read_text(encoding="utf-8")


def test_the_python_api_is_that_of_the_docstrings():
    script = runpy.run_path(str(ROOT / ".ci/api_doc.py"))
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == script["render"](), "run make readme"
    with pytest.raises(AttributeError):
        script["describe"]("train", "no_such_name")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_compiles(page: Path):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize(("page", "line"), ALL_SHOWN, ids=lambda text: text[:60])
def test_a_command_that_is_shown_would_be_accepted(page: str, line: str, monkeypatch: pytest.MonkeyPatch):
    words = shlex.split(line, comments=True)
    match words:
        case (
            ["engagement", "train", *rest] | ["python", "train.py", *rest] | ["accelerate", "launch", "train.py", *rest]
        ):
            assert_trains(rest, monkeypatch)
        case ["accelerate", "launch", "--config_file", _, "train.py", recipe, *rest]:
            assert_trains([*([] if recipe == "my_recipe.yaml" else [recipe]), *rest], monkeypatch)
        case ["engagement", name, *rest]:
            context = COMMANDS[name].make_context(name, rest)
            if name in PASSED_ON:
                plan_stages(Recipe({"data": "any"}), read_options(context.args))
            else:
                assert context.args == []
        case ["python", "-m", "engagement_recognition.studies.device_agreement", "--device", name]:
            assert name in ("cpu", "cuda", "mps")
        case ["python", "-m", "engagement_recognition.studies.batch_speed", _, "--clips", number]:
            assert int(number) > 0
        case ["python", "-m", "engagement_recognition.studies.scale", _, "--output", _]:
            pass
        case ["python", "-m", "engagement_recognition.studies.demo_verdict", *rest]:
            assert len(rest) == 4
        case ["rm", "-rf", *folders]:
            assert all(re.fullmatch(r"runs/demo\w*/checkpoints", folder) for folder in folders)
        case ["tensorboard", "--logdir", folder]:
            assert folder == Path(read_recipe(ROOT / "recipes/demo.yaml").options["output_dir"]).as_posix()
        case ["make", target]:
            assert_target(target)
        case ["pip", "install", "-e", place]:
            declared = configparser.ConfigParser()
            declared.read(ROOT / "setup.cfg", encoding="utf-8")
            extras = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", place)[1] or ""
            assert set(filter(None, extras.split(","))) <= set(declared["options.extras_require"])
        case ["pip", "install", "-r", path]:
            assert (ROOT / path).is_file()
        case ["pip", "install", "--no-deps", "."]:
            pass
        case _:
            pytest.fail(f"{page} shows a command that nobody checks: {line}")


def assert_trains(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """train.py takes the recipe and every option, up to the point where it reads data."""

    def reach(*_: object) -> None:
        raise ReachedDataError

    monkeypatch.chdir(ROOT)  # where the recipes are
    monkeypatch.setattr(train, "check_encoder", lambda encoder, *_: 224)  # some are on the Hub
    monkeypatch.setattr(train, "load_stage_data", reach)
    monkeypatch.setattr(train, "load_folds", reach)
    with pytest.raises(ReachedDataError):
        train.main(options)


def assert_target(name: str) -> None:
    assert re.search(rf"^{re.escape(name)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize(("page", "span"), ALL_MENTIONED, ids=lambda text: text[:60])
def test_a_command_that_is_mentioned_exists(page: str, span: str, monkeypatch: pytest.MonkeyPatch):
    words = span.split()
    if words[0] == "make":
        assert_target(words[1])
    elif words[0] == "python":
        assert_trains(words[2:], monkeypatch)
    else:
        assert words[1] == "COMMAND" or words[1] in COMMANDS


@pytest.mark.parametrize(
    "line",
    ["engagement predict --modell x", "python train.py recipes/demo.yaml --learning_rat 1", "make demos", "curl x"],
)
def test_a_command_with_a_mistake_is_not_accepted(line: str, monkeypatch: pytest.MonkeyPatch):
    # The tests above say nothing if it is.
    with pytest.raises((UsageError, pytest.fail.Exception, AssertionError)):
        test_a_command_that_is_shown_would_be_accepted("here", line, monkeypatch)


# Slow: it draws the demo's people, trains four models, if tiny ones for an epoch, and runs some thirty commands, a
# publication and three exports among them.
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_make_demo_and_what_the_docs_show_after_it_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "docs"):
        Path(name).symlink_to(ROOT / name)
    after = [line for page in PAGES for line in shown_commands(page, AFTER_DEMO)]
    assert len(after) > 10
    for line in [*demo_commands(), *after]:
        run(line)
    (three_lines,) = blocks(README, "python", AFTER_DEMO)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", three_lines], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_command_of_the_quickstart_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    (line,) = (line for line in shown_commands(ROOT / "docs/quickstart.md") if "docs/drawn_faces.png" in line)
    run(line)


# Slow: it draws, prepares and trains on a dozen people.
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in PAGES if shown_commands(page, RUNS)], ids=lambda page: page.name)
def test_what_a_page_shows_on_drawn_people_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for line in shown_commands(page, RUNS):
        run(line)


def run(line: str) -> None:
    """In this process, small; a pattern becomes the files that it fits, as in a shell."""
    words = []
    for word in shlex.split(line, comments=True):
        words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    if words[:2] == ["python", "train.py"] or words[:3] == ["engagement", "train", "demo"]:
        assert train.main([*words[2:], *SMALL_TRAIN]) == 0, line
        return
    if words[:2] == ["python", "-m"]:
        assert demo_verdict.main(words[3:]) == 0, line
        return
    if words[0] == "rm":
        for folder in words[2:]:
            shutil.rmtree(folder)
        return
    assert words[0] == "engagement", line
    small = SMALL_DRAW if words[1] == "draw" and words[words.index("--format") + 1] != "states" else []
    done = CliRunner().invoke(app, [*words[1:], *small])
    assert done.exit_code == 0, (line, done.output, done.exception)
