"""Encoders of single frames: any of timm's and transformers', and our own small networks for faces.

`face_vgg8` follows VGG, with four pairs of 3x3 convolutions, batch norm and a mean over space, as in the best results
from random weights on FER2013; `face_vgg8_075` and `face_vgg8_050` have three quarters and half of its channels.

`nezami_cnn` and `nezami_vgg` (arXiv 1808.02324), for 48x48 grey faces, follow the paper and its TFLearn code:
convolutions and pools pad to "same", dropout numbers there are keep probabilities (0.8 and 0.7, so p = 0.2 and 0.3
here), local response normalisation after the first block, initial weights as in TFLearn. The paper's classifier is our
model's own, so both networks end at 1,024 features. Their published weights are no longer available.
"""

import contextlib
import inspect
import math
import os
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, TimmWrapperConfig, TimmWrapperModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

Encoder = str | os.PathLike[str]  # a name, or a folder
_HUB_PREFIX = re.compile(r"^hf[_-]hub:")  # as timm.create_model takes it
_CONV_DROP, _DENSE_DROP = 0.2, 0.3


class TimmEncoder(TimmWrapperModel):
    """A timm model that keeps timm's initialisation; transformers' wrapper would replace it by N(0, 0.02)."""

    def _init_weights(self, module: nn.Module) -> None:
        # Built on the meta device (from_pretrained), there are no initial weights to keep.
        if getattr(self, "_built_empty", False):
            super()._init_weights(module)

    def post_init(self) -> None:
        self._built_empty = any(parameter.is_meta for parameter in self.parameters())
        shared: dict[nn.Parameter, str] = {}  # weights used in several places (CoaT), stored under the first name
        names = {name: shared.setdefault(w, name) for name, w in self.named_parameters(remove_duplicate=False)}
        if tied := {name: first for name, first in names.items() if first != name}:
            self._tied_weights_keys = tied
        super().post_init()


class _LocalResponseNorm(nn.LocalResponseNorm):
    """As in TFLearn: depth_radius 5, alpha 1e-4 for the plain sum; PyTorch divides alpha by the window's size."""

    def __init__(self) -> None:
        super().__init__(size=11, alpha=11e-4, beta=0.75, k=1.0)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        # Its pooling has no bfloat16 kernel on the CPU.
        return super().forward(feature_map.float()).to(feature_map.dtype)


class FaceNet(nn.Module):
    """A plain stack of convolution blocks with pooling and dense layers, and timm's interface for encoders.

    Args:
        blocks: the convolution part; its last map has `num_features` channels.
        pool, dense: from that map to one vector per picture, and on to `head_hidden_size` features.
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
        """Keeps all blocks, as the last map is needed; `prune_head` removes the dense layers."""
        if prune_head:
            self.dense = nn.Identity()
            self.reset_classifier(0)
        return list(indices)

    def forward_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(n, in_chans, height, width) -> (n, num_features, map_height, map_width)."""
        feature_map, recomputes = pixel_values, self.grad_checkpointing and self.training
        for block in self.blocks:
            feature_map = checkpoint(block, feature_map, use_reentrant=False) if recomputes else block(feature_map)
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
    """4.7 million weights, 375 million multiplications per face of 44x44 px."""
    return _face_vgg8(1.0, num_classes, in_chans)


def face_vgg8_075(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """2.6 million weights, 211 million multiplications per face of 44x44 px."""
    return _face_vgg8(0.75, num_classes, in_chans)


def face_vgg8_050(pretrained: bool = False, num_classes: int = 0, in_chans: int = 1, **kwargs: object) -> FaceNet:
    """1.2 million weights, 94 million multiplications per face of 44x44 px."""
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
    # ceil_mode: TensorFlow's "same" pooling pads on the right and at the bottom, 48 -> 24 -> 12.
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


# As remote code this file is imported again for every model, and timm warns of repeated registration.
for _builder in (face_vgg8, face_vgg8_075, face_vgg8_050, nezami_cnn, nezami_vgg):
    if not timm.is_model(_builder.__name__):
        register_model(_builder)


def other_views(pixel_values: torch.Tensor, num_views: int) -> list[torch.Tensor]:
    """(n, C, h, w) -> the further views: mirrored and, for 10, four corner crops (11/12 of a side), mirrored too."""
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


def is_timm_name(encoder: Encoder) -> bool:
    """Whether it is the bare name of a timm architecture, which means random weights."""
    name = str(encoder)
    return timm.is_model(name) and "." not in name and not os.path.isdir(encoder)  # noqa: PTH112 (a Hub id is no path)


def repository_of(encoder: Encoder) -> str:
    """timm's `resnet18.a1_in1k` and `hf_hub:timm/...` → their names on the Hub, all else unchanged; raises OSError if
    timm has no weights with that tag."""
    name = _HUB_PREFIX.sub("", str(encoder))
    architecture, _, tag = name.partition(".")
    if os.path.isdir(encoder) or not tag or not timm.is_model(architecture):  # noqa: PTH112 (a Hub id is no path)
        return name
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag not in known:
        raise OSError(
            f"timm {timm.__version__} has no weights with the tag {tag!r} for {architecture}, only "
            f"{', '.join(known) or 'none'}; use one of these, or {architecture} alone to start from random weights."
        )
    return getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or f"timm/{name}"  # some are their authors'


def image_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """The vision tower of CLIP and similar models, a masked autoencoder as a plain ViT; raises ValueError where no part
    reads pictures."""
    tower = getattr(config, "vision_config", None)
    if isinstance(tower, PreTrainedConfig) and _reads_pictures(type(tower)):
        return tower
    if config.model_type == "vit_mae":  # its own model class hides three quarters of a picture and shuffles the rest
        return CONFIG_MAPPING["vit"].from_dict({**config.to_dict(), "model_type": "vit"})
    if not _reads_pictures(type(config)) and config.model_type != "engagement":
        raise ValueError(f"A model of type {config.model_type!r} is not an image encoder; use a different one.")
    return config


def _reads_pictures(kind: type[PreTrainedConfig]) -> bool:
    return kind in MODEL_MAPPING and _model_class(kind).main_input_name == "pixel_values"


def _model_class(kind: type[PreTrainedConfig]) -> Any:  # a class of transformers', whose wrappers lose its types
    model = MODEL_MAPPING[kind]
    return model[0] if isinstance(model, tuple) else model


def stored_weights(encoder: Encoder, config: PreTrainedConfig, kind: type | None = None) -> dict[str, torch.Tensor]:
    """The stored weights of the part that `config` describes, by name; those that the file lacks, and transformers
    initialises, are left out. `kind`: the model's class, if not the library's own. Raises transformers' errors."""
    # Any: the annotations of transformers' classes hide that a pair is returned.
    own: Any = TimmEncoder if isinstance(config, TimmWrapperConfig) else kind or _model_class(type(config))
    model, report = own.from_pretrained(encoder, config=config, trust_remote_code=False, output_loading_info=True)
    return {name: weight for name, weight in model.state_dict().items() if name not in report["missing_keys"]}


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights."""
    if isinstance(config, TimmWrapperConfig):
        return TimmEncoder(config)
    return AutoModel.from_config(config, trust_remote_code=False)


def own_size(config: PreTrainedConfig) -> int | None:
    """Height and width in pixels that an encoder with positions, or windows, was made for; None: any size fits."""
    if isinstance(config, TimmWrapperConfig):
        known = timm.get_pretrained_cfg(config.architecture)
        size = (config.model_args or {}).get("img_size")
        if size is None and known is not None and known.fixed_input_size:
            size = (getattr(config, "pretrained_cfg", None) or {}).get("input_size", known.input_size)[-1]
    else:
        has_patches = getattr(config, "patch_size", None) or getattr(config, "patch_sizes", None)
        size = getattr(config, "image_size", None) if has_patches else None
    return int(size[0] if isinstance(size, (tuple, list)) else size) if size is not None else None


def fit_to_size(config: PreTrainedConfig, image_size_px: int) -> None:
    """Build a timm architecture with positions for this size, if it has such an argument; others stay unchanged."""
    if not isinstance(config, TimmWrapperConfig) or own_size(config) in (None, image_size_px):
        return
    before = config.model_args
    config.model_args = {**(before or {}), "img_size": image_size_px}
    try:
        with trial(config):
            build_encoder(config)
    except Exception:  # timm raises many kinds of errors for an argument that an architecture does not have
        config.model_args = before


def resample(weights: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Resize position embeddings learned at a different size, by timm's own rule; raises OSError for other shapes."""
    inner, prefix = getattr(model, "timm_model", None), "timm_model."
    convert = getattr(sys.modules[type(inner).__module__], "checkpoint_filter_fn", None)
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    if convert and any(weight.shape != shapes.get(name, weight.shape) for name, weight in weights.items()):
        bare = {name.removeprefix(prefix): weight for name, weight in weights.items()}
        weights = {prefix + name: weight for name, weight in convert(bare, inner).items()}
    for name, weight in weights.items():
        if weight.shape != (shape := shapes.get(name, weight.shape)):
            found = f"Expected the encoder's {name} in shape {tuple(shape)}, got {tuple(weight.shape)}"
            raise OSError(f"{found}; use an encoder of this size and architecture, or its own image_size.")
    return weights


def size_arguments(model: PreTrainedModel, size_px: tuple[int, int]) -> dict[str, bool]:
    """The argument that makes a transformers encoder with learned positions accept a different picture size."""
    own = own_size(model.config)
    takes_others = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    return {"interpolate_pos_encoding": True} if takes_others and own and (own, own) != size_px else {}


@contextlib.contextmanager
def trial(config: PreTrainedConfig) -> Iterator[None]:
    """For an encoder that is built only to look at: timm's on the meta device, without memory; some of transformers'
    classes keep tensors for all their models, which must not be empty."""
    device = "meta" if isinstance(config, TimmWrapperConfig) else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
        yield


def features_for(config: PreTrainedConfig, weights: dict[str, torch.Tensor] | None) -> str:
    """The features that classifiers of this family use, if there are weights for them; raises ValueError where the
    model does not read single pictures."""
    with trial(config):
        model = build_encoder(config).eval()
        names = model.state_dict().keys()
        if isinstance(config, TimmWrapperConfig):
            # A head without weights is only a mean over the map; tokens are normalised by the encoder's own pooling.
            if hasattr(model.timm_model, "patch_embed") or isinstance(model.timm_model, FaceNet):
                return "pooled"
            cut_after_feature_map(model)
            return "map" if model.state_dict().keys() == names else "pooled"
        size = own_size(config) or 224
        try:
            outputs = model(torch.zeros(2, getattr(config, "num_channels", 3), size, size))
        except (TypeError, ValueError) as error:  # it needs several frames, or more than pixels
            found = f"of type {config.model_type!r} is not an image encoder ({str(error).splitlines()[0][:200]})"
            raise ValueError(f"A model {found}; use a different one.") from error
    has_pooler = getattr(outputs, "pooler_output", None) is not None
    if has_pooler and not (weights and any("pooler" in name and name not in weights for name in names)):
        return "pooled"
    hidden = outputs.last_hidden_state
    patches = math.prod(token_grid(hidden.shape[1], (size, size), getattr(config, "patch_size", None)))
    return "token" if hidden.ndim == 3 and hidden.shape[1] > patches else "map"


def cut_after_feature_map(model: PreTrainedModel) -> None:
    """Remove the layers after the last feature map, whose weights are never used."""
    if isinstance(model, TimmWrapperModel):
        with contextlib.suppress(AttributeError):  # a few timm models lack this method, and keep their head
            model.timm_model.prune_intermediate_layers([-1], prune_head=True)
    elif hasattr(model, "pooler"):
        model.pooler = nn.Identity()  # not None: ResNet and similar models call it


def feature_size(model: PreTrainedModel, features: str, num_channels: int) -> int:
    """Number of features per picture; if a transformers config does not record it, an empty picture shows it."""
    if isinstance(model, TimmWrapperModel):
        return model.timm_model.num_features if features == "map" else model.timm_model.head_hidden_size
    for name in ("neck_hidden_sizes", "embed_dims", "hidden_dim", "hidden_sizes", "hidden_size"):
        if size := getattr(model.config, name, None):
            return size if isinstance(size, int) else size[-1]
    with trial(model.config):
        outputs = build_encoder(model.config).eval()(torch.zeros(1, num_channels, 64, 64), return_dict=True)
    return outputs.last_hidden_state.shape[1]


def token_grid(
    num_tokens: int, image_size_px: tuple[int, int], patch_size: int | tuple[int, int] | None
) -> tuple[int, int]:
    """Rows and columns of the patch tokens among `num_tokens`, without leading class and register tokens."""
    if patch_size is not None:
        rows_px, columns_px = patch_size if isinstance(patch_size, (tuple, list)) else (patch_size, patch_size)
        rows, columns = image_size_px[0] // rows_px, image_size_px[1] // columns_px
        if 0 <= num_tokens - rows * columns <= 8:
            return rows, columns
    # Unknown for timm's token models and merged patches (Swin): faces are square, and so is their grid.
    side = math.isqrt(num_tokens)
    return side, side
