"""What is handed from module to module has names and types, and `Any` stands only where somebody says why."""

import re

import pytest
from open_signatures import open_signatures, package_sources, unexplained_any
from places import ROOT, setup_cfg

SOURCES = package_sources(ROOT)


def test_no_function_that_others_call_hands_on_a_dictionary_of_anything():
    found = open_signatures(SOURCES)
    assert not found, "\n".join(["give what these take and return names and types:", *found])


def test_any_is_rare_and_says_why():
    count, silent = unexplained_any(SOURCES)
    assert not silent, "\n".join(["say in a comment beside or above why it is Any:", *silent])
    assert count <= 27  # most are arguments that are handed on to transformers


def test_checkers_of_other_projects_read_our_types():
    assert "py.typed" in setup_cfg()["options.package_data"]["engagement_recognition"].split()
    assert (ROOT / "py.typed").is_file()


# --- The reader of sources, without which the tests above say nothing

OPEN = {
    "returned": "def f() -> dict[str, object]: ...",
    "taken": "from typing import Any\ndef f(rows: Mapping[str, Any]): ...",
    "many": "def f(*rows: dict[str, object]): ...",
    "bare": "def f() -> dict: ...",
    "under another name": "from typing import Any as Whatever\ndef f() -> dict[str, Whatever]: ...",
    "of anything or nothing": "def f() -> dict[str, object | None]: ...",
    "in a text": "def f() -> 'dict[str, object]': ...",
    "in a callback": "def f(write: Callable[[dict[str, object]], None]): ...",
    "by an alias of an alias": "Value = object\nRow = dict[str, Value]\ndef f(row: Row): ...",
    "by a declared alias": "Row: TypeAlias = 'dict[str, object]'\ndef f(row: Row): ...",
    "by an alias of JsonValue": "from pydantic import JsonValue\nContent = JsonValue\ndef f(content: Content): ...",
    "in a property": "class C:\n    @property\n    def f(self) -> dict[str, object]: ...",
    "in a class of a class": "class C:\n    class D:\n        def f(self, row: dict[str, object]): ...",
}
CLOSED = {
    "typed": "def f(row: dict[str, float], more: Mapping[str, list[int]]) -> dict[str, Row] | None: ...",
    "an object": "def f(value: object) -> Any: ...",
    "callbacks of anything": "def f() -> dict[str, Callable[[object], str]]: ...",
    "method of a private class": "class _C:\n    def f(self) -> dict[str, object]: ...",
    "function in a function": "def f():\n    def g() -> dict[str, object]: ...",
    "inside": "def f() -> int:\n    row: dict[str, object] = {}\n    return len(row)",
    "a word": "def f(kind: Literal['dict', 'object']): ...",
    "an alias of itself": "Row = list['Row']\ndef f() -> Row: ...",
}


@pytest.mark.parametrize("source", OPEN.values(), ids=OPEN)
def test_a_dictionary_of_anything_is_found(source: str):
    (found,) = open_signatures({"evaluation/rows.py": source})
    last_line = len(source.splitlines())
    assert re.fullmatch(rf"evaluation/rows\.py:{last_line}: (C\.|C\.D\.)?f", found)


@pytest.mark.parametrize("source", CLOSED.values(), ids=CLOSED)
def test_what_has_types_or_is_nobody_else_s_is_not_found(source: str):
    assert open_signatures({"evaluation/rows.py": source}) == []


@pytest.mark.parametrize(
    ("importing", "annotation"),
    [
        ("from ..data.rows import Row as Line", "list[Line]"),
        ("from ..data import rows", "rows.Row"),
        ("from ..data import Row", "Row"),
    ],
)
def test_an_alias_is_followed_into_the_module_it_comes_from(importing: str, annotation: str):
    sources = {
        "data/__init__.py": "from .rows import Row",
        "data/rows.py": "Value = object\nRow = dict[str, Value]",
        "evaluation/use.py": f"{importing}\nValue = int\ndef f() -> {annotation}: ...",
    }
    assert open_signatures(sources) == ["evaluation/use.py:3: f"]
    assert open_signatures({**sources, "data/rows.py": "Row = dict[str, int]"}) == []


def test_a_private_function_that_another_module_imports_is_not_private():
    rows = "def _f() -> dict[str, object]: ...\ndef _g() -> dict[str, object]: ..."
    sources = {"rows.py": rows, "data/use.py": "from ..rows import _g"}
    assert open_signatures(sources) == ["rows.py:2: _g"]


@pytest.mark.parametrize(
    ("source", "count", "silent"),
    [
        ("from typing import (\n    Any,\n)\n", 0, []),
        ("# a library's\nx: dict[Any, Any] = {}\n", 2, []),
        ("# a library's\n\nx: Any = 1\n", 1, ["a.py:3"]),
        ("x: Any = 1  # type: ignore[misc]\n", 1, ["a.py:1"]),
        ("x: Any = 1  # type: ignore[misc] # their stubs are wrong\n", 1, []),
        ("x = 'Any' # Any\n", 0, []),
    ],
)
def test_any_is_counted_outside_of_imports_and_needs_a_reason(source: str, count: int, silent: list[str]):
    assert unexplained_any({"a.py": source}) == (count, silent)
