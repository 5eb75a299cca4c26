"""Copies of films with faces blurred: who is covered and when, sound, times, what must not come along, what breaks."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numbered_videos import decode_plainly, encode, numbered_picture, numbers_in

from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    Person,
    draw_people,
    draw_subject,
    engagement_trajectory,
)
from engagement_recognition.live.session.blur import NOT_ANONYMOUS, blur_face, blur_faces
from engagement_recognition.live.session.face_paths import AROUND_SEC, MAX_GAP_SEC, FacePaths
from engagement_recognition.live.sources import FileSource
from engagement_recognition.processor.face_detection import FaceDetections, FaceDetector
from engagement_recognition.processor.input_errors import EngagementInputError, VideoReadError

FPS, NUM_FRAMES, WIDTH_PX, HEIGHT_PX, HEAD_WIDTH_PX = 8, 28, 320, 180, 56
MOST_KEPT = 0.2  # of the fine structure of a face that was blurred
NOBODY = "no face was found, so nothing is blurred"
Centers = list[dict[str, tuple[float, float]]]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Centers]:
    """Three and a half seconds of two people, of whom one leaves after one; and where each head is in each frame."""
    path = tmp_path_factory.mktemp("blur") / "people.mp4"
    subjects = {"sitter": draw_subject(1), "leaver": draw_subject(2)}
    levels = AffectLevels(boredom=0, engagement=3, confusion=0, frustration=0)
    moving = engagement_trajectory(levels, "appearance", NUM_FRAMES / FPS, FPS, np.random.default_rng(0))
    poses = [replace(pose, offset_x=0.0, offset_y=0.0) for pose in moving]
    centers = []
    for index in range(NUM_FRAMES):
        x = float(np.interp(index / FPS, [1.0, 1.6], [80, -60]))
        centers.append({"sitter": (220.0, 75.0), "leaver": (x, 75.0)})
    frames = (
        draw_people(
            [Person(subjects[name], poses[index], xy, HEAD_WIDTH_PX) for name, xy in centers[index].items()],
            WIDTH_PX, HEIGHT_PX, noise_seed=index,
        )
        for index in range(NUM_FRAMES)
    )  # fmt: skip
    encode_video(path, frames, FPS, WIDTH_PX, HEIGHT_PX, "mp4")
    return path, centers


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody is drawn there is no need to look."""
    monkeypatch.setattr(FaceDetector, "detect_thorough", lambda _, frames: [detections() for _ in frames])


def detections(*boxes_xyxy_px: tuple[float, float, float, float]) -> FaceDetections:
    boxes = np.array(boxes_xyxy_px, np.float32).reshape(-1, 4)
    return FaceDetections(boxes, np.ones(len(boxes), np.float32), np.zeros((len(boxes), 5, 2), np.float32))


def frames_of(path: Path) -> np.ndarray:
    return np.stack([frame.pixels for frame in FileSource(path).frames()])


def shares_kept(path: Path, copy: Path, centers: Centers) -> dict[tuple[int, str], float]:
    """How much of its fine structure the middle of each head still has that is in the picture: 1 is all of it."""
    fine = []
    for frames in (frames_of(path), frames_of(copy)):
        grey = frames.mean(axis=3)
        fine.append([frame - cv2.blur(frame, (HEAD_WIDTH_PX // 4,) * 2) for frame in grey])
    half, kept = HEAD_WIDTH_PX // 3, {}
    for index, names in enumerate(centers):
        for name, (x, y) in names.items():
            if half < x < WIDTH_PX - half:
                place = (slice(round(y) - half, round(y) + half), slice(round(x) - half, round(x) + half))
                before, after = fine[0][index][place], fine[1][index][place]
                kept[index, name] = float((before * after).sum() / (before * before).sum())
    return kept


# --- Faces


def test_every_face_is_covered_in_every_frame_and_nothing_else_changes(people: tuple[Path, Centers], tmp_path: Path):
    path, centers = people
    done_sec: list[float] = []
    report = blur_faces(path, tmp_path / "blurred.mp4", done_sec.append)
    assert report.num_frames == report.num_frames_with_faces == report.num_frames_looked_at == NUM_FRAMES
    kept = shares_kept(path, tmp_path / "blurred.mp4", centers)
    assert len(kept) > NUM_FRAMES and max(kept.values()) < MOST_KEPT, max(kept, key=lambda key: kept[key])
    before, after = frames_of(path), frames_of(tmp_path / "blurred.mp4")
    assert not any(len(found) for found in FaceDetector().detect_thorough(after[::4]))
    # The leaver has been gone for longer than somebody is waited for.
    changes = np.abs(after[-1].astype(int) - before[-1]).max(axis=2)
    assert changes[:, : WIDTH_PX // 3].mean() < 5 < changes[40:110, 190:250].mean()
    assert done_sec == sorted(done_sec) and 3.3 < done_sec[-1] <= report.duration_sec == 3.5
    assert report.notes == ()


def test_a_face_that_is_overlooked_for_a_while_stays_covered(
    people: tuple[Path, Centers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, centers = people
    numbers = iter(range(NUM_FRAMES))
    look = FaceDetector.detect_thorough

    def overlook(detector: FaceDetector, frames: np.ndarray) -> list[FaceDetections]:
        return [detections() if next(numbers) in range(4, 24) else found for found in look(detector, frames)]

    monkeypatch.setattr(FaceDetector, "detect_thorough", overlook)
    report = blur_faces(path, tmp_path / "blurred.mp4")
    assert report.num_frames_with_faces == NUM_FRAMES and report.num_frames_covered_between == 20
    kept = shares_kept(path, tmp_path / "blurred.mp4", centers)
    assert max(share for (_, name), share in kept.items() if name == "sitter") < MOST_KEPT


def test_without_a_face_the_pictures_stay_as_they_are(tmp_path: Path, nobody: None):
    encode(tmp_path / "film.mp4")
    report = blur_faces(tmp_path / "film.mp4", tmp_path / "blurred.mp4")
    before, after = frames_of(tmp_path / "film.mp4"), frames_of(tmp_path / "blurred.mp4")
    assert np.abs(after.astype(int) - before).mean() < 3 and numbers_in(after) == list(range(40))
    assert (report.num_frames, report.num_frames_with_faces, report.notes) == (40, 0, (NOBODY,))


def paths_of(sightings: list[tuple[float, tuple[float, float, float, float] | None]]) -> FacePaths:
    paths, frame = FacePaths(), np.full((200, 300, 3), 90, np.uint8)
    for time_sec, box in sightings:
        paths.add(detections(*([box] if box else [])), frame, time_sec)
    paths.finish()
    return paths


def test_a_place_lies_between_its_sightings_and_is_larger_the_longer_nobody_saw_it():
    paths = paths_of([(0.0, (10, 10, 50, 50)), (0.1, (10, 10, 50, 50)), *((t, None) for t in (0.6, 1.1)),
                      (2.1, (30, 10, 70, 50))])  # fmt: skip
    [seen] = paths.faces_at(0.1)
    assert seen.is_seen and seen.box_xyxy_px.tolist() == [10, 10, 50, 50]
    [between] = paths.faces_at(1.1)
    assert not between.is_seen
    left, top, right, bottom = between.box_xyxy_px
    assert (left + right) / 2 == pytest.approx(40) and (top + bottom) / 2 == pytest.approx(30)
    assert right - left == pytest.approx(60)
    widths = [np.ptp(paths.faces_at(time_sec)[0].box_xyxy_px[::2]) for time_sec in (2.1, 2.2, 2.6, 3.0)]
    assert all(earlier < later for earlier, later in pairwise(widths))


def test_a_face_is_covered_before_and_after_it_is_seen_and_through_a_gap_of_seconds_only():
    box = (10.0, 10.0, 50.0, 50.0)
    start, short, long = 2.0, MAX_GAP_SEC - 0.1, MAX_GAP_SEC + 2
    times = [start, start + 0.1, start + short, start + short + 0.1]
    gone = [(start + short + 0.2 + number * 0.5, None) for number in range(round(long / 0.5))]
    paths = paths_of([(0.0, None), *((time_sec, box) for time_sec in times), *gone, (times[-1] + long, box)])
    assert not paths.faces_at(start - AROUND_SEC - 0.1) and paths.faces_at(start - AROUND_SEC + 0.1)
    assert all(paths.faces_at(time_sec) for time_sec in np.arange(start, times[-1], 0.1))
    after = np.arange(times[-1], times[-1] + long, 0.1)
    covered = [bool(paths.faces_at(time_sec)) for time_sec in after]
    from_end_sec = np.minimum(after - times[-1], times[-1] + long - after)
    assert covered == (from_end_sec <= AROUND_SEC).tolist()


def test_a_blur_keeps_within_the_picture_and_its_ellipse():
    frame = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    for box in [(-300, -300, -200, -200), (400, 10, 440, 60)]:
        changed = frame.copy()
        blur_face(changed, np.array(box, float))
        np.testing.assert_array_equal(changed, frame)
    changed = frame.copy()
    blur_face(changed, np.array([-20.0, 40.0, 20.0, 80.0]))
    assert changed[40:80, :20].std() < 25 < frame.std() / 2, "most of what is there is gone"
    np.testing.assert_array_equal(changed[:, 60:], frame[:, 60:])
    np.testing.assert_array_equal(changed[0], frame[0])


# --- Times, sizes, sound


def test_uneven_times_are_kept(tmp_path: Path, nobody: None):
    pts = [number + number * number // 5 for number in range(40)]
    encode(tmp_path / "film.mkv", pts=pts)
    blur_faces(tmp_path / "film.mkv", tmp_path / "blurred.mp4")
    times_sec = [frame.time_sec for frame in FileSource(tmp_path / "blurred.mp4").frames()]
    np.testing.assert_allclose(times_sec, np.array(pts) / 30, atol=1e-3)


def test_a_copy_stands_upright_without_being_told(tmp_path: Path, nobody: None):
    encode(tmp_path / "film.mp4", rotation=90)
    blur_faces(tmp_path / "film.mp4", tmp_path / "blurred.mp4")
    with av.open(str(tmp_path / "blurred.mp4")) as container:
        first = next(container.decode(video=0))
    upright = decode_plainly(str(tmp_path / "film.mp4"))[0]
    assert first.rotation == 0 and first.to_ndarray(format="rgb24").shape == upright.shape
    assert np.abs(first.to_ndarray(format="rgb24").astype(int) - upright).mean() < 4


def test_an_odd_side_gets_one_more_line(tmp_path: Path, nobody: None):
    with av.open(str(tmp_path / "film.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 95, 71, "bgr0"
        for number in range(5):
            picture = np.ascontiguousarray(numbered_picture(number)[:71, :95])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    blur_faces(tmp_path / "film.avi", tmp_path / "blurred.mp4")
    assert frames_of(tmp_path / "blurred.mp4").shape == (5, 72, 96, 3)


def write_film(
    path: Path, sound: str = "aac", rate: int = 44_100, num_streams: int = 1, late_pictures_sec: float = 0.0
) -> None:
    """Three seconds: at 1 s and at 2 s a white picture and a beep; titles and a place. One frame in 10 is none."""
    packets = []
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "Anna in Berlin", "location": "+52.5+013.4/", "comment": "secret"})
        is_avi = path.suffix == ".avi"
        video = container.add_stream("mpeg4" if is_avi else "libx264", rate=20)
        video.width, video.height, video.pix_fmt = 96, 72, "yuv420p"
        streams = [container.add_stream(sound, rate=rate, layout="mono") for _ in range(num_streams)]
        for stream in streams:
            stream.metadata.update({"language": "deu", "title": "Anna's microphone"})
        for number in range(round(late_pictures_sec * 20), 60):
            level = 255 if number in (20, 40) else 30
            frame = av.VideoFrame.from_ndarray(np.full((72, 96, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 20)
            packets += video.encode(frame)
        times_sec = np.arange(3 * rate) / rate
        tone = np.sin(2 * np.pi * 880 * times_sec) * (times_sec % 1 < 0.1) * (times_sec >= 1)
        for stream in streams:
            for start in range(0, len(tone), rate // 20):
                samples = np.ascontiguousarray(tone[None, start : start + rate // 20], np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                packets += stream.encode(frame)
        for stream in (video, *streams):
            packets += stream.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def flashes_and_beeps(path: Path) -> tuple[list[float], list[list[float]]]:
    """When pictures are white; and, a list a stream, when it begins to sound."""
    with av.open(str(path)) as container:
        flashes = [frame.time for frame in container.decode(video=0) if frame.to_ndarray(format="gray").mean() > 150]
        num_streams = len(container.streams.audio)
    beeps = []
    for index in range(num_streams):
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono")
            frames = [part for frame in container.decode(audio=index) for part in resampler.resample(frame)]
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        times_sec = frames[0].time + np.arange(len(samples)) / frames[0].sample_rate
        loud_sec = times_sec[np.abs(samples) > 0.2]
        beeps.append([float(loud_sec[0]), *(b for a, b in pairwise(loud_sec.tolist()) if b - a > 0.5)])
    return flashes, beeps


@pytest.mark.parametrize(
    ("name", "sound", "rate", "codec"),
    [
        ("film.mp4", "aac", 44_100, "aac"),
        ("film.mkv", "libopus", 48_000, "opus"),
        ("film.mov", "pcm_s16le", 44_100, "aac"),
        ("film.mkv", "flac", 22_254, "aac"),
        ("film.ts", "aac", 44_100, "aac"),
    ],
)
def test_sound_stays_in_time_with_the_pictures(
    name: str, sound: str, rate: int, codec: str, tmp_path: Path, nobody: None
):
    write_film(tmp_path / name, sound, rate, num_streams=2)
    report = blur_faces(tmp_path / name, tmp_path / "blurred.mp4")
    flashes, beeps = flashes_and_beeps(tmp_path / "blurred.mp4")
    assert flashes == pytest.approx([1, 2], abs=1e-3) and report.duration_sec == pytest.approx(3, abs=1e-3)
    assert len(beeps) == 2 and all(times == pytest.approx([1, 2], abs=0.005) for times in beeps)
    with av.open(str(tmp_path / "blurred.mp4")) as container:
        assert [stream.codec.canonical_name for stream in container.streams] == ["h264", codec, codec]
        assert container.duration / av.time_base == pytest.approx(3, abs=0.05)


def test_sound_that_begins_before_the_pictures_is_not_shifted(tmp_path: Path, nobody: None):
    write_film(tmp_path / "film.mkv", late_pictures_sec=0.5)
    blur_faces(tmp_path / "film.mkv", tmp_path / "blurred.mp4")
    flashes, [beeps] = flashes_and_beeps(tmp_path / "blurred.mp4")
    assert flashes == pytest.approx([0.5, 1.5], abs=1e-3) and beeps == pytest.approx([0.5, 1.5], abs=0.005)


def test_a_copied_sound_is_the_same_to_the_byte(tmp_path: Path, nobody: None):
    write_film(tmp_path / "film.mp4")
    blur_faces(tmp_path / "film.mp4", tmp_path / "blurred.mp4")
    copies = []
    for name in ("film.mp4", "blurred.mp4"):
        with av.open(str(tmp_path / name)) as container:
            copies.append([bytes(packet) for packet in container.demux(audio=0)])
    assert len(copies[0]) > 100 and copies[0] == copies[1]


def test_no_title_place_language_or_subtitle_comes_along(tmp_path: Path, nobody: None):
    write_film(tmp_path / "film.mp4")
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nAnna speaks\n")
    with (
        av.open(str(tmp_path / "film.mp4")) as film,
        av.open(str(tmp_path / "words.srt")) as words,
        av.open(str(tmp_path / "more.mkv"), "w") as more,
    ):
        more.add_attachment("anna.txt", "text/plain", b"Anna Berlin")
        more.metadata["title"] = "Anna in Berlin"
        more.set_chapters(
            [{"start": 0, "end": 9, "id": 1, "time_base": Fraction(1, 10), "metadata": {"title": "Anna"}}]
        )
        streams = {stream: more.add_stream_from_template(stream) for part in (words, film) for stream in part.streams}
        for packet in [packet for part in (words, film) for packet in part.demux() if packet.dts is not None]:
            packet.stream = streams[packet.stream]
            more.mux(packet)
    assert b"Anna" in (tmp_path / "more.mkv").read_bytes()
    for name in ("film.mp4", "more.mkv"):
        blur_faces(tmp_path / name, tmp_path / "blurred.mp4")
        copied = (tmp_path / "blurred.mp4").read_bytes()
        assert not any(word in copied for word in (b"Anna", b"Berlin", b"secret", b"+52.5", b"deu"))
        with av.open(str(tmp_path / "blurred.mp4")) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
            assert not container.chapters()


# --- What breaks


def cut_film(path: Path, keep: float) -> None:
    content = encode(path, mux={"movflags": "faststart"}, num_frames=200, options={"g": "10"})
    path.write_bytes(content[: round(len(content) * keep)])


def test_of_a_film_that_breaks_off_the_copy_has_what_can_be_read_and_a_note_says_so(tmp_path: Path, nobody: None):
    cut_film(tmp_path / "cut.mp4", 0.6)
    report = blur_faces(tmp_path / "cut.mp4", tmp_path / "blurred.mp4")
    numbers = numbers_in(frames_of(tmp_path / "blurred.mp4"))
    assert 50 < len(numbers) < 199 and numbers == list(range(len(numbers))) and report.num_frames == len(numbers)
    note, _ = report.notes
    assert f"breaks off after {report.duration_sec:.1f} s" in note


def test_a_film_of_which_nothing_can_be_read_leaves_nothing(tmp_path: Path):
    content = encode(tmp_path / "film.mp4")
    (tmp_path / "film.mp4").write_bytes(content[:2000])
    with pytest.raises(VideoReadError):
        blur_faces(tmp_path / "film.mp4", tmp_path / "blurred.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, nobody: None):
    resource = pytest.importorskip("resource")  # Windows has none
    encode(tmp_path / "film.mp4")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        with pytest.raises(EngagementInputError, match=r"video \S+blurred\.mp4 cannot be written") as caught:
            blur_faces(tmp_path / "film.mp4", tmp_path / "blurred.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value) and "plays up to there" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_film_does_not_take_its_own_place(tmp_path: Path):
    content = encode(tmp_path / "film.mp4")
    with pytest.raises(EngagementInputError, match="is the source video"):
        blur_faces(tmp_path / "film.mp4", tmp_path / "." / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes() == content


def test_what_remains_is_said_in_a_sentence():
    assert NOT_ANONYMOUS.endswith(".") and "\n" not in NOT_ANONYMOUS and "voices" in NOT_ANONYMOUS
