"""The house keeps its shape: what may be copied to the Hub, what the wheel holds, and nothing too long or unsaid."""

import ast
import configparser
import sys
from pathlib import Path

import pytest

import engagement_recognition

ROOT = Path(engagement_recognition.__file__).parent


def packages(folder: Path) -> list[Path]:
    return [folder, *(path for init in sorted(folder.glob("*/__init__.py")) for path in packages(init.parent))]


FOLDERS = packages(ROOT)
MODULES = {path.relative_to(ROOT).as_posix(): path for folder in FOLDERS for path in sorted(folder.glob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
TESTS = {path.name: path for path in sorted((ROOT / "tests").rglob("*.py"))}
OPTIONS = ("placement_options", "shard_options")  # of commands, which their modules import at the top
COMMANDS = ("data", "export", "predict", "session", "training", "use")
PROCESSOR = [name for name in MODULES if name.startswith("processor/") and not name.endswith("__init__.py")]
SHIPPED = ["answer_rule.py", "configuration_engagement.py", "modeling_engagement.py", "face_encoders.py", *PROCESSOR]
SHIPPED_MAY_USE = {
    "torch", "torchvision", "transformers", "timm", "av", "numpy", "PIL", "facenet_pytorch", "huggingface_hub",
    "packaging", "onnxruntime",
}  # fmt: skip
STANDARD = set(sys.stdlib_module_names)


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
    assert {"torch", "transformers"} <= outsiders_imported_by("modeling_engagement.py")


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


def test_the_root_and_the_command_line_import_nothing_heavy():
    # `engagement --help` imports them.
    assert [node for node in TREES["__init__.py"].body if isinstance(node, ast.ImportFrom) and node.level] == []
    for name in ("main", *COMMANDS):
        at_the_top = [node for node in TREES[f"cli/{name}.py"].body if isinstance(node, ast.ImportFrom) and node.level]
        imported = {alias.name for node in at_the_top if node.module not in OPTIONS for alias in node.names}
        assert imported == (set(COMMANDS) if name == "main" else set())
    for name in OPTIONS:
        assert outsiders_imported_by(f"cli/{name}.py") == {"typer"}


def test_every_folder_of_code_is_in_the_wheel():
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    packages = {path.relative_to(ROOT).as_posix().replace("/", ".") for path in FOLDERS} - {"."}
    named = declared["options"]["packages"].split()
    assert named == ["engagement_recognition", *sorted(f"engagement_recognition.{name}" for name in packages)]


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
