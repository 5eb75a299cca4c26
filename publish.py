"""A trained model → one export folder, and from there to the Hub.

The folder holds weights, config, processor, the code both need, measured results and a card rendered from them. It
loads in a process that has transformers, torch, timm, av and facenet-pytorch, and not this package.
"""

import shutil
from pathlib import Path

import jinja2
from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from transformers import TrainingArguments

from .evaluation import write_results
from .modeling_engagement import EngagementForVideoClassification, EngagementPreTrainedModel
from .processor.face_preparation import FacePreparation
from .processor.input_errors import EngagementInputError

_TEMPLATE = Path(__file__).parent / "model_card.md"


def export_model(
    model: EngagementPreTrainedModel, processor: FacePreparation, results: dict[str, object], folder: Path
) -> None:
    """Write the export folder, whole or not at all; an older one is replaced.

    Args:
        results: what `results.json` holds; the card is rendered from it.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    results = write_results(unfinished, **results)
    (unfinished / "README.md").write_text(render_card(model, results, folder), encoding="utf-8")
    # transformers makes a package of the copied code; the Hub needs none of it.
    shutil.rmtree(unfinished / "__pycache__", ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def render_card(model: EngagementPreTrainedModel, results: dict[str, object], folder: Path) -> str:
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
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=card_data.to_yaml(),
        title=f"{results['stage'].capitalize()} recognition with {results['started_from']}",
        pipeline=pipeline,
        temporal=model.config.temporal,
        num_frames=model.config.num_frames,
        repository=f"your-name/{folder.name}",
        example="lecture.mp4" if is_video else "face.jpg",
        results=results,
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
