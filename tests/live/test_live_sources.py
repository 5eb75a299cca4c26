"""Frames from cameras, screens and files: nothing lags or breaks in silence."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from numbered_videos import decode_plainly, encode, numbered_picture, numbers_in, write_sound
from tiny_models import tiny_model

from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.live.engine import LiveEngagement, run_live
from engagement_recognition.live.film import AnnotatedVideo
from engagement_recognition.live.sources import CameraSource, ScreenSource, camera_of, open_source
from engagement_recognition.processor.input_errors import EngagementInputError, TruncatedVideoError, VideoReadError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A model of whole frames, which takes a millisecond a step."""
    processor = EngagementVideoProcessor(size={"height": 32, "width": 32}, face_crop=False, face_crop_size_px=32)
    return Predictor(tiny_model("resnet"), processor)


@pytest.fixture
def live(predictor: Predictor) -> LiveEngagement:
    return LiveEngagement(predictor)


# --- Files


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("steady.mp4", {}),
        ("uneven.mkv", {"pts": [i + i * i // 5 for i in range(40)]}),
        ("rotated.mp4", {"rotation": 90}),
        ("packed.avi", {"codec": "mpeg4"}),
    ],
)
def test_a_file_gives_every_frame_in_order_with_its_time(name: str, arguments: dict[str, object], tmp_path: Path):
    encode(tmp_path / name, **arguments)
    with open_source(tmp_path / name) as source:
        frames = list(source.frames())
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), decode_plainly(str(tmp_path / name)))
    expected_sec = np.array(arguments.get("pts", range(40))) / 30
    np.testing.assert_allclose([frame.time_sec for frame in frames], expected_sec, atol=2e-3)
    assert all(frame.num_dropped == 0 for frame in frames)


def test_a_cut_file_gives_what_it_has_and_then_says_where_it_broke(tmp_path: Path, live: LiveEngagement):
    whole = encode(tmp_path / "cut.mp4", mux={"movflags": "faststart"}, num_frames=200, options={"g": "10"})
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    results = []
    with pytest.raises(VideoReadError, match=r"cut\.mp4 breaks off after \d") as caught:
        run_live(open_source(tmp_path / "cut.mp4"), live, results.append)
    assert "\n" not in str(caught.value)
    assert numbers_in(np.stack([result.frame for result in results])) == list(range(len(results)))
    assert 50 < len(results) < 150


def test_a_cut_file_without_its_index_is_named_as_such(tmp_path: Path):
    whole = encode(tmp_path / "cut.mp4", num_frames=200)  # the index comes last
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TruncatedVideoError, match=r"before its first frame \(its box mdat"):
        open_source(tmp_path / "cut.mp4")


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "."])
def test_what_is_no_video_is_refused_at_once(name: str, tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    write_sound(tmp_path / "sound.mp4")
    with pytest.raises(VideoReadError) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


# --- Cameras


class DrawnCamera:
    """Gives a numbered picture every few milliseconds, whether anybody looks or not; breaks after some."""

    def __init__(self, every_sec: float = 0.004, num_frames: int = 10**6, error: Exception | None = None) -> None:
        self.every_sec, self.num_frames, self.error = every_sec, num_frames, error
        self.numbers = count()
        self.num_released = 0

    def read(self) -> np.ndarray | None:
        time.sleep(self.every_sec)
        number = next(self.numbers)
        if number >= self.num_frames and self.error:
            raise self.error
        return numbered_picture(number % 256) if number < self.num_frames else None

    def release(self) -> None:
        self.num_released += 1

    def open(self, patience_sec: float = 5.0) -> CameraSource:
        return CameraSource(self.read, self.release, "webcam:7", patience_sec)


def test_a_slow_machine_drops_frames_and_never_lags(live: LiveEngagement):
    camera, stop, results = DrawnCamera(), threading.Event(), []

    def look(result: object) -> None:
        results.append(result)
        time.sleep(0.05)
        if len(results) == 12:
            stop.set()

    run_live(camera.open(), live, look, stop)
    numbers = numbers_in(np.stack([result.frame for result in results]))
    gaps = np.diff(numbers)
    # The middle one: on a busy machine the camera itself may be late now and then.
    assert gaps.min() >= 1 and np.median(gaps) >= 5 and results[-1].num_dropped == (gaps - 1).sum()
    assert sorted(result.delay_sec for result in results[1:])[5] < 0.1, "a queue would be late by more at every step"
    assert results[-1].time_sec > 0.5 and 2 < results[-1].frames_per_sec < 20
    assert len(results) == 12 and camera.num_released == 1


def test_a_fast_machine_sees_every_frame_once():
    with DrawnCamera(every_sec=0.02).open() as source:
        frames = list(islice(source.frames(), 10))
    numbers = numbers_in(np.stack([frame.pixels for frame in frames]))
    assert np.diff(numbers).min() == 1 and np.diff(numbers).sum() == 9 + sum(frame.num_dropped for frame in frames)


@pytest.mark.parametrize(
    ("error", "reason"), [(None, r"no frame for 0\.2 s"), (OSError("unplugged"), "unplugged")], ids=["silent", "error"]
)
def test_a_camera_that_breaks_is_one_line(error: Exception | None, reason: str, live: LiveEngagement):
    camera, results = DrawnCamera(num_frames=5, error=error), []
    with pytest.raises(VideoReadError, match=rf"webcam:7 stopped .*{reason}.* check") as caught:
        run_live(camera.open(patience_sec=0.2), live, results.append)
    assert "\n" not in str(caught.value) and results and camera.num_released == 1


def test_ctrl_c_ends_a_run_and_releases_the_camera(live: LiveEngagement):
    camera = DrawnCamera()

    def press_ctrl_c(result: object) -> None:
        raise KeyboardInterrupt

    run_live(camera.open(), live, press_ctrl_c)
    assert camera.num_released == 1


def test_an_opencv_capture_gives_rgb(tmp_path: Path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 250
    with AnnotatedVideo(tmp_path / "red.mp4", (64, 64)) as video:
        for index in range(5):
            video.write(red, index / 30)
    with camera_of(cv2.VideoCapture(str(tmp_path / "red.mp4")), "webcam:0", 0.2) as source:
        frame = next(source.frames())
    assert frame.pixels.shape == (64, 64, 3) and frame.pixels[..., 0].min() > 200 > 60 > frame.pixels[..., 1:].max()


@pytest.mark.parametrize("name", ["webcam:93", "webcam:x", "screen:1,2", "screen:1,2,3,x"])
def test_no_such_camera_or_region_is_one_line(name: str, capfd: pytest.CaptureFixture):
    with pytest.raises(EngagementInputError, match=name) as caught:
        open_source(name)
    said = capfd.readouterr()
    assert "\n" not in str(caught.value) and (said.out, said.err) == ("", "")


# --- The screen


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """A screen of 320x240 px that nobody sees, as the process that is it."""
    pytest.importorskip("mss")
    if not shutil.which("Xvfb"):
        pytest.skip("needs Xvfb, a screen without a monitor")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "320x240x24", "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        monkeypatch.setenv("DISPLAY", f":{server.stdout.readline().strip()}")
        yield server
        server.terminate()


def test_the_screen_is_looked_at_when_asked(screen: subprocess.Popen):
    with open_source("screen") as source:
        frames = list(islice(source.frames(), 4))
    assert {frame.pixels.shape for frame in frames} == {(240, 320, 3)} and frames[0].pixels.dtype == np.uint8
    assert frames[0].time_sec == 0 and np.diff([frame.time_sec for frame in frames]).min() > 0.03
    with open_source("screen:300,200,100,100") as source:
        assert next(source.frames()).pixels.shape == (40, 20, 3), "only what lies on the screen"
    with pytest.raises(EngagementInputError, match="outside the 320x240 px screen"):
        ScreenSource((400, 0, 10, 10))


def test_a_screen_that_goes_away_is_one_line(screen: subprocess.Popen):
    with pytest.raises(VideoReadError, match="screen cannot be captured") as caught, open_source("screen") as source:
        for _ in source.frames():
            screen.kill()
            screen.wait()
    assert "\n" not in str(caught.value)


def test_no_screen_is_one_line(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mss")
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(EngagementInputError, match="cannot be captured") as caught:
        open_source("screen")
    assert "\n" not in str(caught.value)
