"""The model card: `model_card.md` filled from measured results, with the Hub's front matter; no number is typed.

The text on intended and prohibited uses is in `use_limits`.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from ..data.required_packages import OF_A_MODEL, pip_lines
from ..evaluation.answers import answer_rule, clip_sec_of
from ..evaluation.markdown import markdown_table
from ..evaluation.metrics import absent_in_words
from ..evaluation.results_schema import Measurement, Results
from ..modeling_engagement import EngagementForVideoClassification, EngagementPreTrainedModel
from ..processor.face_preparation import FacePreparation
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .model_files import CARD_FILE, EXAMPLE_PICTURE, LICENSE_FILE
from .use_limits import LIMITS_AND_WHY

_TEMPLATE = Path(__file__).parents[1] / "model_card.md"
_ELSEWHERE = (
    "data", "split", "clips", "macro-F1 (95 % interval)", "balanced accuracy", "AUROC", "drawn people",
    "audited for leakage",
)  # fmt: skip


def write_card(
    folder: Path,
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Results,
    repository: str | None = None,
    license_name: str | None = None,
    datasets: Sequence[str] = (),
    is_shipped: bool = False,
) -> None:
    """Write the folder's README.md. A licence file in the folder is that of the weights.

    Args:
        repository: on the Hub, for the card's example; None: a placeholder, for an unpublished folder.
        license_name: the weights' licence in the Hub's spelling; None: see `choose_license`.
        datasets: Hub ids of the training data.
        is_shipped: whether the model comes with the package, without the code and figures of other folders.
    """
    title = license_title(folder)
    card = render_card(model, processor, results, repository, license_name, datasets, title, is_shipped)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def render_card(
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: Results,
    repository: str | None = None,
    license_name: str | None = None,
    datasets: Sequence[str] = (),
    own_license: str | None = None,
    is_shipped: bool = False,
) -> str:
    """See `write_card`; `own_license`: title of the weights' own licence, if they have one."""
    is_video = isinstance(model, EngagementForVideoClassification)
    pipeline = "video-classification" if is_video else "image-classification"
    measured = results.headline()
    license_name = "other" if own_license else license_name or choose_license(results)
    card = _template().render(
        card_data=_front_matter(model, pipeline, results, repository, license_name, datasets, own_license),
        title=title_of(model, results.stage),
        pipeline=pipeline,
        encoder=encoder_name(model),
        start=_start_of(model, results),
        temporal=model.config.temporal,
        num_frames=model.config.num_frames,
        sampling=processor.sampling if isinstance(processor, EngagementVideoProcessor) else None,
        clip_sec=clip_sec_of(results, processor),
        repository=repository or f"your-name/{results.stage}",
        requirements=None if repository else pip_lines(OF_A_MODEL),
        example=_example(model, processor),
        face_alone=takes_face_alone(model, processor),
        face_crop=processor.face_crop,
        license_name=license_name,
        own_license=own_license,
        is_shipped=is_shipped,
        results=results,
        measured=measured,
        absent=absent_in_words(measured.evaluation.scores) if measured else None,
        is_own_data=measured is not None and results.is_own_data(measured),
        trained_on=answer_rule(results, processor).trained_on,
        elsewhere=_elsewhere(results),
        must_not=LIMITS_AND_WHY,
    )
    return re.sub(r"\n{3,}", "\n\n", card)


@cache  # compiling it takes longer than filling it
def _template() -> jinja2.Template:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["score"] = _score
    environment.filters["percent"] = lambda value: f"{100 * float(value):.0f} %"
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def takes_face_alone(model: EngagementPreTrainedModel, processor: FacePreparation) -> bool:
    """Whether the model's pictures are face crops already, so that the pipeline detects no faces."""
    is_video = isinstance(model, EngagementForVideoClassification)
    return not (is_video or processor.face_crop or processor.pictures_are_frames)


def _example(model: EngagementPreTrainedModel, processor: FacePreparation) -> str:
    """An example name of an input file."""
    if isinstance(model, EngagementForVideoClassification):
        return "clip.mp4"
    return "face_crop.jpg" if takes_face_alone(model, processor) else "face.jpg"


def title_of(model: EngagementPreTrainedModel, stage: str) -> str:
    """What the model recognises, and its architecture."""
    head = f" + {model.config.temporal}" if isinstance(model, EngagementForVideoClassification) else ""
    return f"{stage.capitalize()} recognition: {encoder_name(model)}{head}"


def encoder_name(model: EngagementPreTrainedModel) -> str:
    """timm's name of the architecture, or transformers' name of the family."""
    config = model.config.encoder_config
    return getattr(config, "architecture", None) or config.model_type


def license_title(folder: Path) -> str | None:
    """The first line of the weights' licence file, if there is one."""
    path = folder / LICENSE_FILE
    return path.read_text(encoding="utf-8").lstrip().partition("\n")[0].strip() if path.is_file() else None


def choose_license(results: Results) -> str:
    """The weights' default licence: ours if they were trained here, else unknown."""
    return "mit" if results.training else "other"


def _elsewhere(results: Results) -> str | None:
    """A Markdown table of measurements on data other than the headline's; None: there are none."""
    headline = results.headline()
    fingerprint = headline and headline.data.fingerprint
    others = [found for found in results.measurements if found.data.fingerprint != fingerprint]
    return markdown_table(_ELSEWHERE, map(_row_elsewhere, others)) if others else None


def _row_elsewhere(measured: Measurement) -> list[str]:
    scores, audit = measured.evaluation.scores, measured.data.audit
    interval = measured.evaluation.intervals.intervals["macro_f1"].in_words("no interval")
    return [
        f"{measured.data.in_words()} ({measured.data.fingerprint[:12]})",
        measured.split,
        f"{measured.evaluation.num_clips:,}",
        f"{scores.macro_f1:.3f} ({interval})",
        f"{scores.balanced_accuracy:.3f}",
        _score(scores.auroc),
        {True: "yes", False: "no", None: "unknown"}[measured.data.drawn],
        "no" if audit is None else "passed" if audit.passed else "failed",
    ]


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _start_of(model: EngagementPreTrainedModel, results: Results) -> str:
    """The encoder's weights before this training, as the end of a sentence."""
    start = results.started_from
    if "/" in start:  # a Hub id: folders are recorded by their last name only
        return f"the weights of [`{start}`](https://huggingface.co/{start})"
    if start == encoder_name(model):
        return "random weights"
    on = f" on {results.started_from_data}" if results.started_from_data else ""
    if start == "expression" and results.stage == "engagement":
        return f"the weights of stage one (`{start}`), which was trained to recognise facial expressions{on}"
    return f"the weights of an earlier model, `{start}`{on and f', trained{on}'}"


def _front_matter(
    model: EngagementPreTrainedModel,
    pipeline: str,
    results: Results,
    repository: str | None,
    license_name: str,
    datasets: Sequence[str],
    own_license: str | None,
) -> str:
    """The card's YAML, as huggingface_hub writes it."""
    measured, start = results.headline(), results.started_from
    card = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        license=license_name,
        license_name=re.sub(r"\W+", "-", own_license).strip("-").lower() if own_license else None,
        license_link=LICENSE_FILE if own_license else None,
        tags=["custom_code", "engagement-recognition", "face"],
        base_model=start if "/" in start else None,  # a Hub id: folders are recorded by their last name only
        datasets=list(datasets) or None,
        metrics=["f1", "accuracy"] if measured else None,
    )
    if repository and pipeline == "image-classification":
        address = f"https://huggingface.co/{repository}/resolve/main/{EXAMPLE_PICTURE}"
        card["widget"] = [{"src": address, "example_title": "A drawn face"}]
    if measured:
        name = re.sub(r"\W+", "-", title_of(model, results.stage)).lower()
        card.model_name = repository.rpartition("/")[2] if repository else name
        card.eval_results = _eval_results(pipeline, measured)
    return card.to_yaml()


def _eval_results(pipeline: str, measured: Measurement) -> list[EvalResult]:
    data, scores = measured.data, measured.evaluation.scores
    values = {
        ("f1", "Macro-F1"): scores.macro_f1,
        ("accuracy", "Balanced accuracy"): scores.balanced_accuracy,
        ("accuracy", "Accuracy"): scores.accuracy,
        ("roc_auc", "AUROC"): scores.auroc,
    }
    return [
        EvalResult(
            task_type=pipeline,
            dataset_type="drawn" if data.drawn else data.kind,
            dataset_name=data.in_words(),
            dataset_split=measured.split,
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 4),
        )
        for (kind, title), value in values.items()
        if value is not None
    ]
