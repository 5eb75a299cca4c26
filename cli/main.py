"""The `engagement` command. It only reads options and prints; what it prints is computed in the other rooms.

Imports of ours are inside the commands: torch and transformers take seconds, and `engagement --help` must answer at
once. A module a group of commands, which import nothing at their top either.
"""

import errno
import io
import math
import os
import sys
from collections.abc import Callable
from functools import wraps

import typer

from . import data as cli_data
from . import export as cli_export
from . import predict as cli_predict
from . import session as cli_session
from . import training as cli_training
from . import use as cli_use

_USE = "Use a model"
_STOPPED = 130  # as shells say it of SIGINT
# What a command says of Ctrl-C that does not say it itself.
_NOTHING_KEPT = "nothing of this is kept; type the same command to begin anew"
_KEPT = {
    "prepare": "what is prepared lies in the output folder; type the same command to go on",
    "reproduce": "finished trainings and the last checkpoint are kept; type the same command to go on",
    "tune": "finished trials and the last checkpoint are kept; type the same command to go on",
}


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """Ctrl-C ends the command with one line: what is kept, and what to type."""

    @wraps(command)
    def run(*arguments: object, **options: object) -> None:
        _require_finite(options)
        try:
            command(*arguments, **options)
        except KeyboardInterrupt as stop:
            typer.echo(f"stopped: {stop if stop.args else _KEPT.get(command.__name__, _NOTHING_KEPT)}", err=True)
            raise typer.Exit(_STOPPED) from None

    return run


def _require_finite(options: dict[str, object]) -> None:
    """Bounds of an option let nan through, which is neither below nor above them."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            from ..processor.input_errors import RecipeError

            raise RecipeError(f"Expected a number for --{name.replace('_', '-')}, got {value}; correct it.")


def _require_words(arguments: list[str]) -> None:
    """An empty word, as of a shell's variable that is not set, would mean this folder where a path is expected."""
    for before, word in zip(["the command", *arguments], arguments, strict=False):
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            from ..processor.input_errors import RecipeError

            found = f"nothing after {before}" if not word.strip() else f"{word} without one"
            raise RecipeError(f"Expected a value, got {found}; is a variable of the shell not set?")


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recognise apparent student engagement from face video.",
)
_GROUPS = (
    (cli_predict, _USE),
    (cli_session, _USE),
    (cli_use, _USE),
    (cli_export, _USE),
    (cli_training, "Train and measure"),
    (cli_data, "Data"),
)
for group, title in _GROUPS:
    for command in group.app.registered_commands:
        command.rich_help_panel = title
        if command.callback is not None:
            command.callback = _stoppable(command.callback)
    app.add_typer(group.app)


def main() -> None:
    """What a user got wrong is one line and exit code 2; only our own mistakes show a traceback."""
    # A name that is not text, or a terminal without our characters, is no reason to stop.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # `env` says it, among all else; the others may run without torch, and look where they find that they do not.
        if sys.argv[1:2] not in (["env"], ["predict"], ["serve"]):
            from ..data.required_packages import require_packages

            require_packages()
        _require_words(sys.argv[1:])
        app()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        # Of standard output, the one file here without a name: a full disk, or a terminal that is gone. Python would
        # try what is left once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = f"Expected to print the results, could not ({error.strerror})"
        typer.echo(f"error: {problem}; make room where standard output goes, or send it elsewhere.", err=True)
        sys.exit(2)
    except ValueError as error:
        from ..processor.input_errors import EngagementInputError, printable

        if not isinstance(error, EngagementInputError):
            raise
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(2)
