"""The engines of ONNX Runtime and OpenVINO: an export folder's two networks on the CPU, without torch."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..processor.input_errors import ModelLoadError, in_one_line
from .engines import require_finite
from .export_folder import FORMAT_OF, SUFFIXES, engine_of, read_export

if TYPE_CHECKING:
    import openvino
    import torch

Network = Callable[[np.ndarray], np.ndarray]
Shape = tuple[int | None, ...]  # None: any
_FACES_AT_ONCE = 4  # more need more memory, and save hardly any time


class _ExportedEngine:
    """
    Args:
        folder: an export.
        threads: for the networks; None: OMP_NUM_THREADS, or as many as this process may use.

    Raises:
        EngagementInputError: the engine is not installed.
        ModelLoadError: the folder has no export for this engine, or a damaged one.
    """

    engine: str  # its name for `--engine`
    dtype: str

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.record = record = read_export(folder)
        if record.format != FORMAT_OF[self.engine]:
            raise ModelLoadError(
                f"The export {folder} is in {record.format}, which {self.engine} does not run; use the engine "
                f"{engine_of(record.format)}."
            )
        self.name = f"{self.engine} {self._version()}"
        self.device, self.dtype = "cpu", str(record.dtype)
        self.reads_clips, self.num_frames = record.reads_clips, record.num_frames
        self.label_names = tuple(record.label_names)
        threads = threads or _threads()
        paths = [folder / f"{name}{SUFFIXES[record.format][0]}" for name in ("encoder", "head")]
        try:
            (self._encoder, faces, features), (self._head, takes, logits) = (self._open(p, threads) for p in paths)
        except Exception as error:  # each library has its own errors for a damaged file
            _require(self.engine)  # the library may be too old instead
            raise ModelLoadError(
                f"{self.name} cannot run the networks in {folder} ({in_one_line(error)}); export the model again."
            ) from error
        frames = (record.num_frames,) if record.reads_clips else ()
        size = features[-1]
        expected = (
            (None, record.num_channels, record.image_size_px, record.image_size_px),
            (None, size), (None, *frames, size), (None, len(record.label_names)),
        )  # fmt: skip
        if (faces, features, takes, logits) != expected:
            raise ModelLoadError(
                f"The networks in {folder} have other shapes than its export.json says ({faces} -> {features} and "
                f"{takes} -> {logits}); a file there is of another model, so export it again."
            )

    def encode(self, faces: "np.ndarray | torch.Tensor") -> np.ndarray:
        """As `Engine.encode`."""
        values = _as_float32(faces)
        some = [
            self._encoder(values[start : start + _FACES_AT_ONCE]) for start in range(0, len(values), _FACES_AT_ONCE)
        ]
        return require_finite(np.concatenate(some))

    def classify(self, features: np.ndarray) -> np.ndarray:
        """As `Engine.classify`."""
        return require_finite(self._head(_as_float32(features)))

    def logits(self, pixel_values: "np.ndarray | torch.Tensor") -> np.ndarray:
        """As `Engine.logits`."""
        values = _as_float32(pixel_values)
        if not self.reads_clips:
            return self.classify(self.encode(values))
        features = self.encode(values.reshape(-1, *values.shape[2:]))  # (n, frames, C, H, W) -> (n*frames, C, H, W)
        return self.classify(features.reshape(*values.shape[:2], -1))  # (n*frames, D) -> (n, frames, D)

    def weights(self) -> Iterator[bytes]:
        """As `Engine.weights`: digests of its source files, its format and dtype."""
        for name, sha256 in sorted(self.record.source_sha256.items()):
            yield f"{name} {sha256}".encode()
        yield f"{self.record.format} {self.dtype}".encode()

    def _version(self) -> str:
        """The imported library's own; reading the installed metadata takes a tenth of a second."""
        try:
            library = silent_openvino() if self.engine == "openvino" else importlib.import_module(self.engine)
        except ImportError:
            _require(self.engine)
            raise
        return str(library.__version__).partition("-")[0]

    def _open(self, path: Path, threads: int) -> tuple[Network, Shape, Shape]:
        """A network, and the shapes of its input and output."""
        raise NotImplementedError


class OnnxEngine(_ExportedEngine):
    """An export in ONNX, run by ONNX Runtime; arguments and errors as in the base class."""

    engine = "onnxruntime"

    def _open(self, path: Path, threads: int) -> tuple[Network, Shape, Shape]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_cpu_mem_arena = False  # it takes 30 MB more and gains nothing here
        options.log_severity_level = 3  # errors only; the rest is about its own optimisations
        # Between runs its threads would keep spinning, while decoding the next file needs the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (taken,), (given,) = session.get_inputs(), session.get_outputs()

        def run(values: np.ndarray) -> np.ndarray:
            return session.run(None, {taken.name: values})[0]

        shapes = [tuple(size if isinstance(size, int) else None for size in end.shape) for end in (taken, given)]
        return run, shapes[0], shapes[1]


class OpenVinoEngine(_ExportedEngine):
    """An export in OpenVINO's format; arguments and errors as in the base class."""

    engine = "openvino"

    def _open(self, path: Path, threads: int) -> tuple[Network, Shape, Shape]:
        # Otherwise processors with bf16 would use it for all that is not int8.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        network = _openvino_core().compile_model(path, "CPU", settings)

        def run(values: np.ndarray) -> np.ndarray:
            return network(values)[0].copy()  # the next run overwrites it

        ends = (network.input().partial_shape, network.output().partial_shape)
        shapes = [tuple(None if size.is_dynamic else size.get_length() for size in end) for end in ends]
        return run, shapes[0], shapes[1]


@cache
def _openvino_core() -> "openvino.Core":
    """One for the whole process, never released.

    On processors with AVX-512 each core installs an alternate signal stack, and restores the previous one when it is
    released. If two are released in the order of their creation, the second restores the first one's stack, which is
    already freed, and the next signal, such as Ctrl-C, is a segmentation fault.
    """
    return silent_openvino().Core()


def load_engine(folder: Path, threads: int | None = None) -> OnnxEngine | OpenVinoEngine:
    """The engine for an export folder; arguments and errors as in the engines."""
    kind = OnnxEngine if read_export(folder).format == "onnx" else OpenVinoEngine
    return kind(folder, threads)


def silent_openvino(name: str = "openvino") -> ModuleType:
    """OpenVINO, or a package on top of it, imported without its telemetry module.

    On import `openvino` reports to Google Analytics and writes into the home folder without asking; this package sends
    no telemetry. Both packages work without that module.
    """
    reporter = "openvino_telemetry"
    known = sys.modules.get(reporter)
    sys.modules[reporter] = None  # type: ignore[assignment] # Python then treats the module as missing
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[reporter]
        if known is not None:
            sys.modules[reporter] = known


def _require(engine: str) -> None:
    """Raises EngagementInputError if the engine is missing or too old."""
    from ..data.required_packages import require_extra

    require_extra(FORMAT_OF[engine], (engine,))


def _as_float32(values: "np.ndarray | torch.Tensor") -> np.ndarray:
    # OpenVINO's ReLU turns nan into a number, so that outputs do not reveal nan in the inputs.
    return require_finite(np.ascontiguousarray(values, np.float32))


def _threads() -> int:
    setting = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    from ..data.worker_processes import usable_cpus  # joblib takes a while to import

    return usable_cpus()
