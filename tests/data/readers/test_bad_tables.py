"""Tables as people have them: a bad row is one reject with file and line, a bad file one line; nothing is lost."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from engagement_recognition.data.readers.daisee import read_daisee
from engagement_recognition.data.readers.fer2013 import read_fer2013
from engagement_recognition.data.readers.tables import Row, read_table
from engagement_recognition.data.readers.video_tables import read_video_table
from engagement_recognition.data.schema import LabelledSource
from engagement_recognition.processor.input_errors import DataError

HEADER = "ClipID,Boredom,Engagement,Confusion,Frustration "
GOOD = "1100011002.avi,0,2,0,0\n1100011003.avi,1,0,0,3\n"
VIDEO_HEADER = "path,label,subject_id,split,start_sec,end_sec"
VIDEO_GOOD = "a.mp4,engaged,anna,train,,\nb.mp4,bored,ben,test,0,2.5\n"


def rows_of(content: str | bytes) -> list[Row]:
    encoded = content if isinstance(content, bytes) else content.encode()
    return list(read_table(io.BytesIO(encoded), "table.csv", ("clip", "label"), ("split",)).rows)


def check_one_line(read: Callable[[], object], file_name: str, told: str) -> None:
    with pytest.raises(DataError) as refusal:
        read()
    message = str(refusal.value)
    assert file_name in message and told in message and "\n" not in message


# --- Any table


@pytest.mark.parametrize(
    "content",
    [
        "clip,label\na,x\nb,y\n",
        b"\xef\xbb\xbfclip,label\r\na,x\r\nb,y\r\n",
        " Clip , LABEL \n a , x \nb,y",
        '"clip","label"\n"a","x"\n"b","y"\n',
        "\n\nclip,label\n\na,x\n\nb,y\n\n",
        "clip;label\na;x\nb;y\n",
        "label\tclip\nx\ta\ny\tb\n",
        "clip,label\ra,x\rb,y\r",
        'clip,label,remark\na,x,"one, two\nthree"\nb,y,\n',
    ],
    ids=["plain", "BOM", "padded", "quoted", "empty lines", "semicolons", "tabs", "old Mac", "more columns"],
)
def test_a_table_is_read_however_it_was_saved(content: str | bytes):
    rows = rows_of(content)
    assert [(row.cells["clip"], row.cells["label"], row.problem) for row in rows] == [
        ("a", "x", None),
        ("b", "y", None),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("clip,label\n", "rows"),
        ("clip,level\na,1\n", "missing: label"),
        ("a,x\nb,y\n", "clip"),
        ("clip|label\na|x\n", "clip|label"),
        ("clip,label,label\na,x,y\n", "twice"),
        ('clip,label\na,"x\nb,y\nc,z\n', "quote"),
        (("clip,label\n" + "a,x\n" * 9000 + "é,x\n").encode("latin-1"), "UTF-8"),
        (bytes(200_000), "missing"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_line(content: str | bytes, told: str):
    check_one_line(lambda: rows_of(content), "table.csv", told)


def test_rows_of_another_width_come_out_with_their_problem_and_line():
    rows = rows_of("clip,label\na,x\nb\nc,y,z\n\nd,y\n")
    assert [row.line for row in rows if row.problem] == [3, 4]
    assert [row.cells["clip"] for row in rows if not row.problem] == ["a", "d"]


# --- DAiSEE's label files


@pytest.fixture
def daisee(tmp_path: Path) -> Path:
    """A layout with two clips a split and empty files for videos: what the readers look at are names."""
    for number, split in enumerate(("Train", "Validation", "Test"), start=1):
        write_labels(tmp_path, f"{HEADER}\n{GOOD.replace('110001', f'{number}10001')}", split)
        for clip in ("1002", "1003"):
            folder = tmp_path / f"DataSet/{split}/{number}10001/{number}10001{clip}"
            folder.mkdir(parents=True)
            (folder / f"{number}10001{clip}.avi").touch()
    return tmp_path


def write_labels(folder: Path, content: str | bytes, split: str = "Train") -> None:
    (folder / "Labels").mkdir(exist_ok=True)
    encoded = content if isinstance(content, bytes) else content.encode()
    (folder / f"Labels/{split}Labels.csv").write_bytes(encoded)


def check_daisee(folder: Path, num_rows: int, rejected_lines: list[int], told: str) -> LabelledSource:
    """Rows of the train table = train records + rejects, and each reject names file and line."""
    source = read_daisee(folder)
    train = [record for record in source.records if record.split == "train"]
    assert len(train) + len(source.rejects) == num_rows
    assert {reject.stage for reject in source.rejects} <= {"label"}
    for reject, line in zip(source.rejects, rejected_lines, strict=True):
        assert f"line {line} of Labels/TrainLabels.csv" in reject.reason and "\n" not in reject.reason
        assert told in reject.reason
    return source


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1100011004.avi,0,4,0,0", "engagement as 0, 1, 2 or 3, got '4'"),
        ("1100011004.avi,-1,2,0,0", "boredom as 0, 1, 2 or 3, got '-1'"),
        ("1100011004.avi,0,high,0,0", "'high'"),
        ("1100011004.avi,0,NaN,0,0", "'NaN'"),
        ("1100011004.avi,0,,0,0", "''"),
        ("1100011004.avi,0,2.0,0,0", "'2.0'"),
        ("1100011004.avi,0,²,0,0", "'²'"),
        ("1100011004.avi,0", "5 cells, got 2"),
        ("1100011004.avi,0,2,0,0,1", "5 cells, got 6"),
        (",0,2,0,0", "clipid"),
        (",,,,", "clipid"),
    ],
)
def test_a_bad_row_of_labels_is_one_reject(row: str, told: str, daisee: Path):
    write_labels(daisee, f"{HEADER}\n{GOOD}{row}\n")
    check_daisee(daisee, 3, [4], told)


def test_the_video_of_a_bad_row_is_not_rejected_a_second_time(daisee: Path):
    write_labels(daisee, f"{HEADER}\n{GOOD.replace(',0,2,0,0', ',0,9,0,0')}")
    check_daisee(daisee, 2, [2], "'9'")


def test_of_two_equal_rows_the_later_goes_and_of_two_different_ones_both(daisee: Path):
    write_labels(daisee, f"{HEADER}\n{GOOD}1100011002.avi,0,2,0,0\n")
    check_daisee(daisee, 3, [4], "a second time")
    write_labels(daisee, f"{HEADER}\n{GOOD}1100011002.mp4,0,3,0,0\n")
    source = check_daisee(daisee, 3, [2, 4], "other values")
    assert "1100011002" not in [record.clip_id for record in source.records]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        (f"{HEADER}\n", "rows"),
        ("ClipID,Boredom,Confusion,Frustration\n1100011002.avi,0,0,0\n", "missing: engagement"),
        (f"{HEADER}\n{GOOD}".replace(",", "|"), "missing"),
        (f"{HEADER}\n{GOOD}ä".encode("latin-1"), "UTF-8"),
        (GOOD, "clipid"),
    ],
    ids=["empty", "header only", "no column", "delimiter", "Latin-1", "no header"],
)
def test_a_bad_label_file_is_refused_in_one_line(content: str | bytes, told: str, daisee: Path):
    write_labels(daisee, content)
    check_one_line(lambda: read_daisee(daisee), "Labels/TrainLabels.csv", told)


def test_a_label_file_saved_by_a_spreadsheet_is_read_and_its_more_columns_told(daisee: Path):
    lines = f"{HEADER},Remark\n" + GOOD.replace("\n", ",fine\n")
    write_labels(daisee, lines.replace("\n", "\r\n").replace(",", ";").encode("utf-8-sig"))
    source = check_daisee(daisee, 2, [], "")
    assert source.notes.extra_columns == ["remark"]
    assert {record.clip_id: record for record in source.records}["1100011003"].affects["frustration"] == 3


def test_an_id_that_a_spreadsheet_made_a_number_is_not_cut_at_its_dot(daisee: Path):
    write_labels(daisee, f"{HEADER}\n{GOOD}1.10001E+09,0,2,0,0\n")
    (reject,) = read_daisee(daisee).rejects
    assert (reject.clip_id, reject.stage) == ("1.10001E+09", "source")


# --- Tables of videos


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


def read_videos(folder: Path, content: str | bytes) -> LabelledSource:
    (folder / "videos.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_video_table(folder / "videos.csv")


@pytest.mark.parametrize(
    ("row", "stage", "told"),
    [
        ("gone.mp4,engaged,cleo,train,,", "source", "gone.mp4"),
        (f"{'long' * 100}.mp4,engaged,cleo,train,,", "source", "long"),
        ("folder.mp4,engaged,cleo,train,,", "table", "a folder"),
        ("c.mp4,,cleo,train,,", "table", "label"),
        ("c.mp4,nan,cleo,train,,", "table", "label"),
        ("c.mp4,engaged,,train,,", "table", "subject_id"),
        (",engaged,cleo,train,,", "table", "path"),
        ("c.mp4,engaged,cleo,holdout,,", "table", "'holdout'"),
        ("c.mp4,engaged,cleo,,,", "table", "every row"),
        ("c.mp4,engaged,cleo,train,-1,2", "table", "start_sec"),
        ("c.mp4,engaged,cleo,train,2,2", "table", "before"),
        ("c.mp4,engaged,cleo,train,0,NaN", "table", "end_sec"),
        ("c.mp4,engaged,cleo,train,0,inf", "table", "end_sec"),
        ("c.mp4,engaged,cleo,train,soon,2", "table", "'soon'"),
        ("c.mp4,engaged,cleo", "table", "6 cells, got 3"),
        ("c.mp4,engaged,cleo,train,0,1,2", "table", "6 cells, got 7"),
        ("a.mp4,engaged,anna,train,,", "table", "a second time"),
    ],
)
def test_a_bad_row_of_videos_is_one_reject(row: str, stage: str, told: str, videos: Path):
    source = read_videos(videos, f"{VIDEO_HEADER}\n{VIDEO_GOOD}{row}\n")
    assert len(source.records) == 2
    (reject,) = source.rejects
    assert reject.stage == stage and told in reject.reason and "\n" not in reject.reason
    assert "line 4 of" in reject.reason and "videos.csv" in reject.reason


def test_rows_that_contradict_each_other_all_go(videos: Path):
    source = read_videos(videos, f"{VIDEO_HEADER}\n{VIDEO_GOOD}b.mp4,engaged,ben,test,0,2.50\n")
    assert [record.clip_id for record in source.records] == ["a.mp4"]
    assert ["other values" in reject.reason for reject in source.rejects] == [True, True]


@pytest.mark.parametrize("row", ["c.mp4,4,0,0,0", "c.mp4,-1,0,0,0", "c.mp4,,0,0,0", "c.mp4,1.5,0,0,0"])
def test_a_bad_affect_of_a_video_is_one_reject(row: str, videos: Path):
    header = "path,boredom,engagement,confusion,frustration,subject_id"
    source = read_videos(videos, f"{header}\na.mp4,0,3,0,0,anna\n{row},cleo\n")
    assert [record.affects["engagement"] for record in source.records] == [3]
    assert [(reject.stage, "boredom" in reject.reason) for reject in source.rejects] == [("table", True)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        (f"{VIDEO_HEADER}\n", "rows"),
        ("path,label\na.mp4,engaged\n", "the column subject_id"),
        ("path,subject_id\na.mp4,anna\n", "label"),
        ("path,subject_id,engagement\na.mp4,anna,2\n", "boredom"),
        (f"{VIDEO_HEADER}\n{VIDEO_GOOD}".replace(",", "|"), "missing"),
        (f"{VIDEO_HEADER}\n{VIDEO_GOOD}ä".encode("latin-1"), "UTF-8"),
        (f'{VIDEO_HEADER}\n"a.mp4,engaged,anna\n', "quote"),
    ],
    ids=["empty", "header only", "no subject", "no label", "one affect", "delimiter", "Latin-1", "open quote"],
)
def test_a_bad_table_of_videos_is_refused_in_one_line(content: str | bytes, told: str, videos: Path):
    check_one_line(lambda: read_videos(videos, content), "videos.csv", told)


def test_a_missing_table_is_refused(tmp_path: Path):
    check_one_line(lambda: read_video_table(tmp_path / "none.csv"), "none.csv", "no CSV table")


# --- FER2013's table


@pytest.mark.parametrize(
    ("row", "stage"),
    [
        (["7", "0 " * 2304, "Training"], "label"),
        (["-1", "0 " * 2304, "Training"], "label"),
        (["NaN", "0 " * 2304, "Training"], "label"),
        (["0", "0 " * 2303, "Training"], "decode"),
        (["0", "0 " * 2303 + "256", "Training"], "decode"),
        (["0", "0 " * 2303 + "-1", "Training"], "decode"),
        (["0", "0 " * 2303 + "0.5", "Training"], "decode"),
        (["0", "", "Training"], "decode"),
        (["0", "0 " * 2304, "Holiday"], "table"),
        (["0", "0 " * 2304], "table"),
    ],
)
def test_a_bad_row_of_pixels_is_one_reject_and_shifts_no_other(row: list[str], stage: str, tmp_path: Path):
    good = ["3", " ".join(["9"] * 2304), "Training"]
    with (tmp_path / "fer2013.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["emotion", "pixels", "Usage"], good, row, good])
    source = read_fer2013(tmp_path)
    assert [reject.stage for reject in source.rejects] == [stage]
    assert "line 3 of fer2013.csv" in source.rejects[0].reason
    kept_place = "train/00001" if stage == "table" else "train/00002"  # without a usage it is in no split
    assert [record.clip_id for record in source.records] == ["train/00000", kept_place]


def test_a_folder_with_no_form_of_fer2013_is_refused(tmp_path: Path):
    (tmp_path / "faces.csv").write_text("emotion,pixels\n0,0\n")
    check_one_line(lambda: read_fer2013(tmp_path), tmp_path.name, "fer2013.csv")
    (tmp_path / "train.csv").write_text("emotion,picture\n0,0\n")
    check_one_line(lambda: read_fer2013(tmp_path / "train.csv"), "train.csv", "missing: pixels")
