"""An audit finds every leak planted into drawn data, and none in a clean split."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from drawn_leaks import (
    DrawnRow,
    brighter,
    classes_of_one_recording,
    compressed_again,
    cut_a_little,
    film,
    people_apart,
    write_rows,
)
from places import REAL_DATA

from engagement_recognition.data.audit.duplicates import clean_rows
from engagement_recognition.data.audit.leakage import Audit, audit
from engagement_recognition.data.audit.recordings import compare_rows
from engagement_recognition.data.audit.resplit import deduplicate, suggest_split
from engagement_recognition.data.audit.rows import read_rows
from engagement_recognition.data.audit.verdicts import Finding
from engagement_recognition.data.preparation.description import InputCounts
from engagement_recognition.data.preparation.picture_codec import decode_picture
from engagement_recognition.data.preparation.picture_hashes import (
    close_pairs,
    count_tiles,
    perceptual_hash,
    unpack_hashes,
)
from engagement_recognition.data.schema import EXPRESSIONS, SPLITS, Reject
from engagement_recognition.processor.input_errors import DataError, RecipeError

LABELS = ("bored", "confused", "engaged")


def audit_rows(rows: list[DrawnRow], folder: Path) -> Audit:
    return audit(write_rows(rows, folder / "data"))


def findings_of(found: Audit) -> dict[str, Finding]:
    return {finding.name: finding for finding in found.findings}


def grades_of(found: Audit) -> dict[str, str]:
    return {finding.name: finding.grade for finding in found.findings if finding.grade != "ok"}


@pytest.mark.parametrize("first", [0, 100])
def test_a_split_by_person_has_nothing_to_tell(first: int, tmp_path: Path):
    found = audit_rows(people_apart(first=first), tmp_path)
    assert found.passed and grades_of(found) == {}
    assert clean_rows(found.rows, found.duplicates).all()
    assert found.counts.groups <= 10 * 6 and found.counts.subjects == 10


def test_unknown_people_are_reported_and_no_more(tmp_path: Path):
    found = audit_rows(people_apart(knows_people=False), tmp_path)
    assert found.passed and grades_of(found) == {"unknown people": "report"}


def test_a_shared_subject_fails_and_is_named(tmp_path: Path):
    rows = people_apart()
    moved = [row.but(split="test") if row.clip_id in ("person0_4", "person0_5") else row for row in rows]
    found = audit_rows(moved, tmp_path)
    assert not found.passed
    assert findings_of(found)["shared subjects"].details["shared"] == {"person0": ["train", "test"]}
    assert "person0 (train, test)" in findings_of(found)["shared subjects"].summary


def test_a_source_file_in_two_splits_fails_and_rows_of_a_table_do_not(tmp_path: Path):
    def from_one_source(path: str) -> list[DrawnRow]:
        rows = people_apart(knows_people=False)
        return [row.but(source_path=path.format(place)) for place, row in enumerate(rows)]

    as_video = audit_rows(from_one_source("lecture.mp4"), tmp_path / "video")
    as_table = audit_rows(from_one_source("fer2013.csv#{}"), tmp_path / "table")
    assert findings_of(as_video)["shared files"].grade == "fail"
    assert findings_of(as_video)["shared files"].details["shared"] == {"lecture.mp4": list(SPLITS)}
    assert as_table.passed and findings_of(as_table)["shared files"].grade == "ok"


def test_an_identical_picture_with_another_label_is_two_reports(tmp_path: Path):
    rows = people_apart()
    twin = rows[0].but(clip_id="twin", split="test", subject_id="person9", label="engaged")
    found = audit_rows([*rows, twin], tmp_path)
    assert found.passed
    assert grades_of(found) == {"duplicates": "report", "label conflicts": "report", "shared recordings": "report"}
    assert findings_of(found)["duplicates"].details["by_splits"] == {
        "test in train": {"identical": 1, "near-identical": 0}
    }
    conflict = findings_of(found)["label conflicts"].details
    assert conflict["num_groups"] == 1 and conflict["groups"][0][-1] == "twin (test): engaged"
    (unclean,) = np.flatnonzero(~clean_rows(found.rows, found.duplicates))
    assert found.rows.clip_id[unclean] == "twin"


@pytest.mark.parametrize(
    ("change", "split"),
    [(brighter, "validation"), (brighter, "test"), (compressed_again, "test"), (cut_a_little, "validation")],
)
def test_a_changed_copy_in_another_split_is_found(change, split: str, tmp_path: Path):
    rows = people_apart()
    someone = next(row.subject_id for row in rows if row.split == split)
    copy = rows[3].but(content=change(rows[3].content), clip_id="copy", split=split, subject_id=someone)
    found = audit_rows([*rows, copy], tmp_path)
    # Nothing but the copy: frames of one person are alike too, and are in one split.
    assert [found.rows.clip_id[item.row] for item in found.duplicates] == ["copy"]
    assert found.rows.split[found.duplicates[0].other] == "train"
    assert findings_of(found)["duplicates"].details["by_splits"] == {
        f"{split} in train": {"identical": 0, "near-identical": 1}
    }
    assert found.passed  # one copy is a duplicate, not a shared recording


@pytest.mark.parametrize("as_crop", [False, True], ids=["whole frames", "face crops"])
def test_classes_of_one_recording_split_at_random_fail_twice(as_crop: bool, tmp_path: Path):
    # The shape of a public set of 2,120 webcam pictures: no people, no clips, each class filmed in one go.
    found = audit_rows(classes_of_one_recording(LABELS, 36, seed=0, as_crop=as_crop), tmp_path)
    graded = grades_of(found)
    assert graded["shared recordings"] == "fail" and graded["one-recording classes"] == "fail"
    assert findings_of(found)["shared recordings"].details["num_recordings"] == len(LABELS)
    assert all(label in findings_of(found)["one-recording classes"].summary for label in LABELS)
    assert findings_of(found)["recording predicts label"].details["alone"]["macro_f1"] > 0.95
    assert "gives the label away" in findings_of(found)["recording predicts label"].summary


def test_a_few_frames_of_many_recordings_split_at_random_fail_too(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [row.but(split=SPLITS[rng.choice(3, p=[0.6, 0.2, 0.2])]) for row in people_apart(knows_people=False)]
    found = audit_rows(rows, tmp_path)
    assert findings_of(found)["shared recordings"].grade == "fail"
    assert findings_of(found)["shared recordings"].details["num_recordings"] == 0  # six frames each are no recording


def test_a_class_in_two_recordings_is_reported_by_name(tmp_path: Path):
    rows = people_apart()
    bored = classes_of_one_recording(["bored"], 12, seed=0, recordings_each=2)
    found = audit_rows(rows + [row.but(split="train") for row in bored], tmp_path)
    finding = findings_of(found)["one-recording classes"]
    assert finding.grade == "report" and found.passed
    assert "1 class comes from two recordings: bored" in finding.summary


def test_a_class_of_few_clips_is_not_judged(tmp_path: Path):
    rows = [*people_apart(), *(DrawnRow(film(900, 3)[i], f"rare{i}", "train", "rare", "rare") for i in range(3))]
    finding = findings_of(audit_rows(rows, tmp_path))["one-recording classes"]
    assert finding.grade == "report" and "too few clips to judge: rare" in finding.summary


def test_labels_come_from_the_levels_by_the_scheme_asked_for(tmp_path: Path):
    rows = [row.but(label=None, engagement=i % 4) for i, row in enumerate(people_apart(num_people=6))]
    data = write_rows(rows, tmp_path / "data")
    assert Counter(read_rows(data).label).keys() == {"disengaged", "engaged"}
    assert len(set(read_rows(data, "levels").label)) == 4
    with pytest.raises(RecipeError, match="'moods'; choose one of: binary"):
        audit(data, "moods")


def test_windows_of_a_clip_are_one_recording_and_one_clip(tmp_path: Path):
    frames = [content for person in range(4) for content in film(person, 6)]
    rows = [DrawnRow(content, "clip", "train", "engaged", window_index=i) for i, content in enumerate(frames)]
    found = audit_rows([*rows, *people_apart(knows_people=False, first=20)], tmp_path)
    assert len(set(found.groups[:24].tolist())) == 1
    assert findings_of(found)["one-recording classes"].details["clips"]["engaged"] == 1 + 30


def test_subject_alone_gives_the_label_away(tmp_path: Path):
    rows = [row.but(label="engaged" if int(row.subject_id[-1]) % 2 else "disengaged") for row in people_apart()]
    finding = findings_of(audit_rows(rows, tmp_path))["subject predicts label"]
    assert finding.grade == "report" and finding.details["alone"]["macro_f1"] == 1.0
    assert finding.details["majority"]["balanced_accuracy"] == 0.5


def test_blank_pictures_are_like_nothing(tmp_path: Path):
    # A perceptual hash calls all blank pictures the same, however they came about.
    blank = [perceptual_hash(np.full((48, 48, 3), level, np.uint8)) for level in (0, 90, 255)]
    assert not unpack_hashes([*blank, None]).usable.any()
    with pytest.raises(DataError, match="prepare the data again"):
        unpack_hashes(["abc"])


def test_close_pairs_are_all_there_whatever_the_tiles(monkeypatch: pytest.MonkeyPatch):
    frames = [decode_picture(content) for person in range(3) for content in film(person, 6)]
    hashes = unpack_hashes([perceptual_hash(frame) for frame in frames])
    bits = hashes.signs > 0
    expected = {(i, j, int((bits[i] != bits[j]).sum())) for i in range(len(frames)) for j in range(i)}
    expected = {pair for pair in expected if pair[2] <= 30}
    for rows_per_tile, others_per_tile in ((1024, 8192), (5, 4), (4, 5)):
        monkeypatch.setattr("engagement_recognition.data.preparation.picture_hashes._ROWS_PER_TILE", rows_per_tile)
        monkeypatch.setattr("engagement_recognition.data.preparation.picture_hashes._OTHERS_PER_TILE", others_per_tile)
        tiles = list(close_pairs(hashes, 30))
        assert {tuple(pair) for tile in tiles for pair in np.stack(tile, 1).tolist()} == expected
        assert len(tiles) == count_tiles(len(frames))


def test_two_names_in_one_room_are_two_people(tmp_path: Path):
    rows = people_apart(num_people=6, count=4)
    likeness = compare_rows(read_rows(write_rows(rows, tmp_path / "data")), [None] * len(rows))
    people = [row.subject_id for row in rows]
    assert all(len({people[i] for i in np.flatnonzero(likeness.groups == group)}) == 1 for group in likeness.groups)


def test_a_split_that_is_mostly_copies_fails(tmp_path: Path):
    # Pairs of copies are no recording, and a score on them is worth as little.
    rows = people_apart(num_people=20, count=2)
    train = [row for row in rows if row.split == "train"]
    copies = [
        row.but(clip_id=f"copy{i}", split=SPLITS[1 + i % 2], source_path=f"copy{i}.jpg", subject_id=None)
        for i, row in enumerate(train)
    ]
    found = audit_rows(train + copies, tmp_path)
    assert not found.passed and findings_of(found)["duplicates"].grade == "fail"
    assert "100% of validation and 100% of test" in findings_of(found)["duplicates"].summary


def test_an_empty_split_and_a_class_that_one_lacks_are_told(tmp_path: Path):
    lost = ("test", "engaged")
    rows = [row for row in people_apart() if row.split != "validation" and (row.split, row.label) != lost]
    told = findings_of(audit_rows(rows, tmp_path))["split contents"]
    assert told.grade == "report" and told.summary == "Validation is empty; test has no engaged."


def test_a_suggested_split_passes_a_new_audit(tmp_path: Path):
    rows = people_apart()
    leaky = write_rows([row.but(split=SPLITS[i % 3]) for i, row in enumerate(rows)], tmp_path / "leaky")
    found = audit(leaky)
    assert not found.passed
    better = suggest_split(leaky, found, tmp_path / "better")
    assert audit(better).passed and better.fingerprint != leaky.fingerprint
    counts = {split: counted.windows for split, counted in better.description.splits.items()}
    assert sum(counts.values()) == len(rows) and counts["train"] == 36
    assert all(set(counted.label) == {"engaged", "disengaged"} for counted in better.description.splits.values())
    assert "person and recording" in better.description.notes.split and "seed 0" in better.description.notes.split
    assert better.description.notes.split_limits == []
    again = suggest_split(leaky, found, tmp_path / "again")
    assert again.fingerprint == better.fingerprint
    assert suggest_split(leaky, found, tmp_path / "other", seed=1).fingerprint != better.fingerprint


def test_a_suggested_split_says_what_it_cannot_give(tmp_path: Path):
    leaky = write_rows(classes_of_one_recording(LABELS, 36, seed=0), tmp_path / "leaky")
    better = suggest_split(leaky, audit(leaky), tmp_path / "better")
    assert sorted(better.splits) == sorted(SPLITS)
    assert len(better.description.notes.split_limits) == len(LABELS)
    again = findings_of(audit(better))
    assert again["shared recordings"].grade == "ok" and again["one-recording classes"].grade == "fail"


def test_one_recording_cannot_be_split(tmp_path: Path):
    data = write_rows(classes_of_one_recording(["bored"], 30, seed=0), tmp_path / "data")
    with pytest.raises(DataError, match=r"1 people or recordings.* at least 3"):
        suggest_split(data, audit(data), tmp_path / "better")


def test_deduplicated_data_has_no_duplicates_and_adds_up(tmp_path: Path):
    rows = people_apart()
    near = rows[0].but(content=brighter(rows[0].content), clip_id="near", split="test", subject_id="person9")
    same = rows[1].but(clip_id="same", split="validation", subject_id="person6")
    window = rows[2].but(clip_id="person9_0", window_index=1, split="test", subject_id="person9")
    earlier = [Reject("broken.jpg", "broken", "decode", "not a picture")]
    data = write_rows([*rows, near, same, window], tmp_path / "data", earlier)
    cleaned = deduplicate(data, audit(data), tmp_path / "cleaned")
    assert findings_of(audit(cleaned))["duplicates"].grade == "ok"
    assert {reject["clip_id"] for reject in cleaned.rejects()} == {"broken", "near", "same", "person9_0"}
    told = {reject["clip_id"]: reject["reason"] for reject in cleaned.rejects() if reject["stage"] == "duplicate"}
    assert told["same"] == "validation picture identical to person0_1 in train"
    counted = cleaned.description
    # person9_0 keeps its other window, and so is an output still.
    assert (counted.inputs, counted.outputs, counted.rejects) == (63, 60, 3)
    assert counted.windows == InputCounts(inputs=63, outputs=60, rejects=3)
    assert counted.rejects_by_stage == {"decode": 1, "duplicate": 3}


def test_what_cannot_be_written_is_refused(tmp_path: Path):
    data = write_rows(people_apart(num_people=6, count=3), tmp_path / "data")
    found = audit(data)
    with pytest.raises(DataError, match="new or empty folder"):
        suggest_split(data, found, tmp_path / "data")
    with pytest.raises(DataError, match="audit it again"):
        deduplicate(data, replace(found, fingerprint="other"), tmp_path / "new")


@pytest.mark.real_data
@pytest.mark.slow
def test_fer2013_does_not_fail_and_its_leaks_are_counted(tmp_path: Path):
    folder = REAL_DATA / "fer2013"
    if not folder.is_dir():
        pytest.skip("no FER2013 in ../shared/data; set ENGAGEMENT_REAL_DATA to run this")
    rows = []
    for split in SPLITS:
        table = pyarrow.parquet.read_table(folder / f"{split}.parquet").to_pydict()
        for place, (image, label) in enumerate(zip(table["image"], table["label"], strict=True)):
            where = {"clip_id": f"{split}/{place:05d}", "source_path": f"{split}.parquet#{place}"}
            rows.append(DrawnRow(image["bytes"], split=split, label=EXPRESSIONS[label], **where))
    found = audit_rows(rows, tmp_path)
    assert found.passed
    assert findings_of(found)["label conflicts"].details["num_groups"] == 39
    shared = findings_of(found)["duplicates"].details["by_splits"]
    assert shared["test in train"]["near-identical"] >= 297 and shared["validation in train"]["near-identical"] >= 290
    assert shared["test in validation"]["identical"] >= 43
