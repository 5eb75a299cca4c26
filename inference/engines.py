"""What runs a model's networks: pixel values in, features and logits out, as numpy arrays whatever is behind.

A model is two networks: an encoder, which reads each face alone, and a head, which reads the features of a clip's
frames together. `live` keeps features of the frames it has seen, so that both are asked for one by one.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..processor.input_errors import ModelLoadError

if TYPE_CHECKING:
    import torch


class Engine(Protocol):
    """Runs one model. Arrays that come in may be of numpy or torch, on any device; what goes out lies on the CPU.

    Raises (all three methods):
        ModelLoadError: logits or features that are no numbers (nan, infinity).
    """

    name: str  # library and version: "torch 2.14.1"
    device: str  # "cpu", "cuda:0"
    dtype: str  # "float32", "bfloat16", "float16", "int8"
    reads_clips: bool  # else single faces
    num_frames: int  # of a clip; a model of single faces reads a video in so many
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
        """What no model with other weights has, piece by piece, for a digest."""
        ...


def require_finite(values: np.ndarray) -> np.ndarray:
    """The same; raises ModelLoadError for nan and infinity, of which no label may be made."""
    if not np.isfinite(values).all():
        raise ModelLoadError(
            "Expected numbers as the model's scores, got nan or infinity; its weights or its processor's settings make "
            "none of these pictures, so use another model or train it anew."
        )
    return values
