"""Two checks that a heat map can fail: untrained weights, and taking away what is hot."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from ..modeling_engagement import (
    EngagementForVideoClassification,
)
from .heat_maps import EngagementModel, _evaluating, _label_id, explain_clip

_CELLS_A_SIDE = 8  # deletion and insertion take a frame away in 8x8 cells: single pixels would add noise of their own


_CLIPS_PER_BATCH = 8


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
