"""A video file as a container: opened safely, refused by name and reason, and asked whether it is whole.

`find_cut` reads the container's own structure (MP4 boxes, RIFF chunks, the Matroska segment), since frame counts in
headers lie. FFmpeg's own messages stay silent: PyAV drops them unless told otherwise. Packets and frames are left to
`video_packets` and `video_decoding`.
"""

import io
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
from av.stream import Disposition
from packaging.version import Version

from .input_errors import NoDecodableFrameError, NoVideoStreamError, VideoReadError, VideoTooLargeError
from .media_files import HEAD_BYTES, MediaSource, picture_kind

# 8K cinema (8192x4320, coded in blocks of 64) passes, 16K does not: a decoder may hold 17 pictures at once.
DEFAULT_MAX_PIXELS = 8192 * 4352
# Named, so that a play list (HLS, concat) called clip.mp4 cannot make FFmpeg open other files or addresses.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf,h264,hevc,wav,mp3,flac,aac"
# The config asks too (see there); a processor loaded by itself has none, and older PyAV gives other pixels unnoticed.
_OLDEST_PYAV = "17.1"
if Version(av.__version__) < Version(_OLDEST_PYAV):
    raise ImportError(f"Expected av>={_OLDEST_PYAV}, got {av.__version__}; pip install 'av>={_OLDEST_PYAV}'.")
# PyAV 19 replaces what is not UTF-8 in a file's tags by itself; PyAV before it raises unless told to.
_open: Callable[..., av.container.InputContainer] = (
    av.open if Version(av.__version__) >= Version("19") else partial(av.open, metadata_errors="replace")
)
_MP4_BOXES = {
    b"ftyp",
    b"moov",
    b"mdat",
    b"moof",
    b"free",
    b"skip",
    b"wide",
    b"styp",
    b"sidx",
    b"uuid",
    b"mfra",
    b"emsg",
}


def resolve_source(path: MediaSource) -> tuple[str | bytes, str]:
    """What FFmpeg opens, and the name for messages. Refuses what the first bytes can tell."""
    if isinstance(path, (str, os.PathLike)):
        name = os.fspath(path)
        source: str | bytes = name
        head = _read_head(name)
    else:
        name = "<bytes>"
        source = path if isinstance(path, bytes) else path.read()
        head = source[:HEAD_BYTES]
    if not head:
        raise VideoReadError(f"Expected a video, got an empty file (0 bytes): {name}; copy or record it again.")
    if picture := picture_kind(head):
        raise VideoReadError(
            f"Expected a video, got a {picture} picture: {name}; for a photo (.jpg, .png, .webp) use `engagement "
            "predict` with a single-face model, and convert an animation to MP4."
        )
    return source, name


def _read_head(name: str) -> bytes:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise VideoReadError(f"Expected a video file, got the address {name}; download it first.")
    try:
        if Path(name).is_file():
            with Path(name).open("rb") as file:
                return file.read(HEAD_BYTES)
        found = "a directory" if Path(name).is_dir() else "a device or pipe" if Path(name).exists() else "nothing there"
    except (OSError, ValueError) as error:  # no permission; a name too long or with a zero byte
        found = str(getattr(error, "strerror", None) or error)
    raise VideoReadError(f"Expected a readable video file, got {found}: {name}; check the path.")


def open_container(source: str | bytes, name: str, max_pixels: int, probe: bool = True) -> av.container.InputContainer:
    """Open for reading. FFmpeg decodes a little to complete the header, within the pixel limit, unless told not to."""
    # "file:", or FFmpeg would read a colon in the name as a protocol.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    options = {"max_pixels": str(max_pixels)} if probe else {"skip_frame": "all"}
    limits = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        return _open(file, container_options=limits, options=options)
    except av.FFmpegError as error:
        found = "data that no known container format matches"
        raise VideoReadError(
            f"Expected a video, got {found}, in {name}; convert it to MP4, WebM, MKV or AVI."
        ) from error


def video_stream(container: av.container.InputContainer, name: str, max_pixels: int) -> av.VideoStream:
    """The first video stream that is no cover, set up so that `skip_frame` and the limit on pixels hold."""
    streams = [
        s for s in container.streams.video if not s.disposition & Disposition.attached_pic
    ]  # a cover is no video
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise NoVideoStreamError(f"Expected a video stream, got {kinds} only, in {name}; record it with the camera on.")
    context = streams[0].codec_context
    if context is None:
        raise NoDecodableFrameError(f"Expected a known video codec, got one without decoder, in {name}; convert it.")
    if context.width * context.height > max_pixels:
        found = f"got {context.width}x{context.height} in {name}"
        raise VideoTooLargeError(f"Expected at most {max_pixels:,} pixels a frame, {found}; scale it down.")
    context.thread_type = "SLICE"  # frame threads would hand skip_frame to the wrong frame
    context.options = {"max_pixels": str(max_pixels)}
    return streams[0]


def find_cut(source: str | bytes) -> str | None:
    """How the container's own structure reaches beyond the end of the file, or None where it does not."""
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(16)
        file.seek(0)
        if head[4:8] in _MP4_BOXES:
            part, part_end = _last_mp4_box(file, end)
        elif head[:4] == b"RIFF":
            part, part_end = _last_riff_chunk(file, end)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            part, part_end = _matroska_segment(file)
        else:
            return None
    return f"its {part} is {part_end - end:,} bytes short" if part_end > end else None


def _last_mp4_box(file: BinaryIO, end: int) -> tuple[str, int]:
    """Name and end of the last top-level box, whole or not, that pictures depend on."""
    at, box, box_end = 0, "", 0
    while at + 8 <= end:
        file.seek(at)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        size = int.from_bytes(header[8:16], "big") if size == 1 else size
        if kind not in _MP4_BOXES or size < 8:  # size 0: up to the end of the file
            break
        at += size
        if kind in (b"moov", b"moof", b"mdat"):
            box, box_end = kind.decode(), at
    return f"box {box}", box_end


def _last_riff_chunk(file: BinaryIO, end: int) -> tuple[str, int]:
    at = 0
    while at + 8 <= end:
        file.seek(at)
        header = file.read(8)
        size = int.from_bytes(header[4:8], "little")
        if header[:4] != b"RIFF" or size in (0, 0xFFFFFFFF):  # an unfinished recording leaves the size open
            break
        at += 8 + size
    return "RIFF chunk", at


def _matroska_segment(file: BinaryIO) -> tuple[str, int]:
    file.seek(4)
    file.seek(_read_ebml_size(file) or 0, os.SEEK_CUR)
    is_segment = file.read(4) == b"\x18\x53\x80\x67"
    size = _read_ebml_size(file) if is_segment else None
    return "segment", 0 if size is None else file.tell() + size


def _read_ebml_size(file: BinaryIO) -> int | None:
    """A Matroska length; None for "unknown", which is what a live recording writes."""
    first = file.read(1)[0]
    num_bytes = 9 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(num_bytes - 1), "big") - (1 << 7 * num_bytes)
    return None if value == (1 << 7 * num_bytes) - 1 else value
