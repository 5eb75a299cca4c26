"""Tiny videos whose every frame bears its number in its pixels, so that a test can say which frame came out."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engagement_recognition.processor.input_errors import VideoReadError
from engagement_recognition.processor.media_files import MediaSource
from engagement_recognition.processor.video_decoding import DecodedFrames, decode_clips
from engagement_recognition.processor.video_index import VideoIndex, index_video

WIDTH_PX, HEIGHT_PX = 96, 72
NUM_BITS = 8


def numbered_picture(number: int) -> np.ndarray:
    """(height, width, 3), uint8: eight bars are the bits of the number, and a moving slope makes coding work."""
    bars = np.array([[40, 200][number >> bit & 1] for bit in range(NUM_BITS)]).repeat(WIDTH_PX // NUM_BITS)
    slope = (np.arange(HEIGHT_PX)[:, None] * 3 + number * 5) % 40
    return (bars[None, :, None] + slope[:, :, None] + np.array([0, 5, 10])).astype(np.uint8)


def numbers_in(frames: np.ndarray) -> list[int]:
    """Frames (num_frames, height, width, 3) -> the number each bears."""
    bars = frames.mean(axis=(1, 3)).reshape(len(frames), NUM_BITS, -1)[:, :, 3:-3].mean(axis=2)
    return ((bars > 145) @ (1 << np.arange(NUM_BITS))).tolist()


def encode(
    path, codec="libx264", options=None, mux=None, num_frames=40, fps=30, pixel_format=None, pts=None, rotation=0
) -> bytes:
    default_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = WIDTH_PX, HEIGHT_PX
        stream.pix_fmt, stream.options = pixel_format or default_format, options or {}
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts, frame.time_base = (pts[number] if pts else number), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path).read_bytes()


def decode_plainly(source) -> np.ndarray:
    """Every frame, the slow and simple way: (num_frames, height, width, 3), uint8, upright."""
    with av.open(source) as container:
        frames = list(container.decode(video=0))
        return np.stack([np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in frames])


def decode_frames_at(film: VideoIndex | MediaSource, numbers: Sequence[int] | np.ndarray) -> DecodedFrames:
    """The product's frames of these numbers, in any order, with repeats; a clip's error is raised."""
    index = film if isinstance(film, VideoIndex) else index_video(film)
    (clip,) = decode_clips(index, [np.asarray(numbers, dtype=np.int64).reshape(-1)])
    if isinstance(clip, VideoReadError):
        raise clip
    return clip


def write_sound(path: Path) -> None:
    """An mp4 file that holds sound alone."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
