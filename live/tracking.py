"""Tracks several faces through a live picture: one track per face, with a number once it was seen for long enough.

Detected faces are assigned to tracks one to one, the cheapest pair first. The cost of a pair grows with the distance of
the face from the track's expected place, the change of size, and the difference of the colours around it (skin, hair,
clothes). So two people who cross keep their numbers, as does a person who is away for a moment. If everything around
a face changes at once, as when a call shows another speaker in the same place, it belongs to another person. Passers-by
get no number and use none up.
Looks are stored as long as their track and identify nobody. The few frames of a stored clip are too far apart for speed
estimates; `processor/face_tracking` tracks those.
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

# A detector misses a face now and then; only after this long is the face missing.
MISSING_AFTER_SEC = 0.5
REACH_FACE_SIZES, REACH_FACE_SIZES_A_SEC = 0.5, 5.0  # how far from its expected place a face may appear
MAX_UNWATCHED_SEC = 1.0  # in a longer gap without detections nobody counts as absent
COAST_SEC = 0.7  # a head stops eventually: an unseen one moves by at most its speed times this
SPEED_MEMORY_SEC = 0.3  # speeds are averaged over about this long, since boxes jitter by a pixel or two
COLOR_MEMORY_SEC = LOOK_MEMORY_SEC = 2.0
COLOR_WEIGHT = 2.0
# A head belongs to another person if its look changed by more than the first, and more than the second as a share of
# its surroundings. For looks 0.6 s apart, both are exceeded by all 29 changes of person in calls of real faces (grey,
# closely cropped) and all 56 of drawn ones, but also by 2 of 33 steps of people signing, by none of drawn people,
# and by a share of 0.057 of the real faces' own steps, whose pictures jump.
OTHER_LOOK, OTHER_SCENE = 0.36, 0.4
OTHER_SCENE_UNSEEN = 0.5  # a face not found a moment ago may still be half hidden by somebody
AT_REST_FACE_SIZES_A_SEC = 0.5  # people who walk change their surroundings, so looks mean nothing
# A track not seen for long reaches far, and could take the face of one seen just now. So waiting costs as well: after
# a longer absence the look must be more similar.
WAITING_WEIGHT = 0.3
# Move and growth are 1 at their limits; a sum above this is another person.
MAX_COST = 2.0


@dataclass(eq=False)
class LiveTrack:
    """One face: where it was last found, its speed there, and the colours around it."""

    box_xyxy_px: np.ndarray  # (4,) float64
    landmarks_xy_px: np.ndarray  # (5, 2) float64
    colors: np.ndarray  # (COLOR_BINS ** 3,) float32, slow moving average
    first_seen_sec: float
    seen_sec: float
    number: int | None = None  # 1, 2, ... in order of appearance; never reused; None: not yet a person
    velocity_xy_px_sec: np.ndarray = field(default_factory=lambda: np.zeros(2))
    found: bool = True  # by the latest detection
    num_sightings: int = 1
    looks: list[tuple[float, Look]] = field(default_factory=list)  # seconds and look, without other people: at most the
    # newest and one from `LOOK_MEMORY_SEC` earlier, since a person passing in front is in the newest
    scene: Scene | None = None  # around the face, when it was last found

    def box_at(self, time_sec: float) -> np.ndarray:
        """(4,), where the box is expected; at the time of its detection, the detected one itself."""
        return self.box_xyxy_px + np.tile(self._moved_px(time_sec), 2)

    def landmarks_at(self, time_sec: float) -> np.ndarray:
        """(5, 2), moved like the box."""
        return self.landmarks_xy_px + self._moved_px(time_sec)

    @property
    def look(self) -> Look | None:
        """The newest look; None: other people always overlapped."""
        return self.looks[-1][1] if self.looks else None

    def remember(self, look: Look, time_sec: float) -> None:
        """Store the person's current look."""
        is_due = len(self.looks) == 2 and time_sec - self.looks[0][0] >= 2 * LOOK_MEMORY_SEC
        self.looks = [*(self.looks[1:] if is_due else self.looks[:1]), (time_sec, look)]

    def is_missing(self, time_sec: float) -> bool:
        """Whether the face is not found for longer than a detector misses one."""
        return not self.found and time_sec - self.seen_sec > MISSING_AFTER_SEC

    def _moved_px(self, time_sec: float) -> np.ndarray:
        return self.velocity_xy_px_sec * COAST_SEC * -math.expm1((self.seen_sec - time_sec) / COAST_SEC)


class FaceTracker:
    """The tracks of everybody in the picture; `update` takes one detection after the other.

    Args:
        keep_lost_sec: how long a person without a visible face is remembered; a face seen only once is not, and one
            without a number only for `slip_sec`.
        max_people: the most people with a number; a new one replaces the one absent longest, or gets none.
        min_seen_sec: a face seen for this long gets a number. Everybody in the first picture gets one at once: they
            were there before, and in a single picture all are wanted.
        slip_sec: how long a detector may miss a face.
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
        """The next number, and the time of the latest update: with `tracks`, a tracker's whole state."""
        return self._next_number, self._updated_sec

    def set_clock(self, next_number: int, updated_sec: float | None) -> None:
        """Set the values from another tracker's `clock`."""
        self._next_number, self._updated_sec = next_number, updated_sec

    def update(self, faces: FaceDetections, frame: np.ndarray, time_sec: float) -> None:
        """faces: all faces of this frame, (height, width, 3) uint8 RGB."""
        is_first = self._updated_sec is None
        unwatched_sec = 0.0 if self._updated_sec is None else max(0.0, time_sec - self._updated_sec - MAX_UNWATCHED_SEC)
        for track in self.tracks:
            track.seen_sec += unwatched_sec
            track.first_seen_sec += unwatched_sec
        self._updated_sec = time_sec
        self.tracks = [track for track in self.tracks if self._waits_for(track, time_sec)]
        looks = looks_about(frame, faces.boxes_xyxy_px)
        costs = matching_costs(self.tracks, faces.boxes_xyxy_px, looks, frame, time_sec)
        matches = {self.tracks[i]: j for i, j in pair_cheapest_first(np.where(costs < MAX_COST, costs, np.inf))}
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
        return track.found or time_sec - track.seen_sec <= self.slip_sec  # found: by the previous detection

    def _move(self, track: LiveTrack, faces: FaceDetections, face: int, look: Look, time_sec: float) -> None:
        box = faces.boxes_xyxy_px[face].astype(np.float64)
        others = [other.box_at(time_sec) for other in self.tracks if other is not track]
        elapsed_sec = time_sec - track.seen_sec
        if not any(overlap(surroundings(box), surroundings(other)) for other in others):  # else the colours are mixed
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
    """Tracks and found boxes, (num_boxes, 4), -> (num_tracks, num_boxes); `MAX_COST` for impossible pairs."""
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
    """The side of a square with the box's area."""
    return math.sqrt(float(np.prod(box_xyxy_px[2:] - box_xyxy_px[:2])))
