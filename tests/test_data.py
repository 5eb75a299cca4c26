"""Raw folders in, labelled frames out: every oddity counted, nothing lost, and one way of making pixel values."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import prepared_in_this_process
from datasets import ClassLabel, Dataset, Features, Image, load_from_disk
from PIL import Image as PictureFile
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from engagement_recognition.data import preparation
from engagement_recognition.data.augmentation import Augmentation
from engagement_recognition.data.daisee import read_daisee, read_label_file
from engagement_recognition.data.drawn_datasets import encode_video
from engagement_recognition.data.face_pictures import fingerprint_pictures, load_face_pictures
from engagement_recognition.data.preparation import PreparedData, fingerprint_of, prepare_clips
from engagement_recognition.data.schema import SPLITS, ClipRecord
from engagement_recognition.data.training_sets import FrameCollator, clips_with_labels, pictures_with_labels
from engagement_recognition.metrics import compute_scores, majority_baseline
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, RecipeError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor

HEADER = "ClipID,Boredom,Engagement,Confusion,Frustration "
ROW = "1100011002.avi,0,2,0,0"
ALL_CHANGES = Augmentation(
    flip=0.5, rotation_deg=20, shift=0.2, zoom=0.2, brightness=0.3, contrast=0.3, saturation=0.3, erasing=0.5
)


def small_processor(**settings: object) -> EngagementVideoProcessor:
    return EngagementVideoProcessor(**{"num_frames": 4, "size": {"height": 32, "width": 32}, **settings})


# --- DAiSEE's layout


def test_daisee_s_oddities_are_read_and_counted(drawn_daisee: Path):
    found = read_daisee(drawn_daisee)
    assert {Path(clip.source_path).suffix for clip in found.clips} == {".avi", ".mp4"}  # the tables know .avi only
    assert "frustration" in found.clips[0].affects  # the header says "Frustration "
    assert len(found.without_label) == len(found.without_video) == 1
    videos = {path.stem for path in drawn_daisee.glob("DataSet/*/*/*/*")}
    assert videos == {clip.clip_id for clip in found.clips} | set(found.without_label)
    assert not videos & set(found.without_video)


def test_no_person_is_in_two_splits(drawn_daisee: Path):
    clips = read_daisee(drawn_daisee).clips
    people = {split: {clip.subject_id for clip in clips if clip.split == split} for split in SPLITS}
    assert all(people.values()) and sum(map(len, people.values())) == len(set.union(*people.values()))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"", "frustration"),
        (b"ClipID,Boredom,Confusion,Frustration\n", "engagement"),
        (f"{HEADER}\n{ROW}\n1100011003.avi,0,4,0,0\n".encode(), "line 3"),
        (f"{HEADER}\n1100011003.avi,0,high,0,0\n".encode(), "line 2"),
        (f"{HEADER}\n1100011003.avi,0,NaN,0,0\n".encode(), "line 2"),
        (f"{HEADER}\n1100011003.avi,0,,0,0\n".encode(), "line 2"),
        (f"{HEADER}\n1100011003.avi,0\n".encode(), "line 2"),
        (f"{HEADER}\n{ROW}\n{ROW}\n".encode(), "line 3"),
        (f"{HEADER}\n,0,2,0,0\n".encode(), "line 2"),
        (f"{HEADER}\n{ROW}\n".encode("utf-16"), "UTF-8"),
    ],
    ids=["empty", "no column", "4", "word", "NaN", "blank", "short row", "twice", "no id", "UTF-16"],
)
def test_a_bad_label_table_is_refused_by_file_and_line(table: bytes, told: str, tmp_path: Path):
    path = tmp_path / "TrainLabels.csv"
    path.write_bytes(table)
    with pytest.raises(DataError, match=r"TrainLabels\.csv") as refusal:
        read_label_file(path)
    assert told in str(refusal.value)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path):
    path = tmp_path / "TrainLabels.csv"
    path.write_bytes(f"{HEADER},Remark\r\n{ROW},fine\r\n".encode("utf-8-sig"))  # BOM, CRLF, one more column
    assert read_label_file(path)["1100011002"]["engagement"] == 2


@pytest.mark.parametrize("missing", ["DataSet", "Labels", "Labels/TestLabels.csv", "DataSet/Validation"])
def test_a_missing_part_of_the_layout_is_named(missing: str, drawn_daisee: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    (folder / missing).unlink() if missing.endswith(".csv") else shutil.rmtree(folder / missing)
    with pytest.raises(DataError, match=missing.rpartition("/")[2]):
        read_daisee(folder)


# --- Face pictures


@pytest.fixture(scope="module")
def parquet_folder(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn expressions in FER2013's shape: `image` {bytes, path}, `label` a ClassLabel in an order of its own."""
    folder = tmp_path_factory.mktemp("parquet")
    names = sorted({path.parent.name for path in drawn_expressions.glob("*/*/*.png")}, reverse=True)
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    for split in SPLITS:
        files = sorted((drawn_expressions / split).glob("*/*"))
        rows = {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "label": [file.parent.name for file in files],
        }
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def test_class_folders_and_parquet_hold_the_same_pictures(drawn_expressions: Path, parquet_folder: Path):
    in_folders, in_parquet = load_face_pictures(drawn_expressions), load_face_pictures(parquet_folder)
    assert {split: len(rows) for split, rows in in_folders.items()} == {"train": 28, "validation": 14, "test": 14}
    row, names = in_folders["test"][0], in_folders["test"].features["label"].names
    assert row["picture_id"].split("/")[:2] == ["test", names[row["label"]]]
    assert fingerprint_pictures(in_folders) == fingerprint_pictures(in_parquet)


def test_the_fingerprint_changes_with_a_single_picture(drawn_expressions: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    before = fingerprint_pictures(load_face_pictures(folder))
    next((folder / "test/happy").iterdir()).rename(folder / "test/sad/moved.png")
    assert fingerprint_pictures(load_face_pictures(folder)) != before


def spoil_pictures(folder: Path, spoilt: str) -> None:
    """Make the folder one that must be refused."""
    if spoilt == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif spoilt == "validation":
        shutil.rmtree(folder / "validation")
    elif spoilt == "yawning":
        (folder / "test/yawning").mkdir()
    elif spoilt == "train.parquet":
        (folder / "test.parquet").touch()
    else:
        for split in SPLITS:
            (folder / f"{split}.parquet").write_text("no parquet")


@pytest.mark.parametrize("spoilt", ["empty", "validation", "yawning", "train.parquet", "parquet file"])
def test_a_folder_that_is_laid_out_otherwise_is_refused(spoilt: str, drawn_expressions: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    spoil_pictures(folder, spoilt)
    with pytest.raises(DataError, match=r"empty|pictures") as refusal:
        load_face_pictures(folder)
    assert spoilt in str(refusal.value) or spoilt == "empty"
    with pytest.raises(DataError, match="nowhere"):
        load_face_pictures(tmp_path / "nowhere")


def test_a_picture_that_is_none_is_named(drawn_expressions: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    (folder / "train/angry/0_broken.png").write_bytes(b"")
    pictures = pictures_with_labels(load_face_pictures(folder)["train"])
    with pytest.raises(EngagementInputError, match=r"train/angry/0_broken\.png"):
        pictures[0]


# --- Prepared clips


@pytest.fixture(scope="module")
def clips(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> list[ClipRecord]:
    """Four good clips of all splits, one cut in half and one without a face."""
    folder = tmp_path_factory.mktemp("planted")
    every = read_daisee(drawn_daisee).clips
    good = [*[clip for clip in every if clip.split == "train"][:2], *(c for c in every if c.split != "train")][:6:2]
    good.append(next(clip for clip in every if clip.split == "test"))
    cut, empty = folder / "cut.avi", folder / "empty.avi"
    content = Path(good[0].source_path).read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    encode_video(empty, iter(np.full((8, 240, 320, 3), 90, np.uint8)), 4, 320, 240, "avi")
    planted = [replace(good[0], clip_id=path.stem, source_path=str(path)) for path in (cut, empty)]
    return [good[0], planted[0], *good[1:], planted[1]]


@pytest.fixture(scope="module")
def prepared(clips: list[ClipRecord], tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    with prepared_in_this_process():
        return prepare_clips(clips, small_processor(), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def three_parts(monkeypatch: pytest.MonkeyPatch, prepared_in_this_process: None) -> Iterator[None]:
    monkeypatch.setattr(preparation, "CLIPS_PER_PART", 2)
    yield


def test_inputs_are_outputs_and_rejects(prepared: PreparedData, clips: list[ClipRecord]):
    outputs = [clip_id for rows in prepared.splits.values() for clip_id in rows["clip_id"]]
    rejected = {row["clip_id"]: row for row in prepared.rejects}
    assert sorted([*outputs, *rejected]) == sorted(clip.clip_id for clip in clips)
    assert {clip_id: row["stage"] for clip_id, row in rejected.items()} == {"cut": "decode", "empty": "face"}
    with (prepared.folder / "rejects.csv").open() as file:
        written = {row["clip_id"]: row for row in csv.DictReader(file)}
    assert written == rejected
    assert all(Path(row["path"]).is_file() and Path(row["path"]).name in row["reason"] for row in written.values())
    description = json.loads((prepared.folder / "dataset.json").read_text())
    assert (description["inputs"], description["outputs"], description["rejects"]) == (len(clips), len(outputs), 2)


def test_a_second_call_decodes_nothing(
    prepared: PreparedData, clips: list[ClipRecord], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preparation, "_prepare_parts", None)
    monkeypatch.setattr(EngagementVideoProcessor, "prepare_clip", None)
    again = prepare_clips(clips, small_processor(), prepared.folder.parent)
    assert (again.fingerprint, again.rejects) == (prepared.fingerprint, prepared.rejects)
    assert again.splits["train"]["frames"] == prepared.splits["train"]["frames"]


def test_an_interrupted_run_goes_on_and_ends_the_same(
    prepared: PreparedData, clips: list[ClipRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_parts: None
):
    whole_part, started = preparation._prepare_part, []

    def killed_in_the_second(chunk: list, settings: dict, parts: Path, start: int) -> None:
        started.append(start)
        if start == 2 and started.count(2) == 1:
            (parts / f"{start:08}.partial").write_bytes(b"half a table")
            raise OSError("No space left on device")
        whole_part(chunk, settings, parts, start)

    monkeypatch.setattr(preparation, "_prepare_part", killed_in_the_second)
    with pytest.raises(OSError, match="space"):
        prepare_clips(clips, small_processor(), tmp_path)
    assert not list(tmp_path.glob("*/dataset.json"))
    resumed = prepare_clips(clips, small_processor(), tmp_path)
    assert started == [0, 2, 4, 2]  # what was finished is not done again
    for split in SPLITS:
        assert resumed.splits[split].to_dict() == prepared.splits[split].to_dict()
    assert (resumed.rejects, resumed.fingerprint) == (prepared.rejects, prepared.fingerprint)


def test_a_folder_without_its_last_file_is_not_trusted(
    prepared: PreparedData, clips: list[ClipRecord], tmp_path: Path, prepared_in_this_process: None
):
    folder = shutil.copytree(prepared.folder, tmp_path / prepared.folder.name)
    (folder / "dataset.json").unlink()
    shutil.rmtree(folder / "arrow/train")
    again = prepare_clips(clips, small_processor(), tmp_path)
    assert again.splits["train"].to_dict() == prepared.splits["train"].to_dict()


def test_settings_that_change_crops_get_another_folder(prepared: PreparedData, clips: list[ClipRecord]):
    def name_of(**settings: object) -> str:
        processor = small_processor(**settings)
        return fingerprint_of(clips, {name: getattr(processor, name) for name in preparation.CROP_SETTINGS})

    assert name_of() == prepared.fingerprint
    others = [name_of(num_frames=5), name_of(sampling="consecutive"), name_of(face_margin_ratio=0.1)]
    assert len({prepared.fingerprint, *others}) == 4
    assert name_of(size={"height": 64, "width": 64}) == prepared.fingerprint  # applies after the cache
    relabelled = [replace(clips[0], affects={**clips[0].affects, "engagement": 0}), *clips[1:]]
    assert fingerprint_of(relabelled, {}) != fingerprint_of(clips, {})


def test_nothing_usable_is_an_error_and_leaves_nothing_to_trust(
    clips: list[ClipRecord], tmp_path: Path, prepared_in_this_process: None
):
    with pytest.raises(DataError, match="at least one clip"):
        prepare_clips([], small_processor(), tmp_path)
    with pytest.raises(DataError, match=r"empty\.avi"):
        prepare_clips([clip for clip in clips if clip.clip_id == "empty"], small_processor(), tmp_path)
    assert not list(tmp_path.glob("*/dataset.json"))


# --- Augmentation and batches


def test_a_change_is_one_for_a_clip_and_another_for_the_next():
    # A brightness that differed from frame to frame would be motion that never happened.
    torch.manual_seed(0)
    picture = torch.randint(256, (3, 24, 24), dtype=torch.uint8)
    changed = ALL_CHANGES(picture.expand(4, 5, 3, 24, 24))
    assert changed.shape == (4, 5, 3, 24, 24) and changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:, :1].expand_as(changed))
    assert all(not torch.equal(changed[i], changed[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("name", list(Augmentation.__dataclass_fields__))
def test_each_change_is_drawn_from_the_seed_and_can_be_off(name: str):
    frames = torch.randint(256, (8, 2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmentation = Augmentation.from_recipe({name: 30 if name == "rotation_deg" else 0.8})
    torch.manual_seed(1)
    first = augmentation(frames)
    torch.manual_seed(1)
    assert torch.equal(augmentation(frames), first)
    assert not torch.equal(first, frames)
    assert torch.equal(Augmentation()(frames), frames)


def test_a_sure_flip_is_the_mirror_image():
    frames = torch.randint(256, (2, 3, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(Augmentation(flip=1.0)(frames), frames.flip(-1))


@pytest.mark.parametrize("recipe", [{"blur": 0.5}, {"flip": 2}, {"zoom": -0.1}, {"flip": True}, {"flip": "often"}])
def test_unknown_changes_and_strengths_are_refused(recipe: dict):
    with pytest.raises(RecipeError, match=next(iter(recipe))):
        Augmentation.from_recipe(recipe)


def test_batches_of_clips_are_what_the_processor_makes(prepared: PreparedData):
    processor = small_processor()
    labelled = clips_with_labels(prepared.splits["train"], "binary", ("disengaged", "engaged"))
    rows = [labelled[row] for row in range(len(labelled))]
    batch = FrameCollator(processor, single_face=False)(rows)
    assert batch["pixel_values"].shape == (len(rows), 4, 3, 32, 32)
    served = torch.stack([processor.to_pixel_values(row["frames"]) for row in rows])
    assert torch.equal(batch["pixel_values"], served)
    levels = prepared.splits["train"]["engagement"]
    assert batch["labels"].tolist() == [int(level >= 2) for level in levels]
    # The cache holds JPEGs, so against the file itself: the same crops, up to compression.
    source = load_from_disk(str(prepared.folder / "arrow"))["train"][0]["source_path"]
    difference = (processor(source)["pixel_values"][0] - batch["pixel_values"][0]).abs()
    assert difference.mean() < 0.05


@pytest.mark.parametrize("sizes", [(48, 48), (48, 60)], ids=["one size", "two sizes"])
def test_batches_of_pictures_are_what_the_processor_makes(sizes: tuple[int, int], drawn_expressions: Path):
    processor = EngagementImageProcessor(size={"height": 32, "width": 32}, face_crop=False)
    labelled = pictures_with_labels(load_face_pictures(drawn_expressions)["test"])
    rows = []
    for row, size in enumerate(sizes):
        picture = PictureFile.fromarray(labelled[row]["frames"][0]).resize((size, size))
        rows.append({**labelled[row], "frames": np.asarray(picture)[None]})
    batch = FrameCollator(processor, single_face=True)(rows)
    assert torch.equal(batch["pixel_values"], processor([row["frames"][0] for row in rows])["pixel_values"])
    assert batch["rows"].tolist() == [0, 1]


def test_cached_frames_are_jpegs_of_the_crop_s_size(prepared: PreparedData):
    frames = prepared.splits["test"][0]["frames"]
    pictures = [PictureFile.open(io.BytesIO(frame)) for frame in frames]
    assert [(picture.format, picture.size) for picture in pictures] == [("JPEG", (224, 224))] * 4


# --- Scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learn_s(seed: int):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.choice(4, 50, p=[0.05, 0, 0.15, 0.8]), rng.integers(4, size=50)  # class 1 never occurs
    scores = compute_scores(truth, predicted, ("a", "b", "c", "d"))
    macro_f1 = f1_score(truth, predicted, labels=range(4), average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(macro_f1)
    recalls = [np.mean(predicted[truth == label] == label) for label in np.unique(truth)]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert np.trace(scores["confusion_matrix"]) == (truth == predicted).sum()
    assert np.sum(scores["confusion_matrix"], axis=1).tolist() == np.bincount(truth, minlength=4).tolist()


def test_the_majority_is_that_of_the_training_set():
    # On a test set with another majority a baseline that looked at it would be better than is honest.
    truth = np.array([0, 0, 0, 1])
    baseline = majority_baseline([1, 1, 0], truth, ("disengaged", "engaged"))
    assert baseline["predicts"] == "engaged" and baseline["accuracy"] == 0.25
    assert baseline["balanced_accuracy"] == balanced_accuracy_score(truth, [1, 1, 1, 1]) == 0.5
