"""Ten bad videos in one table: each is one reject with its file and reason, and the good ones come out all the same."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import prepare_drawn
from numbered_videos import write_sound
from PIL import Image

from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.preparation.prepared_data import PreparedData


def write_picture(path: Path, good: bytes) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    path.write_bytes(file.getvalue())


def write_without_face(path: Path, good: bytes) -> None:
    encode_video(path, iter(np.full((8, 240, 320, 3), 90, np.uint8)), 4, 320, 240, "avi")


# name -> (what lies there, the stage at which it is rejected)
BAD: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "empty.avi": (lambda path, good: path.write_bytes(b""), "decode"),
    "text.avi": (lambda path, good: path.write_text("no video"), "decode"),
    "picture.mp4": (write_picture, "decode"),
    "sound.mp4": (lambda path, good: write_sound(path), "decode"),
    "half.avi": (lambda path, good: path.write_bytes(good[: len(good) // 2]), "decode"),
    "head.avi": (lambda path, good: path.write_bytes(good[:200]), "decode"),
    "beheaded.avi": (lambda path, good: path.write_bytes(good[len(good) // 2 :]), "decode"),
    "noise.avi": (lambda path, good: path.write_bytes(bytes(range(256)) * 40), "decode"),
    "nobody.avi": (write_without_face, "face"),
    "missing.avi": (lambda path, good: None, "source"),
    "folder.avi": (lambda path, good: path.mkdir(), "table"),
}


@pytest.fixture(scope="module")
def prepared(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("bad")
    lines = ["path,label,subject_id,split"]
    good = sorted(drawn_daisee.glob("DataSet/*/*/*/*.avi"))
    for number, split in enumerate(("train", "validation", "test")):
        shutil.copy(good[number], folder / f"good {number}.avi")
        lines.append(f"good {number}.avi,engaged,good{number},{split}")
    for name, (write, _) in BAD.items():
        write(folder / name, good[0].read_bytes())
        lines.append(f"{name},bored,{name},train")
    lines += ["good 0.avi,engaged,again,train", "good 1.avi,engaged,late,validation"]
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return prepare_drawn(folder / "clips.csv", folder / "data", num_frames=4)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_video_is_one_reject_with_file_and_reason(name: str, prepared: PreparedData):
    rejected = [row for row in prepared.rejects() if row["clip_id"] == name]
    assert [row["stage"] for row in rejected] == [BAD[name][1]], rejected
    assert name in rejected[0]["reason"] and "Expected" in rejected[0]["reason"] and "\n" not in rejected[0]["reason"]


@pytest.mark.parametrize(("end_sec", "comes_out"), [(1.5, True), (2.9, True), (99, False)])
def test_a_span_may_end_a_little_late_and_not_far_beyond_the_video(
    end_sec: float, comes_out: bool, drawn_daisee: Path, tmp_path: Path
):
    good = sorted(drawn_daisee.glob("DataSet/*/*/*/*.avi"))[:2]  # two seconds each
    rows = [f"{good[0]},engaged,a,train,0,{end_sec}", f"{good[1]},bored,b,test,,"]
    (tmp_path / "clips.csv").write_text("path,label,subject_id,split,start_sec,end_sec\n" + "\n".join(rows) + "\n")
    data = prepare_drawn(tmp_path / "clips.csv", tmp_path / "data", num_frames=4)
    reasons = [row["reason"] for row in data.rejects()]
    assert ("train" in data.splits or "validation" in data.splits) == comes_out
    assert len(reasons) == (not comes_out) and all("0 to 99 s" in reason for reason in reasons)


def test_the_good_ones_come_out_and_all_is_counted(prepared: PreparedData):
    description = prepared.description
    assert description.inputs == 3 + len(BAD) + 2 == description.outputs + description.rejects
    repeated = {row["clip_id"] for row in prepared.rejects()} - set(BAD)
    # A row that names a clip again, for another person, says nothing clear about either.
    assert repeated | {clip for rows in prepared.splits.values() for clip in rows["clip_id"]} == {
        f"good {number}.avi" for number in range(3)
    }
