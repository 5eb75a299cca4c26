"""Prepared data in, batches out: labels under a scheme, and one way of making pixel values."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import prepare_drawn
from PIL import Image as PictureFile

from engagement_recognition.data.preparation.prepared_data import PreparedData
from engagement_recognition.data.schema import (
    AFFECTS,
    BINARY,
    EXPRESSIONS,
    LABEL_SCHEMES,
    OWN_LABELS,
)
from engagement_recognition.evaluation.metrics import majority_baseline
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.input_errors import RecipeError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.training.augmentation import Augmentation
from engagement_recognition.training.training_sets import FrameCollator, labelled_frames


@pytest.fixture(scope="module")
def prepared(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_drawn(drawn_daisee, tmp_path_factory.mktemp("data") / "clips", num_frames=4)


@pytest.fixture(scope="module")
def pictures(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_drawn(drawn_expressions, tmp_path_factory.mktemp("data") / "pictures")


# --- Augmentation and batches


def test_a_change_is_one_for_a_clip_and_another_for_the_next():
    # A brightness that differed from frame to frame would be motion that never happened.
    torch.manual_seed(0)
    picture = torch.randint(256, (3, 24, 24), dtype=torch.uint8)
    strengths = dict.fromkeys(Augmentation.__dataclass_fields__, 0.3) | {"rotation_deg": 20, "padding_px": 3}
    changed = Augmentation(**strengths)(picture.expand(4, 5, 3, 24, 24))
    assert changed.shape == (4, 5, 3, 24, 24) and changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:, :1].expand_as(changed))
    assert all(not torch.equal(changed[i], changed[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("name", list(Augmentation.__dataclass_fields__))
def test_each_change_is_drawn_from_the_seed_and_can_be_off(name: str):
    frames = torch.randint(256, (8, 2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmentation = Augmentation.from_recipe({name: {"rotation_deg": 30, "padding_px": 4}.get(name, 0.8)})
    torch.manual_seed(1)
    first = augmentation(frames)
    torch.manual_seed(1)
    assert torch.equal(augmentation(frames), first)
    assert not torch.equal(first, frames)
    assert torch.equal(Augmentation()(frames), frames)


BAD_CHANGES = [{"blur": 0.5}, {"flip": 2}, {"zoom": -0.1}, {"flip": True}, {"flip": "often"}, {"crop_area": 1.1}]
BAD_CHANGES += [{"padding_px": pixels} for pixels in (65, 2.5, True)]


@pytest.mark.parametrize("recipe", BAD_CHANGES, ids=str)
def test_unknown_changes_and_strengths_are_refused(recipe: dict):
    with pytest.raises(RecipeError, match=next(iter(recipe))):
        Augmentation.from_recipe(recipe)


def test_batches_of_clips_are_what_the_processor_makes(prepared: PreparedData, drawn_daisee: Path):
    processor = EngagementVideoProcessor(num_frames=4, size={"height": 32, "width": 32})
    labelled, _ = labelled_frames(prepared.splits["train"], "binary", BINARY, single_face=False)
    rows = [labelled[row] for row in range(len(labelled))]
    batch = FrameCollator(processor, single_face=False)(rows)
    assert batch["pixel_values"].shape == (len(rows), 4, 3, 32, 32)
    served = torch.stack([processor.to_pixel_values(row["frames"]) for row in rows])
    assert torch.equal(batch["pixel_values"], served)
    levels = prepared.splits["train"]["engagement"]
    assert batch["labels"].tolist() == [int(level >= 2) for level in levels]
    # The cache holds JPEGs, so against the file itself: the same crops, up to compression.
    source = drawn_daisee / prepared.splits["train"][0]["source_path"]
    difference = (processor(source)["pixel_values"][0] - batch["pixel_values"][0]).abs()
    assert difference.mean() < 0.05


@pytest.mark.parametrize("sizes", [(48, 48), (48, 60)], ids=["one size", "two sizes"])
def test_batches_of_pictures_are_what_the_processor_makes(sizes: tuple[int, int], pictures: PreparedData):
    processor = EngagementImageProcessor(size={"height": 32, "width": 32}, face_crop=False)
    labelled, _ = labelled_frames(pictures.splits["test"], OWN_LABELS, EXPRESSIONS, single_face=True)
    rows = []
    for row, size in enumerate(sizes):
        picture = PictureFile.fromarray(labelled[row]["frames"][0]).resize((size, size))
        rows.append({**labelled[row], "frames": np.asarray(picture)[None]})
    batch = FrameCollator(processor, single_face=True)(rows)
    assert torch.equal(batch["pixel_values"], processor([row["frames"][0] for row in rows])["pixel_values"])
    assert batch["rows"].tolist() == [0, 1]


def test_a_single_face_model_reads_a_window_s_first_frame(prepared: PreparedData):
    whole, _ = labelled_frames(prepared.splits["test"], "binary", BINARY, single_face=False)
    single, _ = labelled_frames(prepared.splits["test"], "binary", BINARY, single_face=True)
    assert np.array_equal(single[1]["frames"], whole[1]["frames"][:1])


def test_clips_without_a_label_under_the_scheme_are_left_out_and_counted(prepared: PreparedData):
    for scheme, (names, to_label) in LABEL_SCHEMES.items():
        kept = left_out = 0
        for rows in prepared.splits.values():
            labelled, without = labelled_frames(rows, scheme, names, single_face=False)
            kept, left_out = kept + len(labelled), left_out + without
            affects = [{name: row[name] for name in AFFECTS} for row in rows]
            wanted = [label for label in map(to_label, affects) if label is not None]
            assert [names[label] for label in labelled.label_ids] == wanted
        assert kept + left_out == prepared.description.outputs


def test_oversampling_repeats_rows_evenly_and_copies_nothing(pictures: PreparedData):
    labelled, _ = labelled_frames(pictures.splits["train"], OWN_LABELS, EXPRESSIONS, single_face=True)  # 4 of each
    few = labelled.take([row for row in range(len(labelled)) if labelled.label_ids[row] != 3 or row % 2])
    more = few.oversampled(9, seed=0)
    assert np.bincount(more.label_ids).tolist() == [9] * 7 and more.keys[: len(few)] == few.keys
    times = Counter(more.keys)
    for label in set(few.label_ids):
        of_label = [times[key] for key, other in zip(few.keys, few.label_ids, strict=True) if other == label]
        assert max(of_label) - min(of_label) <= 1
    assert more.keys == few.oversampled(9, seed=0).keys != few.oversampled(9, seed=1).keys
    assert np.array_equal(more[len(few)]["frames"], few[few.keys.index(more.keys[len(few)])]["frames"])
    assert few.oversampled(2, seed=0).keys == few.keys


def test_the_majority_is_that_of_the_training_set():
    # On a test set with another majority a baseline that looked at it would be better than is honest.
    truth = np.array([0, 0, 0, 1])
    baseline = majority_baseline([1, 1, 0], truth, ("disengaged", "engaged"))
    assert baseline.predicts == "engaged" and baseline.accuracy == 0.25
