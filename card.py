"""The model card: `model_card.md` filled from measured results, with the Hub's front matter; no number in it is typed.

What it says of intended and prohibited uses stands in the template.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from .modeling_engagement import EngagementForVideoClassification, EngagementPreTrainedModel
from .processor.face_preparation import FacePreparation

EXAMPLE_PICTURE = "examples/drawn_face.png"
_TEMPLATE = Path(__file__).parent / "model_card.md"
_METRICS = {"macro_f1": ("f1", "Macro-F1"), "balanced_accuracy": ("accuracy", "Balanced accuracy"),
            "accuracy": ("accuracy", "Accuracy"), "auroc": ("roc_auc", "AUROC")}  # fmt: skip


def write_card(
    folder: Path,
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Mapping[str, object],
    repository: str | None = None,
    license_name: str = "mit",
    datasets: Sequence[str] = (),
) -> None:
    """The folder's README.md.

    Args:
        repository: of the Hub, as the card's example names it; None: a made-up one, for a folder nobody has published.
        license_name: of the weights, as the Hub spells it.
        datasets: Hub ids of what it was trained on.
    """
    card = render_card(model, processor, results, repository, license_name, datasets)
    (folder / "README.md").write_text(card, encoding="utf-8")


def render_card(
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Mapping[str, object],
    repository: str | None = None,
    license_name: str = "mit",
    datasets: Sequence[str] = (),
) -> str:
    """See `write_card`."""
    is_video = isinstance(model, EngagementForVideoClassification)
    pipeline = "video-classification" if is_video else "image-classification"
    evaluation = results.get("evaluation", {})
    split = "test" if "test" in evaluation else next(iter(evaluation), None)
    measured_on = results.get("evaluated_on", {}).get(split) or results.get("data")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["score"] = lambda value: "undefined" if value is None else f"{value:.3f}"
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=_front_matter(pipeline, results, split, measured_on, repository, license_name, datasets),
        title=f"{results['stage'].capitalize()} recognition with {results['started_from']}",
        pipeline=pipeline,
        temporal=model.config.temporal,
        num_frames=model.config.num_frames,
        repository=repository or f"your-name/{results['stage']}",
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


def _front_matter(
    pipeline: str,
    results: Mapping[str, object],
    split: str | None,
    measured_on: Mapping[str, object] | None,
    repository: str | None,
    license_name: str,
    datasets: Sequence[str],
) -> str:
    """The card's YAML, as huggingface_hub writes it."""
    entries: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "license": license_name,
        "metrics": ["f1", "accuracy"],
        "tags": ["custom_code", "engagement-recognition", "face"],
    }
    start = str(results["started_from"])
    if "/" in start:  # a Hub id: folders are recorded by their last name only
        entries["base_model"] = start
    if datasets:
        entries["datasets"] = list(datasets)
    if repository and pipeline == "image-classification":
        address = f"https://huggingface.co/{repository}/resolve/main/{EXAMPLE_PICTURE}"
        entries["widget"] = [{"src": address, "example_title": "A drawn face"}]
    if split is not None:
        scores = results["evaluation"][split]["scores"]
        entries["model_name"] = (repository or start).rpartition("/")[2]
        entries["eval_results"] = [
            EvalResult(
                task_type=pipeline,
                dataset_type=measured_on.get("kind", "own"),
                dataset_name=measured_on["source"],
                dataset_split=split,
                metric_type=kind,
                metric_name=title,
                metric_value=round(scores[name], 4),
            )
            for name, (kind, title) in _METRICS.items()
            if scores.get(name) is not None
        ]
    return ModelCardData(**entries).to_yaml()
