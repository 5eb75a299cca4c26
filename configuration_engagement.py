"""The configuration of an engagement model, stored as JSON with its weights: its architecture.

`EngagementConfig` defines the frame encoder, the number of frames and the temporal head. `answer_rule` defines how
logits become an answer, recipes how a model is trained, the processor how pixels are made. This file is copied to the
Hub with the weights, together with `answer_rule`.
"""

import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from packaging.version import Version

# The oldest versions that a model's code runs with. Checked here, before any of them is used: the config is read first,
# and the video pipeline replaces an error of the processor by "requires either a video processor or ...".
OLDEST = {
    "transformers": "5.20",
    "torch": "2.10",
    "torchvision": "0.25",
    "timm": "1.0.23",
    "huggingface-hub": "2.2",
    "av": "17.1",
    "facenet-pytorch": "2.5.3",
    "numpy": "2",
    "pillow": "10",
}


def _require_versions() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (for a copy of this file, pip checked nothing)
        raise ImportError(f"Python 3.11 or newer is needed, got {sys.version.split()[0]}.")
    for name, oldest in OLDEST.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or Version(found) < Version(oldest):
            raise ImportError(f"Expected {name}>={oldest}, got {found or 'none'}; pip install '{name}>={oldest}'.")


_require_versions()

from huggingface_hub.dataclasses import strict  # noqa: E402
from transformers import AutoConfig, PreTrainedConfig  # noqa: E402
from transformers.configuration_utils import SubConfigSpec  # noqa: E402

from .answer_rule import AnswerRule  # noqa: E402  # an endpoint imports it from this module

# No model needs more, and a mistyped or malicious size would use up all memory before any check.
_LARGEST = {"num_frames": 10_000, "image_size": 4096, "num_channels": 64}
_LARGEST |= {"temporal_hidden_size": 16_384, "temporal_num_layers": 100, "temporal_num_heads": 16_384}


@strict
class EngagementConfig(PreTrainedConfig):
    """Configuration of `EngagementForImageClassification` and `EngagementForVideoClassification`.

    Args:
        encoder_config: any transformers vision config (`TimmWrapperConfig(architecture="resnet18")`, `BeitConfig()`,
            ...), as an object or as its saved dictionary. Default: timm's `resnet18`.
        encoder_features: the features of a frame. `"map"`: the spatial mean of the last feature map; the layers after
            the map are removed. `"pooled"`: the encoder's own pooled output. `"token"`: its class token, the input of a
            ViT's classifier.
        num_frames: number of frames sampled from a clip.
        image_size: height and width of a face crop, in pixels.
        num_channels: 3 for colour, 1 for grey.
        temporal: the head that combines the frames: `"lstm"` (last hidden state), `"transformer"` (self-attention, then
            the mean over frames), `"mean"` (the mean over frames, independent of their order) or `"last"` (the last
            frame only).
        normalize_features: in clips, each feature is scaled to mean 0 and variance 1 before the temporal head, by
            a BatchNorm without weights, with statistics of the batch's frames (outside training: of training's).
        temporal_hidden_size: units of the LSTM or width of the transformer; unused by the other heads.
        temporal_num_layers: layers of the LSTM or of the transformer.
        temporal_num_heads: attention heads of the transformer.
        temporal_positions: how the transformer gets the order of frames: `"sinusoidal"`, or `"convolutional"`, which
            adds to each frame the output of a convolution over it and its neighbours.
        dropout: share of features dropped before the classifier.
        test_time_views: number of views of each face whose features are averaged outside training: 1 (the face), 2
            (with its mirror image) or 10 (also four corners of 11/12 of its side, each with its mirror image).
        initializer_range: standard deviation of the classifier's initial weights.

    Raises:
        ValueError: a size below 1, a dropout outside [0, 1), or a width that is not a multiple of the attention heads.
    """

    model_type = "engagement"
    sub_configs_defaults = {
        "encoder_config": SubConfigSpec(
            config_class=AutoConfig, model_type="timm_wrapper", init_kwargs={"architecture": "resnet18"}
        )
    }

    if TYPE_CHECKING:
        encoder_config: PreTrainedConfig = PreTrainedConfig()
    else:  # as in JSON until the config is complete, then a config object
        encoder_config: dict | PreTrainedConfig | None = None
    encoder_features: Literal["map", "pooled", "token"] = "map"
    num_frames: int = 8
    image_size: int = 224
    num_channels: int = 3
    temporal: Literal["lstm", "transformer", "mean", "last"] = "lstm"
    normalize_features: bool = False
    temporal_hidden_size: int = 256
    temporal_num_layers: int = 1
    temporal_num_heads: int = 4
    temporal_positions: Literal["sinusoidal", "convolutional"] = "sinusoidal"
    dropout: float = 0.5
    test_time_views: Literal[1, 2, 10] = 1
    initializer_range: float = 0.02

    @property
    def label_names(self) -> list[str]:
        """The labels by index."""
        return [name for _, name in sorted((self.id2label or {}).items())]

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:  # its own
        """Like transformers' own; if a model's code is saved with it, `AutoModel` finds the frame encoder there."""
        if auto_map := getattr(self, "auto_map", None):
            auto_map.setdefault("AutoModel", "modeling_engagement.EngagementFrameEncoder")
        super().save_pretrained(save_directory, *args, **kwargs)

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        temporal_sizes = ("temporal_hidden_size", "temporal_num_layers", "temporal_num_heads")
        for name in ("num_frames", "image_size", "num_channels", *temporal_sizes):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
            if getattr(self, name) > _LARGEST[name]:
                raise ValueError(f"Expected {name} of at most {_LARGEST[name]:,}, got {getattr(self, name):,}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Expected dropout in [0, 1), got {self.dropout}.")
        if self.temporal == "transformer" and self.temporal_hidden_size % self.temporal_num_heads:
            raise ValueError(
                f"Expected temporal_hidden_size ({self.temporal_hidden_size}) to be a multiple of "
                f"temporal_num_heads ({self.temporal_num_heads})."
            )


__all__ = ["AnswerRule", "EngagementConfig"]
