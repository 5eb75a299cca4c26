"""`--shard` and `--join`, which `prepare`, `predict` and `session` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..data.shards import Shard
    from ..processor.input_errors import RecipeError

ShardOption = Annotated[
    str | None,
    typer.Option(metavar="NUMBER/COUNT", help="Do only this share, such as 3/500; --output contains all shards."),
]
JoinOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Instead of inputs: join the finished shards in this folder.")
]


def parse_shard(shard: str | None, join: Path | None, output: Path | None, *inputs: object) -> "Shard | None":
    """The requested share, or None.

    Args:
        inputs: what the command is given to work on.

    Raises:
        RecipeError: no such share, --join together with inputs or a share, or either of them without --output.
    """
    from ..data.shards import Shard
    from ..processor.input_errors import RecipeError

    if join is not None and (shard is not None or any(inputs)):
        raise RecipeError("--join takes no inputs: shards record what they contain. Pass only --join and --output.")
    if output is None and (join is not None or shard is not None):
        raise RecipeError("--shard and --join need --output: a folder for all shards, or the joined result.")
    return None if shard is None else Shard.parse(shard)


def nothing_to_do() -> "RecipeError":
    """The error to raise if there are neither complete inputs nor --join."""
    from ..processor.input_errors import RecipeError

    return RecipeError("Inputs are missing or incomplete; see --help, or pass --join with a folder of shards.")
