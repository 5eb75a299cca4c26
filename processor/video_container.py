"""A video file as a container: opened safely, refused by name and reason.

FFmpeg's own messages stay silent: PyAV drops them unless told otherwise. Whether the file is whole is left to
`video_structure`, packets and frames to `video_packets` and `video_decoding`.
"""

import io
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import av
from packaging.version import Version

from .input_errors import NoDecodableFrameError, NoVideoStreamError, VideoReadError, VideoTooLargeError
from .media_files import HEAD_BYTES, MediaSource, picture_kind
from .video_tracks import video_tracks

_MOST_THREADS = 8  # each has a stack of its own, of megabytes
# 8K cinema (8192x4320, coded in blocks of 64) passes, 16K does not: a decoder may hold 17 pictures at once.
DEFAULT_MAX_PIXELS = 8192 * 4352
# Named, so that a play list (HLS, concat) called clip.mp4 cannot make FFmpeg open other files or addresses.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf,dv,h264,hevc,wav,mp3,flac,aac"
# The config asks too (see there); a processor loaded by itself has none, and older PyAV gives other pixels unnoticed.
_OLDEST_PYAV = "17.1"
if Version(av.__version__) < Version(_OLDEST_PYAV):
    raise ImportError(f"Expected av>={_OLDEST_PYAV}, got {av.__version__}; pip install 'av>={_OLDEST_PYAV}'.")
# PyAV 19 replaces what is not UTF-8 in a file's tags by itself; PyAV before it raises unless told to.
_open: Callable[..., av.container.InputContainer] = (
    av.open if Version(av.__version__) >= Version("19") else partial(av.open, metadata_errors="replace")
)


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
    # Of an address that came as a Path, one slash is left.
    if address := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])", name):
        shown = f"{address[1]}://{name[address.end() :].rpartition('@')[2]}"  # without a password
        remedy = "download it first"
        if address[1].lower() not in ("http", "https", "ftp"):
            remedy = f"record it first (ffmpeg -i {shown} -t 60 clip.mp4), or watch it with `engagement live`"
        raise VideoReadError(f"Expected a video file, got the address {shown}; {remedy}.")
    try:
        if Path(name).is_file():
            with Path(name).open("rb") as file:
                return file.read(HEAD_BYTES)
        found = "a directory" if Path(name).is_dir() else "a device or pipe" if Path(name).exists() else "nothing there"
    except (OSError, ValueError) as error:  # no permission; a name too long or with a zero byte
        found = str(getattr(error, "strerror", None) or error)
    raise VideoReadError(f"Expected a readable video file, got {found}: {name}; check the path.")


def open_container(
    source: str | bytes,
    name: str,
    max_pixels: int,
    probe: bool = True,
    options: Mapping[str, str] = MappingProxyType({}),
) -> av.container.InputContainer:
    """Open for reading. FFmpeg decodes a little to complete the header, within the pixel limit, unless told not to.

    Args:
        options: FFmpeg's own, of the container.
    """
    # "file:", or FFmpeg would read a colon in the name as a protocol.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    for_decoder = (
        {
            "max_pixels": str(max_pixels),
        }
        if probe
        else {"skip_frame": "all"}
    )
    limits = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", **options}
    try:
        return _open(file, container_options=limits, options=for_decoder)
    except av.FFmpegError as error:
        found = "data that no known container format matches"
        raise VideoReadError(
            f"Expected a video, got {found}, in {name}; convert it to MP4, WebM, MKV or AVI."
        ) from error


def video_stream(container: av.container.InputContainer, name: str, max_pixels: int, track: int = 0) -> av.VideoStream:
    """A video stream, by its place among those that are no cover, set up so that `skip_frame` and the limit on pixels
    hold."""
    streams = video_tracks(container)
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise NoVideoStreamError(f"Expected a video stream, got {kinds} only, in {name}; record it with the camera on.")
    stream = streams[track]
    context = stream.codec_context
    if context is None:
        raise NoDecodableFrameError(f"Expected a known video codec, got one without decoder, in {name}; convert it.")
    if context.width * context.height > max_pixels:
        found = f"got {context.width}x{context.height} in {name}"
        raise VideoTooLargeError(f"Expected at most {max_pixels:,} pixels a frame, {found}; scale it down.")
    context.thread_type = "SLICE"  # frame threads would hand skip_frame to the wrong frame
    # H.264's threads make of a damaged picture now this, now that.
    context.thread_count = 1 if context.name == "h264" else min(_MOST_THREADS, os.cpu_count() or 1)
    context.options = {"max_pixels": str(max_pixels)}
    return stream
