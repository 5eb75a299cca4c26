"""A model as one ONNX file, its answer rule folded in; refused where its logits would differ."""

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

    The batch may be of any size, and clips of any number of frames (of as many as the config says where ONNX cannot
    hold that: the input's shape tells); the rest is fixed. The file's metadata say how `pixel_values` are made and
    what the logits stand for, in JSON: `preprocessor_config`, `label_names`, and `answer_rule`, which is folded into
    the last layer (`export_stock.decided_logits`): the highest of softmax(logits) is how sure the label is, to be
    compared with its `abstain_below`; softmax(logits - its `offsets`) are the scores. Needs the extra `onnx`.

    Args:
        folder: of a model of ours, or its Hub id.
        output: a new file, .onnx.

    Returns:
        The largest difference between its logits in onnxruntime and ours by the answer rule, on noise, in batches of 1
        and 3.

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
        model, processor, rule = _load(folder)
        _write_onnx(_fold_rule(model, rule), processor, rule, unfinished, folder)
        difference = max(_onnx_difference(model, rule, unfinished, batch_size) for batch_size in (1, 3))
        if not difference <= _MAX_ONNX_DIFFERENCE:  # NaN is not
            raise ModelLoadError(
                f"Expected ONNX to repeat the model in {folder} within {_MAX_ONNX_DIFFERENCE:g}, got logits that "
                f"differ by {difference:.2g}; serve it with PyTorch."
            )
    return difference


class _Logits(nn.Module):
    """One tensor in, one out: what ONNX calls inputs and outputs."""

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
    exported.model.set_attn_implementation("eager")  # torch.export stumbles over BEiT's mask in the fused one
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
    """For clips of any number of frames; whether it could be done, and clips twice as long get the same logits."""
    example = torch.cat([clips[:, :1], clips[:, -1:]], dim=1)  # of one frame the number would be a constant
    longer = torch.cat([clips, clips.roll(1, -1)], dim=1)
    try:
        write_onnx(module, example, "pixel_values", "logits", path, origin, metadata, any_length=True)
        got = _run(path, longer)
    except Exception:  # the export's, and onnxruntime's of several kinds; then of a fixed length
        return False
    with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
        return float((got - module(longer)).abs().max()) <= _MAX_ONNX_DIFFERENCE


def _onnx_difference(model: EngagementPreTrainedModel, rule: AnswerRule, path: Path, batch_size: int) -> float:
    noise = draw_noise(model, batch_size)
    with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
        expected = decided_logits(model(noise).logits, rule)
    return float((_run(path, noise) - expected).abs().max())


def _run(path: Path, pixel_values: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
    return torch.from_numpy(logits)
