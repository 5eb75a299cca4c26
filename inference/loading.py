"""A folder or a Hub id → a complete model and its processor; missing weights are refused, never initialised."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from .. import register_auto_classes
from ..answer_rule import AnswerRule
from ..evaluation.answers import answer_rule
from ..evaluation.results_file import RESULTS_FILE, read_results
from ..modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import EngagementInputError, ModelLoadError, in_one_line
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .model_source import check_model, check_processor

_NOISE_PX = 224
_Model = TypeVar("_Model", bound=EngagementForVideoClassification | EngagementForImageClassification)
LoadedModel = tuple[
    EngagementForVideoClassification | EngagementForImageClassification,
    EngagementVideoProcessor | EngagementImageProcessor,
]


def load_model(model: str) -> LoadedModel:
    """From an export folder or a Hub id. No code from there is run: see `model_source`.

    Raises:
        ModelLoadError: there is nothing, or no engagement model, or parts of it are missing.
    """
    register_auto_classes()
    try:
        _require_folder_or_hub_id(model)
        kind = check_model(model)
        processor = check_processor(model, is_video=kind is EngagementForVideoClassification)
        loaded = _load_whole(kind, model), _load_processor(processor, model)
        _require_answer(*loaded, model)
        return loaded
    except EngagementInputError:
        raise
    except Exception as error:  # transformers, safetensors, json, torch and timm each raise their own
        reason = in_one_line(error)
        raise ModelLoadError(
            f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id; got: {reason}"
        ) from error


def rule_of(loaded: LoadedModel, folder: Path) -> AnswerRule:
    """The answer rule stored with a model; in older folders, the one that its results give; without either, an
    uncalibrated one.

    Raises:
        ModelLoadError: the rule has other labels than the model.
    """
    model, processor = loaded
    names = tuple(model.config.label_names)
    rule = model.answer_rule
    if rule is None and (folder / RESULTS_FILE).is_file():
        rule = answer_rule(read_results(folder), processor)
    if rule is None:
        return AnswerRule(names)
    if rule.label_names != names:
        raise ModelLoadError(
            f"The answer rule in {folder} has the labels {', '.join(rule.label_names)}, its model {', '.join(names)}; "
            "evaluate the model again."
        )
    return rule


def _require_folder_or_hub_id(model: str) -> None:
    """Refuse a mistyped folder at once; otherwise the Hub would be asked repeatedly, without a useful message."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").exists() and (fold := folder.parent / "folds/1" / folder.name).exists():
            raise ModelLoadError(f"{model} contains pooled scores of folds, not a model; a fold's model is {fold}.")
        return
    # A local folder that contains models is meant, not an organisation with the same name.
    is_among_models = any(True for depth in ("*", "*/*") for _ in folder.parent.glob(f"{depth}/config.json"))
    if folder.exists() or model.count("/") != 1 or is_among_models:
        found = "it is a file" if folder.exists() else "there is no such folder"
        raise ModelLoadError(
            f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id (org/name), but "
            f"{found}; check the path."
        )


@contextmanager
def without_file_bars() -> Iterator[None]:
    """Hide transformers' progress bars for local files, which only leave lines behind; those of downloads stay."""
    if not transformers_logging.is_progress_bar_enabled():
        yield
        return
    shows_downloads = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # this hides those of downloads too
    if shows_downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        if not shows_downloads:
            disable_progress_bars()


def _load_processor(
    kind: type[EngagementVideoProcessor] | type[EngagementImageProcessor], model: str
) -> EngagementVideoProcessor | EngagementImageProcessor:
    try:
        return kind.from_pretrained(model)
    except EngagementInputError as error:
        raise ModelLoadError(f"{error.args[0].rstrip('.')} (in the processor's config of {model}).") from error


def _require_answer(
    model: EngagementForVideoClassification | EngagementForImageClassification,
    processor: EngagementVideoProcessor | EngagementImageProcessor,
    source: str,
) -> None:
    """Raises ModelLoadError unless noise, passed through the processor, gives a finite score for each label."""
    frames = np.random.default_rng(0).integers(0, 256, (1, _NOISE_PX, _NOISE_PX, 3), np.uint8)
    try:
        pixel_values = processor.on_device(model.device).to_pixel_values(frames)  # (1, C, H, W)
        is_clip_model = isinstance(model, EngagementForVideoClassification)
        with torch.no_grad():  # not inference_mode: BEiT caches a tensor, with which it could not be trained
            logits = model(pixel_values[None] if is_clip_model else pixel_values).logits
    except Exception as error:  # two configs that do not fit can raise anything
        raise ModelLoadError(
            f"The configs of model and processor in {source} do not fit each other ({in_one_line(error)})."
        ) from error
    expected = (1, len(model.config.label_names))
    if pixel_values.shape[1] != model.config.num_channels or tuple(logits.shape) != expected:
        raise ModelLoadError(
            f"The config of {source} says {model.config.num_channels} channels and scores of shape {expected}, its "
            f"files give {pixel_values.shape[1]} and {tuple(logits.shape)}; one of them is of another model."
        )
    if not logits.isfinite().all():
        raise ModelLoadError(
            f"The scores of the model at {source} are nan or infinity, because of its weights; use another model or "
            "train it again."
        )


def _load_whole(kind: type[_Model], model: str) -> _Model:
    """A model with every weight; transformers would initialise missing ones at random and only warn."""
    with without_file_bars():
        loaded, report = kind.from_pretrained(model, use_safetensors=True, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelLoadError(f"{len(absent)} weights are missing in {model} (first: {absent[0]}); copy it again.")
    broken = next((name for name, weights in loaded.state_dict().items() if not weights.isfinite().all()), None)
    if broken:
        raise ModelLoadError(f"The weights {broken} in {model} contain nan or infinity; train the model again.")
    return loaded
