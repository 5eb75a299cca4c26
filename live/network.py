"""Cameras and films at an address (rtsp://, http://, ...), opened within seconds or refused in a line; never a hang."""

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

OPEN_SEC = 10.0  # a camera's first answer may take some seconds
_NO_ANSWER = "no answer within seconds"
_FORMATS = "rtsp,sdp,rtp,mpjpeg,mjpeg,hls,mpegts,mov,matroska,webm,avi,flv,h264,hevc"
_PROTOCOLS = "http,https,tcp,tls,udp,rtp,rtsp,rtmp,crypto"  # never "file": a play list must not reach this machine's
_FILE_FORMATS = ("mov", "matroska", "avi", "flv")  # of those that come with a length, one that ends


def is_address(name: str) -> bool:
    """Whether somebody means a place in a network."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def without_password(text: str) -> str:
    """Addresses in a text, for messages and titles."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def open_address(address: str, as_played: bool = True) -> FrameSource:
    """A camera that goes on, of which the newest frame is taken, or a film, of which every frame is.

    Raises:
        VideoReadError: nothing there that can be read; one line says what to do.
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
    """FFmpeg's own limits do not hold while a name is looked up, so it is waited for from outside."""
    found: list[av.container.InputContainer | Exception] = []

    def open_it() -> None:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": _PROTOCOLS, "rtsp_transport": "tcp"}
        try:
            found.append(av.open(address, container_options=options, timeout=(OPEN_SEC, PATIENCE_SEC)))
        except Exception as error:  # handed to whoever waits
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
        f"Expected a camera or film at {shown}, got none ({reason}); check the address, its user and password, record "
        f"it first (ffmpeg -i {shown} -t 60 clip.mp4) and pass the file, or use a device (webcam:0)."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):  # PyAV's own limit
        return _NO_ANSWER
    # FFmpeg's words alone: the whole of the error repeats the address, with its password.
    return without_password(getattr(error, "strerror", None) or in_one_line(error))


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream, as_played: bool
) -> Iterator[np.ndarray | None]:
    """(height, width, 3), uint8 RGB, upright, of the first one's size; None for what was damaged on the way."""
    shown: ShownPictures | None = None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            raise VideoReadError(f"it broke off ({_reason(error)})") from error
        if packet is None:
            raise VideoReadError("it ended")
        try:
            frames = packet.decode()
        except av.FFmpegError:
            yield None
            continue
        for frame in frames:
            shown = shown or shown_pictures(frame, stream, as_played, DEFAULT_MAX_PIXELS)
            yield None if frame.is_corrupt else np.ascontiguousarray(to_shown(frame, shown))
