"""A model as one ONNX file, with its answer rule folded in; refused if its logits differ."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from ..answer_rule import AnswerRule
from ..data.atomic_files import whole_file, writing
from ..data.required_packages import require_extra
from ..modeling_engagement import EngagementForVideoClassification, EngagementPreTrainedModel
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import DataError, ModelLoadError
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .export_networks import write_onnx
from .export_stock import _fold_rule, _load, decided_logits, draw_noise

_MAX_ONNX_DIFFERENCE = 1e-3  # of logits


def export_onnx(folder: Path, output: Path) -> float:
    """A model → one ONNX file: `pixel_values` (batch, [num_frames,] C, size, size) → `logits` (batch, num_labels).

    The batch may have any size, and clips any number of frames (the config's number if ONNX cannot express that; see
    the input's shape); the rest is fixed. The file's metadata describe, in JSON, how `pixel_values` are made and what
    the logits mean: `preprocessor_config`, `label_names`, and `answer_rule`, which is folded into the last layer
    (`export_stock.decided_logits`): the highest of softmax(logits) is the label's certainty, to be compared with
    `abstain_below`; softmax(logits - `offsets`) are the scores. Needs the extra `onnx`.

    Args:
        folder: a model's folder, or its Hub id.
        output: a new file, .onnx.

    Returns:
        The largest difference between its logits in onnxruntime and ours by the answer rule, on noise, in batches of 1
        and 3.

    Raises:
        EngagementInputError: the extra is not installed.
        ModelLoadError: there is no model, ONNX cannot express it, or logits differ by more than 1e-3.
        DataError: the file exists, has another suffix, or cannot be written.
    """
    if output.suffix.lower() != ".onnx":
        raise DataError(f"The model's file must end in .onnx, got {output}; rename it.")
    with writing(output):
        if output.exists():
            raise DataError(f"{output} exists already; name a new file.")
    require_extra("onnx", ("onnx", "onnxruntime", "onnxscript"))
    with whole_file(output) as unfinished:
        model, processor, rule = _load(folder)
        _write_onnx(_fold_rule(model, rule), processor, rule, unfinished, folder)
        difference = max(_onnx_difference(model, rule, unfinished, batch_size) for batch_size in (1, 3))
        if not difference <= _MAX_ONNX_DIFFERENCE:  # also refuses NaN
            raise ModelLoadError(
                f"The logits of {folder} in ONNX differ by {difference:.2g}, more than {_MAX_ONNX_DIFFERENCE:g}; serve "
                "the model with PyTorch."
            )
    return difference


class _Logits(nn.Module):
    """One tensor in, one out, as ONNX needs."""

    def __init__(self, model: EngagementPreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def _write_onnx(
    model: EngagementPreTrainedModel,
    processor: EngagementVideoProcessor | EngagementImageProcessor,
    rule: AnswerRule,
    path: Path,
    folder: Path,
) -> None:
    exported = _Logits(model)
    exported.model.set_attn_implementation("eager")  # torch.export fails with BEiT's mask in fused attention
    metadata = {
        "preprocessor_config": processor.to_json_string(),
        "label_names": json.dumps(model.config.label_names),
        "answer_rule": json.dumps({**asdict(rule), "abstain_below": rule.threshold}),
    }
    example = draw_noise(model, batch_size=2)
    is_video = isinstance(model, EngagementForVideoClassification)
    if not (is_video and _write_any_length(exported, example, path, str(folder), metadata)):
        write_onnx(exported, example, "pixel_values", "logits", path, str(folder), metadata)


def _write_any_length(
    module: nn.Module, clips: torch.Tensor, path: Path, origin: str, metadata: Mapping[str, str]
) -> bool:
    """Write for any number of frames; returns whether that worked, with the same logits for clips twice as long."""
    example = torch.cat([clips[:, :1], clips[:, -1:]], dim=1)  # with one frame the number would become a constant
    longer = torch.cat([clips, clips.roll(1, -1)], dim=1)
    try:
        write_onnx(module, example, "pixel_values", "logits", path, origin, metadata, any_length=True)
        got = _run(path, longer)
    except Exception:  # of the export or onnxruntime; the caller then uses a fixed length
        return False
    with torch.no_grad():  # not inference_mode: BEiT caches a tensor made here
        return float((got - module(longer)).abs().max()) <= _MAX_ONNX_DIFFERENCE


def _onnx_difference(model: EngagementPreTrainedModel, rule: AnswerRule, path: Path, batch_size: int) -> float:
    noise = draw_noise(model, batch_size)
    with torch.no_grad():  # not inference_mode: BEiT caches a tensor made here
        expected = decided_logits(model(noise).logits, rule)
    return float((_run(path, noise) - expected).abs().max())


def _run(path: Path, pixel_values: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
    return torch.from_numpy(logits)
