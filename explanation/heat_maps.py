"""Where a model looks in the frames of a clip: maps of heat for a class, checks of the maps, and explained files.

Grad-CAM (Selvaraju et al., arXiv 1610.02391): each channel of the encoder's last feature map counts with the mean
gradient of the class's logit, taken through the temporal head, so that the frames of a clip share one scale. HiResCAM
(Draelos and Carin, arXiv 2011.08891) keeps the gradient of each place. Both are the same where features are the map's
mean over space, as with "map" encoders and BEiT; before dense layers and class tokens only HiResCAM's places can be
trusted. Captum and grad-cam expect one picture a model and a layer by name; here frames pass the encoder as one batch
and the layer follows from the path of the gradient, which takes fewer lines than to adapt either. How much of the heat
lies on the face is for `face_focus` to say, figures are in `explanation_figures`.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from ..inference.predictor import PICTURE_SUFFIXES, Predictor, best_label
from ..modeling_engagement import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementFrameEncoder,
)
from ..processor.face_preparation import PreparedClip
from ..processor.input_errors import EngagementInputError, NoFaceError
from .face_focus import FaceFocus, face_focus, input_transforms

EngagementModel = EngagementForVideoClassification | EngagementForImageClassification
METHODS = ("gradcam", "hirescam")
_CELLS_A_SIDE = 8  # deletion and insertion take a frame away in 8x8 cells: single pixels would add noise of their own
_CLIPS_PER_BATCH = 8


@dataclass(frozen=True)
class ClipExplanation:
    """Heat for one class in every frame of a clip, in shares of the logit: comparable within the clip only."""

    label: str
    method: str
    scores: dict[str, float]  # after softmax, by label name; for a single-face model their mean over the frames
    maps: np.ndarray  # (num_frames, height, width) float32 >= 0, in pixels of the model's input
    map_size: tuple[int, int]  # rows and columns of the feature map behind them

    @property
    def zero_heat(self) -> list[bool]:
        """By frame, whether nothing in it speaks for the class."""
        return [not heat.any() for heat in self.maps]


@dataclass(frozen=True)
class ExplainedClip:
    """An explained video, or one face of a photo as a clip of one frame, with the pictures the maps belong to."""

    explanation: ClipExplanation
    pictures: np.ndarray  # (num_frames, height, width, 3) uint8 RGB: face crops, or whole frames
    transforms: np.ndarray | None  # (num_frames, 2, 3) from pixels of the pictures to those of the whole frame
    frame_times_sec: np.ndarray  # (num_frames,), NaN for photos
    boxes_xyxy_px: np.ndarray | None = None  # (num_frames, 4) in the whole frame; None: no face was found
    found: np.ndarray | None = None  # (num_frames,) bool
    focus: FaceFocus | None = None


@dataclass(frozen=True)
class Explanation:
    """An explained file: one clip for a video, one for each face of a photo."""

    source: str
    clips: list[ExplainedClip]


def explain_clip(
    model: EngagementModel, pixel_values: torch.Tensor, label: str | None = None, method: str = "gradcam"
) -> ClipExplanation:
    """One map of heat a frame for a class's logit. The model comes back as it was; frozen encoders work too.

    Args:
        pixel_values: (num_frames, num_channels, height, width), float, normalised: one clip. A single-face model takes
            one face (num_channels, height, width), or frames, each of which is then explained by its own logit.
        label: the class to explain; default: the one with the highest score.
        method: "gradcam" or "hirescam".

    Raises:
        EngagementInputError: the model has no such label, there is no such method, or no map of the encoder leads to
            the logits.
    """
    if method not in METHODS:
        raise EngagementInputError(f"Expected a method out of {', '.join(METHODS)}, got {method!r}.")
    rows = _rows(model, pixel_values)
    with _evaluating(model), _gradients(), _recorded_maps(model.encoder) as recorded:
        # A gradient must flow whatever is frozen, and the pixels are the one thing that lies before every map.
        logits = model(rows.to(model.device, torch.float32).clone().requires_grad_()).logits.float()
        scores = _named_scores(model, logits.detach().softmax(dim=1).mean(dim=0))
        label = best_label(scores) if label is None else label
        target = logits[:, _label_id(model, label)].sum()  # rows do not see each other
        values, gradients = _map_and_gradients(model.encoder, recorded, target, rows.shape[-2:])
    weights = gradients.mean(dim=(2, 3), keepdim=True) if method == "gradcam" else gradients
    heat = (weights * values).sum(dim=1, keepdim=True).relu()  # (frames, D, h, w) -> (frames, 1, h, w)
    maps = F.interpolate(heat, size=rows.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return ClipExplanation(label, method, scores, maps.cpu().numpy(), tuple(heat.shape[-2:]))


def randomisation_check(
    model: EngagementModel,
    pixel_values: torch.Tensor,
    label: str | None = None,
    method: str = "gradcam",
    num_draws: int = 5,
    seed: int = 0,
) -> dict[str, object]:
    """Do the maps depend on what was learned? Adebayo et al., "Sanity Checks for Saliency Maps" (arXiv 1810.03292).

    Args:
        pixel_values, label, method: as for `explain_clip`.
        num_draws: models of the same architecture with weights as before training.

    Returns:
        `label`, and Spearman's rank correlation of the maps with those of each untrained model, mean over frames, as
        `rank_correlations` (None: one of the two has no heat), with their mean as `rank_correlation`. Near 1 the maps
        show the picture and the architecture, not the training.
    """
    trained = explain_clip(model, pixel_values, label, method)
    correlations = []
    for draw in range(num_draws):
        untrained = _untrained_copy(model, seed + draw)
        maps = explain_clip(untrained, pixel_values, trained.label, method).maps
        correlations.append(_rank_correlation(trained.maps, maps))
    defined = [value for value in correlations if value is not None]
    mean = float(np.mean(defined)) if defined else None
    return {"label": trained.label, "rank_correlation": mean, "rank_correlations": correlations}


def deletion_insertion(
    model: EngagementModel,
    pixel_values: torch.Tensor,
    maps: np.ndarray,
    label: str,
    steps: int = 16,
    num_random_orders: int = 5,
    seed: int = 0,
) -> dict[str, object]:
    """Does the model use what the maps show? Petsiuk et al., RISE (arXiv 1806.07421).

    Cells of the frames (8x8 each), hottest first over the whole clip, are replaced by the processor's mean colour
    (deletion), or put back on it (insertion); random orders of the same cells are the control. Where the maps are
    right, the score falls sooner and rises sooner than at random.

    Args:
        pixel_values, label: as for `explain_clip`.
        maps: (num_frames, height, width), as `explain_clip` gives them.

    Returns:
        `label`, `fractions` (steps + 1 of them, 0 to 1), and by `deletion` and `insertion` the label's scores there as
        `curve` and `random_curve` (mean over the random orders), with their `area` and `random_area`, 0 to 1.

    Raises:
        ValueError: maps of another clip, or without any heat, which say nothing of an order.
    """
    frames = pixel_values if pixel_values.ndim == 4 else pixel_values[None]
    if maps.shape != (len(frames), *frames.shape[-2:]) or not maps.any():
        raise ValueError(f"Expected maps with heat for frames of shape {tuple(frames.shape)}, got {maps.shape}.")
    cells = F.adaptive_avg_pool2d(torch.from_numpy(maps), _CELLS_A_SIDE)  # (frames, H, W) -> (frames, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(cells.numel(), generator=generator) for _ in range(num_random_orders + 1)]
    # Most cells of a map may be cold alike: among those, too, chance decides, and not who lies on the upper left.
    hottest_first = shuffled[0][cells.flatten()[shuffled[0]].argsort(descending=True, stable=True)]
    orders = [order.argsort().reshape(cells.shape) / cells.numel() for order in (hottest_first, *shuffled[1:])]
    fractions = torch.linspace(0, 1, steps + 1)
    result: dict[str, object] = {"label": label, "fractions": fractions.tolist()}
    for name in ("deletion", "insertion"):
        first, *others = (_score_curve(model, frames, ranks, label, fractions, name) for ranks in orders)
        random = np.mean(others, axis=0)
        areas = {"area": float(np.trapezoid(first, fractions)), "random_area": float(np.trapezoid(random, fractions))}
        result[name] = {"curve": first.tolist(), "random_curve": random.tolist(), **areas}
    return result


def explain_file(predictor: Predictor, path: Path, label: str | None = None, method: str = "gradcam") -> Explanation:
    """A video, or every face of a photo, through the model's own processor, so that maps lie on its very pixels.

    Args:
        label: the class to explain; default: the predicted one, in a photo each face's own.
        method: as for `explain_clip`.

    Raises:
        EngagementInputError: as `Predictor.predict` and `explain_clip`.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return Explanation(str(path), _explain_video(predictor, path, label, method))
    if predictor.is_video_model:
        raise EngagementInputError(
            f"Expected a video for this clip model, got the photo {path}; pass a video, or a single-face model."
        )
    return Explanation(str(path), _explain_photo(predictor, path, label, method))


def explain_frames(
    predictor: Predictor, frames: np.ndarray, source: str, label: str | None = None, method: str = "gradcam"
) -> Explanation:
    """As `explain_file`, of frames (num_frames, height, width, 3) uint8 RGB: a clip of its most visible person, or,
    for a single-face model, every face of the last one. `source` is how the frames are to be called."""
    if predictor.is_video_model:
        return Explanation(source, _explain_video(predictor, frames, label, method))
    return Explanation(source, _explain_photo(predictor, frames[-1], label, method))


def to_json(explanation: Explanation) -> dict[str, object]:
    """Plain types, without the maps themselves."""
    return {"source": explanation.source, "clips": [_clip_to_json(clip) for clip in explanation.clips]}


def _rows(model: EngagementModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """One clip -> what the model's forward takes."""
    is_clip_model = isinstance(model, EngagementForVideoClassification)
    if pixel_values.ndim not in ((4,) if is_clip_model else (3, 4)):
        expected = "num_frames, num_channels, height, width" if is_clip_model else "num_channels, height, width"
        raise ValueError(f"Expected pixel_values of shape ({expected}), got {tuple(pixel_values.shape)}.")
    return pixel_values[None] if is_clip_model or pixel_values.ndim == 3 else pixel_values


def _named_scores(model: EngagementModel, scores: torch.Tensor) -> dict[str, float]:
    return {model.config.id2label[i]: float(score) for i, score in enumerate(scores)}


def _label_id(model: EngagementModel, label: str) -> int:
    if label not in model.config.label2id:
        raise EngagementInputError(f"Expected a label out of {', '.join(model.config.label2id)}, got {label!r}.")
    return model.config.label2id[label]


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module's own mode comes back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _gradients() -> Iterator[None]:
    """Gradients, wherever we are called from; cuDNN's LSTM has none in evaluation mode, PyTorch's own has."""
    with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield


@contextlib.contextmanager
def _recorded_maps(encoder: EngagementFrameEncoder) -> Iterator[list[torch.Tensor]]:
    """What a forward pass leaves behind, in order: tokens after each LayerNorm, and its last hidden state."""
    recorded: list[torch.Tensor] = []

    def record_tokens(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if output.ndim == 3:
            recorded.append(output)

    def record_last(module: nn.Module, inputs: tuple, output: object) -> None:
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

    It is the encoder's last hidden state, unless a class token alone is read from that (ViT, DINOv2, CLIP). The patches
    are then last heard by the attention of the last block, on whose normalised input Grad-CAM is taken as usual; before
    the LayerNorm, gradients stand at right angles to the tokens, and HiResCAM would be zero.
    """
    last = recorded[-1]
    for hidden in (last, *(tokens for tokens in reversed(recorded[:-1]) if tokens.shape == last.shape)):
        (gradient,) = torch.autograd.grad(target, hidden, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        gradients = encoder._to_feature_map(gradient, size_px).float()
        # Zero for patches and class token alike: the map is on the path, and nothing in it speaks for the class.
        if gradients.any() or not gradient.any():
            return encoder._to_feature_map(hidden.detach(), size_px).float(), gradients
    raise EngagementInputError(
        f"Expected an encoder with a feature map that leads to the logits, found none in {type(encoder.model).__name__}"
        "; explain a model on another encoder."
    )


def _untrained_copy(model: EngagementModel, seed: int) -> EngagementModel:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return type(model)(copy.deepcopy(model.config)).to(model.device, model.dtype)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """(num_frames, height, width) each -> Spearman's rank correlation over pixels, mean over frames with heat."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True) if np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean([spearmanr(*pair).statistic for pair in pairs])) if pairs else None


def _score_curve(
    model: EngagementModel,
    frames: torch.Tensor,
    ranks: torch.Tensor,
    label: str,
    fractions: torch.Tensor,
    change: str,
) -> np.ndarray:
    """The label's score with each fraction of the cells deleted or inserted: (num_fractions,).

    ranks: (num_frames, 8, 8), the cells' places in the order, 0 for the first and below 1 for the last.
    """
    ranks = F.interpolate(ranks[None], size=frames.shape[-2:], mode="nearest")[0, :, None]  # (frames, 1, H, W)
    curve = []
    for batch in fractions.split(_CLIPS_PER_BATCH):
        chosen = ranks < batch[:, None, None, None, None]  # (n, frames, 1, H, W)
        kept = chosen if change == "insertion" else ~chosen
        curve.append(_label_scores(model, (frames * kept).to(model.device), label))  # 0 is the mean colour
    return torch.cat(curve).numpy()


def _label_scores(model: EngagementModel, clips: torch.Tensor, label: str) -> torch.Tensor:
    """(num_clips, num_frames, C, H, W) -> (num_clips,), the label's score after softmax."""
    rows = clips if isinstance(model, EngagementForVideoClassification) else clips.flatten(0, 1)
    with _evaluating(model), torch.inference_mode():
        scores = model(rows).logits.float().softmax(dim=1)[:, _label_id(model, label)]
    return scores.reshape(len(clips), -1).mean(dim=1).cpu()


def _explain_video(predictor: Predictor, video: object, label: str | None, method: str) -> list[ExplainedClip]:
    processor = predictor.video_processor
    clip = processor.prepare_clip(video)
    explanation = explain_clip(predictor.model, processor.to_pixel_values(clip.frames), label, method)
    if clip.transforms is not None:
        faces = (clip.boxes_xyxy_px, clip.landmarks_xy_px, clip.found)
        return [_with_focus(explanation, clip.frames, clip.transforms, clip.frame_times_sec, *faces)]
    return [_with_focus(explanation, clip.whole_frames, None, clip.frame_times_sec, *_look_for_face(predictor, clip))]


def _look_for_face(
    predictor: Predictor, clip: PreparedClip
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """A model of whole frames needs no face; whether its heat lies on one is all the more worth knowing."""
    try:
        person = predictor.video_processor.find_person(clip.whole_frames, clip.source)
    except NoFaceError:
        return None, None, None
    return person.boxes_xyxy_px, person.landmarks_xy_px, person.found


def _explain_photo(predictor: Predictor, photo: object, label: str | None, method: str) -> list[ExplainedClip]:
    faces = predictor.processor.prepare_faces(photo)
    pixel_values = predictor.processor.to_pixel_values(faces.frames)
    clips = []
    for i in range(len(faces.frames)):
        explanation, one = explain_clip(predictor.model, pixel_values[i], label, method), slice(i, i + 1)
        points = (faces.boxes_xyxy_px[one], faces.landmarks_xy_px[one], np.array([True]))
        clips.append(_with_focus(explanation, faces.frames[one], faces.transforms[one], np.array([np.nan]), *points))
    return clips


def _with_focus(
    explanation: ClipExplanation,
    pictures: np.ndarray,
    transforms: np.ndarray | None,
    frame_times_sec: np.ndarray,
    boxes_xyxy_px: np.ndarray | None,
    landmarks_xy_px: np.ndarray | None,
    found: np.ndarray | None,
) -> ExplainedClip:
    focus = None
    if boxes_xyxy_px is not None:
        maps = explanation.maps
        to_frame = input_transforms(transforms, pictures.shape[1:3], maps.shape[1:], len(maps))
        focus = face_focus(maps, boxes_xyxy_px, landmarks_xy_px, to_frame, found)
    return ExplainedClip(explanation, pictures, transforms, frame_times_sec, boxes_xyxy_px, found, focus)


def _clip_to_json(clip: ExplainedClip) -> dict[str, object]:
    explanation, focus = clip.explanation, clip.focus
    result: dict[str, object] = {name: getattr(explanation, name) for name in ("label", "method", "scores")}
    result["frame_times_sec"] = [None if np.isnan(time) else round(float(time), 3) for time in clip.frame_times_sec]
    result |= {"input_size_px": list(explanation.maps.shape[1:]), "feature_map_size": list(explanation.map_size)}
    result |= {"zero_heat": explanation.zero_heat, "face_focus": None}
    if focus is not None:
        counts = {name: getattr(focus, name) for name in ("num_frames", "num_without_heat", "num_without_face")}
        per_frame = {"heat_share": focus.heat_share, "area_share": focus.area_share}
        result["face_focus"] = {"clip": focus.clip, "frames": per_frame, **counts}
    return result
