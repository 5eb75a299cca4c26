"""`engagement live`: lines, a film and a window, from a file; what is refused, and what a broken file leaves."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import TrainedStages
from drawn_film import HEIGHT_PX, WIDTH_PX, draw_film
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.live.engine import LiveResult, PersonState
from engagement_recognition.live.outputs import LiveOutputs, LiveWindow
from engagement_recognition.live.signals import quit_signals
from engagement_recognition.processor.input_errors import EngagementInputError

FPS = 5


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of four people, ten frames."""
    path = tmp_path_factory.mktemp("live") / "four.mp4"
    encode_video(path, (shot.pixels for shot in draw_film(2.0, FPS)), FPS, WIDTH_PX, HEIGHT_PX, "mp4")
    return path


def run_command(*options: object) -> object:
    return CliRunner().invoke(app, ["live", *map(str, options)])


def result_at(time_sec: float, size_px: tuple[int, int] = (160, 120)) -> LiveResult:
    state = PersonState(1, (40.0, 30.0, 90.0, 90.0), True, "engaged", {"engaged": 0.8, "disengaged": 0.2}, None)
    frame = np.full((size_px[1], size_px[0], 3), 120, np.uint8)
    return LiveResult(frame, time_sec, [state], 10.0, 0.01, 0)


def test_a_camera_whose_picture_changes_its_size_is_scaled_to_the_first_and_says_so_once(tmp_path: Path):
    film = tmp_path / "film.mp4"
    with LiveOutputs("webcam:0", window=False, film=film) as outputs:
        for number, size_px in enumerate([(160, 120), (320, 240), (320, 240), (160, 120)]):
            outputs(result_at(number / 10, size_px))
    (word,) = [words for words in outputs.last_words("webcam:0", "stopped", 0) if "size" in words]
    assert str(film) in word and "scaled to the first size" in word
    with av.open(str(film)) as container:
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(160, 120)] * 4


def test_a_file_becomes_lines_and_a_film(film: Path, trained: TrainedStages, tmp_path: Path):
    drawn = tmp_path / "drawn.mp4"
    done = run_command("--source", film, "--model", trained.expression, "--no-window", "--json", "--output", drawn)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["time_sec"] for line in lines] == pytest.approx(np.arange(10) / FPS)
    assert [person["person"] for person in lines[0]["people"]] == [1, 2, 3, 4]
    scores = lines[0]["people"][0]["scores"]
    assert len(scores) == 7 and sum(scores.values()) == pytest.approx(1, abs=1e-3)
    assert "10 frames, 0 dropped" in done.stderr and str(drawn) in done.stderr
    with av.open(str(drawn)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(film)) as container:
        plain = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert len(frames) == 10 and frames[0].shape == plain.shape
    assert (np.abs(frames[0].astype(int) - plain).max(axis=2) > 60).sum() > 1000, "boxes and plates are drawn in it"


@pytest.mark.parametrize("options", [("--window-sec", "0.8"), ()], ids=["a window of its own", "as short as the film"])
def test_a_clip_model_says_what_it_waits_for(options: tuple[str, ...], film: Path, trained: TrainedStages):
    done = run_command("--source", film, "--model", trained.engagement, "--no-window", "--json", *options)
    people = json.loads(done.stdout.splitlines()[0])["people"]
    assert {person["status"] for person in people} == {"collecting 1 of 4 frames"}
    assert json.loads(done.stdout.splitlines()[-1])["people"][0]["scores"]
    assert ("a window spans 0.7 s" in done.stderr) == (options == ())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--window-sec", "9"], "nobody was seen for a whole window of 9.0 s; pass a shorter --window-sec"),
        (["--window-sec", "0.8", "--abstain-below", "1"], "every answer was uncertain"),
    ],
)
def test_a_video_without_a_label_says_why(options: list[str], why: str, film: Path, trained: TrainedStages):
    done = run_command("--source", film, "--model", trained.engagement, "--no-window", "--json", *options)
    assert (
        done.exit_code == 0
        and f"{film}: reached its end; 10 frames" in done.stderr
        and f"no label: {why}" in done.stderr
    )


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (PersonState(1, (0, 0, 20, 20), True, None, None, "face too small"), "every face was smaller than 40 px"),
        (None, "nobody's face was seen for long enough"),
    ],
)
def test_why_there_is_no_label_is_told_by_what_was_seen(state: PersonState | None, why: str):
    with LiveOutputs("clip", window=False) as outputs:
        outputs(replace(result_at(0.0), states=[state] if state else []))
        outputs(replace(result_at(0.2), states=[]))
    ended, told = outputs.last_words("webcam", "ended by Ctrl-C", 0.0)
    assert ended == "webcam: ended by Ctrl-C; 2 frames, 0 dropped" and told == f"no label: {why}"


needs_hangups = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without SIGHUP")
PROGRAM = """
import signal
from engagement_recognition.cli.main import main
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may have it ignored
main()
"""


@pytest.mark.slow
@needs_hangups
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGHUP", "Ctrl-C"])
def test_a_film_is_as_long_as_its_source_however_it_is_ended(
    ending: str, film: Path, trained: TrainedStages, tmp_path: Path
):
    drawn = tmp_path / "drawn.mp4"
    command = [sys.executable, "-c", PROGRAM, "live", "--source", film, "--model", trained.expression, "--no-window"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--json", "--output", drawn], **pipes) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(getattr(signal, ending, signal.SIGINT))
        lines += process.stdout.readlines()
        said = process.stderr.read()
    assert process.returncode == 0 and f"four.mp4: ended by {ending}; {len(lines)} frames" in said
    with av.open(str(drawn)) as container:
        frames = list(container.decode(video=0))
        end_sec = frames[-1].time + float(frames[-1].duration * frames[-1].time_base)
    assert 3 <= len(frames) == len(lines) <= 10 and end_sec == pytest.approx(len(lines) / FPS, abs=0.02)


@needs_hangups
def test_what_nohup_ignores_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert set(quit_signals()) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert set(quit_signals()) == {signal.SIGINT, signal.SIGTERM}
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--no-window"], "--no-window needs --json or --output"),
        (["--no-window", "--output", "same"], "is the source video"),
        (["--no-window", "--output", "hard link"], "is the source video"),
        (["--no-window", "--output", "film.avi"], "must end in .mp4"),
        (["--no-window", "--output", "no/such/folder/film.mp4"], "for film.mp4 does not exist"),
        (["--no-window", "--model", "no/such/model", "--output", "folder"], "is a folder"),
        (["--no-window", "--json", "--source", ""], "source is empty"),
        (["--source", "screen"], "the window would film itself"),
        (["--no-window", "--json", "--source", "no.mp4"], "no.mp4"),
        (["--no-window", "--json", "--source", "webcam:x"], "webcam:NUMBER"),
        (["--no-window", "--json", "--model", "no/such/model"], "no/such/model"),
    ],
)
def test_wrong_input_is_one_line(options: list[str], words: str, film: Path, trained: TrainedStages):
    link = film.with_name("link.mp4")
    if not link.exists():
        link.hardlink_to(film)
    folder = film.with_name("folder.mp4")
    folder.mkdir(exist_ok=True)
    paths = {"same": str(film), "hard link": str(link), "folder": str(folder)}
    options = [paths.get(option, option) for option in options]
    before = film.read_bytes()
    done = run_command("--source", film, "--model", trained.expression, *options)
    assert isinstance(done.exception, EngagementInputError) and words in str(done.exception)
    assert "\n" not in str(done.exception) and film.read_bytes() == before


def test_a_file_that_breaks_off_leaves_a_film_that_plays(film: Path, trained: TrainedStages, tmp_path: Path):
    cut = tmp_path / "cut.mkv"
    encode_video(cut, (shot.pixels for shot in draw_film(4.0, FPS)), FPS, WIDTH_PX, HEIGHT_PX, "matroska")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
    drawn = tmp_path / "drawn.mp4"
    done = run_command("--source", cut, "--model", trained.expression, "--no-window", "--output", drawn)
    assert isinstance(done.exception, EngagementInputError) and "breaks off after" in str(done.exception)
    assert "cut.mkv: it broke off; " in done.stderr and str(drawn) in done.stderr
    with av.open(str(drawn)) as container:
        assert 5 < sum(1 for _ in container.decode(video=0)) < 20


# --- The window


def test_a_window_shows_frames_and_is_closed_by_a_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    closed = []
    with LiveOutputs("clip", on_close=lambda: closed.append(True)) as outputs:
        outputs(result_at(0.0))
        shown = pygame.surfarray.array3d(pygame.display.get_surface())  # (width, height, 3)
        assert shown.shape == (160, 120, 3) and (shown[150, 110] == 120).all() and np.ptp(shown) > 100
        assert pygame.display.get_caption()[0].startswith("clip") and not closed
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))
        outputs(result_at(0.1))
        assert closed == [True]
    assert not pygame.display.get_init()


def test_a_large_picture_fits_the_screen_and_keeps_its_proportions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    with LiveOutputs("clip") as outputs:
        screen = pygame.display.get_desktop_sizes()[0]
        outputs(result_at(0.0, (4000, 1000)))
        width, height = pygame.display.get_window_size()
        assert width <= screen[0] and width / height == pytest.approx(4, rel=0.02)


def test_without_a_screen_the_window_is_refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EngagementInputError, match="pass --no-window"):
        LiveWindow("clip")
    assert capfd.readouterr().err == "" and "XDG_RUNTIME_DIR" not in os.environ
