"""A trained model → one export folder, and from there to the Hub.

The folder holds weights, config, processor, the code both need, measured results and a card rendered from them. It
loads in a process that has transformers, torch, timm, av and facenet-pytorch, and not this package. What goes to the
Hub is a copy of what belongs to the model and nothing else that lies there, such as each clip's predictions, whose ids
are the data set's; with what an endpoint needs. Results that cannot be trusted are not published.
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
    """The exact folder that goes to the Hub, whole or not at all; an older one is replaced.

    Args:
        run: a measured model's folder.
        repository: its id on the Hub (org/name), for the card.
        license_name: of the weights, as the Hub spells it; None: see `card.choose_license`.
        datasets: their Hub ids, where the data is there.

    Returns:
        The files, relative to `output`.

    Raises:
        RecipeError: an id or a licence that the Hub does not take, or one for weights that have their own.
        DataError: the output folder holds something else, is the model's own, or cannot be written.
        ModelLoadError: no model, or no measured results.
        LeakageError: the data's split failed its audit, has none, or is not the data the scores were measured on.
    """
    require_hub_names(repository, license_name, datasets)
    if license_name not in (None, "other") and (title := license_title(run)):
        raise RecipeError(
            f"Expected no licence but that in {run / LICENSE_FILE} ({title}), which the weights brought from what they "
            f"started from, got {license_name}; leave --license out."
        )
    results = read_results(run)
    _require_trust(run, results)
    _require_place(run, output)
    with whole_folder(output) as folder:
        predictor = Predictor.from_pretrained(str(run))
        with writing(output):
            for source in model_files(run):
                shutil.copyfile(source, folder / source.name)
            predictor.rule.save(folder)  # a folder from before there was one has results that tell it
            shutil.copyfile(_HANDLER, folder / HANDLER_FILE)
            requirements = "".join(f"{line}\n" for line in pip_lines(OF_A_MODEL))
            (folder / REQUIREMENTS_FILE).write_text(requirements, encoding="utf-8")
            save_figures(folder, results)  # drawn anew: a picture of somebody else's may lie there under such a name
            if not predictor.is_video_model:  # a picture is nothing that a clip model reads
                _save_example(predictor, folder / EXAMPLE_PICTURE)
            write_card(folder, predictor.model, predictor.processor, results, repository, license_name, datasets)
    return sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())


def _save_example(predictor: Predictor, path: Path) -> None:
    """A drawn person; for a model that looks for no face, theirs alone, so that its answer means something."""
    picture, processor = draw_frame(draw_subject(0), FacePose()), predictor.processor
    if isinstance(processor, EngagementImageProcessor) and takes_face_alone(predictor.model, processor):
        picture = processor.prepare_faces(picture).frames[0]
    path.parent.mkdir()
    Image.fromarray(picture).save(path)


def require_hub_names(repository: str, license_name: str | None = None, datasets: Sequence[str] = ()) -> None:
    """Raises RecipeError for an id, other than org/name, or a licence that the Hub does not take."""
    try:
        for name in (repository, *datasets):
            validate_repo_id(name)
    except HFValidationError as error:
        raise RecipeError(f"Expected an id of the Hub, got {name!r}; it is written org/name.") from error
    if "/" not in repository:
        raise RecipeError(f"Expected a repository as org/name, got {repository!r}; put your name or the org before it.")
    if license_name is not None and not _LICENSE.fullmatch(license_name):
        raise RecipeError(
            f"Expected a licence as the Hub spells it, such as mit, apache-2.0 or other, got {license_name!r}."
        )


def _require_place(run: Path, output: Path) -> None:
    """Raises DataError where writing the folder would take anything away but an earlier one of the same kind."""
    with writing(output):
        places = [place.resolve() for place in (output, unfinished_beside(output))]
        if any(_is_within(place, run) or _is_within(run.resolve(), place) for place in places):
            raise DataError(f"Expected an output apart from the model's own folder {run}, got {output}; name another.")
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return
    other = output if not output.is_dir() else first_stranger(output)
    if other is not None:
        raise DataError(
            f"Expected a new folder, or one that was published before and holds nothing else, got {output} with "
            f"{other.name}; choose another."
        )


def _is_within(place: Path, folder: Path) -> bool:
    """By the files themselves: two spellings may mean one folder."""
    return folder.exists() and any(above.exists() and above.samefile(folder) for above in (place, *place.parents))


_MEND = "run `engagement audit` on the data, mend the split, and train or evaluate again."
_REFUSALS: dict[Doubt, tuple[type[EngagementInputError], str]] = {
    "unmeasured": (
        ModelLoadError,
        "Expected scores on test in {run}, found none; run `engagement evaluate {run} --data DATA`.",
    ),
    "other data": (
        LeakageError,
        "Expected scores on the data that {run} was trained and audited with ({trained}), got those of other data "
        "({measured}); run `engagement evaluate {run} --data DATA` on its own.",
    ),
    "unaudited": (LeakageError, f"Expected a split that passed its audit behind {{run}}, it is missing; {_MEND}"),
    "failed": (LeakageError, f"Expected a split that passed its audit behind {{run}}, it failed; {_MEND}"),
}


def _require_trust(run: Path, results: Results) -> None:
    """Raises ModelLoadError or LeakageError for results that a card must not repeat."""
    doubt, measured = results.doubt(), results.measured_on("test")
    if doubt:
        error, words = _REFUSALS[doubt]
        known = {"trained": results.data, "measured": measured and measured.data}
        raise error(words.format(run=run, **{name: data.fingerprint[:12] for name, data in known.items() if data}))
