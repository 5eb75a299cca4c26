"""Follows several faces through a live picture: one track a face, and a number once it was seen for long enough.

The faces that a detection finds go to the tracks one to one, the cheapest pair first: a pair costs how far the face
lies from where its track was expected at its speed, how its size changed, and how the colours about it (skin, hair,
clothes) differ. Two who cross so keep their numbers, and so does a person who is away for a moment. Where all that is
about a face changes at once, as when a call shows another speaker in the same place, it is another person's. Who only
passes by gets no number and uses none up.
Looks are kept for as long as a track is, and identify nobody. The few frames of a stored clip lie too far apart for
speeds: those are `processor/face_tracking`'s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..processor.face_detection import FaceDetections
from ..processor.face_tracking import MAX_SIZE_RATIO, pair_cheapest_first
from ..processor.video_decoding import TIME_TOLERANCE_SEC
from .looks import (
    Look,
    Scene,
    distance_of_colors,
    distance_of_looks,
    head_about,
    looks_about,
    overlap,
    reaches_into,
    surroundings,
)

# A detector overlooks a face now and then; only a face that stays away this long is missing.
MISSING_AFTER_SEC = 0.5
REACH_FACE_SIZES, REACH_FACE_SIZES_A_SEC = 0.5, 5.0  # how far from the expected place a face may turn up
MAX_UNWATCHED_SEC = 1.0  # nobody looked for longer than this: who is away since then was not seen to be away
COAST_SEC = 0.7  # a head stops sooner or later: an unseen one moves on by at most its speed times this
SPEED_MEMORY_SEC = 0.3  # speeds are averaged over about this long, since boxes jitter by a pixel or two
COLOR_MEMORY_SEC = LOOK_MEMORY_SEC = 2.0
COLOR_WEIGHT = 2.0
# A head that looks this different from the last time, where this share of what is about it has changed too, is another
# person's. Of looks 0.6 s apart: all 29 changes of person in calls of real faces (grey, cut close) and all 56 of drawn
# ones are beyond both, and so are 2 of 33 steps of people signing, 0 of drawn ones, and 0.057 of the real faces' own,
# whose pictures leap.
OTHER_LOOK, OTHER_SCENE = 0.36, 0.4
OTHER_SCENE_UNSEEN = 0.5  # who was not found a moment ago was hidden by somebody, who may still be half in the way
AT_REST_FACE_SIZES_A_SEC = 0.5  # who walks leaves a scene, and is half hidden by others: there looks tell nothing
# A track not seen for long reaches far, and would take the face of one seen just now: so waiting costs as well, and
# who was away long must look the more alike.
WAITING_WEIGHT = 0.3
# Move and growth are 1 at their own limits; beyond twice that it is somebody else.
MAX_COST = 2.0


@dataclass(eq=False)
class LiveTrack:
    """One face: where it was last found, how fast it moved there, and the colours about it."""

    box_xyxy_px: np.ndarray  # (4,) float64
    landmarks_xy_px: np.ndarray  # (5, 2) float64
    colors: np.ndarray  # (COLOR_BINS ** 3,) float32, a slow mean
    first_seen_sec: float
    seen_sec: float
    number: int | None = None  # 1, 2, ... in order of appearance; never given to somebody else; None: nobody yet
    velocity_xy_px_sec: np.ndarray = field(default_factory=lambda: np.zeros(2))
    found: bool = True  # by the latest detection
    num_sightings: int = 1
    looks: list[tuple[float, Look]] = field(default_factory=list)  # seconds and look, with nobody else there: at most
    # the newest and one from `LOOK_MEMORY_SEC` before, since who passes in front is in the newest
    scene: Scene | None = None  # about the face, when it was last found

    def box_at(self, time_sec: float) -> np.ndarray:
        """(4,), where the box is expected; at the time of its detection, the detected one itself."""
        return self.box_xyxy_px + np.tile(self._moved_px(time_sec), 2)

    def landmarks_at(self, time_sec: float) -> np.ndarray:
        """(5, 2), moved as the box."""
        return self.landmarks_xy_px + self._moved_px(time_sec)

    @property
    def look(self) -> Look | None:
        """The newest; None: somebody else always reached in."""
        return self.looks[-1][1] if self.looks else None

    def remember(self, look: Look, time_sec: float) -> None:
        """How the person looked just now."""
        is_due = len(self.looks) == 2 and time_sec - self.looks[0][0] >= 2 * LOOK_MEMORY_SEC
        self.looks = [*(self.looks[1:] if is_due else self.looks[:1]), (time_sec, look)]

    def is_missing(self, time_sec: float) -> bool:
        """Not found, and for longer than a detector's slip."""
        return not self.found and time_sec - self.seen_sec > MISSING_AFTER_SEC

    def _moved_px(self, time_sec: float) -> np.ndarray:
        return self.velocity_xy_px_sec * COAST_SEC * -math.expm1((self.seen_sec - time_sec) / COAST_SEC)


class FaceTracker:
    """The tracks of everybody in the picture; `update` takes one detection after the other.

    Args:
        keep_lost_sec: how long a person is waited for whose face is gone; one seen a single time is not, and one
            without a number for as long as a detector's slip.
        max_people: the most with a number; a new one takes the place of the one gone longest, or is left without.
        min_seen_sec: a face seen for this long gets a number. Who is there in the first picture gets one at once: they
            were there before anybody looked, and of a single picture all are wanted.
        slip_sec: how long a detector overlooks a face now and then.
    """

    def __init__(
        self, keep_lost_sec: float, max_people: int, min_seen_sec: float, slip_sec: float = MISSING_AFTER_SEC
    ) -> None:
        self.keep_lost_sec = keep_lost_sec
        self.max_people = max_people
        self.min_seen_sec = min_seen_sec
        self.slip_sec = slip_sec
        self.tracks: list[LiveTrack] = []
        self._next_number = 1
        self._updated_sec: float | None = None

    @property
    def people(self) -> list[LiveTrack]:
        """The tracks with a number, by number."""
        return sorted((t for t in self.tracks if t.number is not None), key=lambda track: track.number or 0)

    def clock(self) -> tuple[int, float | None]:
        """The next number, and the time of the latest update: with `tracks`, all that a tracker knows."""
        return self._next_number, self._updated_sec

    def set_clock(self, next_number: int, updated_sec: float | None) -> None:
        """As another tracker's `clock` had it."""
        self._next_number, self._updated_sec = next_number, updated_sec

    def update(self, faces: FaceDetections, frame: np.ndarray, time_sec: float) -> None:
        """faces: of this frame, (height, width, 3) uint8 RGB, and no others."""
        is_first = self._updated_sec is None
        unwatched_sec = 0.0 if self._updated_sec is None else max(0.0, time_sec - self._updated_sec - MAX_UNWATCHED_SEC)
        for track in self.tracks:
            track.seen_sec += unwatched_sec
            track.first_seen_sec += unwatched_sec
        self._updated_sec = time_sec
        self.tracks = [track for track in self.tracks if self._waits_for(track, time_sec)]
        looks = looks_about(frame, faces.boxes_xyxy_px)
        matches = self._match(faces, looks, frame, time_sec)
        for track in self.tracks:
            track.found = track in matches
        for track, face in matches.items():
            self._move(track, faces, face, looks[face], time_sec)
        self.tracks = [track for track in self.tracks if track.found or track.num_sightings > 1]
        for face in sorted(set(range(len(faces))) - set(matches.values())):
            self._start(faces, face, looks[face], time_sec)
        for track in self.tracks:
            if track.found:
                track.scene = Scene.about(frame, track.box_xyxy_px)
        due_sec = math.inf if is_first else time_sec - self.min_seen_sec + TIME_TOLERANCE_SEC
        for track in sorted(self.tracks, key=lambda track: float(track.box_xyxy_px[0])):
            if track.number is None and track.found and track.first_seen_sec <= due_sec:
                self._give_number(track)

    def _waits_for(self, track: LiveTrack, time_sec: float) -> bool:
        if track.number is not None:
            return time_sec - track.seen_sec <= self.keep_lost_sec
        return track.found or time_sec - track.seen_sec <= self.slip_sec  # found: by the detection before this one

    def _match(
        self, faces: FaceDetections, looks: Sequence[Look], frame: np.ndarray, time_sec: float
    ) -> dict[LiveTrack, int]:
        """Track -> face."""
        costs = matching_costs(self.tracks, faces.boxes_xyxy_px, looks, frame, time_sec)
        return {self.tracks[i]: j for i, j in pair_cheapest_first(np.where(costs < MAX_COST, costs, np.inf))}

    def _move(self, track: LiveTrack, faces: FaceDetections, face: int, look: Look, time_sec: float) -> None:
        box = faces.boxes_xyxy_px[face].astype(np.float64)
        others = [other.box_at(time_sec) for other in self.tracks if other is not track]
        elapsed_sec = time_sec - track.seen_sec
        if not any(overlap(surroundings(box), surroundings(other)) for other in others):  # else they are shared
            track.colors = track.colors - math.expm1(-elapsed_sec / COLOR_MEMORY_SEC) * (look.colors - track.colors)
        if not any(reaches_into(other, head_about(box)) for other in others):
            track.remember(look, time_sec)
        if elapsed_sec > 0:
            measured = (_center(box) - _center(track.box_xyxy_px)) / elapsed_sec
            gain = -math.expm1(-elapsed_sec / SPEED_MEMORY_SEC)
            track.velocity_xy_px_sec = track.velocity_xy_px_sec + gain * (measured - track.velocity_xy_px_sec)
        track.box_xyxy_px, track.landmarks_xy_px = box, faces.landmarks_xy_px[face].astype(np.float64)
        track.seen_sec = time_sec
        track.num_sightings += 1

    def _start(self, faces: FaceDetections, face: int, look: Look, time_sec: float) -> None:
        if sum(track.number is None for track in self.tracks) >= self.max_people:
            return
        box, landmarks = faces.boxes_xyxy_px[face].astype(np.float64), faces.landmarks_xy_px[face].astype(np.float64)
        track = LiveTrack(box, landmarks, look.colors, time_sec, time_sec)
        if not look.is_shared:
            track.remember(look, time_sec)
        self.tracks.append(track)

    def _give_number(self, track: LiveTrack) -> None:
        if len(self.people) >= self.max_people:
            lost = [person for person in self.people if not person.found]
            if not lost:
                return
            self.tracks.remove(min(lost, key=lambda person: person.seen_sec))
        track.number = self._next_number
        self._next_number += 1


def matching_costs(
    tracks: Sequence[LiveTrack], boxes_xyxy_px: np.ndarray, looks: Sequence[Look], frame: np.ndarray, time_sec: float
) -> np.ndarray:
    """Tracks and found boxes, (num_boxes, 4), -> (num_tracks, num_boxes); `MAX_COST` where the two cannot be one."""
    costs = np.full((len(tracks), len(boxes_xyxy_px)), MAX_COST)
    for i, track in enumerate(tracks):
        expected = track.box_at(time_sec)
        reach = REACH_FACE_SIZES + REACH_FACE_SIZES_A_SEC * (time_sec - track.seen_sec)
        speed = float(np.linalg.norm(track.velocity_xy_px_sec)) / _face_size_px(track.box_xyxy_px)
        is_at_rest = speed < AT_REST_FACE_SIZES_A_SEC
        most_change = OTHER_SCENE if track.found else OTHER_SCENE_UNSEEN
        has_other_scene = track.scene is not None and is_at_rest and track.scene.change_to(frame) > most_change
        waiting = WAITING_WEIGHT * math.log(reach / REACH_FACE_SIZES)
        for j, box in enumerate(boxes_xyxy_px.astype(np.float64)):
            size_px = math.sqrt(_face_size_px(expected) * _face_size_px(box))
            move = float(np.linalg.norm(_center(expected) - _center(box))) / size_px / reach
            growth = abs(math.log(_face_size_px(box) / _face_size_px(expected))) / math.log(MAX_SIZE_RATIO)
            if move <= 1 and growth <= 1:
                difference = distance_of_colors(track.colors, looks[j].colors)
                if has_other_scene and not looks[j].is_shared and track.looks:
                    in_any_light = min(distance_of_looks(look, looks[j]) for _, look in track.looks)
                    if in_any_light > OTHER_LOOK:
                        continue
                    if move * reach <= REACH_FACE_SIZES:  # a lamp changes all colours
                        difference = min(difference, in_any_light)
                costs[i, j] = min(MAX_COST, move + growth + COLOR_WEIGHT * difference + waiting)
    return costs


def _center(box_xyxy: np.ndarray) -> np.ndarray:
    return (box_xyxy[:2] + box_xyxy[2:]) / 2


def _face_size_px(box_xyxy_px: np.ndarray) -> float:
    """The side of the square of equal area."""
    return math.sqrt(float(np.prod(box_xyxy_px[2:] - box_xyxy_px[:2])))
