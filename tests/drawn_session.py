"""Drawn recordings of a call: tiles in which people sit, leave, come back and take each other's place, with the truth.

`python tests/drawn_session.py FILM MINUTES` writes the long one that docs/sessions.md speaks of.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    FacePose,
    draw_frame,
    draw_subject,
    engagement_trajectory,
)

TILE_WIDTH_PX, TILE_HEIGHT_PX = 320, 240
CAMERA_OFF = 70  # grey
POSES_FPS, LOOP_SEC = 5, 60.0  # faces do the same every minute, so that an hour is drawn in minutes


@dataclass(frozen=True)
class Stay:
    """Somebody in a tile, from start to end."""

    name: str
    seed: int  # of looks
    tile: int  # from the left, then down
    start_sec: float
    end_sec: float


def long_session(minutes: float) -> list[Stay]:
    """Four people in four tiles; two leave and come back, and after two thirds one tile shows another speaker."""
    end = minutes * 60
    return [
        Stay("stays", 1, 0, 0, end),
        Stay("leaves", 2, 1, 0, end * 0.2),
        Stay("leaves", 2, 1, end * 0.35, end),
        Stay("leaves for a minute", 4, 2, 0, end * 0.5),
        Stay("leaves for a minute", 4, 2, end * 0.5 + 60, end),
        Stay("speaks first", 5, 3, 0, end * 2 / 3),
        Stay("speaks then", 7, 3, end * 2 / 3, end),
    ]


def write_session(path: Path, stays: Sequence[Stay], duration_sec: float, fps: int = 5, columns: int = 2) -> Path:
    """An H.264 film of tiles, `columns` a row; faces change five times a second at most."""
    rows = max(stay.tile for stay in stays) // columns + 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height = columns * TILE_WIDTH_PX, rows * TILE_HEIGHT_PX
        stream.pix_fmt = "yuv420p"
        shown: np.ndarray | None = None
        for number in range(round(duration_sec * fps)):
            time_sec = number / fps
            if shown is None or time_sec * POSES_FPS % 1 < POSES_FPS / fps:
                shown = draw_tiles(stays, time_sec, rows, columns)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


def draw_tiles(stays: Sequence[Stay], time_sec: float, rows: int, columns: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    frame = np.full((rows * TILE_HEIGHT_PX, columns * TILE_WIDTH_PX, 3), CAMERA_OFF, np.uint8)
    for stay in stays:
        if stay.start_sec <= time_sec < stay.end_sec:
            row, column = divmod(stay.tile, columns)
            top, left = row * TILE_HEIGHT_PX, column * TILE_WIDTH_PX
            place = int(time_sec % LOOP_SEC * POSES_FPS)
            frame[top : top + TILE_HEIGHT_PX, left : left + TILE_WIDTH_PX] = _tile(stay.seed, place)
    return frame


@lru_cache(maxsize=4000)
def _tile(seed: int, place: int) -> np.ndarray:
    return draw_frame(draw_subject(seed), _poses(seed)[place], TILE_WIDTH_PX, TILE_HEIGHT_PX, noise_seed=place)


@lru_cache(maxsize=64)
def _poses(seed: int) -> list[FacePose]:
    levels = AffectLevels(boredom=seed % 4, engagement=3 - seed % 4, confusion=0, frustration=0)
    rng = np.random.default_rng([0, seed])
    return engagement_trajectory(levels, "appearance", LOOP_SEC, POSES_FPS, rng)


if __name__ == "__main__":
    length_min = float(sys.argv[2])
    write_session(Path(sys.argv[1]), long_session(length_min), length_min * 60, fps=25)
