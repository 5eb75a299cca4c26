"""docs/course.ipynb, a course: what stands in it is what its cells gave, on no machine of anybody's, and it runs."""

import copy
import os
import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from places import ROOT

from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.hub.use_limits import MUST_NOT_BE_USED, WHAT_IT_IS

NOTEBOOK = ROOT / "docs/course.ipynb"
SCRIPT = runpy.run_path(str(ROOT / ".ci/notebook.py"))
# No address, and no part of a relative path.
ABSOLUTE = re.compile(r"(?<![\w.:/{}*-])(?:~?/[A-Za-z][\w.-]*/|[A-Za-z]:\\)")
MOST_BYTES = 300_000
EXPLAINED = (
    "annotator", "why people are split", "majority baseline", "macro-f1", "balanced accuracy", "auroc",
    "interval over people", "ece", "temperature", "what it cannot show", "exercises",
)  # fmt: skip


@pytest.fixture
def course() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def shown(notebook: NotebookNode) -> dict[str, list[str]]:
    """What stands below the cells: kind → each of it."""
    found: dict[str, list[str]] = {}
    for output in outputs(notebook):
        for kind, content in output.get("data", {output.get("name"): output.get("text")}).items():
            found.setdefault(kind, []).append(content)
    return found


def assert_it_tells_the_story(notebook: NotebookNode) -> None:
    """Everything ran, silently; the planted leak alone is refused, by the audit and by the training."""
    assert {output.output_type for output in outputs(notebook)} == {"stream", "execute_result"}
    assert "stderr" not in shown(notebook), "a warning"
    text = "".join(shown(notebook)["stdout"])
    assert text.count("error:") == 1 and "error: The split of course/leaky" in text
    assert text.count("Passed: ") == 2 and text.count("Failed: ") == 1 and "(shared subjects)" in text
    assert "would be pushed to your-name/course" in text and len(shown(notebook)["image/png"]) == 2


def test_it_was_run_from_top_to_bottom(course: NotebookNode):
    nbformat.validate(course)
    cells = code_cells(course)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run make notebook"
    assert_it_tells_the_story(course)


def test_it_is_small_and_names_no_machine(course: NotebookNode):
    assert len(NOTEBOOK.read_bytes()) < MOST_BYTES
    told = [cell.source for cell in course.cells]
    told += [text for kind, texts in shown(course).items() if kind != "image/png" for text in texts]
    assert [text for text in told if ABSOLUTE.search(text)] == []
    tidied = copy.deepcopy(course)
    SCRIPT["tidy"](tidied)
    assert tidied == course, "run make notebook"


@pytest.mark.parametrize("text", ["see /home/me/course/run", r"C:\Users\me", "'/tmp/x/heat.png'", "~/videos/a.mp4"])
def test_the_path_of_a_machine_would_be_seen(text: str):
    assert ABSOLUTE.search(text)


def test_it_says_what_the_numbers_mean_and_what_the_model_must_not_be_used_for(course: NotebookNode):
    text = "\n".join(cell.source for cell in course.cells if cell.cell_type == "markdown")
    assert WHAT_IT_IS in text and MUST_NOT_BE_USED in text
    assert [words for words in EXPLAINED if words not in text.lower()] == []


@dataclass(frozen=True)
class Run:
    """The notebook as executed in a folder, and the time that processors spent on it; 0 where nobody counts it."""

    notebook: NotebookNode
    folder: Path
    cpu_sec: float


def executed(folder: Path) -> Run:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell.execution_count, cell.outputs = None, []
    before = os.times()
    SCRIPT["execute"](notebook, folder)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(notebook, folder, spent)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return executed(tmp_path_factory.mktemp("run"))


# Slow: it draws and prepares some sixty clips, trains, measures and explains.
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_in_a_folder_of_its_own(first_run: Run):
    assert first_run.cpu_sec < 2 * 300  # five minutes of two cores, whoever else uses them now
    assert_it_tells_the_story(first_run.notebook)
    assert [path.name for path in first_run.folder.iterdir()] == ["course"]
    course = first_run.folder / "course"
    results = read_results(course / "run/engagement")
    test = results.measured_on("test").evaluation
    assert results.is_trained_on_drawn and results.doubt() is None
    assert [measured.split for measured in results.measurements].count("test") == 2
    assert test.scores.macro_f1 > test.majority_baseline.macro_f1 and test.face_focus.face.mean is not None
    assert (course / "heat.png").stat().st_size > 10_000
    assert "drawn people" in (course / "run/engagement_hub/README.md").read_text(encoding="utf-8")


# Slow: as above, but for what is drawn and prepared already.
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_once_more_where_it_was_run(first_run: Run):
    assert_it_tells_the_story(executed(first_run.folder).notebook)
