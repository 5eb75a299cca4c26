"""Films that are spoilt on purpose, films that merely look so, and what must come out of them."""

import io
import re
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal

import av
import mutations
import numpy as np
from numbered_videos import HEIGHT_PX, WIDTH_PX, encode, numbered_picture, numbers_in
from rows import Comes, Expected, Row

from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.processor.video_decoding import decode_clips
from engagement_recognition.processor.video_index import VideoIndex, index_video

FPS = 30
_GROUPS = {"g": "12"}


def film(name: str) -> bytes:
    """Of 48 numbered frames at 30 a second, a group every 12."""
    return mutations.film(name)


def read(bench: object, given: bytes | Path) -> VideoIndex:
    return index_video(given)


def shows(numbers: Sequence[int], times_sec: Sequence[float] | None = None) -> Callable[[VideoIndex], None]:
    """These frames are left, each at its own time, and each is the picture that it was."""

    def check(index: VideoIndex) -> None:
        (clip,) = decode_clips(index, [np.arange(index.num_frames)])
        assert not isinstance(clip, Exception), clip
        assert numbers_in(clip.frames) == list(numbers)
        expected = np.array(numbers) / FPS if times_sec is None else times_sec
        np.testing.assert_allclose(index.frame_times_sec, expected, atol=2e-3)

    return check


def whole(count: int = 48, times_sec: Sequence[float] | None = None) -> Comes:
    """Every frame, and not a word of damage."""

    def check(index: VideoIndex) -> None:
        assert index.notes == (), index.notes
        shows(range(count), times_sec)(index)

    return Comes(that=check)


def lost(first: int, end: int, says: str = "the file is damaged") -> Comes:
    """All but the frames from `first` up to, not including, `end`; their number and place are said."""
    since = f"{end - first} of 48 frames are missing or damaged from {(first - 1) / FPS:.1f} s on"
    return Comes((says, since), shows([number for number in range(48) if not first <= number < end]))


def spoil(name: str, *changes: tuple[int, bytes]) -> Callable[[Path], bytes]:
    """The film with bytes written over it, each at a place in the file."""

    def make(folder: Path) -> bytes:
        data = bytearray(film(name))
        for at, content in changes:
            data[at : at + len(content)] = content
        return bytes(data)

    return make


@cache
def _packets(name: str) -> list[tuple[int, int]]:
    """(position, size) of each in the file."""
    with av.open(io.BytesIO(film(name))) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def over_packet(name: str, number: int, content: bytes, offset: int = 0) -> Callable[[Path], bytes]:
    """The film with bytes written over a packet, `offset` bytes from where its contents begin."""
    return lambda folder: spoil(name, (_packets(name)[number][0] + offset, content))(folder)


def without_packets(name: str, first: int, end: int) -> Callable[[Path], bytes]:
    """The film with the bytes between two packets taken out, and everything after moved up."""

    def make(folder: Path) -> bytes:
        data, packets = film(name), _packets(name)
        return data[: packets[first][0]] + data[packets[end][0] :]

    return make


def written(name: str, codec: str = "libx264", **options: object) -> Callable[[Path], Path]:
    """A healthy film."""

    def make(folder: Path) -> Path:
        encode(folder / name, codec, **options)
        return folder / name

    return make


def over_fragment(number: int) -> Callable[[Path], bytes]:
    """The film in fragments with the head of one overwritten."""

    def make(folder: Path) -> bytes:
        data = film("h264_fragments.mp4")
        at = [match.start() for match in re.finditer(b"moof", data)][number]
        return data[: at - 4] + b"\xff" * 40 + data[at + 36 :]

    return make


def resize(name: str, part: bytes, offset: int, by: int, order: Literal["big", "little"]) -> Callable[[Path], bytes]:
    """The film with the size of a part, `offset` bytes from its name, set too high."""

    def make(folder: Path) -> bytes:
        data = bytearray(film(name))
        at = data.index(part) + offset
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], order) + by).to_bytes(4, order)
        return bytes(data)

    return make


def avi_of_two_minds(folder: Path) -> bytes:
    """The list of chunks has lost its head, and the index its beginning."""
    data = bytearray(film("mpeg4.avi"))
    at, index = data.index(b"movi") - 8, data.index(b"idx1")
    data[at : at + 400] = bytes(400)
    data[index + 8 : index + 8 + 16 * 4] = bytes(16 * 4)
    return bytes(data)


def shrink(name: str, box: bytes, size: int) -> Callable[[Path], bytes]:
    """The film with a box of `size` bytes, which is too few, and a filler after it."""

    def make(folder: Path) -> bytes:
        data = film(name)
        at = data.index(box)
        rest = int.from_bytes(data[at - 4 : at], "big") - 8 - size
        filler = rest.to_bytes(4, "big") + b"free" + bytes(rest - 8)
        return (
            data[: at - 4]
            + (8 + size).to_bytes(4, "big")
            + data[at : at + 4 + size]
            + filler
            + data[at + 4 + size + rest :]
        )

    return make


def zeros_within_ts(folder: Path) -> bytes:
    """As a card leaves it that was pulled out while it was written to."""
    data, at = film("h264.ts"), 188 * (_packets("h264.ts")[29][0] // 188)
    return data[:at] + bytes(188 * 6000) + data[at + 188 * 2 :]


def fillers_in_mkv(folder: Path) -> bytes:
    """A segment of unknown length with nothing else in it."""
    return b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7 + b"\xec\x80" * 5_000_000


def longer_segment(folder: Path) -> bytes:
    """Matroska's segment says in eight bytes how long it is."""
    data = film("h264.mkv")
    at = data.index(b"\x18\x53\x80\x67") + 4
    return data[:at] + (int.from_bytes(data[at : at + 8], "big") + 20).to_bytes(8, "big") + data[at + 8 :]


def with_sound(folder: Path) -> Path:
    """Four seconds of sound, and pictures in the first of them alone."""
    path = folder / "sound.mkv"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=FPS), container.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(FPS):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        for second in range(4):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 16000, second * 16000, Fraction(1, 16000)
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


def silent(bench: object, mutants: Sequence[mutations.Mutant]) -> list[str]:
    """Films that gave fewer frames than they have, and said nothing; any error but ours comes through."""
    names = []
    for mutant in mutants:
        try:
            index = index_video(mutant.data)
            (clip,) = decode_clips(index, [np.arange(0, index.num_frames, 7)])
        except EngagementInputError as error:
            assert "\n" not in str(error)
            continue
        if index.num_frames < mutations.NUM_FRAMES and not index.notes and not isinstance(clip, Exception):
            names.append(mutant.name)
    # Where a transport stream is cut nothing tells that there was more.
    return [name for name in names if ".ts cut" not in name]


def within(seconds: float) -> Callable[[object, bytes], VideoIndex]:
    """Reads a film, and not for long."""

    def run(bench: object, given: bytes) -> VideoIndex:
        start = time.perf_counter()
        try:
            return index_video(given)
        finally:
            assert time.perf_counter() - start < seconds

    return run


def row(name: str, make: Callable[[Path], bytes | Path], expect: Expected, kind: int | None = 1) -> Row:
    return Row(name, make, read, expect, kind)
