"""The `engagement` command. It only reads options and prints; what it prints is computed in the other rooms.

Imports of ours are inside the commands: torch and transformers take seconds, and `engagement --help` must answer at
once. A module a group of commands, which import nothing at their top either.
"""

import sys

import typer

from . import cli_data, cli_training, cli_use

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


def main() -> None:
    """What a user got wrong is one line and exit code 2; only our own mistakes show a traceback."""
    try:
        app()
    except ValueError as error:
        from .processor.input_errors import EngagementInputError

        if not isinstance(error, EngagementInputError):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
