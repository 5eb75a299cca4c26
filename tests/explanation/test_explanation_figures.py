"""What a figure of an explanation says can be read: nothing overlaps or is cut off, and strangers understand it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainedStages
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from places import ROOT
from typer.testing import CliRunner

from engagement_recognition.answer_rule import Answer
from engagement_recognition.cli.main import app
from engagement_recognition.evaluation.figures import save_confusion
from engagement_recognition.evaluation.plotting import shown_name
from engagement_recognition.explanation.explain_files import ExplainedClip, Explanation, FaceInClip
from engagement_recognition.explanation.face_focus import FaceFocus, face_focus
from engagement_recognition.explanation.heat_map_figure import draw_explanation, picture_path, save_explanation
from engagement_recognition.explanation.heat_maps import ClipExplanation
from engagement_recognition.inference.predictions import Span, VideoPrediction
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.inference.timeline import save_plot
from engagement_recognition.processor.input_errors import DataError, EngagementInputError

LONG_NAME = "a recording of the seventh lesson in the first room " * 4 + "$x$ and $y$ of the end.mp4"


def explained(
    num_frames: int = 1,
    label: str = "disengaged",
    map_side: int = 2,
    hot: Sequence[bool] | None = None,
    found: Sequence[bool] | None = None,
    times: bool = True,
    score: float = 0.88,
    other: str | None = None,
    reason: str | None = None,
    crops: bool = False,
) -> ExplainedClip:
    """Grey faces in the middle of 96 px crops, the lower half of each hot frame hot."""
    maps = np.zeros((num_frames, 32, 32), np.float32)
    maps[np.array(hot or [True] * num_frames), 16:] = 1
    pictures = np.full((num_frames, 96, 96, 3), 100, np.uint8)
    seen = np.array(found or [True] * num_frames)
    boxes = np.tile([8.0, 8.0, 24.0, 24.0], (num_frames, 1))
    points = np.tile([(12.0, 14), (20, 14), (16, 18), (13, 21), (19, 21)], (num_frames, 1, 1))
    focus: FaceFocus = face_focus(maps, boxes, points, None, seen)
    frame_times = np.arange(num_frames) * 12.5 if times else np.full(num_frames, np.nan)
    scores = {label: score, other or ("engaged" if label == "disengaged" else "disengaged"): 1 - score}
    found_maps = ClipExplanation(label, "gradcam", scores, maps, (map_side, map_side))
    best = max(scores, key=scores.__getitem__)
    said = Answer(best, None, scores, scores[best]) if reason is None else Answer(None, reason, scores, scores[best])
    transforms = np.tile(np.eye(2, 3), (num_frames, 1, 1)) if crops else None
    return ExplainedClip(found_maps, pictures, transforms, frame_times, said, FaceInClip(boxes * 3, seen, focus))


def photo(num_faces: int, name: str = "class.png", **options: object) -> Explanation:
    return Explanation(name, [explained(times=False, **options) for _ in range(num_faces)])


def clip(name: str = "clip.mp4", **options: object) -> Explanation:
    return Explanation(name, [explained(**options)])


def texts_in(figure: Figure) -> list[Text]:
    """All that is visible: of the panels, whose axes are off, their titles alone."""
    scale = figure.axes[-1]
    texts = [*figure.texts, *(axes.title for axes in figure.axes), *scale.get_yticklabels(), scale.yaxis.label]
    return [text for text in texts if text.get_text().strip()]


def said(explanation: Explanation) -> str:
    return " ".join(" ".join(text.get_text() for text in texts_in(draw_explanation(explanation))).split())


# What can be read


@pytest.mark.parametrize(
    "explanation",
    [photo(2, score=0.07), photo(3, LONG_NAME), clip(num_frames=16),
     clip(LONG_NAME, num_frames=8, label="engaged"),
     photo(12, label="happy", score=0.07, hot=[False], other="disgust"),
     clip(num_frames=8, hot=[False] * 8, found=[True] * 3 + [False] * 5),
     clip(label="looks at the board and writes down what the teacher says, or so it seems")],
    ids=lambda value: f"{len(value.clips)}x{len(value.clips[0].pictures)}",
)  # fmt: skip
def test_no_text_overlaps_another_or_is_cut_off(explanation: Explanation):
    # Coarse maps, of which a line more is said.
    clips = [replace(c, explanation=replace(c.explanation, map_size=(2, 2))) for c in explanation.clips]
    figure = draw_explanation(replace(explanation, clips=clips))
    figure.set_dpi(200)  # as it is saved: letters are a little wider than at 100
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 14  # or nobody sees it whole
    boxes = {text: text.get_window_extent() for text in texts_in(figure)}
    for text, box in boxes.items():
        assert text.get_fontsize() >= 9
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text.get_text()
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())


def test_the_faces_of_a_photo_are_numbered():
    titles = [axes.get_title() for axes in draw_explanation(photo(4)).axes][:4]
    assert [title.splitlines()[0] for title in titles] == [f"{number}. disengaged 0.88" for number in (1, 2, 3, 4)]
    assert all("face box" in title for title in titles)


def test_a_face_of_another_label_than_the_one_asked_for_says_so():
    faces = [explained(times=False), explained(times=False, score=0.07), explained(times=False, score=0.2, hot=[False])]
    titles = [axes.get_title().splitlines() for axes in draw_explanation(Explanation("class.png", faces)).axes[:3]]
    assert [title[:-1] for title in titles] == [
        ["1. disengaged 0.88"],
        ["2. disengaged 0.07", "predicted engaged 0.93"],
        ["3. disengaged 0.20", "predicted engaged 0.80"],
    ]
    assert titles[2][-1] == "no heat"


def test_a_long_name_loses_its_middle_and_the_prediction_is_kept():
    texts = [text.get_text() for text in texts_in(draw_explanation(clip(LONG_NAME)))]
    name, prediction = next(text for text in texts if "predicted" in text).splitlines()
    assert prediction == "predicted disengaged, score 0.88"
    assert name.startswith("a recording") and "…" in name and name.endswith("of the end.mp4")


# What it says


def test_no_heat_is_explained():
    words = said(clip(num_frames=2, hot=[False] * 2))
    assert "No heat: in all 2 frames" in words and "no evidence for disengaged" in words
    assert "unknown" not in words and "Heat in" not in words
    words = said(clip(num_frames=3, hot=[True, True, False]))
    assert "No heat: in 1 of 3 frames" in words and "Heat in face box" in words
    assert "No heat: in it there is no" in said(photo(1, hot=[False]))
    assert "No heat: in 2 of 2 faces" in said(photo(2, hot=[False]))


def test_a_crop_without_the_face_has_no_heat():
    figure = draw_explanation(clip(num_frames=3, found=[True, False, True], crops=True))
    assert [len(axes.images) for axes in figure.axes[:3]] == [2, 1, 2], "grey picture, and heat where there is a face"


def test_what_was_given_no_label_is_not_called_predicted():
    words = said(replace(clip(score=0.55, reason="uncertain"), warnings=("this model learned from drawn people",)))
    assert "no label: uncertain" in words and "heat for disengaged, score 0.55" in words and "predicted" not in words
    assert "Take care: this model learned" in words
    assert "1. disengaged 0.55 uncertain face box" in said(photo(2, score=0.55, reason="uncertain"))


def test_a_window_of_a_long_video_is_said_to_be_one():
    assert "20.0 s to 30.0 s, whose scores" in said(replace(clip("lecture.mp4"), span_sec=(20.0, 30.0)))


def test_frames_without_a_face_are_said_to_be_such():
    explanation = clip(num_frames=4, found=[True, True, True, False])
    titles = [axes.get_title() for axes in draw_explanation(explanation).axes][:4]
    assert ["no face" in title for title in titles] == [False, False, False, True]
    words = said(explanation)
    assert "found in 3 of 4 frames" in words and "the mean over 3 of 4 frames" in words


def test_heat_where_no_face_is_has_no_share():
    words = said(clip(num_frames=2, hot=[True, False], found=[False, True]))
    assert "No frame shows both" in words and "Heat in" not in words


def test_the_caption_says_that_cold_frames_count_as_hot_ones_do():
    words = said(clip(num_frames=2))
    assert "mean over 2 of 2 frames" in words and "a face was found" not in words
    assert "the mean over" not in said(photo(1))


def test_coarse_maps_are_told_and_fine_ones_are_not():
    assert "a 2×2 map, too coarse" in said(clip()) and "coarse" not in said(clip(map_side=4))


# Names


@pytest.mark.parametrize(
    "name", [r"bad $\frac$ $x_$.mp4", "price $5 and $6_x.mkv", "line\nbreak.mp4", "课程.mp4", "\udcff.mp4"]
)
def test_a_name_is_shown_as_it_is_written(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder):
    assert shown_name(name) in said(clip(name))
    assert save_explanation(photo(2, name), tmp_path / "figure.png").stat().st_size > 1000
    spans = [Span(0, 1, "a $_$", {"a $_$": 0.5}, 1.0)]
    save_plot(VideoPrediction(name, "a $_$", {"a $_$": 0.5}, 1.0, 0, spans), tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").is_file()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_labels_are_no_formulas(tmp_path: Path):
    save_confusion([[1, 2], [3, 4]], [r"$\frac$", "b $_$"], tmp_path / "figure", title=r"of $\frac$")


# Where it is written


@pytest.fixture
def source(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_picture_goes_where_its_name_says(source: Path, tmp_path: Path):
    assert picture_path(tmp_path / "new" / "heat", source) == tmp_path / "new" / "heat.png"
    assert picture_path(tmp_path / "heat.v2.PNG", source) == tmp_path / "heat.v2.PNG"
    assert picture_path(tmp_path / "heat.png", tmp_path / "missing.mp4") == tmp_path / "heat.png"
    assert list(tmp_path.iterdir()) == [source]  # nothing is left behind by looking


@pytest.mark.parametrize("name", ["photo.png", "photo", "link.png", "folder/../photo.png"])
def test_the_explained_file_is_not_overwritten(name: str, source: Path, tmp_path: Path):
    (tmp_path / "link.png").symlink_to(source)
    (tmp_path / "folder").mkdir()
    with pytest.raises(EngagementInputError, match="is the explained file"):
        picture_path(tmp_path / name, source)


@pytest.mark.parametrize(
    ("output", "words"),
    [("heat.jpg", r"end in \.png"), ("heat.v2", r"end in \.png"), ("folder", "is a folder"), ("", "is a folder"),
     ("photo.png/heat.png", "Not a directory"), ("a" * 300, "name too long")],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(output: str, words: str, source: Path, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(EngagementInputError, match=words):
        picture_path(tmp_path / output if output else Path(), source)


def test_a_place_that_fails_in_the_end_is_one_line_too(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not"):
        save_explanation(clip(), tmp_path / "file" / "heat.png")


def test_the_command_looks_before_it_loads(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Predictor, "from_pretrained", None)  # a call would be a TypeError
    before = source.read_bytes()
    for output in (source, tmp_path / "heat.jpg", "/proc/x/heat.png"):
        done = CliRunner().invoke(app, ["explain", str(source), "--model", "m", "--output", str(output)])
        assert isinstance(done.exception, EngagementInputError), output
    assert source.read_bytes() == before


@pytest.mark.slow
def test_the_command_names_what_it_wrote(trained: TrainedStages, tmp_path: Path):
    options = ["--model", str(trained.expression), "--output", str(tmp_path / "heat")]
    command = ["explain", str(ROOT / "docs/drawn_faces.png"), *options]
    done = CliRunner().invoke(app, command)
    assert done.stdout.strip() == str(tmp_path / "heat.png") and (tmp_path / "heat.png").is_file()
    done = CliRunner().invoke(app, [*command, "--json"])
    assert f'"picture": "{tmp_path / "heat.png"}"' in done.stdout
