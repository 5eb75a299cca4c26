"""The face detector's three networks as ONNX files, for `FaceDetector(networks=folder)`, which then needs no torch.

The weights are facenet-pytorch's, under the MIT licence, which is written to the same folder. The graphs are built
layer by layer and not by torch.onnx: ONNX Runtime needs ten times as long for its PRelu as for an equivalent maximum.
"""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.atomic_files import writing
from ..data.required_packages import require_extra
from ..processor.input_errors import DataError, ModelLoadError
from ..processor.mtcnn_networks import (
    NETWORK_NAMES,
    PROPOSE,
    REFINE,
    OnnxNetworks,
    TorchNetworks,
    trained_layers,
)

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

FILES = tuple(f"{name}.onnx" for name in NETWORK_NAMES)
LICENSE_FILE = "LICENSE-mtcnn.txt"
_MAX_DIFFERENCE = 1e-3  # of logits and box offsets
_OPSET, _IR_VERSION = 17, 8  # readable by onnxruntime 1.20


def export_face_detector(folder: Path) -> float:
    """Write pnet.onnx, rnet.onnx, onet.onnx (1.9 MB in all) and their licence. Needs the extra `onnx`.

    Each takes `pixels` (batch, height, width, 3), float32, (value - 127.5) / 128, and gives `answers`: pnet, for any
    height and width from 12 px on, (batch, 5, rows, columns); rnet, of 24 x 24 px, (batch, 5); onet, of 48 x 48 px,
    (batch, 15), as `processor.mtcnn_cascade.MtcnnNetworks` says.

    Args:
        folder: created if it is missing; it may contain other files, but none of these.

    Returns:
        The largest difference between their answers in ONNX Runtime and torch's, on noise.

    Raises:
        EngagementInputError: the extra is not installed.
        DataError: such a file exists, or the folder cannot be written.
        ModelLoadError: ONNX Runtime's answers differ by more than 1e-3.
    """
    require_extra("onnx", ("onnx", "onnxruntime"))
    import onnx

    paths = [folder / name for name in (*FILES, LICENSE_FILE)]
    for path in paths:
        if path.exists():
            raise DataError(f"The folder has a face detector already ({path}); name another.")
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, layers in trained_layers().items():
                onnx.save(_graph(layers, name), folder / f"{name}.onnx")
            (folder / LICENSE_FILE).write_text(_license(), encoding="utf-8")
        difference = _largest_difference(folder)
        if not difference <= _MAX_DIFFERENCE:  # also refuses NaN
            raise ModelLoadError(
                f"MTCNN in ONNX Runtime differs by {difference:.2g}, more than {_MAX_DIFFERENCE:g}; find faces with "
                "torch."
            )
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return difference


def _license() -> str:
    (path,) = (path for path in importlib.metadata.files("facenet-pytorch") or () if path.name == "LICENSE.md")
    version = importlib.metadata.version("facenet-pytorch")
    networks = ", ".join(FILES)
    return (
        f"{networks}: weights of facenet-pytorch {version}, under this licence.\n\n{path.read_text(encoding='utf-8')}"
    )


def _graph(layers: "nn.Sequential", name: str) -> "onnx.ModelProto":
    from onnx import TensorProto, checker, helper
    from torch import nn

    steps = _Steps()
    steps.add("Transpose", perm=[0, 3, 1, 2])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            steps.add("Conv", _values(layer.weight), _values(layer.bias))
        elif isinstance(layer, nn.Linear):
            steps.add("Gemm", _values(layer.weight), _values(layer.bias), transB=1)
        elif isinstance(layer, nn.PReLU):
            steps.add_prelu(_values(layer.weight), per_pixel=not steps.is_flat)
        elif isinstance(layer, nn.MaxPool2d):
            steps.add_max_pool(layer)
        elif isinstance(layer, nn.Flatten):
            steps.add("Flatten")
            steps.is_flat = True
        else:
            raise TypeError(f"Expected a layer of MTCNN, got {layer}.")
    steps.nodes[-1].output[0] = "answers"
    side = 24 if name == REFINE else 48
    size: list[str | int] = ["height", "width"] if name == PROPOSE else [side, side]
    answers: list[str | int] = (
        ["batch", 5, "rows", "columns"] if name == PROPOSE else ["batch", 5 if side == 24 else 15]
    )
    graph = helper.make_graph(
        steps.nodes,
        f"mtcnn_{name}",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", *size, 3])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, answers)],
        steps.constants,
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(
        graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="engagement-recognition"
    )
    checker.check_model(model)
    return model


class _Steps:
    """A chain of nodes, each of which takes the previous one's output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.is_flat = False
        self._last = "pixels"

    def add(self, kind: str, *constants: np.ndarray, perm: list[int] | None = None, transB: int | None = None) -> None:
        """Add a node, with attributes for Transpose or Gemm."""
        self._last = self._node(kind, self._last, *map(self._constant, constants))
        given = {"perm": perm, "transB": transB}
        self._set({name: value for name, value in given.items() if value is not None})

    def add_max_pool(self, layer: "nn.MaxPool2d") -> None:
        side, stride = (int(np.ravel(value)[0]) for value in (layer.kernel_size, layer.stride))
        self._last = self._node("MaxPool", self._last)
        self._set({"kernel_shape": [side] * 2, "strides": [stride] * 2, "ceil_mode": int(layer.ceil_mode)})

    def add_prelu(self, slopes: np.ndarray, per_pixel: bool) -> None:
        """x if positive, else slope * x; the faster form is valid for slopes up to 1."""
        values = self._last
        by_channel = self._constant(slopes.reshape(-1, 1, 1) if per_pixel else slopes)
        if (slopes <= 1).all():
            self._last = self._node("Max", values, self._node("Mul", values, by_channel))
            return
        negative = self._node("Min", values, self._constant(np.zeros(1, np.float32)))
        self._last = self._node("Add", self._node("Relu", values), self._node("Mul", negative, by_channel))

    def _node(self, kind: str, *inputs: str) -> str:
        from onnx import helper

        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name))
        return name

    def _set(self, attributes: Mapping[str, int | list[int]]) -> None:
        from onnx import helper

        self.nodes[-1].attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())

    def _constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _values(weights: "torch.Tensor | None") -> np.ndarray:
    assert weights is not None  # every layer of MTCNN has a bias
    return np.asarray(weights.detach().numpy())


def _largest_difference(folder: Path) -> float:
    in_torch, in_onnx, rng = TorchNetworks("cpu"), OnnxNetworks(folder), np.random.default_rng(0)

    def noise(batch: int, height: int, width: int) -> np.ndarray:
        return rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)

    looks = (
        (in_torch.propose, in_onnx.propose, (1, 12, 12), (3, 40, 31)),
        (in_torch.refine, in_onnx.refine, (1, 24, 24), (5, 24, 24)),
        (in_torch.finish, in_onnx.finish, (1, 48, 48), (5, 48, 48)),
    )
    pairs = ((expected, got, noise(*size)) for expected, got, *sizes in looks for size in sizes)
    return float(np.max([np.abs(expected(pixels) - got(pixels)).max() for expected, got, pixels in pairs]))
