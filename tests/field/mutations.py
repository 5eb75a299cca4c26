"""Films of many containers and codecs, and ways in which discs, cards and links spoil them; all by a seed.

A mutated file must give all its frames, say what is missing, or be refused: what none of them holds is lost in silence.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numbered_videos import encode

NUM_FRAMES = 48
_QUIET = {"x265-params": "log-level=none:keyint=12:open-gop=0"}
_GROUPS = {"g": "12"}
# name: (codec, encoder options, muxer options); a header or an index of each tells how long it is.
FILMS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "h264.mp4": ("libx264", _GROUPS, {}),
    "h264_front.mp4": ("libx264", _GROUPS, {"movflags": "faststart"}),
    "h264_fragments.mp4": ("libx264", _GROUPS, {"movflags": "frag_keyframe+empty_moov"}),
    "h264.mkv": ("libx264", _GROUPS, {}),
    "h264.ts": ("libx264", _GROUPS, {}),
    "h264.avi": ("libx264", _GROUPS, {}),
    "h264.mov": ("libx264", _GROUPS, {}),
    "h264.flv": ("libx264", _GROUPS, {}),
    "hevc.mp4": ("libx265", _QUIET, {}),
    "hevc.mkv": ("libx265", _QUIET, {}),
    "hevc.ts": ("libx265", _QUIET, {}),
    "vp8.webm": ("libvpx", _GROUPS, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "5"}, {}),
    "vp9.mp4": ("libvpx-vp9", {"g": "12", "cpu-used": "5"}, {}),
    "av1.mp4": ("libsvtav1", {"g": "12", "preset": "11"}, {}),
    "av1.webm": ("libsvtav1", {"g": "12", "preset": "11"}, {}),
    "mpeg4.avi": ("mpeg4", _GROUPS, {}),
    "mpeg4.mkv": ("mpeg4", _GROUPS, {}),
    "mpeg4.mp4": ("mpeg4", _GROUPS, {}),
    "mjpeg.avi": ("mjpeg", {}, {}),
    "mjpeg.mov": ("mjpeg", {}, {}),
}


class Mutant(NamedTuple):
    """A spoilt film."""

    name: str  # of the film, what was done, and the number of the mutant
    data: bytes


@cache
def film(name: str) -> bytes:
    """One of `FILMS`, of `NUM_FRAMES` numbered frames; made once."""
    codec, options, mux = FILMS[name]
    with tempfile.TemporaryDirectory() as folder:
        return encode(Path(folder) / name, codec, options, mux, num_frames=NUM_FRAMES)


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(len(data), size=int(rng.integers(1, 16))):
        data[at] ^= int(rng.integers(1, 256))


def _overwrite(with_byte: int | None) -> Callable[[bytearray, np.random.Generator], None]:
    def write(data: bytearray, rng: np.random.Generator) -> None:
        start, length = _run(data, rng)
        data[start : start + length] = rng.bytes(length) if with_byte is None else bytes([with_byte]) * length

    return write


def _remove(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _run(data, rng)
    del data[start : start + length]


def _double(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _run(data, rng)
    data[start:start] = data[start : start + length]


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(1, len(data))) :]


def _run(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    length = min(int(2 ** rng.uniform(2, 13)), len(data) // 2)  # 4 bytes to 8 KiB
    return int(rng.integers(len(data) - length)), length


DAMAGES: dict[str, Callable[[bytearray, np.random.Generator], None]] = {
    "flipped": _flip,
    "zeros": _overwrite(0),
    "ones": _overwrite(0xFF),
    "noise": _overwrite(None),
    "removed": _remove,
    "doubled": _double,
    "cut": _cut,
}


def mutants(count: int, seed: int = 0) -> Iterator[Mutant]:
    """Every film with every kind of damage in turn, `count` in all; the same for the same seed."""
    pairs = [(name, damage) for damage in DAMAGES for name in FILMS]
    for number in range(count):
        name, damage = pairs[number % len(pairs)]
        data = bytearray(film(name))
        DAMAGES[damage](data, np.random.default_rng([seed, number]))
        yield Mutant(f"{name} {damage} {number}", bytes(data))
