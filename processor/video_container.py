"""Opens a video file's container safely, or refuses it with name and reason.

FFmpeg's own messages are not shown, which is PyAV's default. `video_structure` checks whether the file is complete,
`video_packets` and `video_decoding` read packets and frames.
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

_MOST_THREADS = 8  # each has its own stack of several megabytes
# 8K cinema (8192x4320, coded in blocks of 64) is accepted, 16K is not: a decoder may hold 17 pictures at once.
DEFAULT_MAX_PIXELS = 8192 * 4352
# Listed, so that a playlist (HLS, concat) named clip.mp4 cannot make FFmpeg open other files or addresses.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf,dv,h264,hevc,wav,mp3,flac,aac"
# The config checks this too, but a processor may be loaded without it, and older PyAV silently gives other pixels.
OLDEST_PYAV = "17.1"
if Version(av.__version__) < Version(OLDEST_PYAV):
    raise ImportError(f"Expected av>={OLDEST_PYAV}, got {av.__version__}; pip install 'av>={OLDEST_PYAV}'.")
# PyAV 19 replaces text in a file's tags that is not UTF-8 by default; earlier versions raise unless told to.
_open: Callable[..., av.container.InputContainer] = (
    av.open if Version(av.__version__) >= Version("19") else partial(av.open, metadata_errors="replace")
)


def resolve_source(path: MediaSource) -> tuple[str | bytes, str]:
    """The object that FFmpeg opens, and its name for messages. Refuses files that are no video by their first bytes."""
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
    # An address given as a Path has only one slash.
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
        found = "a directory" if Path(name).is_dir() else "a device or pipe" if Path(name).exists() else "no such file"
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
    """Open for reading. With `probe`, FFmpeg decodes a little to complete the header, within the pixel limit.

    Args:
        options: FFmpeg's options for the container.
    """
    # Without "file:", FFmpeg would take a colon in the name as a protocol.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    for_decoder = {"max_pixels": str(max_pixels)} if probe else {"skip_frame": "all"}
    limits = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", **options}
    try:
        return _open(file, container_options=limits, options=for_decoder)
    except av.FFmpegError as error:
        found = "data that no known container format matches"
        raise VideoReadError(
            f"Expected a video, got {found}, in {name}; convert it to MP4, WebM, MKV or AVI."
        ) from error


def video_stream(container: av.container.InputContainer, name: str, max_pixels: int, track: int = 0) -> av.VideoStream:
    """A video stream, by its place among those that are not covers, set up so that `skip_frame` and the pixel limit
    apply."""
    streams = video_tracks(container)
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise NoVideoStreamError(f"Expected a video stream, got {kinds} only, in {name}; record it with the camera on.")
    stream = streams[track]
    context = stream.codec_context
    if context is None:
        raise NoDecodableFrameError(f"There is no decoder for the video codec of {name}; convert it.")
    if context.width * context.height > max_pixels:
        found = f"got {context.width}x{context.height} in {name}"
        raise VideoTooLargeError(f"Expected at most {max_pixels:,} pixels per frame, {found}; scale it down.")
    context.thread_type = "SLICE"  # frame threads would apply skip_frame to the wrong frame
    # With threads, H.264's decoder gives varying results for damaged pictures.
    context.thread_count = 1 if context.name == "h264" else min(_MOST_THREADS, os.cpu_count() or 1)
    context.options = {"max_pixels": str(max_pixels)}
    return stream
