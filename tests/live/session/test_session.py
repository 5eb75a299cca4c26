"""A recorded session: everybody in it by number, window by window, kept however the reading ends."""

import csv
import errno
import json
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow.parquet
import pytest
from conftest import TrainedStages
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.data.drawn.call import Stay, drawn_tile, write_call
from engagement_recognition.data.face_signals import SIGNALS
from engagement_recognition.data.growing_file import GrowingFile
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.live.session import journal as session_journal
from engagement_recognition.live.session import reader as session_reader
from engagement_recognition.live.session.folder import SessionFolder
from engagement_recognition.processor.input_errors import (
    DataError,
    EngagementInputError,
    TruncatedVideoError,
    VideoReadError,
)
from engagement_recognition.processor.video_index import VideoIndex, index_video

STAYS = [
    Stay("first", 1, 0, 0, 10),
    Stay("first", 1, 0, 30, 50),
    Stay("speaks first", 4, 1, 0, 10),
    Stay("speaks then", 2, 1, 10, 20),
    Stay("comes late", 5, 1, 30, 50),
    Stay("passes by", 9, 0, 24, 26),
]


@pytest.fixture(scope="module")
def predictor(trained: TrainedStages) -> Predictor:
    """Reads one face: seven expressions, in windows of ten seconds."""
    return Predictor.from_pretrained(str(trained.expression), device="cpu")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_call(folder / "call.mp4", STAYS, 50, fps=2)
    write_call(folder / "alone.mkv", [Stay("alone", 1, 0, 0, 30)], 30, columns=1)
    write_call(folder / "short.mkv", [Stay("alone", 1, 0, 0, 6)], 6, columns=1)
    return folder


@pytest.fixture(scope="module")
def finished(films: Path, predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session of both films."""
    folder = tmp_path_factory.mktemp("sessions") / "whole"
    sources = [films / "call.mp4", films / "alone.mkv"]
    session = SessionFolder(folder, predictor, sources)
    for source in sources:
        session.read(source)
    session.write_tables([])
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "windows.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def begin_again(folder: Path, films: Path, predictor: Predictor, source: Path) -> SessionFolder:
    session = SessionFolder(folder, predictor, [films / "call.mp4", films / "alone.mkv"])
    session.read(source)
    return session


def test_everybody_has_a_row_a_window_and_nobody_one_of_their_own(finished: Path, films: Path):
    of_call = [row for row in rows_of(finished) if row["source"] == str(films / "call.mp4")]
    seen = [(float(row["start_sec"]), row["person"]) for row in of_call]
    # Another face in the same tile is another person; who comes back to their own tile is not.
    assert seen == [
        (0, "1"), (0, "2"), (10, "3"), (20, ""), (30, "1"), (30, "4"), (40, "1"), (40, "4"),
    ]  # fmt: skip
    assert {row["reason"] for row in of_call if row["person"] == ""} == {"nobody seen"}
    assert all(float(row["face_coverage"]) >= 0.5 for row in of_call if row["person"])
    assert all(row["label"] or row["reason"] for row in of_call)
    with (finished / "people.csv").open(encoding="utf-8", newline="") as file:
        visits = [row for row in csv.DictReader(file) if row["source"] == str(films / "call.mp4")]
    assert [row["person"] for row in visits] == ["1", "1", "2", "3", "4"]
    starts, ends = ([float(row[name]) for row in visits] for name in ("start_sec", "end_sec"))
    assert starts == pytest.approx([0, 30, 0, 10, 30], abs=1.5) and ends == pytest.approx([10, 50, 10, 20, 50], abs=1.5)


def test_who_leaves_early_in_a_window_has_a_row_that_says_so(predictor: Predictor, tmp_path: Path):
    stays = [Stay("stays", 1, 0, 0, 10), Stay("leaves", 4, 1, 0, 4)]
    source = write_call(tmp_path / "leaves.mp4", stays, 10)
    first, second = SessionFolder(tmp_path / "s", predictor, [source]).read(source).rows
    assert (first.person, first.face_coverage) == (1, 1.0)
    assert (second.person, second.label, second.reason) == (2, None, "no face long enough")
    assert 0.25 <= second.face_coverage < 0.5 and second.signals["face_px"] > 60


def test_who_passes_by_is_said_and_not_counted(finished: Path):
    assert [session_journal.kept_in(finished / f"parts/000{n}.jsonl").video.num_passers_by for n in (1, 2)] == [1, 0]
    assert "1 passer-by" in (finished / "session.html").read_text(encoding="utf-8")


def test_a_small_face_beside_a_shared_screen_is_followed(predictor: Predictor, tmp_path: Path):
    source, small_px = tmp_path / "shared.mp4", (200, 150)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(50):
            frame = np.full((720, 1280, 3), 245, np.uint8)
            for line in range(12):
                words = f"shared screen, line {line}: what everybody reads"
                cv2.putText(frame, words, (60, 80 + 50 * line), cv2.FONT_HERSHEY_SIMPLEX, 1, (20, 20, 20), 2)
            tile = drawn_tile(Stay("speaks", 1, 0, 0, 10), number / 5)
            frame[550:700, 1060:1260] = cv2.resize(tile, small_px, interpolation=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    video = SessionFolder(tmp_path / "s", predictor, [source]).read(source)
    assert [row.person for row in video.rows] == [1] and 40 <= video.rows[0].signals["face_px"] < 70
    assert video.rows[0].scores and video.num_passers_by == 0


def test_rows_hold_scores_and_signals(finished: Path, predictor: Predictor):
    row = rows_of(finished)[0]
    scores = [float(row[f"score/{name}"]) for name in predictor.rule.label_names]
    assert sum(scores) == pytest.approx(1, abs=1e-3)
    assert set(SIGNALS) <= set(row) and 60 < float(row["face_px"]) < 130 and abs(float(row["yaw_deg"])) < 40
    table = pyarrow.parquet.read_table(finished / "windows.parquet")
    assert table.column_names == list(row) and table.num_rows == len(rows_of(finished))
    assert table["person"].null_count == 1 and table["label"].type == pyarrow.string()
    page = (finished / "session.html").read_text(encoding="utf-8")
    assert "call.mp4" in page and "alone.mkv" in page and "Article 5(1)(f)" in page


def test_one_person_alone_is_answered_as_by_predict(finished: Path, films: Path, predictor: Predictor):
    spans = predictor.predict_video(films / "alone.mkv", 10.0).timeline
    rows = [row for row in rows_of(finished) if row["source"] == str(films / "alone.mkv")]
    assert [float(row["start_sec"]) for row in rows] == [span.start_sec for span in spans]
    for row, span in zip(rows, spans, strict=True):
        assert float(row["face_coverage"]) == span.face_coverage == 1.0
        assert [row["label"], row["reason"]] == [span.label or "", span.reason or ""]
        got = [float(row[f"score/{name}"]) for name in span.scores]
        np.testing.assert_allclose(got, list(span.scores.values()), atol=2e-4)


def test_who_stops_goes_on_with_the_same_people(
    finished: Path, films: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session_journal, "SAVED_EVERY_WINDOWS", 2)
    sources, read = [films / "call.mp4", films / "alone.mkv"], []

    def stop(done: int, total: int) -> None:
        assert total == 5
        read.append(done)
        if len(read) in (3, 5):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            SessionFolder(tmp_path / "s", predictor, sources).read(sources[0], stop)
        session = SessionFolder(tmp_path / "s", predictor, sources)
        (so_far,) = session.write_tables([])
        assert len(read) != 3 or "read up to 00:30 of 00:50" in so_far.notes[0]
    session = begin_again(tmp_path / "s", films, predictor, sources[0])
    assert read == [1, 2, 3, 3, 4]  # a window at most is read twice
    session.read(sources[1])
    session.write_tables([])
    for name in ("windows.csv", "people.csv", "session.html"):
        assert (tmp_path / "s" / name).read_bytes() == (finished / name).read_bytes()
    assert not list((tmp_path / "s/parts").glob("*.npz"))


def test_a_full_disk_is_one_line_and_keeps_what_was_read(
    films: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    append, written = GrowingFile.append, []

    def fill_up(self: GrowingFile, text: str) -> None:
        written.append(text)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, text)

    monkeypatch.setattr(GrowingFile, "append", fill_up)
    with pytest.raises(DataError, match=r"No space .* saved: make room"):
        begin_again(tmp_path / "s", films, predictor, films / "alone.mkv")
    lines = (tmp_path / "s/parts/0001.jsonl").read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["rows"][0]["person"] == 1


def test_another_session_s_folder_is_refused(finished: Path, films: Path, trained: TrainedStages, predictor: Predictor):
    others = Predictor.from_pretrained(str(trained.engagement), device="cpu")
    with pytest.raises(DataError, match=f"{finished} was made with another model"):
        SessionFolder(finished, others, [films / "call.mp4", films / "alone.mkv"])
    with pytest.raises(DataError, match=r"alone\.mkv; choose another folder"):
        SessionFolder(finished, predictor, [films / "call.mp4"])
    with pytest.raises(DataError, match=rf"{films} .*other content; choose a new folder"):
        SessionFolder(films, predictor, [films / "call.mp4"])


def test_another_file_of_the_same_name_is_refused(films: Path, predictor: Predictor, tmp_path: Path):
    source = tmp_path / "a.mkv"
    source.write_bytes((films / "short.mkv").read_bytes())
    SessionFolder(tmp_path / "s", predictor, [source]).read(source)
    source.write_bytes((films / "alone.mkv").read_bytes())
    with pytest.raises(DataError, match="has changed since this session began"):
        SessionFolder(tmp_path / "s", predictor, [source]).read(source)


@pytest.mark.parametrize(
    "content", ["{}\n", '{"source": "a"}\n', "no JSON\n", '{"source": "a", "duration_sec": 1}\n{}\n']
)
def test_a_damaged_journal_is_one_line(content: str, tmp_path: Path):
    (tmp_path / "0001.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"not a recording's journal .* delete it"):
        session_journal.kept_in(tmp_path / "0001.jsonl")


def test_a_damaged_state_is_one_line(films: Path, predictor: Predictor, tmp_path: Path):
    source = films / "alone.mkv"
    with pytest.raises(KeyboardInterrupt):
        SessionFolder(tmp_path / "s", predictor, [source]).read(
            source, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    (tmp_path / "s/parts/0001.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="delete it to read"):
        SessionFolder(tmp_path / "s", predictor, [source]).read(source)


def test_a_recording_that_breaks_off_is_read_up_to_there(films: Path, predictor: Predictor, tmp_path: Path):
    source, whole = tmp_path / "cut.mkv", (films / "alone.mkv").read_bytes()
    source.write_bytes(whole[: len(whole) * 7 // 10])
    with pytest.raises(TruncatedVideoError):
        index_video(source)
    video = SessionFolder(tmp_path / "s", predictor, [source]).read(source)
    assert 15 < video.duration_sec < 28 and video.rows[-1].end_sec == pytest.approx(video.duration_sec, abs=0.01)
    assert [row.person for row in video.rows][:2] == [1, 1] and video.rows[0].scores
    assert "the file breaks off after 00:" in video.notes[0] and "read up to there" in video.notes[0]


def test_damage_in_the_middle_is_said_and_the_rest_is_read(
    films: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    decode = session_reader.wanted_frames

    def damaged(index: VideoIndex, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray | VideoReadError]]:
        for number, picture in decode(index, wanted):
            is_bad = 12 < index.frame_times_sec[number] < 16
            yield number, VideoReadError("Expected a frame, got damage.") if is_bad else picture

    monkeypatch.setattr(session_reader, "wanted_frames", damaged)
    video = SessionFolder(tmp_path / "s", predictor, [films / "alone.mkv"]).read(films / "alone.mkv")
    reasons = [row.reason for row in video.rows]
    assert [row.person for row in video.rows] == [1, 1, 1] and reasons[1] == "frames that cannot be read"
    assert video.rows[0].scores and video.rows[1].scores is None and video.rows[2].scores
    assert video.notes == ("6 of the sampled frames cannot be read",)


def test_the_command_goes_on_after_a_bad_file_and_says_what_is_where(
    films: Path, trained: TrainedStages, tmp_path: Path
):
    (tmp_path / "broken.mp4").write_text("not a video\n" * 100)
    options = ["--model", str(trained.expression), "--output", str(tmp_path / "s"), "--device", "cpu"]
    inputs = [str(tmp_path / "broken.mp4"), str(films / "short.mkv"), str(tmp_path / "nothing.mp4")]
    for _ in range(2):  # the second time there is nothing to read
        run = CliRunner().invoke(app, ["session", *inputs, *options])
        assert run.exit_code == 1, run.output
        assert "short.mkv: 00:06, 1 person, a label in " in run.stdout and "session.html" in run.stdout
        refusals = [line for line in run.stderr.splitlines() if line.startswith("refused: ")]
        assert len(refusals) == 2 and "broken.mp4" in refusals[0] and "nothing.mp4" in refusals[1]
        assert "facial expression" not in run.stdout and "Article 5(1)(f)" in run.stderr
    assert "broken.mp4" in (tmp_path / "s/session.html").read_text(encoding="utf-8")
    assert len(rows_of(tmp_path / "s")) == 1


def test_blurred_copies_lie_beside_the_tables(trained: TrainedStages, tmp_path: Path):
    write_call(tmp_path / "short.mp4", [Stay("alone", 1, 0, 0, 3)], 3, columns=1)
    options = ["--model", str(trained.expression), "--output", str(tmp_path / "s"), "--device", "cpu", "--blur"]
    run = CliRunner().invoke(app, ["session", str(tmp_path / "short.mp4"), *options])
    assert run.exit_code == 0, run.output
    copy = tmp_path / "s/blurred/short.mp4"
    assert f"{copy}: faces" in run.stdout and "15 of 15 frames" in run.stdout
    assert "do not make people anonymous" in run.stderr
    written = copy.read_bytes()
    run = CliRunner().invoke(app, ["session", str(tmp_path / "short.mp4"), *options])
    assert "blurred/short.mp4: exists already" in run.stdout and copy.read_bytes() == written


def test_a_copy_that_fails_costs_no_rows_and_no_room_ends_all(
    films: Path, trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = ["--model", str(trained.expression), "--output", str(tmp_path / "s"), "--device", "cpu", "--blur"]
    command = ["session", str(films / "short.mkv"), *options]

    def fail(cause: OSError | None) -> None:
        def blur_faces(*_: object) -> None:
            raise EngagementInputError("Expected to write a video, could not; choose another place.") from cause

        monkeypatch.setattr("engagement_recognition.live.session.blur.blur_faces", blur_faces)

    fail(None)
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 1 and "no copy with blurred faces: " in run.stderr
    assert "short.mkv: 00:06, 1 person" in run.stdout and len(rows_of(tmp_path / "s")) == 1
    assert "Not read" not in (tmp_path / "s/session.html").read_text(encoding="utf-8")
    fail(OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(CliRunner().invoke(app, command).exception, EngagementInputError)
