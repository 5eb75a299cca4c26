"""A stock BEiT or timm classifier's picture settings → a processor of ours, which also finds the face."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import timm.data
from transformers import BeitForImageClassification, TimmWrapperForImageClassification
from transformers.utils import cached_file

from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import ModelLoadError, in_one_line

StockClassifier = BeitForImageClassification | TimmWrapperForImageClassification


class _StockSettings(TypedDict, total=False):
    """The settings read from `preprocessor_config.json`."""

    size: int | Sequence[int] | dict[str, int]
    crop_size: int | Sequence[int] | dict[str, int]
    do_center_crop: bool
    image_mean: Sequence[float]
    image_std: Sequence[float]
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool


def processor_of_stock(stock: StockClassifier, source: str | Path) -> EngagementImageProcessor:
    """Our processor with the settings of `preprocessor_config.json` or, without one, of the architecture.

    Raises:
        ModelLoadError: the settings cannot be read, or do not give square pictures.
    """
    quietly = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    path = cached_file(source, "preprocessor_config.json", **dict.fromkeys(quietly, False))
    try:
        settings, num_channels = _architecture_settings(stock)
        settings |= json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        size = settings["crop_size"] if settings.get("do_center_crop") else settings["size"]
        (size_px,) = set(size.values()) if isinstance(size, dict) else {size}  # a square, in any stored form
        mean, std = ([float(value) for value in values] for values in (settings["image_mean"], settings["image_std"]))
        is_scale = all(map(math.isfinite, mean)) and all(0 < value < math.inf for value in std)
        if not isinstance(size_px, int) or size_px < 1 or not is_scale:
            raise ValueError(f"size {size_px}, mean {mean}, std {std}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = in_one_line(error)
        raise ModelLoadError(f"The processor's settings in {source} do not give square pictures ({reason}).") from error
    return EngagementImageProcessor(
        size={"height": size_px, "width": size_px},
        image_mean=mean,
        image_std=std,
        do_rescale=settings.get("do_rescale"),
        rescale_factor=settings.get("rescale_factor"),
        do_normalize=settings.get("do_normalize"),
        face_crop=True,
        face_margin_ratio=0.2,
        face_crop_size_px=size_px,
        do_grayscale=num_channels == 1,
    )


def _architecture_settings(stock: StockClassifier) -> tuple[_StockSettings, int]:
    """The architecture's default settings, and the number of channels."""
    config = stock.config
    if config.model_type == "beit":
        return {"size": config.image_size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, config.num_channels
    settings = timm.data.resolve_data_config(getattr(config, "pretrained_cfg", None), model=stock.timm_model)
    num_channels, size_px, _ = settings["input_size"]
    return {"size": size_px, "image_mean": settings["mean"], "image_std": settings["std"]}, num_channels
