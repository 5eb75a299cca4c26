"""Encoders small enough to be built in every test, under the names the tests give them; weights are drawn at random."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import (
    BeitConfig,
    ConvNextConfig,
    PreTrainedConfig,
    ResNetConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
)

from engagement_recognition import EngagementConfig, EngagementForImageClassification, EngagementForVideoClassification

_TOKENS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_TOKENS |= {"image_size": 32, "patch_size": 8}
# As microsoft/beit-base-patch16-224-pt22k-ft22k is built, but small.
_BEIT = {
    "use_mean_pooling": True,
    "use_relative_position_bias": True,
    "use_absolute_position_embeddings": False,
    "out_indices": [1, 2],
    "layer_scale_init_value": 0.1,
}
_NARROW = {"channels": [16, 16, 24, 32], "layers": [1, 1, 1, 1]}
_TIMM_SWIN = {"img_size": 32, "window_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}


def _timm(architecture: str, **model_args: object) -> PreTrainedConfig:
    return TimmWrapperConfig(architecture=architecture, model_args=model_args or None)


# name: (its config, channels, height and width in pixels)
ENCODERS: dict[str, tuple[Callable[[], PreTrainedConfig], int, int]] = {
    "resnet18": (lambda: _timm("resnet18", **_NARROW), 3, 64),
    "mobilenetv3_large_100": (lambda: _timm("mobilenetv3_large_100"), 3, 64),
    "face_vgg8_050": (lambda: _timm("face_vgg8_050"), 1, 44),
    "nezami_cnn": (lambda: _timm("nezami_cnn"), 1, 48),
    "nezami_vgg": (lambda: _timm("nezami_vgg"), 1, 48),
    "timm_vit": (lambda: _timm("vit_tiny_patch16_224", img_size=32, depth=2), 3, 32),
    "timm_swin": (lambda: _timm("swin_tiny_patch4_window7_224", **_TIMM_SWIN), 3, 32),
    "beit": (lambda: BeitConfig(**_TOKENS, **_BEIT), 3, 32),
    "vit": (lambda: ViTConfig(**_TOKENS), 3, 32),
    "swin": (lambda: SwinConfig(image_size=32, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4), 3, 32),
    "convnext": (lambda: ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]), 3, 64),
    "resnet": (lambda: ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, layer_type="basic"), 3, 32),
}
HEADS = ("image", "lstm", "transformer", "mean")
# Every encoder under two heads, and every head under several encoders: what goes wrong does so in one or in a pair.
PAIRS = [(encoder, HEADS[(start + step) % 4]) for start, encoder in enumerate(ENCODERS) for step in (0, 1)]


def tiny_config(encoder: str = "beit", **fields: object) -> EngagementConfig:
    build, num_channels, size_px = ENCODERS[encoder]
    small = {"temporal_hidden_size": 16, "temporal_num_heads": 2, "num_labels": 3, "num_frames": 2}
    shape = {"num_channels": num_channels, "image_size": size_px}
    return EngagementConfig(encoder_config=build(), **{**small, **shape, **fields})


def tiny_model(encoder: str = "beit", head: str = "lstm", **fields: object) -> nn.Module:
    """head: "image", or the temporal head of a video model."""
    if head == "image":
        return EngagementForImageClassification(tiny_config(encoder, **fields))
    return EngagementForVideoClassification(tiny_config(encoder, temporal=head, **fields))


def draw_pixels(model: nn.Module, batch_size: int = 2, num_frames: int | None = None, seed: int = 0) -> torch.Tensor:
    """(batch_size, C, H, W) for a model of one face, else (batch_size, num_frames, C, H, W), from N(0, 1)."""
    config = model.config
    frames = () if isinstance(model, EngagementForImageClassification) else (num_frames or config.num_frames,)
    shape = (batch_size, *frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
