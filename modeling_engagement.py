"""Engagement models: one frame encoder, two heads (single face, clip of faces).

`EngagementFrameEncoder` wraps any timm or transformers vision model: a map for explanations, a vector for each frame.
`EngagementForImageClassification` classifies one face, `EngagementForVideoClassification` a clip. Both have the encoder
as `self.encoder`: an encoder trained on expressions (stage one) starts an engagement model (stage two) by
`from_encoder`. Stages as in Nezami et al. (arXiv 1808.02324), CNN + LSTM as in the DAiSEE study. Uploaded with weights.
"""

import math
import os
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, TimmWrapperConfig, TimmWrapperModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils.generic import can_return_tuple

from .configuration_engagement import AnswerRule, EngagementConfig
from .face_encoders import (  # registers our nets with timm, too
    Encoder,
    build_encoder,
    cut_after_feature_map,
    feature_size,
    features_for,
    fit_to_size,
    image_part,
    is_timm_name,
    other_views,
    own_size,
    repository_of,
    resample,
    size_arguments,
    stored_weights,
    token_grid,
    trial,
)

_ASKED = ("output_hidden_states", "output_attentions")  # outputs of an encoder's layers that a caller may request
_Layers = dict[str, Any]  # name → outputs of each layer: tensors, or None where not requested


class EngagementPreTrainedModel(PreTrainedModel):
    """Base class of the encoder and both models: how they are loaded, and how they start from a pretrained encoder."""

    config_class = EngagementConfig
    if TYPE_CHECKING:  # transformers evaluates annotations before that class exists
        config: EngagementConfig
        encoder: "EngagementFrameEncoder"  # in both models, as is the method below

        def classify_features(self, features: torch.Tensor) -> torch.Tensor: ...

    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    # The loss is a mean over clips, never over tokens: Trainer must not divide it by a number of tokens.
    accepts_loss_kwargs = False
    answer_rule: AnswerRule | None = None  # fitted to the loaded weights; not saved, as further training changes them
    _supports_sdpa = True
    _supports_flash_attn = True

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:  # transformers'
        for module in self.modules():
            if isinstance(module, PreTrainedModel) and not isinstance(module, EngagementPreTrainedModel):
                module._set_gradient_checkpointing(enable, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """The layer that reads pixels: a CNN's first convolution, or a patch embedding's (SigLIP 2: a linear layer)."""
        return next(module for module in self.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:  # as transformers' own: a model, or a pair with it
        """As transformers' own, with the `answer_rule` of the folder. Weights on the CPU are copied: mapped from the
        file they may be unaligned, where PyTorch's kernels round differently, and logits differ by 1e-8."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu":
                tensor.data = tensor.data.clone(memory_format=torch.preserve_format)
        if source := (args[0] if args else kwargs.get("pretrained_model_name_or_path")):
            model.answer_rule = AnswerRule.from_pretrained(source, **kwargs)
        return loaded

    @classmethod
    def from_encoder(cls, encoder: Encoder, **config_arguments: Any) -> Self:  # the config's
        """A model with a pretrained encoder: its weights are loaded, the heads are initialised at random.

        Args:
            encoder: a Hub id (`"timm/resnet18.a1_in1k"`, `"microsoft/beit-base-patch16-224-pt22k-ft22k"`), a local
                folder of either, the folder of an engagement model, or the bare name of a timm architecture
                (`"resnet18"`), which starts from random weights; with a tag (`"resnet18.a1_in1k"`) from the Hub's.
            config_arguments: further fields of `EngagementConfig`. By default `image_size` is the encoder's own, if
                fixed, and `encoder_features` the features that classifiers of its family use.

        Raises:
            OSError: the encoder cannot be found or fetched, or its weights do not fit its config.
            ValueError: it does not read single pictures, or none of this size.
        """
        weights = None if is_timm_name(encoder) else _load_encoder_weights(encoder)
        model = cls(plan_config(encoder, weights, **config_arguments))
        if weights is not None:
            inner = model.encoder.model
            missing, _ = inner.load_state_dict(resample(weights, inner), strict=False)  # weights of removed layers stay
            if missing:
                raise OSError(
                    f"{encoder} has no weights for {len(missing)} layers of the encoder (first: {missing[0]}); pass an "
                    "encoder of the same architecture."
                )
        return model


class EngagementFrameEncoder(EngagementPreTrainedModel):
    """Any vision model as an encoder of single frames.

    `forward` gives `last_hidden_state`, the last feature map (num_images, feature_size, map_height, map_width), and
    `pooler_output`, the features (num_images, feature_size) the heads read.
    """

    # The heads of a whole model.
    _keys_to_ignore_on_load_unexpected = [r"^normalization\.", r"^temporal\.", r"^classifier\."]

    def __init__(self, config: EngagementConfig) -> None:
        super().__init__(config)
        self.model = build_encoder(config.encoder_config)
        if config.encoder_features != "pooled":
            cut_after_feature_map(self.model)
        self.feature_size = feature_size(self.model, config.encoder_features, config.num_channels)
        self.post_init()

    def train(self, mode: bool = True) -> "EngagementFrameEncoder":
        """A frozen encoder stays in evaluation mode: otherwise its BatchNorm statistics would keep changing."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        """pixel_values: (num_images, num_channels, height, width), float, normalised. `output_hidden_states` and
        `output_attentions` request the outputs of each layer, (num_images, ...), in the encoder's own form; raises
        ValueError where it has none (most have attentions only with `attn_implementation="eager"`)."""
        views = [] if self.training else other_views(pixel_values, self.config.test_time_views)
        others = [self._read(view, {})[1] for view in views]
        feature_map, features, layers = self._read(pixel_values, kwargs)  # last: explanations use the last map
        if others:
            features = torch.stack([features, *others]).mean(dim=0)
        return BaseModelOutputWithPooling(last_hidden_state=feature_map, pooler_output=features, **layers)

    def _read(self, pixel_values: torch.Tensor, asked: dict[str, object]) -> tuple[torch.Tensor, torch.Tensor, _Layers]:
        """(n, C, height, width) -> the last feature map (n, D', h, w), the features (n, D), and requested outputs."""
        features, size_px = self.config.encoder_features, (pixel_values.shape[-2], pixel_values.shape[-1])
        is_timm = isinstance(self.model, TimmWrapperModel)
        arguments = {"do_pooling": features == "pooled"} if is_timm else size_arguments(self.model, size_px)
        asked = {name: getattr(self.config, name) if asked.get(name) is None else asked[name] for name in _ASKED}
        asked = {name: value for name, value in asked.items() if value}
        outputs = self.model(pixel_values.to(self.dtype), return_dict=True, **arguments, **asked)
        layers = {name: outputs.get(name) for name in (name.removeprefix("output_") for name in asked)}
        if absent := [name for name, states in layers.items() if not states]:
            remedy = "leave that out, or load the model with attn_implementation='eager' if it has attention"
            raise ValueError(f"The encoder {type(self.model).__name__} gives no {absent[0]}; {remedy}.")
        feature_map = self.to_feature_map(outputs.last_hidden_state, size_px)
        if features == "map":
            return feature_map, feature_map.mean(dim=(2, 3)), layers  # (n, D, h, w) -> (n, D)
        # ResNetModel gives (n, D, 1, 1).
        pooled = outputs.last_hidden_state[:, 0] if features == "token" else outputs.pooler_output.flatten(1)
        return feature_map, pooled, layers

    def to_feature_map(self, hidden: torch.Tensor, image_size_px: tuple[int, int]) -> torch.Tensor:
        """Hidden states in the encoder's form, tokens (n, T, D) or a channels-last map (n, h, w, D) -> (n, D, h, w).

        Also for hidden states before the last layer, and for gradients of either.
        """
        if hidden.ndim == 4:
            channels_last = getattr(getattr(self.model, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
            return hidden.permute(0, 3, 1, 2) if channels_last else hidden
        height, width = token_grid(hidden.shape[1], image_size_px, getattr(self.model.config, "patch_size", None))
        patches = hidden[:, hidden.shape[1] - height * width :]  # class and register tokens come first
        return patches.transpose(1, 2).unflatten(2, (height, width))  # (n, T, D) -> (n, D, h, w)


class _EngagementClassifier(EngagementPreTrainedModel):
    """Base class of both models: faces, single or in clips, through the encoder, and its features to logits."""

    _axes = "batch_size, num_channels, height, width"

    def __init__(self, config: EngagementConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = EngagementFrameEncoder(config)
        self.dropout = nn.Dropout(config.dropout)

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: object
    ) -> ImageClassifierOutput:
        """Logits, (batch_size, num_labels), and the loss if there are labels.

        Args:
            pixel_values: (batch_size, [num_frames,] num_channels, height, width), float, normalised; any num_frames.
            labels: (batch_size,), class indices.
            kwargs: `output_hidden_states`, `output_attentions`, as the encoder's; (batch_size, [num_frames,] ...).
        """
        if pixel_values.ndim != len(self._axes.split(", ")):
            raise ValueError(f"Expected pixel_values of shape ({self._axes}), got {tuple(pixel_values.shape)}.")
        shape = pixel_values.shape[:-3]  # (batch,) or (batch, frames)
        # (batch, frames, C, H, W) -> (batch*frames, C, H, W); the features are unflattened again
        found = self.encoder(pixel_values.flatten(0, -4), return_dict=True, **kwargs)
        logits = self.classify_features(found.pooler_output.unflatten(0, shape))
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        layers: _Layers = {name: found[name] for name in ("hidden_states", "attentions") if name in found}
        for name, states in layers.items() if len(shape) == 2 else ():  # for Swin's attentions -1 is frames * windows
            layers[name] = tuple(state if state is None else state.unflatten(0, (shape[0], -1)) for state in states)
        return ImageClassifierOutput(loss=loss, logits=logits, **layers)


class EngagementForImageClassification(_EngagementClassifier):
    """Classifies single faces: facial expressions (stage one), or engagement."""

    def __init__(self, config: EngagementConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(self.encoder.feature_size, len(config.label_names))
        self.post_init()

    def classify_features(self, features: torch.Tensor) -> torch.Tensor:
        """The encoder's features of faces, (batch, D) -> logits (batch, num_labels)."""
        return self.classifier(self.dropout(features))


class EngagementForVideoClassification(_EngagementClassifier):
    """Classifies a clip of face crops, or of whole frames, with any encoder and temporal head."""

    input_modalities = "video"
    _axes = "batch_size, num_frames, num_channels, height, width"

    def __init__(self, config: EngagementConfig) -> None:
        super().__init__(config)
        if config.normalize_features:  # without weights: it learns only its running mean and variance
            self.normalization = nn.BatchNorm1d(self.encoder.feature_size, affine=False)
        self.temporal = TEMPORAL_HEADS[config.temporal](config, self.encoder.feature_size)
        self.classifier = nn.Linear(self.temporal.output_size, len(config.label_names))
        self.post_init()

    def classify_features(self, features: torch.Tensor) -> torch.Tensor:
        """The encoder's features of clips' frames, (batch, frames, D) -> logits (batch, num_labels).

        For callers that reuse features, such as a live window that moves by one frame.
        """
        if self.config.normalize_features:
            # (batch, frames, D) -> (batch*frames, D) -> (batch, frames, D)
            features = self.normalization(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return self.classifier(self.dropout(self.temporal(features)))  # (batch, frames, D) -> (batch, D') -> logits


class LSTMHead(nn.LSTM):
    """(batch, frames, D) -> the last hidden state (batch, hidden)."""

    def __init__(self, config: EngagementConfig, feature_size: int) -> None:
        super().__init__(feature_size, config.temporal_hidden_size, config.temporal_num_layers, batch_first=True)
        self.output_size = config.temporal_hidden_size

    # A subclass, so that stored weights have an LSTM's names; its other arguments and outputs are not used.
    def forward(self, features: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if torch.is_autocast_enabled("cpu"):  # oneDNN has a bfloat16 LSTM only with AVX-512
            with torch.autocast("cpu", enabled=False):
                return self.forward(features.to(next(self.parameters()).dtype))
        return super().forward(features)[1][0][-1]  # h_n: (layers, batch, hidden) -> (batch, hidden)


class TransformerHead(nn.Module):
    """Self-attention over any number of frames, then their mean; sinusoids or a convolution encode their order."""

    def __init__(self, config: EngagementConfig, feature_size: int) -> None:
        super().__init__()
        self.output_size = size = config.temporal_hidden_size
        self.projection = nn.Linear(feature_size, size)
        if config.temporal_positions == "convolutional":
            self.neighbours = nn.Conv1d(size, size, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size, config.temporal_num_heads, 4 * size, dropout=0.1, batch_first=True, norm_first=True
            )
            for _ in range(config.temporal_num_layers)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.projection(features)  # (batch, frames, D) -> (batch, frames, hidden)
        if hasattr(self, "neighbours"):  # over time: (batch, frames, hidden) -> (batch, hidden, frames), and back
            hidden = hidden + nn.functional.gelu(self.neighbours(hidden.transpose(1, 2))).transpose(1, 2)
        else:
            hidden = hidden + sinusoidal_positions(hidden.shape[1], self.output_size).to(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden).mean(dim=1)  # (batch, frames, hidden) -> (batch, hidden)


class MeanHead(nn.Module):
    """(batch, frames, D) -> their mean over frames (batch, D): the control that cannot see order."""

    def __init__(self, config: EngagementConfig, feature_size: int) -> None:
        super().__init__()
        self.output_size = feature_size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=1)


class LastHead(MeanHead):
    """(batch, frames, D) -> the last frame (batch, D): the control that sees only one frame."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, -1]


TemporalHead = LSTMHead | TransformerHead | MeanHead
# Modules from (batch, frames, feature_size) to (batch, output_size), with that size as an attribute.
TEMPORAL_HEADS: dict[str, type[TemporalHead]] = {
    "lstm": LSTMHead, "transformer": TransformerHead, "mean": MeanHead, "last": LastHead,
}  # fmt: skip


def sinusoidal_positions(num_frames: int, size: int) -> torch.Tensor:
    """(num_frames, size); Vaswani et al. 2017, section 3.5."""
    frequencies = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000.0) / size))
    angles = torch.arange(num_frames)[:, None] * frequencies  # (frames, 1) * (size/2,) -> (frames, size/2)
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)[:, :size]


# Any: the arguments are fields of the config.
def plan_config(encoder: Encoder, weights: dict[str, torch.Tensor] | None = None, **arguments: Any) -> EngagementConfig:
    """The config that `from_encoder` builds from these weights (None: all weights); arguments and errors as there."""
    encoder_config = found = load_encoder_config(encoder)
    if isinstance(found, EngagementConfig):
        encoder_config, shared = found.encoder_config, ("encoder_features", "num_channels")
        arguments = {**{name: getattr(found, name) for name in shared}, **arguments}
        if arguments["num_channels"] != found.num_channels:
            raise ValueError(f"{encoder} was trained with num_channels {found.num_channels}; pass the same number.")
    elif is_timm_name(encoder):
        found.model_args = {"in_chans": arguments.get("num_channels", 3)}
    arguments.setdefault("image_size", own_size(encoder_config) or EngagementConfig.image_size)
    fit_to_size(encoder_config, arguments["image_size"])
    arguments["encoder_features"] = arguments.get("encoder_features") or features_for(encoder_config, weights)
    config = EngagementConfig(encoder_config=encoder_config, **arguments)
    _require_fitting(config)
    return config


def load_encoder_config(encoder: Encoder) -> PreTrainedConfig:
    """The config of a Hub id, local folder or timm architecture; of an engagement model the whole config. Raises
    OSError where none is found, ValueError where the model does not read single pictures."""
    if is_timm_name(encoder):
        return TimmWrapperConfig(architecture=str(encoder))
    source = repository_of(encoder)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)  # and without a prompt
    except (OSError, ValueError) as error:
        raise OSError(_not_fetched(encoder)) from error
    config = image_part(config)
    if os.path.isdir(source):  # noqa: PTH112 (a Hub id is no path)
        config.name_or_path = ""  # it is exported with the model, and a local path is private
    return config


def _load_encoder_weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Weights by name; those missing in the file are left out."""
    config = load_encoder_config(encoder)
    kind, prefix = (EngagementFrameEncoder, "model.") if isinstance(config, EngagementConfig) else (None, "")
    try:
        weights = stored_weights(repository_of(encoder), config, kind)
    except Exception as error:  # also from an old pickle, which is read as data
        raise OSError(_not_fetched(encoder)) from error
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _not_fetched(encoder: Encoder) -> str:
    return (
        f"The pretrained encoder '{encoder}' was neither found on this machine nor on the Hub (no network, no such "
        "repository, or no weights in it); pass a local folder with config.json and model.safetensors, or a timm "
        "architecture such as resnet18 to start from random weights."
    )


def _require_fitting(config: EngagementConfig) -> None:
    """Raises ValueError unless the encoder can be built and takes empty pictures of `image_size`."""
    encoder, size = config.encoder_config, config.image_size
    name, own = getattr(encoder, "architecture", encoder.model_type), own_size(encoder)
    remedy = f"pass image_size {own}" if own not in (None, size) else "use another encoder, or another image_size"
    try:
        with trial(encoder):
            frames = EngagementFrameEncoder(config).eval()
            found = frames(torch.zeros(2, config.num_channels, size, size)).pooler_output.shape
            assert found == (2, frames.feature_size), f"it gives features of shape {tuple(found)}"
    except NotImplementedError:  # an operation that the meta device lacks: the training will show
        return
    except Exception as error:  # timm and transformers raise nearly anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"The encoder {name} cannot read pictures of {size}x{size} px ({said}); {remedy}.") from error


__all__ = ["EngagementForImageClassification", "EngagementForVideoClassification", "EngagementFrameEncoder"]
__all__ += ["EngagementPreTrainedModel"]
