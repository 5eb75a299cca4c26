"""Which export an engine runs: the named folder, the one in the model's folder, or one made once and cached.

New exports go to a cache of this package, never into a model's folder or a snapshot of the Hub. The command that a user
would type makes them, in its own process: `conversion` is a layer above this module, and torch, which it needs, is out
of memory when the predictions begin. Imports that an export folder does not need are inside functions, to keep a cold
start short.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..answer_rule import AnswerRule
from ..processor.input_errors import ModelLoadError, in_one_line
from .engines import Engine
from .export_folder import (
    FORMAT_OF,
    ExportRecord,
    engine_of,
    is_export,
    read_export,
    source_digests,
    what_differs,
)
from .exported_engine import load_engine
from .exported_processor import ExportedClips, ExportedPictures, load_processor

_FROM_HUB = ("*.json", "model*.safetensors*", "LICENSE")  # without pickled weights and pictures
_ROOT = Path(__file__).parents[1]

Maker = Callable[[str, str, Path], None]  # called with a model's folder, a format and a new folder


def local_folder(model: str) -> Path:
    """A model's folder on this disk; for a Hub id, its download or cached download.

    Raises:
        ModelLoadError: there is no such folder, and no such model on the Hub or, offline, in the Hub's cache.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    expected = f"Expected an engagement model at {model}: a folder written by train.py, or a Hub id (org/name)"
    if folder.exists() or model.count("/") != 1:
        found = "it is a file" if folder.exists() else "there is no such folder"
        raise ModelLoadError(f"{expected}, but {found}; check the path.")
    from huggingface_hub import snapshot_download

    exports = [f"{name}/*" for export_format in FORMAT_OF.values() for name in (export_format, f"{export_format}_int8")]
    try:
        return Path(snapshot_download(model, allow_patterns=[*_FROM_HUB, *exports]))
    except (OSError, ValueError) as error:  # the Hub's errors are subclasses
        raise ModelLoadError(f"{expected}; {in_one_line(error)}") from error


def find_or_make_export(model: str, engine: str = "torch", dtype: str = "auto", make: Maker | None = None) -> Path:
    """The export folder that an engine runs for a model.

    Args:
        model: an export folder, which determines the engine, a model's folder, or its Hub id.
        engine: onnxruntime or openvino; torch, the default, only with an export folder.
        dtype: auto (float32, or what the export folder has), float32 or int8.
        make: makes an export; None: `engagement export`, in its own process.

    Raises:
        ModelLoadError: there is no model; the export is of other weights or settings, for another engine, or in another
            dtype; there is no int8 export, which cannot be made without calibration data.
        EngagementInputError: the export cannot be made, with the reason.
    """
    if is_export(Path(model)):
        return _require_asked_for(Path(model), engine, dtype)
    folder, export_format = local_folder(model), FORMAT_OF[engine]
    digests = source_digests(folder)
    beside = folder / (f"{export_format}_int8" if dtype == "int8" else export_format)
    if is_export(beside):
        _require_same_model(read_export(beside), digests, beside, model)
        return _require_asked_for(beside, engine, dtype)
    if dtype == "int8":
        command = f"engagement export {model} --to {export_format} --int8 --calibration DATA --output {beside}"
        raise ModelLoadError(f"{model} has no export in int8, and making one needs calibration data; type: {command}")
    return _from_cache(model, folder, digests, export_format, make or make_in_own_process)


def _require_asked_for(folder: Path, engine: str, dtype: str) -> Path:
    record = read_export(folder)
    if engine not in ("torch", engine_of(record.format)):
        raise ModelLoadError(
            f"The export {folder} is for {engine_of(record.format)}, not for {engine}; use that engine, or another "
            "folder."
        )
    if dtype not in ("auto", record.dtype):
        raise ModelLoadError(f"The export {folder} is in {record.dtype}, not in {dtype}; name another.")
    return folder


def _require_same_model(record: ExportRecord, digests: dict[str, str], folder: Path, model: str) -> None:
    if different := what_differs(record, digests):
        raise ModelLoadError(
            f"The export {folder} was made of a model with a different {different} than {model}; delete it, or export "
            "the model again."
        )


def exports_folder() -> Path:
    """The cache of automatically made exports; may be deleted at any time."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "engagement_recognition" / "exports"


def _from_cache(model: str, folder: Path, digests: dict[str, str], export_format: str, make: Maker) -> Path:
    from ..data.locked_folder import waiting_for

    key = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    cached = exports_folder() / f"{key}-{export_format}"
    with waiting_for(cached):  # two processes that start together make it once
        if is_export(cached):
            try:
                _require_same_model(read_export(cached), digests, cached, model)
                return cached
            except ModelLoadError as error:  # the cache can be made again from its source
                print(f"made again: {error}", file=sys.stderr, flush=True)
                shutil.rmtree(cached)
        print(f"{model}: exported once for {engine_of(export_format)}, to {cached}", file=sys.stderr, flush=True)
        make(str(folder), export_format, cached)
    return cached


def make_in_own_process(model: str, export_format: str, output: Path) -> None:
    """`engagement export MODEL --to FORMAT --output FOLDER`; its error is raised as ModelLoadError."""
    code = f"from {_ROOT.name}.cli.main import main; main()"
    arguments = ["export", model, "--to", export_format, "--output", str(output)]
    # Import this same package, and with -P nothing from the current folder.
    path = os.pathsep.join(filter(None, [str(_ROOT.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
        raise ModelLoadError(lines[-1].removeprefix("error: "))


def load_exported(
    model: str, engine: str = "torch", dtype: str = "auto"
) -> tuple[Engine, ExportedClips | ExportedPictures, AnswerRule]:
    """The engine, the processor and the answer rule of an export; arguments and errors as in `find_or_make_export`."""
    folder = find_or_make_export(model, engine, dtype)
    networks = load_engine(folder)
    try:
        rule = AnswerRule.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"The answer rule in {folder} cannot be read ({in_one_line(error)}); export the model again."
        ) from error
    if rule is None or rule.label_names != networks.label_names:
        raise ModelLoadError(
            f"The answer rule in {folder} is missing or has other labels than its networks "
            f"({', '.join(networks.label_names)}); export the model again."
        )
    return networks, load_processor(folder, networks.reads_clips), rule
