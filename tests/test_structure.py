"""The house keeps its shape: what may be copied to the Hub, what the wheel holds, and nothing too long."""

import ast
import sys
from pathlib import Path

import pytest
from open_signatures import package_sources
from places import ROOT, setup_cfg
from shipped_files import SHIPPED

MODULES = package_sources(ROOT)
TREES = {name: ast.parse(source) for name, source in MODULES.items()}
OPTIONS = ("placement_options", "shard_options")  # of commands, which their modules import at the top
COMMANDS = ("data", "export", "predict", "session", "training", "use")
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
    folders = {name.rpartition("/")[0].replace("/", ".") for name in MODULES} - {""}
    named = setup_cfg()["options"]["packages"].split()
    assert named == ["engagement_recognition", *sorted(f"engagement_recognition.{name}" for name in folders)]


def test_no_file_is_longer_than_400_lines():
    tests = {str(path): path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    assert [name for name, source in (MODULES | tests).items() if len(source.splitlines()) > 400] == []
