"""Drawn recordings of a video call: tiles in which people sit, leave, return and replace each other.

The true identities are known, so that a tracker's confusions can be counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from .faces import draw_frame, draw_subject
from .head import FacePose
from .motion import AffectLevels, engagement_trajectory

TILE_WIDTH_PX, TILE_HEIGHT_PX = 320, 240
CAMERA_OFF = 70  # grey
POSES_FPS, LOOP_SEC = 5, 60.0  # faces repeat their motion every minute, so that an hour takes only minutes to draw

Tile = Callable[["Stay", float], np.ndarray]  # at a time in seconds -> (TILE_HEIGHT_PX, TILE_WIDTH_PX, 3), uint8 RGB


@dataclass(frozen=True)
class Stay:
    """Somebody in a tile, from start to end."""

    name: str
    seed: int  # of the person's looks
    tile: int  # counted from the left, then down
    start_sec: float
    end_sec: float


def long_call(minutes: float) -> list[Stay]:
    """Four people in four tiles; two leave and return, and after two thirds one tile shows a different speaker."""
    end_sec = minutes * 60
    half_sec, speaker_sec = end_sec * 0.5, end_sec * 2 / 3
    return [
        Stay("stays", 1, 0, 0, end_sec),
        Stay("leaves", 2, 1, 0, end_sec * 0.2),
        Stay("leaves", 2, 1, end_sec * 0.35, end_sec),
        Stay("leaves for a minute", 4, 2, 0, half_sec),
        Stay("leaves for a minute", 4, 2, half_sec + 60, end_sec),
        Stay("speaks first", 5, 3, 0, speaker_sec),
        Stay("speaks then", 7, 3, speaker_sec, end_sec),
    ]


def drawn_tile(stay: Stay, time_sec: float) -> np.ndarray:
    """A drawn person in front of their own room."""
    return _draw(stay.seed, int(time_sec % LOOP_SEC * POSES_FPS))


def write_call(
    path: Path, stays: Sequence[Stay], duration_sec: float, fps: int = POSES_FPS, columns: int = 2,
    tile: Tile = drawn_tile,
) -> Path:  # fmt: skip
    """Write an H.264 film with `columns` tiles per row; its content changes at most five times per second."""
    rows = max(stay.tile for stay in stays) // columns + 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height = columns * TILE_WIDTH_PX, rows * TILE_HEIGHT_PX
        stream.pix_fmt = "yuv420p"
        shown: np.ndarray | None = None
        for number in range(round(duration_sec * fps)):
            time_sec = number / fps
            if shown is None or time_sec * POSES_FPS % 1 < POSES_FPS / fps:
                shown = _draw_tiles(stays, time_sec, rows, columns, tile)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


def who_is_at(stays: Sequence[Stay], box_xyxy_px: np.ndarray, time_sec: float, columns: int = 2) -> str | None:
    """The person whose tile contains the centre of a box; None: nobody."""
    x, y = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2
    tile = int(y // TILE_HEIGHT_PX) * columns + int(x // TILE_WIDTH_PX)
    there = (stay.name for stay in stays if stay.tile == tile and stay.start_sec <= time_sec < stay.end_sec)
    return next(there, None)


def _draw_tiles(stays: Sequence[Stay], time_sec: float, rows: int, columns: int, tile: Tile) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    frame = np.full((rows * TILE_HEIGHT_PX, columns * TILE_WIDTH_PX, 3), CAMERA_OFF, np.uint8)
    for stay in stays:
        if stay.start_sec <= time_sec < stay.end_sec:
            row, column = divmod(stay.tile, columns)
            top, left = row * TILE_HEIGHT_PX, column * TILE_WIDTH_PX
            frame[top : top + TILE_HEIGHT_PX, left : left + TILE_WIDTH_PX] = tile(stay, time_sec)
    return frame


@lru_cache(maxsize=4000)
def _draw(seed: int, place: int) -> np.ndarray:
    return draw_frame(draw_subject(seed), _poses(seed)[place], TILE_WIDTH_PX, TILE_HEIGHT_PX, noise_seed=place)


@lru_cache(maxsize=64)
def _poses(seed: int) -> list[FacePose]:
    levels = AffectLevels(boredom=seed % 4, engagement=3 - seed % 4, confusion=0, frustration=0)
    rng = np.random.default_rng([0, seed])
    return engagement_trajectory(levels, "appearance", LOOP_SEC, POSES_FPS, rng)
