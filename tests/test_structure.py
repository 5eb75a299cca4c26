"""The house keeps its shape: who may import whom, what may be copied to the Hub, and nothing too long or unsaid."""

import ast
import sys
from pathlib import Path

import pytest

import engagement_recognition

ROOT = Path(engagement_recognition.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path for folder in (".", "data", "processor")
           for path in sorted((ROOT / folder).glob("*.py"))}  # fmt: skip
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
TESTS = {path.name: path for path in sorted((ROOT / "tests").glob("*.py"))}

COMMANDS = ("cli_data.py", "cli_training.py", "cli_use.py")
# Rooms from the top down: a module imports from its own floor or from below.
FLOORS = {
    **dict.fromkeys(("cli.py", *COMMANDS, "app.py", "app_actions.py", "app_pages.py", "space.py", "shortcut.py"), 0),
    **dict.fromkeys(("study.py", "train.py", "explain.py", "live.py", "benchmark.py", "report.py", "timeline.py"), 1),
    **dict.fromkeys(
        ("study_table.py", "model_focus.py", "card.py", "face_focus.py", "explanation_figures.py", "live_sources.py"), 1
    ),
    **dict.fromkeys(("live_tracking.py", "live_drawing.py", "live_outputs.py", "exports.py", "handler.py"), 1),
    **dict.fromkeys(("live_signals.py", "environment.py"), 1),
    **dict.fromkeys(("predict.py", "publish.py", "evaluation.py", "stage_data.py", "trainer.py", "figures.py"), 1),
    **dict.fromkeys(("model_evaluation.py", "comparison.py", "shortcut_figure.py", "stock_card.py"), 1),
    **dict.fromkeys(("run_arguments.py", "metrics.py", "checkpoints.py", "losses.py"), 2),
    **dict.fromkeys(("engagement_metric.py", "bootstrap.py", "calibration.py", "results_file.py"), 2),
    **dict.fromkeys(("output_places.py", "model_files.py", "measured_data.py", "required_packages.py"), 2),
    "processor": 3,
    **dict.fromkeys(("modeling_engagement.py", "nezami_encoders.py"), 3),
    "configuration_engagement.py": 4,
}
DATA_FLOOR = 2
REGISTRATION = {"__init__.py", "auto_classes.py"}  # name every class, and import it only when it is first used
PROCESSOR = [name for name in MODULES if name.startswith("processor/") and not name.endswith("__init__.py")]
SHIPPED = ["configuration_engagement.py", "modeling_engagement.py", "nezami_encoders.py", *PROCESSOR]
SHIPPED_MAY_USE = {
    "torch", "torchvision", "transformers", "timm", "av", "numpy", "PIL", "facenet_pytorch", "huggingface_hub",
    "packaging",
}  # fmt: skip
STANDARD = set(sys.stdlib_module_names)


def floor_of(module: str) -> int:
    room = module.partition("/")[0]
    return DATA_FLOOR if room == "data" else FLOORS[room]


def ours_imported_by(module: str) -> set[str]:
    """Our modules that a module imports, at its top or inside a function, by their path from the root."""
    package = module.split("/")[:-1]
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {"/".join(parts[1:]) for parts in names if parts[0] == "engagement_recognition"}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module or "").split(".")] if node.module else list(base)
            if not node.level and parts[:1] != ["engagement_recognition"]:
                continue
            parts = parts if node.level else parts[1:]
            found |= {"/".join(parts)} if parts else {alias.name for alias in node.names}
    return {f"{name}.py" for name in found if f"{name}.py" in MODULES}


def outsiders_imported_by(module: str) -> set[str]:
    """Packages beyond Python's own and ours."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - STANDARD - {"engagement_recognition"}


def test_the_reader_of_imports_sees_them():
    # The rules below say nothing if it does not.
    assert {"data/sources.py", "trainer.py", "publish.py"} <= ours_imported_by("stage_data.py") | ours_imported_by(
        "train.py"
    )
    assert {"processor/input_errors.py", "data/schema.py"} <= ours_imported_by("data/daisee.py")
    assert "predict.py" in ours_imported_by("cli_use.py")  # inside a function
    assert {"torch", "timm"} <= outsiders_imported_by("modeling_engagement.py")


@pytest.mark.parametrize("module", [name for name in MODULES if name not in REGISTRATION])
def test_imports_go_downwards(module: str):
    upwards = {name for name in ours_imported_by(module) - REGISTRATION if floor_of(name) < floor_of(module)}
    assert not upwards, f"{module} stands on floor {floor_of(module)}"


@pytest.mark.parametrize("module", ["data/schema.py", "configuration_engagement.py", "processor/input_errors.py"])
def test_what_all_stand_on_imports_nothing_of_ours(module: str):
    assert ours_imported_by(module) == set()


def test_the_top_is_imported_by_nobody():
    importers = {name: ours_imported_by(name) for name in MODULES}
    assert [name for name, imported in importers.items() if "cli.py" in imported] == []
    assert {name for name, imported in importers.items() if imported & {*COMMANDS, "app.py"}} <= {"cli.py", *COMMANDS}
    assert {name for name, imported in importers.items() if "train.py" in imported} == {
        "cli_training.py",
        "study.py",
        "shortcut.py",
    }


def test_imports_have_no_circles():
    def reaches(start: str, module: str, seen: set[str]) -> bool:
        below = ours_imported_by(module) - REGISTRATION - seen
        return start in below or any(reaches(start, name, seen | below) for name in below)

    assert [name for name in MODULES if name not in REGISTRATION and reaches(name, name, set())] == []


@pytest.mark.parametrize("module", SHIPPED)
def test_shipped_files_import_siblings_by_name_and_few_others(module: str):
    # transformers copies them by base name into one flat folder, and reads lines with a regular expression.
    folder = module.rpartition("/")[0]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, f"line {node.lineno}"
            assert f"{folder}/{node.module}.py".lstrip("/") in MODULES, f"line {node.lineno}"
    assert outsiders_imported_by(module) <= SHIPPED_MAY_USE
    assert "engagement_recognition" not in {
        (getattr(node, "module", "") or "").partition(".")[0]
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom) and not node.level
    }


def test_shipped_files_have_names_of_their_own():
    names = [Path(module).name for module in SHIPPED]
    assert len(names) == len(set(names)) > 10


def test_the_root_imports_nothing_heavy():
    # `engagement --help` imports both.
    assert outsiders_imported_by("__init__.py") == set()
    for name in ("cli.py", *COMMANDS):
        at_the_top = [node for node in TREES[name].body if isinstance(node, ast.ImportFrom) and node.level]
        imported = {f"{alias.name}.py" for node in at_the_top for alias in node.names}
        assert imported == (set(COMMANDS) if name == "cli.py" else set())


@pytest.mark.parametrize("path", [*MODULES.values(), *TESTS.values()], ids=[*MODULES, *TESTS])
def test_no_file_is_longer_than_400_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", [name for name in MODULES if MODULES[name].stat().st_size])
def test_every_module_says_what_it_is(module: str):
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_says_what_it_does(module: str):
    silent = [node.name for node in TREES[module].body if is_public(node) and not ast.get_docstring(node)]
    assert not silent


def is_public(node: ast.AST) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_")
