"""A trained model's folder → a folder for the Hub.

It contains weights, config, processor, their code, measured results and a card made from them. It loads in a process
that has transformers, torch, timm, av and facenet-pytorch, but not this package. Only the model's own files are copied,
not, for instance, each clip's predictions, which contain the data set's ids; files for an endpoint are added. Results
that cannot be trusted are not published.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from ..data.atomic_files import unfinished_beside, whole_folder, writing
from ..data.drawn.faces import FacePose, draw_frame, draw_subject
from ..data.required_packages import OF_A_MODEL, pip_lines
from ..evaluation.figures import save_figures
from ..evaluation.results_file import read_results
from ..evaluation.results_schema import Doubt, Results
from ..inference.predictor import Predictor
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import DataError, EngagementInputError, LeakageError, ModelLoadError, RecipeError
from .card import license_title, takes_face_alone, write_card
from .model_files import (
    EXAMPLE_PICTURE,
    HANDLER_FILE,
    LICENSE_FILE,
    REQUIREMENTS_FILE,
    first_stranger,
    model_files,
)

_HANDLER = Path(__file__).parent / "endpoint" / HANDLER_FILE
_LICENSE = re.compile(r"[a-z0-9]+([.+-]+[a-z0-9]+)*\+*")


def assemble(
    run: Path, output: Path, repository: str, license_name: str | None = None, datasets: Sequence[str] = ()
) -> list[Path]:
    """Write the folder for the Hub, completely or not at all; an older one is replaced.

    Args:
        run: a measured model's folder.
        repository: its id on the Hub (org/name), for the card.
        license_name: the weights' licence in the Hub's spelling; None: see `card.choose_license`.
        datasets: Hub ids of the training data.

    Returns:
        The files, relative to `output`.

    Raises:
        RecipeError: the Hub does not accept an id or the licence, or the weights have their own licence.
        DataError: the output folder contains something else, is the model's own, or cannot be written.
        ModelLoadError: there is no model, or no measured results.
        LeakageError: the data's split failed its audit, has none, or the scores are of other data.
    """
    require_hub_names(repository, license_name, datasets)
    if license_name not in (None, "other") and (title := license_title(run)):
        raise RecipeError(
            f"The weights' licence is that in {run / LICENSE_FILE} ({title}), which comes from their initial weights, "
            f"not {license_name}; leave --license out."
        )
    results = read_results(run)
    _require_trust(run, results)
    _require_place(run, output)
    with whole_folder(output) as folder:
        predictor = Predictor.from_pretrained(str(run))
        with writing(output):
            for source in model_files(run):
                shutil.copyfile(source, folder / source.name)
            predictor.rule.save(folder)  # for older folders it is made from results
            shutil.copyfile(_HANDLER, folder / HANDLER_FILE)
            requirements = "".join(f"{line}\n" for line in pip_lines(OF_A_MODEL))
            (folder / REQUIREMENTS_FILE).write_text(requirements, encoding="utf-8")
            save_figures(folder, results)  # not copied: the folder may contain an unrelated picture of that name
            if not predictor.is_video_model:  # clip models read no pictures
                _save_example(predictor, folder / EXAMPLE_PICTURE)
            write_card(folder, predictor.model, predictor.processor, results, repository, license_name, datasets)
    return sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())


def _save_example(predictor: Predictor, path: Path) -> None:
    """Save a drawn person as example; for a model without face detection, only the face."""
    picture, processor = draw_frame(draw_subject(0), FacePose()), predictor.processor
    if isinstance(processor, EngagementImageProcessor) and takes_face_alone(predictor.model, processor):
        picture = processor.prepare_faces(picture).frames[0]
    path.parent.mkdir()
    Image.fromarray(picture).save(path)


def require_hub_names(repository: str, license_name: str | None = None, datasets: Sequence[str] = ()) -> None:
    """Raises RecipeError for an id that is not org/name, or a licence that the Hub does not accept."""
    try:
        for name in (repository, *datasets):
            validate_repo_id(name)
    except HFValidationError as error:
        raise RecipeError(f"{name!r} is not an id of the Hub; write it as org/name.") from error
    if "/" not in repository:
        raise RecipeError(f"A repository is org/name, got {repository!r}; put your name or the org before it.")
    if license_name is not None and not _LICENSE.fullmatch(license_name):
        raise RecipeError(
            f"The licence must have the Hub's spelling, such as mit, apache-2.0 or other, got {license_name!r}."
        )


def _require_place(run: Path, output: Path) -> None:
    """Raises DataError if writing the folder would replace anything but an earlier published folder."""
    with writing(output):
        places = [place.resolve() for place in (output, unfinished_beside(output))]
        if any(_is_within(place, run) or _is_within(run.resolve(), place) for place in places):
            raise DataError(f"The output {output} must be outside the model's own folder {run}; name another.")
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return
    other = output if not output.is_dir() else first_stranger(output)
    if other is not None:
        raise DataError(
            f"{output} is neither new nor only an earlier publication: it contains or lacks {other.name}; choose "
            "another folder."
        )


def _is_within(place: Path, folder: Path) -> bool:
    """Compares files, not names: two spellings may mean one folder."""
    return folder.exists() and any(above.exists() and above.samefile(folder) for above in (place, *place.parents))


_MEND = "run `engagement audit` on the data, repair the split, and train or evaluate again."
_REFUSALS: dict[Doubt, tuple[type[EngagementInputError], str]] = {
    "unmeasured": (
        ModelLoadError,
        "{run} has no scores on test; run `engagement evaluate {run} --data DATA`.",
    ),
    "other data": (
        LeakageError,
        "{run} was trained on other data ({trained}) than its scores were measured on ({measured}); run "
        "`engagement evaluate {run} --data DATA` with the training's data.",
    ),
    "unaudited": (LeakageError, f"The split behind {{run}} has no audit; {_MEND}"),
    "failed": (LeakageError, f"The split behind {{run}} failed its audit; {_MEND}"),
}


def _require_trust(run: Path, results: Results) -> None:
    """Raises ModelLoadError or LeakageError for results that a card must not repeat."""
    doubt, measured = results.doubt(), results.measured_on("test")
    if doubt:
        error, words = _REFUSALS[doubt]
        known = {"trained": results.data, "measured": measured and measured.data}
        raise error(words.format(run=run, **{name: data.fingerprint[:12] for name, data in known.items() if data}))
