"""Sources of live frames: a webcam, the screen or a video file, each as frames with times.

A camera delivers frames while one is processed, so a separate thread keeps only the newest; the screen is captured when
a frame is requested, and a file is read in order and completely, with the container's own times. If a source cannot be
opened, or fails later, one line says what to do. `engine` uses the frames.
"""

import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import av
import cv2
import numpy as np

from ..data.required_packages import require_extra
from ..processor.input_errors import (
    EngagementInputError,
    NoDecodableFrameError,
    TruncatedVideoError,
    VideoReadError,
    VideoTooLargeError,
    in_one_line,
)
from ..processor.media_files import MediaSource
from ..processor.shown_picture import ShownPictures, shown_pictures, to_shown
from ..processor.video_container import DEFAULT_MAX_PIXELS, open_container, resolve_source, video_stream
from ..processor.video_structure import find_short_part
from ..processor.video_tracks import choose_track

PATIENCE_SEC = 5.0  # a camera without a frame for this long has failed
SCREEN_FPS = 30.0  # the screen could be captured more often, to no benefit
ASSUMED_FPS = 25.0  # for a file with neither times nor a frame rate


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source."""

    pixels: np.ndarray  # (height, width, 3), uint8 RGB
    time_sec: float  # since the source's first frame
    taken_sec: float  # by time.perf_counter, when the camera or decoder delivered it
    num_dropped: int = 0  # frames skipped since the previous one


class FrameSource(ABC):
    """Yields frames once and is closed afterwards."""

    duration_sec: float | None = None  # None: endless or unknown
    fps: float = 30.0  # approximate frames per second, if none are skipped
    notes: tuple[str, ...] = ()  # phrases: what a user should know about the source

    @abstractmethod
    def frames(self) -> Iterator[SourceFrame]:
        """Frames in order of time.

        Raises:
            VideoReadError: the source failed.
        """

    def close(self) -> None:
        """Release the device or file; may be called again."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(source: str | os.PathLike[str], as_played: bool = True) -> FrameSource:
    """`webcam`, `webcam:N`, `screen`, `screen:X,Y,WIDTH,HEIGHT` (in pixels), an address, or a video file's path.

    Args:
        as_played: for a file, see `FileSource`.

    Raises:
        EngagementInputError: there is no such camera, screen, address or file; one line says what to do.
    """
    name = os.fspath(source)
    if not name.strip():
        raise EngagementInputError("The source is empty; name webcam, screen, an address or a video file.")
    if match := re.fullmatch(r"webcam(?::(\d+))?", name, re.IGNORECASE):
        return _open_webcam(int(match[1] or 0))
    if match := re.fullmatch(r"screen(?::(-?\d+),(-?\d+),(\d+),(\d+))?", name, re.IGNORECASE):
        if not match[1]:
            return ScreenSource()
        left, top, width, height = map(int, match.groups())
        return ScreenSource((left, top, width, height))
    if re.match(r"(webcam|screen):", name, re.IGNORECASE):
        raise EngagementInputError(f"A device is webcam:NUMBER or screen:X,Y,WIDTH,HEIGHT, got {name}; correct it.")
    from .network import is_address, open_address  # it imports this module

    if is_address(name):
        return open_address(name, as_played)
    if name.isdecimal() and not os.path.lexists(name):
        raise EngagementInputError(f"There is no file {name}; for a camera pass webcam:{name}.")
    return FileSource(name, as_played)


class FileSource(FrameSource):
    """Every frame of a video file, upright and scaled to the first one's size, as fast as requested.

    Args:
        as_played: as a player shows them; see `FacePreparation.as_played`.
        video_track: which of several, from 1; None: the default one or, without `as_played`, the first.
        name: for messages about a file without a name.
    """

    start_sec = 0.0  # time of the first frame by the container's clock, once it was read

    def __init__(
        self,
        path: MediaSource,
        as_played: bool = True,
        video_track: int | None = None,
        name: str | None = None,
    ) -> None:
        self._source, own_name = resolve_source(path)
        self.name, self._as_played = name or own_name, as_played
        try:
            self._container = self._open()
            track = choose_track(self._container, self._open, self.name, video_track, as_played)
            self._stream = video_stream(self._container, self.name, DEFAULT_MAX_PIXELS, track.place)
            self.notes = track.notes
        except VideoReadError as error:
            if not isinstance(error, VideoTooLargeError) and (short := find_short_part(self._source, self.name)):
                raise self._broken(None, str(short)) from error
            raise
        if self._container.duration:
            self.duration_sec = self._container.duration / av.time_base
        self.fps = float(self._stream.average_rate or ASSUMED_FPS)

    def _open(self) -> av.container.InputContainer:
        return open_container(self._source, self.name, DEFAULT_MAX_PIXELS)

    def frames(self) -> Iterator[SourceFrame]:
        """As `FrameSource.frames`; a truncated file yields its frames before the error."""
        step_sec = 1 / self.fps
        first_sec: float | None = None
        time_sec: float | None = None
        num_frames = 0
        shown: ShownPictures | None = None
        size_px = self._stream.width, self._stream.height
        try:
            for frame in self._container.decode(self._stream):
                if frame.is_corrupt:
                    raise self._broken(time_sec, "damaged data")
                num_frames += 1
                stamp_sec = frame.time if frame.time is not None else (time_sec or 0.0) + step_sec
                if first_sec is None:
                    self.start_sec = first_sec = stamp_sec
                stamp_sec -= first_sec
                # Times in AVI files may repeat or go back.
                time_sec = stamp_sec if time_sec is None or stamp_sec > time_sec else time_sec + step_sec
                if shown is None:
                    shown = shown_pictures(frame, self._stream, self._as_played, DEFAULT_MAX_PIXELS)
                    self.notes += shown.notes
                    size_px = frame.width, frame.height
                elif (frame.width, frame.height) != size_px:
                    self._note_size(size_px, frame, time_sec)
                pixels = to_shown(frame, shown)
                yield SourceFrame(np.ascontiguousarray(pixels), time_sec, time.perf_counter())
        except av.FFmpegError as error:
            raise self._broken(time_sec, str(error)) from error
        short = find_short_part(self._source, self.name)
        if short and num_frames != self._stream.frames:  # else only its stated sizes are wrong
            raise self._broken(time_sec, str(short))
        if time_sec is None:
            raise NoDecodableFrameError(f"No frame of {self.name} can be decoded; record it again.")

    def _note_size(self, first_px: tuple[int, int], frame: av.VideoFrame, time_sec: float) -> None:
        words = "from {}x{} px".format(*first_px)
        if not any(words in note for note in self.notes):  # noted only once
            others = f"its pictures change {words} to {frame.width}x{frame.height} after {time_sec:.1f} s"
            self.notes += (f"{others}; all are scaled to the first size",)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _broken(self, time_sec: float | None, reason: str) -> TruncatedVideoError:
        at = "before its first frame" if time_sec is None else f"after {time_sec:.1f} s"
        return TruncatedVideoError(f"The video {self.name} breaks off {at} ({reason}); copy or record it again.")


class CameraSource(FrameSource):
    """The newest frame of a camera.

    Args:
        read: waits for the camera's next frame, (height, width, 3) uint8 RGB; None if there was none.
        release: releases the camera.
        name: for messages.
        patience_sec: without a frame for this long, the camera has failed.
        remedy: what to do then.
    """

    def __init__(
        self,
        read: Callable[[], np.ndarray | None],
        release: Callable[[], None],
        name: str,
        patience_sec: float = PATIENCE_SEC,
        remedy: str = "check its cable, and whether another program uses it",
    ) -> None:
        self.name, self._patience_sec, self._remedy = name, patience_sec, remedy
        self._read, self._release = read, release
        self._newest: tuple[np.ndarray, float] | None = None  # pixels, when they were taken
        self._num_taken = 0
        self._error: Exception | None = None
        self._changed, self._closed = threading.Condition(), threading.Event()
        # A daemon, since a hanging driver must not keep the process from ending.
        self._thread = threading.Thread(target=self._take_frames, name=name, daemon=True)
        self._thread.start()

    def frames(self) -> Iterator[SourceFrame]:
        """As `FrameSource.frames`; always the newest frame."""
        num_seen, first_sec = 0, None
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._num_taken > num_seen or self._error, self._patience_sec)  # noqa: B023
                if self._newest is None or self._num_taken == num_seen:
                    raise self._broken() from self._error
                (pixels, taken_sec), num_dropped = self._newest, self._num_taken - num_seen - 1
                num_dropped, num_seen = (num_dropped if num_seen else 0), self._num_taken
            first_sec = taken_sec if first_sec is None else first_sec
            yield SourceFrame(pixels, taken_sec - first_sec, taken_sec, num_dropped)

    def close(self) -> None:
        """Stop the thread, which releases the camera."""
        self._closed.set()
        self._thread.join(timeout=self._patience_sec)

    def _take_frames(self) -> None:
        try:
            while not self._closed.is_set():
                pixels = self._read()
                if pixels is None:
                    self._closed.wait(0.01)  # cameras skip frames now and then; `frames` limits for how long
                    continue
                with self._changed:
                    self._newest = (pixels, time.perf_counter())
                    self._num_taken += 1
                    self._changed.notify()
        except Exception as error:  # passed to `frames`
            with self._changed:
                self._error = error
                self._changed.notify()
        finally:
            self._release()

    def _broken(self) -> VideoReadError:
        reason = in_one_line(self._error) if self._error else f"no frame for {self._patience_sec:g} s"
        return VideoReadError(f"{self.name} stopped giving frames ({reason}); {self._remedy}.")


class ScreenSource(FrameSource):
    """The screen, or a part of it, captured when a frame is requested.

    Args:
        region_px: left, top, width, height; default: the first monitor.

    Raises:
        EngagementInputError: there is no screen, the region is outside it, or the package mss is missing.
    """

    def __init__(self, region_px: tuple[int, int, int, int] | None = None) -> None:
        require_extra("live", ("mss",))
        import mss

        # mss raises AssertionError if the screen has gone away.
        self._closed, self._errors = threading.Event(), (mss.ScreenShotError, AssertionError)
        try:
            self._screen = mss.MSS()
            monitors = self._screen.monitors  # all together, then each
        except mss.ScreenShotError as error:
            raise _no_screen(error) from error
        self._region = monitors[1] if region_px is None else _shown_part(region_px, monitors[0])

    def frames(self) -> Iterator[SourceFrame]:
        """As `FrameSource.frames`, at most `SCREEN_FPS` per second."""
        first_sec = taken_sec = None
        while not self._closed.is_set():
            if taken_sec is not None:
                self._closed.wait(taken_sec + 1 / SCREEN_FPS - time.perf_counter())
            pixels, taken_sec = self._grab(), time.perf_counter()
            first_sec = taken_sec if first_sec is None else first_sec
            yield SourceFrame(pixels, taken_sec - first_sec, taken_sec)

    def close(self) -> None:
        """Release the screen."""
        if not self._closed.is_set():
            self._closed.set()
            with suppress(*self._errors):  # for a screen that has gone away; `frames` reported it
                self._screen.close()

    def _grab(self) -> np.ndarray:
        try:
            bgra = np.asarray(self._screen.grab(self._region))
        except self._errors as error:
            raise _no_screen(error) from error
        return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB)


def _no_screen(error: Exception) -> VideoReadError:
    reason = in_one_line(error)
    return VideoReadError(f"The screen cannot be captured ({reason}); log in to a desktop, or use a webcam or file.")


def _shown_part(region_px: tuple[int, int, int, int], everything: dict[str, int]) -> dict[str, int]:
    """The part of a region on the screens; `everything` is the box around all of them."""
    left, top = max(region_px[0], everything["left"]), max(region_px[1], everything["top"])
    right = min(region_px[0] + region_px[2], everything["left"] + everything["width"])
    bottom = min(region_px[1] + region_px[3], everything["top"] + everything["height"])
    if left >= right or top >= bottom:
        size = f"{everything['width']}x{everything['height']}"
        raise EngagementInputError(f"The region {region_px} is outside the {size} px screen; correct it.")
    return {"left": left, "top": top, "width": right - left, "height": bottom - top}


def _open_webcam(number: int) -> CameraSource:
    with _quiet_opencv():
        capture = cv2.VideoCapture(number)
    name = f"webcam:{number}"
    if not capture.isOpened():
        raise VideoReadError(
            f"The camera {name} cannot be opened; plug it in, close other programs that use it, allow access to it, or "
            "try another number (webcam:1)."
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # if the driver supports it: a buffer adds delay
    return camera_of(capture, name)


def camera_of(capture: cv2.VideoCapture, name: str, patience_sec: float = PATIENCE_SEC) -> CameraSource:
    """An opened capture as a source; closing the source releases it."""

    def read() -> np.ndarray | None:
        is_read, bgr = capture.read()
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) if is_read else None

    return CameraSource(read, capture.release, name, patience_sec)


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV prints a warning for each back end that finds no camera."""
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
