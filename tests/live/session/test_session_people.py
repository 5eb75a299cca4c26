"""Who is who in a session: tiles that change hands, people who come back, calls that rearrange themselves."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import pytest

from engagement_recognition.data.drawn.call import Stay, long_call, who_is_at
from engagement_recognition.live.looks import Scene, distance_of_looks, looks_about
from engagement_recognition.live.session.people import People
from engagement_recognition.live.session.records import Visit
from engagement_recognition.live.tracking import FaceTracker
from engagement_recognition.processor.face_detection import FaceDetections

TILE_PX, FACE_PX = 160, 60
Seat = tuple[int, int, float]  # which tile, how somebody looks, how much light there is


@lru_cache
def picture(looks: int) -> np.ndarray:
    """(TILE_PX, TILE_PX, 3): somebody before a wall, a texture of their own."""
    coarse = np.random.default_rng(looks).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    return cv2.resize(coarse, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)


def show(seats: Sequence[Seat], num_tiles: int = 3) -> tuple[np.ndarray, FaceDetections]:
    frame = np.full((TILE_PX, num_tiles * TILE_PX, 3), 60, np.uint8)
    middles = []
    for tile, looks, light in seats:
        frame[:, tile * TILE_PX : (tile + 1) * TILE_PX] = (picture(looks) * light).astype(np.uint8)
        middles.append(((tile + 0.5) * TILE_PX, TILE_PX * 0.45))
    half = FACE_PX / 2
    boxes = np.array([[x - half, y - half, x + half, y + half] for x, y in middles], np.float32).reshape(-1, 4)
    count = len(boxes)
    return frame, FaceDetections(boxes, np.ones(count, np.float32), np.zeros((count, 5, 2), np.float32))


def follow(parts: Sequence[tuple[float, Sequence[Seat]]], every_sec: float = 0.5) -> tuple[list[list[int]], People]:
    """Parts of a recording, each from its time on → who was seen last in each, by tile; the last lasts six seconds."""
    tracker, people, numbers = FaceTracker(3.0, 8, 1.0, slip_sec=1.2), People(), []
    ends = [start for start, _ in parts[1:]] + [parts[-1][0] + 6]
    for (start_sec, seats), end_sec in zip(parts, ends, strict=True):
        frame, faces = show(seats)
        for time_sec in np.arange(start_sec, end_sec, every_sec).tolist():
            tracker.update(faces, frame, time_sec)
            people.update(tracker.tracks, time_sec)
        there = [person for track in tracker.tracks if track.found and (person := people.person_of(track))]
        numbers.append([person.number for person in sorted(there, key=lambda person: float(person.box_xyxy_px[0]))])
    return numbers, people


def test_another_face_in_the_same_tile_is_another_person_and_the_first_is_known_again():
    numbers, people = follow([(0, [(0, 1, 1)]), (6, [(0, 2, 1)]), (12, [(0, 1, 1)]), (18, [(0, 3, 1)])])
    assert numbers == [[1], [2], [1], [3]]
    assert people.records()[0].visits == (Visit(0, 17.5),)  # no longer break
    assert people.records()[1].visits == (Visit(6, 11.5),)


def test_a_lamp_is_no_other_person():
    numbers, _ = follow([(0, [(0, 1, 1)]), (6, [(0, 1, 0.5)]), (12, [(0, 1, 1)])])
    assert numbers == [[1], [1], [1]]


def test_who_comes_back_to_their_seat_after_long_is_the_same_person_and_another_is_not():
    numbers, people = follow([(0, [(0, 1, 1), (1, 2, 1)]), (6, [(1, 2, 1)]), (606, [(0, 1, 1), (1, 2, 1)])])
    assert numbers == [[1, 2], [2], [1, 2]]
    assert people.records()[0].visits == (Visit(0, 5.5), Visit(606, 611.5))
    numbers, people = follow([(0, [(0, 1, 1), (1, 2, 1)]), (6, [(1, 2, 1)]), (606, [(0, 3, 1), (1, 2, 1)])])
    assert numbers[-1] == [3, 2] and people.records()[2].may_be is None


def test_who_looks_like_somebody_gone_in_another_place_may_be_them_which_is_said_and_not_decided():
    numbers, people = follow([(0, [(0, 1, 1), (1, 2, 1)]), (6, [(1, 2, 1)]), (606, [(1, 2, 1), (2, 1, 1)])])
    assert numbers == [[1, 2], [2], [2, 3]]
    assert [person.may_be for person in people.records()] == [None, None, 1]


def test_a_call_that_rearranges_its_tiles_keeps_its_people():
    numbers, people = follow([(0, [(0, 1, 1), (1, 2, 1)]), (6, [(0, 3, 1), (1, 1, 1), (2, 2, 1)])])
    assert numbers == [[1, 2], [3, 1, 2]]
    assert len(people.records()) == 3


def test_two_at_once_are_never_one_person():
    numbers, people = follow([(0, [(0, 1, 1)]), (6, [(0, 1, 1), (2, 1, 1)])])
    assert numbers == [[1], [1, 2]] and people.records()[1].may_be is None


def test_looks_and_scenes_change_with_the_person_and_not_with_the_light():
    (frame, faces), (dark, _), (other, _) = show([(0, 1, 1)]), show([(0, 1, 0.6)]), show([(0, 2, 1)])
    own, in_the_dark, others = (looks_about(shown, faces.boxes_xyxy_px)[0] for shown in (frame, dark, other))
    assert distance_of_looks(own, own) == pytest.approx(0, abs=1e-3)
    assert distance_of_looks(own, in_the_dark) < 0.2 < 0.5 < distance_of_looks(own, others)
    scene = Scene.about(frame, faces.boxes_xyxy_px[0])
    assert scene.change_to(frame) == 0 and scene.change_to(other) > 0.8
    moved = frame.copy()
    moved[52:112, 60:130] = frame[42:102, 50:120]  # the head alone
    assert 0 < scene.change_to(moved) < 0.4


def test_faces_at_the_edge_and_flat_pictures_have_looks():
    frame = np.full((50, 50, 3), 128, np.uint8)
    boxes = np.array([[-20, -20, 5, 5], [40, 40, 90, 90], [60, 60, 80, 80]], np.float32)
    looks = looks_about(frame, boxes)
    assert [distance_of_looks(look, looks[0]) for look in looks] == [pytest.approx(0.3, abs=1e-3)] * 3  # no shades
    assert Scene.about(frame, boxes[2]).change_to(frame) == 0


def test_a_drawn_call_says_who_is_where():
    stays = long_call(60)
    box = np.array([400, 300, 480, 380.0])  # below, to the right
    assert [who_is_at(stays, box, minute * 60.0) for minute in (0, 39, 41)] == ["speaks first"] * 2 + ["speaks then"]
    above = box - [0, 240, 0, 240]
    assert [who_is_at(stays, above, minute * 60.0) for minute in (11, 13, 21)] == ["leaves", None, "leaves"]
    assert who_is_at([Stay("a", 1, 0, 0, 5)], box, 1.0) is None
