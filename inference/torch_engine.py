"""The engine of PyTorch: the loaded model, on any of its devices."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..answer_rule import AnswerRule
from ..modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from .devices import choose_dtype, half_precisions
from .engines import require_finite
from .fused_norms import fuse_batch_norms

Model = EngagementForVideoClassification | EngagementForImageClassification
_NUM_NOISE_CLIPS = 4


class TorchEngine:
    """
    Args:
        model: moved to `device` and set to evaluation mode. Its weights stay in float32 for every dtype.
        dtype: float32, bfloat16 or float16; auto: a half precision that is faster on the device, if its scores agree
            with float32 (`choose_dtype`), else float32.
        rule: gives the scores that `auto` compares; None: an uncalibrated one.
    """

    def __init__(self, model: Model, device: torch.device, dtype: str = "auto", rule: AnswerRule | None = None) -> None:
        self.name = f"torch {torch.__version__.partition('+')[0]}"
        self.device, self.dtype = str(device), dtype
        self.reads_clips = isinstance(model, EngagementForVideoClassification)
        self.num_frames, self.label_names = model.config.num_frames, tuple(model.config.label_names)
        # Channels last is faster on CPUs and on NVIDIA's tensor cores; on MPS it has not been measured.
        layout = torch.preserve_format if device.type == "mps" else torch.channels_last
        self.model: Model = model.eval().to(device=device, memory_format=layout)
        if dtype == "auto":
            rule = rule or AnswerRule(self.label_names)
            self.dtype = choose_dtype(half_precisions(device), lambda candidate: rule.to_scores(self._try(candidate)))

    def _try(self, dtype: str) -> np.ndarray:
        """(n, num_labels) logits of noise in this dtype."""
        self.dtype, noise = dtype, self._noise(_NUM_NOISE_CLIPS * self.num_frames)
        return self.logits(noise.unflatten(0, (_NUM_NOISE_CLIPS, -1)) if self.reads_clips else noise)

    def encode(self, faces: np.ndarray | torch.Tensor) -> np.ndarray:
        """As `Engine.encode`."""
        with self._precisely():
            return to_array(self.model.encoder(self._here(faces)).pooler_output)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """As `Engine.classify`."""
        with self._precisely():
            return to_array(self.model.classify_features(self._here(features)))

    def logits(self, pixel_values: np.ndarray | torch.Tensor) -> np.ndarray:
        """As `Engine.logits`."""
        with self._precisely():
            return to_array(self.model(self._here(pixel_values)).logits)

    def fuse(self) -> None:
        """Fold batch norms into convolutions if the features stay the same within float noise."""
        encoder, noise = self.model.encoder, self._here(self._noise(2) / 3)
        fused = fuse_batch_norms(encoder)
        with torch.no_grad():
            expected, got = encoder(noise).pooler_output, fused(noise).pooler_output
        if torch.allclose(got, expected, rtol=1e-3, atol=1e-4):
            self.model.encoder = fused

    def _noise(self, num_faces: int) -> torch.Tensor:
        """(num_faces, C, size, size), distributed like normalised pixels."""
        config = self.model.config
        size = (num_faces, config.num_channels, config.image_size, config.image_size)
        return torch.randn(size, generator=torch.Generator().manual_seed(0))

    @contextmanager
    def _precisely(self) -> Iterator[None]:
        with torch.no_grad():  # not inference_mode: BEiT caches a tensor made here
            if self.dtype == "float32":
                yield
                return
            with torch.autocast(torch.device(self.device).type, getattr(torch, self.dtype)):
                yield

    def weights(self) -> Iterator[bytes]:
        """As `Engine.weights`."""
        for name, tensor in sorted(self.model.state_dict().items()):
            yield name.encode()
            yield tensor.cpu().contiguous().numpy().tobytes()

    def _here(self, values: np.ndarray | torch.Tensor) -> torch.Tensor:
        tensor = torch.as_tensor(values)
        if self.device.startswith("cuda") and tensor.device.type == "cpu":
            # From pinned memory the copy runs while this process goes on.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def to_array(values: torch.Tensor) -> np.ndarray:
    """(...) float32 on the CPU; raises ModelLoadError for nan or infinity, which must not become a label."""
    return require_finite(values.detach().float().cpu().numpy())
