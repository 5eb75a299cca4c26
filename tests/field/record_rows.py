"""Results that were edited by hand, and places where nothing can be written."""

import errno
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from bench import Bench, Said, write_film
from broken_models import Change, edited, faces_model, removed, replaced
from rows import Comes, Refused, Row

_RESULTS = "results.json"
_NAN = float("nan")


def _deep(*keys: str | int, value: object) -> Change:
    """Another value where the keys lead; ... takes it away."""

    def change(model: Path) -> None:
        content = json.loads((model / _RESULTS).read_text(encoding="utf-8"))
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        if value is ...:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value
        (model / _RESULTS).write_text(json.dumps(content), encoding="utf-8")

    return change


_OF_TEST = ("measurements", 0, "evaluation")
_EDITED: dict[str, tuple[Change, str]] = {
    "a score as text": (_deep(*_OF_TEST, "scores", "macro_f1", value="0.9"), "macro_f1"),
    "a score of nan": (_deep(*_OF_TEST, "scores", "macro_f1", value=_NAN), "macro_f1"),
    "a huge score": (_deep(*_OF_TEST, "scores", "macro_f1", value=1e308), "macro_f1"),
    "a list for scores": (_deep(*_OF_TEST, "scores", value=[1]), "scores"),
    "a score that is gone": (_deep(*_OF_TEST, "scores", "macro_f1", value=...), "macro_f1"),
    "counts below zero": (_deep(*_OF_TEST, "scores", "confusion_matrix", value=[[-1] * 7] * 7), "confusion_matrix"),
    "a seed as text": (edited(_RESULTS, seed="1"), "seed"),
    "another version": (edited(_RESULTS, version=99), "version"),
    "text in UTF-16": (replaced(_RESULTS, "{}".encode("utf-16")), "read"),
    "nesting without end": (replaced(_RESULTS, "[" * 100_000), "JSON"),
    "no results": (removed(_RESULTS), "read"),
}
_READERS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "report": lambda model: ("report", model, "--output", model.parent / "out"),
    "publish": lambda model: ("publish", model, "--repo", "a/b", "--dry-run", "--output", model.parent / "out"),
}


def _changed(folder: Path, change: Change) -> Path:
    return faces_model(folder, change)


def _no_room(arguments: Callable[[Path, Path], tuple[object, ...]], bench: Bench, film: Path) -> Said:
    """A command on a disk that is full: no file takes a byte, no folder can be made."""

    def full(path: Path, *given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_bytes", "write_text", "mkdir", "touch"):
            patch.setattr(Path, name, full)
        return bench.command(*arguments(film, bench.engagement_folder))


_WRITERS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "explain": lambda film, model: ("explain", film, "--model", model, "--output", film.parent / "new" / "why.png"),
    "session": lambda film, model: ("session", film, "--model", model, "--output", film.parent / "new"),
    "export": lambda film, model: ("export", model, "--to", "space", "--output", film.parent / "new"),
    "predict": lambda film, model: ("predict", film, "--model", model, "--output", film.parent / "new" / "a.csv"),
}


def _private(bench: Bench, report_to: str, private: str | None = None) -> bool | None:
    """What a training hands to trackio as `private`; None makes a public Space."""
    from engagement_recognition.training.arguments import plan_stages, read_recipe
    from engagement_recognition.training.command_line import parse_command_line

    words = ["demo", "--report_to", report_to, *(["--hub_private_repo", private] if private else [])]
    recipe, options = parse_command_line(words)
    assert recipe is not None
    return plan_stages(read_recipe(recipe), options)[0].training.hub_private_repo


ROWS = [
    *(
        Row(
            f"results, {name}, {command}",
            partial(_changed, change=change),
            lambda bench, model, arguments=arguments: bench.command(*arguments(model)),
            Refused((_RESULTS, word)),
            kind=33,
        )
        for name, (change, word) in _EDITED.items()
        for command, arguments in _READERS.items()
    ),
    *(
        Row(
            f"a full disk, {command}",
            lambda folder: write_film(folder / "a.mp4"),
            partial(_no_room, arguments),
            Refused(("new", "No space left")),
            kind=32,
        )
        for command, arguments in _WRITERS.items()
    ),
    *(
        Row(
            f"what {' '.join(given)} makes",
            lambda folder, given=given: given,
            lambda bench, given: (_private(bench, *given),),
            Comes(that=lambda found, private=private: found == (private,)),
            kind=44,
        )
        for given, private in ((("trackio",), True), (("trackio", "false"), False), (("none",), None))
    ),
]
