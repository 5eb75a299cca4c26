"""H.264 in field pictures, as camcorders record it (AVCHD, 1080i).

No encoder here makes any, so they are written bit by bit, each macroblock as plain samples (I_PCM; H.264, 7.3).
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numbered_videos import NUM_BITS, WIDTH_PX

HEIGHT_PX = 64  # two rows of macroblocks a field


class _Writer:
    def __init__(self) -> None:
        self.bits = ""

    def put(self, value: int, count: int) -> "_Writer":
        self.bits += format(value, f"0{count}b")
        return self

    def golomb(self, *values: int) -> "_Writer":
        for value in values:
            code = format(value + 1, "b")
            self.bits += "0" * (len(code) - 1) + code
        return self

    def align(self, first: str = "") -> "_Writer":
        self.bits += first
        self.bits += "0" * (-len(self.bits) % 8)
        return self

    def raw(self, data: bytes) -> "_Writer":
        self.bits += "".join(format(byte, "08b") for byte in data)
        return self

    def unit(self, head: int) -> bytes:
        self.align("1")
        data = int(self.bits, 2).to_bytes(len(self.bits) // 8, "big")
        return b"\0\0\0\1" + bytes([head]) + data


def _tables() -> bytes:
    sequence = _Writer().put(77, 8).put(0, 8).put(30, 8)  # Main profile
    sequence.golomb(0, 0, 2, 1).put(0, 1)  # four bits for a frame's number; shown in the order they are decoded
    sequence.golomb(WIDTH_PX // 16 - 1, HEIGHT_PX // 32 - 1)
    sequence.put(0, 1).put(0, 1).put(1, 1).put(0, 1).put(0, 1)  # not of frames alone
    pictures = _Writer().golomb(0, 0).put(0, 2).golomb(0, 0, 0).put(0, 3).golomb(0, 0, 0).put(0b100, 3)
    return sequence.unit(0x67) + pictures.unit(0x68)


def _field(number: int, is_bottom: bool, group: int) -> bytes:
    """One field of a frame that bears its number, as `numbered_videos.numbers_in` reads it."""
    is_first = number % group == 0 and not is_bottom
    slices = _Writer().golomb(0, 7, 0).put(number % group, 4).put(1, 1).put(is_bottom, 1)
    if is_first:
        slices.golomb(0).put(0, 2)
    else:
        slices.put(0, 1)
    slices.golomb(0, 1)  # the slice's quality; no deblocking
    row = np.array([[40, 200][number >> bit & 1] for bit in range(NUM_BITS)]).repeat(WIDTH_PX // NUM_BITS)
    for _ in range(HEIGHT_PX // 32):
        for left in range(0, WIDTH_PX, 16):
            samples = np.tile(row[left : left + 16], (16, 1)).astype(np.uint8).tobytes() + bytes([128]) * 128
            slices.golomb(25).align().raw(samples)
    delimiter = b"\0\0\0\1\x09\xf0"
    return delimiter + (_tables() if is_first else b"") + slices.unit(0x65 if is_first else 0x21)


def write_fields(path: Path, num_frames: int = 12, group: int = 6) -> Path:
    """Frames in pairs of fields, 25 frames a second; each field a packet."""
    is_stream = path.suffix in (".ts", ".mts", ".m2ts")
    stream_path = path if is_stream else path.with_suffix(".ts")
    options = {"mpegts_m2ts_mode": "1"} if path.suffix == ".m2ts" else {}
    with av.open(str(stream_path), "w", format="mpegts", options=options) as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(num_frames):
            for half in (0, 1):
                packet = av.Packet(_field(number, bool(half), group))
                packet.stream, packet.time_base = stream, Fraction(1, 50)
                packet.pts = packet.dts = 2 * number + half
                packet.is_keyframe = number % group == 0 and not half
                container.mux(packet)
    return path if is_stream else _repack(stream_path, path)


def _repack(source: Path, path: Path) -> Path:
    """Into a container that keeps the tables in its header."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    source.unlink()
    return path
