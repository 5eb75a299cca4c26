"""Cameras and videos at an address (rtsp://, http://, ...), opened within seconds or refused in one line."""

import re
import threading
from collections.abc import Iterator

import av
import numpy as np

from ..processor.input_errors import EngagementInputError, VideoReadError, in_one_line
from ..processor.media_files import fetch
from ..processor.shown_picture import ShownPictures, shown_pictures, to_shown
from ..processor.video_container import DEFAULT_MAX_PIXELS, video_stream
from .sources import PATIENCE_SEC, CameraSource, FileSource, FrameSource

OPEN_SEC = 10.0  # a camera's first answer may take seconds
_NO_ANSWER = "no answer within seconds"
_FORMATS = "rtsp,sdp,rtp,mpjpeg,mjpeg,hls,mpegts,mov,matroska,webm,avi,flv,h264,hevc"
_PROTOCOLS = "http,https,tcp,tls,udp,rtp,rtsp,rtmp,crypto"  # never "file": a playlist must not read local files
_FILE_FORMATS = ("mov", "matroska", "avi", "flv")  # formats that, if they have a duration, are finite files


def is_address(name: str) -> bool:
    """Whether this is a network address."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def without_password(text: str) -> str:
    """A text whose addresses lose user and password, for messages and titles."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def open_address(address: str, as_played: bool = True) -> FrameSource:
    """A camera, of which the newest frame is used, or a finite video, of which every frame is.

    Raises:
        VideoReadError: it cannot be opened; one line says what to do.
    """
    container = _open_in_time(address)
    name = without_password(address)
    try:
        stream = video_stream(container, name, DEFAULT_MAX_PIXELS)
    except EngagementInputError:
        container.close()
        raise
    if container.duration and container.format.name.partition(",")[0] in _FILE_FORMATS:
        container.close()
        try:
            return FileSource(fetch(address), as_played, name=name)
        except VideoReadError as error:
            raise VideoReadError(without_password(str(error))) from error
    pictures = _pictures(container, stream, as_played)
    remedy = "check that it still runs, and your network"
    return CameraSource(lambda: next(pictures), container.close, name, 2 * PATIENCE_SEC, remedy)


def _open_in_time(address: str) -> av.container.InputContainer:
    """FFmpeg's own timeouts do not cover looking up a host name, so a thread opens the address."""
    found: list[av.container.InputContainer | Exception] = []

    def open_it() -> None:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": _PROTOCOLS, "rtsp_transport": "tcp"}
        try:
            found.append(av.open(address, container_options=options, timeout=(OPEN_SEC, PATIENCE_SEC)))
        except Exception as error:  # passed to the caller
            found.append(error)

    thread = threading.Thread(target=open_it, name="opening", daemon=True)
    thread.start()
    thread.join(OPEN_SEC + 2)
    answer = found[0] if found else None
    if isinstance(answer, av.container.InputContainer):
        return answer
    reason = _NO_ANSWER if answer is None else _reason(answer)
    shown = without_password(address)
    raise VideoReadError(
        f"No camera or video can be opened at {shown} ({reason}); check the address, its user and password, record it "
        f"first (ffmpeg -i {shown} -t 60 clip.mp4) and pass the file, or use a device (webcam:0)."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):  # PyAV's own limit
        return _NO_ANSWER
    # Only FFmpeg's message: the full error repeats the address with its password.
    return without_password(getattr(error, "strerror", None) or in_one_line(error))


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream, as_played: bool
) -> Iterator[np.ndarray | None]:
    """(height, width, 3), uint8 RGB, upright, scaled to the first one's size; None for a damaged picture."""
    shown: ShownPictures | None = None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            raise VideoReadError(f"the connection failed ({_reason(error)})") from error
        if packet is None:
            raise VideoReadError("the stream ended")
        try:
            frames = packet.decode()
        except av.FFmpegError:
            yield None
            continue
        for frame in frames:
            shown = shown or shown_pictures(frame, stream, as_played, DEFAULT_MAX_PIXELS)
            yield None if frame.is_corrupt else np.ascontiguousarray(to_shown(frame, shown))
