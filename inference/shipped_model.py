"""The facial expression model that comes with this package: its folder, and what its answers mean.

A small network trained on FER2013's seven labels, made by `.ci/box.py`. It has its own licence, which is not MIT.
`engagement predict` uses it when no model is named; recipes start from it with the word `box`. Live predictions and the
page use only models that are named.
"""

from pathlib import Path

from ..processor.input_errors import ModelLoadError

SHIPPED = "box"  # in a recipe, as `start_from`
WHAT_IT_NAMES = "facial expression, not engagement or feeling"
_FOLDER = Path(__file__).parent / "weights"
_NEEDED = ("LICENSE", "config.json", "model.safetensors", "preprocessor_config.json")


def shipped_expression_model() -> Path:
    """The folder of the bundled expression model, for `Predictor.from_pretrained` or `start_from`.

    Raises:
        ModelLoadError: this installation lacks part of the model.
    """
    missing = [name for name in _NEEDED if not (_FOLDER / name).is_file()]
    if missing:
        raise ModelLoadError(
            f"The expression model of this package in {_FOLDER} lacks {missing[0]}; install the package again, or name "
            "another model."
        )
    return _FOLDER


def resolve_start(start_from: str | Path | None) -> str | Path | None:
    """`box` becomes the folder of the shipped model; write `./box` for a folder of that name.

    Raises:
        ModelLoadError: as `shipped_expression_model`.
    """
    return shipped_expression_model() if start_from == SHIPPED else start_from
