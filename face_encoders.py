"""Small networks for faces of 40 to 64 px, as timm models.

`face_vgg8` is VGG's plan with four pairs of 3x3 convolutions, batch norm and a mean over space, as the best results
from random weights on FER2013 use; `face_vgg8_075` and `face_vgg8_050` have three quarters and half of its channels.

`nezami_cnn` and `nezami_vgg` (arXiv 1808.02324), for 48x48 grey faces, follow the paper and its TFLearn code:
convolutions and pools pad to "same", the dropout numbers there are keep probabilities (0.8 and 0.7, so p = 0.2 and 0.3
here), local response normalisation after the first block, first weights as TFLearn draws them. The paper's classifier
is our model's own, so both nets end at 1,024 features. Their published TensorFlow weights are no longer served; nothing
can be imported.

`TimmEncoder` wraps these and all other timm models for transformers.
"""

from collections.abc import Callable
from itertools import pairwise

import timm
import torch
from timm.models import register_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import TimmWrapperModel

_CONV_DROP, _DENSE_DROP = 0.2, 0.3


class TimmEncoder(TimmWrapperModel):
    """A timm model that keeps the first weights timm gave it; the wrapper would redraw each from N(0, 0.02)."""

    def _init_weights(self, module: nn.Module) -> None:
        # Built on the meta device (from_pretrained) there are no first weights to keep.
        if getattr(self, "_built_empty", False):
            super()._init_weights(module)

    def post_init(self) -> None:
        self._built_empty = any(parameter.is_meta for parameter in self.parameters())
        super().post_init()


class _LocalResponseNorm(nn.LocalResponseNorm):
    """As TFLearn: depth_radius 5, alpha 1e-4 for the plain sum; PyTorch divides alpha by the window's size."""

    def __init__(self) -> None:
        super().__init__(size=11, alpha=11e-4, beta=0.75, k=1.0)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        # The pool within has no bfloat16 kernel on the CPU.
        return super().forward(feature_map.float()).to(feature_map.dtype)


class FaceNet(nn.Module):
    """A plain stack of convolution blocks and what reads their last map, with timm's interface for encoders.

    Args:
        blocks: the convolution part; its last map has `num_features` channels.
        num_features: channels of the last feature map.
        pool: from that map to one vector a picture.
        dense: from that vector to `head_hidden_size` features.
        head_hidden_size: features of a picture.
        num_classes: outputs of the classifier; 0 gives features.
    """

    def __init__(
        self,
        blocks: list[nn.Module],
        num_features: int,
        pool: nn.Module,
        dense: nn.Module,
        head_hidden_size: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.num_features = num_features
        self.head_hidden_size = head_hidden_size
        self.blocks = nn.ModuleList(blocks)
        self.pool = pool
        self.dense = dense
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def prune_intermediate_layers(
        self, indices: list[int], prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Keep all blocks (the last map is wanted); `prune_head` cuts the dense layers away."""
        if prune_head:
            self.dense = nn.Identity()
            self.reset_classifier(0)
        return list(indices)

    def forward_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(n, in_chans, height, width) -> (n, num_features, map_height, map_width)."""
        feature_map = pixel_values
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                feature_map = checkpoint(block, feature_map, use_reentrant=False)
            else:
                feature_map = block(feature_map)
        return feature_map

    def forward_head(self, feature_map: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(n, num_features, map_height, map_width) -> (n, head_hidden_size), or class logits."""
        features = self.dense(self.pool(feature_map))
        return features if pre_logits else self.classifier(features)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(pixel_values))


def _face_vgg8(width: float, num_classes: int, in_chans: int) -> FaceNet:
    channels = (in_chans, *(int(size * width) for size in (64, 128, 256, 512)))
    blocks = [_normed_block(i, o, pooled=o != channels[-1]) for i, o in pairwise(channels)]
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return FaceNet(blocks, channels[-1], mean, nn.Identity(), channels[-1], num_classes)


def _normed_block(num_in: int, num_out: int, pooled: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (num_in, num_out):
        layers += [nn.Conv2d(channels, num_out, 3, padding=1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2) if pooled else nn.Identity())


def face_vgg8(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """4.7 million weights, 375 million multiplications a face of 44x44 px."""
    return _face_vgg8(1.0, num_classes, in_chans)


def face_vgg8_075(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """2.6 million weights, 211 million multiplications a face of 44x44 px."""
    return _face_vgg8(0.75, num_classes, in_chans)


def face_vgg8_050(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """1.2 million weights, 94 million multiplications a face of 44x44 px."""
    return _face_vgg8(0.5, num_classes, in_chans)


def _nezami_net(
    blocks: list[nn.Module], num_features: int, map_size: int, dense_sizes: tuple[int, ...], num_classes: int
) -> FaceNet:
    """Args: map_size: height and width of the last map for a 48x48 picture."""
    widths = (num_features * map_size**2, *dense_sizes)
    dense = [(nn.Linear(i, o), nn.ReLU(), nn.Dropout(_DENSE_DROP)) for i, o in pairwise(widths)]
    layers = nn.Sequential(*(layer for triple in dense for layer in triple))
    net = FaceNet(blocks, num_features, nn.Flatten(), layers, dense_sizes[-1], num_classes)
    return net.apply(_tflearn_init)


def _tflearn_init(module: nn.Module) -> None:
    """TFLearn's defaults: "uniform_scaling" for convolutions, a truncated normal of 0.02 for dense layers."""
    if isinstance(module, nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.uniform_(module.weight, -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _conv(num_in: int, num_out: int, kernel_size: int) -> list[nn.Module]:
    return [nn.Conv2d(num_in, num_out, kernel_size, padding="same"), nn.ReLU()]


def _cnn_block(num_in: int, num_out: int, kernel_size: int, normalised: bool) -> nn.Module:
    layers = _conv(num_in, num_out, kernel_size) + ([_LocalResponseNorm()] if normalised else [])
    # ceil_mode: TensorFlow's "same" pool pads on the right and below, 48 -> 24 -> 12.
    return nn.Sequential(*layers, nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Dropout(_CONV_DROP))


def _vgg_block(num_in: int, num_out: int, normalised: bool) -> nn.Module:
    layers = _conv(num_in, num_out, 3) + _conv(num_out, num_out, 3) + ([_LocalResponseNorm()] if normalised else [])
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Dropout(_CONV_DROP))


def nezami_cnn(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """Convolutions of 64 (5x5) and 128 (3x3), dense layers of 1,024 and 1,024."""
    blocks = [_cnn_block(in_chans, 64, 5, normalised=True), _cnn_block(64, 128, 3, normalised=False)]
    return _nezami_net(blocks, 128, 12, (1024, 1024), num_classes)


def nezami_vgg(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """Pairs of 3x3 convolutions of 64, 128, 256 and 512, dense layers of 4,096, 4,096 and 1,024."""
    widths = (in_chans, 64, 128, 256, 512)
    blocks = [_vgg_block(i, o, normalised=o == 64) for i, o in pairwise(widths)]
    return _nezami_net(blocks, 512, 3, (4096, 4096, 1024), num_classes)


def _register_once(*builders: Callable[..., nn.Module]) -> None:
    # As remote code this file is imported anew for every model, and timm warns at each second registration.
    for builder in builders:
        if not timm.is_model(builder.__name__):
            register_model(builder)


_register_once(face_vgg8, face_vgg8_075, face_vgg8_050, nezami_cnn, nezami_vgg)


def other_views(pixel_values: torch.Tensor, num_views: int) -> list[torch.Tensor]:
    """(n, C, h, w) -> of 2 views the mirror image, of 10 also four corners of 11/12 of the side, each mirrored too."""
    if num_views == 1:
        return []
    height, width = pixel_values.shape[-2:]
    rows, columns = height * 11 // 12, width * 11 // 12
    views = [pixel_values]
    if num_views == 10:
        places = [(top, left) for top in (0, height - rows) for left in (0, width - columns)]
        corners = [pixel_values[..., top : top + rows, left : left + columns] for top, left in places]
        views += [nn.functional.interpolate(corner, (height, width), mode="bilinear") for corner in corners]
    return [*views[1:], *(view.flip(-1) for view in views)]
