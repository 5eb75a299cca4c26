"""A model as a folder for ONNX Runtime or OpenVINO: its two networks, and all else that answers need.

Both formats start from one ONNX graph per network, which torch writes. `transformers.exporters` is not used: it is new
in 5.24, while we support 5.20, is called experimental, exports a model as a whole, while `live` needs encoder and head
separately, and adds nothing to torch's own exporter for the encoders tried here.
"""

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from ..answer_rule import AnswerRule
from ..data.atomic_files import require_new_folder, whole_folder, writing
from ..data.json_records import write_record
from ..data.required_packages import require_extra
from ..hub.model_files import LICENSE_FILE
from ..inference.export_folder import (
    EXPORT_FILE,
    NETWORKS,
    PROCESSOR_FILES,
    ExportRecord,
    Gate,
    source_digests,
)
from ..inference.exported_engine import load_engine, silent_openvino
from ..inference.exported_processor import DETECTOR_FOLDER
from ..inference.find_export import local_folder
from ..inference.predictor import Predictor
from ..inference.torch_engine import Model, to_array
from ..modeling_engagement import EngagementForVideoClassification
from ..processor.input_errors import ModelLoadError, in_one_line
from .export_detector import export_face_detector
from .export_stock import draw_noise

Format = Literal["onnx", "openvino"]
MAX_DIFFERENCE = 1e-3  # of logits
_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
}


@dataclass(frozen=True)
class Source:
    """A model to export, on the CPU, and its folder."""

    folder: Path
    predictor: Predictor
    digests: Mapping[str, str]

    @property
    def model(self) -> Model:
        """In evaluation mode, with attention in a form that torch.export supports."""
        return self.predictor.model

    @property
    def rule(self) -> AnswerRule:
        """How logits become an answer."""
        return self.predictor.rule


def open_source(model: str) -> Source:
    """A model of ours, from its folder or the Hub; raises ModelLoadError if there is none."""
    folder = local_folder(model)
    predictor = Predictor.from_pretrained(str(folder), device="cpu")
    # For mypy, transformers' wrapper of `to` is a function without self.
    predictor.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-arg]
    predictor.model.set_attn_implementation("eager")  # torch.export fails with BEiT's mask in fused attention
    return Source(folder, predictor, source_digests(folder))


def export_networks(model: str, output: Path, to: Format) -> ExportRecord:
    """A model → a folder of its encoder and head in float32, for any batch size, for `--engine` and `--model`.

    Args:
        model: a model's folder, or its Hub id.
        output: a new or empty folder.

    Returns:
        The content of `export.json`.

    Raises:
        EngagementInputError: the packages of the format are not installed.
        ModelLoadError: there is no model, the format cannot express it, or logits differ by more than 1e-3.
        DataError: the folder is not empty, or cannot be written.
    """
    require_new_folder(output, "the export")
    require_packages_of(to)
    source = open_source(model)
    with whole_folder(output) as unfinished, writing(output):
        write_networks(source, unfinished, to)
        return complete_folder(source, unfinished, to)


def require_packages_of(to: Format) -> None:
    """Raises EngagementInputError if packages for writing and running the format are missing."""
    require_extra(to, _PACKAGES[to])


def write_networks(source: Source, folder: Path, to: Format) -> None:
    """Write only the networks' files; raises ModelLoadError for a model that the format cannot express."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in NETWORKS:
            path = Path(temporary) / f"{name}.onnx"
            _write_onnx(source, name, path)
            to_format(path, folder, to)


def to_format(network: Path, folder: Path, to: Format) -> None:
    """Write an ONNX file as the folder's network of that name."""
    if to == "onnx":
        shutil.copyfile(network, folder / network.name)
        return
    openvino = silent_openvino()
    path = folder / network.with_suffix(".xml").name
    openvino.save_model(openvino.convert_model(network), path, compress_to_fp16=False)  # fp16 would round weights


def complete_folder(
    source: Source, folder: Path, to: Format, difference: float | None = None, gate: Gate | None = None
) -> ExportRecord:
    """Write all files besides the networks, `export.json` last.

    Args:
        difference: the largest between float32 logits and the model's, on noise; None: it is measured.
        gate: for networks in int8.

    Raises:
        ModelLoadError: the logits differ by more than 1e-3.
    """
    predictor, config = source.predictor, source.model.config
    for name in (*PROCESSOR_FILES, LICENSE_FILE):
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    source.rule.save(folder)
    if predictor.video_processor.face_crop and not (folder / DETECTOR_FOLDER).is_dir():  # int8 is completed twice
        export_face_detector(folder / DETECTOR_FOLDER)
    record = ExportRecord(
        version=1,
        format=to,
        dtype="int8" if gate else "float32",
        reads_clips=predictor.is_video_model,
        num_frames=config.num_frames,
        num_channels=config.num_channels,
        image_size_px=config.image_size,
        label_names=config.label_names,
        source_sha256=dict(source.digests),
        made_with={name: version(name) for name in ("torch", *_PACKAGES[to], *(("nncf",) if gate else ()))},
        logits_difference=difference or 0.0,
        gate=gate,
    )
    write_record(folder / EXPORT_FILE, record)
    if difference is None:
        record = record.model_copy(update={"logits_difference": measure_difference(source, folder)})
        write_record(folder / EXPORT_FILE, record)
    return record


def measure_difference(source: Source, folder: Path) -> float:
    """The largest difference from the model's logits, on noise in batches of 1 and 3; ModelLoadError if above 1e-3."""
    engine, difference = load_engine(folder), 0.0
    for batch_size in (1, 3):
        noise = draw_noise(source.model, batch_size)
        with torch.no_grad():  # not inference_mode: BEiT caches a tensor made here
            expected = to_array(source.model(noise).logits)
        difference = max(difference, float(np.abs(engine.logits(noise) - expected).max()))
    if not difference <= MAX_DIFFERENCE:
        raise ModelLoadError(
            f"The logits of {source.folder} in {engine.name} differ by {difference:.2g}, more than {MAX_DIFFERENCE:g}; "
            "run the model with PyTorch."
        )
    return difference


class _Encoder(nn.Module):
    """faces (n, C, size, size) → features (n, D)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return self.model.encoder(faces).pooler_output


class _Head(_Encoder):
    """features (n, num_frames, D) of clips, or (n, D) of faces → logits (n, num_labels)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.model.classify_features(features)


def _write_onnx(source: Source, name: str, path: Path) -> None:
    config = source.model.config
    frames = (config.num_frames,) if isinstance(source.model, EngagementForVideoClassification) else ()
    if name == "encoder":
        module, taken, given = _Encoder(source.model), "faces", "features"
        example = torch.zeros(2, config.num_channels, config.image_size, config.image_size)
    else:
        module, taken, given = _Head(source.model), "features", "logits"
        example = torch.zeros(2, *frames, source.model.encoder.feature_size)
    write_onnx(module, example, taken, given, path, str(source.folder))


def write_onnx(
    module: nn.Module,
    example: torch.Tensor,
    taken: str,
    given: str,
    path: Path,
    origin: str,
    metadata: Mapping[str, str] | None = None,
    any_length: bool = False,
) -> None:
    """Write a module with one input and one output tensor as an ONNX file, for any batch size.

    Args:
        example: an input with a batch of 2.
        taken, given: names of input and output.
        origin: the model, for messages.
        metadata: stored in the file.
        any_length: also for any size of the second axis.

    Raises:
        ModelLoadError: ONNX cannot express it.
    """
    axes = {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "frames")[: 1 + any_length])}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export's, about its internals
            program: torch.onnx.ONNXProgram = torch.onnx.export(  # type: ignore[assignment]  # None without dynamo
                module.eval().requires_grad_(False), (example,), dynamo=True, verbose=False,
                dynamic_shapes=(axes,), input_names=[taken], output_names=[given],
            )  # fmt: skip
        program.model.metadata_props.update(metadata or {})
        program.save(path, external_data=False)
    except Exception as error:  # torch.export, the converter and protobuf (above 2 GiB) each raise their own
        reason = in_one_line(error)
        raise ModelLoadError(f"The model {origin} cannot be expressed in ONNX ({reason}).") from error
