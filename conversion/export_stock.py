"""Our models → formats that other software serves: a stock transformers folder without custom code, and ONNX.

The Hub's widget can run a stock folder; it contains a single-face model only, and its processor finds no faces, so it
needs face crops. ONNX contains any model, from pixel values to logits. Other software has no answer rule, so it is
folded into the last layer: logits are (ours + bias) / temperature + offsets; the highest is our label, and their
softmax is its certainty. Both are written only if they agree with the original model; the difference is returned.
`import_reference.import_stock_classifier` is the reverse.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import timm
import torch
import yaml
from huggingface_hub import ModelCardData, metadata_load
from PIL.Image import Resampling
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    BeitImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTImageProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from ..answer_rule import UNKNOWN, AnswerRule
from ..data.atomic_files import require_new_folder, whole_folder, writing
from ..evaluation.results_file import RESULTS_FILE, read_results
from ..evaluation.results_schema import Results
from ..hub.card import choose_license, encoder_name, title_of
from ..hub.model_files import CARD_FILE
from ..hub.use_limits import LIMITS_AND_WHY
from ..inference.predictor import Predictor
from ..modeling_engagement import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementPreTrainedModel,
)
from ..processor.face_preparation import FacePreparation
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import ModelLoadError, in_one_line
from ..processor.video_processing_engagement import EngagementVideoProcessor

_Config = TypeVar("_Config", bound=PreTrainedConfig)
_Model = TypeVar("_Model", bound=EngagementForImageClassification | EngagementForVideoClassification)

_CARD = """\
---
{front_matter}
---

# {title}, in stock form

The input is a face, the output one of these labels: {labels}. They are estimates of what annotators would say of a
face, not of attention, learning, effort or emotion. Plain transformers runs it, without custom code. It was made from
{origin}, whose card says what was measured, and which was trained on {trained_on}. {answers}{warnings}

## It needs face crops

{crops} The processor here resizes and normalises, but finds no faces: predictions for a whole photo mean nothing.

```python
from transformers import pipeline

classify = pipeline("image-classification", model="PATH-OR-ID-OF-THIS-FOLDER")
classify("face_crop.png")
```

## What it must not be used for

{must_not}

## Limits and licence

Populations, cameras, disability, neurodivergence and culture other than those of the training data are untested.
{license} The data it was trained on has licences of its own.
"""
_CALIBRATED = """\
Its scores are calibrated: the temperature and the bias that were fitted on validation data are part of the last
layer."""
_DECIDED = """\
Temperature, bias and the decision that were fitted on validation data are part of the last layer: the first label is
the original model's, and its score is the certainty of that decision. Calibrated scores are softmax(logits - offsets),
with the offsets {offsets}."""
_ABSTAIN = "The original gives no label below {threshold:.3f}; here every face gets one, so ignore labels below that."
_UNCALIBRATED = "It is uncalibrated: its scores do not say how often it is right."
_OURS = "The licence of the weights is the one above."
_NOT_KNOWN = "The licence of the weights is not known here; see the original model."
_MAX_STOCK_DIFFERENCE = 1e-5  # of logits up to 1, and the same share of larger ones


def export_stock(folder: Path, output: Path) -> float:
    """A single-face model → a plain folder of its family's image classifier (`BeitForImageClassification`,
    `TimmWrapperForImageClassification`, ...).

    It contains weights with the answer rule folded in, labels and the settings of a stock processor, which resizes and
    normalises as ours does. A timm model's settings are in its config.json, where the stock processor looks for them.

    Args:
        folder: a model's folder, or its Hub id.
        output: a new or empty folder.

    Returns:
        The largest difference between its logits and ours by the answer rule, on noise.

    Raises:
        ModelLoadError: there is no model, or no stock architecture for it: a temporal head, a network that is not in
            timm, features other than the stock ones, grey or norm-scaled pictures.
        DataError: the output folder is not empty, or cannot be written.
    """
    require_new_folder(output, "the model")
    with whole_folder(output) as unfinished:
        loaded, processor, rule = _load(folder)
        model = _require_stock_parts(loaded, processor, folder)
        stock = _build_stock(_fold_rule(model, rule), processor, folder)
        difference = _stock_difference(model, rule, stock, folder)
        with writing(output):
            stock.save_pretrained(unfinished)
            if not isinstance(stock, TimmWrapperForImageClassification):
                _stock_processor(processor, stock).save_pretrained(unfinished)
            _write_card(unfinished, model, processor, rule, folder)
    return difference


def _stock_difference(
    model: EngagementPreTrainedModel, rule: AnswerRule, stock: PreTrainedModel, folder: Path
) -> float:
    """The largest difference of their logits on noise; raises ModelLoadError if it exceeds float noise."""
    noise = draw_noise(model, batch_size=2)
    with torch.no_grad():  # not inference_mode: BEiT caches a tensor, with which it could not be trained
        expected = decided_logits(model(noise).logits, rule)
        try:
            logits = stock(noise).logits
        except ValueError as error:  # positions are interpolated only if requested at each call
            raise _not_stock(folder, f"an input that the stock model does not read ({in_one_line(error)})") from error
    difference = float((logits - expected).abs().max())
    if not difference <= _MAX_STOCK_DIFFERENCE * max(1.0, float(expected.abs().max())):  # also refuses NaN
        raise _not_stock(folder, f"{model.config.encoder_features!r} features; logits differ by {difference:.2g}")
    return difference


def _load(
    folder: Path,
) -> tuple[
    EngagementForVideoClassification | EngagementForImageClassification,
    EngagementVideoProcessor | EngagementImageProcessor,
    AnswerRule,
]:
    predictor = Predictor.from_pretrained(str(folder), device="cpu")  # logits are compared on the CPU
    # For mypy, transformers' wrapper of `to` is a function without self.
    model = predictor.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-arg]
    return model, predictor.tensor_processor, predictor.rule


def decided_logits(logits: torch.Tensor, rule: AnswerRule) -> torch.Tensor:
    """(n, num_labels) raw logits -> (n, num_labels), the highest of which is the label by the rule.

    The highest of their softmax is the rule's certainty; without offsets the softmax gives the calibrated scores.
    """
    temperature, bias, offsets = _folded(rule, logits)
    return (logits + bias) / temperature + offsets


def _folded(rule: AnswerRule, like: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Temperature, bias and offsets, as `AnswerRule.to_scores` and `decide` apply them."""
    bias = rule.bias if rule.temperature is not None else (0.0,) * len(rule.bias)
    return rule.temperature or 1.0, like.new_tensor(bias), like.new_tensor(rule.offsets)


def _fold_rule(model: _Model, rule: AnswerRule) -> _Model:
    """A copy whose forward gives `decided_logits`; if the rule changes nothing, with unchanged weights."""
    folded = copy.deepcopy(model)
    classifier = folded.classifier
    temperature, bias, offsets = _folded(rule, classifier.bias.data)
    if temperature == 1.0 and not bias.any() and not offsets.any():
        return folded
    classifier.weight.data /= temperature
    classifier.bias.data = (classifier.bias.data + bias) / temperature + offsets
    return folded


def draw_noise(model: EngagementPreTrainedModel, batch_size: int) -> torch.Tensor:
    """A batch of pixel values for the model, from N(0, 1), the same at every call."""
    config = model.config
    frames = () if isinstance(model, EngagementForImageClassification) else (config.num_frames,)
    shape = (batch_size, *frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# --- Stock folders


def _not_stock(folder: Path, got: str) -> ModelLoadError:
    expected = f"Expected a model that a stock image classifier can hold in {folder}"
    return ModelLoadError(f"{expected}, got {got}; publish it with its own code.")


def _require_stock_parts(
    model: EngagementPreTrainedModel, processor: FacePreparation, folder: Path
) -> EngagementForImageClassification:
    """The model, if a stock one can contain it; raises ModelLoadError."""
    encoder = model.config.encoder_config
    if not isinstance(model, EngagementForImageClassification):
        raise _not_stock(folder, f"one that reads clips (temporal head {model.config.temporal!r})")
    if type(encoder) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise _not_stock(folder, f"an encoder of type {encoder.model_type!r}")
    if isinstance(encoder, TimmWrapperConfig) and not _is_timms_own(encoder.architecture):
        raise _not_stock(folder, f"the encoder {encoder.architecture!r}, which is in our code, not in timm")
    if model.config.test_time_views > 1:
        raise _not_stock(folder, "scores averaged over several views of a face")
    if processor.do_grayscale or processor.picture_norm is not None:
        raise _not_stock(folder, "a processor that makes pictures grey or scales them to a norm")
    return model


def _is_timms_own(architecture: str) -> bool:
    return timm.model_entrypoint(architecture).__module__.startswith("timm.")


def _build_stock(model: EngagementForImageClassification, processor: FacePreparation, folder: Path) -> PreTrainedModel:
    """The stock model with all our weights, in evaluation mode."""
    encoder = model.config.encoder_config
    if isinstance(encoder, TimmWrapperConfig):
        stock, parts = _timm_parts(model, encoder, processor)
    else:
        stock, parts = _transformers_parts(model, encoder)
    shapes = {name: weight.shape for name, weight in stock.state_dict().items()}
    weights = {f"{part}.{name}": w for part, module in parts.items() for name, w in module.state_dict().items()}
    missing = shapes.keys() - weights.keys()
    if missing:
        lacking = f"{model.config.encoder_features!r} features without {len(missing)} of the stock model's weights"
        raise _not_stock(folder, f"{lacking} (first: {min(missing)})")
    if left_over := weights.keys() - shapes.keys():
        features = f"{model.config.encoder_features!r} features"
        raise _not_stock(folder, f"{features} of layers that the stock model lacks (first: {min(left_over)})")
    # DLA's classifier is a 1x1 convolution.
    weights = {
        name: w[..., None, None] if w.ndim + 2 == len(shapes.get(name, ())) else w for name, w in weights.items()
    }
    try:
        stock.load_state_dict(weights)
    except RuntimeError as error:
        raise _not_stock(folder, f"layers of other sizes ({in_one_line(error)})") from error
    return stock.eval()


def _transformers_parts(
    model: EngagementForImageClassification, encoder: PreTrainedConfig
) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """An empty stock model, and our modules by their place in it."""
    stock = AutoModelForImageClassification.from_config(_with_labels(copy.deepcopy(encoder), model.config))
    heads = _last_layers([head for name, head in stock.named_children() if "classifier" in name], stock, model)
    return stock, {stock.base_model_prefix: model.encoder.model, **heads}


def _timm_parts(
    model: EngagementForImageClassification, encoder: PreTrainedConfig, processor: FacePreparation
) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """An empty stock model, and our modules by their place in it."""
    size_px = processor.size["height"]
    # A new config, since a loaded one may also contain ImageNet's label names.
    config = TimmWrapperConfig(architecture=encoder.architecture, model_args=encoder.model_args)
    # Resize to a square without cropping: timm's own settings would crop the middle of a face.
    resizing = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    scale = 255 * (processor.rescale_factor if processor.do_rescale else 1)  # timm's are for pixels in 0..1
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    mean, std = [value / scale for value in mean], [value / scale for value in std]
    config.pretrained_cfg = {"input_size": [3, size_px, size_px], "mean": mean, "std": std, **resizing}
    stock = TimmWrapperForImageClassification(_with_labels(config, model.config))
    heads = stock.timm_model.get_classifier()
    heads = _last_layers(heads if isinstance(heads, tuple) else (heads,), stock, model)
    return stock, {"timm_model": model.encoder.model.get_submodule("timm_model"), **heads}


def _last_layers(
    heads: Iterable[nn.Module], stock: PreTrainedModel, model: EngagementForImageClassification
) -> dict[str, nn.Module]:
    """Our last layers by their names in the stock model: the classifier, for both of LeViT's averaged heads."""
    names = {module: name for name, module in stock.named_modules()}
    parts: dict[str, nn.Module] = {}
    for layer in (layer for head in heads for layer in head.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            parts[names[layer]] = model.classifier
        elif isinstance(layer, nn.BatchNorm1d):  # before LeViT's; ours has none, so this one is an identity
            parts[names[layer]] = same = nn.BatchNorm1d(layer.num_features, layer.eps)
            same.running_var = torch.full((layer.num_features,), 1 - layer.eps)
    return parts


def _with_labels(config: _Config, ours: PreTrainedConfig) -> _Config:
    config.name_or_path = ""  # the config is published and must not contain a local path
    config.num_labels = len(ours.id2label or {})  # a separate field in PVT's config
    config.id2label, config.label2id = copy.copy(ours.id2label), copy.copy(ours.label2id)
    return config


def _stock_processor(
    processor: FacePreparation, stock: PreTrainedModel
) -> BeitImageProcessor | ViTImageProcessor:  # both do the same; others crop the middle
    kind = BeitImageProcessor if isinstance(stock.config, BeitConfig) else ViTImageProcessor
    names = ("size", "image_mean", "image_std", "rescale_factor", "do_resize", "do_rescale", "do_normalize")
    return kind(**{name: getattr(processor, name) for name in names}, resample=Resampling.BILINEAR)


# --- Cards of stock folders


def _write_card(
    folder: Path, model: EngagementPreTrainedModel, processor: FacePreparation, rule: AnswerRule, origin: Path
) -> None:
    """Write the README.md of `folder`.

    Args:
        processor: the original model's, which finds and crops faces.
        origin: that model's folder, or its Hub id.

    Raises:
        ModelLoadError: the origin's results or card cannot be read.
    """
    results = read_results(origin) if (origin / RESULTS_FILE).is_file() else None
    license_name = _license_of(origin, results)
    front_matter = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license=license_name,
        tags=["engagement-recognition", "face"],
    )
    warnings = [f"\n\n**Take care: {warning}.**" for warning in (results.warnings() if results else [])]
    card = _CARD.format(
        front_matter=front_matter.to_yaml(),
        title=title_of(model, results.stage) if results else f"Labels of a face: {encoder_name(model)}",
        labels=", ".join(model.config.label_names),
        origin=f"`{origin.resolve().name if origin.is_dir() else origin}`",
        trained_on=rule.trained_on if rule.trained_on != UNKNOWN else "unknown data",
        answers=_describe_answers(rule),
        warnings="".join(warnings),
        crops=_describe_crops(processor),
        must_not=LIMITS_AND_WHY,
        license=_NOT_KNOWN if license_name == "other" else _OURS,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _describe_answers(rule: AnswerRule) -> str:
    abstain = _ABSTAIN.format(threshold=rule.threshold)
    if any(rule.offsets):
        offsets = ", ".join(f"{offset:.4g}" for offset in rule.offsets)
        return f"{_DECIDED.format(offsets=offsets)} {abstain}"
    return f"{_CALIBRATED if rule.is_calibrated else _UNCALIBRATED} {abstain}"


def _describe_crops(processor: FacePreparation) -> str:
    if not processor.face_crop:
        return "One picture is one face that fills it, as in the training data."
    return (
        "One picture is one face: a square around the face's box, turned until the eyes are level, with "
        f"{processor.face_margin_ratio:.0%} of the box's longer side as margin on each side."
    )


def _license_of(origin: Path, results: Results | None) -> str:
    """The licence in the origin's card, else the one known for its weights."""
    card = origin / CARD_FILE
    try:
        named = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, yaml.YAMLError) as error:
        raise ModelLoadError(f"The YAML at the top of the card {card} cannot be read; correct it.") from error
    return named or (choose_license(results) if results else "other")
