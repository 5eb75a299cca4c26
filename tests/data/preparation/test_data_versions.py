"""Prepared data of an earlier version: read where somebody names it, prepared again where it lies in the cache."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Features
from datasets.arrow_writer import ArrowWriter
from drawn_leaks import people_apart, write_rows

from engagement_recognition.data.audit.leakage import audit
from engagement_recognition.data.audit.resplit import suggest_split
from engagement_recognition.data.face_signals import SIGNALS
from engagement_recognition.data.open_data import DataOptions, open_or_prepare
from engagement_recognition.data.preparation import prepare as preparation
from engagement_recognition.data.preparation.description import DATA_VERSION
from engagement_recognition.data.preparation.prepared_data import FEATURES, PreparedData, load_prepared
from engagement_recognition.data.preparation.settings import FrameOptions

ADDED = {2: ["label_scores", *SIGNALS], 3: list(SIGNALS)}  # since each version


def as_version(version: int, data: PreparedData, folder: Path) -> Path:
    """The same data as an earlier version wrote it: without the columns that came later."""
    old = {split: rows.remove_columns(ADDED[version]) for split, rows in data.splits.items()}
    DatasetDict(old).save_to_disk(folder)
    for path in data.folder.glob("*.*"):
        if path.name != "audit.json":
            (folder / path.name).write_bytes(path.read_bytes())
    description = json.loads((data.folder / "dataset.json").read_text()) | {"version": version}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize("version", [2, 3])
def test_an_earlier_version_loads_and_is_written_anew_as_the_latest(version: int, tmp_path: Path):
    data = write_rows(people_apart(count=2), tmp_path / "new")
    old = load_prepared(as_version(version, data, tmp_path / "old"))
    assert old.fingerprint == data.fingerprint and old.description.version == version
    rows = old.splits["train"]
    assert rows.features == FEATURES and {value for name in ADDED[version] for value in rows[name]} == {None}
    assert rows[0]["frames"] == data.splits["train"][0]["frames"]
    again = suggest_split(old, audit(old), tmp_path / "again")
    assert again.description.version == DATA_VERSION and again.splits["train"].features == FEATURES


def test_an_older_cache_is_prepared_again_with_one_line(
    drawn_expressions: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    options = DataOptions(drawn_expressions, cache_dir=tmp_path / "cache", num_processes=1)
    first = open_or_prepare(options)
    older = as_version(2, first, tmp_path / "cache/images-0123456789ab")
    shutil.rmtree(first.folder)
    capsys.readouterr()
    assert open_or_prepare(options).description.version == DATA_VERSION
    told = [line for line in capsys.readouterr().out.splitlines() if "prepared again" in line]
    assert len(told) == 1 and str(older) in told[0] and "version 2" in told[0]
    open_or_prepare(options)
    assert "prepared again" not in capsys.readouterr().out


def test_a_cache_of_version_3_is_used_as_it_is(
    drawn_expressions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    # Training reads nothing that version 4 added: hours of decoding would change nothing.
    options = DataOptions(drawn_expressions, cache_dir=tmp_path / "cache", num_processes=1)
    first = open_or_prepare(options)
    older = as_version(3, first, tmp_path / "version 3")
    shutil.rmtree(first.folder)
    shutil.copytree(older, first.folder)
    monkeypatch.setattr(preparation, "prepare_part", None)
    again = open_or_prepare(options)
    assert again.description.version == 3 and again.fingerprint == first.fingerprint
    assert "prepared again" not in capsys.readouterr().out


def test_what_version_3_began_is_gone_on_with(
    drawn_expressions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(preparation, "CLIPS_PER_PART", {"picture": 40})
    whole_part = preparation.prepare_part

    def ended_by_version_3(*arguments: object) -> None:
        """The first part lacks what came later, and the second is never begun."""
        parts, start = arguments[4:6]
        if start:
            raise KeyboardInterrupt
        whole_part(*arguments)
        table = parts / f"{start:08}.arrow"
        rows = Dataset.from_file(str(table)).remove_columns(ADDED[3]).to_list()
        features = Features({name: kind for name, kind in FEATURES.items() if name not in SIGNALS})
        with ArrowWriter(path=str(table), features=features) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()

    options = DataOptions(
        drawn_expressions, frames=FrameOptions(face_crop=True), cache_dir=tmp_path / "cache", num_processes=1
    )
    monkeypatch.setattr(preparation, "prepare_part", ended_by_version_3)
    with pytest.raises(KeyboardInterrupt):
        open_or_prepare(options)
    monkeypatch.setattr(preparation, "prepare_part", whole_part)
    data = open_or_prepare(options)
    sizes = [size for rows in data.splits.values() for size in rows["face_px"]]
    assert data.description.version == DATA_VERSION and data.splits["train"].features == FEATURES
    assert 0 < sizes.count(None) < len(sizes) == data.description.outputs
