"""A video of annotated or other frames, playable after any kind of end; optionally with the source file's sound."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..processor.input_errors import EngagementInputError, in_one_line
from .signals import signals_held
from .sound import SourceSound

TIME_BASE = Fraction(1, 90_000)
# An unfinished video, after a full disk or a killed process, plays up to its last second or so; a finished one is an
# ordinary mp4. Without "empty_moov" FFmpeg crashes on one that has no frames.
PLAYS_UNFINISHED = {"movflags": "hybrid_fragmented+empty_moov", "frag_duration": "1000000"}  # microseconds
NOT_WHOLE = "the video plays up to there; free space or choose another place"
MAX_FPS = Fraction(1000)  # some files give their clock's ticks as frame rate
ROOM_OR_PLACE = "free space or choose another place"


class AnnotatedVideo:
    """An mp4 file to which frames are written, each with its own time; closed by leaving the `with`.

    Args:
        path: the file to write; its folder must exist.
        size: width and height in pixels.
        fps: approximate frames per second. A frame lasts until the next one, the last for 1 / fps seconds.
        sound: is added, in time with the frames.
        whole_as: the finished video's name, if `path` is a temporary file that nobody plays.

    Raises:
        EngagementInputError: the file cannot be written, now or later, or the rate is not positive.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: float = 30.0,
        sound: SourceSound | None = None,
        whole_as: Path | None = None,
    ) -> None:
        self._name, self._sound = whole_as or path, sound
        self._not_whole = NOT_WHOLE if whole_as is None else ROOM_OR_PLACE
        self._width_px, self._height_px = size
        self._last_tick = -1
        if not (math.isfinite(fps) and fps > 0):
            raise EngagementInputError(f"The frame rate must be above 0 per second, got {fps}; leave it out.")
        rate = min(Fraction(fps).limit_denominator(1001), MAX_FPS)
        with self._writing("choose another place"):
            # Fragmented files have no edit list, without which sound that begins before the pictures would shift them.
            options = PLAYS_UNFINISHED if whole_as is None else {"movie_timescale": str(TIME_BASE.denominator)}
            self._container = av.open(str(path), "w", format="mp4", container_options=options)
            self._stream = self._add_stream(rate)
            if sound is not None:
                sound.add_to(self._container)
            self._container.start_encoding()

    def _add_stream(self, rate: Fraction) -> av.VideoStream:
        # If frames refer to later ones ("bf") and are decoded out of order, uneven times would give a file whose stated
        # duration is too short.
        options = {"crf": "23", "preset": "veryfast", "bf": "0"}
        stream = self._container.add_stream("libx264", rate=rate, options=options)
        # h264 stores colours at half resolution: an odd side gets one more row or column.
        stream.width, stream.height = (side + side % 2 for side in (self._width_px, self._height_px))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        return stream

    def write(self, frame: np.ndarray, time_sec: float) -> None:
        """frame: (height, width, 3), uint8 RGB, of the size given before; times increase."""
        if frame.shape != (self._height_px, self._width_px, 3):
            size = f"{self._width_px}x{self._height_px}"
            raise EngagementInputError(f"Expected frames of {size} px, got shape {frame.shape}; open another video.")
        odd = [(0, side % 2) for side in frame.shape[:2]]
        picture = av.VideoFrame.from_ndarray(np.pad(frame, [*odd, (0, 0)], mode="edge"), format="rgb24")
        self._last_tick = max(self._last_tick + 1, round(time_sec / TIME_BASE))
        picture.pts, picture.time_base = self._last_tick, TIME_BASE
        # Packets taken from the encoder but not written would be missing in the middle of the video.
        with signals_held(), self._writing(self._not_whole):
            self._container.mux(self._stream.encode(picture))
            self._write_sound(time_sec)

    def close(self) -> None:
        """Write the rest and finish the file, ignoring Ctrl-C: an unfinished mp4 lacks its last moments."""
        with signals_held(forget=True), self._writing(self._not_whole):
            try:
                self._container.mux(self._stream.encode())
                self._write_sound(math.inf)
            finally:
                self._container.close()

    def _write_sound(self, until_sec: float) -> None:
        if self._sound is not None:
            for packet in self._sound.packets_until(until_sec):
                self._container.mux(packet)

    @contextmanager
    def _writing(self, remedy: str) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = in_one_line(error)
            raise EngagementInputError(f"The video {self._name} cannot be written ({reason}); {remedy}.") from error

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None:
            self._sound = None  # the sound ends with the pictures
        self.close()
