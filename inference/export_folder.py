"""An export as a folder: the model's two networks for an engine other than torch, and all else that answers need.

`export.json` describes the content and identifies the model by digests of the files that determine its answers, so that
an export of other weights, settings or another answer rule is noticed. Nothing here imports torch.
"""

import hashlib
from pathlib import Path
from typing import Literal

from ..data.json_records import Count, NotNegative, Record, Share, read_record
from ..processor.input_errors import ModelLoadError, in_one_line

EXPORT_FILE = "export.json"
FORMAT_OF = {"onnxruntime": "onnx", "openvino": "openvino"}  # engine -> its format
NETWORKS = ("encoder", "head")
SUFFIXES = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}  # of a network's files; an engine opens the first
PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_WEIGHTS = "model*.safetensors*"  # one file, or shards with their index
_BESIDE = ("config.json", "answer_rule.json", *PROCESSOR_FILES)

_REMEDY = "export the model again"


class Gate(Record):
    """How int8 agrees with float32 on examples outside the calibration data."""

    of: Literal["clips", "faces"]
    num_calibrated: Count
    num_checked: Count
    label_agreement: Share  # share with the same label by the answer rule, without abstaining
    answer_agreement: Share  # share with the same answer, which may be no label
    largest_score_difference: NotNegative
    kept_float32: list[str]  # parts of the encoder that were not quantised


class ExportRecord(Record):
    """`export.json`."""

    version: Literal[1]
    format: Literal["onnx", "openvino"]
    dtype: Literal["float32", "int8"]  # of the encoder; the head is float32 in both
    reads_clips: bool  # else single faces
    num_frames: Count
    num_channels: Count
    image_size_px: Count
    label_names: list[str]
    source_sha256: dict[str, str]  # file of the model -> digest
    made_with: dict[str, str]  # package -> version
    logits_difference: NotNegative  # largest difference between float32 and torch, on noise
    gate: Gate | None  # int8 only


def is_export(folder: Path) -> bool:
    """Whether the folder contains an export, complete or not."""
    return (folder / EXPORT_FILE).is_file()


def read_export(folder: Path) -> ExportRecord:
    """The record of an export folder, after checking that every network exists.

    Raises:
        ModelLoadError: the folder contains no export, a damaged one, or one of a later version.
    """
    path, expected = folder / EXPORT_FILE, "what `engagement export` wrote"
    record = read_record(path, ExportRecord, ModelLoadError, expected, _REMEDY)
    for name in (f"{network}{suffix}" for network in NETWORKS for suffix in SUFFIXES[record.format]):
        if not (folder / name).is_file():
            raise ModelLoadError(f"The export {folder} has no {name}; {_REMEDY}.")
    return record


def source_digests(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the files that determine a model's answers: weights, config, processor, answer rule.

    Raises:
        ModelLoadError: there are no weights, or a file cannot be read.
    """
    weights = sorted(path for path in folder.glob(_WEIGHTS) if path.is_file())
    if not weights:
        raise ModelLoadError(f"{folder} contains no model.safetensors; check the path.")
    files = [*(folder / name for name in _BESIDE if (folder / name).is_file()), *weights]
    return {path.name: _digest(path) for path in sorted(files)}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # read in parts
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read ({in_one_line(error)}).") from error


def what_differs(record: ExportRecord, digests: dict[str, str]) -> str | None:
    """The first file, weights first, whose digest is not the export's; None: they are of the same model."""
    recorded = record.source_sha256
    names = sorted({*recorded, *digests}, key=lambda name: (not name.startswith("model"), name))
    return next((name for name in names if recorded.get(name) != digests.get(name)), None)


def engine_of(export_format: str) -> str:
    """The engine that runs a format."""
    return next(engine for engine, known in FORMAT_OF.items() if known == export_format)
