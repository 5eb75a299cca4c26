"""Videos of one drawn person, frame by frame, and what a command says of files that it refuses."""

from pathlib import Path

import numpy as np

from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject

WIDTH_PX, HEIGHT_PX = 320, 240


def person_frame(seed: int = 0, roll_deg: float = 0.0) -> np.ndarray:
    return draw_frame(draw_subject(seed), FacePose(roll_deg=roll_deg), WIDTH_PX, HEIGHT_PX)


def write_video(path: Path, frames: list[np.ndarray], fps: float = 4) -> Path:
    encode_video(path, iter(frames), fps, WIDTH_PX, HEIGHT_PX, path.suffix[1:])
    return path


def refusals(stderr: str) -> list[str]:
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("refused: ")]
