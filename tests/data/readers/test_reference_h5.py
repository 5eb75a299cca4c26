"""The CNN + LSTM reference's HDF5 caches: what its clips become, and what is not whole refused by name."""

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from engagement_recognition.data.readers.reference_h5 import read_reference_h5
from engagement_recognition.data.readers.sources import detect_kind, read_source
from engagement_recognition.data.schema import binary_label
from engagement_recognition.processor.input_errors import DataError


def write_h5(path: Path, metadata: dict[str, list], sequences: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        file.create_group("metadata")
        for name, values in metadata.items():
            file["metadata"].create_dataset(name, data=values)
        file.create_group("sequences")
        for clip_id, windows in sequences.items():
            file["sequences"].create_dataset(clip_id, data=windows, compression="gzip")
    return path


def windows(value: int = 0, shape: tuple[int, ...] = (2, 8, 12, 12, 3)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def test_the_reference_s_caches_are_read_a_file_a_split(tmp_path: Path):
    for number, name in enumerate(("train", "val", "test"), start=1):
        ids = [f"{number}10001100{clip}" for clip in (2, 3)]
        affects = {"engagement": [0, 3], "boredom": [1, 0], "confusion": [0, 0], "frustration": [0, 0]}
        metadata = {"clip_id": ids, "participant_id": [b"110001", b"110002"], "engagement_binary": [0, 1], **affects}
        write_h5(tmp_path / f"daisee_{name}.h5", metadata, {clip_id: windows(number) for clip_id in ids})
    source = read_reference_h5(tmp_path)
    assert (source.media, source.rejects, len(source.records)) == ("windows", [], 6)
    assert [record.split for record in source.records] == ["test", "test", "train", "train", "validation", "validation"]
    assert [binary_label(record.affects) for record in source.records] == ["disengaged", "engaged"] * 3
    read = pickle.loads(pickle.dumps(source.read))
    assert np.array_equal(read(source.records[2]), windows(1)) and source.records[2].subject_id == "110001"


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ({"three_class_label": [0, 1, 2]}, ["engaged", "bored", "other"]),
        ({"three_class_label": ["other", "Bored", "engaged"]}, ["other", "bored", "engaged"]),
        ({"engagement_binary": [1, 0, 1]}, ["engaged", "disengaged", "engaged"]),
        ({"engagement_binary": [1, 2, 0]}, ["engaged", None, "disengaged"]),
    ],
)
def test_labels_of_the_reference_s_caches_by_name(columns: dict[str, list], labels: list[str | None], tmp_path: Path):
    metadata = {"clip_id": ["a", "b", "c"], "participant_id": [1, 2, 3], **columns}
    source = read_reference_h5(write_h5(tmp_path / "x.h5", metadata, dict.fromkeys("abc", windows())))
    assert [(record.label, record.split) for record in source.records] == [(label, None) for label in labels if label]
    assert [reject.stage for reject in source.rejects] == ["label"] * labels.count(None)


def test_clips_of_a_cache_that_are_not_whole_are_rejects(tmp_path: Path):
    ids = ["good", "fine", "no sequence", "wrong shape", "wrong type", "empty", "odd", "twice", "twice"]
    sequences = dict.fromkeys(("good", "fine", "twice", "no row"), windows()) | {
        "wrong shape": windows(shape=(8, 12, 12, 3)),
        "wrong type": windows().astype(np.float32),
        "empty": windows(shape=(0, 8, 12, 12, 3)),
        "odd": windows(shape=(2, 4, 12, 12, 3)),
    }
    metadata = {"clip_id": ids, "participant_id": ids, "engagement_binary": [1] * len(ids)}
    source = read_reference_h5(write_h5(tmp_path / "train.h5", metadata, sequences))
    assert [record.clip_id for record in source.records] == ["good", "fine", "twice"]
    assert len(source.records) + len(source.rejects) == len(ids) + 1
    stages = {reject.clip_id: reject.stage for reject in source.rejects}
    decode = dict.fromkeys(("wrong shape", "wrong type", "empty", "odd"), "decode")
    assert stages == {"no sequence": "source", "no row": "label", "twice": "label", **decode}


@pytest.mark.parametrize(
    "spoilt", ["text", "cut", "no group", "no column", "lengths", "empty folder", "two of a split"]
)
def test_a_bad_cache_is_refused_in_one_line(spoilt: str, tmp_path: Path):
    metadata = {"clip_id": ["a", "b"], "participant_id": ["1"] if spoilt == "lengths" else ["1", "2"]}
    metadata |= {} if spoilt == "no column" else {"engagement_binary": [0, 1]}
    path = write_h5(tmp_path / "train.h5", metadata, dict.fromkeys("ab", windows()))
    if spoilt in ("text", "cut"):
        path.write_bytes(b"no HDF5" if spoilt == "text" else path.read_bytes()[:-500])
    elif spoilt == "no group":
        with h5py.File(path, "a") as file:
            del file["sequences"]
    elif spoilt == "two of a split":
        shutil.copy(path, tmp_path / "train_2.h5")
    elif spoilt == "empty folder":
        path.unlink()
    with pytest.raises(DataError, match=tmp_path.name) as refusal:
        read_reference_h5(path if path.exists() and spoilt != "two of a split" else tmp_path)
    assert "\n" not in str(refusal.value)


def test_damaged_windows_are_refused_when_they_are_read(tmp_path: Path):
    noise = np.random.default_rng(0).integers(256, size=(2, 8, 12, 12, 3), dtype=np.uint8)
    metadata = {"clip_id": ["a", "b"], "participant_id": ["1", "2"], "engagement_binary": [0, 1]}
    path = write_h5(tmp_path / "train.h5", metadata, {"a": noise, "b": noise})
    content = bytearray(path.read_bytes())
    content[-3000:-2000] = bytes(1000)
    path.write_bytes(content)
    source = read_reference_h5(path)
    with pytest.raises(DataError, match=r"train\.h5"):
        for record in source.records:
            source.read(record)


def test_a_cache_is_known_by_its_suffix_alone_or_in_a_folder(tmp_path: Path):
    ids = [f"1100{person}{clip}" for person in range(10, 15) for clip in range(1001, 1005)]
    metadata = {"clip_id": ids, "participant_id": [clip_id[:6] for clip_id in ids], "engagement_binary": [0, 1] * 10}
    path = write_h5(tmp_path / "all.hdf5", metadata, dict.fromkeys(ids, windows()))
    assert detect_kind(path) == detect_kind(tmp_path) == "reference-h5"
    source = read_source(None, tmp_path)
    assert source.notes.split == "drawn by person (seed 0)" and len(source.records) == 20
