"""Explained videos and photos: maps on the model's own crops, measured against the face, as figures and as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from person_videos import HEIGHT_PX, WIDTH_PX, person_frame, write_video
from PIL import Image

from engagement_recognition import EngagementForImageClassification, EngagementForVideoClassification
from engagement_recognition.answer_rule import Answer, AnswerRule
from engagement_recognition.data.drawn.faces import FacePose, Person, draw_people, draw_subject
from engagement_recognition.explanation.explain_files import (
    ExplainedClip,
    Explanation,
    explain_file,
    explain_track,
    to_json,
)
from engagement_recognition.explanation.heat_map_figure import save_explanation
from engagement_recognition.explanation.heat_maps import ClipExplanation
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.face_tracking import FaceTrack
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor

ROOM = np.full((HEIGHT_PX, WIDTH_PX, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of eight frames, the last two of an empty room; the same room alone; a photo of two people."""
    folder = tmp_path_factory.mktemp("explained")
    face = [person_frame(roll_deg=roll) for roll in range(0, 18, 3)]
    write_video(folder / "person.mp4", [*face, ROOM, ROOM])
    write_video(folder / "room.mp4", [ROOM] * 8)
    two = [Person(draw_subject(seed), FacePose(), (x, 230), 150) for seed, x in ((2, 180), (4, 460))]
    Image.fromarray(draw_people(two)).save(folder / "two.png")
    return folder


def warm_predictor(face_crop: bool) -> Predictor:
    """A model with heat everywhere: its features are positive, and each of them speaks for "engaged"."""
    names = {"id2label": {0: "disengaged", 1: "engaged"}, "label2id": {"disengaged": 0, "engaged": 1}}
    model = EngagementForVideoClassification.from_encoder("test_resnet", image_size=64, temporal="mean", **names)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    settings = {"size": {"height": 64, "width": 64}, "num_frames": 4, "face_crop_size_px": 96}
    return Predictor(model, EngagementVideoProcessor(face_crop=face_crop, **settings))


def test_a_video_is_explained_on_its_own_crops(files: Path):
    predictor = warm_predictor(face_crop=True)
    (clip,) = explain_file(predictor, files / "person.mp4").clips
    prediction = predictor.predict_video(files / "person.mp4")
    assert clip.explanation.scores == pytest.approx(prediction.scores, abs=1e-5)
    assert clip.explanation.label == prediction.label == "engaged"
    assert clip.explanation.maps.shape == (4, 64, 64) and not any(clip.explanation.zero_heat)
    seen = predictor.video_processor.prepare_clip(files / "person.mp4")
    np.testing.assert_array_equal(clip.pictures, seen.frames)
    assert clip.face.found.tolist() == [True, True, True, False]
    assert clip.face.focus.num_without_face == 1
    assert clip.face.focus.heat_share["face"][3] is None
    # A box with a fifth of its longer side around it covers at most half of the crop, rolled as the head may be.
    assert all(0.3 < area <= 0.515 for area in clip.face.focus.area_share["face"][:3])


def test_another_label_and_method_can_be_asked_for(files: Path):
    asked = explain_file(warm_predictor(face_crop=True), files / "person.mp4", "disengaged", "hirescam")
    explanation = asked.clips[0].explanation
    assert (explanation.label, explanation.method) == ("disengaged", "hirescam")
    assert explanation.zero_heat == [True] * 4  # all features speak against it
    assert asked.clips[0].face.focus.num_without_heat == 4
    assert to_json(asked)["clips"][0]["face_focus"]["clip"]["face"]["ratio"] is None


def test_a_model_of_whole_frames_is_measured_against_the_face(files: Path):
    predictor = warm_predictor(face_crop=False)
    (clip,) = explain_file(predictor, files / "person.mp4").clips
    assert clip.pictures.shape == (4, HEIGHT_PX, WIDTH_PX, 3) and clip.transforms is None
    left, top, right, bottom = clip.face.boxes_xyxy_px[0]
    covered = (right - left) * (bottom - top) / (HEIGHT_PX * WIDTH_PX)
    assert clip.face.focus.area_share["face"][0] == pytest.approx(covered, abs=0.02)
    (empty,) = explain_file(predictor, files / "room.mp4").clips
    assert empty.face is None
    assert to_json(Explanation("room", [empty]))["clips"][0]["face_focus"] is None


def photo_predictor() -> Predictor:
    torch.manual_seed(0)
    model = EngagementForImageClassification.from_encoder("test_resnet", image_size=64, num_frames=4)
    torch.nn.init.normal_(model.classifier.weight)
    return Predictor(model, EngagementImageProcessor(size={"height": 64, "width": 64}))


def test_each_face_of_a_photo_is_explained_for_itself(files: Path):
    predictor = photo_predictor()
    explanation = explain_file(predictor, files / "two.png")
    predicted = predictor.predict_photo(files / "two.png").faces
    assert len(explanation.clips) == len(predicted) == 2
    for clip, face in zip(explanation.clips, predicted, strict=True):
        assert clip.explanation.label == face.label
        assert clip.explanation.scores == pytest.approx(face.scores, abs=1e-5)
        assert clip.explanation.maps.shape == (1, 64, 64)
        assert clip.face.boxes_xyxy_px[0] == pytest.approx(face.box_xyxy_px, abs=0.1)
        assert clip.face.focus.num_frames == 1
    assert [clip["frame_times_sec"] for clip in to_json(explanation)["clips"]] == [[None], [None]]


def test_a_single_face_model_is_explained_on_a_video_but_no_clip_model_on_a_photo(files: Path):
    predictor = photo_predictor()
    (clip,) = explain_file(predictor, files / "person.mp4").clips
    video = predictor.predict_video(files / "person.mp4")
    assert clip.explanation.scores == pytest.approx(video.scores, abs=1e-5)
    assert clip.explanation.maps.shape == (4, 64, 64)
    with pytest.raises(EngagementInputError, match=r"reads clips, got the photo .*two\.png"):
        explain_file(warm_predictor(face_crop=True), files / "two.png")


def test_scores_and_label_are_those_of_the_rule(files: Path):
    predictor = warm_predictor(face_crop=True)
    names = tuple(predictor.model.config.label_names)
    predictor.rule = AnswerRule(names, temperature=3.0, bias=(0.5, 0.0), offsets=(9.0, 0.0), abstain_below=0.6)
    (clip,) = explain_file(predictor, files / "person.mp4").clips
    prediction = predictor.predict_video(files / "person.mp4")
    assert clip.explanation.scores == pytest.approx(prediction.scores, abs=1e-5)
    assert clip.answer.label == clip.explanation.label == prediction.label == "disengaged", "the offset decides"
    predictor.rule = replace(predictor.rule, abstain_below=1.0)
    (clip,) = explain_file(predictor, files / "person.mp4").clips
    assert (clip.answer.label, clip.answer.reason) == (None, "uncertain") and clip.explanation.label == "disengaged"


def test_of_a_long_video_a_typical_window_is_explained(files: Path):
    predictor = warm_predictor(face_crop=True)
    predictor.rule = AnswerRule(tuple(predictor.model.config.label_names), clip_sec=1.0, trained_on="drawn people")
    explanation = explain_file(predictor, files / "person.mp4")
    assert predictor.predict_video(files / "person.mp4").num_windows == 2
    assert explanation.span_sec == (0.0, 1.0) and (explanation.clips[0].frame_times_sec < 1).all()
    assert "drawn people" in explanation.warnings[0]
    predictor.rule = replace(predictor.rule, clip_sec=0.5)
    write_video(files / "seldom.mp4", [*[ROOM] * 6, *[person_frame()] * 2])
    assert predictor.predict_video(files / "seldom.mp4").reason == "no face long enough"
    assert explain_file(predictor, files / "seldom.mp4").span_sec == (1.5, 2.0), "the one window that shows a face"


def test_a_person_of_the_live_picture_is_explained_where_they_were_seen(files: Path):
    predictor = warm_predictor(face_crop=True)
    prepared = predictor.video_processor.prepare_clip(files / "person.mp4")
    (clip,) = explain_file(predictor, files / "person.mp4").clips
    seen = clip.face.found[:, None]
    boxes = np.where(seen, clip.face.boxes_xyxy_px, np.nan)
    points = np.where(seen[..., None], prepared.landmarks_xy_px, np.nan)
    track = FaceTrack(clip.face.found, boxes, points, clip.face.found.astype(np.float32))
    live = explain_track(predictor, prepared.whole_frames, track)
    np.testing.assert_array_equal(live.pictures, clip.pictures)
    np.testing.assert_array_equal(live.explanation.maps[2], live.explanation.maps[3], "the last crop but one again")
    assert live.face.found.tolist() == [True, True, True, False] and live.answer.label == "engaged"


def test_json_holds_the_numbers_and_no_maps(files: Path):
    explanation = explain_file(warm_predictor(face_crop=True), files / "person.mp4")
    text = json.dumps(to_json(explanation), allow_nan=False)
    assert len(text) < 4000
    (clip,) = json.loads(text)["clips"]
    assert clip["frame_times_sec"] == [0.25, 0.75, 1.25, 1.75] and clip["zero_heat"] == [False] * 4
    assert (clip["input_size_px"], clip["feature_map_size"]) == ([64, 64], [2, 2])
    focus = clip["face_focus"]
    assert set(focus["clip"]) == {"face", "eyes", "mouth"} and len(focus["frames"]["heat_share"]["eyes"]) == 4
    assert (focus["num_frames"], focus["num_without_face"]) == (4, 1)


# Figures


def drawn_explanation(width_px: int, height_px: int, num_frames: int = 3) -> Explanation:
    """Even grey pictures whose left half alone is hot; the map is square, as for squeezed whole frames."""
    maps = np.zeros((num_frames, 32, 32), np.float32)
    maps[:, :, :16] = 5
    maps[-1] = 0
    found = ClipExplanation("engaged", "gradcam", {"disengaged": 0.25, "engaged": 0.75}, maps, (4, 4))
    pictures = np.full((num_frames, height_px, width_px, 3), 100, np.uint8)
    answer = Answer("engaged", None, found.scores, 0.75)
    return Explanation("clip.mp4", [ExplainedClip(found, pictures, None, np.arange(num_frames) / 2, answer)])


@pytest.mark.parametrize(("width_px", "height_px"), [(200, 100), (90, 120), (64, 64)])
def test_pictures_keep_their_proportions_and_heat_its_place(width_px: int, height_px: int, tmp_path: Path):
    path = save_explanation(drawn_explanation(width_px, height_px), tmp_path / "new" / "figure.png")
    assert path == tmp_path / "new" / "figure.png"
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    plain = (abs(pixels - 100) <= 1).all(axis=2)  # the cold half, and all of the last frame
    columns = np.flatnonzero(plain.sum(axis=0) > 50)
    first, *_, last = np.split(columns, np.flatnonzero(np.diff(columns) > 5) + 1)
    rows = np.flatnonzero(plain[:, last].mean(axis=1) > 0.9)
    assert len(last) / len(rows) == pytest.approx(width_px / height_px, rel=0.03)
    left_of_it = pixels[rows[len(rows) // 2], first[0] - len(first) // 2]
    assert left_of_it[0] - left_of_it[2] > 50  # hot: yellow
    assert 0.35 < len(first) / len(last) < 0.65


def test_the_same_explanation_gives_the_same_bytes(tmp_path: Path):
    one, other = (save_explanation(drawn_explanation(64, 64), tmp_path / name).read_bytes() for name in "ab")
    assert one == other


def test_files_of_every_kind_are_drawn(files: Path, tmp_path: Path):
    crops, whole = (warm_predictor(face_crop) for face_crop in (True, False))
    drawn = {
        "cold": explain_file(crops, files / "person.mp4", "disengaged"),
        "room": explain_file(whole, files / "room.mp4"),
        "faces": explain_file(photo_predictor(), files / "two.png"),
    }
    for name, explanation in drawn.items():
        picture = Image.open(save_explanation(explanation, tmp_path / name))
        assert picture.size[0] > 1000 and picture.size[1] > 250, name
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24)) > 500, name
