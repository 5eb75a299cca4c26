"""The `engagement` command. It only reads options and prints; what it prints is computed in the other folders.

Our own imports are inside the commands: torch and transformers take seconds, and `engagement --help` must answer at
once. Each group of commands is a module that imports nothing slow at its top either.
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
_STOPPED = 130  # a shell's exit code for SIGINT
# Printed on Ctrl-C by commands without a message of their own.
_NOTHING_KEPT = "nothing was saved; type the same command to start again"
_KEPT = {
    "prepare": "finished files are in the output folder; type the same command to go on",
    "reproduce": "finished trainings and the last checkpoint are saved; type the same command to go on",
    "tune": "finished trials and the last checkpoint are saved; type the same command to go on",
}


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """Ctrl-C ends the command with one line: what was saved, and what to type."""

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
    """Refuse nan, which typer's bounds let through: it is neither below nor above them."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            from ..processor.input_errors import RecipeError

            raise RecipeError(f"--{name.replace('_', '-')} needs a finite number, got {value}.")


def _require_words(arguments: list[str]) -> None:
    """Refuse empty values, as an unset shell variable gives: as a path, one would mean the current folder."""
    for before, word in zip(["the command", *arguments], arguments, strict=False):
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            from ..processor.input_errors import RecipeError

            place = f"after {before}" if not word.strip() else f"in {word}"
            raise RecipeError(f"Expected a value {place}, got an empty one; is a shell variable not set?")


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
    """A user's mistake gives one line and exit code 2; only a bug shows a traceback."""
    # A file name that is not text, or a terminal that lacks our characters, must not stop a command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # `env` reports missing packages itself; predict and serve may run without torch, and check when they need it.
        if sys.argv[1:2] not in (["env"], ["predict"], ["serve"]):
            from ..data.required_packages import require_packages

            require_packages()
        _require_words(sys.argv[1:])
        app()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        # Standard output is the only file without a name here: its disk is full, or its terminal is closed. At exit
        # Python would try to write the rest again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = f"Could not print the results ({error.strerror})"
        typer.echo(f"error: {problem}; make room where standard output goes, or redirect it.", err=True)
        sys.exit(2)
    except ValueError as error:
        from ..processor.input_errors import EngagementInputError, printable

        if not isinstance(error, EngagementInputError):
            raise
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(2)
