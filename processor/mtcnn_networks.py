"""MTCNN's three networks with facenet-pytorch's trained weights, in torch, or as ONNX files in ONNX Runtime.

Their results equal those of the library, up to float32 rounding, with less work: in channels_last, with channels padded
to the processors' vector size, joined heads, and the logit of a face instead of both probabilities. torch is imported
only where it is used.
"""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from .input_errors import ModelLoadError, in_one_line

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession
    from torch import nn

PROPOSE, REFINE, FINISH = NETWORK_NAMES = ("pnet", "rnet", "onet")
_CHANNELS_AT_ONCE = 16
_CUDNN = Lock()  # its flags are global: threads that read files at once would restore each other's values


def trained_layers() -> "dict[str, nn.Sequential]":
    """By name: (batch, 3, height, width) -> pnet's (batch, 5, rows, columns), rnet's (batch, 5), onet's (batch, 15)."""
    import torch
    from facenet_pytorch.models import mtcnn

    with torch.random.fork_rng(devices=[]):  # initialising layers must not change the caller's random state
        pnet, rnet, onet = mtcnn.PNet().eval(), mtcnn.RNet().eval(), mtcnn.ONet().eval()
        layers = {
            PROPOSE: [*_convolutions(pnet), _joined(pnet.conv4_1, pnet.conv4_2)],
            REFINE: [*_convolutions(rnet), *_dense(rnet.dense4, rnet.prelu4), _joined(rnet.dense5_1, rnet.dense5_2)],
            FINISH: [
                *_convolutions(onet),
                *_dense(onet.dense5, onet.prelu5),
                _joined(onet.dense6_1, onet.dense6_2, onet.dense6_3),
            ],
        }
        return {name: torch.nn.Sequential(*steps).eval().requires_grad_(False) for name, steps in layers.items()}


def _convolutions(network: "nn.Module") -> "list[nn.Module]":
    """The layers, all but the last with padded channels: 10 and 28 take longer than 16 and 32."""
    import torch
    from torch.nn.functional import pad

    numbers = [number for number in (1, 2, 3, 4) if hasattr(network, f"conv{number}")]
    layers: list[nn.Module] = []
    added = 0
    for number in numbers:
        convolution, slopes = getattr(network, f"conv{number}"), getattr(network, f"prelu{number}").weight
        weight = pad(convolution.weight, (0, 0, 0, 0, 0, added))
        added = 0 if number == numbers[-1] else -len(weight) % _CHANNELS_AT_ONCE
        filled = torch.nn.Conv2d(weight.shape[1], len(weight) + added, weight.shape[2])
        _set(filled, pad(weight, (0, 0, 0, 0, 0, 0, 0, added)), pad(convolution.bias, (0, added)))
        layers += [filled, _prelu(pad(slopes, (0, added)))]
        if hasattr(network, f"pool{number}"):
            layers.append(getattr(network, f"pool{number}"))
    return layers


def _dense(linear: "nn.Linear", prelu: "nn.PReLU") -> "list[nn.Module]":
    import torch

    # The library flattens (width, height, channels), with 3 x 3 places left in both networks.
    weight = linear.weight.unflatten(1, (3, 3, -1)).permute(0, 3, 2, 1).flatten(1)
    flat = torch.nn.Linear(weight.shape[1], len(weight))
    _set(flat, weight, linear.bias)
    return [torch.nn.Flatten(), flat, _prelu(prelu.weight)]


def _joined(face: "nn.Linear | nn.Conv2d", *others: "nn.Linear | nn.Conv2d") -> "nn.Linear | nn.Conv2d":
    """Heads as one layer; the first one's outputs, no face and face, become their difference, the logit of a face."""
    import torch

    weight = torch.cat([face.weight[1:] - face.weight[:1], *(other.weight for other in others)])
    face_bias, *biases = (head.bias for head in (face, *others) if head.bias is not None)  # as all of them are
    size = (weight.shape[1], len(weight))
    joined = torch.nn.Linear(*size) if isinstance(face, torch.nn.Linear) else torch.nn.Conv2d(*size, kernel_size=1)
    _set(joined, weight, torch.cat([face_bias[1:] - face_bias[:1], *biases]))
    return joined


def _prelu(slopes: "torch.Tensor") -> "nn.PReLU":
    import torch

    prelu = torch.nn.PReLU(len(slopes))
    prelu.weight = torch.nn.Parameter(slopes.detach())
    return prelu


def _set(layer: "nn.Linear | nn.Conv2d", weight: "torch.Tensor", bias: "torch.Tensor") -> None:
    import torch

    layer.weight, layer.bias = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())


class TorchNetworks:
    """In float32, on any device."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = torch.device(device)
        self._layers = {
            name: layers.to(self.device).to(memory_format=torch.channels_last)
            for name, layers in trained_layers().items()
        }
        # On a CPU small batches fit in the caches, while large ones are read from memory repeatedly.
        self._most = {REFINE: 64, FINISH: 16} if self.device.type == "cpu" else {REFINE: 512, FINISH: 512}

    def propose(self, pictures: np.ndarray) -> np.ndarray:
        answers = in_batches(lambda some: self._run(PROPOSE, some), pictures, _frames_at_once(pictures, 2**15))
        return np.moveaxis(answers, 1, -1)

    def refine(self, candidates: np.ndarray) -> np.ndarray:
        return in_batches(lambda some: self._filled_up(REFINE, some), candidates, self._most[REFINE])

    def finish(self, candidates: np.ndarray) -> np.ndarray:
        return in_batches(lambda some: self._filled_up(FINISH, some), candidates, self._most[FINISH])

    def _filled_up(self, name: str, candidates: np.ndarray) -> np.ndarray:
        """Pad the candidates, whose number varies, to few different numbers, since oneDNN keeps kernels for each
        number: hundreds of megabytes in a process that reads many videos."""
        count = len(candidates)
        missing = -count % (4 if count <= 64 else 64)
        if missing:
            candidates = np.concatenate([candidates, np.zeros((missing, *candidates.shape[1:]), np.float32)])
        return self._run(name, candidates)[:count]

    def _run(self, name: str, pixels: np.ndarray) -> np.ndarray:
        import torch

        kind = self.device.type
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            # Boxes must be the same inside a training step, so autocast is off, and on a GPU as on the CPU, so cuDNN
            # must not round to TensorFloat-32, which is its default.
            stack.enter_context(torch.autocast(kind, enabled=False))
            if kind == "cuda":
                stack.enter_context(_CUDNN)
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)  # already channels_last
            return np.asarray(self._layers[name](images).cpu().numpy())


class OnnxNetworks:
    """From the files pnet.onnx, rnet.onnx and onet.onnx of a folder, on the CPU, without torch.

    Raises:
        ModelLoadError: a file is missing or none of these networks, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelLoadError(
                f"The face detector in {folder} needs onnxruntime; pip install onnxruntime."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _num_threads()
        options.enable_cpu_mem_arena = False  # it would keep the memory for the largest picture
        options.log_severity_level = 3  # its warnings are about its own optimiser
        # Between two runs its threads would keep spinning, and numpy code would take twice as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._runs: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        for name in NETWORK_NAMES:
            path = folder / f"{name}.onnx"
            if not path.is_file():
                raise ModelLoadError(
                    f"Expected a face detector's pnet.onnx, rnet.onnx and onet.onnx in {folder}, got no {path.name}; "
                    "export it again."
                )
            try:
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime raises several kinds
                raise ModelLoadError(
                    f"{path} does not run as one of MTCNN's networks in ONNX format ({in_one_line(error)}); export it "
                    "again."
                ) from error
            names = [each.name for each in (*session.get_inputs(), *session.get_outputs())]
            if names != ["pixels", "answers"]:
                raise ModelLoadError(
                    f"The input and output of {path} are {', '.join(names)}, not pixels and answers; export it again."
                )
            self._runs[name] = partial(_run_session, session)

    def propose(self, pictures: np.ndarray) -> np.ndarray:
        answers = in_batches(self._runs[PROPOSE], pictures, _frames_at_once(pictures, 2**14))
        return np.moveaxis(answers, 1, -1)

    def refine(self, candidates: np.ndarray) -> np.ndarray:
        return in_batches(self._runs[REFINE], candidates, 16)

    def finish(self, candidates: np.ndarray) -> np.ndarray:
        return in_batches(self._runs[FINISH], candidates, 8)


def _run_session(session: "InferenceSession", pixels: np.ndarray) -> np.ndarray:
    (answers,) = session.run(["answers"], {"pixels": pixels})
    return np.asarray(answers)


def in_batches(run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, most: int) -> np.ndarray:
    """Run on batches of at most this size; inputs: at least one."""
    answers = [run(inputs[start : start + most]) for start in range(0, len(inputs), most)]
    return answers[0] if len(answers) == 1 else np.concatenate(answers)


def _frames_at_once(pictures: np.ndarray, most_pixels: int) -> int:
    return max(1, most_pixels // (pictures.shape[1] * pictures.shape[2]))


def _num_threads() -> int:
    """The number that torch would use, whether it is imported or not."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(asked) if asked.isdecimal() and int(asked) > 0 else usable
