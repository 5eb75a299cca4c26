"""The engine of PyTorch: the model as it was loaded, on any of its devices."""

import numpy as np
import torch

from ..modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from .engines import require_finite
from .fused_norms import fuse_batch_norms

Model = EngagementForVideoClassification | EngagementForImageClassification


class TorchEngine:
    """
    Args:
        model: moved to `device`, and set to evaluation.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.name = f"torch {torch.__version__.partition('+')[0]}"
        self.device, self.dtype = str(device), "float32"
        self.reads_clips = isinstance(model, EngagementForVideoClassification)
        self.num_frames, self.label_names = model.config.num_frames, tuple(model.config.label_names)
        self.model: Model = model.eval().to(device=device, memory_format=torch.channels_last)

    def encode(self, faces: np.ndarray | torch.Tensor) -> np.ndarray:
        """As `Engine.encode`."""
        with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
            return to_array(self.model.encoder(self._here(faces)).pooler_output)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """As `Engine.classify`."""
        with torch.no_grad():
            return to_array(self.model.classify_features(self._here(features)))

    def logits(self, pixel_values: np.ndarray | torch.Tensor) -> np.ndarray:
        """As `Engine.logits`."""
        with torch.no_grad():
            return to_array(self.model(self._here(pixel_values)).logits)

    def fuse(self) -> None:
        """Fold batch norms into convolutions where that leaves the features as they are, within float noise."""
        config, encoder = self.model.config, self.model.encoder
        size = (2, config.num_channels, config.image_size, config.image_size)
        noise = self._here(torch.rand(size, generator=torch.Generator().manual_seed(0)) - 0.5)
        fused = fuse_batch_norms(encoder)
        with torch.no_grad():
            expected, got = encoder(noise).pooler_output, fused(noise).pooler_output
        if torch.allclose(got, expected, rtol=1e-3, atol=1e-4):
            self.model.encoder = fused

    def _here(self, values: np.ndarray | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(values).to(self.device)


def to_array(values: torch.Tensor) -> np.ndarray:
    """(...) float32 on the CPU; raises ModelLoadError for nan and infinity, of which no label may be made."""
    return require_finite(values.detach().float().cpu().numpy())
