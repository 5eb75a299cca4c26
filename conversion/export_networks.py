"""A model as a folder for ONNX Runtime or OpenVINO: its two networks, and all that answers need besides.

Both formats start from one ONNX graph a network, which torch writes. `transformers.exporters` is not used: it is new in
5.24, where we go back to 5.20, is called experimental, exports a model whole, where `live` asks for the encoder and the
head one by one, and adds nothing to torch's own exporter for the encoders that were tried here.
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
    """A model that is exported, on the CPU, and the folder that it lies in."""

    folder: Path
    predictor: Predictor
    digests: Mapping[str, str]

    @property
    def model(self) -> Model:
        """In evaluation mode, its attention in the form that torch.export takes."""
        return self.predictor.model

    @property
    def rule(self) -> AnswerRule:
        """How its logits become an answer."""
        return self.predictor.rule


def open_source(model: str) -> Source:
    """A model of ours, from its folder or the Hub; raises ModelLoadError where none is there."""
    folder = local_folder(model)
    predictor = Predictor.from_pretrained(str(folder), device="cpu")
    # To mypy transformers' wrapper of `to` is a function without self.
    predictor.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-arg]
    predictor.model.set_attn_implementation("eager")  # torch.export stumbles over BEiT's mask in the fused one
    return Source(folder, predictor, source_digests(folder))


def export_networks(model: str, output: Path, to: Format) -> ExportRecord:
    """A model → a folder of its encoder and its head in float32, for any batch size; `--engine` and `--model` take it.

    Args:
        model: a model's folder, or its Hub id.
        output: a new or empty folder.

    Returns:
        What `export.json` says.

    Raises:
        EngagementInputError: the packages of the format are not installed.
        ModelLoadError: no model is there, or one that the format cannot hold or does not repeat within 1e-3.
        DataError: the folder holds something, or cannot be written.
    """
    require_new_folder(output, "the export")
    require_packages_of(to)
    source = open_source(model)
    with whole_folder(output) as unfinished, writing(output):
        write_networks(source, unfinished, to)
        return complete_folder(source, unfinished, to)


def require_packages_of(to: Format) -> None:
    """Raises EngagementInputError where what writes and runs the format is not installed."""
    require_extra(to, _PACKAGES[to])


def write_networks(source: Source, folder: Path, to: Format) -> None:
    """The networks' files alone; raises ModelLoadError for a model that the format cannot hold."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in NETWORKS:
            path = Path(temporary) / f"{name}.onnx"
            _write_onnx(source, name, path)
            to_format(path, folder, to)


def to_format(network: Path, folder: Path, to: Format) -> None:
    """An ONNX file as the folder's network of that name."""
    if to == "onnx":
        shutil.copyfile(network, folder / network.name)
        return
    openvino = silent_openvino()
    path = folder / network.with_suffix(".xml").name
    openvino.save_model(openvino.convert_model(network), path, compress_to_fp16=False)  # in fp16 weights are rounded


def complete_folder(
    source: Source, folder: Path, to: Format, difference: float | None = None, gate: Gate | None = None
) -> ExportRecord:
    """What belongs beside the networks, `export.json` last.

    Args:
        difference: of float32 logits from the model's, the largest on noise; None: it is measured.
        gate: of networks in int8.

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
    """Of logits from the model's, the largest on noise in batches of 1 and 3; ModelLoadError where it is above 1e-3."""
    engine, difference = load_engine(folder), 0.0
    for batch_size in (1, 3):
        noise = draw_noise(source.model, batch_size)
        with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
            expected = to_array(source.model(noise).logits)
        difference = max(difference, float(np.abs(engine.logits(noise) - expected).max()))
    if not difference <= MAX_DIFFERENCE:
        raise ModelLoadError(
            f"Expected {engine.name} to repeat the model in {source.folder} within {MAX_DIFFERENCE:g}, got logits that "
            f"differ by {difference:.2g}; run it with PyTorch."
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
    """A module of one tensor in and one out as an ONNX file, for any batch size.

    Args:
        example: of a batch of 2.
        taken, given: the tensors' names.
        origin: the model's, for what is said when it cannot be done.
        metadata: what the file says of itself.
        any_length: along the second axis, too.

    Raises:
        ModelLoadError: ONNX cannot hold it.
    """
    axes = {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "frames")[: 1 + any_length])}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export's, of its own internals
            program: torch.onnx.ONNXProgram = torch.onnx.export(  # type: ignore[assignment]  # None without dynamo
                module.eval().requires_grad_(False), (example,), dynamo=True, verbose=False,
                dynamic_shapes=(axes,), input_names=[taken], output_names=[given],
            )  # fmt: skip
        program.model.metadata_props.update(metadata or {})
        program.save(path, external_data=False)
    except Exception as error:  # torch.export, the converter and protobuf (above 2 GiB) each have their own
        reason = in_one_line(error)
        raise ModelLoadError(
            f"Expected a model that ONNX can hold in {origin}, got one it cannot ({reason})."
        ) from error
