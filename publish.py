"""A trained model → one export folder, and from there to the Hub.

The folder holds weights, config, processor, the code both need, measured results and a card rendered from them. It
loads in a process that has transformers, torch, timm, av and facenet-pytorch, and not this package. What goes to the
Hub is a copy without each clip's predictions, whose ids are the data set's, and with what an endpoint needs; results
that cannot be trusted are not published.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from PIL import Image

from .card import EXAMPLE_PICTURE, write_card
from .data.drawn_faces import FacePose, draw_frame, draw_subject
from .evaluation import SplitPredictions, write_predictions
from .figures import save_confusion, save_reliability, save_risk_coverage, save_training_curves
from .modeling_engagement import EngagementPreTrainedModel
from .predict import Predictor
from .processor.face_preparation import FacePreparation
from .processor.input_errors import DataError, EngagementInputError, LeakageError, ModelLoadError
from .results_file import RESULTS_FILE, read_results, write_results

FIGURES_FOLDER = "figures"
_ROOT = Path(__file__).parent
_ENDPOINT_FILES = ("handler.py", "requirements.txt")
# Whatever else lies in the folder (pickles, checkpoints, predictions with the data set's ids) stays here.
_PUBLISHED = ("*.safetensors", "*.json", "*.py", "figures/*.png", "figures/*.svg")


def export_model(
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: dict[str, object],
    folder: Path,
    predictions: Sequence[SplitPredictions],
) -> None:
    """Write the export folder, whole or not at all; an older one is replaced.

    Args:
        results: what `results.json` holds; the card is rendered from it.
        predictions: of validation and test, from which later commands compare and calibrate.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    results = write_results(unfinished, **results)
    write_predictions(unfinished, predictions, results["label_names"])
    save_figures(unfinished, results)
    write_card(unfinished, model, processor, results)
    # transformers makes a package of the copied code; the Hub needs none of it.
    shutil.rmtree(unfinished / "__pycache__", ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def save_figures(folder: Path, results: Mapping[str, object]) -> list[Path]:
    """Of every evaluated split: confusion, reliability, risk over coverage; and training curves. PNG and SVG each."""
    place = folder / FIGURES_FOLDER
    place.mkdir(exist_ok=True)
    files = []
    for split, evaluation in results["evaluation"].items():
        confusion = evaluation["scores"]["confusion_matrix"]
        files += save_confusion(confusion, results["label_names"], place / f"{split}_confusion")
        files += save_reliability(evaluation["calibration"]["as_trained"], place / f"{split}_reliability")
        files += save_risk_coverage(evaluation["risk_coverage"], place / f"{split}_risk_coverage")
    if log := results.get("training", {}).get("log"):
        files += save_training_curves(log, place / "training_curves")
    return files


def assemble(
    run: Path, output: Path, repository: str, license_name: str = "mit", datasets: Sequence[str] = ()
) -> list[Path]:
    """The exact folder that goes to the Hub; an older one is replaced.

    Args:
        run: a measured model's folder.
        repository: its id on the Hub, for the card.
        license_name: of the weights, as the Hub spells it.
        datasets: their Hub ids, where the data is there.

    Returns:
        The files, relative to `output`.

    Raises:
        DataError: the output folder holds something else.
        ModelLoadError: no model, or no measured results.
        LeakageError: the data's split failed its audit, has none, or is not the data the scores were measured on.
    """
    results, predictor = read_results(run), Predictor.from_pretrained(str(run))
    _require_trust(run, results)
    if output.exists() and not all((output / name).is_file() for name in (RESULTS_FILE, *_ENDPOINT_FILES)):
        raise DataError(f"Expected a new folder, or one that was published before, got {output}; choose another.")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for source in sorted({path for pattern in _PUBLISHED for path in run.glob(pattern)}):
        target = output / source.relative_to(run)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    for name in _ENDPOINT_FILES:
        shutil.copyfile(_ROOT / name, output / name)
    (output / EXAMPLE_PICTURE).parent.mkdir()
    Image.fromarray(draw_frame(draw_subject(0), FacePose())).save(output / EXAMPLE_PICTURE)
    write_card(output, predictor.model, predictor.processor, results, repository, license_name, datasets)
    return sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())


def _require_trust(run: Path, results: Mapping[str, object]) -> None:
    """Raises ModelLoadError or LeakageError for results that a card must not repeat."""
    if "test" not in results.get("evaluation", {}):
        raise ModelLoadError(f"Expected scores on test in {run}, found none; run `engagement evaluate {run}`.")
    data, measured_on = results["data"], results.get("evaluated_on", {}).get("test")
    if measured_on and measured_on["fingerprint"] != data["fingerprint"]:
        raise LeakageError(
            f"Expected scores on the data that {run} was trained and audited with ({data['fingerprint'][:12]}), got "
            f"those of other data ({measured_on['fingerprint'][:12]}); run `engagement evaluate {run}` on its own."
        )
    if data["audit"] is None or not data["audit"]["passed"]:
        state = "is missing" if data["audit"] is None else "failed"
        raise LeakageError(
            f"Expected a split that passed its audit behind {run}, it {state}; run `engagement audit` on the data, "
            "mend the split, and train or evaluate again."
        )


def push_folder(folder: Path, repository: str, private: bool | None = None, token: str | None = None) -> str:
    """Upload a folder as it is, in one commit; returns the repository's address. Can be repeated after a failure.

    Raises:
        EngagementInputError: the Hub refused or did not answer, or a private repository was asked for and the one
            there is public.
    """
    api = HfApi(token=token)
    try:
        created = api.create_repo(repository, private=private, exist_ok=True)
        is_public = private and not api.model_info(created.repo_id).private  # it may have been there before
        if not is_public:
            # What an earlier version left there and this one does not hold goes away.
            api.upload_folder(
                repo_id=created.repo_id, folder_path=folder, commit_message="Add model", delete_patterns="*"
            )
    except (HTTPError, OSError, RuntimeError) as error:
        raise EngagementInputError(
            f"Expected to push {folder} to {repository}, the Hub did not take it ({_reason(error)}); the folder is "
            "whole, so log in with `hf auth login` and push again."
        ) from error
    if is_public:
        raise EngagementInputError(
            f"Expected to push to a private repository, got {repository}, which is public; make it private in its "
            "settings, or pass another."
        )
    return created.url


def _reason(error: Exception) -> str:
    """What went wrong, in one line, and what the Hub said; the failure of one file comes wrapped in a RuntimeError."""
    error = error.__cause__ or error if type(error) is RuntimeError else error
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    lines = [first_line, getattr(error, "server_message", None)]
    return " ".join(": ".join(filter(None, lines)).split())
