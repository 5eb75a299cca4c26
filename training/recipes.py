"""The recipes that come with this package, by name: `cnn_lstm/resnet18_lstm_subset` is recipes/cnn_lstm/....yaml."""

from difflib import get_close_matches
from pathlib import Path

from ..processor.input_errors import RecipeError

RECIPES = Path(__file__).parents[1] / "recipes"
_NO_RECIPES = ("protocol", "our_way", "study")  # options that rows share, and published scores


def recipe_names() -> list[str]:
    """The recipes of this package, sorted by folder; those outside any folder come first."""
    paths = [path.relative_to(RECIPES) for path in RECIPES.rglob("*.yaml") if path.stem not in _NO_RECIPES]
    return [path.with_suffix("").as_posix() for path in sorted(paths, key=lambda path: (path.parent.parts, path.name))]


def recipe_header(name: str) -> str:
    """What a recipe trains: the comment in its first line."""
    with (RECIPES / f"{name}.yaml").open(encoding="utf-8") as lines:
        return next(lines).removeprefix("#").strip()


def find_recipe(given: str) -> Path:
    """The file with that path, or else our recipe with that name.

    Raises:
        RecipeError: there is neither; the message suggests similar names.
    """
    path, names = Path(given), recipe_names()
    if path.exists() and not path.is_dir():  # no is_file: a recipe may come through a pipe
        return path
    if given in names:
        return RECIPES / f"{given}.yaml"
    near = get_close_matches(given.removeprefix("recipes/").removesuffix(".yaml"), names, 3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise RecipeError(f"There is no recipe file or recipe named {given!r}; {hint}`engagement recipes` lists all.")
