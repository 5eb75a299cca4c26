"""Opens files for a processor: `MediaReader` in this process; `bounded_reader` has one in a separate process."""

import math
from collections.abc import Iterator, Sequence
from typing import Self, Unpack, overload

import numpy as np

from .input_errors import VideoReadError
from .media_files import MediaSource
from .picture_files import Picture, read_picture
from .video_decoding import DecodedFrames, decode_clips, put_together
from .video_index import IndexArguments, VideoIndex, index_video

# Enough for eight 4K frames; frames of a larger clip are decoded for detection, and again for cropping.
_HELD_BYTES = 256 << 20


class MediaReader:
    """Reads files in this process, without protection against harmful files."""

    def index_video(self, source: MediaSource, **arguments: Unpack[IndexArguments]) -> VideoIndex:
        """Like `video_index.index_video`."""
        return index_video(source, **arguments)

    def open_picture(self, source: MediaSource) -> Picture:
        """Like `picture_files.read_picture`."""
        return read_picture(source)

    def read_picture(self, source: MediaSource) -> np.ndarray:
        """Only the picture's pixels: (height, width, 3) uint8 RGB."""
        return self.open_picture(source).pixels

    def decode_clips(self, index: VideoIndex, clips: Sequence[np.ndarray]) -> Iterator[DecodedFrames | VideoReadError]:
        """Like `video_decoding.decode_clips`; with `FramesOnDemand` for very large frames."""
        longest = max(map(len, clips), default=0)
        if longest > 1 and longest * index.height_px * index.width_px * 3 > _HELD_BYTES:
            return (put_together(index, clip, FramesOnDemand(self, index, clip)) for clip in clips)
        return self._decode(index, clips)

    def _decode(self, index: VideoIndex, clips: Sequence[np.ndarray]) -> Iterator[DecodedFrames | VideoReadError]:
        return decode_clips(index, clips)

    def __deepcopy__(self, memo: object) -> Self:
        return self  # copies of a processor share its reader


class FramesOnDemand(Sequence[np.ndarray]):
    """A clip's frames, (num_frames, height, width, 3) uint8, of which at most 256 MiB are held in memory at once.

    Accessed in order, each such group of frames costs a pass over the packets that it depends on: decoded frames wait
    until all possible damage is known, and there is not enough memory for all of them.

    Raises:
        VideoReadError: on access to a frame that is missing or damaged.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, reader: MediaReader, index: VideoIndex, clip: np.ndarray) -> None:
        self._reader, self._index, self._clip = reader, index, clip
        self.shape = (len(clip), index.height_px, index.width_px, 3)
        self._pass: Iterator[DecodedFrames | VideoReadError] = iter(())
        self._next = -1
        self._num_held = max(1, _HELD_BYTES // math.prod(self.shape[1:]))

    def __len__(self) -> int:
        return len(self._clip)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, place: slice) -> list[np.ndarray]: ...
    def __getitem__(self, place: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        place = range(len(self))[place]
        if place != self._next or place % self._num_held == 0:
            group = self._clip[place : place + self._num_held - place % self._num_held]
            self._pass = self._reader.decode_clips(self._index, [frame[None] for frame in group])
        decoded = next(self._pass)
        self._next = place + 1
        if self._next % self._num_held == 0 or self._next == len(self):
            next(self._pass, None)  # it is over, so that a reader in another process can go on with that process
        if isinstance(decoded, VideoReadError):
            raise decoded
        return decoded.frames[0]


HERE = MediaReader()
