"""A job in shards ends as one run would have ended; shards that do not belong together are not joined."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import TrainedStages, prepare_drawn, prepare_found
from datasets import load_from_disk
from PIL import Image
from places import ROOT
from typer.testing import CliRunner, Result

from engagement_recognition.cli.main import app
from engagement_recognition.data.checksums import what_changed
from engagement_recognition.data.drawn.call import Stay, write_call
from engagement_recognition.data.preparation.join import join_shards, prepare_shard
from engagement_recognition.data.preparation.prepared_data import PreparedData
from engagement_recognition.data.preparation.settings import FrameOptions, settings_for
from engagement_recognition.data.readers.sources import read_source
from engagement_recognition.data.schema import LabelledSource
from engagement_recognition.data.shards import SHARD_FILE, Shard, read_shards
from engagement_recognition.inference.devices import choose_device
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.studies.scale import ScaleRecord, costs_table, scale_table

Type = Callable[..., Result]


pytestmark = pytest.mark.usefixtures("one_reader")


@pytest.fixture
def faces(drawn_expressions: Path, tmp_path: Path) -> Path:
    """Pictures in class folders; two are the same with different labels, one is broken."""
    folder = shutil.copytree(drawn_expressions, tmp_path / "faces")
    pictures = sorted(folder.glob("train/*/*.png"))
    happy, sad = (next(path for path in pictures if path.parent.name == name) for name in ("happy", "sad"))
    shutil.copy(happy, sad)
    pictures[0].write_bytes(b"no picture")
    return folder


@pytest.fixture
def type_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Type:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def prepare_in_shards(
    source: Path, output: Path, count: int, drop_conflicts: bool = False, found: LabelledSource | None = None
) -> None:
    found = found or read_source(None, source)
    settings, device = settings_for(found.media, FrameOptions()), choose_device("cpu")
    for number in range(1, count + 1):
        prepare_shard(found, settings, source, output, Shard(number, count), 1, drop_conflicts, device)


def told(data: PreparedData) -> dict[str, object]:
    """All that is known of a data set."""
    rejects = sorted(map(str, data.rejects()))
    return data.description.model_dump() | {"rows of rejects": rejects, "changed": what_changed(data.folder)}


# --- Preparation


@pytest.mark.parametrize(("count", "drop_conflicts"), [(2, False), (3, True)])
def test_joined_shards_are_what_one_run_makes(faces: Path, tmp_path: Path, count: int, drop_conflicts: bool):
    whole = prepare_drawn(faces, tmp_path / "whole", drop_conflicts)
    prepare_in_shards(faces, tmp_path / "shards", count, drop_conflicts)
    joined = join_shards(tmp_path / "shards", tmp_path / "joined")
    assert told(joined) == told(whole)
    assert joined.description.label_conflicts.groups == 1  # seen although its pictures may lie in two shards
    rows = load_from_disk(str(joined.folder))
    assert {split: rows[split]["frames"][:] for split in rows} == {
        split: table["frames"][:] for split, table in whole.splits.items()
    }


def test_a_shard_may_be_empty(faces: Path, tmp_path: Path):
    kept = {min(faces.glob(f"{split}/{label}/*.png")) for split in ("train", "test") for label in ("happy", "sad")}
    for path in {*faces.glob("*/*/*.png")} - kept:
        path.unlink()
    count = len(kept) + 1
    prepare_in_shards(faces, tmp_path / "shards", count)
    assert told(join_shards(tmp_path / "shards", tmp_path / "all")) == told(prepare_drawn(faces, tmp_path / "whole"))


def test_windows_of_videos_too(drawn_daisee: Path, tmp_path: Path):
    found = read_source("daisee", drawn_daisee)
    found = replace(found, records=found.records[::4])
    whole = prepare_found(found, drawn_daisee, tmp_path / "whole")
    prepare_in_shards(drawn_daisee, tmp_path / "shards", 2, found=found)
    joined = join_shards(tmp_path / "shards", tmp_path / "joined")
    assert told(joined) == told(whole)
    assert (joined.folder / "manifest.csv").read_text() == (whole.folder / "manifest.csv").read_text()


def test_tables_are_linked_where_they_can_be(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_in_shards(faces, tmp_path / "shards", 2)
    linked = join_shards(tmp_path / "shards", tmp_path / "linked")
    assert {path.stat().st_nlink for path in linked.folder.glob("*/*.arrow")} == {2}

    def refuse(*paths: Path) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    assert told(join_shards(tmp_path / "shards", tmp_path / "copied")) == told(linked)


def test_a_join_that_was_killed_is_done_again(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_in_shards(faces, tmp_path / "shards", 2)
    with monkeypatch.context() as killing:
        killing.setattr("engagement_recognition.data.preparation.join.current_fingerprint", lambda splits: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            join_shards(tmp_path / "shards", tmp_path / "joined")
    assert told(join_shards(tmp_path / "shards", tmp_path / "joined")) == told(prepare_drawn(faces, tmp_path / "whole"))


def test_the_command(faces: Path, type_command: Type):
    for number in (1, 2):
        assert type_command("prepare", "images", faces, "--shard", f"{number}/2", "--output", "s").exit_code == 0
    assert "next: engagement audit all" in type_command("prepare", "--join", "s", "--output", "all").output
    assert type_command("audit", "all").exit_code in (0, 1)


# --- Shards that do not belong together


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/2/3"])
def test_a_number_out_of_range_is_refused(text: str):
    with pytest.raises(RecipeError, match="--shard NUMBER/COUNT"):
        Shard.parse(text)


def test_all_shares_together_are_all_inputs_in_order():
    for num_inputs in range(9):
        shares = [Shard(number, 4).share(range(num_inputs)) for number in range(1, 5)]
        assert [item for share in shares for item in share] == list(range(num_inputs))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_keeps_shards_from_being_joined(faces: Path, tmp_path: Path):
    shards = tmp_path / "shards"
    with pytest.raises(DataError, match="no shards"):
        join_shards(shards, tmp_path / "joined")
    prepare_in_shards(faces, shards, 3)
    second = Shard(2, 3).folder(shards) / SHARD_FILE
    record = json.loads(second.read_text())

    def refused(**changes: object) -> str:
        second.write_text(json.dumps(record | changes))
        with pytest.raises(DataError) as raised:
            join_shards(shards, tmp_path / "joined")
        return str(raised.value)

    said = refused(inputs="0")
    assert "shard-00002-of-00003" in said and "shard-00001-of-00003" in said and "run all shards again" in said
    said = refused(made_with=record["made_with"] | {"torch": "9"})
    assert f"torch: {record['made_with']['torch']} in shard-00001-of-00003" in said
    assert "9 in shard-00002-of-00003" in said and "run the ones that differ again" in said
    assert "engagement predict" in refused(job="predict")
    assert "an unknown key more" in refused(more=1)
    second.unlink()
    with pytest.raises(DataError, match=r"missing or not finished: 2;"):
        join_shards(shards, tmp_path / "joined")
    Shard(1, 4).folder(shards).mkdir()
    with pytest.raises(DataError, match=r"shards of 3 .*shards of 4; move"):
        join_shards(shards, tmp_path / "joined")


def test_shards_of_a_source_that_changed_are_not_joined(faces: Path, tmp_path: Path):
    prepare_in_shards(faces, tmp_path / "shards", 2)
    shutil.rmtree(Shard(2, 2).folder(tmp_path / "shards"))
    sorted(faces.glob("test/*/*.png"))[0].unlink()
    found = read_source(None, faces)
    settings, device = settings_for(found.media, FrameOptions()), choose_device("cpu")
    prepare_shard(found, settings, faces, tmp_path / "shards", Shard(2, 2), 1, False, device)
    with pytest.raises(DataError, match="have changed between them"):
        join_shards(tmp_path / "shards", tmp_path / "joined")


def test_where_nothing_came_out_there_is_nothing_to_join(faces: Path, tmp_path: Path):
    for path in faces.rglob("*.png"):
        path.write_bytes(b"no picture")
    prepare_in_shards(faces, tmp_path / "shards", 2)
    with pytest.raises(DataError, match="all were rejected"):
        join_shards(tmp_path / "shards", tmp_path / "joined")


# --- Predictions and sessions


def test_answers_of_shards_are_those_of_one_run(trained: TrainedStages, faces: Path, type_command: Type):
    inputs = [*sorted(faces.glob("test/*/*.png"))[:5], "missing.png"]
    options = ("--model", trained.expression, "--faces", "--device", "cpu", "--output")
    assert type_command("predict", *inputs, *options, "one.csv").exit_code == 1
    for number in (1, 2, 3):
        type_command("predict", *inputs, *options, "shards", "--shard", f"{number}/3")
    for suffix in ("csv", "jsonl", "parquet"):
        done = type_command("predict", "--join", "shards", "--output", f"joined.{suffix}")
        assert done.exit_code == 1 and "6 files, 1 of them refused" in done.output
    with Path("joined.csv").open() as joined, Path("one.csv").open() as one:
        for row, expected in zip(csv.DictReader(joined), csv.DictReader(one), strict=True):
            scores = {name: pytest.approx(float(value)) for name, value in expected.items() if is_score(name, value)}
            assert row == {**expected, **{name: row[name] for name in scores}}
            assert {name: float(row[name]) for name in scores} == scores
    assert len(Path("joined.jsonl").read_text().splitlines()) == 6
    table = pyarrow.parquet.read_table("joined.parquet")
    assert table.column_names == Path("one.csv").read_text().splitlines()[0].split(",")
    assert table["error"].null_count == 5
    assert "exists already" in type_command("predict", "--join", "shards", "--output", "one.csv").exception.args[0]


def is_score(name: str, value: str) -> bool:
    """What may differ in the last bit from one run to the next."""
    return bool(value) and name.startswith(("score/", "certainty"))


def test_shards_of_two_models_are_not_joined(trained: TrainedStages, faces: Path, type_command: Type):
    picture = next(faces.rglob("test/*/*.png"))
    for number, more in ((1, ()), (2, ("--abstain-below", "0.9"))):
        options = ("--model", trained.expression, "--faces", "--shard", f"{number}/2", "--output", "shards")
        type_command("predict", picture, picture.with_name("b.png"), *options, *more)
    with pytest.raises(DataError, match="model and settings"):
        read_shards(Path("shards"), "predict")


@pytest.mark.parametrize("num_films", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_sessions_of_shards_are_those_of_one(
    trained: TrainedStages, tmp_path: Path, type_command: Type, num_films: int
):
    for name in ("a.mp4", "b.mp4")[:num_films]:
        write_call(tmp_path / name, [Stay(name, 1, 0, 0, 10)], 10, columns=1)
    Image.new("RGB", (9, 9)).save(tmp_path / "c.mp4", "PNG")
    options = ("a.mp4", "b.mp4", "c.mp4", "--model", trained.expression, "--device", "cpu", "--output")
    assert type_command("session", *options, "one").exit_code == (1 if num_films else 2)
    for number in (1, 2, 3, 4):
        type_command("session", *options, "shards", "--shard", f"{number}/4")
    assert f"tables of {num_films} recordings" in type_command("session", "--join", "shards", "--output", "all").output
    for name in ("windows.csv", "people.csv", "refused.csv"):
        assert Path("all", name).read_text() == Path("one", name).read_text()
    one, joined = (pyarrow.parquet.read_table(Path(folder, "windows.parquet")) for folder in ("one", "all"))
    assert joined.equals(one) and bool(len(one)) == bool(num_films)


# --- Options


def test_options_that_do_not_go_together_are_one_line(type_command: Type):
    for words in (
        ("prepare", "--output", "x"),
        ("predict",),
        ("session", "--output", "x"),
        ("prepare", "images", ".", "--join", "s", "--output", "x"),
        ("predict", "a.mp4", "--shard", "1/2"),
        ("predict", "--join", "s"),
    ):
        assert isinstance(type_command(*words).exception, RecipeError), words


def test_the_page_has_the_costs_that_were_measured():
    record = ScaleRecord.model_validate_json((ROOT / "docs/measured/scale/scale.json").read_text())
    page = (ROOT / "docs/scale.md").read_text()
    assert scale_table(record) in page and costs_table(record) in page
