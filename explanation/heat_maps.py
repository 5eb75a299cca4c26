"""Where a model looks in the frames of a clip: heat maps for a class.

Grad-CAM (Selvaraju et al., arXiv 1610.02391): each channel of the encoder's last feature map is weighted by the mean
gradient of the class's logit, taken through the temporal head, so that the frames of a clip share one scale. HiResCAM
(Draelos and Carin, arXiv 2011.08891) uses the gradient at each place. Both are equal if features are the map's mean
over space, as with "map" encoders and BEiT; before dense layers and class tokens only HiResCAM's places can be trusted.
Captum and grad-cam expect one picture per model and a layer by name; here frames pass the encoder as one batch and the
layer follows from the gradient's path, which takes fewer lines than adapting either. `face_focus` computes the share of
heat on the face, `heat_map_figure` draws figures.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from ..answer_rule import AnswerRule
from ..inference.torch_engine import to_array
from ..modeling_engagement import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementFrameEncoder,
)
from ..processor.input_errors import EngagementInputError

EngagementModel = EngagementForVideoClassification | EngagementForImageClassification
METHODS = ("gradcam", "hirescam")


@dataclass(frozen=True)
class ClipExplanation:
    """Heat for one class in every frame of a clip, in shares of the logit: comparable within the clip only."""

    label: str
    method: str
    scores: dict[str, float]  # by the answer rule; for a single-face model the mean over frames
    maps: np.ndarray  # (num_frames, height, width) float32 >= 0, in pixels of the model's input
    map_size: tuple[int, int]  # rows and columns of the feature map behind them

    @property
    def zero_heat(self) -> list[bool]:
        """By frame, whether there is no evidence for the class in it."""
        return [not heat.any() for heat in self.maps]


def explain_clip(
    model: EngagementModel,
    pixel_values: torch.Tensor,
    label: str | None = None,
    method: str = "gradcam",
    rule: AnswerRule | None = None,
) -> ClipExplanation:
    """One heat map per frame for a class's logit. The model is left unchanged; frozen encoders work too.

    Args:
        pixel_values: (num_frames, num_channels, height, width), float, normalised: one clip. A single-face model takes
            one face (num_channels, height, width), or frames, each explained by its own logit.
        label: the class to explain; default: the predicted or most probable one.
        method: "gradcam" or "hirescam".
        rule: how logits become scores and a label; default: the one loaded with the model, else softmax.

    Raises:
        EngagementInputError: the model has no such label, there is no such method, or no map of the encoder leads to
            the logits.
    """
    if method not in METHODS:
        raise EngagementInputError(f"Unknown method {method!r}; choose {' or '.join(METHODS)}.")
    rows = _rows(model, pixel_values)
    with _evaluating(model), _gradients(), _recorded_maps(model.encoder) as recorded:
        # Gradients must flow even if everything is frozen, and only the pixels come before every map.
        logits = model(rows.to(model.device, torch.float32).clone().requires_grad_()).logits.float()
        rule = rule or model.answer_rule or AnswerRule(tuple(model.config.label_names))
        scores = rule.to_scores(to_array(logits)).mean(axis=0)
        label = rule.label_names[rule.decide(scores[None])[0][0]] if label is None else label
        target = logits[:, _label_id(model, label)].sum()  # rows are independent
        values, gradients = _map_and_gradients(model.encoder, recorded, target, (rows.shape[-2], rows.shape[-1]))
    weights = gradients.mean(dim=(2, 3), keepdim=True) if method == "gradcam" else gradients
    heat = (weights * values).sum(dim=1, keepdim=True).relu()  # (frames, D, h, w) -> (frames, 1, h, w)
    maps = F.interpolate(heat, size=rows.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    named = dict(zip(rule.label_names, scores.tolist(), strict=True))
    return ClipExplanation(label, method, named, maps.cpu().numpy(), (heat.shape[-2], heat.shape[-1]))


def _rows(model: EngagementModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """One clip -> the input of the model's forward."""
    is_clip_model = isinstance(model, EngagementForVideoClassification)
    if pixel_values.ndim not in ((4,) if is_clip_model else (3, 4)):
        expected = "num_frames, num_channels, height, width" if is_clip_model else "num_channels, height, width"
        raise ValueError(f"Expected pixel_values of shape ({expected}), got {tuple(pixel_values.shape)}.")
    return pixel_values[None] if is_clip_model or pixel_values.ndim == 3 else pixel_values


def _label_id(model: EngagementModel, label: str) -> int:
    names = model.config.label_names
    if label not in names:
        raise EngagementInputError(f"The model has no label {label!r}; choose one of {', '.join(names)}.")
    return names.index(label)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module's own mode is restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _gradients() -> Iterator[None]:
    """Enable gradients in any context; cuDNN's LSTM has none in evaluation mode, PyTorch's own has."""
    with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield


@contextlib.contextmanager
def _recorded_maps(encoder: EngagementFrameEncoder) -> Iterator[list[torch.Tensor]]:
    """Outputs recorded in a forward pass, in order: tokens after each LayerNorm, and the last hidden state."""
    recorded: list[torch.Tensor] = []

    def record_tokens(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if output.ndim == 3:
            recorded.append(output)

    def record_last(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: BaseModelOutput) -> None:
        if output.last_hidden_state is not None:
            recorded.append(output.last_hidden_state)

    with contextlib.ExitStack() as hooks:
        for norm in (module for module in encoder.modules() if isinstance(module, nn.LayerNorm)):
            hooks.enter_context(norm.register_forward_hook(record_tokens))
        hooks.enter_context(encoder.model.register_forward_hook(record_last))
        yield recorded


def _map_and_gradients(
    encoder: EngagementFrameEncoder, recorded: list[torch.Tensor], target: torch.Tensor, size_px: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last feature map that leads to the target, and the target's gradient there: (num_images, D, h, w) each.

    This is the encoder's last hidden state, unless only a class token is read from it (ViT, DINOv2, CLIP). Then the
    attention of the last block is the last to read the patches, and Grad-CAM is computed on its normalised input as
    usual; before the LayerNorm, gradients are orthogonal to the tokens, and HiResCAM would be zero.
    """
    last = recorded[-1]
    for hidden in (last, *(tokens for tokens in reversed(recorded[:-1]) if tokens.shape == last.shape)):
        (gradient,) = torch.autograd.grad(target, hidden, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        gradients = encoder.to_feature_map(gradient, size_px).float()
        # Zero for patches and class token alike: the map is on the path, but contains no evidence for the class.
        if gradients.any() or not gradient.any():
            return encoder.to_feature_map(hidden.detach(), size_px).float(), gradients
    raise EngagementInputError(
        f"No feature map of the encoder {type(encoder.model).__name__} leads to the logits; explain a model with "
        "another encoder."
    )
