"""Two minutes of a drawn room in which people sit, come, go, cross and pass by, with the truth beside each frame."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from drawn_film import FilmFrame

from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    FacePose,
    Person,
    draw_people,
    draw_subject,
    engagement_trajectory,
)
from engagement_recognition.live.engine import PersonState

WIDTH_PX, HEIGHT_PX, HEAD_WIDTH_PX = 640, 360, 60
DURATION_SEC, FPS = 120.0, 10
LEFT, RIGHT, ABOVE = -90, WIDTH_PX + 90, -110  # out of the picture
# Of each: seed of looks, then places (seconds, x, y) in order; in between they walk, before and after they are away.
# Those further down are further away, and are hidden by who passes in front of them.
PEOPLE: dict[str, tuple[int, list[tuple[float, float, float]]]] = {
    "sits to the end": (1, [(0, 110, 190), (120, 112, 192)]),
    "stands up and goes": (2, [(0, 245, 185), (52, 245, 185), (53, 245, ABOVE)]),
    "comes and stays": (4, [(12, LEFT, 120), (16, 390, 120), (17, 390, 190), (120, 388, 188)]),
    "comes late, goes early": (5, [(60, 245, ABOVE), (61.5, 245, 185), (96, 246, 184), (98, 246, ABOVE)]),
    "is out for two seconds": (
        6, [(0, 520, 180), (30, 520, 180), (31, RIGHT, 180), (32, RIGHT, 180), (33, 520, 180), (120, 520, 178)],
    ),
    "crosses to the right": (7, [(24, LEFT, 100), (30, RIGHT, 100)]),
    "crosses to the left": (8, [(24.4, RIGHT, 92), (30.4, LEFT, 92)]),
    "crosses later": (9, [(84, RIGHT, 95), (90, LEFT, 95)]),
    "runs by": (10, [(40, LEFT, 100), (40.9, RIGHT, 100)]),
    "runs by too": (11, [(70, RIGHT, 110), (70.9, LEFT, 110)]),
    "runs by at last": (12, [(104, LEFT, 105), (105, RIGHT, 105)]),
    "looks in": (13, [(46, RIGHT, 130), (46.2, 600, 130), (46.7, 600, 130), (46.9, RIGHT, 130)]),
    "looks in again": (14, [(76, LEFT, 90), (76.2, 45, 90), (76.7, 45, 90), (76.9, LEFT, 90)]),
    "looks in from above": (15, [(110, 320, ABOVE), (110.2, 320, 60), (110.7, 320, 60), (110.9, 320, ABOVE)]),
}  # fmt: skip
PASSERS_BY = {name for name in PEOPLE if name.startswith(("runs by", "looks in"))}  # in view for less than a second


def draw_crowd() -> Iterator[FilmFrame]:
    """Frames in order of time; who is out of the picture is not named."""
    num_frames = round(DURATION_SEC * FPS)
    subjects = {name: draw_subject(seed) for name, (seed, _) in PEOPLE.items()}
    poses = {name: _poses(number, num_frames) for number, name in enumerate(PEOPLE)}
    for index in range(num_frames):
        places = {name: place for name in PEOPLE if (place := _place_at(name, index / FPS))}
        people = [Person(subjects[name], poses[name][index], xy, HEAD_WIDTH_PX) for name, xy in places.items()]
        visible = {name: (x, y) for name, (x, y) in places.items() if 0 < x < WIDTH_PX and 0 < y < HEIGHT_PX}
        yield FilmFrame(draw_people(people[::-1], WIDTH_PX, HEIGHT_PX, noise_seed=index), index / FPS, visible)


def _place_at(name: str, time_sec: float) -> tuple[float, float] | None:
    times, xs, ys = zip(*PEOPLE[name][1], strict=True)
    if not times[0] <= time_sec <= times[-1]:
        return None
    return float(np.interp(time_sec, times, xs)), float(np.interp(time_sec, times, ys))


def _poses(number: int, num_frames: int) -> list[FacePose]:
    levels = AffectLevels(boredom=number % 4, engagement=3 - number % 4, confusion=0, frustration=0)
    rng = np.random.default_rng([0, number])
    moving = engagement_trajectory(levels, "appearance", num_frames / FPS, FPS, rng)
    return [replace(pose, offset_x=0.0, offset_y=0.0) for pose in moving]


@dataclass
class CrowdCount:
    """What was shown of the crowd, against the truth."""

    numbers: dict[str, set[int]]  # given to each person
    num_boxes: int = 0
    num_boxes_without_face: int = 0
    num_faces: int = 0  # of those who are no passers-by, in all frames
    num_faces_with_box: int = 0


def count_crowd(watched: Iterator[tuple[FilmFrame, Sequence[PersonState]]]) -> CrowdCount:
    """Of every box, whose head is within it, if anybody's is."""
    count = CrowdCount(defaultdict(set))
    for shot, states in watched:
        shown = set()
        for state in states:
            if state.number is None or state.box_xyxy_px is None:
                continue
            center = (np.array(state.box_xyxy_px[:2]) + state.box_xyxy_px[2:]) / 2
            distances = {name: float(np.linalg.norm(center - xy)) for name, xy in shot.centers_xy_px.items()}
            heads = {name for name, distance in distances.items() if distance <= HEAD_WIDTH_PX / 2}
            shown |= heads
            count.num_boxes += 1
            count.num_boxes_without_face += not heads
            if len(heads) == 1:  # where one hides another, the box is either's
                count.numbers[heads.pop()].add(state.number)
        there = set(shot.centers_xy_px) - PASSERS_BY
        count.num_faces += len(there)
        count.num_faces_with_box += len(there & shown)
    return count
