"""Losses for imbalanced, ordered and person-bound labels; each takes logits and labels and gives a mean.

The CNN + LSTM study trains with cross-entropy and capped class weights. Its authors name the others as future work:
focal loss, logit adjustment, a loss that uses the order of the four levels with one logit per level, and an adversary
that makes features independent of the person in front of the camera.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional

from ..processor.input_errors import RecipeError

LOSSES = ("cross_entropy", "focal", "ordinal")
# (n, num_labels) logits, (n,) class indices or (n, num_labels) shares -> ()
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def class_weights(label_ids: Sequence[int], num_labels: int, cap: float) -> torch.Tensor:
    """(num_labels,) weights of the loss, as the CNN + LSTM study computes them.

    Inverse frequency, divided by the smallest, clamped at `cap`, rescaled to sum to the number of classes. A class
    without examples is treated as having one. With a cap of 1 all classes have the same weight.
    """
    counts = torch.bincount(torch.as_tensor(label_ids), minlength=num_labels).clamp(min=1)
    weights = (counts.max() / counts.float()).clamp(max=cap)
    return weights * num_labels / weights.sum()


def build_loss(
    name: str,
    label_ids: Sequence[int],
    num_labels: int,
    class_weight_cap: float,
    focal_gamma: float = 2.0,
    logit_adjustment: float = 0.0,
    label_smoothing: float = 0.0,
) -> Loss:
    """The loss a recipe asks for.

    Args:
        name: one of LOSSES.
        label_ids: of the training set.
        class_weight_cap: see `class_weights`.
        focal_gamma: of the focal loss.
        logit_adjustment: tau of Menon et al., "Long-tail learning via logit adjustment", 2021: tau times the log share
            of each class is added to the logits in training, so that argmax later favours no class. 0: none.
        label_smoothing: of cross-entropy.

    Raises:
        RecipeError: an unknown name, or a number out of range.
    """
    if name not in LOSSES:
        raise RecipeError(f"Expected a loss among {', '.join(LOSSES)}, got {name!r}.")
    if focal_gamma < 0 or not 0 <= label_smoothing < 1:
        raise RecipeError(
            f"Expected focal_gamma of at least 0 and label_smoothing in 0..1 (1 excluded), got {focal_gamma} and "
            f"{label_smoothing}."
        )
    weights = class_weights(label_ids, num_labels, class_weight_cap)
    counts = torch.bincount(torch.as_tensor(label_ids), minlength=num_labels).clamp(min=1)
    shift = logit_adjustment * (counts / counts.sum()).log()

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        adjusted = logits.float() + shift.to(logits.device)
        weight = weights.to(logits.device)
        if name == "focal":
            return focal_loss(adjusted, labels, weight, focal_gamma)
        plain = _cross_entropy(adjusted, labels, weight, label_smoothing)
        return plain + squared_earth_mover(adjusted, labels, weight) if name == "ordinal" else plain

    return loss


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)
    # torch averages shares over the batch without weights, indices with weights.
    total = functional.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing, reduction="sum")
    return total / (labels @ weights).sum()


def _as_shares(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """(n,) class indices, or (n, num_labels) shares, which stay unchanged -> (n, num_labels) float."""
    return functional.one_hot(labels, num_labels).float() if labels.ndim == 1 else labels


def focal_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, gamma: float) -> torch.Tensor:
    """Cross-entropy in which an example has the weight (1 - p)^gamma, p being the score of its class (Lin et al. 2017).

    Normalised by the sum of the class weights, so that gamma 0 is weighted cross-entropy.
    """
    log_scores = functional.log_softmax(logits, dim=1)
    weight = _as_shares(labels, logits.shape[1]) * weights  # (n, K)
    return -(weight * (1 - log_scores.exp()).pow(gamma) * log_scores).sum() / weight.sum()


def squared_earth_mover(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The distance of the scores from the true level: the squared difference of the cumulative distributions.

    Hou, Yu, Samaras, "Squared Earth Mover's Distance-based Loss for Training Deep Neural Networks", 2016. The classes
    must be in their order. It needs no special head: the scores are still a softmax, as pipelines expect.
    """
    truth = _as_shares(labels, logits.shape[1])
    gap = logits.softmax(dim=1).cumsum(dim=1) - truth.cumsum(dim=1)  # (n, K); the last column is 0
    weight = truth @ weights  # (n,)
    return (weight * gap.square().sum(dim=1)).sum() / weight.sum()


class SubjectAdversary(torch.nn.Module):
    """Predicts the subject from the encoder's features, while the encoder is trained to make that impossible.

    Ganin et al., "Domain-Adversarial Training of Neural Networks", 2016, with people as domains: gradients into the
    encoder are reversed, and their strength rises from 0 to `strength` over the training.
    """

    def __init__(self, feature_size: int, num_subjects: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.guess = torch.nn.Sequential(
            torch.nn.Linear(feature_size, 128), torch.nn.ReLU(), torch.nn.Linear(128, num_subjects)
        )

    def forward(self, features: torch.Tensor, subject_ids: torch.Tensor, progress: float) -> torch.Tensor:
        """The cross-entropy of the prediction.

        Args:
            features: (batch * num_frames, feature_size), the frames of a clip one after another.
            subject_ids: (batch,).
            progress: of the training, 0 to 1.
        """
        by_clip = features.float().unflatten(0, (len(subject_ids), -1)).mean(dim=1)  # (b*t, D) -> (b, t, D) -> (b, D)
        now = self.strength * (2 / (1 + math.exp(-10 * progress)) - 1)
        if by_clip.requires_grad:  # false with a frozen encoder
            by_clip.register_hook(lambda gradient: -now * gradient)
        return functional.cross_entropy(self.guess(by_clip), subject_ids)


@contextmanager
def encoder_features(encoder: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """The encoder's features within the context: one tensor (frames, feature_size) per call."""
    seen: list[torch.Tensor] = []
    hook = encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.pooler_output))
    try:
        yield seen
    finally:
        hook.remove()
