"""Models of ours → forms that others serve: a stock transformers folder without custom code, and ONNX.

A stock folder is what the Hub's widget can run; it holds a single-face model only, and its processor finds no faces: it
is fed with crops. ONNX holds any model, from pixel values to logits. Either is written only when it says the same as
the model it came from; how far apart the two are is returned. `checkpoints.import_stock_classifier` is the way back.
"""

import copy
import json
import warnings
from pathlib import Path

import timm
import torch
from PIL.Image import Resampling
from torch import nn
from transformers import (
    BeitForImageClassification,
    BeitImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from ..data.atomic_files import require_new_folder, whole_file, whole_folder, writing
from ..inference.predictor import Predictor
from ..modeling_engagement import EngagementForImageClassification, EngagementPreTrainedModel
from ..processor.face_preparation import FacePreparation
from ..processor.input_errors import DataError, ModelLoadError
from ..required_packages import require_extra
from .stock_card import write_stock_card

_MAX_STOCK_DIFFERENCE = 1e-5  # of logits up to 1, and the same share of larger ones
_MAX_ONNX_DIFFERENCE = 1e-3  # of logits


def export_stock(folder: Path, output: Path) -> float:
    """A single-face model → a plain `BeitForImageClassification` or `TimmWrapperForImageClassification` folder.

    Weights, labels and the settings of a stock processor, which resizes and normalises as ours does. A timm model's
    stand in its config.json, where the stock processor looks for them.

    Args:
        folder: of a model of ours, or its Hub id.
        output: a new or empty folder.

    Returns:
        The largest difference between its logits and ours, on noise.

    Raises:
        ModelLoadError: no model is there, or one that no stock architecture holds: a temporal head, a network that timm
            itself does not have, features other than the stock ones, grey or norm-scaled pictures.
        DataError: the output folder holds something, or cannot be written.
    """
    require_new_folder(output, "the model")
    with whole_folder(output) as unfinished:
        model, processor = _load(folder)
        _require_stock_parts(model, processor, folder)
        stock = _build_stock(model, processor, folder)
        difference = _stock_difference(model, stock, folder)
        with writing(output):
            stock.save_pretrained(unfinished)
            if isinstance(stock, BeitForImageClassification):
                _beit_processor(processor).save_pretrained(unfinished)
            write_stock_card(unfinished, model, processor, folder)
    return difference


def _stock_difference(model: EngagementPreTrainedModel, stock: PreTrainedModel, folder: Path) -> float:
    """The largest difference of their logits on noise; raises ModelLoadError where it is one."""
    noise = _draw_noise(model, batch_size=2)
    with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here, and could not be trained with it
        logits, expected = stock(noise).logits, model(noise).logits
    difference = float((logits - expected).abs().max())
    if not difference <= _MAX_STOCK_DIFFERENCE * max(1.0, float(expected.abs().max())):  # NaN is not
        raise _not_stock(folder, f"{model.config.encoder_features!r} features; logits differ by {difference:.2g}")
    return difference


def export_onnx(folder: Path, output: Path) -> float:
    """A model → one ONNX file: `pixel_values` (batch, [num_frames,] C, size, size) → `logits` (batch, num_labels).

    The batch may be of any size, the rest is fixed. The file's metadata say how `pixel_values` are made and what the
    logits stand for: `preprocessor_config` and `label_names`, both JSON. Needs the extra `onnx`.

    Args:
        folder: of a model of ours, or its Hub id.
        output: a new file, .onnx.

    Returns:
        The largest difference between its logits in onnxruntime and ours, on noise, in batches of 1 and 3.

    Raises:
        EngagementInputError: the extra is not installed.
        ModelLoadError: no model is there, or one that ONNX cannot hold or does not repeat within 1e-3.
        DataError: there is such a file, it is called otherwise, or it cannot be written.
    """
    if output.suffix.lower() != ".onnx":
        raise DataError(f"Expected a file called .onnx for the model, got {output}; give it that ending.")
    with writing(output):
        if output.exists():
            raise DataError(f"Expected a new file for the model, got {output}, which exists.")
    require_extra("onnx", ("onnx", "onnxruntime", "onnxscript"))
    with whole_file(output) as unfinished:
        model, processor = _load(folder)
        _write_onnx(model, processor, unfinished, folder)
        difference = max(_onnx_difference(model, unfinished, batch_size) for batch_size in (1, 3))
        if not difference <= _MAX_ONNX_DIFFERENCE:  # NaN is not
            raise ModelLoadError(
                f"Expected ONNX to repeat the model in {folder} within {_MAX_ONNX_DIFFERENCE:g}, got logits that "
                f"differ by {difference:.2g}; serve it with PyTorch."
            )
    return difference


def _load(folder: Path) -> tuple[EngagementPreTrainedModel, FacePreparation]:
    predictor = Predictor.from_pretrained(str(folder))
    return predictor.model.to(memory_format=torch.contiguous_format), predictor.processor


def _draw_noise(model: EngagementPreTrainedModel, batch_size: int) -> torch.Tensor:
    config = model.config
    frames = () if isinstance(model, EngagementForImageClassification) else (config.num_frames,)
    shape = (batch_size, *frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# --- Stock folders


def _not_stock(folder: Path, got: str) -> ModelLoadError:
    expected = f"Expected a model that a stock BEiT or timm classifier can hold in {folder}"
    return ModelLoadError(f"{expected}, got {got}; publish it with its own code.")


def _require_stock_parts(model: EngagementPreTrainedModel, processor: FacePreparation, folder: Path) -> None:
    encoder = model.config.encoder_config
    if not isinstance(model, EngagementForImageClassification):
        raise _not_stock(folder, f"one that reads clips (temporal head {model.config.temporal!r})")
    if encoder.model_type not in ("beit", "timm_wrapper"):
        raise _not_stock(folder, f"an encoder of type {encoder.model_type!r}")
    if encoder.model_type == "timm_wrapper" and not _is_timms_own(encoder.architecture):
        raise _not_stock(folder, f"the encoder {encoder.architecture!r}, which timm has from our code only")
    if processor.do_grayscale or processor.picture_norm is not None:
        raise _not_stock(folder, "pictures made grey or scaled to a norm, which no stock processor does")


def _is_timms_own(architecture: str) -> bool:
    return timm.model_entrypoint(architecture).__module__.startswith("timm.")


def _build_stock(
    model: EngagementForImageClassification, processor: FacePreparation, folder: Path
) -> BeitForImageClassification | TimmWrapperForImageClassification:
    """The stock model with our weights, all of them, in evaluation mode."""
    stock, parts = (_beit_parts if model.config.encoder_config.model_type == "beit" else _timm_parts)(model, processor)
    weights = {f"{part}.{name}": w for part, module in parts.items() for name, w in module.state_dict().items()}
    missing = stock.state_dict().keys() - weights.keys()
    if missing:
        lacking = f"{model.config.encoder_features!r} features without {len(missing)} of the stock model's weights"
        raise _not_stock(folder, f"{lacking} (first: {min(missing)})")
    try:
        stock.load_state_dict(weights)
    except RuntimeError as error:
        raise _not_stock(folder, f"layers of other sizes ({' '.join(str(error).split())[:200]})") from error
    return stock.eval()


def _beit_parts(
    model: EngagementForImageClassification, processor: FacePreparation
) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """An empty stock model, and which of our modules stand where in it."""
    config = _with_labels(copy.deepcopy(model.config.encoder_config), model.config)
    return BeitForImageClassification(config), {"beit": model.encoder.model, "classifier": model.classifier}


def _timm_parts(
    model: EngagementForImageClassification, processor: FacePreparation
) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """An empty stock model, and which of our modules stand where in it."""
    encoder, size_px = model.config.encoder_config, processor.size["height"]
    # A new config: a loaded one may hold ImageNet's label names beside ours.
    config = TimmWrapperConfig(architecture=encoder.architecture, model_args=encoder.model_args)
    # Squeezed to a square, nothing cut away: timm's own settings would crop the middle of a face.
    resizing = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    mean, std = _mean_and_std(processor)
    config.pretrained_cfg = {"input_size": [3, size_px, size_px], "mean": mean, "std": std, **resizing}
    stock = TimmWrapperForImageClassification(_with_labels(config, model.config))
    classifier = stock.timm_model.get_classifier()
    name = next((name for name, module in stock.named_modules() if module is classifier), "no single layer")
    return stock, {"timm_model": model.encoder.model.timm_model, name: model.classifier}


def _with_labels(config: PreTrainedConfig, ours: PreTrainedConfig) -> PreTrainedConfig:
    config.name_or_path = ""  # published, and where an encoder lay is nobody's business
    config.id2label, config.label2id = dict(ours.id2label), dict(ours.label2id)
    return config


def _mean_and_std(processor: FacePreparation) -> tuple[list[float], list[float]]:
    """For pixels in 0..1, which is what timm subtracts them from."""
    scale = 255 * (processor.rescale_factor if processor.do_rescale else 1)
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    return [value / scale for value in mean], [value / scale for value in std]


def _beit_processor(processor: FacePreparation) -> BeitImageProcessor:
    names = ("size", "image_mean", "image_std", "rescale_factor", "do_resize", "do_rescale", "do_normalize")
    return BeitImageProcessor(**{name: getattr(processor, name) for name in names}, resample=Resampling.BILINEAR)


# --- ONNX


class _Logits(nn.Module):
    """One tensor in, one out: what ONNX calls inputs and outputs."""

    def __init__(self, model: EngagementPreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def _write_onnx(model: EngagementPreTrainedModel, processor: FacePreparation, path: Path, folder: Path) -> None:
    exported = _Logits(copy.deepcopy(model)).eval().requires_grad_(False)
    exported.model.set_attn_implementation("eager")  # torch.export stumbles over BEiT's mask in the fused one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export's, of its own internals
            program = torch.onnx.export(
                exported, (_draw_noise(model, batch_size=2),), dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},), input_names=["pixel_values"], output_names=["logits"],
            )  # fmt: skip
        program.model.metadata_props["preprocessor_config"] = processor.to_json_string()
        program.model.metadata_props["label_names"] = json.dumps(list(model.config.id2label.values()))
        program.save(path, external_data=False)
    except Exception as error:  # torch.export, the converter and protobuf (above 2 GiB) each have their own
        reason = " ".join(str(error).split())[:200]
        expected = f"Expected a model that ONNX can hold in {folder}"
        raise ModelLoadError(f"{expected}, got one it cannot ({reason}).") from error


def _onnx_difference(model: EngagementPreTrainedModel, path: Path, batch_size: int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    noise = _draw_noise(model, batch_size)
    with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
        expected = model(noise).logits
    (logits,) = session.run(["logits"], {"pixel_values": noise.numpy()})
    return float((torch.from_numpy(logits) - expected).abs().max())
