"""Many files: what stands for which, answers that grow in a table, and work that stops and goes on."""

import csv
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import Command, TrainedStages
from forked import exit_code_of, in_a_fork
from full_disk import room
from person_videos import person_frame, refusals, write_video
from PIL import Image

from engagement_recognition.cli import main as cli
from engagement_recognition.inference import answer_table
from engagement_recognition.inference.answer_table import AnswerTable, fingerprint
from engagement_recognition.inference.input_files import list_files
from engagement_recognition.inference.many_files import predict_many
from engagement_recognition.inference.predictions import Refusal, VideoPrediction
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.face_preparation import PreparedClip
from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    (folder / "deep").mkdir()
    for seed, name in enumerate(("a.mp4", "b.mp4", "deep/c.mp4")):
        write_video(folder / name, [person_frame(seed)] * 4)
    (folder / "broken.mp4").write_text("not a video\n" * 100)
    Image.fromarray(person_frame(3)).save(folder / "photo.png")
    (folder / "table.csv").write_text("path;label\na.mp4;1\ndeep/c.mp4;0\n;\n")
    (folder / "other.csv").write_text("file\na.mp4\n")
    return folder


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_what_stands_for_which_files(clips: Path, monkeypatch: pytest.MonkeyPatch):
    assert names(list_files([str(clips)])) == ["a.mp4", "b.mp4", "broken.mp4", "photo.png"]
    assert names(list_files([str(clips)], recursive=True)) == ["a.mp4", "b.mp4", "broken.mp4", "c.mp4", "photo.png"]
    assert names(list_files([f"{clips}/?.mp4", f"{clips}/**/c.*"])) == ["a.mp4", "b.mp4", "c.mp4"]
    assert list_files([str(clips / "table.csv")]) == [clips / "a.mp4", clips / "deep/c.mp4"]
    assert list_files(["none*.mp4", "none.mp4"]) == [Path("none*.mp4"), Path("none.mp4")]  # to be refused by name
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{clips}/b.mp4\n\n{clips}/deep\n"))
    assert names(list_files(["-"])) == ["b.mp4", "c.mp4"]
    with pytest.raises(DataError, match=r"other\.csv .*missing: path"):
        list_files([str(clips / "other.csv")])


@pytest.mark.usefixtures("one_reader")
def test_whatever_goes_wrong_is_that_file_s_refusal(
    clips: Path, trained: TrainedStages, monkeypatch: pytest.MonkeyPatch
):
    predictor = Predictor.from_pretrained(str(trained.engagement))
    finish = EngagementVideoProcessor.finish_clip

    def fail_on_b(self: EngagementVideoProcessor, clip: PreparedClip) -> PreparedClip:
        if clip.source.endswith("b.mp4"):
            raise RuntimeError("no memory\nleft")
        return finish(self, clip)

    monkeypatch.setattr(EngagementVideoProcessor, "finish_clip", fail_on_b)
    good, failed, broken, last = predict_many(
        predictor, [clips / name for name in ("a.mp4", "b.mp4", "broken.mp4", "a.mp4")]
    )
    assert good == last and isinstance(good, VideoPrediction)
    assert isinstance(failed, Refusal) and failed.error == f"{clips / 'b.mp4'}: RuntimeError: no memory left"
    assert isinstance(broken, Refusal) and "broken.mp4" in broken.error


def test_another_reader_reads(clips: Path, trained: TrainedStages):
    predictor = Predictor.from_pretrained(str(trained.engagement))
    read = []

    def reader(paths: object):
        for path in paths:
            read.append(path)
            yield predictor.read_video(clips / "a.mp4")

    (found,) = predict_many(predictor, [Path("elsewhere")], reader=reader)
    assert read == [Path("elsewhere")] and found == predictor.predict(clips / "a.mp4")


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("one_reader")
def test_a_table_grows_and_goes_on(engagement: Command, clips: Path, trained: TrainedStages, tmp_path: Path):
    table, options = tmp_path / "answers.csv", ("--model", trained.engagement)
    code, out, err = engagement("predict", clips / "a.mp4", clips / "broken.mp4", *options, "--output", table)
    assert code == 1 and len(refusals(err)) == 1 and len(out.splitlines()) == 1
    first = rows_of(table)
    assert [Path(row["source"]).name for row in first] == ["a.mp4", "broken.mp4"]
    assert (first[0]["error"], first[1]["label"]) == ("", "") and "broken.mp4" in first[1]["error"]
    assert float(first[0]["score/engaged"]) + float(first[0]["score/disengaged"]) == pytest.approx(1)
    # Killed in the middle of a line.
    with table.open("a") as file:
        file.write(f"{clips / 'b.mp4'},engaged,,0.9")
    code, out, err = engagement("predict", clips, *options, "--output", table)
    assert code == 1 and "skips 2 files" in err and "1 of them refused" in err and "a.mp4" not in out
    again = rows_of(table)
    assert again[:2] == first and [Path(row["source"]).name for row in again[2:]] == ["b.mp4", "photo.png"]
    assert "2 files, 1" not in err and "4 files, 2 of them refused" in err
    code, out, err = engagement("predict", clips, *options, "--output", table)
    assert (code, out) == (1, "") and "skips 4 files" in err and rows_of(table) == again


@pytest.mark.usefixtures("one_reader")
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_tables_hold_the_same(
    ending: str, engagement: Command, clips: Path, trained: TrainedStages, tmp_path: Path
):
    options = ("--model", trained.expression, "--output")
    for table in (tmp_path / "answers.csv", tmp_path / f"answers.{ending}"):
        code, _, _ = engagement("predict", clips, *options, table)
        assert code == 1
    expected = rows_of(tmp_path / "answers.csv")
    if ending == "jsonl":
        found = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
        assert [row["source"] for row in found] == [row["source"] for row in expected]
        assert found[0]["scores"]["happy"] == float(expected[0]["score/happy"])
    else:
        found = pyarrow.parquet.read_table(tmp_path / "answers.parquet").to_pylist()
        assert [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in found] == expected


@pytest.mark.usefixtures("one_reader")
def test_a_table_of_another_model_or_other_settings_is_left_alone(
    engagement: Command, clips: Path, trained: TrainedStages, tmp_path: Path
):
    table = tmp_path / "answers.csv"
    engagement("predict", clips / "a.mp4", "--model", trained.engagement, "--output", table)
    before = table.read_bytes()
    other = ("--model", trained.engagement, "--abstain-below", "0.9")
    for options in (other, ("--model", trained.expression)):
        code, out, err = engagement("predict", clips / "b.mp4", *options, "--output", table)
        assert (code, out) == (2, "") and table.read_bytes() == before
        assert err.splitlines()[-1].startswith("error: ") and "answers.csv" in err.splitlines()[-1]
    code, _, err = engagement("predict", clips / "b.mp4", *other, "--output", tmp_path / "answers.txt")
    assert code == 2 and "answers.txt must end in .csv" in err


def test_a_photo_of_which_a_face_is_missing_is_read_again(trained: TrainedStages, tmp_path: Path):
    predictor, table = Predictor.from_pretrained(str(trained.expression)), tmp_path / "answers.csv"
    arguments = (table, predictor.rule.label_names, predictor.about, fingerprint(predictor, None))
    with AnswerTable(*arguments) as answers:
        answers.write(Refusal("first.png", "why not"))
        whole = table.read_bytes()
        cells = dict.fromkeys(answer_table.columns_of(predictor.rule.label_names), "")
        cells |= {"source": "two.png", "label": "happy", "face": "1", "num_people": "2", "made_with": arguments[3]}
    with table.open("a") as file:
        file.write(",".join(cells.values()) + "\n")
    with AnswerTable(*arguments) as answers:
        assert answers.done == {"first.png"}
    assert table.read_bytes() == whole


def test_notes_are_a_column_and_tables_begun_without_them_go_on(trained: TrainedStages, tmp_path: Path):
    predictor = Predictor.from_pretrained(str(trained.engagement))
    answer = VideoPrediction("a.mp4", "engaged", {"disengaged": 0.2, "engaged": 0.8}, 1.0, 0, notes=("one", "two"))
    columns = answer_table.columns_of(predictor.rule.label_names)
    earlier = [name for name in columns if name != "notes"]
    (tmp_path / "earlier.csv").write_text(",".join(earlier) + "\n")
    for name, expected in (("new.csv", columns), ("earlier.csv", earlier)):
        arguments = (tmp_path / name, predictor.rule.label_names, predictor.about, "0" * 12)
        with AnswerTable(*arguments) as answers:
            answers.write(answer)
        with (tmp_path / name).open() as file:
            (row,) = csv.DictReader(file)
        assert list(row) == expected and row.get("notes") == ("one; two" if "notes" in expected else None)
        with AnswerTable(*arguments) as answers:
            assert answers.done == {"a.mp4"}


def test_a_full_disk_keeps_what_was_written(trained: TrainedStages, tmp_path: Path):
    predictor, table = Predictor.from_pretrained(str(trained.engagement)), tmp_path / "answers.jsonl"
    with AnswerTable(table, predictor.rule.label_names, predictor.about, "0" * 12) as answers:
        answers.write(Refusal("a.mp4", "why not"))
        before = table.read_bytes()
        with room() as limit, pytest.raises(DataError, match=r"answers\.jsonl .*1 files are saved.*: make room"):
            limit(len(before) + 10)
            answers.write(Refusal("b.mp4", "x" * 500))
    assert table.read_bytes() == before


def test_ctrl_c_is_one_line_and_says_what_is_kept(
    clips: Path, trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table, said = tmp_path / "answers.csv", tmp_path / "said.txt"
    copies = [tmp_path / f"{number}.mp4" for number in range(300)]
    for copy in copies:
        os.link(clips / "a.mp4", copy)
    arguments = ["predict", "-", "--model", trained.engagement, "--output", table]
    monkeypatch.setattr(sys, "argv", ["engagement", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(str, copies))))

    def predict() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
        cli.main()

    run, until = in_a_fork(predict, said), time.monotonic() + 60
    while time.monotonic() < until and not (table.exists() and table.read_text().count("\n") > 3):
        time.sleep(0.05)
    os.kill(run, signal.SIGINT)
    assert exit_code_of(run) == 130 and "Traceback" not in said.read_text()
    last = said.read_text().splitlines()[-1]
    assert last.startswith("stopped: ") and "type the same command to go on" in last
    assert 3 <= len(rows_of(table)) < len(copies) and all(row["error"] == "" for row in rows_of(table))
