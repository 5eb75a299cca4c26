"""A drawn film of four people, with the truth beside it: one leaves and comes back, two cross, one just sits there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    FacePose,
    Person,
    draw_people,
    draw_subject,
    engagement_trajectory,
)

WIDTH_PX, HEIGHT_PX = 480, 270
HEAD_WIDTH_PX = 64
SUBJECTS = {"sitter": 1, "leaver": 2, "front crosser": 4, "back crosser": 5}  # name -> seed of looks
PERIOD_SEC = 8.0  # after which all of it begins again


@dataclass(frozen=True)
class FilmFrame:
    """One frame, and where each person's head really is; who is out of the picture is not named."""

    pixels: np.ndarray  # (height, width, 3), uint8 RGB
    time_sec: float
    centers_xy_px: dict[str, tuple[float, float]]


def draw_film(duration_sec: float = PERIOD_SEC, fps: float = 15, seed: int = 0) -> Iterator[FilmFrame]:
    """Frames in order of time; faces move as engaged and bored ones do, the heads stay where the truth has them."""
    subjects = {name: draw_subject(subject_seed) for name, subject_seed in SUBJECTS.items()}
    num_frames = round(duration_sec * fps)
    poses = {name: _poses(number, num_frames, fps, seed) for number, name in enumerate(subjects)}
    for index in range(num_frames):
        places = places_at(index / fps % PERIOD_SEC)
        people = [
            Person(subjects[name], poses[name][index], places[name], HEAD_WIDTH_PX) for name in reversed(subjects)
        ]
        pixels = draw_people(people, WIDTH_PX, HEIGHT_PX, noise_seed=index)
        visible = {name: (x, y) for name, (x, y) in places.items() if -10 < x < WIDTH_PX + 10}
        yield FilmFrame(pixels, index / fps, visible)


def name_of(film_frame: FilmFrame, box_xyxy_px: Sequence[float]) -> str:
    """Whose head lies nearest to a box."""
    center = (np.array(box_xyxy_px[:2]) + box_xyxy_px[2:]) / 2
    truth = film_frame.centers_xy_px
    return min(truth, key=lambda name: float(np.linalg.norm(center - truth[name])))


def places_at(time_sec: float) -> dict[str, tuple[float, float]]:
    """Within one period. The leaver is out from about 3 to 4.5 s, the crossers meet at 2 s and at 6 s."""
    out = np.interp(time_sec, [2.0, 3.0, 4.5, 5.5], [0.0, 1.0, 1.0, 0.0])
    across = np.interp(time_sec, [1.0, 3.0, 5.0, 7.0], [0.0, 1.0, 1.0, 0.0])
    return {
        "sitter": (WIDTH_PX * 0.38, HEIGHT_PX * 0.42),
        "leaver": (WIDTH_PX * 0.14 - out * WIDTH_PX * 0.26, HEIGHT_PX * 0.44),
        "front crosser": (WIDTH_PX * (0.6 + 0.27 * across), HEIGHT_PX * 0.46),
        "back crosser": (WIDTH_PX * (0.87 - 0.27 * across), HEIGHT_PX * 0.42),
    }


def _poses(number: int, num_frames: int, fps: float, seed: int) -> list[FacePose]:
    levels = AffectLevels(boredom=number, engagement=3 - number, confusion=0, frustration=0)
    rng = np.random.default_rng([seed, number])
    moving = engagement_trajectory(levels, "appearance", num_frames / fps, fps, rng)
    return [replace(pose, offset_x=0.0, offset_y=0.0) for pose in moving]
