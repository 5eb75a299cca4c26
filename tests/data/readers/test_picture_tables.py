"""Tables of pictures: told from other tables, read singly or as windows of frames in order, bad rows rejected."""

import csv
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import Command, prepare_found
from datasets import ClassLabel, Dataset, Features
from datasets import Image as Picture
from places import REAL_DATA
from small_files import picture, write_parquet

from engagement_recognition.data.audit.leakage import audit
from engagement_recognition.data.audit.page import describe_verdict
from engagement_recognition.data.preparation.picture_codec import decode_picture
from engagement_recognition.data.preparation.settings import FrameOptions
from engagement_recognition.data.readers.sources import SourceOptions, detect_kind, read_source
from engagement_recognition.data.schema import AFFECTS, EXPRESSIONS, SPLITS, LabelledSource
from engagement_recognition.processor.input_errors import DataError, RecipeError

TWO = FrameOptions(num_frames=2)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], draw: bool = True) -> Path:
    """A table, and the pictures that its paths name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for number, row in enumerate(rows if draw else []):
        (path.parent / str(row["path"])).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / str(row["path"])).write_bytes(picture(number))
    return path


def frame_rows(
    indices: Sequence[int], labels: Sequence[str] | None = None, person: str = "ann"
) -> list[dict[str, object]]:
    """Rows of one person's frames."""
    return [
        {"path": f"{person}/{i}.png", "label": label, "subject_id": person, "frame_index": i}
        for i, label in zip(indices, labels or ["a"] * len(indices), strict=True)
    ]


def read(path: Path, frames: FrameOptions = TWO, **options: object) -> LabelledSource:
    return read_source(None, path, SourceOptions(**options), frames)


# --- Which table is what


def test_a_table_is_told_by_its_columns(tmp_path: Path):
    people = ["ann", "bob"]
    names = Features({"image": Picture(), "label": ClassLabel(names=list(EXPRESSIONS))})
    fer = Dataset.from_dict({"image": [{"bytes": picture(1)}], "label": [3]}, features=names)
    fer.to_parquet(tmp_path / "fer/test.parquet")
    numbers = range(len(EXPRESSIONS))
    videos = write_csv(tmp_path / "videos.csv", [{"path": "a.mp4", "label": "x", "subject_id": "ann"}], draw=False)
    expected = {
        tmp_path / "fer": "fer2013",
        write_parquet(
            tmp_path / "numbers.parquet", image=[picture(i) for i in numbers], label=list(numbers)
        ): "fer2013",
        write_parquet(tmp_path / "two.parquet", image=[picture(1), picture(2)], label=[0, 1]): "images",
        write_parquet(
            tmp_path / "own.parquet", image=[picture(1), picture(2)], label=[0, 1], subject_id=people
        ): "images",
        write_parquet(tmp_path / "paths.parquet", path=["a.png"], engagement=[1]): "images",
        write_csv(tmp_path / "pictures.csv", [{"path": "a.png", "label": "x", "subject_id": "ann"}]): "images",
        videos: "videos",
    }
    assert {path: detect_kind(path) for path in expected} == expected


def test_a_table_of_another_kind_names_what_is_expected_and_what_is_there(tmp_path: Path):
    table = write_parquet(tmp_path / "other.parquet", text=["hello"], score=[1.0])
    with pytest.raises(DataError) as refusal:
        read(table)
    told = str(refusal.value)
    assert all(word in told for word in ("other.parquet", "image or bytes or path", *AFFECTS, "text, score"))
    assert "\n" not in told


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_people_are_named_or_said_to_be_unknown(kind: str, tmp_path: Path):
    if kind == "csv":
        table = write_csv(tmp_path / "t.csv", [{"path": f"{i}.png", "label": "ab"[i % 2]} for i in range(6)])
    else:
        table = write_parquet(tmp_path / "t.parquet", image=[picture(i) for i in range(6)], label=["a", "b"] * 3)
    with pytest.raises(DataError, match=r"column subject_id.*--no-subjects.*no_subjects: true"):
        read(table)
    found = read(table, no_subjects=True)
    assert {record.subject_id for record in found.records} == {None} and found.notes.no_subjects
    prepared = prepare_found(found, table, tmp_path / "out")
    assert prepared.description.notes.no_subjects and prepared.description.splits["train"].subjects == 0


def test_what_cannot_go_with_a_kind_is_one_line(tmp_path: Path):
    table = write_csv(tmp_path / "t.csv", frame_rows([1, 2, 3]))
    bad = [{"votes": tmp_path / "v.csv"}, {"vote_labels": "soft"}, {"pictures_as": "films"}, {"subject_pattern": "x"}]
    for options in [*bad, {"window_label": "median"}, {"window_label": "mean"}]:
        with pytest.raises(RecipeError):
            read(table, **options)
    folder = tmp_path / "folders"
    for label in "ab":
        write_csv(folder / f"{label}/none.csv", [{"path": "1.png"}])
    with pytest.raises(RecipeError, match="no_subjects"):
        read(folder, no_subjects=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--as", "pictures", "--frames", "2"], "or pass --as clips"),
        (["--as", "pictures", "--window-label", "last"], "or pass --as clips"),
        (["--sampling", "uniform"], "use --sampling consecutive"),
    ],
)
def test_options_of_the_command_that_do_not_fit_are_one_line(
    options: list[str], words: str, tmp_path: Path, engagement: Command
):
    table = write_csv(tmp_path / "t.csv", frame_rows([1, 2, 3]))
    code, _, said = engagement("prepare", "images", table, "--output", tmp_path / "out", *options)
    (line,) = said.splitlines()
    assert code == 2 and line.startswith("error: ") and words in line and not (tmp_path / "out").exists()


# --- Single pictures


def test_pictures_of_a_folder_of_tables_keep_their_splits_ratings_and_pixels(tmp_path: Path):
    contents = [{"bytes": picture(1), "path": None}, {"bytes": picture(2, (9, 9), grey=True), "path": None}]
    for split in SPLITS:
        columns = {"subject_id": [f"{split} ann", f"{split} bob"], "clip_id": [f"{split} 1", f"{split} 2"]}
        levels = {name: [0, 3] for name in AFFECTS}
        write_parquet(tmp_path / f"data/{split}.parquet", image=contents, **columns, **levels)
    found = read(tmp_path / "data")
    assert found.media == "picture" and found.notes.split == "the source's own" and found.rejects == []
    prepared = prepare_found(pickle.loads(pickle.dumps(found)), tmp_path / "data", tmp_path / "out")
    train = prepared.splits["train"]
    assert (
        train["clip_id"][:] == ["train 1", "train 2"]
        and train["engagement"][:] == [0, 3]
        and train["label"][:] == [None, None]
    )
    first, second = (decode_picture(row["frames"][0]) for row in train)
    assert first.shape == (12, 16, 3) and second.shape == (9, 9, 3)  # as they came, grey ones in three equal channels
    assert (second[..., 0] == second[..., 2]).all() and prepared.label_schemes[0] == "binary"


def test_a_table_that_says_test_alone_gets_no_other_split(tmp_path: Path):
    rows = [{**row, "split": "test"} for row in frame_rows([0, 1, 2, 3], ["a", "b", "a", "b"])]
    for table in (write_csv(tmp_path / "t.csv", rows), write_csv(tmp_path / "test.csv", frame_rows([0, 1, 2]))):
        found = read(table, pictures_as="pictures")
        assert {record.split for record in found.records} == {"test"} and "no train" in found.notes.split
    prepared = prepare_found(found, table, tmp_path / "out")
    assert list(prepared.splits) == ["test"]
    assert "Train is empty; validation is empty" in next(
        finding.summary for finding in audit(prepared).findings if finding.name == "split contents"
    )


@pytest.mark.parametrize(
    ("row", "stage", "told"),
    [
        ({"label": ""}, "label", "value for label"),
        ({"subject_id": ""}, "table", "value for subject_id"),
        ({"path": ""}, "source", "no picture"),
        ({"path": "gone.png"}, "source", "no picture"),
        ({"path": "../outside.png"}, "source", "below the table's folder"),
        ({"path": "/etc/hostname"}, "source", "below the table's folder"),
        ({"path": "x" * 300 + ".png"}, "source", "no picture"),
        ({"split": "lost"}, "table", "split as train"),
        ({"split": ""}, "table", "split as train"),
    ],
)
def test_a_bad_row_is_a_reject(row: dict[str, object], stage: str, told: str, tmp_path: Path):
    rows = [
        {"path": f"{i}.png", "label": "ab"[i % 2], "subject_id": f"p{i}", "split": "train", "clip_id": str(i)}
        for i in range(4)
    ]
    (tmp_path / "outside.png").write_bytes(picture(0))
    table = write_csv(tmp_path / "set/t.csv", rows)
    write_csv(table, [*rows[:3], {**rows[3], **row}], draw=False)
    found = read(table)
    assert len(found.records) + len(found.rejects) == 4
    assert {(reject.stage, told in reject.reason) for reject in found.rejects} == {(stage, True)}
    assert all("t.csv" in reject.reason for reject in found.rejects)


def test_a_broken_picture_is_a_reject(tmp_path: Path):
    table = write_parquet(
        tmp_path / "t.parquet",
        image=[picture(0), b"no picture"],
        label=["a", "b"],
        subject_id=["p", "q"],
        split=["test"] * 2,
    )
    prepared = prepare_found(read(table), table, tmp_path / "out")
    (reject,) = prepared.rejects()
    assert reject["stage"] == "decode" and "t.parquet#1" in reject["reason"]
    assert prepared.description.inputs == 2 == prepared.description.outputs + prepared.description.rejects


# --- Frames in order


def test_frames_in_order_become_windows_that_reach_over_no_gap(tmp_path: Path):
    rows = frame_rows([5, 1, 2, 3, 9, 7, 6])  # 4 and 8 are missing; rows in any order
    found = read(write_csv(tmp_path / "t.csv", rows), FrameOptions(num_frames=2, window_stride_frames=1))
    assert found.media == "frames" and found.notes.frames_left_over == 1
    assert [record.clip_id for record in found.records] == ["ann@1-2", "ann@2-3", "ann@5-6", "ann@6-7"]
    assert found.records[1].frame_paths == ["ann/2.png", "ann/3.png"]
    reasons = [reject.reason for reject in found.rejects]
    assert any("lacks frame 4" in reason for reason in reasons) and any("lacks frame 8" in told for told in reasons)
    assert any("only 1: frame 9" in reason for reason in reasons) and len(reasons) == 3


@pytest.mark.parametrize(("how", "label"), [("majority", "0"), ("mean", "1"), ("last", "2")])
def test_a_window_s_label_is_made_of_its_frames_labels(how: str, label: str, tmp_path: Path):
    rows = [
        {**row, **dict.fromkeys(AFFECTS, row["label"])}
        for row in frame_rows([0, 1, 2, 3, 4], ["0", "0", "2", "0", "2"])
    ]
    found = read(write_csv(tmp_path / "t.csv", rows), FrameOptions(num_frames=5), window_label=how)
    (record,) = found.records
    assert record.label == label and set(record.affects.values()) == {int(label)} and found.notes.window_label == how


def test_a_tie_goes_to_the_later_label(tmp_path: Path):
    found = read(write_csv(tmp_path / "t.csv", frame_rows([0, 1], ["a", "b"])))
    assert [record.label for record in found.records] == ["b"]


def test_two_rows_of_one_clip_and_place_are_rejected(tmp_path: Path):
    rows = frame_rows([1, 2, 3, 4, 5])
    twice = {**rows[4], "path": "ann/5b.png"}
    found = read(write_csv(tmp_path / "t.csv", [*rows, rows[0], twice]))
    told = [reject.reason for reject in found.rejects if reject.stage == "table"]
    assert ["frame 1 of ann" in reason for reason in told].count(True) == 1
    assert ["frame 5 of ann" in reason and "other values" in reason for reason in told].count(True) == 2
    assert [record.clip_id for record in found.records] == ["ann@1-2", "ann@3-4"]


def test_clips_and_people_hold_frames_together_in_the_table_s_order(tmp_path: Path):
    people, clips = ["ann"] * 4 + ["bob"] * 4, ["c1", "c1", "c2", "c2", "c3", "c3", "c3", "c4"]
    contents = [picture(number) for number in range(8)]
    table = write_parquet(
        tmp_path / "t.parquet", image=contents, label=["a", "b"] * 4, subject_id=people, clip_id=clips
    )
    assert read(table).media == "picture" and len(read(table).records) == 8
    by_clip = read(table, pictures_as="clips")
    assert [record.clip_id for record in by_clip.records] == ["c1@0-1", "c2@0-1", "c3@0-1"]
    by_person = write_parquet(
        tmp_path / "p.parquet", image=contents, label=["a", "b"] * 4, subject_id=people, clip_id=[*"12345678"]
    )
    assert [record.clip_id for record in read(by_person, pictures_as="clips").records] == [
        "ann@0-1", "ann@2-3", "bob@0-1", "bob@2-3",
    ]  # fmt: skip
    with pytest.raises(DataError, match="clip_id or known people"):
        read(by_person, pictures_as="clips", no_subjects=True)


def test_frames_of_several_sizes_and_colours_are_one_window(tmp_path: Path):
    table = write_csv(tmp_path / "test.csv", frame_rows([0, 1, 2, 3]))
    (tmp_path / "ann/1.png").write_bytes(picture(1, (30, 20), grey=True))
    (tmp_path / "ann/3.png").write_bytes(b"no picture")
    prepared = prepare_found(read(table), table, tmp_path / "out", num_frames=2, face_crop_size_px=24)
    (row,) = prepared.splits["test"]
    assert [decode_picture(frame).shape for frame in row["frames"]] == [(24, 24, 3)] * 2 and row["clip_id"] == "ann@0-1"
    (reject,) = prepared.rejects()
    assert reject["clip_id"] == "ann@2-3" and reject["stage"] == "decode" and "3.png" in reject["reason"]


def test_numbered_frames_in_a_folder_for_each_clip(tmp_path: Path):
    for name in ("a/c1/001.png", "a/c1/2.png", "a/c1/f10_3.png", "b/c2/1.png", "b/c2/2.png", "b/c2/x.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(len(name)))
    assert read(tmp_path).media == "picture" and len(read(tmp_path).records) == 7
    found = read(tmp_path, pictures_as="clips")
    assert [(record.clip_id, record.label) for record in found.records] == [("a/c1@1-2", "a"), ("b/c2@1-2", "b")]
    assert sorted(reject.clip_id for reject in found.rejects) == ["b/3.png", "b/c2/x.png"]
    assert found.notes.frames_left_over == 1


# --- What gives a label away


def test_colour_that_predicts_a_label_is_named(tmp_path: Path):
    def write(name: str, is_grey: Callable[[int], bool]) -> Path:
        labels = ["ab"[number // 20] for number in range(40)]
        contents = [picture(number, (16, 16), grey=is_grey(number)) for number in range(40)]
        people = [f"p{number % 10}" for number in range(40)]
        return write_parquet(tmp_path / f"{name}.parquet", image=contents, label=labels, subject_id=people)

    by_label = write("by_label", lambda number: number < 20 and number != 3)
    anyhow = write("anyhow", lambda number: number % 2 == 0)
    told, verdicts = [], []
    for table in (by_label, anyhow):
        found = audit(prepare_found(read(table), table, tmp_path / f"out_{table.stem}"))
        told.append(next(finding for finding in found.findings if finding.name == "colour predicts label"))
        verdicts.append(describe_verdict(found))
    assert [finding.grade for finding in told] == ["report", "ok"] and "AUROC 0.975" in told[0].summary
    assert "AUROC 0.975" in verdicts[0] and "nothing found" not in verdicts[0]


# --- Real data, where it is


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "wacv2016").is_dir(), reason="no wacv2016 in ../shared/data")
def test_real_frames_in_order_are_windows_and_their_colour_gives_labels_away(tmp_path: Path):
    table = REAL_DATA / "wacv2016/frames.parquet"
    found = read_source(None, table)
    assert found.media == "frames" and {len(record.frame_paths) for record in found.records} == {8}
    assert len(found.records) == 386 and len({record.subject_id for record in found.records}) == 16
    findings = {finding.name: finding for finding in audit(prepare_found(found, table, tmp_path / "out")).findings}
    colour = findings["colour predicts label"]
    assert colour.grade == "report" and colour.details["auroc"]["not_engaged"] == pytest.approx(0.78, abs=0.01)


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "daisee_crops").is_dir(), reason="no daisee_crops in ../shared/data")
def test_real_crops_are_pictures_or_eight_in_a_row_of_one_person():
    folder = REAL_DATA / "daisee_crops"
    pictures = read_source(None, folder)
    assert Counter(record.split for record in pictures.records)["validation"] == 1429 and not pictures.rejects
    clips = read_source(None, folder, SourceOptions(pictures_as="clips", window_label="mean"))
    assert {record.clip_id.partition("@")[0] == record.subject_id for record in clips.records} == {True}
    assert len(clips.records) * 8 + clips.notes.frames_left_over == len(pictures.records)
