"""Imports existing models: the CNN + LSTM study's `.pth` files, and stock BEiT and timm classifiers.

An imported model gives the same logits as the original and is stored like a trained one (weights, config, processor,
`results.json`), but without scores, since nothing was measured here. Files are recognised by the names and shapes of
their weights, never by file name, and loaded as data (`weights_only=True`): no code in them runs.
"""

import hashlib
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torchvision.models import mobilenet_v3_large, resnet18
from transformers import AutoConfig, AutoModelForImageClassification, BeitForImageClassification, TimmWrapperConfig

from .. import register_auto_classes
from ..configuration_engagement import EngagementConfig
from ..data.atomic_files import whole_folder, writing
from ..evaluation.results_file import write_results
from ..evaluation.results_schema import ImportedFrames, ImportedFrom, ReportedByFile, Results
from ..evaluation.training_log import _name_first
from ..inference.model_source import check_stock
from ..modeling_engagement import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementPreTrainedModel,
)
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import DataError, ModelLoadError, in_one_line
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .stock_processor import StockClassifier, processor_of_stock

_Processor = EngagementVideoProcessor | EngagementImageProcessor
_FRAME_SIZE_PX, _LSTM_UNITS = 112, 256  # of the CNN + LSTM study
_STUDY_FRAMES = ImportedFrames(
    num_frames=8, sampling="consecutive", window_stride_frames=16, face_crop=False, face_crop_size_px=_FRAME_SIZE_PX
)
_STUDY_LABEL_NAMES = {2: ("disengaged", "engaged"), 3: ("engaged", "bored", "other")}  # in the order of its files
_COUNTER = "num_batches_tracked"  # of a BatchNorm; unused, and may be missing in a file
# A numpy scalar is data (such as a score of scikit-learn); numpy 1 and numpy 2 name it differently.
_NUMPY_SCALAR: Callable[..., object] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]  # never a str in numpy
_HARMLESS: list[Callable[..., object] | tuple[Callable[..., object], str]]
_HARMLESS = [(_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")]
_HARMLESS += [np.dtype, type(np.dtype(np.float64))]


@dataclass(frozen=True)
class ImportedModel:
    """An imported model, written to `folder`, which the Auto classes load."""

    folder: Path
    model: EngagementPreTrainedModel  # in evaluation mode
    processor: EngagementVideoProcessor | EngagementImageProcessor
    origin: ImportedFrom  # as in its results
    results: Results  # without scores


def import_checkpoint(path: Path, output: Path, label_names: Sequence[str] | None = None) -> ImportedModel:
    """A `.pth` file of the CNN + LSTM study on DAiSEE → a folder of ours with the same logits.

    ResNet-18 + LSTM, MobileNetV3-Large + LSTM or MobileNetV3-Large on one frame, any number of classes; as
    `{"model_state_dict", "epoch", "val_f1"}` or a bare state dict, from `DataParallel` or not. Frames are read as in
    the study: whole, 112x112 px, 8 consecutive ones. Files do not say whether the encoder was frozen in training.

    Args:
        output: a new or empty folder.
        label_names: by class index. Default: the study's own, for two and three classes.

    Raises:
        ModelLoadError: the file is of another kind, damaged or contains code, or weights are missing, unknown, of
            another shape or not finite.
        DataError: the number of label names differs from that of classes, or the output folder is not empty.
    """
    register_auto_classes()
    _require_new_folder(output)
    weights, reported = _read_checkpoint(path)
    system = _recognise_system(weights, path)
    rows = weights.get(system.classifier_key)
    num_classes = (
        len(rows) if rows is not None and rows.ndim == 2 and len(rows) > 0 else 2
    )  # other shapes are refused below
    original = system.empty_original(num_classes).state_dict()
    _require_layout(weights, original, f"{system.name} in {path}")
    names = _require_label_names(label_names or _STUDY_LABEL_NAMES.get(num_classes, ()), num_classes, path)
    _require_finite(weights, path)
    model, processor = system.build(names)
    # timm has torchvision's layers in the same order; the layer after MobileNetV3's map is a 1x1 convolution in timm.
    pairs = zip(model.state_dict().items(), original, strict=True)
    model.load_state_dict({ours: weights.get(name, like).reshape(like.shape) for (ours, like), name in pairs})
    origin = ImportedFrom(
        source=path.name,
        system=system.name,
        num_weights=model.num_parameters(),
        num_encoder_weights=model.encoder.num_parameters(),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        reported_by_file=reported,
        frames=_STUDY_FRAMES,
    )
    return _write(model, processor, origin, output)


def import_stock_classifier(
    source: str | Path, output: Path, label_names: Sequence[str] | None = None
) -> ImportedModel:
    """A stock `BeitForImageClassification` or `TimmWrapperForImageClassification` → a folder of ours, logits equal.

    The processor uses the stock one's size, mean and deviation, and first finds the face as the BEiT reference does:
    MTCNN, a margin of 20 %, eyes level. A stock ViT, which reads only a class token, is refused.

    Args:
        source: a local folder or a Hub id; code in it does not run.
        output: a new or empty folder.
        label_names: by class index. Default: those in the stock config.

    Raises:
        ModelLoadError: the model is of another kind or damaged, weights are missing, unknown or not finite, or our
            logits differ.
        DataError: the number of label names differs from that of classes, or the output folder is not empty.
    """
    register_auto_classes()
    _require_new_folder(output)
    stock = _load_stock_classifier(source)
    _require_finite(stock.state_dict(), source)
    own_names = [name for _, name in sorted((stock.config.id2label or {}).items())]
    names = _require_label_names(label_names or own_names, len(own_names), source)
    processor = processor_of_stock(stock, source)
    model = _rebuild_stock_classifier(stock, names, processor, source)
    shown = Path(source).name if Path(source).exists() else str(source)  # without local folders
    origin = ImportedFrom(
        source=shown,
        system=type(stock).__name__,
        num_weights=model.num_parameters(),
        num_encoder_weights=model.encoder.num_parameters(),
    )
    return _write(model, processor, origin, output)


@dataclass(frozen=True)
class _System:
    """One architecture of the CNN + LSTM study: its weights' names there, and the equivalent here."""

    name: str
    architecture: str  # timm's name
    model_args: dict[str, float] | None
    is_video: bool
    classifier_key: str  # the last layer's weight, one row per class

    def empty_original(self, num_classes: int) -> nn.Module:
        """The layers of the study's PyTorch module under its names, without allocating memory."""
        with torch.device("meta"):
            if not self.is_video:
                return mobilenet_v3_large(num_classes=num_classes)
            is_resnet = self.architecture == "resnet18"
            cnn = nn.Sequential(*list(resnet18().children())[:-2]) if is_resnet else mobilenet_v3_large().features
            lstm = nn.LSTM(512 if is_resnet else 960, _LSTM_UNITS, batch_first=True)
            classifier = nn.Sequential(nn.Dropout(), nn.Linear(_LSTM_UNITS, num_classes))
            return nn.ModuleDict({"cnn_backbone": cnn, "lstm": lstm, "classifier": classifier})

    def build(self, label_names: Sequence[str]) -> tuple[EngagementPreTrainedModel, _Processor]:
        """Our model and processor."""
        config = EngagementConfig(
            encoder_config=TimmWrapperConfig(architecture=self.architecture, model_args=self.model_args),
            # A single frame is classified from the layer after the map, after torchvision's own dropout.
            encoder_features="map" if self.is_video else "pooled",
            dropout=0.5 if self.is_video else 0.2,
            image_size=_FRAME_SIZE_PX,
            num_frames=8,
            temporal_hidden_size=_LSTM_UNITS,
            id2label=dict(enumerate(label_names)),
            label2id=_label2id(label_names),
        )
        size, crop_size_px = {"height": _FRAME_SIZE_PX, "width": _FRAME_SIZE_PX}, _FRAME_SIZE_PX  # resized once
        if self.is_video:
            return EngagementForVideoClassification(config), EngagementVideoProcessor(
                size=size, face_crop=False, face_crop_size_px=crop_size_px, num_frames=8, sampling="consecutive"
            )
        return EngagementForImageClassification(config), EngagementImageProcessor(
            size=size, face_crop=False, face_crop_size_px=crop_size_px, pictures_are_frames=True
        )


_MOBILENET = ("mobilenetv3_large_100", {"bn_eps": 1e-3})  # torchvision's epsilon; timm's own is 1e-5
_SYSTEMS = (
    _System("ResNet-18 + LSTM", "resnet18", None, True, "classifier.1.weight"),
    _System("MobileNetV3-Large + LSTM", *_MOBILENET, True, "classifier.1.weight"),
    _System("MobileNetV3-Large (one frame)", *_MOBILENET, False, "classifier.3.weight"),
)


def _read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], ReportedByFile]:
    """Weights by name; epoch and validation F1 if the file reports them, else None."""
    loaded = _load_as_data(path)
    content = loaded if isinstance(loaded, Mapping) else {}
    weights = content.get("model_state_dict", content)
    if not isinstance(weights, Mapping) or not weights or not all(map(_is_plain_weight, weights, weights.values())):
        got = _name_first(weights) if isinstance(weights, Mapping) and weights else type(loaded).__name__
        raise ModelLoadError(f"{path} must contain dense tensors by name, or model_state_dict with them, got {got}.")
    weights = dict(weights)
    consume_prefix_in_state_dict_if_present(weights, "module.")  # DataParallel's
    reported = ReportedByFile(epoch=_finite_number(content.get("epoch")), val_f1=_finite_number(content.get("val_f1")))
    return weights, reported


def _finite_number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and abs(value) < math.inf else None  # false for NaN


def _load_as_data(path: Path) -> object:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise ModelLoadError(f"{path} {found}; pass a checkpoint file (.pth).")
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other pickle protocols, which are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"a pickle with code in it ({code[1]}), which was not run"
            if code
            else "a damaged, truncated or different file"
        )
        reason = reason if path.stat().st_size else "an empty file"
        raise ModelLoadError(f"Expected model.state_dict() saved by torch.save in {path}, got {reason}.") from error


def _is_plain_weight(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return False
    if type(value) not in (torch.Tensor, nn.Parameter):
        return False
    is_dense = value.layout == torch.strided and value.device.type == "cpu"
    return is_dense and (value.is_floating_point() or name.endswith(_COUNTER))


@cache
def _weight_names() -> dict[str, set[str]]:
    return {system.name: set(system.empty_original(2).state_dict()) for system in _SYSTEMS}


def _recognise_system(weights: Mapping[str, torch.Tensor], path: Path) -> _System:
    """The system that has most weight names in common with the file."""
    names = _weight_names()
    best = max(_SYSTEMS, key=lambda system: len(names[system.name] & weights.keys()))
    if len(names[best.name] & weights.keys()) < len(names[best.name]) / 2:
        raise ModelLoadError(f"{path} has no weights of {' or '.join(names)}, but {_name_first(weights)}.")
    return best


def _require_layout(weights: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor], described: str) -> None:
    missing = [name for name in original if name not in weights and not name.endswith(_COUNTER)]
    _require_all(missing, [name for name in weights if name not in original], described)
    for name, weight in weights.items():
        expected, got = tuple(original[name].shape), tuple(weight.shape)
        if got != expected:
            raise ModelLoadError(f"{name} must have the shape {expected} for {described}, got {got}.")


def _load_stock_classifier(source: str | Path) -> StockClassifier:
    """The stock model in evaluation mode, each of its weights from the file."""
    try:
        check_stock(source, AutoModelForImageClassification.from_config)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.model_type not in ("beit", "timm_wrapper"):
            raise ValueError(f"type {config.model_type!r} is neither BEiT nor timm")
        stock, report = AutoModelForImageClassification.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except ModelLoadError:
        raise
    except Exception as error:  # transformers, safetensors, pickle, json and timm each raise their own
        reason = in_one_line(error)
        raise ModelLoadError(f"{source} cannot be imported as a stock BEiT or timm classifier ({reason}).") from error
    _require_all(report["missing_keys"], report["unexpected_keys"], f"{type(stock).__name__} in {source}")
    stock.config.name_or_path = ""  # our model stores this config, and is published
    for tensor in (*stock.parameters(), *stock.buffers()):
        tensor.data = tensor.data.clone()  # memory-mapped weights are unaligned, for which kernels round differently
    return stock.eval()


def _rebuild_stock_classifier(
    stock: StockClassifier, label_names: Sequence[str], processor: EngagementImageProcessor, source: str | Path
) -> EngagementForImageClassification:
    """Our model with the stock one's weights; their logits on noise must be equal."""
    size_px, num_channels = processor.size["height"], 1 if processor.do_grayscale else 3
    try:
        config = EngagementConfig(
            encoder_config=stock.config,
            encoder_features="pooled",
            image_size=size_px,
            num_channels=num_channels,
            dropout=0.0,
            id2label=dict(enumerate(label_names)),
            label2id=_label2id(label_names),
        )
        model = EngagementForImageClassification(config).eval()
        if isinstance(stock, BeitForImageClassification):
            encoder: nn.Module = stock.beit
            classifier: nn.Module = stock.classifier
        else:
            encoder, classifier = stock, stock.timm_model.get_classifier()
        last_layer = {id(weight) for weight in classifier.parameters()}
        weights = encoder.state_dict(keep_vars=True).items()
        model.encoder.model.load_state_dict({name: w for name, w in weights if id(w) not in last_layer})
        model.classifier.load_state_dict(classifier.state_dict())
        noise = torch.randn(2, num_channels, size_px, size_px)
        with torch.no_grad():  # not inference_mode: BEiT caches a tensor, with which it could not be trained
            difference = float((stock(noise).logits - model(noise).logits).abs().max())
        if not difference <= 1e-5:  # also refuses NaN
            raise ValueError(f"logits differ by {difference:.2g}")
    except (RuntimeError, ValueError, AttributeError, AssertionError) as error:
        reason = f"but our model differs from it ({in_one_line(error)})"
        raise ModelLoadError(f"Expected a classifier that ends in one linear layer in {source}, {reason}.") from error
    return model


def _label2id(label_names: Sequence[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(label_names)}


def _require_label_names(names: Sequence[str], num_classes: int, source: str | Path) -> list[str]:
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise DataError(f"{source} needs {num_classes} different label names, got {_name_first(names)}.")
    return list(names)


def _require_all(missing: Iterable[str], unknown: Iterable[str], described: str) -> None:
    missing, unknown = sorted(missing), sorted(unknown)
    if missing or unknown:
        got = f"{len(missing)} missing ({_name_first(missing)}) and {len(unknown)} unknown ({_name_first(unknown)})"
        raise ModelLoadError(f"The weights of {described} do not fit: {got}.")


def _require_finite(weights: Mapping[str, torch.Tensor], source: str | Path) -> None:
    broken = [name for name, weight in weights.items() if not torch.isfinite(weight.float()).all()]
    if broken:
        raise ModelLoadError(
            f"The weights {_name_first(broken)} in {source} contain NaN or infinity; use another file."
        )


def _require_new_folder(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} exists and is not an empty folder; name a new or empty one for the model.")


def _write(
    model: EngagementPreTrainedModel, processor: _Processor, origin: ImportedFrom, output: Path
) -> ImportedModel:
    """Write the folder, completely or not at all; its results have `origin` under "imported"."""
    label_names = model.config.label_names
    results = Results(stage="engagement", label_names=label_names, started_from=origin.source, imported=origin)
    output = output.resolve()
    with whole_folder(output) as unfinished, writing(output):
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        write_results(unfinished, results)
        shutil.rmtree(unfinished / "__pycache__", ignore_errors=True)
    return ImportedModel(output, model.eval(), processor, origin, results)
