"""Face focus: heat is counted where the face really is, however it was cropped, and read against chance."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.explanation.face_focus import REGIONS, face_focus, focus_over_people, input_transforms
from engagement_recognition.processor.face_cropping import crop_faces, invert_transform, map_points
from engagement_recognition.processor.face_detection import FaceDetector
from engagement_recognition.processor.input_errors import DataError

# A face 100 px wide: eyes 40 px apart.
BOX = np.array([[50, 40, 150, 160]], float)
LANDMARKS = np.array([[[80, 80], [120, 80], [100, 100], [85, 130], [115, 130]]], float)
SIZE_PX = (200, 240)


def heat_at(*spots_xy_px: tuple[float, float], size_px: tuple[int, int] = SIZE_PX) -> np.ndarray:
    """One map with as much heat in each of the pixels."""
    maps = np.zeros((1, *size_px), np.float32)
    for x, y in spots_xy_px:
        maps[0, int(y), int(x)] += 1
    return maps


def shares(focus: object) -> dict[str, float | None]:
    return {region: focus.heat_share[region][0] for region in REGIONS}


def turned(points_xy_px: np.ndarray, roll_deg: float) -> np.ndarray:
    """About the point (100, 100)."""
    cos, sin = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    return map_points(points_xy_px - 100, np.array([[cos, -sin, 0], [sin, cos, 0]])) + 100


# Where the regions lie


@pytest.mark.parametrize(
    ("spot", "inside"),
    [
        ((80, 80), {"face", "eyes"}),
        ((66, 63), {"face", "eyes"}),  # the outer end of a brow: 14 px aside is 0.35, 17 px up 0.43 eye distances
        ((100, 65), {"face", "eyes"}),  # a frown
        ((100, 130), {"face", "mouth"}),
        ((100, 143), {"face", "mouth"}),  # a chin that falls
        ((100, 105), {"face"}),  # the nose
        ((55, 150), {"face"}),
        ((20, 20), set()),
    ],
)
def test_each_spot_counts_where_it_lies(spot: tuple[float, float], inside: set[str]):
    found = shares(face_focus(heat_at(spot), BOX, LANDMARKS))
    assert {region for region, share in found.items() if share == 1.0} == inside
    assert all(found[region] == 0.0 for region in set(REGIONS) - inside)


def test_heat_is_shared_and_chance_is_the_area():
    focus = face_focus(heat_at((80, 80), (100, 130), (100, 105), (10, 10)), BOX, LANDMARKS)
    assert shares(focus) == {"face": 0.75, "eyes": 0.25, "mouth": 0.25}
    assert focus.area_share["face"] == [pytest.approx(100 * 120 / (200 * 240))]
    # Eyes: (40 + 2 * 16) x 30 px, mouth: (30 + 2 * 6) x 28 px, to the pixel.
    assert focus.area_share["eyes"] == [pytest.approx(72 * 30 / 48_000, rel=0.05)]
    assert focus.area_share["mouth"] == [pytest.approx(42 * 28 / 48_000, rel=0.05)]
    assert focus.clip["face"] == {"heat_share": 0.75, "area_share": pytest.approx(0.25), "ratio": pytest.approx(3.0)}


def test_regions_lean_with_the_face():
    spots = turned(np.array([[67.0, 64.0], [100.0, 143.0]]), 30)  # a brow's end, a chin
    found = shares(face_focus(heat_at(*spots), BOX, turned(LANDMARKS, 30)))
    assert (found["eyes"], found["mouth"]) == (0.5, 0.5)
    upright = shares(face_focus(heat_at(*spots), BOX, LANDMARKS))
    assert (upright["eyes"], upright["mouth"]) != (0.5, 0.5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("region", "first", "second"),
    [
        ("eyes", {"eye_openness": 0.2}, {"eye_openness": 0.9}),
        ("eyes", {"brow_height": -0.8}, {"brow_height": 0.4}),
        ("mouth", {"mouth_smile": -0.8}, {"mouth_smile": 0.5}),
        ("mouth", {"mouth_openness": 0.0}, {"mouth_openness": 0.2}),
    ],
)
def test_what_eyes_brows_and_mouth_do_lies_in_their_regions(region: str, first: dict, second: dict, seed: int):
    # Landmarks are the detector's; "heat" is the difference between two drawings of the same face.
    subject = draw_subject(seed)
    still = draw_frame(subject, FacePose(), noise_seed=None)
    seen = FaceDetector().detect_fast(still[None])[0]
    drawn = [draw_frame(subject, FacePose(**pose), noise_seed=None).astype(np.float32) for pose in (first, second)]
    change = np.abs(drawn[0] - drawn[1]).sum(axis=2)[None]
    assert change.any()
    focus = face_focus(change, seen.boxes_xyxy_px[:1], seen.landmarks_xy_px[:1])
    other = "mouth" if region == "eyes" else "eyes"
    assert focus.heat_share[region][0] > 0.8  # a mouth that opens moves the chin's outline too
    assert focus.heat_share[other][0] < 0.05
    assert focus.clip[region]["ratio"] > 20


# From the model's input to the whole frame


def test_a_squeezed_whole_frame_is_stretched_back():
    # 200x240 px squeezed to 64x64: the same spot, found at another place of the map.
    transforms = input_transforms(None, SIZE_PX, (64, 64), 1)
    spots = [(x * 64 / 240, y * 64 / 200) for x, y in ((80, 80), (100, 130), (100, 105), (10, 10))]
    focus = face_focus(heat_at(*spots, size_px=(64, 64)), BOX, LANDMARKS, transforms)
    assert shares(focus) == {"face": 0.75, "eyes": 0.25, "mouth": 0.25}
    assert focus.area_share["face"][0] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("roll_deg", [0.0, 25.0])
def test_a_crop_s_heat_is_found_on_the_face_it_was_cut_from(roll_deg: float):
    landmarks = turned(LANDMARKS, roll_deg)
    frame = np.zeros((1, *SIZE_PX, 3), np.uint8)
    crops, crop_transforms = crop_faces(frame, BOX, landmarks, 96, 0.2)
    transforms = input_transforms(crop_transforms, crops.shape[1:3], (64, 64), 1)
    in_input = map_points(landmarks[0], invert_transform(transforms[0]))
    assert in_input[0, 1] == pytest.approx(in_input[1, 1])  # the crop's eyes are level
    found = shares(face_focus(heat_at(in_input[0], in_input[3], size_px=(64, 64)), BOX, landmarks, transforms))
    assert found == {"face": 1.0, "eyes": 0.5, "mouth": 0.5}
    assert input_transforms(crop_transforms, (96, 96), (96, 96), 1) == pytest.approx(crop_transforms)


def test_a_crop_s_box_covers_half_of_it():
    # A square box with a fifth of its side around it: 1 / 1.4 squared.
    box = np.array([[50, 40, 150, 140]], float)
    _, crop_transforms = crop_faces(np.zeros((1, *SIZE_PX, 3), np.uint8), box, LANDMARKS, 224, 0.2)
    transforms = input_transforms(crop_transforms, (224, 224), (112, 112), 1)
    focus = face_focus(np.ones((1, 112, 112), np.float32), box, LANDMARKS, transforms)
    assert focus.area_share["face"][0] == pytest.approx(1 / 1.96, abs=0.01)


# Frames that do not count


def test_frames_without_heat_or_face_are_none_and_counted():
    hot, cold = heat_at((80, 80))[0], np.zeros(SIZE_PX, np.float32)
    maps = np.stack([hot, cold, hot, hot])
    boxes, landmarks = np.repeat(BOX, 4, axis=0), np.repeat(LANDMARKS, 4, axis=0)
    boxes[3] = np.nan
    focus = face_focus(maps, boxes, landmarks, found=np.array([True, True, False, True]))
    assert focus.heat_share["face"] == focus.heat_share["eyes"] == [1.0, None, None, None]
    assert focus.area_share["face"][1:] == [None, None, None]
    assert (focus.num_frames, focus.num_without_heat, focus.num_without_face) == (4, 1, 2)
    assert focus.clip["face"] == {"heat_share": 1.0, "area_share": 0.25, "ratio": 4.0}
    json.dumps(asdict(focus) | {"clip": focus.clip}, allow_nan=False)


def test_nothing_to_count_is_none_and_not_nan():
    focus = face_focus(np.zeros((2, *SIZE_PX), np.float32), BOX.repeat(2, 0), LANDMARKS.repeat(2, 0))
    assert focus.num_without_heat == 2
    assert all(set(values.values()) == {None} for values in focus.clip.values())


def test_without_landmarks_the_box_still_counts():
    focus = face_focus(heat_at((80, 80)), BOX, np.full_like(LANDMARKS, np.nan))
    assert shares(focus) == {"face": 1.0, "eyes": None, "mouth": None}
    one_point = face_focus(heat_at((80, 80)), BOX, np.full_like(LANDMARKS, 80))  # no eye distance to measure with
    assert shares(one_point) == {"face": 1.0, "eyes": None, "mouth": None}


def test_a_box_beyond_the_picture_has_no_ratio():
    focus = face_focus(heat_at((80, 80)), BOX + 1000, LANDMARKS + 1000)
    assert focus.clip["face"] == {"heat_share": 0.0, "area_share": 0.0, "ratio": None}


# Over people


def test_people_are_resampled_with_all_their_clips():
    rng = np.random.default_rng(0)
    of_person = rng.uniform(0.2, 0.8, 12)
    people = [f"p{i:02}" for i in range(12) for _ in range(20)]
    clip_shares = np.clip(of_person.repeat(20) + rng.normal(0, 0.02, 240), 0, 1).tolist()
    result = focus_over_people(clip_shares, people)
    assert result.mean == pytest.approx(np.mean(clip_shares))
    assert result.lower < result.mean < result.upper
    alone = focus_over_people(clip_shares, [str(i) for i in range(240)])
    # The clips of one person are alike: taken for people of their own, they would promise far too much.
    assert result.upper - result.lower > 3 * (alone.upper - alone.lower)
    assert (result.num_people, result.num_clips, result.num_without_share) == (12, 240, 0)
    worst = np.argsort([np.mean(clip_shares[20 * i : 20 * i + 20]) for i in range(12)])[:5]
    assert [row.person_id for row in result.lowest_people] == [f"p{i:02}" for i in worst]
    assert result == focus_over_people(clip_shares, people)


def test_the_interval_holds_the_truth_in_most_samples():
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0.5, 0.1, 20)
        clip_shares = (truth.repeat(4) + rng.normal(0, 0.05, 80)).tolist()
        result = focus_over_people(clip_shares, np.arange(20).repeat(4).astype(str).tolist(), 500)
        held += result.lower <= 0.5 <= result.upper
    assert held >= 53  # 57 expected


def test_a_person_counts_by_their_clips():
    people = ["a"] * 4 + ["b", "c", "d", "e"]
    result = focus_over_people([1.0] * 4 + [0.0] * 4, people)
    assert result.mean == 0.5  # over clips, not over people, whose mean is 0.2
    assert result.lowest_people[-1] == ("a", 1.0, 4)


def test_few_people_are_suppressed():
    people = ["a", "b", "c", "d", "e"]
    assert focus_over_people([0.1, 0.2, 0.3, 0.4, None], people) is None
    assert focus_over_people([], []) is None
    assert focus_over_people([0.1, 0.2, 0.3, 0.4, 0.5], people) is not None


def test_clips_without_a_share_are_left_out_and_counted():
    result = focus_over_people([0.5] * 6 + [None], list("abcdefa"))
    assert (result.mean, result.num_clips, result.num_without_share) == (0.5, 6, 1)
    assert (result.lower, result.upper) == (None, None)  # all people alike: resampling says nothing


@pytest.mark.parametrize("people", [["a"], ["a", None]])
def test_a_person_for_each_clip(people: list):
    with pytest.raises(DataError, match="2 clips needs a known person"):
        focus_over_people([0.1, 0.2], people)
