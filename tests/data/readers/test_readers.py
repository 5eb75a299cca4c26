"""Raw sources in, labelled records out: each layout as it is in the wild, and inputs = records + rejects."""

import csv
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from places import REAL_DATA
from small_files import zip_folder

from engagement_recognition.data.readers.class_folders import read_class_folders
from engagement_recognition.data.readers.daisee import is_daisee, read_daisee, read_labels
from engagement_recognition.data.readers.fer2013 import read_fer2013
from engagement_recognition.data.readers.sources import SourceOptions, detect_kind, read_source
from engagement_recognition.data.readers.video_tables import read_video_table
from engagement_recognition.data.schema import (
    AFFECTS,
    EXPRESSIONS,
    SPLITS,
    LabelledSource,
    SourceNotes,
    binary_label,
    three_class_label,
)
from engagement_recognition.data.splits import stratified_subset
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.processor.media_inputs import load_picture


def write_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def ids_of(source: LabelledSource) -> list[tuple[str, str | None, str | None]]:
    return [(record.clip_id, record.split, record.label) for record in source.records]


# --- DAiSEE


def test_daisee_s_oddities_are_read_and_counted(drawn_daisee: Path):
    source = read_daisee(drawn_daisee)
    assert {Path(record.source_path).suffix for record in source.records} == {".avi", ".mp4"}  # tables know .avi only
    assert set(source.records[0].affects) == set(AFFECTS)  # the header says "Frustration "
    assert [reject.stage for reject in source.rejects] == ["source", "label"]
    assert (source.notes.without_video, source.notes.without_label, source.notes.subset) == (1, 1, None)
    videos = {path.stem for path in drawn_daisee.glob("DataSet/*/*/*/*")}
    rows = {line.split(".")[0] for line in (drawn_daisee / "Labels/AllLabels.csv").read_text().splitlines()[1:]}
    assert len(source.records) + len(source.rejects) == len(videos | rows)
    assert {record.subject_id for record in source.records} == {clip_id[:6] for clip_id in rows}


@pytest.mark.parametrize("top", ["", "DAiSEE/", "backup/DAiSEE/"])
def test_daisee_s_archive_is_read_as_its_folder(top: str, drawn_daisee: Path, tmp_path: Path):
    archive = zip_folder(drawn_daisee, tmp_path / "DAiSEE.zip", top)
    in_folder, in_archive = read_daisee(drawn_daisee), read_daisee(archive)
    below = [replace(record, source_path=record.source_path.removeprefix(top)) for record in in_archive.records]
    assert below == in_folder.records
    assert [reject.clip_id for reject in in_archive.rejects] == [reject.clip_id for reject in in_folder.rejects]
    read = pickle.loads(pickle.dumps(in_archive.read))  # as it goes to another process
    first = in_folder.records[0]
    assert read(in_archive.records[0]) == in_folder.read(first).read_bytes()
    assert is_daisee(archive) and is_daisee(drawn_daisee) and not is_daisee(tmp_path)


def test_a_folder_above_daisee_will_do(drawn_daisee: Path, tmp_path: Path):
    shutil.copytree(drawn_daisee, tmp_path / "above/DAiSEE")
    source = read_daisee(tmp_path / "above")
    assert source.records[0].source_path.startswith("DAiSEE/DataSet/Train/")
    assert source.read(source.records[0]).is_file()


@pytest.mark.parametrize("missing", ["DataSet", "Labels", "Labels/TestLabels.csv", "DataSet/Validation"])
def test_a_missing_part_of_daisee_is_named(missing: str, drawn_daisee: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    (folder / missing).unlink() if missing.endswith(".csv") else shutil.rmtree(folder / missing)
    with pytest.raises(DataError, match=missing):
        read_daisee(folder)


def test_a_second_video_of_a_clip_is_rejected(drawn_daisee: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    before = read_daisee(folder)
    video = folder / before.records[0].source_path
    shutil.copy(video, video.with_suffix(".webm"))
    after = read_daisee(folder)
    assert after.records == before.records and len(after.rejects) == len(before.rejects) + 1
    assert after.rejects[0].path.endswith(".webm") and "two videos" in after.rejects[0].reason


def test_a_clip_that_two_splits_claim_is_taken_once(drawn_daisee: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    before = read_daisee(folder)
    clip = before.records[0]
    shutil.copytree(folder / "DataSet/Train" / clip.subject_id, folder / "DataSet/Test" / clip.subject_id)
    row = next(line for line in (folder / "Labels/TrainLabels.csv").open() if line.startswith(clip.clip_id))
    with (folder / "Labels/TestLabels.csv").open("a") as file:
        file.write(row)
    after = read_daisee(folder)
    assert after.records == before.records
    assert [reject.clip_id for reject in after.rejects if "two splits" in reject.reason] == [clip.clip_id]


def test_the_subset_is_drawn_before_videos_are_looked_for(drawn_daisee: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    whole = read_daisee(folder, "stratified")
    (folder / whole.records[0].source_path).unlink()
    without = read_daisee(folder, "stratified")
    assert without.records == whole.records[1:]
    assert without.notes.without_video == whole.notes.without_video + 1
    num_rows = len((folder / "Labels/AllLabels.csv").read_text().splitlines()) - 1
    # Rows outside the subset are no inputs; the one video without a row is.
    assert len(without.records) + len(without.rejects) == num_rows + 1 - without.notes.outside_subset
    with pytest.raises(RecipeError, match="stratified"):
        read_daisee(folder, "random")


# --- FER2013


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 30 pictures as parquet files of the Hub, with labels in an order of their own, and as both tables."""
    folder, rng = tmp_path_factory.mktemp("fer2013"), np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=sorted(EXPRESSIONS, reverse=True))})
    (folder / "hub/data").mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for split, usage in zip(SPLITS, ("Training", "PublicTest", "PrivateTest"), strict=True):
        pixels, emotions = rng.integers(256, size=(10, 48, 48), dtype=np.uint8), rng.permutation(10) % 7
        columns = {"image": list(pixels), "label": [EXPRESSIONS[emotion] for emotion in emotions]}
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"hub/data/{split}-00000-of-00001.parquet")
        rows += [
            {"emotion": emotion, "pixels": " ".join(map(str, picture.ravel())), "Usage": usage}
            for emotion, picture in zip(emotions, pixels, strict=True)
        ]
    mixed = [rows[10 * split + row] for row in range(10) for split in (2, 0, 1)]
    for name, header in {"fer2013.csv": "emotion,pixels,Usage", "icml_face_data.csv": "emotion, Usage, pixels"}.items():
        with (folder / name).open("w", newline="") as file:
            file.write(f"{header}\n")
            csv.DictWriter(file, header.replace(" ", "").split(",")).writerows(mixed)
    return folder


@pytest.mark.parametrize("form", ["fer2013.csv", "icml_face_data.csv", "folder", "zip"])
def test_fer2013_s_forms_hold_the_same_pictures(form: str, fer2013: Path, tmp_path: Path):
    source = fer2013 / form
    if form in ("folder", "zip"):
        shutil.copy(fer2013 / "fer2013.csv", tmp_path)
        source = tmp_path if form == "folder" else zip_folder(tmp_path, tmp_path / "archive.zip", "fer2013/")
    from_table, from_hub = read_fer2013(source), read_fer2013(fer2013 / "hub")
    assert sorted(ids_of(from_table)) == sorted(ids_of(from_hub)) and len(from_hub.records) == 30
    pictures = {record.clip_id: from_hub.read(record) for record in from_hub.records}
    read = pickle.loads(pickle.dumps(from_table.read))
    for record in from_table.records:
        assert np.array_equal(load_picture(read(record)), load_picture(pictures[record.clip_id]))
    by_split = [[name for name, split, _ in ids_of(from_table) if split == wanted] for wanted in SPLITS]
    assert by_split == [[f"{split}/{row:05}" for row in range(10)] for split in SPLITS]
    assert from_table.rejects == from_hub.rejects == []


def test_pictures_of_parquet_files_stay_as_they_are_stored(fer2013: Path, tmp_path: Path):
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("int64")})
    images = [{"bytes": b"no picture", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, {"bytes": b"x", "path": ""}]
    for name, labels in {"train": [3, 3, 7], "valid": [6, 0, 1], "test": [0, 1, None]}.items():
        Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    source = read_fer2013(tmp_path)
    assert ("train/00000", "train", "happy") in ids_of(source)  # a plain number counts as FER2013's own
    assert source.read(source.records[0]) == b"no picture"  # undecodable ones are the preparation's to reject
    assert Counter(reject.stage for reject in source.rejects) == {"decode": 3, "label": 2}
    assert len(source.records) + len(source.rejects) == 9


@pytest.mark.parametrize("spoilt", ["no parquet", "cut", "columns", "name"])
def test_a_bad_parquet_file_is_refused_in_one_line(spoilt: str, fer2013: Path, tmp_path: Path):
    whole = (fer2013 / "hub/data/test-00000-of-00001.parquet").read_bytes()
    path = tmp_path / ("faces.parquet" if spoilt == "name" else "test.parquet")
    path.write_bytes({"no parquet": b"text", "cut": whole[:-100]}.get(spoilt, whole))
    if spoilt == "columns":
        Dataset.from_dict({"picture": [b"x"], "label": [1]}).to_parquet(path)
    with pytest.raises(DataError, match=path.name) as refusal:
        read_fer2013(tmp_path)
    assert "\n" not in str(refusal.value)


def test_fer2013_in_class_folders_gets_its_own_label_names(tmp_path: Path):
    write_files(
        tmp_path, "Training/anger/1.jpg", "Training/Happiness/2.jpg", "PublicTest/fearful/3.jpg", "test/sad/4.jpg"
    )
    write_files(tmp_path, "test/contempt/5.jpg")
    source = read_fer2013(tmp_path)
    assert [(split, label) for _, split, label in ids_of(source)] == [
        ("validation", "fear"),
        ("train", "happy"),
        ("train", "angry"),
        ("test", "sad"),
    ]
    assert [(reject.clip_id, reject.stage) for reject in source.rejects] == [("test/contempt/5.jpg", "label")]


# --- Class folders


@pytest.mark.parametrize("top", ["", "ER/", "data/ER/"])
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_class_folders_with_and_without_splits(top: str, as_zip: bool, tmp_path: Path):
    names = ("train/Engaged/a.png", "train/bored/b.JPG", "VAL/bored/c.png", "Testing/engaged/deep/d.webp")
    folder = write_files(tmp_path / "set", *(top + name for name in names), f"{top}train/bored/notes.txt", "README.md")
    source = read_class_folders(zip_folder(folder, tmp_path / "set.zip") if as_zip else folder)
    assert sorted(ids_of(source)) == [
        ("Testing/engaged/deep/d.webp", "test", "engaged"),
        ("VAL/bored/c.png", "validation", "bored"),
        ("train/Engaged/a.png", "train", "engaged"),
        ("train/bored/b.JPG", "train", "bored"),
    ]
    assert source.rejects == []
    bare = read_class_folders(write_files(tmp_path / "bare", f"{top}1/a.png", f"{top}2/b.png"))
    assert ids_of(bare) == [("1/a.png", None, "1"), ("2/b.png", None, "2")]


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("^[a-z]+", "anna"),
        (r"_(\d+)", "07"),
        (r"(x)?(?P<subject>na)", "na"),
        (r"\w+(?=\.png)", "anna_07"),
        (None, None),
    ],
)
def test_the_subject_comes_from_the_file_s_name(pattern: str | None, subject: str | None, tmp_path: Path):
    folder = write_files(tmp_path, "train/bored/anna_07.png", "train/engaged/anna_07.png")
    assert {record.subject_id for record in read_class_folders(folder, subject_pattern=pattern).records} == {subject}


def test_the_subject_may_be_a_folder_and_a_file_without_one_is_rejected(tmp_path: Path):
    folder = write_files(tmp_path, "bored/ben/1.png", "engaged/anna/1.png", "engaged/2.png")
    source = read_class_folders(folder, subject_pattern="^(.+)/")
    assert [record.subject_id for record in source.records] == ["ben", "anna"]
    assert [(reject.clip_id, reject.stage) for reject in source.rejects] == [("engaged/2.png", "source")]


def test_files_that_do_not_fit_are_rejects(tmp_path: Path):
    bad = {"train/a.png": "label", "other/bored/a.png": "source", "train/bored/a.mp4": "source", "a.png": "source"}
    source = read_class_folders(write_files(tmp_path, "train/bored/b.png", "train/engaged/c.png", *bad))
    assert len(source.records) == 2
    assert {reject.path: reject.stage for reject in source.rejects} == bad


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a.png", "b.png"), "<label>/<file>"),
        (("train/a.png", "test/b.png"), "<label>/<file>"),
        (("bored/a.png", "bored/b.png"), "2 labels"),
        (("bored/a.mp4", "engaged/b.mp4"), "no pictures"),
        ((), "no pictures"),
    ],
)
def test_a_layout_without_labels_is_refused(names: tuple[str, ...], told: str, tmp_path: Path):
    with pytest.raises(DataError, match=tmp_path.name) as refusal:
        read_class_folders(write_files(tmp_path, *names))
    assert told in str(refusal.value)
    with pytest.raises(RecipeError, match="regular expression"):
        read_class_folders(tmp_path, subject_pattern="(")


# --- Tables of videos


def test_a_table_of_videos_with_spans_splits_and_affects(tmp_path: Path):
    write_files(tmp_path, "in/a.mp4", "b.mp4")
    (tmp_path / "videos.csv").write_text(
        f"Path,Label,subject_id,split,start_sec,end_sec,{','.join(AFFECTS)},remark\n"
        "in\\a.mp4,Engaged,anna,TRAIN,0,2.50,1,3,0,0,x\nin/a.mp4,bored,anna,train,2.5,,3,0,0,0,\n"
        f"{tmp_path}/b.mp4,bored,ben,val,,,2,1,0,0,\n"
    )
    source = read_video_table(tmp_path / "videos.csv")
    assert ids_of(source) == [
        ("in/a.mp4@0-2.5", "train", "engaged"),
        ("in/a.mp4@2.5-", "train", "bored"),
        (f"{tmp_path}/b.mp4", "validation", "bored"),
    ]
    assert [(record.clip_start_sec, record.clip_end_sec) for record in source.records] == [
        (0, 2.5),
        (2.5, None),
        (None,) * 2,
    ]
    assert [record.affects["engagement"] for record in source.records] == [3, 0, 1]
    assert [source.read(record).read_bytes() for record in source.records] == [b"in/a.mp4"] * 2 + [b"b.mp4"]
    assert source.notes == SourceNotes(extra_columns=["remark"]) and source.rejects == []


# --- One door to all


def test_every_kind_is_told_from_what_lies_there(drawn_daisee: Path, fer2013: Path, tmp_path: Path):
    images = write_files(tmp_path / "images", "bored/a.png", "engaged/b.png", "labels.csv")
    videos = write_files(tmp_path / "videos", "bored/a.mp4", "engaged/b.mp4", "poster.png")
    (tmp_path / "table.csv").write_text("path,label,subject_id\nvideos/bored/a.mp4,bored,anna\n")
    expected = {
        drawn_daisee: "daisee",
        drawn_daisee.parent: "daisee",
        fer2013 / "fer2013.csv": "fer2013",
        fer2013 / "icml_face_data.csv": "fer2013",
        fer2013 / "hub": "fer2013",
        images: "images",
        zip_folder(images, tmp_path / "images.zip"): "images",
        videos: "videos",
        tmp_path / "table.csv": "videos",
    }
    assert {path: detect_kind(path) for path in expected} == expected
    for path, kind in expected.items():
        source = read_source(None, path)
        assert source.kind == kind and {record.split for record in source.records} <= set(SPLITS)
    for path in (write_files(tmp_path / "nothing", "a.txt"), tmp_path / "nothing/a.txt", tmp_path / "gone"):
        with pytest.raises(DataError, match=path.name):
            read_source(None, path)


def test_where_the_split_comes_from_is_told(drawn_daisee: Path, tmp_path: Path):
    assert read_source("daisee", drawn_daisee).notes.split == "the source's own"
    names = [f"{label}/{person}_{number}.png" for label in ("a", "b") for person in "uvwxyz" for number in range(5)]
    folder = write_files(tmp_path / "set", *names)
    by_person = read_source("images", folder, SourceOptions(subject_pattern="^[a-z]", seed=3))
    assert by_person.notes.split == "drawn by person (seed 3)"
    people = [{record.subject_id for record in by_person.records if record.split == split} for split in SPLITS]
    assert all(people) and sum(map(len, people)) == 6
    assert "clip by clip" in read_source("images", folder).notes.split
    only = read_source("images", write_files(tmp_path / "only", "test/a/1.png", "test/b/2.png"))
    assert {record.split for record in only.records} == {"test"} and "no train" in only.notes.split


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("images", SourceOptions(subset="stratified")),
        ("daisee", SourceOptions(subject_pattern="x")),
        ("films", SourceOptions()),
    ],
)
def test_an_option_that_does_not_fit_is_refused(kind: str, options: SourceOptions, tmp_path: Path):
    with pytest.raises(RecipeError, match=kind):
        read_source(kind, tmp_path, options)


# --- Real data, where it is


@pytest.mark.real_data
@pytest.mark.skipif(
    not (REAL_DATA / "fer2013").is_dir(), reason="no FER2013 in ../shared/data (or ENGAGEMENT_REAL_DATA)"
)
def test_fer2013_has_its_official_sizes():
    source = read_source(None, REAL_DATA / "fer2013")
    assert Counter(record.split for record in source.records) == {"train": 28709, "validation": 3589, "test": 3589}
    assert {record.label for record in source.records} == set(EXPRESSIONS) and source.rejects == []


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "daisee_labels").is_dir(), reason="no DAiSEE labels in ../shared/data")
@pytest.mark.parametrize(
    ("split", "levels", "subset", "three_classes"),
    [
        ("Train", [34, 213, 2617, 2494], (235, 705, 69), {"engaged": 662, "bored": 150, "other": 95, None: 33}),
        ("Validation", [23, 143, 813, 450], (158, 283, 19), {"engaged": 237, "bored": 121, "other": 47, None: 36}),
        ("Test", [4, 79, 781, 765], (73, 219, None), None),
    ],
)
def test_daisee_s_labels_and_subset_are_the_published_ones(
    split: str, levels: list[int], subset: tuple[int, int, int | None], three_classes: dict[str | None, int] | None
):
    with (REAL_DATA / f"daisee_labels/{split}Labels.csv").open("rb") as file:
        table = read_labels(file, file.name)
    counts = Counter(affects["engagement"] for affects in table.labels.values())
    assert [counts[level] for level in range(4)] == levels and table.rejects == []
    drawn = stratified_subset(table.labels)
    binary = Counter(binary_label(table.labels[clip_id]) for clip_id in drawn)
    assert (binary["disengaged"], binary["engaged"]) == subset[:2]
    assert subset[2] in (None, len({clip_id[:6] for clip_id in drawn}))
    if three_classes:
        assert Counter(three_class_label(table.labels[clip_id]) for clip_id in drawn) == three_classes
