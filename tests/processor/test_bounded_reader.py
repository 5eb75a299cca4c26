"""The reader in a process of its own says what the one here says, and outlives whatever a file does to it."""

import copy
import dataclasses
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from numbered_videos import encode, numbers_in
from PIL import Image
from places import ROOT

from engagement_recognition import EngagementVideoProcessor
from engagement_recognition.processor import bounded_reader
from engagement_recognition.processor.bounded_reader import BoundedReader, ReaderLimits
from engagement_recognition.processor.input_errors import (
    EngagementInputError,
    ImageReadError,
    TruncatedVideoError,
    VideoReadError,
)
from engagement_recognition.processor.media_reader import HERE, FramesOnDemand, MediaReader

CLIPS = [np.array([0, 5, 5]), np.array([39, 2]), np.array([7])]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    encode(path)
    return path


@pytest.fixture(scope="module")
def reader():
    with BoundedReader() as reader:
        yield reader


def all_frames(reader: MediaReader, source: object) -> list[np.ndarray]:
    index = reader.index_video(source)
    return [np.asarray(clip.frames) for clip in reader.decode_clips(index, CLIPS)]


@pytest.fixture
def mine() -> Callable[[], psutil.Process]:
    """The one process of a reader that a test starts; others are of the module's."""
    before = readers_below(psutil.Process())

    def process() -> psutil.Process:
        (found,) = readers_below(psutil.Process()) - before
        return found

    return process


def readers_below(process: psutil.Process) -> set[psutil.Process]:
    return {child for child in process.children() if "reader_process.py" in " ".join(child.cmdline())}


@pytest.mark.parametrize("as_bytes", [False, True])
def test_it_reads_what_the_reader_here_reads(as_bytes: bool, film: Path, reader: BoundedReader):
    source = film.read_bytes() if as_bytes else film
    for here, there in zip(all_frames(HERE, source), all_frames(reader, source), strict=True):
        np.testing.assert_array_equal(here, there)
    index, other = HERE.index_video(source), reader.index_video(source)
    for field in dataclasses.fields(index):
        np.testing.assert_array_equal(getattr(index, field.name), getattr(other, field.name))


def test_pictures_too(tmp_path: Path, reader: BoundedReader):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(reader.read_picture(tmp_path / "a.png"), HERE.read_picture(tmp_path / "a.png"))


def test_refusals_are_those_of_the_reader_here(film: Path, tmp_path: Path, reader: BoundedReader):
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:-300])
    (tmp_path / "text.png").write_text("no picture")
    kinds = []
    for read, source in (("index_video", "cut.mp4"), ("index_video", "missing.mp4"), ("read_picture", "text.png")):
        said = []
        for one in (HERE, reader):
            with pytest.raises(EngagementInputError) as refused:
                getattr(one, read)(tmp_path / source)
            said.append((type(refused.value), str(refused.value)))
        assert said[0] == said[1]
        kinds.append(said[0][0])
    assert kinds == [TruncatedVideoError, VideoReadError, ImageReadError]


def test_one_process_serves_many_files_and_ends_with_its_reader(film: Path, mine: Callable[[], psutil.Process]):
    with BoundedReader() as reader:
        all_frames(reader, film)
        process = mine()
        with pytest.raises(VideoReadError):
            reader.index_video(film.with_name("missing.mp4"))
        all_frames(reader, film)
        assert mine() == process
    assert not process.is_running()


def test_relative_names_follow_the_folder(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        encode(tmp_path / name / "film.mp4", num_frames=5 if name == "one" else 9)
        monkeypatch.chdir(tmp_path / name)
        assert reader.index_video("film.mp4").num_frames == (5 if name == "one" else 9)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that does something else when it is asked."""

    def put(does: str) -> BoundedReader:
        script = tmp_path / "fake.py"
        script.write_text(f"import os, signal, sys, time\nsys.stdin.buffer.read(4)\n{does}\n")
        monkeypatch.setattr(bounded_reader, "PATH", script)
        return BoundedReader(ReaderLimits(stall_sec=1.0))

    return put


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("time.sleep(60)", "no data for 1 s"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11"),
        ("os._exit(3)", "exit code 3"),
        ("sys.stdout.buffer.write(b'nonsense' * 1000)", "one that"),
        ("sys.stdout.buffer.write(b'\\2\\0\\0\\0{}'); sys.stdout.flush(); time.sleep(60)", "one that"),
    ],
)
def test_what_goes_wrong_there_is_the_files_refusal(does: str, reason: str, fake, film: Path):
    reader, began = fake(does), time.monotonic()
    with pytest.raises(VideoReadError, match=reason) as refused:
        reader.index_video(film)
    assert "film.mp4" in str(refused.value) and "\n" not in str(refused.value)
    assert time.monotonic() - began < 10


def test_a_frozen_process_is_replaced(film: Path, mine: Callable[[], psutil.Process]):
    with BoundedReader(ReaderLimits(stall_sec=4.0)) as reader:
        all_frames(reader, film)
        mine().suspend()
        with pytest.raises(VideoReadError, match="no data for 4 s"):
            reader.index_video(film)
        assert len(all_frames(reader, film)) == 3


def test_a_killed_process_is_replaced_in_the_middle_of_a_film(film: Path, mine: Callable[[], psutil.Process]):
    with BoundedReader() as reader:
        index = reader.index_video(film)
        process = mine()
        process.kill()
        process.wait()
        assert [numbers_in(clip.frames) for clip in reader.decode_clips(index, CLIPS)] == [[0, 5, 5], [39, 2], [7]]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process asks for")
def test_hunger_for_memory_is_a_refusal(tmp_path: Path):
    frame = np.zeros((2160, 3840, 3), np.uint8)
    Image.fromarray(np.tile(frame, (4, 2, 1))).save(tmp_path / "giant.png", compress_level=1)
    with BoundedReader(ReaderLimits(memory_bytes=200 << 20)) as reader:
        with pytest.raises(ImageReadError, match=r"200 MB .* more: .*giant\.png"):
            reader.read_picture(tmp_path / "giant.png")
        Image.fromarray(frame[:100]).save(tmp_path / "small.png")
        assert reader.read_picture(tmp_path / "small.png").shape == (100, 3840, 3)


def test_total_time_counts_what_is_waited_for(film: Path):
    with BoundedReader(ReaderLimits(total_sec=0.0)) as reader, pytest.raises(VideoReadError, match="more than 0 s"):
        reader.index_video(film)


def test_threads_have_a_process_each(film: Path, reader: BoundedReader):
    found: list[list[int]] = []
    index = reader.index_video(film)

    def read() -> None:
        found.extend(numbers_in(clip.frames) for clip in reader.decode_clips(index, CLIPS))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([[0, 5, 5], [39, 2], [7]] * 4)


def test_two_films_may_be_read_by_turns_and_one_left_in_the_middle(film: Path, reader: BoundedReader):
    index = reader.index_video(film)
    first, second = reader.decode_clips(index, CLIPS), reader.decode_clips(index, CLIPS)
    assert numbers_in(next(first).frames) == numbers_in(next(second).frames) == [0, 5, 5]
    first.close()
    assert [numbers_in(clip.frames) for clip in second] == [[39, 2], [7]]
    assert len(all_frames(reader, film)) == 3


def test_copies_share_it_and_a_pickle_holds_its_limits(reader: BoundedReader):
    assert copy.deepcopy(reader) is reader
    limits = ReaderLimits(stall_sec=7)
    assert pickle.loads(pickle.dumps(BoundedReader(limits))).limits == limits
    processor = EngagementVideoProcessor().with_reader(reader)
    assert "reader" not in processor.to_dict() and copy.deepcopy(processor).reader is reader


def test_it_knows_neither_torch_nor_transformers(film: Path, mine: Callable[[], psutil.Process]):
    with BoundedReader() as reader:
        all_frames(reader, film)
        reader.read_picture(ROOT / "docs/drawn_faces.png")
        loaded = {Path(entry.path).name for entry in mine().memory_maps()}
        assert not [name for name in loaded if "torch" in name] and any("avcodec" in name for name in loaded)


def test_it_ends_when_its_asker_is_killed(film: Path, tmp_path: Path):
    # A script without a main guard, too.
    (tmp_path / "script.py").write_text(
        "import sys, time\n"
        "from engagement_recognition.processor.bounded_reader import BoundedReader\n"
        "reader = BoundedReader()\n"
        "print(reader.index_video(sys.argv[1]).num_frames, flush=True)\n"
        "time.sleep(60)\n"
    )
    script = subprocess.Popen([sys.executable, tmp_path / "script.py", film], stdout=subprocess.PIPE, text=True)
    assert int(script.stdout.readline()) == 40
    (process,) = readers_below(psutil.Process(script.pid))
    script.send_signal(signal.SIGKILL)
    script.wait()
    script.stdout.close()
    end = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("bounded", [False, True])
def test_frames_of_giants_are_decoded_when_they_are_looked_at(
    bounded: bool, film: Path, monkeypatch: pytest.MonkeyPatch, reader: BoundedReader
):
    opener = reader if bounded else HERE
    plain = EngagementVideoProcessor(face_crop=False).with_reader(opener).prepare_clip(film)
    monkeypatch.setattr("engagement_recognition.processor.media_reader._HELD_BYTES", 1000)
    giant = EngagementVideoProcessor(face_crop=False).with_reader(opener).prepare_clip(film)
    assert isinstance(giant.whole_frames, FramesOnDemand)
    np.testing.assert_array_equal(giant.frames, plain.frames)
    np.testing.assert_array_equal(giant.whole_frames[3], plain.whole_frames[3])
    np.testing.assert_array_equal(giant.whole_frames[-1], plain.whole_frames[-1])
    np.testing.assert_array_equal(np.asarray(giant.whole_frames), plain.whole_frames)


def test_faces_of_giants_are_cut_as_those_of_others(drawn_daisee: Path, monkeypatch: pytest.MonkeyPatch):
    film = sorted(drawn_daisee.glob("DataSet/*/*/*/*.avi"))[0]
    plain = EngagementVideoProcessor().prepare_clip(film)
    monkeypatch.setattr("engagement_recognition.processor.media_reader._HELD_BYTES", 1000)
    (giant,) = EngagementVideoProcessor().prepare_spans(film, [(0.0, 2.0)])
    np.testing.assert_array_equal(giant.frames, plain.frames)
