"""Every option of every command, with values that make no sense: one line, whatever they are."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from bench import Bench, Said, command_tree, write_film
from rows import Comes, Refused, Row

_COMMANDS = command_tree().commands
_VALUES = ("0", "-1", "nan", "1e9", "", "99999999999999999999")
# What stands for a required word, so that a command comes as far as it can without anything there.
_WORDS = {"kind": "images", "to": "stock", "repo": "org/name", "study": "beit", "output": "none.mp4/out"}
# What keeps a command short that needs nothing to be there.
_SHORT = {
    "predict": ("--model", "none"),
    "benchmark": ("--data", "none"),
    "live": ("--source", "none.mp4", "--no-window", "--json"),
    "compare": ("none",),
}


def _words(name: str) -> list[str]:
    words = []
    for parameter in _COMMANDS[name].params:
        if parameter.required:
            option = [parameter.opts[0]] if parameter.opts[0].startswith("-") else []
            words += [*option, _WORDS.get(parameter.name, "none")]
    return words


def _walk(bench: Bench, folder: Path, name: str) -> list[Said]:
    """The answers that are not one line."""
    (folder / "none.mp4").write_bytes(b"no film")
    wrong = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for parameter in _COMMANDS[name].params:
            takes_value = parameter.opts[0].startswith("--") and parameter.bare_type is not bool
            begins = name in ("draw", "shortcut") and parameter.name == "output"  # with any name, and takes minutes
            for value in _VALUES if takes_value and not begins else ():
                try:
                    said = bench.command(name, *_words(name), *_SHORT.get(name, ()), parameter.opts[0], value)
                except Exception as error:
                    said = Said(-1, "", f"Traceback: {type(error).__name__}: {error}")
                if not (said.code == 0 or _is_line(said)):
                    wrong.append((parameter.opts[0], value, said))
    return wrong


def _is_line(said: Said) -> bool:
    lines = [line for line in said.err.splitlines() if line.startswith(("error:", "refused:", "failed:", "Usage:"))]
    return said.code in (1, 2) and "Traceback" not in said.text and bool(lines)


def _in_folder(folder: Path) -> Path:
    return folder


def _film(*arguments: object) -> Callable[[Bench, Path], Said]:
    """`predict` of a film, with the clip model."""
    return lambda bench, film: bench.command("predict", film, "--model", bench.engagement_folder, *arguments)


ROWS = [
    *(
        Row(f"options of {name}", _in_folder, partial(_walk, name=name), Comes(that=lambda wrong: wrong == []), kind=34)
        for name in _COMMANDS
        if _COMMANDS[name].params
    ),
    *(
        Row(f"predict {' '.join(words)}", lambda folder: write_film(folder / "a.mp4"), _film(*words), refused, kind=34)
        for words, refused in (
            (("--timeline", "inf"), Refused(("--timeline", "inf"))),
            (("--device", "gpu7"), Refused(("gpu7", "cpu"))),
            (("--output", ""), Refused(("--output", "value"))),
            (("--output=",), Refused(("--output=", "value"))),
        )
    ),
    Row(
        "an explanation over its film",
        lambda folder: write_film(folder / "a.mp4"),
        lambda bench, film: bench.command("explain", film, "--model", bench.engagement_folder, "--output", film),
        Refused(("a.mp4",)),
        kind=34,
    ),
    Row(
        "a film of a film, over it",
        lambda folder: write_film(folder / "a.mp4"),
        lambda bench, film: bench.command(
            "live", "--model", bench.engagement_folder, "--source", film, "--no-window", "--output", film
        ),
        Refused(("a.mp4",)),
        kind=34,
    ),
]
