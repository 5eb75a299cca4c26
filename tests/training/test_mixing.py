"""CutMix, mixup and raters' shares: what becomes of pictures and labels."""

import numpy as np
import pytest
import torch

from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.training.mixing import Mixing
from engagement_recognition.training.training_sets import FrameCollator, LabelledExample

# Example i is a picture of the number i, and of label i, so that the pixels tell what the shares should be.
LABELS = torch.arange(6)


def numbered(*shape: int) -> torch.Tensor:
    return LABELS.float().view(-1, *(1 for _ in shape)).expand(-1, *shape).clone()


@pytest.mark.parametrize("shape", [(1, 20, 20), (4, 3, 20, 20)], ids=["faces", "clips"])
def test_cutmix_shares_are_those_of_the_pixels(shape: tuple[int, ...]):
    torch.manual_seed(0)
    for _ in range(10):
        mixed, shares = Mixing(cutmix=1.0)(numbered(*shape), LABELS, 6, progress=0.0)
        assert mixed.shape == (6, *shape)
        for picture, share in zip(mixed, shares, strict=True):
            counts = torch.bincount(picture.flatten().long(), minlength=6) / picture.numel()
            torch.testing.assert_close(counts, share)
            assert (picture == picture[..., :1, :, :].expand_as(picture)).all()  # all frames of a clip alike


def test_mixup_is_one_mean_for_pictures_and_labels():
    torch.manual_seed(0)
    mixed, shares = Mixing(mixup=1.0)(numbered(1, 4, 4), LABELS, 6, progress=0.5)
    torch.testing.assert_close(mixed[:, 0, 0, 0], shares @ LABELS.float())
    assert (shares.max(dim=1).values < 1).all()


def test_shares_can_be_mixed_again():
    shares = torch.full((6, 6), 1 / 6)
    assert torch.allclose(Mixing(cutmix=1.0)(numbered(1, 8, 8), shares, 6, 0.0)[1], shares)


@pytest.mark.parametrize(("mixing", "progress"), [(Mixing(), 0.0), (Mixing(0.5, 0.5), 0.85)])
def test_nothing_is_mixed_without_being_asked_and_near_the_end(mixing: Mixing, progress: float):
    pixels = numbered(1, 4, 4)
    mixed, labels = mixing(pixels, LABELS, 6, progress)
    assert mixed is pixels and labels is LABELS


@pytest.mark.parametrize("probabilities", [(-0.1, 0.0), (0.6, 0.6)])
def test_probabilities_are_checked(probabilities: tuple[float, float]):
    with pytest.raises(RecipeError, match="cutmix and mixup"):
        Mixing(*probabilities)


def example(label: int, scores: list[float] | None) -> LabelledExample:
    return LabelledExample(frames=np.zeros((1, 8, 8, 3), np.uint8), label=label, row=0, scores=scores)


def test_raters_shares_make_their_part_of_the_target():
    rows = [example(0, [0.5, 0.3, 0.2]), example(1, None)]
    processor = EngagementImageProcessor(size={"height": 8, "width": 8}, face_crop=False)
    targets = FrameCollator(processor, True, soft_share=0.5)(rows)["labels"]
    assert torch.allclose(targets, torch.tensor([[0.75, 0.15, 0.1], [0.0, 1.0, 0.0]]))
    assert FrameCollator(processor, True)(rows)["labels"].tolist() == [0, 1]  # evaluation scores the label
