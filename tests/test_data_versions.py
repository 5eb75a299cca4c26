"""Prepared data of an earlier version: read where somebody names it, prepared again where it lies in the cache."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import DatasetDict
from drawn_leaks import people_apart, write_rows

from engagement_recognition.data.audit.leakage import audit
from engagement_recognition.data.audit.resplit import suggest_split
from engagement_recognition.data.open_data import DataOptions, open_or_prepare
from engagement_recognition.data.preparation.description import DATA_VERSION
from engagement_recognition.data.preparation.prepared_data import FEATURES, PreparedData, load_prepared


def as_version_2(data: PreparedData, folder: Path) -> Path:
    """The same data as version 2 wrote it: without soft labels."""
    DatasetDict({split: rows.remove_columns("label_scores") for split, rows in data.splits.items()}).save_to_disk(
        folder
    )
    for name in ("rejects.csv", "manifest.csv"):
        (folder / name).write_bytes((data.folder / name).read_bytes())
    description = json.loads((data.folder / "dataset.json").read_text()) | {"version": 2}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_version_2_loads_and_is_written_anew_as_the_latest(tmp_path: Path):
    data = write_rows(people_apart(count=2), tmp_path / "new")
    old = load_prepared(as_version_2(data, tmp_path / "old"))
    assert old.fingerprint == data.fingerprint and old.description.version == 2
    assert set(old.splits["train"].features) == set(FEATURES) and set(old.splits["train"]["label_scores"]) == {None}
    again = suggest_split(old, audit(old), tmp_path / "again")
    assert again.description.version == DATA_VERSION and again.splits["train"].features == FEATURES


def test_an_older_cache_is_prepared_again_with_one_line(
    drawn_expressions: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    options = DataOptions(drawn_expressions, cache_dir=tmp_path / "cache", num_processes=1)
    first = open_or_prepare(options)
    older = as_version_2(first, tmp_path / "cache/images-0123456789ab")
    shutil.rmtree(first.folder)
    capsys.readouterr()
    assert open_or_prepare(options).description.version == DATA_VERSION
    told = [line for line in capsys.readouterr().out.splitlines() if "prepared again" in line]
    assert len(told) == 1 and str(older) in told[0] and "version 2" in told[0]
    open_or_prepare(options)
    assert "prepared again" not in capsys.readouterr().out
