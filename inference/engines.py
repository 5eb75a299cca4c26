"""What runs a model's networks: pixel values in, features and logits out, as numpy arrays for every library.

A model is two networks: an encoder, which reads each face alone, and a head, which reads the features of a clip's
frames together. `live` reuses the features of earlier frames, so it calls the two separately.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..processor.input_errors import ModelLoadError

if TYPE_CHECKING:
    import torch


class Engine(Protocol):
    """Runs one model. Inputs may be arrays of numpy or torch, on any device; outputs are on the CPU.

    Raises (all three methods):
        ModelLoadError: logits or features contain nan or infinity.
    """

    name: str  # library and version: "torch 2.14.1"
    device: str  # "cpu", "cuda:0"
    dtype: str  # "float32", "bfloat16", "float16", "int8"
    reads_clips: bool  # else single faces
    num_frames: int  # per clip; a single-face model samples this many of a video
    label_names: tuple[str, ...]

    def encode(self, faces: "np.ndarray | torch.Tensor") -> np.ndarray:
        """(n, C, size, size) float32, normalised -> features (n, D) float32."""
        ...

    def classify(self, features: np.ndarray) -> np.ndarray:
        """(n, num_frames, D) of clips, or (n, D) of faces -> raw logits (n, num_labels) float32."""
        ...

    def logits(self, pixel_values: "np.ndarray | torch.Tensor") -> np.ndarray:
        """(n, num_frames, C, size, size) of clips, or (n, C, size, size) of faces -> raw logits (n, num_labels)."""
        ...

    def weights(self) -> Iterator[bytes]:
        """Bytes that differ for other weights, piece by piece, for a digest."""
        ...


def require_finite(values: np.ndarray) -> np.ndarray:
    """The values unchanged; raises ModelLoadError for nan or infinity, which must not become a label."""
    if not np.isfinite(values).all():
        raise ModelLoadError(
            "The model's scores are nan or infinity, because of its weights or its processor's settings; use another "
            "model or train it again."
        )
    return values
