"""Faces: found at whatever size and in whatever company, joined to one person, cut out level and without aliasing."""

import pickle
from dataclasses import replace
from functools import lru_cache

import av
import numpy as np
import pytest
import torch
from places import REAL_DATA

from engagement_recognition.data.drawn.faces import FacePose, Person, draw_frame, draw_people, draw_subject
from engagement_recognition.processor.face_cropping import (
    crop_face,
    crop_faces,
    face_transform,
    invert_transform,
    map_points,
)
from engagement_recognition.processor.face_detection import FaceDetections, FaceDetector
from engagement_recognition.processor.face_tracking import choose_person, fill_missing, match_detections, track_faces
from engagement_recognition.processor.input_errors import NoFaceError

WORDS = ("again", "book", "help", "learn", "no", "please", "school", "sister", "student", "yes")
UPRIGHT = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], dtype=np.float32)
BLACK = np.zeros((480, 640, 3), np.uint8)


def face(x: float, y: float, size: float) -> np.ndarray:
    """A square box about (x, y)."""
    return np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], dtype=np.float32)


def faces(*found: tuple[float, float, float, float]) -> FaceDetections:
    """One frame's faces, each given as x, y, size, probability."""
    boxes = np.array([face(x, y, size) for x, y, size, _ in found], dtype=np.float32).reshape(-1, 4)
    landmarks = boxes[:, None, :2] + UPRIGHT[None] * (boxes[:, 2] - boxes[:, 0])[:, None, None] / 100
    return FaceDetections(boxes, np.array([p for *_, p in found], dtype=np.float32), landmarks.reshape(-1, 5, 2))


def person_of(frames: np.ndarray):
    return choose_person(track_faces(FaceDetector().detect(frames)))


@lru_cache(maxsize=1)
def drawn_frames() -> np.ndarray:
    """Faces of four subjects, with an empty room and a black frame between them: (6, 480, 640, 3)."""
    looks = ((1, 0), (2, 20), (4, -20), (5, 0))
    drawn = [draw_frame(draw_subject(seed), FacePose(roll_deg=roll_deg)) for seed, roll_deg in looks]
    return np.stack([drawn[0], draw_people([]), *drawn[1:3], BLACK, drawn[3]])


@pytest.mark.parametrize("repeats", [1, 3], ids=["one batch", "more than one"])
def test_every_frame_has_its_own_faces_in_ragged_batches(repeats: int):
    detections = FaceDetector().detect_fast(np.concatenate([drawn_frames()] * repeats))
    assert [len(found) for found in detections] == [1, 0, 1, 1, 0, 1] * repeats
    for found in detections:
        assert (found.boxes_xyxy_px.shape, found.landmarks_xy_px.shape) == ((len(found), 4), (len(found), 5, 2))
        assert {found.boxes_xyxy_px.dtype, found.probabilities.dtype, found.landmarks_xy_px.dtype} == {np.dtype("f4")}


def test_landmarks_are_left_and_right_as_seen():
    left_eye, right_eye, nose, left_mouth, right_mouth = FaceDetector().detect(drawn_frames()[:1])[0].landmarks_xy_px[0]
    assert max(left_eye[0], left_mouth[0]) < nose[0] < min(right_eye[0], right_mouth[0])
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_a_frame_s_faces_do_not_depend_on_its_batch():
    # A cache made in batches of clips must hold what serving one clip finds.
    frames = drawn_frames()
    for frame, together in zip(frames, FaceDetector().detect(frames), strict=True):
        alone = FaceDetector().detect(frame[None])[0]
        np.testing.assert_allclose(alone.boxes_xyxy_px, together.boxes_xyxy_px, atol=0.01)
        np.testing.assert_allclose(alone.landmarks_xy_px, together.landmarks_xy_px, atol=0.01)


def test_torch_s_state_and_the_detector_leave_each_other_alone():
    # MTCNN draws its first weights: a training run's seed must mean the same whether the detector was built or not.
    detector = FaceDetector(fast_min_face_size_px=41, thorough_min_face_size_px=21)  # sizes nobody has built yet
    state = torch.get_rng_state()
    plain = detector.detect(drawn_frames()[:2])[0]
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(detector.detect(drawn_frames()[:2])[0].boxes_xyxy_px, plain.boxes_xyxy_px)


def test_a_used_detector_pickles_without_its_networks():
    detector = FaceDetector(min_probability=0.8)
    before = detector.detect_fast(drawn_frames()[:1])[0]
    assert len(pickle.dumps(detector)) < 1000
    after = pickle.loads(pickle.dumps(detector)).detect_fast(drawn_frames()[:1])[0]
    np.testing.assert_array_equal(after.boxes_xyxy_px, before.boxes_xyxy_px)


def test_the_thorough_pass_sees_only_the_frames_where_the_fast_one_found_nobody():
    frames = np.stack([drawn_frames()[0], draw_people([Person(draw_subject(1), FacePose(), (320, 220), 26)])])
    fast, thorough = FaceDetector().detect_fast(frames), FaceDetector().detect_thorough(frames)
    both = FaceDetector().detect(frames)
    assert [len(found) for found in fast] == [1, 0], "a face of 26 px in 640 is meant to be too small for the fast pass"
    assert [len(found) for found in thorough] == [1, 1]
    assert not np.array_equal(fast[0].boxes_xyxy_px, thorough[0].boxes_xyxy_px)
    np.testing.assert_array_equal(both[0].boxes_xyxy_px, fast[0].boxes_xyxy_px)
    np.testing.assert_allclose(both[1].boxes_xyxy_px, thorough[1].boxes_xyxy_px, atol=0.01)


@pytest.mark.parametrize("enlarged", [1, 2, 4])
def test_boxes_are_in_the_frame_s_own_pixels_at_any_resolution(enlarged: int):
    # Every one of these is looked at 320 px wide, so the boxes agree but for the factor.
    frame = drawn_frames()[0]
    large = frame.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    expected, got = (FaceDetector().detect_fast(f[None])[0].boxes_xyxy_px[0] for f in (frame, large))
    np.testing.assert_allclose(got, expected * enlarged, atol=2 * enlarged)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (16, 640), (640, 16), (39, 39), (480, 640)])
@pytest.mark.parametrize("level", [0, 255])
def test_nobody_in_tiny_and_flat_frames(size: tuple[int, int], level: int):
    # Below its smallest face MTCNN itself stops with "expected a non-empty list of Tensors".
    detections = FaceDetector().detect(np.full((2, *size, 3), level, np.uint8))
    assert [len(found) for found in detections] == [0, 0]
    assert FaceDetector().detect(np.empty((0, *size, 3), np.uint8)) == []


def test_min_probability_is_the_least_that_counts():
    probability = float(FaceDetector().detect_fast(drawn_frames()[:1])[0].probabilities[0])
    for least, num_faces in ((probability, 1), (np.nextafter(probability, 2), 0)):
        assert len(FaceDetector(min_probability=least).detect_fast(drawn_frames()[:1])[0]) == num_faces


@pytest.mark.parametrize(
    "frames",
    [BLACK, BLACK[None] / 255, np.zeros((2, 3, 48, 48), np.uint8), [BLACK], BLACK[None, :0]],
    ids=["one frame", "float", "channels first", "list", "no pixels"],
)
def test_wrong_frames_are_refused_with_what_was_expected(frames):
    with pytest.raises(ValueError, match=r"Expected frames .* got "):
        FaceDetector().detect(frames)


@pytest.mark.parametrize(
    ("previous", "now", "pairs"),
    [
        ([], [face(9, 9, 9)], []),
        ([face(9, 9, 9)], [], []),
        ([face(100, 100, 50)], [face(160, 100, 50)], [(0, 0)]),  # a move of 1.2 face sizes
        ([face(100, 100, 50)], [face(180, 100, 50)], []),  # 1.6 face sizes: somebody else
        ([face(100, 100, 50)], [face(100, 100, 90)], [(0, 0)]),  # leaned in
        ([face(100, 100, 50)], [face(100, 100, 110)], []),  # the skull on the shirt
        ([face(100, 100, 50), face(170, 100, 50)], [face(170, 100, 50), face(100, 100, 50)], [(0, 1), (1, 0)]),
        ([face(100, 100, 50), face(160, 100, 50)], [face(150, 100, 50)], [(1, 0)]),  # the nearer one takes it
    ],
)
def test_match_detections(previous, now, pairs):
    assert sorted(match_detections(np.reshape(previous, (-1, 4)), np.reshape(now, (-1, 4)))) == pairs


def test_two_people_are_not_mixed_up_whatever_order_they_come_in():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(8):
        pair = [(200 + rng.normal(0, 10), 200, 80, 0.99), (360 + rng.normal(0, 10), 210, 80, 0.99)]
        frames.append(faces(*(pair if rng.random() < 0.5 else pair[::-1])))
    tracks = track_faces(frames)
    assert len(tracks) == 2
    for track in tracks:
        assert track.found.all()
        assert np.ptp(track.boxes_xyxy_px[:, 0]) < 80, "a track that changes person jumps by 160 px"


def test_a_track_survives_a_gap():
    here, gone = faces((300, 200, 80, 0.9)), faces()
    tracks = track_faces([gone, here, gone, gone, faces((340, 200, 85, 0.8)), gone])
    assert len(tracks) == 1
    assert tracks[0].found.tolist() == [False, True, False, False, True, False]
    assert tracks[0].probabilities.tolist() == pytest.approx([0, 0.9, 0, 0, 0.8, 0])
    for values in (tracks[0].boxes_xyxy_px, tracks[0].landmarks_xy_px):
        assert np.isnan(values).reshape(6, -1).all(axis=1).tolist() == [True, False, True, True, False, True]


def test_another_person_s_gap_does_not_move_a_track():
    both, left_only = faces((200, 200, 80, 0.9), (310, 200, 80, 0.9)), faces((200, 200, 80, 0.9))
    left, right = track_faces([both, left_only, left_only, both])
    assert left.found.all()
    assert right.found.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("person", "other"),
    [
        ([(100, 100, 50, 0.99)] * 4, [(300, 300, 200, 0.95)] * 4),  # surer beats larger
        ([(100, 100, 50, 0.91)] * 4, [(300, 300, 200, 0.99)] * 3 + [None]),  # seen more often beats surer and larger
        ([(300, 100, 90, 0.999)] * 4, [(100, 100, 60, 0.9995)] * 4),  # as good as equal: the larger
        ([(100, 100, 60, 0.99)] * 4, [(300, 100, 60, 0.99)] * 4),  # wholly equal: the left-most
    ],
    ids=["surer", "oftener", "larger", "left-most"],
)
@pytest.mark.parametrize("swapped", [False, True], ids=["first", "second"])
def test_the_person_is_seen_surely_and_often(person, other, swapped):
    order = (other, person) if swapped else (person, other)
    chosen = choose_person(track_faces([faces(*filter(None, frame)) for frame in zip(*order, strict=True)]))
    np.testing.assert_array_equal(chosen.boxes_xyxy_px[0], face(*person[0][:3]))


def test_missing_frames_take_the_nearest_in_time():
    seen = {1: faces((100, 100, 50, 0.9)), 5: faces((140, 100, 60, 0.8))}
    track = track_faces([seen.get(frame, faces()) for frame in range(7)])[0]
    filled = fill_missing(track)
    for frame, origin in enumerate([1, 1, 1, 1, 5, 5, 5]):  # frame 3 lies between the two: the earlier
        np.testing.assert_array_equal(filled.boxes_xyxy_px[frame], seen[origin].boxes_xyxy_px[0])
        np.testing.assert_array_equal(filled.landmarks_xy_px[frame], seen[origin].landmarks_xy_px[0])
    np.testing.assert_array_equal(filled.found, track.found)
    np.testing.assert_array_equal(filled.probabilities, track.probabilities)


def test_nobody_is_an_error_and_never_a_box():
    assert track_faces([]) == track_faces([faces()] * 8) == []
    with pytest.raises(NoFaceError, match="face in at least one"):
        choose_person([])
    nobody = replace(track_faces([faces((9, 9, 9, 1))])[0], found=np.zeros(1, bool))
    with pytest.raises(NoFaceError, match="no box to fill in"):
        fill_missing(nobody)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def turned(roll_deg: float) -> np.ndarray:
    """Landmarks in a box of 100 px at (200, 150), turned clockwise about its middle."""
    angle = np.radians(roll_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (UPRIGHT - 50) @ turn.T + (250, 200)


def dot(center_x: float, center_y: float) -> np.ndarray:
    """A white dot of about 3 px on black, smooth and so centred to a fraction of a pixel: (400, 500, 3)."""
    y, x = np.mgrid[:400, :500] + 0.5
    spot = 255 * np.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) / (2 * 3**2))
    return np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)


def center_of_light(crop: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]] + 0.5
    light = crop[..., 0].astype(float)
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


@pytest.mark.parametrize("left_top", [(0, 0), (37, 11), (416, 256)])
def test_the_identity_and_whole_pixel_shifts_give_the_frame_back(left_top: tuple[int, int]):
    left, top = left_top
    for frame in (noise(480, 640), noise(480, 640)[:, ::-1], np.broadcast_to(noise(480, 1), (480, 640, 3))):
        crop = crop_face(frame, np.array([[1.0, 0, left], [0, 1, top]]), 224)  # also of a flipped and a read-only frame
        np.testing.assert_array_equal(crop, frame[top : top + 224, left : left + 224])


@pytest.mark.parametrize("crop_size_px", [400, 200, 140, 60])  # 0.5, 1.0, 1.4 and 3.3 frame pixels a crop pixel
@pytest.mark.parametrize("roll_deg", [0, -30])
def test_every_pixel_shows_what_lies_at_its_place(crop_size_px: int, roll_deg: float):
    def picture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 127 + 60 * np.sin(x / 11 + 0.3) + 60 * np.cos(y / 14)

    frame_y, frame_x = np.mgrid[:400, :600] + 0.5
    frame = np.repeat(picture(frame_x, frame_y).round().astype(np.uint8)[..., None], 3, axis=2)
    transform = face_transform(np.array([251, 130, 353, 271]), turned(roll_deg), crop_size_px)
    crop_xy = np.moveaxis(np.mgrid[:crop_size_px, :crop_size_px][::-1] + 0.5, 0, -1)  # (crop, crop, 2)
    expected = picture(*np.moveaxis(map_points(crop_xy, transform), -1, 0))
    assert np.abs(crop_face(frame, transform, crop_size_px)[..., 1] - expected).max() < 3


def test_a_smaller_crop_is_a_part_of_a_larger_one():
    # Only what a crop shows of the frame is read; nothing of that may be seen at its rim.
    turn = np.array([[0.4, -0.2, 300.3], [0.2, 0.4, 100.6]])
    larger, smaller = (crop_face(noise(480, 640), turn, size).astype(int) for size in (224, 96))
    assert np.abs(larger[:96, :96] - smaller).max() <= 1


@pytest.mark.parametrize("margin_ratio", [0.0, 0.2, 0.5])
def test_the_margin_is_a_share_of_the_longer_side_on_either_side(margin_ratio: float):
    box = np.array([100, 50, 180, 150])  # 80 wide, 100 high
    transform = face_transform(box, np.full((5, 2), np.nan), 224, margin_ratio)
    pixels_per_px = 224 / (100 * (1 + 2 * margin_ratio))
    expected = 112 + np.array([[-40, -50], [40, 50]]) * pixels_per_px
    np.testing.assert_allclose(map_points(box.reshape(2, 2), invert_transform(transform)), expected, atol=1e-9)


@pytest.mark.parametrize("crop_size_px", [48, 224])  # reduced, enlarged
@pytest.mark.parametrize("roll_deg", [-44, -20, 0, 7, 30, 44])
def test_eyes_are_level_after_cropping(roll_deg: float, crop_size_px: int):
    landmarks = turned(roll_deg)
    transform = face_transform(face(250, 200, 100), landmarks, crop_size_px)
    seen = [center_of_light(crop_face(dot(*eye), transform, crop_size_px)) for eye in landmarks[:2]]
    assert abs(seen[0][1] - seen[1][1]) < 0.5, "in pixels of the crop"
    assert seen[0][0] < seen[1][0], "level, and not upside down"
    # The picture and the points must tell the same story, or a heat map is laid beside the face.
    np.testing.assert_allclose(seen, map_points(landmarks[:2], invert_transform(transform)), atol=0.25)


@pytest.mark.parametrize("roll_deg", [-100, 50, 90, 180, np.nan])
def test_an_absurd_roll_leaves_the_crop_upright(roll_deg: float):
    upright, absurd = (face_transform(face(250, 200, 100), turned(roll), 224) for roll in (0, roll_deg))
    np.testing.assert_allclose(absurd, upright)


@pytest.mark.parametrize("period_px", [2, 3])
@pytest.mark.parametrize("scale", [1.8, 3.0, 7.3])
@pytest.mark.parametrize("roll_deg", [0, 20])
def test_fine_stripes_turn_grey_and_not_into_coarse_ones(period_px: int, scale: float, roll_deg: float):
    # Point sampling would give stripes of nearly full contrast.
    stripes = np.where(np.arange(1000) % period_px == 0, 255, 0).astype(np.uint8)
    frame = np.broadcast_to(stripes[None, :, None], (1000, 1000, 3))
    crop = crop_face(frame, face_transform(face(500, 500, 64 * scale), turned(roll_deg), 64, margin_ratio=0), 64)
    assert np.abs(crop - 255 / period_px).max() < (64 if scale < 2 else 16)


def test_beyond_the_frame_its_edge_goes_on():
    frame = noise(100, 100)
    frame[:, 0], frame[0, :], frame[:, -1] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    shifted = crop_face(frame, np.array([[1.0, 0, -30], [0, 1, 10]]), 64)
    assert (shifted[:, :30] == (255, 0, 0)).all()
    np.testing.assert_array_equal(shifted[:, 30:], frame[10:74, :34])
    beyond = crop_face(frame, np.array([[1.0, 0, 500], [0, 1, 20]]), 64)
    assert (beyond == (0, 0, 255)).all()
    reduced = crop_face(np.full((50, 50, 3), 77, np.uint8), np.array([[9.0, 0, -200], [0, 9, -200]]), 64)
    assert (reduced == 77).all()


def test_crops_of_a_clip_and_their_transforms():
    frames, box = noise(300, 400)[None].repeat(3, axis=0), np.array([200, 150, 300, 250], np.float32)
    crops, transforms = crop_faces(frames, np.stack([box, box + 5, box]), np.stack([turned(9)] * 3), 96, 0.3)
    assert (crops.shape, crops.dtype) == ((3, 96, 96, 3), np.uint8)
    assert (transforms.shape, transforms.dtype) == ((3, 2, 3), np.float64)
    np.testing.assert_array_equal(crops[1], crop_face(frames[1], face_transform(box + 5, turned(9), 96, 0.3), 96))


def test_a_crop_without_a_face_is_refused():
    frames, no_boxes = noise(48, 48)[None], np.full((1, 4), np.nan)
    with pytest.raises(NoFaceError, match="fill_missing"):
        crop_faces(frames, no_boxes, np.full((1, 5, 2), np.nan), 224)
    with pytest.raises(NoFaceError, match="got 0 frames"):
        crop_faces(frames[:0], no_boxes[:0], np.empty((0, 5, 2)), 224)
    with pytest.raises(ValueError, match="got 1 frames, 2 boxes"):
        crop_faces(frames, np.zeros((2, 4)), np.zeros((1, 5, 2)), 224)
    with pytest.raises(NoFaceError, match="x1 < x2"):
        face_transform(np.array([30, 10, 20, 40]), UPRIGHT, 224)
    with pytest.raises(ValueError, match="crop_size_px >= 1"):
        face_transform(np.array([10, 10, 20, 40]), UPRIGHT, 0)
    with pytest.raises(ValueError, match="uint8 frame, got float32"):
        crop_face(frames[0].astype(np.float32), np.eye(2, 3), 48)


@pytest.mark.parametrize("roll_deg", [-25, 25])
def test_a_leaning_drawn_head_comes_out_level(roll_deg: float):
    frames = np.stack([draw_frame(draw_subject(5), FacePose(roll_deg=roll_deg), noise_seed=seed) for seed in range(2)])
    person = fill_missing(person_of(frames))
    crops, _ = crop_faces(frames, person.boxes_xyxy_px, person.landmarks_xy_px, 224, 0.2)
    for found in FaceDetector().detect(crops):
        left_eye, right_eye = found.landmarks_xy_px[0, :2]
        fall_deg = np.degrees(np.arctan2(right_eye[1] - left_eye[1], right_eye[0] - left_eye[0]))
        assert abs(fall_deg) < 6, "found anew in the crop; the detector itself wavers by some degrees"


def real_frames(name: str) -> np.ndarray:
    """Eight frames spread evenly over a real video, the first and the last among them: (8, height, width, 3)."""
    path = REAL_DATA / "videos" / name
    if not path.exists():
        pytest.skip(f"real data is absent: {path}; set ENGAGEMENT_REAL_DATA to its folder")
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    wanted = np.linspace(0, len(decoded) - 1, 8).round().astype(int)
    return np.stack([decoded[index].to_ndarray(format="rgb24") for index in wanted])


@pytest.mark.real_data
@pytest.mark.parametrize("name", [*(f"{word}.mkv" for word in WORDS[::2]), "single_face.mp4"])
def test_the_real_person_is_found_in_every_frame(name: str):
    frames = real_frames(name)
    person = person_of(frames)
    assert person.found.all()
    x1, _, x2, y2 = person.boxes_xyxy_px.T
    if name.endswith(".mkv"):
        # The skull on the T-shirt is 141 px wide and begins below 170 px; the faces are 51 to 68 px wide.
        assert (x2 - x1).max() < 100 and y2.max() < frames.shape[1] / 2
    crops, _ = crop_faces(frames, person.boxes_xyxy_px, person.landmarks_xy_px, 224)
    assert all(len(found) >= 1 for found in FaceDetector().detect(crops)), "a crop holds the face it was cut for"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "found"), [("face_noface.mov", "TTTFFFFF"), ("noface_face.mov", "FFFFTTTF")], ids=["leaves", "enters"]
)
def test_a_real_face_that_comes_and_goes_is_found_only_while_there(name: str, found: str):
    assert person_of(real_frames(name)).found.tolist() == [letter == "T" for letter in found]


@pytest.mark.real_data
def test_no_real_face_gives_none_even_in_the_thorough_pass():
    assert sum(len(found) for found in FaceDetector().detect_thorough(real_frames("no_face.mp4"))) == 0
