"""Where faces are at any time of a video, from detections at some times.

`live/tracking` links the sightings of one face. Between two of them its box moves in a straight line. Before the first
and after the last it stays for a while, and extends to where a face of the same speed would be, since a person leaving
the picture is not detected in profile or cut off by the edge. The longer a face was not seen, the larger the box.
"""

import math
from array import array
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from ...processor.face_detection import FaceDetections
from ..tracking import FaceTracker, LiveTrack

# People who read from a sheet or look aside are still there, but not detected for seconds. Longer gaps are covered at
# both ends. Covering an empty place does no harm.
MAX_GAP_SEC = 5.0
AROUND_SEC = 1.0
MOVING_ON_SEC = 0.5  # the longest motion, at the speed between two sightings no further apart
GROWTH_A_SEC = 0.5  # share of its size by which a box grows per second without a sighting
MAX_GROWTH = 0.5
MAX_FACES = 1000  # at a time; nobody may be left out


@dataclass(frozen=True)
class FacePlace:
    """Where a face is, or may be."""

    box_xyxy_px: np.ndarray  # (4,) float64
    is_seen: bool  # detected at exactly this time


@dataclass(eq=False)
class _Path:
    """The sightings of one face, in arrays since there are thousands."""

    times_sec: "array[float]" = field(default_factory=lambda: array("d"))  # increasing
    boxes_px: "array[float]" = field(default_factory=lambda: array("d"))  # four numbers each

    def box_at(self, time_sec: float) -> FacePlace | None:
        times_sec = np.frombuffer(self.times_sec)
        boxes = np.frombuffer(self.boxes_px).reshape(-1, 4)  # (num_sightings * 4,) -> (num_sightings, 4)
        after = int(np.searchsorted(times_sec, time_sec))
        before = after - 1
        if after < len(times_sec) and times_sec[after] == time_sec:
            return FacePlace(boxes[after], is_seen=True)
        since_sec = time_sec - times_sec[before] if before >= 0 else math.inf
        until_sec = times_sec[after] - time_sec if after < len(times_sec) else math.inf
        unseen_sec = float(min(since_sec, until_sec))
        if since_sec + until_sec <= MAX_GAP_SEC:
            share = since_sec / (since_sec + until_sec)
            box = boxes[before] + share * (boxes[after] - boxes[before])
        elif unseen_sec <= AROUND_SEC:
            end, inward = (before, -1) if since_sec < until_sec else (after, 1)
            box = _reach(times_sec, boxes, end, inward, unseen_sec)
        else:
            return None
        return FacePlace(grown(box, min(MAX_GROWTH, GROWTH_A_SEC * unseen_sec)), is_seen=False)


class FacePaths:
    """The paths of all faces in a video: call `add` in order of time, then `finish`, then `faces_at`.

    It needs 40 bytes per sighting: 14 MB for ten faces detected ten times per second for an hour.
    """

    def __init__(self) -> None:
        self._tracker = FaceTracker(keep_lost_sec=MAX_GAP_SEC, max_people=MAX_FACES, min_seen_sec=0.0)
        self._open: dict[LiveTrack, _Path] = {}
        self._paths: list[_Path] = []
        self._by_second: defaultdict[int, list[_Path]] = defaultdict(list)

    def add(self, faces: FaceDetections, frame: np.ndarray, time_sec: float) -> None:
        """faces: all faces of this frame, (height, width, 3) uint8 RGB; times must increase."""
        self._tracker.update(faces, frame, time_sec)
        self._open = {track: self._open.get(track) or self._new_path() for track in self._tracker.tracks}
        for track, path in self._open.items():
            if track.found:
                path.times_sec.append(time_sec)
                path.boxes_px.extend(track.box_xyxy_px.tolist())

    def finish(self) -> None:
        """Call after the last sighting and before `faces_at`."""
        for path in self._paths:
            first, last = path.times_sec[0] - AROUND_SEC, path.times_sec[-1] + AROUND_SEC
            for second in range(math.floor(first), math.floor(last) + 1):
                self._by_second[second].append(path)

    def faces_at(self, time_sec: float) -> list[FacePlace]:
        """Where faces are seen or may be at this time."""
        paths = self._by_second.get(math.floor(time_sec), [])
        return [place for path in paths if (place := path.box_at(time_sec)) is not None]

    def _new_path(self) -> _Path:
        self._paths.append(_Path())
        return self._paths[-1]


def _reach(times_sec: np.ndarray, boxes: np.ndarray, end: int, inward: int, unseen_sec: float) -> np.ndarray:
    """The box at one end of a path, extended to where it would have moved since: (4,).

    Args:
        end: index of a sighting followed by none, or by a long gap.
        inward: 1 or -1, the direction of the previous sighting on the path.
    """
    other = end + inward
    if not 0 <= other < len(times_sec) or (apart_sec := abs(times_sec[end] - times_sec[other])) > MOVING_ON_SEC:
        return boxes[end]
    moved = boxes[end] + (boxes[end] - boxes[other]) / apart_sec * min(unseen_sec, MOVING_ON_SEC)
    return np.concatenate([np.minimum(boxes[end], moved)[:2], np.maximum(boxes[end], moved)[2:]])


def grown(box_xyxy: np.ndarray, share: float) -> np.ndarray:
    """A box (4,) -> a box with the same centre whose sides are longer by this share."""
    half = (box_xyxy[2:] - box_xyxy[:2]) / 2 * share
    return box_xyxy + np.concatenate([-half, half])
