"""Losses: what each reduces to, what it prefers, and an adversary that makes features forget people."""

import pytest
import torch
from torch.nn import functional

from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.training.losses import (
    LOSSES,
    SubjectAdversary,
    build_loss,
    class_weights,
    encoder_features,
    focal_loss,
    squared_earth_mover,
)

EVEN = torch.ones(4)
LOGITS = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(4, (32,), generator=torch.Generator().manual_seed(1))


def test_plain_settings_are_weighted_cross_entropy():
    weights = class_weights(LABELS.tolist(), 4, cap=5)
    expected = functional.cross_entropy(LOGITS, LABELS, weights)
    assert torch.allclose(build_loss("cross_entropy", LABELS.tolist(), 4, 5)(LOGITS, LABELS), expected)
    assert torch.allclose(build_loss("focal", LABELS.tolist(), 4, 5, focal_gamma=0)(LOGITS, LABELS), expected)


def test_a_cap_of_one_weighs_nothing_and_a_class_may_have_no_examples():
    assert class_weights([0, 0, 0, 1], 2, cap=1).tolist() == [1, 1]
    assert torch.isfinite(class_weights([0, 0, 2], 3, cap=5)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_shares_of_one_label_are_that_label(name: str):
    loss = build_loss(name, LABELS.tolist(), 4, 5)
    shares = functional.one_hot(LABELS, 4).float()
    assert torch.allclose(loss(LOGITS, shares), loss(LOGITS, LABELS))
    halves = (shares + shares.roll(1, dims=1)) / 2
    assert not torch.allclose(loss(LOGITS, halves), loss(LOGITS, LABELS))


def test_focal_loss_cares_less_for_what_is_easy():
    sure = 6.0 * functional.one_hot(LABELS, 4)
    unsure = 0.5 * functional.one_hot(LABELS, 4)
    shrunk = [
        focal_loss(logits, LABELS, EVEN, 2) / functional.cross_entropy(logits, LABELS) for logits in (sure, unsure)
    ]
    assert shrunk[0] < 1e-3 < 0.3 < shrunk[1]


def test_the_ordinal_loss_knows_which_levels_are_near():
    truth = torch.tensor([0])
    distances = [
        squared_earth_mover(20.0 * functional.one_hot(torch.tensor([level]), 4), truth, EVEN) for level in range(4)
    ]
    assert torch.allclose(torch.stack(distances), torch.tensor([0.0, 1.0, 2.0, 3.0]), atol=1e-4)
    plain = [functional.cross_entropy(4.0 * functional.one_hot(torch.tensor([level]), 4), truth) for level in (1, 3)]
    assert torch.allclose(*plain)  # which cross-entropy does not


def test_logit_adjustment_moves_what_is_learned_towards_the_rare_class():
    # The optimum of the adjusted loss for a coin that says nothing: all classes alike, whatever their shares.
    labels = torch.tensor([0] * 5 + [1] * 95)
    for tau, expected in ((0.0, 0.95), (1.0, 0.5)):
        loss = build_loss("cross_entropy", labels.tolist(), 2, class_weight_cap=1, logit_adjustment=tau)
        bias = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.LBFGS([bias], max_iter=100)

        def closure(loss=loss, bias=bias, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(bias.expand(100, 2), labels)
            value.backward()
            return value

        optimizer.step(closure)
        assert bias.softmax(0)[1].item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_finite_mean_with_gradients(name: str):
    loss = build_loss(name, LABELS.tolist(), 4, 5, logit_adjustment=1.0)
    logits = (LOGITS * 30).requires_grad_()
    value = loss(logits, LABELS)
    value.backward()
    assert value.shape == () and torch.isfinite(value) and torch.isfinite(logits.grad).all()
    twice = loss(logits.repeat(2, 1), LABELS.repeat(2))
    assert torch.allclose(value, twice)  # a mean: the batch's size does not matter


@pytest.mark.parametrize("bad", [{"name": "hinge"}, {"focal_gamma": -1}, {"label_smoothing": 1.0}])
def test_unknown_losses_and_strengths_are_refused(bad: dict):
    with pytest.raises(RecipeError, match=str(next(iter(bad.values())))):
        build_loss(**{"name": "focal", "label_ids": [0, 1], "num_labels": 2, "class_weight_cap": 5, **bad})


def test_the_encoder_is_driven_away_from_what_the_adversary_uses():
    features, people = torch.randn(8, 3), torch.randint(4, (8,))
    gradients = {}
    for strength in (0.0, 0.5):
        torch.manual_seed(0)
        adversary = SubjectAdversary(3, 4, strength)
        seen = features.clone().requires_grad_()
        adversary(seen, people, progress=1.0).backward()
        gradients[strength] = seen.grad
        own = adversary.guess[0].weight.grad.clone()
    plain = features.clone().requires_grad_()
    functional.cross_entropy(adversary.guess(plain), people).backward()
    # At the end of training the strength is reached to within a ten-thousandth.
    assert torch.allclose(gradients[0.5], -0.5 * plain.grad, rtol=1e-3)
    assert gradients[0.0].abs().sum() == 0 and own.abs().sum() > 0  # the adversary itself always learns


def test_frames_of_a_clip_are_one_guess():
    adversary = SubjectAdversary(3, 2, 1.0)
    frames = torch.randn(4, 3, requires_grad=True)  # two clips of two frames
    adversary(frames, torch.tensor([0, 1]), progress=1.0).backward()
    assert torch.equal(frames.grad[0], frames.grad[1]) and frames.grad.abs().sum() > 0
    still = torch.randn(4, 3, requires_grad=True)
    adversary(still, torch.tensor([0, 1]), progress=0.0).backward()
    assert still.grad.abs().sum() == 0  # at the start the encoder is left alone


def test_the_hook_on_the_encoder_is_gone_afterwards():
    class Encoder(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> object:
            return type("Output", (), {"pooler_output": pixels * 2})

    encoder = Encoder()
    with pytest.raises(RuntimeError), encoder_features(encoder) as seen:
        encoder(torch.ones(2, 3))
        raise RuntimeError
    encoder(torch.ones(2, 3))
    assert len(seen) == 1
