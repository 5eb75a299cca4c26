"""Who is who in a live picture: numbers are kept, given once, and not to somebody who only passes by."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pytest
from conftest import TrainedStages
from drawn_crowd import PASSERS_BY, PEOPLE, count_crowd, draw_crowd
from drawn_film import FilmFrame, draw_film, name_of

from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.live.engine import LiveEngagement, PersonState
from engagement_recognition.live.settings import LiveSettings
from engagement_recognition.live.tracking import FaceTracker
from engagement_recognition.processor.face_detection import FaceDetections

EMPTY_ROOM = np.full((240, 320, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def face_model(trained: TrainedStages) -> Predictor:
    """Reads one face: seven expressions."""
    return Predictor.from_pretrained(str(trained.expression))


Face = tuple[float, float, int]  # x, y and the level of grey it stands in


def watch(moments: Iterable[list[Face]], every_sec: float = 0.2, **settings: float) -> list[list[int | None]]:
    """Square faces of 40 px → of each moment, the number each face was given."""
    tracker = FaceTracker(**({"keep_lost_sec": 3.0, "max_people": 8, "min_seen_sec": 0.0} | settings))
    numbers = []
    for moment, faces in enumerate(moments):
        frame = np.full((240, 480, 3), 90, np.uint8)
        for x, y, level in faces:
            frame[int(y) - 40 : int(y) + 60, max(0, int(x) - 25) : int(x) + 25] = level
        boxes = np.array([[x - 20, y - 20, x + 20, y + 20] for x, y, _ in faces], np.float32).reshape(-1, 4)
        found = FaceDetections(boxes, np.ones(len(boxes), np.float32), np.zeros((len(boxes), 5, 2), np.float32))
        tracker.update(found, frame, moment * every_sec)
        of_box = {tuple(track.box_xyxy_px): track.number for track in tracker.tracks if track.found}
        numbers.append([of_box.get(tuple(box)) for box in boxes.astype(np.float64)])
    return numbers


@pytest.mark.parametrize("is_front_found", [True, False], ids=["one is hidden", "neither is found"])
def test_two_who_cross_do_not_swap_even_if_they_look_alike(is_front_found: bool):
    moments = []
    for x in range(60, 420, 12):
        front, behind = (x, 100, 200), (480 - x, 104, 200)
        covered = [front] if is_front_found else []
        # The order of the faces says nothing.
        moments.append(covered if abs(x - 240) < 20 else [front, behind][:: 1 if x % 8 else -1])
    given = defaultdict(set)
    for faces, numbers in zip(moments, watch(moments), strict=True):
        for (_, y, _), number in zip(faces, numbers, strict=True):
            given[y].add(number)
    assert sorted(map(list, given.values())) == [[1], [2]]


def test_two_who_meet_and_turn_back_do_not_swap_if_they_look_different():
    moments = [[(x, 100, 200), (480 - x, 104, 40)] for x in [*range(60, 228, 12), *range(228, 60, -12)]]
    assert watch(moments) == [[1, 2]] * len(moments)


@pytest.mark.parametrize(("level", "number"), [(200, 1), (20, 3)], ids=["the same looks", "other looks"])
def test_who_comes_back_elsewhere_is_known_by_their_looks(level: int, number: int):
    there, away, back = [(60, 100, 200), (400, 100, 120)], [(400, 100, 120)], [(180, 100, level), (400, 100, 120)]
    assert watch([there] * 3 + [away] * 6 + [back])[-1] == [number, 2]


def test_a_missing_person_s_number_is_not_given_to_the_neighbour():
    both = [(150, 100, 200), (205, 100, 200)]
    # After a second the missing one may be anywhere near; the neighbour's start is still the neighbour's.
    moments = [both, both, *[both[1:]] * 4, [(191, 100, 200)], [(150, 100, 200), (191, 100, 200)]]
    assert watch(moments) == [[1, 2], [1, 2], [2], [2], [2], [2], [2], [1, 2]]


def test_no_more_people_than_allowed():
    row = [(60.0 + 90 * i, 100.0, 200 - 40 * i) for i in range(4)]
    assert watch([row] * 2, max_people=3) == [[1, 2, 3, None]] * 2
    # The place of one who is gone is free before the three seconds are over.
    assert watch([row[:3], row[:3], row[1:], row[1:]], max_people=3)[-1] == [2, 3, 4]


def test_a_face_seen_once_is_not_waited_for():
    tracker = FaceTracker(keep_lost_sec=3.0, max_people=8, min_seen_sec=0.0)
    nobody = FaceDetections(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))
    once = FaceDetections(np.array([[9.0, 9, 49, 49]], np.float32), np.ones(1), np.zeros((1, 5, 2), np.float32))
    tracker.update(once, EMPTY_ROOM, 0.0)
    assert len(tracker.tracks) == 1
    tracker.update(nobody, EMPTY_ROOM, 0.2)
    assert tracker.tracks == []


# --- A film


@pytest.fixture(scope="module")
def film(face_model: Predictor) -> list[tuple[FilmFrame, list[PersonState]]]:
    """Eight seconds of four people, unsmoothed."""
    live = LiveEngagement(face_model, LiveSettings(smoothing_alpha=1.0, abstain_below=0.0))
    return [(shot, live.step(shot.pixels, shot.time_sec)) for shot in draw_film(8.0, fps=5)]


def test_nobody_changes_number_in_the_film(film: list[tuple[FilmFrame, list[PersonState]]]):
    numbers, sightings = defaultdict(set), defaultdict(int)
    for shot, states in film:
        for state in states:
            if state.found:
                name = name_of(shot, state.box_xyxy_px)
                numbers[name].add(state.number)
                sightings[name] += 1
    assert len(numbers) == 4 and all(len(given) == 1 for given in numbers.values()), numbers
    assert len(set.union(*numbers.values())) == 4
    assert sightings["sitter"] > 35 and 15 < sightings["leaver"] < 35 and sightings["back crosser"] < 38
    assert [state.status for state in film[20][1] if state.status] == [
        f"no face for {film[20][0].time_sec - 2.4:.1f} s"
    ]


# --- Passers-by


def test_who_passes_by_is_nobody_and_uses_no_number_up():
    sitter, passer, late = (60, 100, 200), (200, 100, 40), (400, 100, 120)
    moments = [[sitter], *[[sitter, passer]] * 5, *[[sitter]] * 3, *[[sitter, late]] * 7]
    numbers = watch(moments, min_seen_sec=1.0)
    assert numbers[:6] == [[1], *[[1, None]] * 5], "the first picture's at once; nobody else before a second"
    assert numbers[9:] == [*[[1, None]] * 5, *[[1, 2]] * 2]


def test_a_slip_of_the_detector_does_not_begin_the_second_anew():
    face, moments = (200, 100, 120), [True, True, False, True, True, True, True]
    assert watch([[], *[[face] * seen for seen in moments]], min_seen_sec=1.0)[-1] == [1]
    assert watch([[], *[[face]] * 3], every_sec=1.0, min_seen_sec=1.0) == [[], [None], [1], [1]], "a slow camera"


def test_those_who_become_somebody_together_are_numbered_from_the_left():
    assert watch([[(400, 100, 120), (60, 100, 200), (200, 100, 40)]]) == [[3, 1, 2]]


@pytest.mark.slow
def test_a_crowd_is_counted_as_who_is_there_and_no_box_is_without_a_face(face_model: Predictor):
    live = LiveEngagement(face_model, LiveSettings(smoothing_alpha=1.0, abstain_below=0.0))
    count = count_crowd((shot, live.step(shot.pixels, shot.time_sec)) for shot in draw_crowd())
    assert set(count.numbers) == set(PEOPLE) - PASSERS_BY
    assert all(len(numbers) == 1 for numbers in count.numbers.values()), count.numbers
    assert len(set.union(*count.numbers.values())) == len(count.numbers) == 8
    assert count.num_boxes_without_face <= 5 < 4000 < count.num_boxes
    assert count.num_faces_with_box > 0.95 * count.num_faces
