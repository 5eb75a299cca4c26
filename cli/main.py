"""The `engagement` command. It only reads options and prints; what it prints is computed in the other rooms.

Imports of ours are inside the commands: torch and transformers take seconds, and `engagement --help` must answer at
once. A module a group of commands, which import nothing at their top either.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from . import data as cli_data
from . import training as cli_training
from . import use as cli_use

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recognise apparent student engagement from face video.",
)
for group, title in ((cli_use, "Use a model"), (cli_training, "Train and measure"), (cli_data, "Data")):
    for command in group.app.registered_commands:
        command.rich_help_panel = title
    app.add_typer(group.app)


class _StdoutError(OSError):
    """Nothing more can be printed: the disk that it goes to is full, or the terminal is gone."""


class _Stdout:
    """Standard output, whose errors can be told from those of any other file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _as_stdout_error():
            return self._stream.write(text)

    def flush(self) -> None:
        with _as_stdout_error():
            self._stream.flush()


@contextmanager
def _as_stdout_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _StdoutError(*error.args) from error


def main() -> None:
    """What a user got wrong is one line and exit code 2; only our own mistakes show a traceback."""
    if sys.stdout is not None:  # as it is where the shell closed it
        sys.stdout = _Stdout(sys.stdout)
    try:
        if sys.argv[1:2] != ["env"]:  # which says it, among all else
            from ..required_packages import require_packages

            require_packages()
        app()
    except _StdoutError as error:  # typer itself ends the program in silence where a pipe's reader has gone
        # Or Python would try what is left once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = f"Expected to print the results, could not ({error.strerror})"
        typer.echo(f"error: {problem}; make room where standard output goes, or send it elsewhere.", err=True)
        sys.exit(2)
    except ValueError as error:
        from ..processor.input_errors import EngagementInputError

        if not isinstance(error, EngagementInputError):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
