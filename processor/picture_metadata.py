"""Removes the metadata from a picture's bytes: for files with broken metadata but intact pixels.

PNG, JPEG and WebP consist of parts with lengths; those that the pixels do not need are removed. Nothing is decoded.
"""

import struct
import zlib
from collections.abc import Iterator

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # APP1 to APP13, APP15, comment; APP0 and 14 define the colours
_JPEG_SCAN = 0xDA
_WEBP_DROPPED = (b"EXIF", b"XMP ", b"ICCP")
_WEBP_FLAGS = ~0b00101100 & 0xFF  # in VP8X: flags for profile, EXIF and XMP


def without_metadata(content: bytes) -> bytes | None:
    """The same picture without profiles, texts and EXIF; None if there are none, or for other formats."""
    if content.startswith(_PNG_START):
        kept = _PNG_START + b"".join(_png_chunks(content))
    elif content.startswith(b"\xff\xd8"):
        kept = b"\xff\xd8" + b"".join(_jpeg_parts(content))
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(content))
        kept = b"RIFF" + struct.pack("<I", len(body)) + body
    else:
        return None
    return kept if kept != content else None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    at = len(_PNG_START)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        kind, chunk = content[at + 4 : at + 8], content[at:end]
        if kind in _PNG_KEPT and (kind != b"tRNS" or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")):
            yield chunk
        at = end


def _jpeg_parts(content: bytes) -> Iterator[bytes]:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _JPEG_SCAN:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1] == 0xFF:  # fill byte
            end = at + 1
        elif content[at + 1] not in _JPEG_DROPPED:
            yield content[at:end]
        at = end
    yield content[at:]


def _webp_chunks(content: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        kind, chunk = content[at : at + 4], content[at:end]
        if kind == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & _WEBP_FLAGS]) + chunk[9:]
        if kind not in _WEBP_DROPPED:
            yield chunk
        at = end
