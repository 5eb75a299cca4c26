"""The model card: `model_card.md` filled from measured results, with the Hub's front matter; no number in it is typed.

What it says of intended and prohibited uses stands in `use_limits`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from ..evaluation.results_file import describe_source, is_trained_on_drawn, measured_on
from ..modeling_engagement import EngagementForVideoClassification, EngagementPreTrainedModel
from ..processor.face_preparation import FacePreparation
from ..required_packages import OF_A_MODEL, pip_lines
from .model_files import CARD_FILE, EXAMPLE_PICTURE
from .use_limits import MUST_NOT_BE_USED

_TEMPLATE = Path(__file__).parents[1] / "model_card.md"
_METRICS = {"macro_f1": ("f1", "Macro-F1"), "balanced_accuracy": ("accuracy", "Balanced accuracy"),
            "accuracy": ("accuracy", "Accuracy"), "auroc": ("roc_auc", "AUROC")}  # fmt: skip


def write_card(
    folder: Path,
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Mapping[str, object],
    repository: str | None = None,
    license_name: str | None = None,
    datasets: Sequence[str] = (),
) -> None:
    """The folder's README.md.

    Args:
        repository: of the Hub, as the card's example names it; None: a made-up one, for a folder nobody has published.
        license_name: of the weights, as the Hub spells it; None: see `choose_license`.
        datasets: Hub ids of what it was trained on.
    """
    card = render_card(model, processor, results, repository, license_name, datasets)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def render_card(
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Mapping[str, object],
    repository: str | None = None,
    license_name: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """See `write_card`."""
    is_video = isinstance(model, EngagementForVideoClassification)
    pipeline = "video-classification" if is_video else "image-classification"
    evaluation = results.get("evaluation", {})
    split = "test" if "test" in evaluation else next(iter(evaluation), None)
    source = measured_on(results, split)
    license_name = license_name or choose_license(results)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["score"] = lambda value: "undefined" if value is None else f"{value:.3f}"
    environment.filters["percent"] = lambda value: f"{100 * float(value):.0f} %"
    card = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=_front_matter(model, pipeline, results, split, repository, license_name, datasets),
        title=title_of(model, str(results["stage"])),
        pipeline=pipeline,
        encoder=encoder_name(model),
        start=_start_of(model, results),
        temporal=model.config.temporal,
        num_frames=model.config.num_frames,
        sampling=getattr(processor, "sampling", None),
        clip_sec=_clip_sec(processor, results),
        repository=repository or f"your-name/{results['stage']}",
        requirements=None if repository else pip_lines(OF_A_MODEL),
        example=_example(model, processor),
        face_alone=takes_face_alone(model, processor),
        face_crop=processor.face_crop,
        license_name=license_name,
        results=results,
        split=split,
        measured=evaluation.get(split),
        without_duplicates=evaluation.get(f"{split}_without_duplicates"),
        source=source and describe_source(source),
        measured_on_drawn=source.get("drawn"),
        trained="training" in results,
        trained_on_drawn=is_trained_on_drawn(results),
        audit=results["data"]["audit"] if evaluation else None,
        must_not=MUST_NOT_BE_USED,
    )
    return re.sub(r"\n{3,}", "\n\n", card)


def takes_face_alone(model: EngagementPreTrainedModel, processor: FacePreparation) -> bool:
    """Whether its pictures are faces already, so that the pipeline looks for none in what it is given."""
    is_video = isinstance(model, EngagementForVideoClassification)
    return not (is_video or processor.face_crop or processor.pictures_are_frames)


def _example(model: EngagementPreTrainedModel, processor: FacePreparation) -> str:
    """The name of a file such as it takes."""
    if isinstance(model, EngagementForVideoClassification):
        return "clip.mp4"
    return "face_crop.jpg" if takes_face_alone(model, processor) else "face.jpg"


def title_of(model: EngagementPreTrainedModel, stage: str) -> str:
    """What it recognises, and with what."""
    head = f" + {model.config.temporal}" if isinstance(model, EngagementForVideoClassification) else ""
    return f"{stage.capitalize()} recognition: {encoder_name(model)}{head}"


def encoder_name(model: EngagementPreTrainedModel) -> str:
    """timm's name of the architecture, or transformers' of the family."""
    config = model.config.encoder_config
    return getattr(config, "architecture", None) or config.model_type


def choose_license(results: Mapping[str, object]) -> str:
    """Of the weights, where nobody has said: ours for what was trained here; of others' weights we know none."""
    return "mit" if "training" in results else "other"


def _start_of(model: EngagementPreTrainedModel, results: Mapping[str, object]) -> str:
    """What the encoder's weights were before this training, as words within a sentence."""
    start = str(results["started_from"])
    if "/" in start:  # a Hub id: folders are recorded by their last name only
        return f"those of [`{start}`](https://huggingface.co/{start})"
    if start == encoder_name(model):
        return "random"
    on = f" on {results['started_from_data']}" if results.get("started_from_data") else ""
    if start == "expression" and results["stage"] == "engagement":
        return f"those of stage one (`{start}`), which had learned to name facial expressions{on},"
    return f"those of an earlier model, `{start}`{on and f', trained{on}'},"


def _clip_sec(processor: FacePreparation, results: Mapping[str, object]) -> float | None:
    """Length of the clips it was trained on, as far as their frames tell it; None: unknown, or single pictures."""
    span_sec = results["data"].get("window_span_sec") if "training" in results else None
    if not span_sec or not hasattr(processor, "sampling"):
        return None
    # Uniform frames are the centres of equal segments: half a segment is missing at either end.
    is_uniform = processor.sampling == "uniform" and processor.num_frames > 1
    return span_sec * processor.num_frames / (processor.num_frames - 1) if is_uniform else span_sec


def _front_matter(
    model: EngagementPreTrainedModel,
    pipeline: str,
    results: Mapping[str, object],
    split: str | None,
    repository: str | None,
    license_name: str,
    datasets: Sequence[str],
) -> str:
    """The card's YAML, as huggingface_hub writes it."""
    entries: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "license": license_name,
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
        entries["metrics"] = ["f1", "accuracy"]
        name = re.sub(r"\W+", "-", title_of(model, str(results["stage"]))).lower()
        entries["model_name"] = repository.rpartition("/")[2] if repository else name
        entries["eval_results"] = _eval_results(pipeline, results, split)
    return ModelCardData(**entries).to_yaml()


def _eval_results(pipeline: str, results: Mapping[str, object], split: str) -> list[EvalResult]:
    scores, data = results["evaluation"][split]["scores"], measured_on(results, split)
    return [
        EvalResult(
            task_type=pipeline,
            dataset_type="drawn" if data.get("drawn") else data.get("kind", "own"),
            dataset_name=describe_source(data),
            dataset_split=split,
            metric_type=kind,
            metric_name=title,
            metric_value=round(scores[name], 4),
        )
        for name, (kind, title) in _METRICS.items()
        if scores.get(name) is not None
    ]
