"""Drawn data must be found by the real detector, follow from its seed, and hide order from everything but order."""

import csv
import json
from dataclasses import astuple, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from engagement_recognition.data.drawn import datasets as drawn_datasets
from engagement_recognition.data.drawn.datasets import write_daisee, write_expressions, write_states
from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    FacePose,
    Person,
    draw_face_picture,
    draw_frame,
    draw_people,
    draw_subject,
    engagement_trajectory,
    expression_pose,
)
from engagement_recognition.processor.input_errors import DataError, RecipeError

ENGAGED, DISENGAGED = AffectLevels(0, 3, 0, 0), AffectLevels(0, 0, 0, 0)
POSES = (
    FacePose(),
    FacePose(eye_openness=0.0, mouth_openness=0.9),
    FacePose(yaw_deg=20.0, gaze_x=0.5),
    FacePose(yaw_deg=-20.0, eye_openness=0.2, pitch_deg=8.0, roll_deg=-10.0),
)
TINY = {"fps": 4, "duration_sec": 1.0, "width_px": 160, "height_px": 120, "processes": 1, "show_progress": False}


@pytest.fixture(scope="module")
def detector():
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=40)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_mtcnn_finds_one_face_in_every_skin_tone_and_pose(detector):
    # The whole pipeline is tested on these drawings, so a face the detector misses would test something else.
    subjects = sorted((draw_subject(seed) for seed in range(40)), key=lambda subject: sum(subject.skin))[::8]
    frames = [draw_frame(subject, pose) for subject in subjects for pose in POSES]
    _, probabilities = detector.detect([cv2.resize(frame, (320, 240)) for frame in frames])
    assert [len(found) for found in probabilities] == [1] * len(frames)
    assert min(found[0] for found in probabilities) > 0.95


def test_mtcnn_finds_two_people_where_they_were_put(detector):
    centers = [(170.0, 220.0), (480.0, 210.0)]
    people = [Person(draw_subject(seed), FacePose(), center, 150.0) for seed, center in enumerate(centers)]
    boxes, _ = detector.detect(draw_people(people))
    found = sorted(((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes)
    np.testing.assert_allclose(found, centers, atol=25)


def test_an_empty_room_holds_no_face(detector):
    boxes, _ = detector.detect(draw_people([], room_seed=3))
    assert boxes is None


def test_pixels_follow_from_the_seed_and_the_noise_seed():
    subject, pose = draw_subject(4), FacePose(mouth_smile=0.4)
    first = draw_frame(subject, pose, noise_seed=1)
    assert first.shape == (480, 640, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, draw_frame(draw_subject(4), pose, noise_seed=1))
    assert (first != draw_frame(subject, pose, noise_seed=2)).any()
    assert draw_subject(4) != draw_subject(5)


@pytest.mark.parametrize("field", list(FacePose.__dataclass_fields__))
def test_every_field_of_a_pose_is_seen(field):
    # A control that moves nothing would make a label unlearnable without anyone noticing.
    subject = draw_subject(2)
    changed = replace(FacePose(), **{field: 12.0 if field.endswith("deg") else 0.3})
    still, moved = (draw_face_picture(subject, pose, 224, noise_seed=None) for pose in (FacePose(), changed))
    assert (np.abs(still.astype(int) - moved) > 20).any()


def test_a_head_outside_of_the_frame_leaves_the_room(detector):
    away = Person(draw_subject(0), FacePose(), (-3000.0, 200.0), 150.0)
    np.testing.assert_array_equal(draw_people([away]), draw_people([]))


def _tracks(variant: str, label: AffectLevels, count: int, seed: int) -> np.ndarray:
    """Eight frames at the middles of eight equal parts of ten seconds: (clips, 8, pose fields)."""
    rng = np.random.default_rng(seed)
    at = [int((part + 0.5) * 100 / 8) for part in range(8)]
    clips = [engagement_trajectory(label, variant, 10.0, 10, rng) for _ in range(count)]
    return np.array([[astuple(poses[i]) for i in at] for poses in clips])


def _accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Of a linear classifier on the second half, after learning from the first; clips of both classes alternate."""
    half = len(features) // 2
    spread = features.std(0) + 1e-9
    scaled = (features - features.mean(0)) / spread
    model = LogisticRegression(max_iter=1000).fit(scaled[:half], labels[:half])
    return model.score(scaled[half:], labels[half:])


@pytest.fixture(scope="module")
def dynamics() -> tuple[np.ndarray, np.ndarray]:
    count = 500
    engaged, disengaged = (_tracks("dynamics", label, count, seed) for seed, label in ((1, ENGAGED), (2, DISENGAGED)))
    clips = np.stack([engaged, disengaged], 1).reshape(2 * count, 8, -1)  # alternating
    return clips, np.tile([1, 0], count)


def test_dynamics_backwards_is_the_other_class():
    forwards, backwards = (
        engagement_trajectory(label, "dynamics", 5.0, 10, np.random.default_rng(3)) for label in (ENGAGED, DISENGAGED)
    )
    assert forwards == backwards[::-1] and forwards != backwards


def test_dynamics_is_at_chance_for_single_and_shuffled_frames(dynamics):
    clips, labels = dynamics
    assert abs(_accuracy(clips[:, 3], labels) - 0.5) < 0.06
    assert abs(_accuracy(np.sort(clips, axis=1).reshape(len(clips), -1), labels) - 0.5) < 0.06
    shuffled = np.random.default_rng(0).permuted(clips, axis=1)
    assert abs(_accuracy(shuffled.reshape(len(clips), -1), labels) - 0.5) < 0.06
    engaged, disengaged = (np.sort(clips[labels == label].reshape(-1, clips.shape[2]), axis=0) for label in (1, 0))
    gap = np.abs(engaged - disengaged).mean(0) / (clips.std((0, 1)) + 1e-9)
    assert gap.max() < 0.1  # mean distance between equal quantiles, in standard deviations


def test_dynamics_is_read_from_ordered_frames(dynamics):
    clips, labels = dynamics
    steps = np.diff(clips, axis=1)  # a slow rise and a quick fall: many small steps up, few large ones down
    features = np.concatenate([(steps**3).mean(1), np.sign(steps).mean(1), steps.max(1), steps.min(1)], axis=1)
    assert _accuracy(features, labels) > 0.95


def test_appearance_is_read_from_a_single_frame_though_not_perfectly():
    count = 150
    labels = [AffectLevels(0, level, 0, 0) for level in (0, 1, 2, 3)]
    clips = np.stack([_tracks("appearance", label, count, 5 + label.engagement)[:, 3] for label in labels], 1)
    accuracy = _accuracy(clips.reshape(4 * count, -1), np.tile([0, 0, 1, 1], count))
    assert 0.85 < accuracy < 0.999


@pytest.fixture(scope="module")
def daisee(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("drawn") / "daisee"
    return root, write_daisee(root, 6, 3, 11, **TINY)


def test_daisee_has_the_real_layout(daisee):
    root, counts = daisee
    header = (root / "Labels/AllLabels.csv").read_text().splitlines()[0]
    assert header == "ClipID,Boredom,Engagement,Confusion,Frustration "  # the trailing blank is DAiSEE's own
    videos = [path for path in (root / "DataSet").rglob("*") if path.is_file()]
    assert len(videos) == counts["clips"] == 6 * 3 + 1
    for video in videos:
        split, subject, clip, name = video.relative_to(root / "DataSet").parts
        assert split in ("Train", "Validation", "Test")
        assert clip == Path(name).stem and clip.startswith(subject) and len(subject) == 6
    assert {video.suffix for video in videos} == {".avi", ".mp4"}
    rows = [row for name in ("Train", "Validation", "Test") for row in _rows(root / f"Labels/{name}Labels.csv")]
    assert sorted(rows, key=str) == sorted(_rows(root / "Labels/AllLabels.csv"), key=str)
    assert all(row["ClipID"].endswith(".avi") for row in rows)


def test_daisee_has_one_clip_without_a_row_and_one_row_without_a_clip(daisee):
    root, _ = daisee
    clips = {path.stem for path in (root / "DataSet").rglob("*.*") if path.is_file()}
    labelled = {Path(row["ClipID"]).stem for row in _rows(root / "Labels/AllLabels.csv")}
    assert len(clips - labelled) == 1 and len(labelled - clips) == 1


def test_daisee_keeps_people_apart_and_gives_everyone_both_classes(daisee):
    root, _ = daisee
    people = [{path.name for path in (root / "DataSet" / split).iterdir()} for split in ("Train", "Validation", "Test")]
    assert all(people) and sum(map(len, people)) == len(set.union(*people)) == 6
    classes: dict[str, set[bool]] = {}
    for row in _rows(root / "Labels/AllLabels.csv"):
        classes.setdefault(row["ClipID"][:6], set()).add(int(row["Engagement"]) >= 2)
    assert all(seen == {True, False} for seen in classes.values())


def test_daisee_is_moderately_imbalanced(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_datasets, "encode_video", lambda path, *_: path.touch())  # only the tables matter
    write_daisee(tmp_path, 40, 10, 0, **TINY, quirks=False)
    levels = [int(row["Engagement"]) for row in _rows(tmp_path / "Labels/AllLabels.csv")]
    assert 0.35 <= np.mean([level < 2 for level in levels]) <= 0.40 and set(levels) == {0, 1, 2, 3}
    videos = [path for path in (tmp_path / "DataSet").rglob("*.*") if path.is_file()]
    assert np.mean([path.suffix == ".mp4" for path in videos]) == pytest.approx(0.09)


def test_both_containers_decode_to_the_promised_frames_in_order(daisee):
    root, _ = daisee
    for suffix in (".avi", ".mp4"):
        path = next((root / "DataSet").rglob(f"*{suffix}"))
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            times = [frame.pts for frame in container.decode(video=0)]
        assert len(times) == 4 and times == sorted(times)


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(daisee, tmp_path):
    root, _ = daisee
    before = _files(root)
    fresh = tmp_path / "daisee"
    write_daisee(fresh, 6, 3, 11, **TINY | {"processes": 2})  # and however many processes drew it
    assert _files(fresh) == before
    videos = sorted((fresh / "DataSet").rglob("*.avi"))
    videos[0].unlink()
    videos[1].rename(videos[1].with_name(videos[1].name + ".partial"))  # as a killed run leaves it
    counts = write_daisee(fresh, 6, 3, 11, **TINY)
    assert counts["drawn_now"] == 2 and _files(fresh) == before


def test_another_drawing_or_other_files_are_not_overwritten(daisee, tmp_path):
    root, _ = daisee
    with pytest.raises(DataError, match=r"seed=11 \(now 12\)"):
        write_daisee(root, 6, 3, 12, **TINY)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="has other content"):
        write_daisee(tmp_path, 6, 3, 11, **TINY)
    (tmp_path / "drawn.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="JSON object"):
        write_daisee(tmp_path, 6, 3, 11, **TINY)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_subjects": 2}, "at least 3 subjects, one per split, got 2"),
        ({"clips_per_subject": 0}, "at least 1 clip"),
        ({"variant": "both"}, "appearance or dynamics or shortcut, got 'both'"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"width_px": 161}, "even width"),
        ({"fps": 0}, "at least 1 frame"),
    ],
)
def test_a_wrong_recipe_is_told_before_anything_is_written(change, told, tmp_path):
    recipe = {"num_subjects": 3, "clips_per_subject": 1, "seed": 0} | TINY | change
    with pytest.raises(RecipeError, match=told):
        write_daisee(tmp_path / "out", **recipe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("write", "labels"), [(write_expressions, 7), (write_states, 4)])
def test_pictures_lie_by_split_and_label_with_people_apart(write, labels, tmp_path):
    write(tmp_path, 4, labels, 3, processes=1, show_progress=False, size_px=48)
    people: dict[str, set[str]] = {}
    for path in tmp_path.rglob("*.png"):
        people.setdefault(path.relative_to(tmp_path).parts[0], set()).add(path.stem.split("_")[0])
        assert cv2.imread(str(path)).shape == (48, 48, 3)
    assert set(people) == {"train", "validation", "test"}
    assert sum(map(len, people.values())) == len(set.union(*people.values())) == 4
    assert len({path.name for path in tmp_path.glob("*/*") if path.is_dir()}) == labels
    before = _files(tmp_path)
    next(tmp_path.rglob("*.png")).unlink()
    assert write(tmp_path, 4, labels, 3, processes=1, size_px=48)["drawn_now"] == 1
    assert _files(tmp_path) == before


def test_an_unknown_expression_is_refused():
    with pytest.raises(RecipeError, match="got 'smug'"):
        expression_pose("smug", np.random.default_rng(0))
