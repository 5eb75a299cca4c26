"""A model and the page in `app.py` → a folder that runs as a Hugging Face Space.

This package is not on PyPI, so the folder contains it as `engagement_recognition/`, with the model in `model/` (or its
Hub id), requirements and a README whose front matter tells the Hub how to run it. Pushing is left to the user: a public
page has the highest risks, and the README says so.
"""

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..data.atomic_files import require_new_folder, whole_folder, writing
from ..data.required_packages import OF_A_MODEL, installed_version, pip_lines, require_extra
from ..evaluation.results_file import RESULTS_FILE, read_results
from ..processor.input_errors import ModelLoadError
from .model_files import CARD_FILE, model_files, title_of
from .use_limits import LIMITS_AND_WHY, WHAT_IT_IS

PACKAGE = "engagement_recognition"
_SOURCE = Path(__file__).parents[1]
_CODE_SUFFIXES = (".py", ".html", ".md")
_NOT_CODE = ("README.md", "CHANGELOG.md")
# What the page imports, with the package's own versions. Gradio's is in the front matter.
_IMPORTED = (
    *OF_A_MODEL, "matplotlib", "opencv-python-headless", "packaging", "pydantic", "safetensors", "scikit-learn",
    "scipy",
)  # fmt: skip

_APP = '''\
"""The page of this Space, with the model in this folder or one on the Hub."""

from pathlib import Path

from engagement_recognition.live.page import build_app, serve

NAME, MODEL = {name!r}, {model}


def build():
    """The page, not yet served."""
    return build_app({{NAME: MODEL}}, is_local=False)


if __name__ == "__main__":
    serve({{NAME: MODEL}}, host="0.0.0.0")
'''

_README = """\
---
{front_matter}
---

# {title}

{what_it_is}

**What it must not be used for.**

{must_not}

**Before you make it public.** Visitors' pictures are sent to this server. Whoever runs the page is responsible for its
use; keep the Space private, or share it only with people who agreed.

The page is `app.py` of engagement-recognition; the model is {model}.{warnings}
"""


def export_space(model: Path | str, output: Path) -> list[Path]:
    """Write the Space; returns its files, sorted by path.

    Args:
        model: a folder written by train.py, which is copied, or a Hub id, which the Space will load.
        output: a new or empty folder.

    Raises:
        DataError: the output folder is not empty, or cannot be written.
        ModelLoadError: the model is neither a folder nor a Hub id.
        EngagementInputError: gradio, whose version the Space needs, is missing or too old.
    """
    require_extra("app", ("gradio",))
    require_new_folder(output, "the Space")
    is_folder = (Path(model) / "config.json").is_file()
    if not is_folder:
        _require_hub_id(str(model))
    name = title_of(Path(model)) if is_folder else str(model)
    place = 'str(Path(__file__).parent / "model")' if is_folder else repr(str(model))
    readme = _render_readme(name, Path(model) if is_folder else None)
    requirements = "".join(f"{line}\n" for line in pip_lines(_IMPORTED))
    with whole_folder(output) as folder, writing(output):
        if is_folder:
            _copy_model(Path(model), folder / "model")
        _copy_code(folder / PACKAGE)
        (folder / "README.md").write_text(readme, encoding="utf-8")
        (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
        (folder / "app.py").write_text(_APP.format(name=name, model=place), encoding="utf-8")
    return sorted(path for path in output.rglob("*") if path.is_file())


def _require_hub_id(model: str) -> None:
    """Check the id without asking the Hub: with a mistyped folder the Space would never start."""
    expected = "Expected a model's folder with a config.json, or a Hub id (org/name)"
    if Path(model).exists():
        raise ModelLoadError(f"{expected}, but {model} has no config.json; name a model's folder.")
    organisation, slash, _ = model.partition("/")
    try:
        validate_repo_id(model)
        is_id = (
            bool(slash) and not Path(organisation).is_dir()
        )  # a local folder is meant, not an organisation of that name
    except HFValidationError:
        is_id = False
    if not is_id:
        raise ModelLoadError(f"{expected}, but there is no such folder as {model}; check the path.")


def _render_readme(name: str, folder: Path | None) -> str:
    """The README for a model copied from `folder` or, for None, on the Hub under its name."""
    card = f"model/{CARD_FILE}" if folder else f"https://huggingface.co/{name}"
    has_card = folder is None or (folder / CARD_FILE).is_file()
    model = f"[{name}]({card}), whose card says what was measured" if has_card else f"`{name}`, which has no card"
    warnings = read_results(folder).warnings() if folder and (folder / RESULTS_FILE).is_file() else []
    title = "Apparent engagement from face video"
    front_matter = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=installed_version("gradio"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="app.py",
        license="mit",
        models=None if folder else [name],
        pinned=False,
    )
    return _README.format(
        front_matter=front_matter.to_yaml(),
        title=title,
        model=model,
        warnings="".join(f"\n\n**Take care: {warning}.**" for warning in warnings),
        what_it_is=WHAT_IT_IS,
        must_not=LIMITS_AND_WHY,
    )


def _copy_model(folder: Path, target: Path) -> None:
    """Copy the model without its code, which is in the package, and without files such as each clip's predictions."""
    target.mkdir()
    card = folder / CARD_FILE
    for path in [*model_files(folder), *([card] if card.is_file() else [])]:
        if path.suffix != ".py":
            shutil.copyfile(path, target / path.name)


def _copy_code(target: Path) -> None:
    for folder in _packages(_SOURCE):
        place = target / folder.relative_to(_SOURCE)
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.suffix in _CODE_SUFFIXES and path.name not in _NOT_CODE:
                shutil.copyfile(path, place / path.name)


def _packages(folder: Path) -> Iterator[Path]:
    """A package and its subpackages; tests, documents and other folders of a checkout have no __init__.py."""
    yield folder
    for init in sorted(folder.glob("*/__init__.py")):
        yield from _packages(init.parent)
