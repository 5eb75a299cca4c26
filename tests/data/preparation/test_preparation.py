"""Sources in, prepared data sets out: nothing lost, nothing twice, and the same result however often it is killed."""

import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import prepare_drawn, prepare_found
from datasets import load_from_disk
from filelock import FileLock
from PIL import Image as PictureFile

from engagement_recognition.data import worker_processes
from engagement_recognition.data.described_data import LabelConflicts
from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.face_signals import SIGNALS, face_signals
from engagement_recognition.data.preparation import prepare as preparation
from engagement_recognition.data.preparation.prepare import describe_counts, plan_of, prepare
from engagement_recognition.data.preparation.prepared_data import FEATURES, PreparedData, is_prepared, load_prepared
from engagement_recognition.data.preparation.settings import FrameOptions, settings_for
from engagement_recognition.data.readers.sources import SourceOptions, read_source
from engagement_recognition.data.schema import SPLITS, LabelledSource
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor

SETTINGS = settings_for("video", FrameOptions(num_frames=4))


@pytest.fixture(scope="module")
def folder(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn clips in DAiSEE's layout, one of them cut in half and one without a face."""
    root = shutil.copytree(drawn_daisee, tmp_path_factory.mktemp("planted") / "daisee")
    first, second = sorted(root.glob("DataSet/Train/*/*/*.avi"))[:2]
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    encode_video(second, iter(np.full((8, 240, 320, 3), 90, np.uint8)), 4, 320, 240, "avi")
    return root


@pytest.fixture(scope="module")
def source(folder: Path) -> LabelledSource:
    return read_source("daisee", folder, SourceOptions())


@pytest.fixture(scope="module")
def prepared(source: LabelledSource, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(source, SETTINGS, folder, tmp_path_factory.mktemp("data") / "daisee", num_processes=1)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "CLIPS_PER_PART", {"video": 4, "picture": 10, "windows": 1})


def rows_of(data: PreparedData) -> dict[str, dict]:
    return {split: rows.to_dict() for split, rows in data.splits.items()}


def clip_ids(data: PreparedData) -> list[str]:
    return [clip_id for rows in data.splits.values() for clip_id in rows["clip_id"]]


# --- What comes out


def test_inputs_are_outputs_and_rejects(prepared: PreparedData, folder: Path):
    description = prepared.description
    videos = {path.stem for path in folder.glob("DataSet/*/*/*/*")}
    assert description.inputs == description.outputs + description.rejects == len(videos) + 1
    rejected = prepared.rejects()
    assert sorted(row["stage"] for row in rejected) == ["decode", "face", "label", "source"]
    assert not {row["clip_id"] for row in rejected} & set(clip_ids(prepared))
    named = [row for row in rejected if row["stage"] in ("decode", "face")]
    assert all(Path(row["path"]).name in row["reason"] for row in named)
    assert describe_counts(description).startswith(f"inputs {len(videos) + 1} = outputs {len(clip_ids(prepared))}")


def test_the_folder_opens_with_datasets_alone(prepared: PreparedData):
    opened = load_from_disk(str(prepared.folder))
    assert list(opened) == list(SPLITS) and opened["train"].features == FEATURES
    row = opened["test"][0]
    frames = [PictureFile.open(io.BytesIO(frame)) for frame in row["frames"]]
    assert [(frame.format, frame.size) for frame in frames] == [("JPEG", (224, 224))] * 4
    assert row["frame_times_sec"] == sorted(row["frame_times_sec"]) and row["found"] == [True] * 4
    shapes = [np.shape(row[name]) for name in ("boxes_xyxy_px", "landmarks_xy_px", "transforms")]
    assert shapes == [(4, 4), (4, 5, 2), (4, 2, 3)]
    assert row["subject_id"] == row["clip_id"][:6] and row["engagement"] in range(4) and row["label"] is None


def test_the_crops_are_those_that_serving_makes(prepared: PreparedData, folder: Path):
    row = prepared.splits["train"][0]
    served = EngagementVideoProcessor(num_frames=4).prepare_clip(folder / row["source_path"])
    stored = np.stack([np.asarray(PictureFile.open(io.BytesIO(frame))) for frame in row["frames"]])
    assert np.abs(stored.astype(int) - served.frames).mean() < 2  # JPEG's loss alone
    assert np.allclose(row["transforms"], served.transforms)
    places = (served.found, served.boxes_xyxy_px, served.landmarks_xy_px, served.frame_times_sec)
    signals = face_signals(served.frames, *places)
    assert {name: row[name] for name in SIGNALS} == pytest.approx(signals, rel=1e-5)
    assert abs(row["yaw_deg"]) < 30 and row["motion_per_sec"] > 0 and 40 < row["face_px"] < 200


def test_the_tables_beside_the_data_agree_with_it(prepared: PreparedData):
    with (prepared.folder / "manifest.csv").open() as file:
        manifest = list(csv.DictReader(file))
    assert sorted(row["clip_id"] for row in manifest) == sorted(clip_ids(prepared))
    assert {row["face_coverage"] for row in manifest} == {"1.000"} and set(manifest[0]) > {"split", "engagement"}
    stored = [row for rows in prepared.splits.values() for row in rows]
    for name in SIGNALS:
        assert [float(row[name]) for row in manifest] == pytest.approx([row[name] for row in stored], rel=1e-5), name
    description = json.loads((prepared.folder / "dataset.json").read_text())
    assert {split: counts["clips"] for split, counts in description["splits"].items()} == {
        split: len(rows) for split, rows in prepared.splits.items()
    }
    assert {"torch", "av"} <= set(description["versions"]) and len(description["fingerprint"]) == 64
    assert not list(prepared.folder.rglob("*.partial")) and not (prepared.folder / "parts").exists()


# --- Killed, repeated, changed


def test_a_second_call_decodes_nothing(
    prepared: PreparedData, source: LabelledSource, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preparation, "prepare_part", None)
    again = prepare(source, SETTINGS, folder, prepared.folder, num_processes=1)
    assert again.fingerprint == prepared.fingerprint


def test_an_interrupted_run_goes_on_and_ends_the_same(
    prepared: PreparedData,
    source: LabelledSource,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_parts: None,
):
    whole_part, started = preparation.prepare_part, []

    def killed_in_the_second(
        clips: list, read: object, media: str, settings: object, parts: Path, start: int, device: object
    ) -> None:
        started.append(start)
        if start == 4 and started.count(4) == 1:
            (parts / f"{start:08}.partial").write_bytes(b"half a table")
            raise OSError("No space left on device")
        whole_part(clips, read, media, settings, parts, start, device)

    monkeypatch.setattr(preparation, "prepare_part", killed_in_the_second)
    with pytest.raises(OSError, match="space"):
        prepare(source, SETTINGS, folder, tmp_path / "data", num_processes=1)
    assert not is_prepared(tmp_path / "data")
    with pytest.raises(DataError, match="to resume"):
        load_prepared(tmp_path / "data")
    resumed = prepare(source, SETTINGS, folder, tmp_path / "data", num_processes=1)
    assert started[:3] == [0, 4, 4]  # what was finished is not done again
    assert rows_of(resumed) == rows_of(prepared)
    assert (resumed.rejects(), resumed.fingerprint) == (prepared.rejects(), prepared.fingerprint)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")),
        pytest.param("spawn", marks=pytest.mark.slow),
    ],
)
def test_several_processes_give_the_same(
    method: str,
    prepared: PreparedData,
    source: LabelledSource,
    folder: Path,
    tmp_path: Path,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
):
    # Spawned, as users' are, each spends seconds on imports.
    monkeypatch.setattr(worker_processes, "get_context", lambda _: get_context(method))
    together = prepare(source, SETTINGS, folder, tmp_path / "data", num_processes=2)
    assert together.fingerprint == prepared.fingerprint and together.rejects() == prepared.rejects()


def test_two_preparations_do_not_share_a_folder(source: LabelledSource, folder: Path, tmp_path: Path):
    with FileLock(tmp_path / "data.lock"), pytest.raises(DataError, match="preparation is running"):
        prepare(source, SETTINGS, folder, tmp_path / "data", num_processes=1)
    assert not (tmp_path / "data").exists()


def test_another_preparation_needs_another_folder(prepared: PreparedData, source: LabelledSource, folder: Path):
    for settings in (replace(SETTINGS, num_frames=5), replace(SETTINGS, face_margin_ratio=0.1)):
        with pytest.raises(DataError, match="another folder"):
            prepare(source, settings, folder, prepared.folder, num_processes=1)
    with pytest.raises(DataError, match="has other content"):
        prepare(source, SETTINGS, folder, folder, num_processes=1)


def test_the_plan_changes_with_what_goes_in(source: LabelledSource, folder: Path, tmp_path: Path):
    plan = plan_of(source, SETTINGS, folder)
    assert plan_of(source, SETTINGS, shutil.copytree(folder, tmp_path / "elsewhere")) == plan
    relabelled = replace(source.records[0], affects={**source.records[0].affects, "engagement": 0, "boredom": 3})
    assert plan_of(replace(source, records=[relabelled, *source.records[1:]]), SETTINGS, folder) != plan
    (tmp_path / "elsewhere" / source.records[3].source_path).write_bytes(b"shorter")
    assert plan_of(source, SETTINGS, tmp_path / "elsewhere") != plan


def test_nothing_usable_is_one_line(prepared: PreparedData, source: LabelledSource, folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match="at least one labelled"):
        prepare(replace(source, records=[]), SETTINGS, folder, tmp_path / "none", num_processes=1)
    lost = {row["clip_id"] for row in prepared.rejects() if row["stage"] == "face"}
    faceless = [record for record in source.records if record.clip_id in lost]
    with pytest.raises(DataError, match="were rejected") as refusal:
        prepare(replace(source, records=faceless, rejects=[]), SETTINGS, folder, tmp_path / "faceless", num_processes=1)
    assert "\n" not in str(refusal.value) and not is_prepared(tmp_path / "faceless")


def test_a_damaged_data_set_is_one_line(prepared: PreparedData, tmp_path: Path):
    for number, name in enumerate(("dataset.json", "dataset_dict.json", "test/state.json")):
        copy = shutil.copytree(prepared.folder, tmp_path / str(number))
        (copy / name).write_text("{cut")
        with pytest.raises(DataError, match=f"{copy}.*prepare it again") as refusal:
            load_prepared(copy)
        assert "\n" not in str(refusal.value)


# --- Windows


def of_one_clip_a_split(folder: Path) -> LabelledSource:
    """The clips in DAiSEE's layout that suffice to look at windows."""
    source = read_source("daisee", folder)
    first = {record.split: record for record in reversed(source.records)}
    return replace(source, records=list(first.values()), rejects=[])


@pytest.mark.parametrize("face_crop", [True, False])
def test_consecutive_windows_at_a_stride(face_crop: bool, drawn_daisee: Path, tmp_path: Path):
    data = prepare_found(of_one_clip_a_split(drawn_daisee), drawn_daisee, tmp_path, sampling="consecutive",
                         num_frames=3, window_stride_frames=2, face_crop=face_crop)  # fmt: skip
    rows = data.splits["test"]  # 8 frames a clip at 4 a second
    assert rows["window_index"][:3] == [0, 1, 2] and len(rows) == 3
    assert [np.round(times, 3).tolist() for times in rows["frame_times_sec"][:2]] == [[0, 0.25, 0.5], [0.5, 0.75, 1]]
    windows = data.description.windows
    assert windows.inputs == windows.outputs == 3 * data.description.outputs
    assert (rows[0]["found"] is not None) == face_crop
    clip = EngagementVideoProcessor(num_frames=3, sampling="consecutive", face_crop=face_crop).prepare_clip(
        drawn_daisee / rows[1]["source_path"], start_frame=2
    )
    stored = np.stack([np.asarray(PictureFile.open(io.BytesIO(frame))) for frame in rows[1]["frames"]])
    assert np.abs(stored.astype(int) - clip.frames).mean() < 2


def test_a_clip_shorter_than_its_window_gives_one(drawn_daisee: Path, tmp_path: Path):
    source = of_one_clip_a_split(drawn_daisee)
    data = prepare_found(source, drawn_daisee, tmp_path, sampling="consecutive", num_frames=12, face_crop=False)
    times = data.splits["test"][0]["frame_times_sec"]
    assert len(times) == 12 and times[7:] == [1.75] * 5 and set(data.splits["test"]["window_index"]) == {0}


def test_a_window_without_a_face_is_its_own_reject(drawn_daisee: Path, tmp_path: Path):
    root = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    video = min(root.glob("DataSet/Test/*/*/*.avi"))
    seen = EngagementVideoProcessor(num_frames=8).prepare_clip(video).whole_frames
    frames = np.concatenate([seen[:4], np.full((4, 240, 320, 3), 90, np.uint8)])
    encode_video(video, iter(frames), 4, 320, 240, "avi")
    source, windows = of_one_clip_a_split(root), {"num_frames": 4, "window_stride_frames": 4}
    data = prepare_found(source, root, tmp_path / "data", sampling="consecutive", **windows)
    rejected = [row for row in data.rejects() if row["stage"] == "face"]
    assert [(row["clip_id"], row["window_index"]) for row in rejected] == [(video.stem, "1")]
    assert video.stem in clip_ids(data)
    counts = data.description
    assert counts.inputs == counts.outputs + counts.rejects
    assert counts.windows.inputs == counts.windows.outputs + 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"sampling": "random"}, "got random with stride None."),
        ({"window_stride_frames": 4}, "got uniform with stride 4."),
        ({"num_frames": 0}, "Expected num_frames of at least 1, got 0."),
        ({"face_crop_size_px": -1}, "Expected face_crop_size_px of at least 1, got -1."),
        ({"sampling": "consecutive", "window_stride_frames": 0}, "Expected window_stride_frames of at least 1, got 0."),
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict, words: str):
    with pytest.raises(RecipeError) as refused:
        settings_for("video", FrameOptions(**bad))
    assert str(refused.value).endswith(words)  # what is wrong, and nothing of what is right


# --- Pictures


def test_pictures_are_kept_as_they_are(drawn_expressions: Path, tmp_path: Path):
    data = prepare_drawn(drawn_expressions, tmp_path)
    row = data.splits["test"][0]
    assert row["frames"] == [(drawn_expressions / row["source_path"]).read_bytes()] and row["found"] is None
    assert row["label"] in row["source_path"] and data.description.media == "picture"


def test_a_turned_or_large_picture_is_stored_upright_and_small(drawn_expressions: Path, tmp_path: Path):
    root = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    path = min(root.glob("test/happy/*.png"))
    picture = PictureFile.open(path).resize((1200, 800))
    exif = PictureFile.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()
    data = prepare_drawn(root, tmp_path / "data")
    row = next(row for row in data.splits["test"] if row["source_path"].endswith(".jpg"))
    assert PictureFile.open(io.BytesIO(row["frames"][0])).size == (341, 512)


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint16), (".tif", np.int32)])
def test_a_16_bit_picture_keeps_its_greys(suffix: str, dtype: type, drawn_expressions: Path, tmp_path: Path):
    # PIL's own conversion cuts every value above 255 to white.
    root = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    path = min(root.glob("test/happy/*.png"))
    grey = np.asarray(PictureFile.open(path).convert("L"))
    path.unlink()
    PictureFile.fromarray(grey.astype(dtype) * 257).save(path.with_suffix(suffix))
    row = next(row for row in prepare_drawn(root, tmp_path / "data").splits["test"] if path.stem in row["source_path"])
    stored = np.asarray(PictureFile.open(io.BytesIO(row["frames"][0])).convert("L")).astype(int)
    assert np.abs(stored - grey).mean() < 2


def test_faces_are_cut_out_of_photos_on_request(drawn_daisee: Path, tmp_path: Path):
    for number, video in enumerate(sorted(drawn_daisee.glob("DataSet/*/*/*/*"))[:6]):
        photo = EngagementVideoProcessor(num_frames=1).prepare_clip(video).whole_frames[0]
        path = tmp_path / "photos" / ("bored" if number % 2 else "engaged") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        PictureFile.fromarray(photo).save(path, quality=95)
    PictureFile.new("RGB", (320, 240), "grey").save(tmp_path / "photos/bored/nobody.png")
    data = prepare_drawn(tmp_path / "photos", tmp_path / "data", face_crop=True, face_crop_size_px=96)
    assert [(row["stage"], row["clip_id"]) for row in data.rejects()] == [("face", "bored/nobody.png")]
    assert "nobody.png" in data.rejects()[0]["reason"]
    row = next(iter(data.splits.values()))[0]
    assert PictureFile.open(io.BytesIO(row["frames"][0])).size == (96, 96) and len(row["boxes_xyxy_px"]) == 1


def test_an_unreadable_picture_is_a_reject(drawn_expressions: Path, tmp_path: Path):
    root = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    (root / "train/angry/empty.png").write_bytes(b"")
    (root / "train/angry/text.png").write_text("a text")
    data = prepare_drawn(root, tmp_path / "data")
    rejected = data.rejects()
    assert [row["stage"] for row in rejected] == ["decode", "decode"]
    assert [Path(row["path"]).name in row["reason"] for row in rejected] == [True, True]


def test_conflicting_labels_are_counted_and_dropped_on_request(drawn_expressions: Path, tmp_path: Path):
    root = shutil.copytree(drawn_expressions, tmp_path / "pictures")
    shutil.copy(min(root.glob("train/happy/*.png")), root / "train/sad/again.png")
    shutil.copy(min(root.glob("train/fear/*.png")), root / "train/fear/again.png")  # the same label: no conflict
    kept = prepare_drawn(root, tmp_path / "kept")
    assert kept.description.label_conflicts == LabelConflicts(groups=1, pictures=2, dropped=False)
    dropped = prepare_drawn(root, tmp_path / "dropped", drop_conflicts=True)
    assert [row["stage"] for row in dropped.rejects()] == ["conflict", "conflict"]
    counts = dropped.description
    assert counts.inputs == counts.outputs + counts.rejects == kept.description.outputs
    assert dropped.fingerprint != kept.fingerprint


# --- The reference's HDF5 windows


def test_reference_windows_come_in_as_they_are(tmp_path: Path):
    rng = np.random.default_rng(0)
    stored = {}
    for split in ("train", "val", "test"):
        with h5py.File(tmp_path / f"{split}.h5", "w") as file:
            names = [f"{split}{number}" for number in range(2)]
            for name in names:
                small = rng.integers(256, size=(2, 8, 14, 14, 1), dtype=np.uint8).repeat(3, axis=4)
                stored[name] = small.repeat(8, axis=2).repeat(8, axis=3)  # (2, 8, 112, 112, 3), smooth as pictures are
                file.create_dataset(f"sequences/{name}", data=stored[name], compression="gzip", compression_opts=4)
            columns = {"clip_id": names, "participant_id": names, "engagement_binary": [0, 1]}
            for column, values in columns.items():
                file[f"metadata/{column}"] = values
    data = prepare_drawn(tmp_path, tmp_path / "data")
    rows = data.splits["validation"]
    assert rows["clip_id"] == ["val0", "val0", "val1", "val1"] and rows["window_index"] == [0, 1, 0, 1]
    assert rows["label"] == ["disengaged"] * 2 + ["engaged"] * 2
    frames = np.stack([np.asarray(PictureFile.open(io.BytesIO(frame))) for frame in rows[1]["frames"]])
    assert frames.shape == (8, 112, 112, 3) and np.abs(frames.astype(int) - stored["val0"][1]).mean() < 4
