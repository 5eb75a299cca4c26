"""What a visitor of the page has: settings that answer soon, a camera's pictures, a video, a photo."""

from pathlib import Path

import numpy as np
from PIL import Image

from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import FacePose, Person, draw_frame, draw_people, draw_subject
from engagement_recognition.live.settings import LiveSettings

SETTINGS = LiveSettings(abstain_below=0.0, window_sec=1.0)
EMPTY_ROOM = np.full((480, 640, 3), 90, np.uint8)


def person_frame(roll_deg: float = 0.0, seed: int = 1) -> np.ndarray:
    return draw_frame(draw_subject(seed), FacePose(roll_deg=roll_deg))


def write_video(path: Path, frames: list[np.ndarray], fps: int = 4) -> Path:
    encode_video(path, iter(frames), fps, frames[0].shape[1], frames[0].shape[0], "mp4")
    return path


def write_photo(path: Path) -> Path:
    people = [Person(draw_subject(seed), FacePose(), (x, 220), 120) for seed, x in ((1, 480), (4, 160))]
    Image.fromarray(draw_people(people)).save(path)
    return path
