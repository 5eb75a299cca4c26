"""Films whose times are uneven, late, edited or without end: what is read is what a player shows at that time."""

import csv
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from bench import Bench, face_frames, write_film
from numbered_videos import decode_plainly, numbers_in
from rows import Comes, Refused, Row
from time_inputs import film, late_film

from engagement_recognition import EngagementVideoProcessor
from engagement_recognition.processor.face_preparation import PreparedClip
from engagement_recognition.processor.film_windows import plan_windows

# Two seconds of movement, then a picture that stays: a screen recording of 18 s.
THEN_STILL = [*range(60), 300, 420, 520]
STILL_FIRST = [0, 200, 400, *range(480, 540)]
SLIDES = [0, 90, 390, 400, 410, 690]
NTSC = Fraction(1001, 30000)
BY_TIME = "variable rate: sampled by time"


def read(as_played: bool = True, **arguments: Any) -> Callable[[Bench, Path], PreparedClip]:
    """`prepare_clip` of whole frames."""

    def run(bench: Bench, path: Path) -> PreparedClip:
        processor = EngagementVideoProcessor(face_crop=False, as_played=as_played, face_crop_size_px=72)
        return processor.prepare_clip(path, **arguments)

    return run


def on_screen(
    ticks: Sequence[int], start_sec: float = 0.0, end_sec: float | None = None, fps: int = 30
) -> Callable[[PreparedClip], bool]:
    """That frames are those a player shows in the middle of each eighth of the time, pixel for pixel."""
    times_sec = np.array(ticks) / fps
    end_sec = times_sec[-1] * len(ticks) / (len(ticks) - 1) if end_sec is None else end_sec
    middles = start_sec + (np.arange(8) + 0.5) / 8 * (end_sec - start_sec)
    expected = [int(np.flatnonzero(times_sec <= middle + 1e-6)[-1]) for middle in middles]
    return lambda clip: numbers_in(clip.whole_frames) == clip.frame_indices.tolist() == expected


def numbered(*numbers: int) -> Callable[[PreparedClip], bool]:
    """That the frames bear these numbers."""
    return lambda clip: numbers_in(clip.whole_frames) == list(numbers)


def spread_evenly(num_frames: int) -> Callable[[PreparedClip], bool]:
    """That frames are the centres of equal segments by number, and nothing is said."""
    expected = [(2 * k + 1) * num_frames // 16 for k in range(8)]
    return lambda clip: clip.frame_indices.tolist() == expected and clip.notes == ()


def every_frame(bench: Bench, path: Path) -> tuple[np.ndarray, Path]:
    """All frames as we read them, and the film."""
    clip = EngagementVideoProcessor(face_crop=False, as_played=True).prepare_clip(path, 8, "consecutive", 3)
    return clip.whole_frames, path


def exact(mirrored: bool = False) -> Callable[[tuple[np.ndarray, Path]], bool]:
    """That they are those of a full decode, bit for bit."""

    def that(read_and_path: tuple[np.ndarray, Path]) -> bool:
        frames, path = read_and_path
        with av.open(str(path)) as container:  # a mirror counts as a rotation to PyAV
            stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        plain = np.stack(stored)[:, :, ::-1] if mirrored else decode_plainly(str(path))
        return np.array_equal(frames, plain[3:11])

    return that


def late_face(path: Path) -> Path:
    """Sound from 0 s on, a drawn face from 2 s to 4 s."""
    with av.open(str(path), "w") as container:
        stream, sound = container.add_stream("libx264", rate=4), container.add_stream("aac", rate=16000)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number, face in enumerate(face_frames()):
            frame = av.VideoFrame.from_ndarray(face, format="rgb24")
            frame.pts, frame.time_base = number + 8, Fraction(1, 4)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number in range(40):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, number * 1600
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    return path


def session_times(bench: Bench, path: Path) -> list[tuple[str, str]]:
    """Start and end of each window in a session's table."""
    output = path.parent / "session"
    said = bench.command("session", path, "--model", bench.engagement_folder, "--output", output)
    assert said.code == 0 and (output / "session.html").read_text(encoding="utf-8").count("begins 2.0 s") == 1, said
    with (output / "windows.csv").open(encoding="utf-8") as file:
        return [(row["start_sec"], row["end_sec"]) for row in csv.DictReader(file)]


ROWS = [
    Row("mp4 that moves, then stands still", lambda folder: film(folder / "a.mp4", THEN_STILL), read(),
        Comes((BY_TIME,), on_screen(THEN_STILL)), kind=2),
    Row("webm that stands still, then moves", lambda folder: film(folder / "a.webm", STILL_FIRST, codec="libvpx",
        options={"deadline": "realtime", "cpu-used": "8"}),
        read(), Comes((BY_TIME,), on_screen(STILL_FIRST)), kind=2),
    Row("slides in mov", lambda folder: film(folder / "a.mov", SLIDES), read(),
        Comes((BY_TIME,), on_screen(SLIDES)), kind=2),
    Row("span of a film that stands still: what is on screen, though it began before",
        lambda folder: film(folder / "a.mkv", SLIDES), read(clip_start_sec=5.0, clip_end_sec=15.0),
        Comes((BY_TIME,), on_screen(SLIDES, 5.0, 15.0)), kind=2),
    Row("windows of a variable film", lambda folder: film(folder / "a.mp4", THEN_STILL),
        lambda bench, path: list(EngagementVideoProcessor(face_crop=False, as_played=True).prepare_spans(
            path, [(0.0, 10.0), (10.0, 17.5)])),
        Comes(that=lambda clips: on_screen(THEN_STILL, 0.0, 10.0)(clips[0])
              and on_screen(THEN_STILL, 10.0, 17.5)(clips[1])), kind=2),
    Row("variable film as models before as_played read it", lambda folder: film(folder / "a.mp4", THEN_STILL),
        read(as_played=False),
        Comes(("sampled by the frames' numbers, not by time",),
              lambda clip: clip.frame_indices.tolist() == [(2 * k + 1) * 63 // 16 for k in range(8)]), kind=2),
    Row("consecutive frames of a variable film", lambda folder: film(folder / "a.mp4", THEN_STILL),
        read(num_frames=4, sampling="consecutive", start_frame=58),
        Comes(that=lambda clip: numbers_in(clip.whole_frames) == [58, 59, 60, 61] and not clip.notes), kind=2),
    Row("NTSC rate, times in whole milliseconds", lambda folder: film(folder / "a.mkv", range(50), NTSC), read(),
        Comes(that=spread_evenly(50)), kind=2),
    Row("avi, whose times count packets", lambda folder: film(folder / "a.avi", range(50), codec="mpeg4"), read(),
        Comes(that=spread_evenly(50)), kind=2),
    Row("span between two frames at a constant rate", lambda folder: film(folder / "a.mp4", range(6), Fraction(1, 1)),
        read(clip_start_sec=2.5, clip_end_sec=3.5), Comes(that=numbered(*[3] * 8)), kind=2),
    *(
        Row(f"{ending} whose sound begins 2 s earlier: a player's times",
            lambda folder, ending=ending: late_film(folder / f"late.{ending}"),
            read(clip_start_sec=4.1, clip_end_sec=4.9),
            Comes(("the picture begins 2",), numbered(21, 22, 23, 24, 25, 26, 27, 28)), kind=3)
        for ending in ("mkv", "mp4", "avi")
    ),
    Row("its last second is there", lambda folder: late_film(folder / "late.mkv"),
        read(clip_start_sec=7.2, clip_end_sec=8.0), Comes(that=numbered(*range(52, 60))), kind=3),
    Row("a span that begins before the picture has what is there of it", lambda folder: late_film(folder / "late.ts"),
        read(clip_start_sec=0.0, clip_end_sec=2.86), Comes(that=numbered(*range(8))), kind=3),
    Row("a span before the picture", lambda folder: late_film(folder / "late.mp4"),
        read(clip_start_sec=0.5, clip_end_sec=1.5),
        Refused(("late.mp4", "got 0.5 to 1.5 s", "the picture begins at 2 s")), kind=3),
    Row("all of a late film is read as ever", lambda folder: late_film(folder / "late.mkv"), read(),
        Comes(("the picture begins 2.0 s after the file's clock",),
              lambda clip: clip.frame_indices.tolist() == [3, 11, 18, 26, 33, 41, 48, 56]), kind=3),
    Row("sound and picture begin together", lambda folder: film(folder / "a.mp4", sound_sec=1.0), read(),
        Comes(that=spread_evenly(24)), kind=3),
    Row("timeline of a late film", lambda folder: late_face(folder / "late.mkv"),
        lambda bench, path: bench.engagement.predict(path, 1.0),
        Comes(("the picture begins 2.0 s",),
              lambda answer: [span.start_sec for span in answer.timeline] == [2.0, 3.0]), kind=3),
    Row("session of a late film", lambda folder: late_face(folder / "late.mp4"), session_times,
        Comes(that=lambda times: times == [("2.0", "4.0")]), kind=3),
    Row("turned by its matrix", lambda folder: film(folder / "a.mp4", rotation=90), every_frame,
        Comes(that=exact()), kind=7),
    Row("turned the other way, mov", lambda folder: film(folder / "a.mov", rotation=-90), every_frame,
        Comes(that=exact()), kind=7),
    Row("mirrored by its matrix", lambda folder: film(folder / "a.mp4", mirrored=True), every_frame,
        Comes(that=exact(mirrored=True)), kind=7),
    Row("an edit list that hides the start", lambda folder: film(folder / "a.mp4", range(-7, 17)), every_frame,
        Comes(that=lambda it: exact()(it) and numbers_in(it[0]) == list(range(10, 18))), kind=7),
    Row("a start with B-frames",
        lambda folder: film(folder / "a.mp4", options={"x264-params": "bframes=4:b-pyramid=2:keyint=9:open-gop=1"}),
        every_frame, Comes(that=exact()), kind=7),
    Row("a timeline without end is refused before anything is decoded",
        # Three hours of one picture in five minutes, as of a camera that looks rarely.
        lambda folder: film(folder / "hours.mkv", range(0, 10_801, 300), Fraction(1, 1)),
        lambda bench, path: bench.command("predict", path, "--model", bench.engagement_folder, "--timeline", 0.2,
                                          "--plot-dir", path.parent),
        Refused(("hours.mkv", "at most 12,000 spans", "55,500", "step of at least 1 s")), kind=27),
    Row("a timeline that is just short enough", lambda folder: folder,
        lambda bench, path: plan_windows(10_800, 8, None, 0.9), Comes(that=lambda windows: len(windows) > 12_000),
        kind=27),
    *(
        Row(f"a timeline's step of {step}", lambda folder: write_film(folder / "clip.mp4"),
            lambda bench, path, step=step: bench.engagement.predict(path, step), Refused(("above 0 s",)), kind=27)
        for step in (0.0, -1.0, float("nan"))
    ),
]  # fmt: skip
