"""Which files of a folder belong to a model: only these are copied and published.

File names are those of transformers and this package; code files are those named by the configs, and their imports.
"""

import json
import re
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

from ..answer_rule import ANSWER_RULE_FILE
from ..evaluation.figures import FIGURE_NAME, FIGURES_FOLDER
from ..evaluation.results_file import RESULTS_FILE
from ..processor.input_errors import ModelLoadError

HANDLER_FILE, REQUIREMENTS_FILE = "handler.py", "requirements.txt"
ENDPOINT_FILES = (HANDLER_FILE, REQUIREMENTS_FILE)
CARD_FILE = "README.md"
LICENSE_FILE = "LICENSE"  # of the weights, if the initial weights have one
EXAMPLE_PICTURE = "examples/drawn_face.png"
_CONFIGS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_WEIGHTS, _SHARDS = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_ROOT_CODE = ("answer_rule.py", "configuration_engagement.py", "modeling_engagement.py", "face_encoders.py")
_CODE = (*_ROOT_CODE, *(path.name for path in (Path(__file__).parents[1] / "processor").glob("[!_]*.py")))
_BESIDE = (RESULTS_FILE, ANSWER_RULE_FILE, LICENSE_FILE)  # optional
_NAMES = {*_CONFIGS, _WEIGHTS, _SHARDS, *_CODE, *ENDPOINT_FILES, *_BESIDE, EXAMPLE_PICTURE}


def model_files(folder: Path) -> list[Path]:
    """Configs, weights, the code that configs name and, if they exist, licence, results and answer rule.

    Raises:
        ModelLoadError: a file named by another one is missing.
    """
    configs = [folder / name for name in _CONFIGS if (folder / name).is_file()]
    weights = {_WEIGHTS}
    if not (folder / _WEIGHTS).is_file():
        weights = {_SHARDS, *(Path(path).name for path in _read_names(folder / _SHARDS, "weight_map"))}
    files = {*configs, *(folder / name for name in weights)}
    for module in {name for path in configs for name in _code_of(path)}:
        files |= {module, *_imported_by(module)}
    missing = sorted(path.name for path in files if not path.is_file())
    if missing:
        raise ModelLoadError(f"{folder} has no {missing[0]}; train or import the model again.")
    return sorted(files | {folder / name for name in _BESIDE if (folder / name).is_file()})


def title_of(folder: Path) -> str:
    """The card's title or, without a card, the folder's name."""
    card = folder / CARD_FILE
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    return next((line[2:].strip() for line in lines if line.startswith("# ")), folder.resolve().name)


def _code_of(config: Path) -> list[Path]:
    """The modules of the config's classes, which `auto_map` names as module.Class or repository--module.Class."""
    classes = _read_names(config, "auto_map")
    return [config.parent / f"{name.rpartition('--')[2].partition('.')[0]}.py" for name in classes]


def _imported_by(module: Path) -> list[Path]:
    try:
        return [Path(path) for path in get_relative_import_files(module)]
    except OSError as error:
        missing = Path(error.filename).name
        raise ModelLoadError(f"{module.parent} has no {missing}; train or import the model again.") from error


def _read_names(path: Path, key: str) -> list[str]:
    """The names of files or classes under `key` in a JSON file; empty without such a key."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read as JSON ({error}); train or import the model again.") from error
    return list(content.get(key, {}).values()) if isinstance(content, dict) else []


def is_published_name(name: str) -> bool:
    """Whether a published model may contain a file of this name, a path in its repository; except the card."""
    folder, _, file = name.rpartition("/")
    if folder == FIGURES_FOLDER:
        return bool(FIGURE_NAME.fullmatch(file))
    return name in _NAMES or bool(_SHARD.fullmatch(name))


def first_stranger(folder: Path) -> Path | None:
    """A path in a folder that publishing did not write, or one that is missing; None: it is a published model."""
    try:
        known = {*model_files(folder), *(folder / name for name in (RESULTS_FILE, CARD_FILE, *ENDPOINT_FILES))}
    except ModelLoadError:
        return min(folder.iterdir())
    missing = sorted(path for path in known if not path.is_file())
    figures, example = folder / FIGURES_FOLDER, folder / EXAMPLE_PICTURE
    known |= {figures, example, example.parent}
    known |= {path for path in figures.glob("*") if FIGURE_NAME.fullmatch(path.name)}
    return next(iter([*missing, *sorted(path for path in folder.rglob("*") if path not in known)]), None)
