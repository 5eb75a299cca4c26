"""A folder or a Hub id → a whole model and its processor; anything less is refused, never filled in at random."""

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
    """From an export folder or a Hub id. No code that lies there is run: see `model_source`.

    Raises:
        ModelLoadError: nothing is there, it holds no engagement model, or parts of it are missing.
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
    except Exception as error:  # transformers, safetensors, json, torch and timm each have their own
        reason = in_one_line(error)
        raise ModelLoadError(
            f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id; {reason}"
        ) from error


def rule_of(loaded: LoadedModel, folder: Path) -> AnswerRule:
    """The answer rule that lies beside a model or, in a folder from before there was one, that its results tell; of one
    without either, an uncalibrated one.

    Raises:
        ModelLoadError: it is of other labels.
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
            f"Expected how to answer with the labels {', '.join(names)} in {folder}, got that of "
            f"{', '.join(rule.label_names)}; evaluate the model again."
        )
    return rule


def _require_folder_or_hub_id(model: str) -> None:
    """A mistyped folder is refused at once; the Hub would be asked for it again and again, and say nothing of it."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").exists() and (fold := folder.parent / "folds/1" / folder.name).exists():
            raise ModelLoadError(f"Expected a model at {model}, got pooled scores of folds; a fold's model is {fold}.")
        return
    # A folder here that holds models is meant, and not an organisation that happens to have its name.
    is_among_models = any(True for depth in ("*", "*/*") for _ in folder.parent.glob(f"{depth}/config.json"))
    if folder.exists() or model.count("/") != 1 or is_among_models:
        found = "a file" if folder.exists() else "no such folder"
        raise ModelLoadError(
            f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id (org/name), found "
            f"{found}; check the path."
        )


@contextmanager
def without_file_bars() -> Iterator[None]:
    """transformers' bars over files on this disk are gone in a blink, and leave lines; bars of downloads stay."""
    if not transformers_logging.is_progress_bar_enabled():
        yield
        return
    shows_downloads = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # and those of downloads
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
    """Raises ModelLoadError unless noise, as the processor hands it on, gives a number for each label."""
    frames = np.random.default_rng(0).integers(0, 256, (1, _NOISE_PX, _NOISE_PX, 3), np.uint8)
    try:
        pixel_values = processor.on_device(model.device).to_pixel_values(frames)  # (1, C, H, W)
        is_clip_model = isinstance(model, EngagementForVideoClassification)
        with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here, and could not be trained with it
            logits = model(pixel_values[None] if is_clip_model else pixel_values).logits
    except Exception as error:  # whatever two configs that do not fit each other lead to
        raise ModelLoadError(
            f"Expected configs of one model and its processor in {source}, got others ({in_one_line(error)})."
        ) from error
    expected = (1, len(model.config.label_names))
    if pixel_values.shape[1] != model.config.num_channels or tuple(logits.shape) != expected:
        raise ModelLoadError(
            f"Expected {model.config.num_channels} channels and scores of shape {expected}, as the config of {source} "
            f"says, got {pixel_values.shape[1]} and {tuple(logits.shape)}; one of its files is of another model."
        )
    if not logits.isfinite().all():
        raise ModelLoadError(
            f"Expected numbers as scores of the model at {source}, got nan or infinity; its weights make none, so use "
            "another model or train it anew."
        )


def _load_whole(kind: type[_Model], model: str) -> _Model:
    """A model with every weight; transformers itself would draw missing ones at random and only warn."""
    with without_file_bars():
        loaded, report = kind.from_pretrained(model, use_safetensors=True, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelLoadError(f"Expected all weights in {model}, {len(absent)} are missing (first: {absent[0]}).")
    broken = next((name for name, weights in loaded.state_dict().items() if not weights.isfinite().all()), None)
    if broken:
        raise ModelLoadError(f"Expected numbers as weights in {model}, got nan or infinity in {broken}; train it anew.")
    return loaded
