"""A trained model → one export folder, and from there to the Hub.

The folder holds weights, config, processor, the code both need, measured results and a card rendered from them. It
loads in a process that has transformers, torch, timm, av and facenet-pytorch, and not this package.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from transformers import TrainingArguments

from .evaluation import SplitPredictions, write_predictions
from .figures import save_confusion, save_reliability, save_risk_coverage, save_training_curves
from .modeling_engagement import EngagementForVideoClassification, EngagementPreTrainedModel
from .processor.face_preparation import FacePreparation
from .processor.input_errors import EngagementInputError
from .results_file import write_results

FIGURES_FOLDER = "figures"
_TEMPLATE = Path(__file__).parent / "model_card.md"


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
    write_card(unfinished, model, processor, results, folder.name)
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


def write_card(
    folder: Path,
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Mapping[str, object],
    name: str | None = None,
) -> None:
    """The folder's README.md; `name` is the folder's own, where it is still to be renamed."""
    (folder / "README.md").write_text(render_card(model, processor, results, name or folder.name), encoding="utf-8")


def render_card(
    model: EngagementPreTrainedModel, processor: FacePreparation, results: Mapping[str, object], name: str
) -> str:
    """The model card: `model_card.md` filled from measured results; no number in it is typed."""
    is_video = isinstance(model, EngagementForVideoClassification)
    pipeline = "video-classification" if is_video else "image-classification"
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        license="mit",
        metrics=["f1", "accuracy"],
        tags=["custom_code", "engagement-recognition", "face"],
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["score"] = lambda value: "undefined" if value is None else f"{value:.3f}"
    evaluation = results.get("evaluation", {})
    split = "test" if "test" in evaluation else next(iter(evaluation), None)
    measured_on = results.get("evaluated_on", {}).get(split) or results.get("data")
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=card_data.to_yaml(),
        title=f"{results['stage'].capitalize()} recognition with {results['started_from']}",
        pipeline=pipeline,
        temporal=model.config.temporal,
        num_frames=model.config.num_frames,
        repository=f"your-name/{name}",
        example="lecture.mp4" if is_video else "face.jpg",
        face_crop=processor.face_crop,
        results=results,
        split=split,
        measured=evaluation.get(split),
        without_duplicates=evaluation.get(f"{split}_without_duplicates"),
        source=measured_on and measured_on["source"],
        trained="training" in results,
        audit=results["data"]["audit"] if evaluation else None,
    )


def push_export(folder: Path, training: TrainingArguments) -> str:
    """Upload the export folder, and nothing else, to the Hub; returns the repository's address.

    Raises:
        EngagementInputError: no repository was named, or the Hub refused or did not answer.
    """
    if not training.hub_model_id:
        raise EngagementInputError("Expected --hub_model_id org/name beside --push_to_hub, got none.")
    api = HfApi(token=training.hub_token)
    try:
        repository = api.create_repo(training.hub_model_id, private=training.hub_private_repo, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Add model")
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EngagementInputError(
            f"Expected to push {folder} to {training.hub_model_id}, the Hub did not take it ({reason}); the folder is "
            "whole, so log in with `hf auth login` and push again."
        ) from error
    return repository.url
