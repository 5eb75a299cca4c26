"""Films as a player shows them: of several tracks the default one, square pixels, SDR, one size; whom they show; and
cameras at an address."""

import csv
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
from bench import Bench, Said, face_frames, write_film
from numbered_videos import numbers_in
from rows import Comes, Refused, Row
from time_inputs import camera, face_tracks, film, hdr_film, sizes_film, stretched_faces, two_tracks
from time_rows import numbered, read

from engagement_recognition import EngagementVideoProcessor
from engagement_recognition.live import network
from engagement_recognition.live.page_html import video_page
from engagement_recognition.live.session.blur import BlurReport, blur_faces
from engagement_recognition.live.sources import open_source
from engagement_recognition.processor.video_index import index_video

FIRST, SECOND = numbered(*range(8)), numbered(*range(100, 108))


def sized(width_px: int, height_px: int) -> Callable[[Any], bool]:
    """That pictures have this size."""
    return lambda index: (index.width_px, index.height_px) == (width_px, height_px)


def index_of(as_played: bool = True) -> Callable[[Bench, Path], Any]:
    """What is known of a file before it is decoded."""
    return lambda bench, path: index_video(path, as_played=as_played)


def looks_like(faces: list[np.ndarray], most: float) -> Callable[[Any], bool]:
    """That the frames differ from these by so many levels on average, at most."""
    return lambda clip: np.abs(clip.whole_frames.astype(int) - np.stack(faces)).mean() < most


def face_shape(bench: Bench, path: Path) -> float:
    """Width by height of the face's box."""
    clip = EngagementVideoProcessor(as_played=True, num_frames=2).prepare_clip(path)
    return float(np.divide(*(clip.boxes_xyxy_px[:, 2:] - clip.boxes_xyxy_px[:, :2]).mean(axis=0)))


def of_square_pixels(ratio: float) -> bool:
    """The drawn face's box is higher than wide; of pixels of 2:1 taken as square it would be three times."""
    return 0.6 < ratio < 1.0


def pair(path: Path) -> Path:
    """Two drawn people side by side."""
    both = zip(face_frames(), face_frames(person=2), strict=True)
    return write_film(path, [np.concatenate(faces, axis=1) for faces in both])


def two_in_csv(bench: Bench, path: Path) -> list[dict[str, str]]:
    """The rows of a table of answers."""
    table = path.with_suffix(".csv")
    said = bench.command("predict", path, "--output", table)
    assert said.code == 0, said
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def annotated(bench: Bench, path: Path) -> tuple[Said, list[np.ndarray]]:
    """What `live` says of a film, and the frames that it writes."""
    output = path.with_name("annotated.mp4")
    said = bench.command(
        "live", "--model", bench.expression_folder, "--source", path, "--no-window", "--output", output
    )
    with av.open(str(output)) as container:
        return said, [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def blurred(bench: Bench, path: Path) -> BlurReport:
    """A copy's report."""
    return blur_faces(path, path.with_name("blurred.mp4"))


def watched(path: str, num_frames: int | None = 5) -> Callable[[Bench, Path], tuple[int, tuple[int, ...]]]:
    """How many frames of a camera came, and their shape."""

    def run(bench: Bench, folder: Path) -> tuple[int, tuple[int, ...]]:
        count = 0
        with camera() as address, open_source(address(path)) as source:
            for frame in source.frames():  # noqa: B007
                count += 1
                if count == num_frames:
                    break
        return count, frame.pixels.shape

    return run


def hurried(bench: Bench, folder: Path) -> object:
    """A camera that says nothing, with less patience than usual."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(network, "OPEN_SEC", 0.3))
        address, began = stack.enter_context(camera()), time.perf_counter()
        try:
            return open_source(address("/silent"))
        finally:
            assert time.perf_counter() - began < 3


def live_at(address: str) -> Callable[[Bench, Path], Said]:
    """`engagement live` of an address."""
    return lambda bench, folder: bench.command(
        "live", "--model", bench.expression_folder, "--source", address, "--no-window", "--json"
    )


def of_one_size(result: tuple[Said, list[np.ndarray]]) -> bool:
    """All sixteen frames came, and the change was said once."""
    said, frames = result
    once = said.err.count("from 96x72 px to 192x144") == 1 and "scaled to the first size" in said.err
    return said.code == 0 and once and len(frames) == 16 and {frame.shape for frame in frames} == {(72, 96, 3)}


ROWS = [
    Row("mkv whose second track is the default", lambda folder: two_tracks(folder / "a.mkv"), read(),
        Comes(("2 video tracks, the default one taken (track 2)",), SECOND), kind=4),
    Row("mp4 whose second track is the default", lambda folder: two_tracks(folder / "a.mp4"), read(),
        Comes(("2 video tracks, the default one taken (track 2)",), SECOND), kind=4),
    Row("three tracks, the last is the default",
        lambda folder: two_tracks(folder / "a.mkv", 2, (True, True, True)), read(),
        Comes(("3 video tracks, the default one taken (track 3)",), numbered(*range(200, 208))), kind=4),
    Row("two tracks, none is the default", lambda folder: two_tracks(folder / "a.ts"), read(),
        Comes(("2 video tracks, the first one taken",), FIRST), kind=4),
    Row("two tracks as models before as_played read them", lambda folder: two_tracks(folder / "a.mkv"),
        read(as_played=False), Comes(("the first one taken (track 1); a player shows track 2",), FIRST), kind=4),
    Row("the track that was asked for", lambda folder: two_tracks(folder / "a.mkv"), read(video_track=1),
        Comes(that=lambda clip: FIRST(clip) and clip.notes == ()), kind=4),
    Row("predict another track than the default", lambda folder: face_tracks(folder / "a.mkv", default=0),
        lambda bench, path: bench.command("predict", path, "--video-track", 2), Comes(("face in 100%",)), kind=4),
    Row("a track that is not there", lambda folder: two_tracks(folder / "a.mkv"),
        lambda bench, path: bench.command("predict", path, "--video-track", 3),
        Refused(("a.mkv", "from 1 to 2, got 3")), kind=4),
    Row("an empty track that was asked for", lambda folder: two_tracks(folder / "a.mkv", 0, (True, False)),
        read(video_track=2), Refused(("a.mkv", "pictures in video track 2, got an empty one of 2", "another")), kind=4),
    Row("a second track of a film with one", lambda folder: film(folder / "a.mp4"), read(video_track=2),
        Refused(("a.mp4", "Expected a video track from 1, got 2")), kind=4),
    Row("an empty first track is passed over", lambda folder: two_tracks(folder / "a.mkv", 0, (False, True)), read(),
        Comes(("video track 1 is empty and passed over",), SECOND), kind=4),
    Row("an empty default track of ts is passed over", lambda folder: two_tracks(folder / "a.ts", 1, (True, False)),
        read(), Comes(("video track 2 is empty and passed over",), FIRST), kind=4),
    *(
        Row(f"{ending} with pixels of 16:11", lambda folder, ending=ending, codec=codec: film(
            folder / f"a.{ending}", range(9), codec=codec, aspect=Fraction(16, 11)),
            index_of(), Comes(("pixels of 16:11 made square",), sized(140, 72)), kind=5)
        for ending, codec in (("mp4", "libx264"), ("mkv", "mpeg4"), ("ts", "libx264"))
    ),
    Row("narrow pixels, turned", lambda folder: film(folder / "a.mp4", range(9), aspect=Fraction(8, 9), rotation=90),
        index_of(), Comes(("pixels of 8:9 made square",), sized(72, 85)), kind=5),
    Row("the pictures themselves, turned", lambda folder: film(folder / "a.mp4", aspect=Fraction(2), rotation=-90),
        read(), Comes(that=lambda clip: numbers_in(np.rot90(clip.whole_frames, 1, (1, 2))[:, :, ::2])
                      == clip.frame_indices.tolist()), kind=5),
    Row("wide pixels as models before as_played read them",
        lambda folder: film(folder / "a.mp4", range(9), aspect=Fraction(16, 11)), index_of(as_played=False),
        Comes(("pixels of 16:11 are taken as square",), sized(96, 72)), kind=5),
    Row("pixels of 50:1 cannot be", lambda folder: film(folder / "a.mkv", range(9), aspect=Fraction(50)), index_of(),
        Comes(("pixels of 50:1", "count as square"), sized(96, 72)), kind=5),
    Row("pixels of 1:10000, which FFmpeg takes for none",
        lambda folder: film(folder / "a.mp4", range(9), aspect=Fraction(1, 10_000)), index_of(),
        Comes(that=sized(96, 72)), kind=5),
    Row("square pixels, nearly", lambda folder: film(folder / "a.mp4", range(9), aspect=Fraction(959, 960)),
        index_of(), Comes(that=lambda index: sized(96, 72)(index) and index.notes == ()), kind=5),
    Row("a face in pixels of 2:1", lambda folder: stretched_faces(folder / "a.mp4", Fraction(2)), face_shape,
        Comes(that=of_square_pixels), kind=5),
    *(
        Row(f"HDR ({transfer})", lambda folder, transfer=transfer: hdr_film(folder / "hdr.mp4", transfer), read(),
            Comes((f"HDR ({transfer}): tone-mapped",), looks_like(face_frames(), 5)), kind=12)
        for transfer in ("HLG", "PQ")
    ),
    Row("HDR as models before as_played read it", lambda folder: hdr_film(folder / "hdr.mp4", "HLG"),
        read(as_played=False), Comes(("HDR (HLG): shown without tone mapping; colours are washed out",)), kind=12),
    Row("two people, said", lambda folder: pair(folder / "two.mp4"),
        lambda bench, path: bench.command("predict", path), Comes(("2 people, of whom one is read",)), kind=10),
    Row("two people in JSON", lambda folder: pair(folder / "two.mp4"),
        lambda bench, path: json.loads(bench.command("predict", path, "--json").out),
        Comes(that=lambda answer: answer["num_people"] == 2 and answer["notes"] == ["2 people, of whom one is read"]),
        kind=10),
    Row("two people in a table", lambda folder: pair(folder / "two.mp4"), two_in_csv,
        Comes(that=lambda rows: [row["num_people"] for row in rows] == ["2"]), kind=10),
    Row("two people on the page", lambda folder: pair(folder / "two.mp4"),
        lambda bench, path: video_page(bench.expression.predict_video(path, 1.0), bench.expression.rule),
        Comes(that=lambda html: "note: 2 people, of whom one is read" in html), kind=10),
    Row("one person", lambda folder: write_film(folder / "one.mp4"),
        lambda bench, path: bench.engagement.predict(path),
        Comes(that=lambda answer: answer.num_people == 1 and answer.notes == ()), kind=10),
    Row("live of a film whose size changes", lambda folder: sizes_film(folder / "sizes.ts"), annotated,
        Comes(that=of_one_size), kind=23),
    Row("a blurred copy of one", lambda folder: sizes_film(folder / "sizes.ts"), blurred,
        Comes(("scaled to the first size",), lambda report: report.num_frames == 16), kind=23),
    Row("frames of one", lambda folder: sizes_film(folder / "sizes.ts"), read(),
        Comes(that=numbered(*range(1, 16, 2))), kind=23),
    Row("a blurred copy has square pixels", lambda folder: film(folder / "a.mkv", range(4), aspect=Fraction(2)),
        blurred, Comes(("pixels of 2:1 made square",)), kind=5),
    Row("a camera over http", lambda folder: folder, watched("/cam"),
        Comes(that=lambda result: result == (5, (240, 320, 3))), kind=24),
    Row("a camera that ends", lambda folder: folder, watched("/ends", None),
        Refused(("http://127.0.0.1", "/ends stopped", "the connection failed", "check that it still runs")), kind=24),
    Row("no camera there", lambda folder: folder, watched("/none"),
        Refused(("can be opened at http://127.0.0.1", "404", "record it first")), kind=24),
    Row("a camera that says nothing", lambda folder: folder, hurried,
        Refused(("no answer within seconds", "record it first")), kind=24),
    Row("rtsp where nobody listens", lambda folder: folder, live_at("rtsp://somebody:secret@127.0.0.1:1/cam"),
        Refused(("can be opened at rtsp://127.0.0.1:1/cam", "Connection refused", "webcam:0")), kind=24),
    Row("a protocol that nobody knows", lambda folder: folder, live_at("smoke://hill/2"),
        Refused(("smoke://hill/2", "Protocol not found")), kind=24),
    Row("a camera by its number alone", lambda folder: folder, live_at("0"), Refused(("pass webcam:0",)), kind=24),
    Row("predict an rtsp address", lambda folder: "rtsp://somebody:secret@camera.example/1",
        lambda bench, address: bench.command("predict", address),
        Refused(("the address rtsp://camera.example/1", "record it first", "engagement live")), kind=24),
    Row("session of an http address", lambda folder: folder,
        lambda bench, folder: bench.command("session", "https://somebody:secret@films.example/a.mp4",  # not a secret
                                            "--model", bench.engagement_folder, "--output", folder / "session"),
        Refused(("the address https://films.example/a.mp4", "download it first")), kind=24),
    Row("predict an http address", lambda folder: "http://films.example/clip.mp4?full=1",
        lambda bench, address: bench.command("predict", address),
        Refused(("the address http://films.example/clip.mp4", "download it first")), kind=24),
]  # fmt: skip
