"""Joins tracks in a recording into people, if place and look leave no doubt.

A face that appears in the seat, or the tile, of an absent person and has a similar look is that person again; so are
people whom a call moves to other tiles within a few seconds. A similar look elsewhere, later, may be the same person,
which is reported but not decided. Faces are not compared, and nothing is stored beyond a recording.
"""

from dataclasses import dataclass, field

import numpy as np

from ..looks import Look, distance_of_looks
from ..tracking import LiveTrack
from .records import SessionPerson, Visit

LONGER_BREAK_SEC = 15.0  # a person not found for less than this was still there: hands, a bowed head
_MOVED_SEC = 5.0  # a call rearranges its tiles, and faces are found again, within this time
_SAME_PLACE_FACE_SIZES = 1.0
_SAME_SIZE_RATIO = 1.5
_SAME_LOOK = 0.25  # met by half of real people's own looks ten seconds apart, and by hardly any two people's
_LOOKS_KEPT, _LOOKS_EVERY_SEC = 4, 10.0


@dataclass(eq=False)
class Person:
    """A person in a recording, while it is read."""

    number: int
    box_xyxy_px: np.ndarray  # (4,), where last seen
    visits: list[Visit]
    looks: list[tuple[float, Look]] = field(default_factory=list)  # seconds and look, some recent ones
    may_be: int | None = None
    track: LiveTrack | None = None  # the person's current track

    @property
    def seen_sec(self) -> float:
        """When they were last seen."""
        return self.visits[-1].end_sec

    def see(self, track: LiveTrack) -> None:
        """Update with a face found just now."""
        time_sec, self.box_xyxy_px = track.seen_sec, track.box_xyxy_px
        if time_sec - self.seen_sec <= LONGER_BREAK_SEC:
            self.visits[-1] = Visit(self.visits[-1].start_sec, time_sec)
        else:
            self.visits.append(Visit(track.first_seen_sec, time_sec))
        if track.look is not None and (not self.looks or time_sec - self.looks[-1][0] >= _LOOKS_EVERY_SEC):
            self.looks = [*self.looks, (time_sec, track.look)][-_LOOKS_KEPT:]

    def distance_to(self, look: Look) -> float:
        """Distance to the nearest of the stored looks."""
        return min((distance_of_looks(own, look) for _, own in self.looks), default=np.inf)


class People:
    """Everybody in one recording so far."""

    def __init__(self) -> None:
        self.everybody: list[Person] = []  # by number

    def update(self, tracks: list[LiveTrack], time_sec: float) -> None:
        """Update after a detection.

        Args:
            tracks: all of the tracker's; if a person turns out to have a new track, the old one is removed.
        """
        known = {person.track: person for person in self.everybody if person.track is not None}
        numbered = [track for track in tracks if track.found and track.number is not None]
        for track in sorted(numbered, key=lambda track: track.number or 0):
            if track not in known:
                person = self._who_is(track, time_sec)
                if person.track in tracks:
                    tracks.remove(person.track)
                person.track = track
                known[track] = person
            known[track].see(track)
        for person in self.everybody:
            if person.track not in tracks:
                person.track = None

    def person_of(self, track: LiveTrack) -> Person | None:
        """The person of a track; None: not yet a person."""
        return next((person for person in self.everybody if person.track is track), None)

    def records(self) -> tuple[SessionPerson, ...]:
        """All people and their visits, by number."""
        return tuple(SessionPerson(person.number, tuple(person.visits), person.may_be) for person in self.everybody)

    def _who_is(self, track: LiveTrack, time_sec: float) -> Person:
        """A person who is absent now, or else a new one."""
        may_be = None
        if track.look is not None:
            away = [person for person in self.everybody if person.track is None or not person.track.found]
            distances = sorted(((person.distance_to(track.look), person) for person in away), key=lambda pair: pair[0])
            alike = [person for distance, person in distances if distance <= _SAME_LOOK]
            for person in alike:
                gone_sec = track.first_seen_sec - person.seen_sec
                if gone_sec >= 0 and (gone_sec <= _MOVED_SEC or _is_same_place(person.box_xyxy_px, track.box_xyxy_px)):
                    return person
            may_be = alike[0].number if alike else None
        person = Person(len(self.everybody) + 1, track.box_xyxy_px, [Visit(track.first_seen_sec, time_sec)])
        person.may_be = may_be
        self.everybody.append(person)
        return person


def _is_same_place(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> bool:
    sizes = [float(np.sqrt(np.prod(box[2:] - box[:2]))) for box in (first_xyxy, second_xyxy)]
    move = np.linalg.norm((first_xyxy[:2] + first_xyxy[2:] - second_xyxy[:2] - second_xyxy[2:]) / 2)
    is_near = move <= _SAME_PLACE_FACE_SIZES * min(sizes)
    return bool(is_near and max(sizes) <= _SAME_SIZE_RATIO * min(sizes))
