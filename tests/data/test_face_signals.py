"""Signals of a face: the pose of known points, and what motion, sharpness and brightness say of made-up windows."""

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import prepare_drawn
from doc_pages import blocks
from places import ROOT

from engagement_recognition.data.drawn.faces import FacePose, draw_face_picture, draw_subject
from engagement_recognition.data.face_signals import MEAN_FACE_MM, SIGNALS, face_signals, head_pose
from engagement_recognition.data.preparation.prepared_data import PreparedData
from engagement_recognition.data.schema import AFFECTS
from engagement_recognition.processor.face_detection import FaceDetector
from engagement_recognition.studies import pose_error

POSES_DEG = [(0, 0, 0), (30, 0, 0), (-45, 10, 0), (0, -25, 0), (0, 0, 40), (20, 15, -10), (-60, -20, 25)]
LEFT_AND_RIGHT = [1, 0, 2, 4, 3]  # landmarks whose names a mirror swaps


def turned(yaw_deg: float, pitch_deg: float, roll_deg: float, points: np.ndarray = MEAN_FACE_MM) -> np.ndarray:
    """The points after a turn about the vertical, a nod and a lean, in this order: (n, 3) -> (n, 3)."""
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    turn = [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    nod = [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    lean = [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    return points @ (np.array(lean) @ np.array(nod) @ np.array(turn)).T


def seen_from_afar(*angles_deg: float, px_per_mm: float = 1.7) -> np.ndarray:
    return turned(*angles_deg)[:, :2] * px_per_mm + (320, 240)  # (5, 2)


def window(num_frames: int = 4, **changes: np.ndarray) -> dict[str, float | None]:
    """Signals of a face of 100 px that keeps still and looks straight ahead, one frame a second."""
    given = {
        "frames": np.full((num_frames, 64, 64, 3), 128, np.uint8),
        "found": np.ones(num_frames, bool),
        "boxes_xyxy_px": np.tile([200.0, 100, 280, 200], (num_frames, 1)),
        "landmarks_xy_px": np.tile(seen_from_afar(0, 0, 0), (num_frames, 1, 1)),
        "times_sec": np.arange(float(num_frames)),
    }
    return face_signals(**given | changes)


# --- Pose


@pytest.mark.parametrize("angles", POSES_DEG)
def test_the_pose_of_exact_points_is_exact(angles: tuple[float, float, float]):
    assert head_pose(seen_from_afar(*angles)[None])[0] == pytest.approx(angles, abs=1e-6)


def test_signs_are_those_of_the_pictures():
    # By what is seen, not by the formula: where nose and head go.
    straight, right, down, lean = (seen_from_afar(*angles) for angles in ((0,) * 3, (20, 0, 0), (0, 20, 0), (0, 0, 20)))
    between_the_eyes = np.mean([straight[:2], right[:2], down[:2], lean[:2]], axis=1)
    assert right[2, 0] - between_the_eyes[1, 0] > straight[2, 0] - between_the_eyes[0, 0]
    assert down[2, 1] - between_the_eyes[2, 1] > straight[2, 1] - between_the_eyes[0, 1]
    assert between_the_eyes[3, 0] > lean[3:, 0].mean()  # the top goes to the image's right


def test_a_mirrored_picture_has_the_opposite_yaw_and_roll():
    landmarks = seen_from_afar(25, 10, -8) + np.random.default_rng(0).normal(0, 2, (5, 2))
    mirrored = ((640, 0) + landmarks * (-1, 1))[LEFT_AND_RIGHT]
    before, after = head_pose(np.stack([landmarks, mirrored]))
    assert after == pytest.approx(before * (-1, 1, -1))


def test_a_near_camera_makes_a_turn_larger_as_documented():
    for distance_mm, expected in ((600, 33), (400, 34.6)):
        points = turned(30, 0, 0)
        seen = points[:, :2] / (distance_mm - points[:, 2:])
        assert head_pose(seen[None])[0, 0] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), np.nan),
        np.full((5, 2), 7.0),
        np.stack([np.arange(5.0), 2 * np.arange(5.0)], axis=1),
        np.where(np.arange(5)[:, None] == 2, np.inf, seen_from_afar(0, 0, 0)),
        seen_from_afar(180, 0, 0),
    ],
    ids=["unknown", "one point", "a line", "infinite", "from behind"],
)
def test_what_is_no_face_has_no_pose_and_leaves_the_others_alone(landmarks: np.ndarray):
    found = head_pose(np.stack([landmarks, seen_from_afar(30, 0, 0)]))
    assert np.isnan(found[0]).all() and found[1] == pytest.approx((30, 0, 0))


def test_drawn_heads_turn_the_way_they_are_drawn():
    # With the detector's landmarks; how far off is the study's to say.
    subject, turns = draw_subject(3), [FacePose(), FacePose(yaw_deg=30), FacePose(pitch_deg=25), FacePose(roll_deg=20)]
    faces = FaceDetector().detect(np.stack([draw_face_picture(subject, pose, 224) for pose in turns]))
    straight, yaw, pitch, roll = head_pose(np.stack([found.landmarks_xy_px[0] for found in faces]))
    assert abs(straight).max() < 6
    assert 12 < yaw[0] < 35 and 6 < pitch[1] < 30 and 15 < roll[2] < 25


# --- The others


def test_a_window_in_known_units():
    boxes = np.array([[0.0, 0, 80, 100], [30, 40, 110, 140], [30, 40, 110, 140], [60, 80, 140, 180]])
    landmarks = np.stack([seen_from_afar(*angles) for angles in ((10, 0, 0), (20, 4, 0), (30, 8, 0), (40, 12, 8))])
    signals = window(boxes_xyxy_px=boxes, landmarks_xy_px=landmarks, times_sec=np.array([0, 0.5, 1, 2]))
    assert tuple(signals) == SIGNALS and all(type(value) is float for value in signals.values())
    assert signals["face_px"] == 100
    assert [signals[f"{name}_deg"] for name in ("yaw", "pitch", "roll")] == pytest.approx([25, 6, 2])
    assert signals["yaw_sd_deg"] == pytest.approx(np.std([10, 20, 30, 40], ddof=1))
    assert signals["roll_sd_deg"] == pytest.approx(4)
    # 50 px, half a face, in half a second, then none, then as far in a second.
    assert signals["motion_per_sec"] == pytest.approx((1 + 0 + 0.5) / 3)


def test_only_frames_with_the_face_count():
    found = np.array([True, True, False, True])
    boxes = np.array([[0.0, 0, 100, 100], [10, 0, 110, 100], [900, 900, 2000, 2000], [10, 0, 110, 100]])
    landmarks = np.stack([seen_from_afar(yaw, 0, 0) for yaw in (10, 20, 70, 30)])
    frames = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (100, 100, 255, 130)])
    signals = window(frames=frames, found=found, boxes_xyxy_px=boxes, landmarks_xy_px=landmarks)
    assert signals["face_px"] == 100 and signals["yaw_deg"] == pytest.approx(20) and signals["brightness"] == 110
    assert signals["motion_per_sec"] == pytest.approx(0.1)  # of the first two: the last has no neighbour


@pytest.mark.parametrize("times", [np.full(4, np.nan), np.zeros(4)], ids=["unknown", "one frame repeated"])
def test_without_time_there_is_no_motion(times: np.ndarray):
    signals = window(times_sec=times)
    assert signals["motion_per_sec"] is None and signals["face_px"] == 100


def test_what_is_unknown_is_none_and_never_nan():
    nobody = window(found=np.zeros(4, bool))
    assert nobody == dict.fromkeys(SIGNALS)
    once = window(found=np.array([False, True, False, False]))
    unknown = {"yaw_sd_deg", "pitch_sd_deg", "roll_sd_deg", "motion_per_sec"}
    assert {name for name, value in once.items() if value is None} == unknown
    landmarks = np.full((4, 5, 2), np.nan)
    landmarks[0] = seen_from_afar(12, 0, 0)
    without = window(landmarks_xy_px=landmarks)
    assert without["yaw_deg"] == pytest.approx(12) and without["yaw_sd_deg"] is None
    assert without["motion_per_sec"] == 0.0


def test_a_blurred_crop_is_less_sharp_and_a_darker_one_less_bright():
    crop = draw_face_picture(draw_subject(1), FacePose(), 224)
    kinds = {
        "plain": crop,
        "blurred": cv2.GaussianBlur(crop, (0, 0), 3),
        "more blurred": cv2.GaussianBlur(crop, (0, 0), 6),
        "dark": crop // 2,
    }
    signals = {name: window(1, frames=picture[None]) for name, picture in kinds.items()}
    sharpness = {name: values["sharpness"] for name, values in signals.items()}
    assert sharpness["plain"] > 2 * sharpness["blurred"] > 4 * sharpness["more blurred"] > 0
    assert signals["dark"]["brightness"] == pytest.approx(signals["plain"]["brightness"] / 2, abs=1)
    assert signals["blurred"]["brightness"] == pytest.approx(signals["plain"]["brightness"], rel=0.05)


def test_the_same_face_in_more_pixels_is_as_sharp_and_the_room_does_not_count():
    crop = draw_face_picture(draw_subject(1), FacePose(), 448)
    small = cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA)
    sharpness = [window(1, frames=picture[None])["sharpness"] for picture in (crop, small)]
    assert sharpness[0] == pytest.approx(sharpness[1], rel=0.01)
    framed = small.copy()
    framed[:40], framed[-40:], framed[:, :40], framed[:, -40:] = 255, 0, 255, 0
    for name in ("sharpness", "brightness"):
        assert window(1, frames=framed[None])[name] == window(1, frames=small[None])[name]


# --- In prepared data, and what the docs show


@pytest.fixture(scope="module")
def prepared(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_drawn(drawn_daisee, tmp_path_factory.mktemp("signals") / "prepared", num_frames=4)


def test_a_picture_has_a_pose_and_no_motion_and_one_that_nobody_looked_at_nothing(
    drawn_expressions: Path, tmp_path: Path
):
    looked = prepare_drawn(drawn_expressions, tmp_path / "looked", face_crop=True).splits["train"]
    assert all(row["yaw_deg"] is not None and row["brightness"] > 0 and row["face_px"] > 20 for row in looked)
    assert set(looked["motion_per_sec"]) == set(looked["yaw_sd_deg"]) == {None}
    unlooked = prepare_drawn(drawn_expressions, tmp_path / "unlooked").splits["train"]
    assert {value for name in SIGNALS for value in unlooked[name]} == {None}
    manifest = pd.read_csv(tmp_path / "unlooked/manifest.csv")
    assert manifest[list(SIGNALS)].isna().all(axis=None)


def test_the_model_in_the_docs_runs_on_prepared_data(
    prepared: PreparedData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    model, session = blocks(ROOT / "docs/signals.md", "python")
    monkeypatch.chdir(prepared.folder.parent)
    known: dict[str, object] = {}
    exec(compile(model, "signals.md", "exec"), known)
    assert 0 <= float(capsys.readouterr().out.split()[2].rstrip(";")) <= 1
    assert len(known["rows"]) == 15 and list(known["rows"][list(SIGNALS)]) == list(SIGNALS)
    folds = known["folds"]["cv"].split(known["rows"], groups=known["folds"]["groups"])
    for train, test in folds:
        assert not set(known["folds"]["groups"].iloc[train]) & set(known["folds"]["groups"].iloc[test])

    rows = known["rows"].assign(source="lesson.mp4", person=1, start_sec=[10.0 * at for at in range(15)])
    (prepared.folder.parent / "session").mkdir()
    rows.drop(columns=[*AFFECTS, "subject_id"]).to_csv("session/windows.csv", index=False)
    rows[["source", "person", "start_sec", "subject_id", "engagement"]].to_csv("ratings.csv", index=False)
    replaced = [line for line in model.splitlines() if not line.startswith("rows = ")]
    place = model.splitlines().index(next(line for line in model.splitlines() if line.startswith("rows = ")))
    with_ratings = "\n".join([*replaced[:place], session, *replaced[place:]])
    exec(compile(with_ratings, "signals.md", "exec"), known)
    assert len(known["rows"]) == 15 and capsys.readouterr().out.startswith("balanced accuracy")


def test_the_columns_in_the_docs_are_those_there_are():
    text = (ROOT / "docs/signals.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in SIGNALS)


def test_the_study_prints_a_table_a_seed_and_one_of_all(capsys: pytest.CaptureFixture):
    assert pose_error.main(["--seeds", "0", "1", "--people", "1"]) == 0
    printed = capsys.readouterr().out
    titles = ["drawn people, seed 0", "drawn people, seed 1", "drawn people, all seeds", "exact points of a drawn head"]
    assert all(f"{title}\n\n| degrees |" in printed for title in titles) and "| 0 of 2 |" in printed


def test_the_study_counts_faces_that_were_not_found():
    errors = pose_error.pose_errors(pose_error.exact_landmarks(np.stack([MEAN_FACE_MM] * 2)))
    assert abs(errors).max() < 1e-6
    errors[0, 0], errors[1] = np.nan, 3.0
    straight, yaw = pose_error.describe(errors).splitlines()[2:4]
    assert straight.split("|")[-2].strip() == "1 of 2" and yaw.split("|")[2].strip() == "3.0 (+3.0)"


@pytest.mark.real_data
def test_people_who_face_the_camera_are_near_zero():
    videos = Path(os.environ.get("ENGAGEMENT_REAL_DATA", ROOT.parent / "shared/data")) / "videos"
    if not videos.is_dir():
        pytest.skip(f"no real videos in {videos}")
    from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor

    for name in ("please.mkv", "student.mkv", "yes.mkv"):
        clip = EngagementVideoProcessor(num_frames=8).prepare_clip(videos / name)
        places = (clip.found, clip.boxes_xyxy_px, clip.landmarks_xy_px, clip.frame_times_sec)
        signals = face_signals(clip.frames, *places)
        assert abs(signals["yaw_deg"]) < 8 and abs(signals["pitch_deg"]) < 12 and abs(signals["roll_deg"]) < 8, name
