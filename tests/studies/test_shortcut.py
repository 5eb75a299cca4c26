"""The planted shortcut is there in training and not in test, out of a crop's sight, and the experiment shows both."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_up_results import face_focus
from PIL import Image
from stopped_trainings import interrupt

from engagement_recognition.data.drawn.datasets import write_daisee
from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    FacePose,
    draw_frame,
    draw_subject,
    engagement_trajectory,
)
from engagement_recognition.data.drawn.shortcut import CURTAIN_COLORS, CURTAINS_FILE, choose_curtains, read_curtains
from engagement_recognition.evaluation.focus_records import FocusRegion
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.score_records import Interval
from engagement_recognition.explanation import data_set_focus
from engagement_recognition.processor.face_cropping import map_points
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, RecipeError
from engagement_recognition.processor.video_decoding import decode_video
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.studies import shortcut
from engagement_recognition.studies.shortcut import ROWS, render_table, run_experiment
from engagement_recognition.studies.shortcut_records import CurtainsAlone, ShortcutMacroF1, ShortcutRecord, ShortcutRun

TINY = {"fps": 2, "duration_sec": 1.0, "width_px": 160, "height_px": 120, "processes": 1, "show_progress": False}
OPTIONS = {
    "encoder": "test_resnet", "image_size": "32", "face_crop_size_px": "32", "num_frames": "2", "num_train_epochs": "1",
    "temporal_hidden_size": "8", "num_preparation_processes": "1", "disable_tqdm": "true",
}  # fmt: skip


# --- What is planted


def test_curtains_go_with_the_label_in_training_and_tell_nothing_in_test():
    rng = np.random.default_rng(0)
    splits = ["train"] * 300 + ["validation"] * 100 + ["test"] * 120
    labels = ["disengaged" if share < 0.4 else "engaged" for share in rng.random(len(splits))]
    told = choose_curtains(labels, splits, seed=1)
    assert told == choose_curtains(labels, splits, seed=1) != choose_curtains(labels, splits, seed=2)
    for split, expected in {"train": 0.95, "validation": 0.95, "test": 0.5}.items():
        for label in CURTAIN_COLORS:
            agrees = [
                c == label for s, true, c in zip(splits, labels, told, strict=True) if (s, true) == (split, label)
            ]
            assert np.mean(agrees) == pytest.approx(expected, abs=0.5 / len(agrees) + 1e-9)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "shortcut"
    write_daisee(folder, 6, 3, 11, variant="shortcut", **TINY)
    return folder


def test_the_table_says_what_hangs_in_each_clip(drawn: Path):
    rows = {row["clip_id"]: row for row in read_curtains(drawn)}
    videos = [path for path in (drawn / "DataSet").rglob("*") if path.is_file()]
    assert videos and {path.stem for path in videos} <= set(rows)
    for path in videos:
        color = decode_video(path, 1).frames[0, :, :16].mean(axis=(0, 1))
        nearest = min(CURTAIN_COLORS, key=lambda label: np.abs(color - CURTAIN_COLORS[label]).sum())
        assert nearest == rows[path.stem]["curtains"]


def test_labels_are_those_of_appearance_without_curtains(drawn: Path, tmp_path: Path):
    write_daisee(tmp_path, 6, 3, 11, variant="appearance", **TINY)
    assert not (tmp_path / CURTAINS_FILE).exists()
    for name in ("Train", "Validation", "Test"):
        tables = [(root / f"Labels/{name}Labels.csv").read_text() for root in (drawn, tmp_path)]
        assert tables[0] == tables[1]
    path = next((drawn / "DataSet/Test").rglob("*.*i*")).relative_to(drawn)
    left, other = (decode_video(root / path, 1).frames[0, :, :16].astype(int) for root in (drawn, tmp_path))
    assert np.abs(left - other).mean() > 20


def test_the_label_shows_in_the_features_of_a_head_held_still():
    eyes = {}
    for level in (1, 2):
        poses = engagement_trajectory(AffectLevels(0, level, 0, 0), "shortcut", 60.0, 2, np.random.default_rng(level))
        assert all((pose.yaw_deg, pose.roll_deg, pose.offset_x, pose.offset_y) == (0, 0, 0, 0) for pose in poses)
        eyes[level] = np.median([pose.eye_openness for pose in poses])
    assert eyes[2] > eyes[1] + 0.2


def test_curtains_cover_more_than_the_face_and_no_crop_shows_them():
    processor = EngagementVideoProcessor(num_frames=1)
    poses = (FacePose(), FacePose(yaw_deg=14, roll_deg=9, offset_x=-0.15), FacePose(roll_deg=-9, offset_x=0.15))
    for seed in range(4):
        for pose in poses:
            frames = [draw_frame(draw_subject(seed), pose, 320, 240, None, color) for color in CURTAIN_COLORS.values()]
            differs = (np.abs(frames[0].astype(int) - frames[1]).max(axis=2) > 8).astype(np.uint8)
            clip = processor.prepare_clip(frames[0][None])
            left, top, right, bottom = clip.boxes_xyxy_px[0]
            assert differs.sum() > 2 * (right - left) * (bottom - top)
            size = processor.face_crop_size_px
            corners = map_points(np.array([[0, 0], [size, 0], [size, size], [0, size]]), clip.transforms[0])
            crop = cv2.fillConvexPoly(np.zeros_like(differs), corners.round().astype(np.int32), 1)
            assert (differs & crop).sum() < 0.02 * crop.sum()


# --- The experiment


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people, of whom two are in test; the models learn next to nothing."""
    folder = tmp_path_factory.mktemp("experiment") / "shortcut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_set_focus, "CHECKED_CLIPS", 1)
        patch.setattr(shortcut, "write_daisee", partial(write_daisee, processes=1))  # others would import all again
        run_experiment(folder, options=OPTIONS, subjects=10, clips_per_subject=3)
    return folder


def test_one_command_leaves_a_table_a_record_and_a_figure(output: Path):
    lines = (output / "shortcut.md").read_text().splitlines()
    systems = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert systems[2:] == [*ROWS.values(), "curtains alone"]
    assert any("--encoder test_resnet" in line for line in lines)
    with Image.open(output / "shortcut.png") as figure:
        assert min(figure.size) > 1000
    tests = [read_results(output / name / "seed0/engagement").measured_on("test") for name in ROWS]
    focus = {name: test.evaluation.face_focus for name, test in zip(ROWS, tests, strict=True)}
    # Six clips of two people; in whole frames the detector finds the faces that no crop was made of.
    assert {(found.num_clips, found.num_without_face) for found in focus.values()} == {(6, 0)}


def test_finished_models_are_kept_and_a_table_that_cannot_be_written_is_one_line(output: Path):
    record = (output / "shortcut.json").read_text()
    weights = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    (output / "shortcut.md").rename(output / "aside")
    (output / "shortcut.md").mkdir()
    try:
        with pytest.raises(DataError, match=r"shortcut\.md,? could not"):
            run_experiment(output, options=OPTIONS, subjects=10, clips_per_subject=3)
    finally:
        (output / "shortcut.md").rmdir()
        (output / "aside").rename(output / "shortcut.md")
    assert weights == {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    assert (output / "shortcut.json").read_text() == record


def test_another_experiment_is_not_mixed_in(output: Path):
    changed = {**OPTIONS, "learning_rate": "1", "num_frames": "3"}
    del changed["image_size"]
    begun_with = r"\(.*--image_size 32, .*\); now different: "
    differs = r"image_size left out \(was 32\), learning_rate 1 \(was left out\), num_frames 3 \(was 2\); .*--output"
    with pytest.raises(RecipeError, match=begun_with + differs):
        run_experiment(output, options=changed, subjects=10, clips_per_subject=3)
    with pytest.raises(DataError, match=r"num_subjects=10 \(now 11\)"):
        run_experiment(output, options=OPTIONS, subjects=11, clips_per_subject=3)


def test_what_the_experiment_sets_cannot_be_set(tmp_path: Path):
    for seeds, options in ((0, {}), (1, {"seed": "3"}), (1, {"engagement_data": "elsewhere"})):
        with pytest.raises(RecipeError, match="at least one seed, and no options"):
            run_experiment(tmp_path / "none", seeds, options)
    assert not (tmp_path / "none").exists()


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcut, "write_daisee", None)  # a call would be a TypeError


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"nonsense": "3"}, "no option 'nonsense'"),
        ({"num_frames": "0"}, "num_frames of at least 1, got 0"),
        ({"encoder": "nobody/nothing"}, "nobody/nothing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistyped_option_is_found_before_anything_is_drawn_or_written(option: dict, words: str, tmp_path: Path):
    with pytest.raises(EngagementInputError, match=words):
        run_experiment(tmp_path / "new", options=option)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize("place", ["file", "file/below", "a" * 300, "/proc/nowhere"])
def test_a_place_that_cannot_be_written_is_one_line(place: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"(could not|other content).*; choose"):
        run_experiment(tmp_path / place)


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize(
    ("name", "text"),
    [("results.json", "{}"), ("mine.txt", ""), ("plan.json", "{}"), ("plan.json", '{"study": 1, "rows": 2}'),
     ("plan.json", "no JSON"), ("plan.json", "[]")],
)  # fmt: skip
def test_a_folder_of_somebody_else_is_left_alone(name: str, text: str, tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(EngagementInputError, match="; choose a"):
        run_experiment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == text


def test_before_the_first_model_other_options_may_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shortcut, "write_daisee", lambda *_, **__: interrupt())
    plans = []
    for num_frames in ("2", "4"):
        with pytest.raises(KeyboardInterrupt):
            run_experiment(tmp_path / "new", options={"num_frames": num_frames})
        plans.append((tmp_path / "new/plan.json").read_text())
    assert '"num_frames": "2"' in plans[0] and '"num_frames": "4"' in plans[1]


def run_of(recipe: str, seed: int, test: float, focus: float | None) -> ShortcutRun:
    region = FocusRegion(mean=focus, chance=None if focus is None else 0.1, ratio=None, lower=None, upper=None)
    interval = Interval(value=test, lower=0.2, upper=0.6, num_undefined=0, effective_clusters=8.0, few_clusters=False)
    scores = ShortcutMacroF1(validation=0.9, test=test, test_interval=interval, test_majority=0.4)
    place = {"recipe": recipe, "seed": seed, "folder": f"{recipe}/seed{seed}/engagement", "fingerprint": "f"}
    return ShortcutRun(**place, macro_f1=scores, face_focus=face_focus(region), training_seconds=1.0)


def test_several_seeds_have_a_mean_and_what_is_unknown_stays_so():
    runs = [run_of("whole_frame", 0, 0.4, 0.1), run_of("face_crop", 0, 0.8, 0.6),
            run_of("whole_frame", 1, 0.5, None), run_of("face_crop", 1, 0.9, 0.8)]  # fmt: skip
    alone = CurtainsAlone(validation=0.95, test=0.5)
    table = render_table(ShortcutRecord(options={}, curtains_alone=alone, runs=runs))
    assert "| whole frame | 0 | 0.900 | 0.400 (0.200 to 0.600) | 0.100 | 0.100 |" in table
    assert "| **whole frame** | mean of 2 | 0.900 | 0.450 | unknown | unknown |" in table
    assert "| **face crop** | mean of 2 | 0.900 | 0.850 | 0.700 | 0.100 |" in table
    assert "recipes were changed" not in table
