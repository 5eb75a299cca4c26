"""Splits that a source lacks: people whole, classes everywhere where that can be, and nothing drawn that is there."""

from collections import Counter
from dataclasses import replace

import pytest

from engagement_recognition.data.schema import SPLITS, ClipRecord
from engagement_recognition.data.splits import complete_splits
from engagement_recognition.processor.input_errors import DataError


def records(num_people: int, a_person: int, split: str | None = None, knows_people: bool = True) -> list[ClipRecord]:
    labels = ("bored", "confused", "engaged", "neutral")
    return [
        ClipRecord(f"{split}{person}-{i}", f"p{person}" if knows_people else None, split, "x", label=labels[i % 4])
        for person in range(num_people)
        for i in range(a_person)
    ]


def test_what_the_source_says_stays():
    given = [record for split in SPLITS for record in records(2, 4, split)]
    assert complete_splits(given, seed=0) == (given, "the source's own")


@pytest.mark.parametrize("seed", range(3))
def test_people_stay_whole_and_every_split_has_every_class(seed: int):
    drawn, told = complete_splits(records(10, 8), seed)
    splits_of = {person: {r.split for r in drawn if r.subject_id == person} for person in {r.subject_id for r in drawn}}
    assert all(len(splits) == 1 for splits in splits_of.values()) and "by person" in told
    assert Counter(r.split for r in drawn) == {"train": 48, "validation": 16, "test": 16}
    assert len({(r.split, r.label) for r in drawn}) == 12
    assert drawn == complete_splits(records(10, 8), seed)[0]


def test_clips_of_unknown_people_are_drawn_class_by_class():
    # 30 clips of four classes, one of them rare: by chance alone a split often lacks it.
    given = [r for i, r in enumerate(records(40, 4, knows_people=False)) if r.label != "neutral" or i % 8 == 3]
    drawn, told = complete_splits(given, seed=0)
    assert len({(r.split, r.label) for r in drawn}) == 12 and "people are not known" in told


def test_a_missing_split_is_taken_from_train_alone():
    given = records(10, 4, "train") + records(3, 4, "test")
    drawn, told = complete_splits(given, seed=0)
    assert [r.split for r in drawn[40:]] == ["test"] * 12
    assert Counter(r.split for r in drawn[:40]) == {"train": 32, "validation": 8} and "validation drawn" in told


def test_half_a_split_is_refused():
    with pytest.raises(DataError, match="every clip or for none"):
        complete_splits([*records(2, 4, "train"), *records(2, 4, None)], seed=0)


@pytest.mark.parametrize("splits", [("test",), ("test", "validation")])
def test_no_split_is_drawn_from_people_to_be_measured_on(splits: tuple[str, ...]):
    given = [record for split in splits for record in records(2, 4, split)]
    kept, told = complete_splits(given, seed=0)
    assert kept == given and told.startswith("the source's own, which has no train")


def test_frames_of_one_recording_stay_together_where_nobody_knows_the_people():
    frames = [replace(frame, group_id=frame.clip_id[:-2]) for frame in records(10, 8, knows_people=False)]
    drawn, _ = complete_splits(frames, seed=0)
    assert len({(record.group_id, record.split) for record in drawn}) == 10 == len({r.group_id for r in drawn})
