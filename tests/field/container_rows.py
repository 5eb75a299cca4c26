"""Containers, codecs and forms of pictures, each of which gives just the frames that it has."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from damaged_films import film, row, shows, whole, written
from made_fields import write_fields
from numbered_videos import decode_frames_at, decode_plainly, numbers_in, write_sound
from PIL import Image
from rows import Comes, Expected, Refused, Row

from engagement_recognition.data.required_packages import OF_A_MODEL, pip_lines
from engagement_recognition.processor.input_errors import NoVideoStreamError, TruncatedVideoError, VideoReadError
from engagement_recognition.processor.video_decoding import decode_video
from engagement_recognition.processor.video_index import VideoIndex

TOP_FIRST = {"x264-params": "interlaced=1:tff=1:keyint=12"}


def fields(name: str) -> Row:
    """Each field a packet: frames come out alone and together, at 25 a second."""

    def check(index: VideoIndex) -> None:
        assert index.notes == () and index.num_frames == 12 and index.fps == 25
        np.testing.assert_allclose(index.frame_times_sec, np.arange(12) / 25, atol=1e-3)
        for wanted in ([0], [5], [6], [11], [3, 7], range(12)):
            assert numbers_in(decode_frames_at(index, wanted).frames) == list(wanted)

    ending = Path(name).suffix[1:]
    return row(f"{ending} of field pictures", lambda folder: write_fields(folder / name), Comes(that=check), 15)


def as_decoded(index: VideoIndex) -> None:
    """Every frame is what a plain decode gives."""
    plain = decode_plainly(index.path)
    assert all("as square" in note for note in index.notes) and index.num_frames == len(plain)
    np.testing.assert_array_equal(decode_frames_at(index, range(len(plain))).frames, plain)


def interlaced(name: str, make: Callable[[Path], Path]) -> Row:
    return row(name, make, Comes(that=as_decoded), 15)


def digital_video(name: str) -> Callable[[Path], Path]:
    """DV is always interlaced, and always of this size."""

    def make(folder: Path) -> Path:
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("dvvideo", rate=25)
            stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
            for number in range(4):
                picture = av.VideoFrame.from_ndarray(np.full((576, 720, 3), 40 * number + 40, np.uint8), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return folder / name

    return make


def sized(name: str, codec: str, width_px: int, height_px: int, pixel_format: str = "yuv420p") -> Row:
    """A film of one size, which comes out in this size."""

    def make(folder: Path) -> Path:
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, pixel_format
            for number in range(3):
                shade = np.full((height_px, width_px, 3), 60 * number + 40, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
            container.mux(stream.encode())
        return folder / name

    def check(index: VideoIndex) -> None:
        frames = decode_frames_at(index, [0, 1, 2]).frames
        assert frames.shape == (3, height_px, width_px, 3) and index.notes == ()
        assert (np.diff(frames.reshape(3, -1).mean(axis=1)) > 40).all()

    return row(f"{codec} of {width_px}x{height_px} in {pixel_format}", make, Comes(that=check), None)


def short(num_frames: int) -> Row:
    """Eight frames are wanted of a film with so few, or one more."""

    def check(decoded: object) -> None:
        assert numbers_in(decoded.frames) == [(2 * place + 1) * num_frames // 16 for place in range(8)]

    make = written("short.mkv", num_frames=num_frames)
    return Row(
        f"mkv of {num_frames} frame{'s' * (num_frames > 1)}",
        make,
        lambda bench, path: decode_video(path, 8),
        Comes(that=check),
    )


def left_of(name: str, share: float) -> Callable[[Path], bytes]:
    return lambda folder: film(name)[: int(len(film(name)) * share)]


def wrong_count(folder: Path) -> bytes:
    """AVI's header speaks of 300 frames."""
    data = film("mpeg4.avi")
    at = data.index(b"avih") + 8 + 16
    return data[:at] + (300).to_bytes(4, "little") + data[at + 4 :]


def picture(folder: Path) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    (folder / "clip.mp4").write_bytes(file.getvalue())
    return folder / "clip.mp4"


def sound(folder: Path) -> Path:
    write_sound(folder / "lecture.mp4")
    return folder / "lecture.mp4"


def folder_called_mp4(folder: Path) -> Path:
    (folder / "clip.mp4").mkdir()
    return folder / "clip.mp4"


def empty(folder: Path) -> Path:
    (folder / "clip.mkv").touch()
    return folder / "clip.mkv"


def refused(*words: str, kind: type[VideoReadError] = VideoReadError) -> Expected:
    return Refused(words, kind)


def cut(name: str, share: float) -> Row:
    expect = refused("<bytes>", "truncated after frame", kind=TruncatedVideoError)
    return row(f"{name} cut at {share:.0%}", left_of(name, share), expect, None)


def plain(name: str, codec: str, fps: int = 30, num_frames: int = 24, **options: object) -> Row:
    make = written(name, codec, fps=fps, num_frames=num_frames, **options)
    expect = whole(num_frames, np.arange(num_frames) / fps)
    return row(f"{codec} in {Path(name).suffix[1:]} at {fps} fps", make, expect, None)


NAMES: Sequence[str] = ("f.ts", "f.m2ts", "f.mts", "f.mkv", "f.mp4", "f.mov", "f.avi", "f.flv")
ROWS = [
    *(fields(name) for name in NAMES),
    interlaced("h264 of interlaced frames in ts", written("i.ts", options=TOP_FIRST)),
    interlaced("h264 of interlaced frames in mkv", written("i.mkv", options=TOP_FIRST)),
    interlaced("mpeg2 of interlaced frames in mpg", written("i.mpg", "mpeg2video", options={"flags": "+ildct+ilme"})),
    interlaced("mpeg2 of interlaced frames in ts", written("i.ts", "mpeg2video", options={"flags": "+ildct+ilme"})),
    interlaced("dv in avi", digital_video("dv.avi")),
    interlaced("dv in mov", digital_video("dv.mov")),
    interlaced("dv by itself", digital_video("tape.dv")),
    *(short(count) for count in (1, 2, 5, 7, 8, 9)),
    plain("slow.mp4", "libx264", fps=1),
    plain("fast.mkv", "libx264", fps=240),
    plain("film.ogv", "libvpx"),
    plain("film.3gp", "mpeg4"),
    plain("film.wmv", "wmv2"),
    plain("film.ivf", "libsvtav1"),
    sized("odd.mkv", "ffv1", 101, 67),
    sized("grey.mkv", "ffv1", 64, 48, "gray"),
    sized("deep.mp4", "libx265", 96, 72, "yuv420p10le"),
    sized("alpha.mov", "png", 50, 33, "rgba"),
    sized("tiny.avi", "mjpeg", 16, 16, "yuvj420p"),
    *(cut(name, share) for name in ("h264_front.mp4", "hevc.mkv", "mpeg4.avi", "vp9.webm") for share in (0.5, 0.9)),
    row("mkv cut in its head", left_of("h264.mkv", 0.03), refused("<bytes>", "Expected a"), 25),
    row("avi whose header lies about its frames", wrong_count, Comes(that=shows(range(48))), None),
    row("picture called mp4", picture, refused("clip.mp4", "PNG picture", "predict"), None),
    row("sound alone", sound, refused("lecture.mp4", "audio only", "camera", kind=NoVideoStreamError), None),
    row("folder called mp4", folder_called_mp4, refused("clip.mp4", "a directory", "check the path"), None),
    row("nothing there", lambda folder: folder / "clip.mp4", refused("clip.mp4", "no such file", "check"), None),
    Row(
        "what an endpoint installs",
        lambda folder: OF_A_MODEL,
        lambda bench, names: pip_lines(names),
        Comes(that=lambda lines: "av>=17.1" in lines),
        14,
    ),
    row("empty mkv", empty, refused("clip.mkv", "0 bytes", "record it again"), None),
]
