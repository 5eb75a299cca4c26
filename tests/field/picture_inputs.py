"""Small pictures as the field has them: broken metadata, odd formats, animations, files that are none."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench import face_frames
from PIL import Image

ORIENTATION, X_RESOLUTION = 0x0112, 0x011A


def face() -> Image.Image:
    """A drawn person, 320 x 240."""
    return Image.fromarray(face_frames()[0])


def saved(file_format: str, picture: Image.Image | None = None, **options: object) -> bytes:
    """A picture's file."""
    content = io.BytesIO()
    (picture or face()).save(content, file_format, **options)
    return content.getvalue()


def at(folder: Path, name: str, content: bytes) -> Path:
    """A file of that content."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def exif(*entries: tuple[int, int, int, bytes], data: bytes = b"") -> bytes:
    """A directory of (tag, type, count, value); `data` follows it, at 14 and 12 an entry."""
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHI", tag, kind, count) + value
    return body + bytes(4) + data


def turned(orientation: int = 6) -> tuple[int, int, int, bytes]:
    """The entry that says how the camera was held."""
    return ORIENTATION, 3, 1, struct.pack("<HH", orientation, 0)


def rational_below_zero() -> bytes:
    """A resolution of -1/0 beside an orientation, which cannot be written again as what it was read."""
    entries = (turned(), (X_RESOLUTION, 10, 1, struct.pack("<I", 8 + 2 + 24 + 4)))
    return exif(*entries, data=struct.pack("<ii", -1, 0))


def png_chunk(kind: bytes, data: bytes, spoilt: bool = False) -> bytes:
    """With its checksum, or a wrong one."""
    checksum = zlib.crc32(kind + data) + spoilt & 0xFFFFFFFF
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_with(chunk: bytes, before: bytes = b"IDAT") -> bytes:
    """A face whose file has one more chunk."""
    content = saved("PNG")
    place = content.index(before) - 4
    return content[:place] + chunk + content[place:]


def heif(brand: bytes = b"heic", others: tuple[bytes, ...] = (b"mif1",)) -> bytes:
    """The head of one, and boxes that hold nothing."""
    brands = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + struct.pack(">I", 200) + b"meta" + bytes(192)


def animation(file_format: str) -> bytes:
    """Three frames, each another."""
    frames = [face().rotate(angle) for angle in (0, 5, 10)]
    return saved(file_format, frames[0], save_all=True, append_images=frames[1:], duration=200)


def large(width_px: int, height_px: int, mode: str = "L") -> Image.Image:
    """A gradient, which packs small."""
    levels = np.linspace(0, 255, width_px).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(levels, (height_px, width_px))).convert(mode)


def pipe(folder: Path, name: str) -> Path:
    """A FIFO that nobody writes to."""
    os.mkfifo(folder / name)
    return folder / name


def link(folder: Path, name: str, target: str) -> Path:
    """A symbolic link."""
    (folder / name).symlink_to(target)
    return folder / name


def as_file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """A row's `make`: a file of that content, made when the row runs."""
    return lambda folder: at(folder, name, content())
