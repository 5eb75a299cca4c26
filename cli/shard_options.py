"""`--shard` and `--join`, which `prepare`, `predict` and `session` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..data.shards import Shard
    from ..processor.input_errors import RecipeError

ShardOption = Annotated[
    str | None,
    typer.Option(metavar="NUMBER/COUNT", help="Do this share alone, 3/500 for instance; --output holds all shards."),
]
JoinOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Instead: make one output of the finished shards in this folder.")
]


def parse_shard(shard: str | None, join: Path | None, output: Path | None, *inputs: object) -> "Shard | None":
    """The share asked for, if one was.

    Args:
        inputs: what the command is given to work on.

    Raises:
        RecipeError: no such share, --join beside inputs or a share, or no --output for one of the two.
    """
    from ..data.shards import Shard
    from ..processor.input_errors import RecipeError

    if join is not None and (shard is not None or any(inputs)):
        raise RecipeError("Expected --join and --output alone, got inputs too; shards know what they are of.")
    if output is None and (join is not None or shard is not None):
        raise RecipeError("Expected --output beside --shard or --join, got none; name a folder, or what is joined.")
    return None if shard is None else Shard.parse(shard)


def nothing_to_do() -> "RecipeError":
    """What to raise where there are neither inputs nor --join."""
    from ..processor.input_errors import RecipeError

    return RecipeError("Expected inputs to work on, or --join with a folder of shards, got neither; see --help.")
