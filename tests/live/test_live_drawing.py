"""Annotated frames and videos: everything can be read, nobody is hidden, and films are as long as what they show."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from drawn_film import HEAD_WIDTH_PX, places_at
from numbered_videos import HEIGHT_PX, WIDTH_PX, numbered_picture, numbers_in

from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.live.drawing import COLORS, PLATE_LIGHT, draw_states, model_note
from engagement_recognition.live.engine import PersonState
from engagement_recognition.live.film import AnnotatedVideo
from engagement_recognition.live.sources import FileSource
from engagement_recognition.processor.input_errors import EngagementInputError, VideoReadError

LEVEL = 200  # of the plain frames that are drawn on
TWICE_DARKENED = int(int(LEVEL * PLATE_LIGHT) * PLATE_LIGHT)  # where a plate lies on a plate
SEVEN = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def somebody(number: int, box: Sequence[float], score: float = 0.8, names: Sequence[str] = ("engaged",)) -> PersonState:
    rest = (1 - score) / max(1, len(names) - 1)
    scores = {name: score if name == names[0] else rest for name in names}
    return PersonState(number, tuple(map(float, box)), True, names[0], scores, None)


def in_rows(
    num_people: int,
    num_columns: int,
    pitch_px: tuple[int, int],
    face_px: tuple[int, int],
    first_px: tuple[int, int] = (20, 30),
) -> list[PersonState]:
    """People in rows, the first with the left upper corner of the face's box at `first_px`."""
    steps = [np.array((i % num_columns, i // num_columns)) * pitch_px for i in range(num_people)]
    return [
        somebody(i, (*first_px + step, *first_px + step + face_px), names=SEVEN)
        for i, step in enumerate(steps, start=1)
    ]


def plain(width_px: int, height_px: int, level: int = LEVEL) -> np.ndarray:
    return np.full((height_px, width_px, 3), level, np.uint8)


def inside(image: np.ndarray, state: PersonState) -> np.ndarray:
    """The face, without the lines of its box."""
    left, top, right, bottom = (round(edge) for edge in state.box_xyxy_px)
    return image[max(0, top + 5) : bottom - 4, max(0, left + 5) : right - 4]


def is_color(image: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """(height, width) bool."""
    return (image == color).all(axis=2)


def is_white(image: np.ndarray) -> np.ndarray:
    """(height, width) bool: letters on black, of which thin ones are grey, and the edges of bars; no color."""
    return image.min(axis=2) > 125


def num_lines(marked: np.ndarray) -> int:
    """Runs of rows that have a marked pixel."""
    return int((np.diff(marked.any(axis=1).astype(int), prepend=0) == 1).sum())


# --- Annotated frames

STATES = [
    PersonState(1, (40.0, 60.0, 110.0, 150.0), True, "engaged", {"disengaged": 0.2, "engaged": 0.8}, None),
    PersonState(2, (-20.0, 50.0, 30.0, 90.0), True, None, None, "face too small"),
    PersonState(12, (290.0, 200.0, 340.0, 260.0), True, None, {"é": 0.5, "情": 0.5}, "uncertain"),
]


@pytest.mark.parametrize("level", [0, 128, 255])
def test_drawings_show_on_dark_and_on_light(level: int):
    frame = np.full((240, 320, 3), level, np.uint8)
    drawn = draw_states(frame, STATES, 24.3)
    assert drawn.shape == frame.shape and drawn.dtype == np.uint8 and (frame == level).all()
    for state in STATES:
        alone = draw_states(frame, [state])
        brightness = alone[(alone != frame).any(axis=2)].mean(axis=1)
        assert brightness.size > 500 and np.ptp(brightness) > 120, "letters and lines stand out"
    rate = draw_states(frame, [], 24.3)
    assert np.ptp(rate[:30, -120:].astype(int)) > 120
    np.testing.assert_array_equal(draw_states(frame, []), frame)


def test_who_is_missing_is_not_drawn_and_takes_no_room():
    frame, missing = plain(320, 240), PersonState(3, None, False, "engaged", {"engaged": 1.0}, None)
    np.testing.assert_array_equal(draw_states(frame, [missing]), frame)
    np.testing.assert_array_equal(draw_states(frame, [*STATES[:2], missing]), draw_states(frame, STATES[:2]))


def test_every_frame_says_what_must_be_known_of_the_model():
    rule = AnswerRule(("a", "b"), trained_on="drawn people")
    assert model_note(rule) == "model of drawn people, uncalibrated"
    assert model_note(AnswerRule(("a", "b"), temperature=1.0, trained_on="daisee")) == ""
    for width_px, height_px in ((320, 240), (1280, 720)):
        frame = plain(width_px, height_px)
        changed = (draw_states(frame, [], note=model_note(rule)) != frame).any(axis=2)
        assert changed[-2, 2] and not changed[: height_px * 3 // 4].any(), "at the bottom left"
        assert not changed[:, -20:].any(), "all of it"
    whole = draw_states(plain(320, 240), [somebody(1, (40, 150, 110, 230))], note=model_note(rule))
    assert is_white(whole[-20:, :120]).sum() > 100, "no plate lies on it"


def test_longer_bars_are_higher_scores():
    frame = np.zeros((240, 320, 3), np.uint8)

    def num_colored(score: float) -> int:
        drawn = draw_states(frame, [PersonState(1, (40, 60, 110, 150), True, "engaged", {"engaged": score}, None)])
        return int((np.ptp(drawn.astype(int), axis=2) > 60).sum())

    assert num_colored(0.9) > num_colored(0.6) > num_colored(0.3)


def test_plates_stay_in_the_frame_and_off_each_other():
    frame = np.zeros((240, 320, 3), np.uint8)
    neighbours = [
        PersonState(number, (x, 20.0, x + 60.0, 90.0), True, "engaged", {"engaged": 1.0}, None)
        for number, x in ((1, 30.0), (2, 110.0))
    ]
    alone = [(draw_states(frame + 90, [state]) != 90).any(axis=2) for state in neighbours]
    together = (draw_states(frame + 90, neighbours) != 90).any(axis=2)
    assert together.sum() == pytest.approx(sum(mask.sum() for mask in alone), rel=0.02)
    whole = draw_states(frame + 90, [PersonState(None, None, True, "engaged", {"engaged": 1.0}, None)])
    assert (whole[0, 0] != 90).all()


def crossing(time_sec: float) -> list[PersonState]:
    """The drawn film's four people; two of them cross at 2 s."""
    reach = np.array([-0.5, -0.62, 0.5, 0.7]) * HEAD_WIDTH_PX
    places = enumerate(places_at(time_sec).values(), start=1)
    return [somebody(number, np.array([x, y, x, y]) + reach, names=SEVEN) for number, (x, y) in places]


CROWD = in_rows(40, 10, (62, 110), (44, 58))
SCENES = {
    "twelve": (plain(1320, 440), in_rows(12, 6, (220, 223), (74, 84), (80, 65))),
    "forty": (plain(640, 480), CROWD),
    "four": (plain(480, 270), crossing(0.0)),
    "two cross": (plain(480, 270), crossing(2.0)),
    "one near the frame rate": (plain(320, 120), [somebody(1, (240, 60, 300, 118))]),
}


@pytest.mark.parametrize("scene", SCENES)
def test_plates_hide_no_face_no_plate_and_no_frame_rate(scene: str):
    frame, states = SCENES[scene]
    drawn = draw_states(frame, states, 24.3)
    darkened = is_color(drawn, [int(LEVEL * PLATE_LIGHT)] * 3)
    assert darkened.sum() > 100 * len(states), "there are plates"
    assert not any(inside(darkened, state).any() for state in states)
    assert not is_color(drawn, [TWICE_DARKENED] * 3).any()


def test_a_few_people_have_bars_and_more_have_a_line_each():
    def differs_by_score(num_people: int) -> bool:
        states = in_rows(num_people, 5, (120, 200), (60, 80))
        drawn = [draw_states(plain(640, 480), [replace(states[0], scores=dict.fromkeys(SEVEN, score)), *states[1:]])
                 for score in (0.1, 0.9)]  # fmt: skip
        return bool((drawn[0] != drawn[1]).any())

    assert differs_by_score(4) and not differs_by_score(5)


def test_whose_full_plate_has_no_room_gets_a_line_and_the_others_keep_their_bars():
    roomy, cramped = somebody(1, (40, 150, 120, 250), names=SEVEN), somebody(2, (170, 20, 620, 430), names=SEVEN)
    drawn = draw_states(plain(640, 480), [roomy, cramped])
    assert (draw_states(plain(640, 480), [replace(roomy, scores=dict.fromkeys(SEVEN, 0.1)), cramped]) != drawn).any()
    same = draw_states(plain(640, 480), [roomy, replace(cramped, scores=dict.fromkeys(SEVEN, 0.1))])
    np.testing.assert_array_equal(same, drawn)


@pytest.mark.parametrize("number", range(1, 8))
def test_names_are_white_and_the_color_is_a_stripe(number: int):
    state = PersonState(number, (240, 100, 320, 200), True, "engaged", None, None)
    below = draw_states(plain(640, 480, 0), [state])[208:]
    assert num_lines(is_white(below)) == 2, "the name and the label"
    columns = np.flatnonzero(is_color(below, COLORS[number - 1]).sum(axis=0) > 30)
    assert columns.size >= 3 and columns[0] == np.flatnonzero(below.any(axis=(0, 2)))[0]
    assert np.ptp(columns) == columns.size - 1, "one stripe"


@pytest.mark.parametrize(("height_px", "least_px"), [(120, 11), (270, 11), (480, 12), (1080, 24)])
def test_the_smallest_letters_can_be_read(height_px: int, least_px: int):
    """From the d's top to the g's bottom."""
    left, bottom = height_px // 3, height_px // 4
    scores = {"x" * 20: 0.0, "dg": 0.0}
    drawn = draw_states(
        plain(2 * height_px, height_px, 0), [PersonState(1, (left, 2, left + 40, bottom), True, "dg", scores, None)]
    )
    white = is_white(drawn[bottom + 4 :])
    first_column = np.flatnonzero(white.any(axis=0))[0]
    rows = np.flatnonzero(white[:, first_column : first_column + 2 * least_px].any(axis=1))  # without the bars
    last_line = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)[-1]
    assert len(last_line) >= least_px


def test_in_a_crowd_every_number_is_beside_its_face():
    drawn = draw_states(plain(640, 480), CROWD)
    for state in CROWD:
        left, _, right, bottom = (round(edge) for edge in state.box_xyxy_px)
        assert (drawn[bottom + 4 : bottom + 30, left:right] > 230).all(axis=2).sum() > 5


def test_a_plate_that_lies_elsewhere_has_a_line_to_its_face():
    walls = [(0, 0, 320, 90), (0, 158, 320, 200), (98, 95, 320, 153)]
    states = [somebody(2, (40, 100, 90, 150)), *(somebody(i, box) for i, box in enumerate(walls, start=3))]
    drawn = draw_states(plain(320, 240), states)
    assert is_color(drawn[153:156], COLORS[1]).any() and is_color(drawn[202:], COLORS[1]).sum() > 30
    alone = draw_states(plain(320, 240), states[:1])
    assert is_color(alone, COLORS[1]).sum() > 0 and not is_color(alone[200:], COLORS[1]).any()


@pytest.mark.parametrize("box", [(0, 0, 320, 240), (-40, -60, 400, 300)])
def test_a_face_that_fills_the_picture_has_its_label_on_it(box: tuple[int, ...]):
    drawn = draw_states(plain(320, 240), [somebody(1, box, names=SEVEN)], 24.3)
    darkened = is_color(drawn, [int(LEVEL * PLATE_LIGHT)] * 3)[:, :200]
    assert 200 < darkened.sum() < 2500 and (drawn[:, :200] > 230).all(axis=2).sum() > 10


# --- Annotated videos


@pytest.mark.parametrize("size", [(WIDTH_PX, HEIGHT_PX), (WIDTH_PX - 1, HEIGHT_PX - 1)])
def test_a_video_keeps_the_frames_times(size: tuple[int, int], tmp_path: Path):
    times_sec = [0.0, 0.033, 0.25, 0.26, 1.5, 1.5, 4.0]
    with AnnotatedVideo(tmp_path / "out.mp4", size, 10) as video:
        for number, time_sec in enumerate(times_sec):
            video.write(numbered_picture(number)[: size[1], : size[0]], time_sec)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times_sec, abs=1e-3)
    frames = np.stack([frame.pixels for frame in FileSource(tmp_path / "out.mp4").frames()])
    assert frames.shape[1:] == (HEIGHT_PX, WIDTH_PX, 3) and numbers_in(frames) == list(range(7))


def test_a_run_that_breaks_leaves_a_video_that_plays(tmp_path: Path):
    with pytest.raises(VideoReadError), AnnotatedVideo(tmp_path / "out.mp4", (WIDTH_PX, HEIGHT_PX)) as video:
        for number in range(5):
            video.write(numbered_picture(number), number / 30)
        raise VideoReadError("the camera broke")
    assert len(list(FileSource(tmp_path / "out.mp4").frames())) == 5


def test_what_cannot_be_written_is_one_line(tmp_path: Path):
    with pytest.raises(EngagementInputError, match="no folder") as caught:
        AnnotatedVideo(tmp_path / "no folder" / "out.mp4", (WIDTH_PX, HEIGHT_PX))
    assert "\n" not in str(caught.value)
    with (
        AnnotatedVideo(tmp_path / "out.mp4", (WIDTH_PX, HEIGHT_PX)) as video,
        pytest.raises(EngagementInputError, match=f"frames of {WIDTH_PX}x{HEIGHT_PX} px"),
    ):
        video.write(np.zeros((10, 10, 3), np.uint8), 0.0)


@pytest.mark.parametrize(("num_frames", "max_bytes"), [(200, 200_000), (20, 20_000)], ids=["write", "close"])
def test_a_full_disk_is_one_line_and_what_is_there_plays(num_frames: int, max_bytes: int, tmp_path: Path):
    resource = pytest.importorskip("resource")  # Windows has none
    rng, limits = np.random.default_rng(0), resource.getrlimit(resource.RLIMIT_FSIZE)
    video = AnnotatedVideo(tmp_path / "out.mp4", (64, 64), 30)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
        with (
            pytest.raises(EngagementInputError, match=r"out\.mp4 cannot be written .*plays") as caught,
            video,
        ):
            for index in range(num_frames):
                video.write(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), index / 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    source, frames = FileSource(tmp_path / "out.mp4"), []
    with pytest.raises(VideoReadError, match="breaks off after"):
        frames.extend(source.frames())
    assert num_frames // 3 < len(frames) < num_frames


@pytest.mark.parametrize(
    ("fps", "times_sec"),
    [(15, np.arange(120) / 15), (29.97, np.arange(30) / 29.97), (60, [0]), (10, [0, 0.03, 0.5, 2])],
)
def test_a_film_is_as_long_as_its_source(fps: float, times_sec: Sequence[float], tmp_path: Path):
    with AnnotatedVideo(tmp_path / "out.mp4", (WIDTH_PX, HEIGHT_PX), fps) as video:
        for number, time_sec in enumerate(times_sec):
            video.write(numbered_picture(number), time_sec)
    with av.open(str(tmp_path / "out.mp4")) as container:
        last = max((packet for packet in container.demux(video=0) if packet.pts is not None), key=lambda p: p.pts)
        said_sec = container.duration / av.time_base
    ends_sec = float((last.pts + last.duration) * last.time_base)
    assert [said_sec, ends_sec] == pytest.approx([times_sec[-1] + 1 / fps] * 2, abs=1e-3)


def test_a_rate_that_is_a_clocks_ticks_makes_no_film_without_length(tmp_path: Path):
    with AnnotatedVideo(tmp_path / "out.mp4", (WIDTH_PX, HEIGHT_PX), 1e6) as video:
        video.write(numbered_picture(0), 0.0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration == av.time_base // 1000


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_one_line(fps: float, tmp_path: Path):
    with pytest.raises(EngagementInputError, match="frame rate must be above 0"):
        AnnotatedVideo(tmp_path / "out.mp4", (WIDTH_PX, HEIGHT_PX), fps)


PRESSED = """
import signal, sys
import av, numpy as np
from engagement_recognition.live.film import AnnotatedVideo

class Container:
    def __init__(self, inner):
        self.inner, self.signals = inner, []
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def mux(self, packets):
        if self.signals:
            signal.raise_signal(self.signals.pop())
        self.inner.mux(packets)
    def close(self):
        if self.signals:
            signal.raise_signal(self.signals.pop())
        self.inner.close()

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make background programs ignore it
really_open = av.open
opened = []
av.open = lambda *args, **kwargs: opened.append(Container(really_open(*args, **kwargs))) or opened[-1]
rng = np.random.default_rng(0)
for moment in sys.argv[1:]:
    opened.clear()
    try:
        with AnnotatedVideo(f"{moment}.mp4", (64, 64), 30) as video:
            for index in range(100):
                if moment == "write" and index == 90:
                    opened[0].signals = [signal.SIGINT]
                video.write(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), index / 30)
            opened[0].signals = [signal.Signals[moment]] * 2
        print("finished")
    except KeyboardInterrupt:
        print("interrupted")
    restored = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    print(restored == (signal.default_int_handler, signal.SIG_DFL))
"""


@pytest.mark.slow
def test_ctrl_c_tears_no_hole_in_a_film(tmp_path: Path):
    # A signal of that name while the film is closed, or Ctrl-C while a frame is written: what is said, and its frames.
    moments = {name: ("finished", 100) for name in ("SIGINT", "SIGTERM", "SIGHUP")} | {"write": ("interrupted", 91)}
    command = [sys.executable, "-c", PRESSED, *moments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == [word for said, _ in moments.values() for word in (said, "True")], done.stderr[-2000:]
    for moment, (_, num_frames) in moments.items():
        times_sec = [frame.time_sec for frame in FileSource(tmp_path / f"{moment}.mp4").frames()]
        assert times_sec == pytest.approx(np.arange(num_frames) / 30, abs=1e-3), moment


def test_a_film_can_be_written_by_another_thread(tmp_path: Path):
    def write() -> None:
        with AnnotatedVideo(tmp_path / "out.mp4", (WIDTH_PX, HEIGHT_PX)) as video:
            video.write(numbered_picture(7), 0.0)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert numbers_in(np.stack([frame.pixels for frame in FileSource(tmp_path / "out.mp4").frames()])) == [7]
