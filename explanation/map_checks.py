"""Two checks of heat maps: comparison with untrained weights, and deleting the hottest cells."""

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from ..modeling_engagement import EngagementForVideoClassification
from .heat_maps import EngagementModel, _evaluating, _label_id, explain_clip

_CELLS_A_SIDE = 8  # deletion and insertion use 8x8 cells per frame: single pixels would add noise
_CLIPS_PER_BATCH = 8


class RandomisationCheck(NamedTuple):
    """Spearman's rank correlation of maps with those of untrained models, mean over frames."""

    label: str
    rank_correlation: float | None  # mean of the defined ones
    rank_correlations: list[float | None]  # by untrained model; None: one of the two maps has no heat


class ScoreCurve(NamedTuple):
    """The label's score over the fractions of cells that are deleted, or inserted."""

    curve: list[float]
    random_curve: list[float]  # mean over the random orders
    area: float  # under the curve, 0 to 1
    random_area: float


class DeletionInsertion(NamedTuple):
    """The score when the hottest cells are deleted, or inserted, first."""

    label: str
    fractions: list[float]  # 0 to 1
    deletion: ScoreCurve
    insertion: ScoreCurve


def randomisation_check(
    model: EngagementModel,
    pixel_values: torch.Tensor,
    label: str | None = None,
    method: str = "gradcam",
    num_draws: int = 5,
    seed: int = 0,
) -> RandomisationCheck:
    """Do the maps depend on the training? Adebayo et al., "Sanity Checks for Saliency Maps" (arXiv 1810.03292).

    Args:
        pixel_values, label, method: as for `explain_clip`.
        num_draws: number of untrained models of the same architecture.

    Returns:
        Near 1, the maps show the picture and the architecture, not the training.
    """
    trained = explain_clip(model, pixel_values, label, method)
    correlations = []
    for draw in range(num_draws):
        untrained = _untrained_copy(model, seed + draw)
        maps = explain_clip(untrained, pixel_values, trained.label, method).maps
        correlations.append(_rank_correlation(trained.maps, maps))
    defined = [value for value in correlations if value is not None]
    mean = float(np.mean(defined)) if defined else None
    return RandomisationCheck(trained.label, mean, correlations)


def deletion_insertion(
    model: EngagementModel,
    pixel_values: torch.Tensor,
    maps: np.ndarray,
    label: str,
    steps: int = 16,
    num_random_orders: int = 5,
    seed: int = 0,
) -> DeletionInsertion:
    """Does the model use what the maps show? Petsiuk et al., RISE (arXiv 1806.07421).

    Cells of the frames (8x8 each), hottest first over the whole clip, are replaced by the processor's mean colour
    (deletion), or put back on it (insertion); random orders of the same cells are the control. If the maps are
    right, the score falls and rises sooner than at random.

    Args:
        pixel_values, label: as for `explain_clip`.
        maps: (num_frames, height, width), as `explain_clip` gives them.

    Raises:
        ValueError: maps of another clip, or without any heat, which give no order.
    """
    frames = (
        pixel_values if pixel_values.ndim == 4 else pixel_values[None]
    ).cpu()  # like the cells, until a batch is made
    if maps.shape != (len(frames), *frames.shape[-2:]) or not maps.any():
        raise ValueError(f"Expected maps with heat for frames of shape {tuple(frames.shape)}, got {maps.shape}.")
    cells = F.adaptive_avg_pool2d(torch.from_numpy(maps), _CELLS_A_SIDE)  # (frames, H, W) -> (frames, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(cells.numel(), generator=generator) for _ in range(num_random_orders + 1)]
    # Most cells of a map may have no heat: their order is random too, not by position.
    hottest_first = shuffled[0][cells.flatten()[shuffled[0]].argsort(descending=True, stable=True)]
    orders = [order.argsort().reshape(cells.shape) / cells.numel() for order in (hottest_first, *shuffled[1:])]
    fractions = torch.linspace(0, 1, steps + 1)

    def curve_of(change: str) -> ScoreCurve:
        first, *others = (_score_curve(model, frames, ranks, label, fractions, change) for ranks in orders)
        random = np.mean(others, axis=0)
        areas = float(np.trapezoid(first, fractions)), float(np.trapezoid(random, fractions))
        return ScoreCurve(first.tolist(), random.tolist(), *areas)

    return DeletionInsertion(label, fractions.tolist(), curve_of("deletion"), curve_of("insertion"))


def _untrained_copy(model: EngagementModel, seed: int) -> EngagementModel:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        untrained = type(model)(copy.deepcopy(model.config))
    return untrained.to(model.device, model.dtype)  # type: ignore[arg-type]  # transformers' wrapper hides `self`


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

    ranks: (num_frames, 8, 8), the cells' ranks, from 0 for the first to below 1 for the last.
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
    with _evaluating(model), torch.no_grad():
        scores = model(rows).logits.float().softmax(dim=1)[:, _label_id(model, label)]
    return scores.reshape(len(clips), -1).mean(dim=1).cpu()
