"""CutMix and mixup of a training batch, by torchvision's own transforms; the labels become shares."""

from dataclasses import dataclass

import torch
from torchvision.transforms import v2 as transforms

from ..processor.input_errors import RecipeError

_CLEAN_END = 0.85  # of the training; the rest is on unmixed pictures, as is common for small data


@dataclass(frozen=True)
class Mixing:
    """How often a batch is mixed, and how.

    Args:
        cutmix: probability that a rectangle of each example comes from another (Yun et al., "CutMix", 2019).
        mixup: probability that each example is a weighted mean with another (Zhang et al., "mixup", 2018).

    Raises:
        RecipeError: a probability outside 0..1, or two that add up to more than 1.
    """

    cutmix: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if min(self.cutmix, self.mixup) < 0 or self.cutmix + self.mixup > 1:
            raise RecipeError(
                f"Expected cutmix and mixup of at least 0 with a sum of at most 1, got {self.cutmix} and {self.mixup}."
            )

    def __call__(
        self, pixel_values: torch.Tensor, labels: torch.Tensor, num_labels: int, progress: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch, or leave it unchanged, as always in the last 15 % of the training.

        Args:
            pixel_values: (batch, C, H, W), or (batch, num_frames, C, H, W): a clip's frames are mixed the same way.
            labels: (batch,) class indices, or (batch, num_labels) shares.
            progress: of the training, 0 to 1.

        Returns:
            Pixel values of the same shape; the labels unchanged, or (batch, num_labels) shares.
        """
        draw = float(torch.rand(()))
        if progress >= _CLEAN_END or draw >= self.cutmix + self.mixup:
            return pixel_values, labels
        kind = transforms.CutMix if draw < self.cutmix else transforms.MixUp
        flat = pixel_values.flatten(1, -3)  # (b, t, C, H, W) -> (b, t*C, H, W)
        mixed, shares = kind(num_classes=num_labels)(flat, labels)
        return mixed.view(pixel_values.shape), shares
