"""Frames in random order, the control for what a model reads from their order: collators, training, refusal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from stages import engagement_alone, results_of

from engagement_recognition import train
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.training.arguments import Recipe
from engagement_recognition.training.trainer import EngagementTrainer
from engagement_recognition.training.training_sets import FrameCollator, LabelledExample

FRAMES = 8


def clips(*rows: int) -> list[LabelledExample]:
    """Frame i of every clip is of the grey i, so that pixels tell the order."""
    frames = np.broadcast_to(np.arange(FRAMES, dtype=np.uint8)[:, None, None, None], (FRAMES, 8, 8, 3)).copy()
    return [LabelledExample(frames=frames, label=0, row=row, scores=None) for row in rows]


def orders(collator: FrameCollator, rows: list[LabelledExample]) -> list[list[int]]:
    """What stands in each place of each clip, as its frame's number."""
    pixels = collator(rows)["pixel_values"]  # (batch, frames, C, H, W)
    assert pixels.shape == (len(rows), FRAMES, 3, 8, 8)
    assert torch.equal(pixels, pixels[..., :1, :1].expand_as(pixels))  # no frame was mixed with another
    return (pixels[:, :, 0, 0, 0] * 255).round().int().tolist()


@pytest.fixture
def processor() -> EngagementVideoProcessor:
    return EngagementVideoProcessor(size={"height": 8, "width": 8}, face_crop=False, do_normalize=False)


def test_every_clip_keeps_its_frames_in_an_order_drawn_anew(processor: EngagementVideoProcessor):
    collator = FrameCollator(processor, single_face=False, shuffle="anew")
    torch.manual_seed(0)
    first, second = orders(collator, clips(0, 1, 2)), orders(collator, clips(0, 1, 2))
    assert all(sorted(order) == list(range(FRAMES)) for order in first + second)
    assert len({tuple(order) for order in first + second}) == 6
    torch.manual_seed(0)  # as a resumed training sets the generator back
    assert orders(collator, clips(0, 1, 2)) == first


def test_in_evaluation_the_order_follows_from_the_row_alone(processor: EngagementVideoProcessor):
    collator = FrameCollator(processor, single_face=False, shuffle="by_row")
    before = torch.get_rng_state()
    found = orders(collator, clips(*range(50)))
    assert torch.equal(torch.get_rng_state(), before)
    assert orders(collator, clips(7, 3)) == [found[7], found[3]]
    assert all(sorted(order) == list(range(FRAMES)) for order in found)
    assert len({tuple(order) for order in found}) > 45


def test_the_first_frame_comes_to_every_place_alike(processor: EngagementVideoProcessor):
    collator = FrameCollator(processor, single_face=False, shuffle="by_row")
    places = [order.index(0) for order in orders(collator, clips(*range(800)))]
    # 100 expected of each; five standard deviations, and rows 0, 1, 2, .. always give the same orders
    assert all(abs(places.count(place) - 100) < 47 for place in range(FRAMES))


def test_without_the_option_frames_stay_in_order(processor: EngagementVideoProcessor):
    assert orders(FrameCollator(processor, single_face=False), clips(0, 1)) == [list(range(FRAMES))] * 2


def test_a_training_shuffles_what_it_learns_from_and_what_it_measures(
    trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    collators: list[FrameCollator] = []
    remember = EngagementTrainer.__init__

    def build(self: EngagementTrainer, *arguments: object, **options: object) -> None:
        collators.extend([options["train_collator"], options["eval_collator"]])
        remember(self, *arguments, **options)

    monkeypatch.setattr(EngagementTrainer, "__init__", build)

    def results_of_a_run(name: str, **changes: object) -> dict:
        recipe = engagement_alone(trained, tmp_path / name, num_train_epochs=1, **changes)
        return results_of(*train.train(Recipe(recipe), {}))

    shuffled, again = (results_of_a_run(name, shuffle_frames=True) for name in ("shuffled", "again"))
    in_order = results_of_a_run("in_order")
    assert [collator.shuffle for collator in collators] == ["anew", "by_row"] * 2 + [None, None]
    assert shuffled["recipe"]["shuffle_frames"] is True and "shuffle_frames" not in in_order["recipe"]
    assert shuffled["measurements"] == again["measurements"]

    def losses(results: dict) -> list[float]:
        return [row["loss"] for row in results["training"]["log"] if "loss" in row]

    assert losses(shuffled) == losses(again) != losses(in_order)
