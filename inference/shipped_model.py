"""The facial expression model that comes with this package: the folder it lies in, and what its answers are.

A small net that learned FER2013's seven labels, made by `.ci/box.py`. It has a licence of its own, which is not MIT. It
is what `engagement predict` takes where no model is named; recipes start from it by the word `box`. Live predictions
and the page take no model but one that was asked for.
"""

from pathlib import Path

from ..processor.input_errors import ModelLoadError

SHIPPED = "box"  # in a recipe, as `start_from`
WHAT_IT_NAMES = "facial expression, not engagement or feeling"
_FOLDER = Path(__file__).parent / "weights"
_NEEDED = ("LICENSE", "config.json", "model.safetensors", "preprocessor_config.json")


def shipped_expression_model() -> Path:
    """Its folder, for `Predictor.from_pretrained` or `start_from`.

    Raises:
        ModelLoadError: this installation lacks a part of it.
    """
    missing = [name for name in _NEEDED if not (_FOLDER / name).is_file()]
    if missing:
        raise ModelLoadError(
            f"Expected the expression model of this package in {_FOLDER}, found no {missing[0]}; install the package "
            "again, or name another model."
        )
    return _FOLDER


def resolve_start(start_from: str | Path | None) -> str | Path | None:
    """`box` becomes the folder of the shipped model; a folder of that name here is `./box`.

    Raises:
        ModelLoadError: as `shipped_expression_model`.
    """
    return shipped_expression_model() if start_from == SHIPPED else start_from
