"""Pictures that are faces already: taken as they are with --faces, and found again in a photo as they were learned."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import Command, TrainedStages
from PIL import Image
from places import REAL_DATA
from tiny_models import tiny_model

from engagement_recognition.data.drawn.faces import FacePose, draw_face_picture, draw_frame, draw_subject
from engagement_recognition.evaluation.split_evaluation import read_predictions
from engagement_recognition.explanation.explain_files import explain_file
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.face_cropping import crop_face, crop_faces, framed_transform
from engagement_recognition.processor.face_detection import FaceDetections, FaceDetector
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
from engagement_recognition.processor.input_errors import NoFaceError, RecipeError
from engagement_recognition.processor.tensor_preparation import sample_by_torch
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.training.face_framing import measure_framing
from engagement_recognition.training.training_sets import FrameCollator

SMALL = {"size": {"height": 32, "width": 32}, "face_crop_size_px": 48, "face_crop": False}


def as_rows(pictures: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """As `LabelledFrames` gives single pictures."""
    return [{"frames": picture[None]} for picture in pictures]


@pytest.fixture(scope="module")
def face_pictures() -> list[np.ndarray]:
    """A quarter higher than wide, as somebody's detector might cut them: (120, 96, 3)."""
    return [draw_face_picture(draw_subject(seed), FacePose(), 120)[:, 12:108] for seed in range(6)]


def in_photo(picture: np.ndarray) -> np.ndarray:
    photo = np.full((240, 320, 3), 110, np.uint8)
    photo[60 : 60 + len(picture), 200 : 200 + picture.shape[1]] = picture
    return photo


def test_a_framed_crop_is_the_rectangle_that_the_framing_names():
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    box = np.array([40, 20, 80, 60], np.float32)  # its size is 40
    transform = framed_transform(box, [0.1, -0.25, 1.2, 1.2], 48)  # 48 px about (64, 30)
    np.testing.assert_array_equal(crop_face(frame, transform, 48), frame[6:54, 40:88])
    flat = framed_transform(np.array([40, 30, 120, 50]), [0, 0, 2, 1], 10)  # a box of 80x20 has the size 40 too
    np.testing.assert_allclose(flat, [[8, 0, 40], [0, 4, 20]])


def test_a_face_in_a_photo_is_cut_out_as_the_training_pictures_were(face_pictures: list[np.ndarray]):
    framing = measure_framing(as_rows(face_pictures))
    learned, served = EngagementImageProcessor(**SMALL), EngagementImageProcessor(**SMALL, face_framing=framing)
    for picture in face_pictures:
        expected = learned.to_pixel_values(picture[None])
        near, far = (
            (processor.to_pixel_values(processor.prepare_faces(in_photo(picture)).frames) - expected).abs().mean()
            for processor in (served, learned)
        )
        assert near < far / 2


def test_pictures_without_faces_have_no_framing(face_pictures: list[np.ndarray]):
    wall = np.full((48, 48, 3), 90, np.uint8)
    assert measure_framing(as_rows([*face_pictures[:2], *[wall] * 3])) is None


def test_without_the_setting_crops_are_as_before_and_nobody_looks_twice(
    tmp_path: Path, face_pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    processor, photo = EngagementImageProcessor(**SMALL), in_photo(face_pictures[0])
    processor.save_pretrained(tmp_path)
    config = tmp_path / "preprocessor_config.json"
    config.write_text(config.read_text().replace('"face_framing": null,', ""))  # as earlier versions wrote it
    loaded = EngagementImageProcessor.from_pretrained(tmp_path)
    assert loaded.face_framing is None
    faces = loaded.prepare_faces(photo)
    expected, _ = crop_faces(photo[None], faces.boxes_xyxy_px, faces.landmarks_xy_px, 48, sample=sample_by_torch)
    np.testing.assert_array_equal(faces.frames, expected)
    monkeypatch.delattr(FaceDetector, "detect_hard")
    with pytest.raises(NoFaceError):
        loaded.prepare_faces(np.full_like(photo, 110))


def test_where_nobody_is_found_a_model_of_face_pictures_looks_again(
    face_pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    box, landmarks = np.array([[210, 70, 290, 170]], np.float32), np.full((1, 5, 2), np.nan, np.float32)
    monkeypatch.setattr(
        FaceDetector, "detect_hard", lambda self, frames: [FaceDetections(box, np.array([0.6]), landmarks)]
    )
    settings = {**SMALL, "face_framing": [0.0, 0.0, 1.0, 1.2]}
    faces = EngagementImageProcessor(**settings).prepare_faces(np.full((240, 320, 3), 110, np.uint8))
    assert faces.probabilities.tolist() == [0.6]
    video = EngagementVideoProcessor(**{**settings, "face_crop": True}, num_frames=1)
    clip = video.prepare_clip(np.full((1, 240, 320, 3), 110, np.uint8))
    np.testing.assert_array_equal(clip.boxes_xyxy_px, box)


def test_a_hard_look_finds_more_and_nothing_on_a_wall():
    lying = draw_frame(draw_subject(3), FacePose(roll_deg=90), 320, 240)
    frames, detector = np.stack([lying, np.full_like(lying, 110)]), FaceDetector()
    assert [len(found) for found in detector.detect(frames)] == [0, 0]
    assert [len(found) for found in detector.detect_hard(frames)] == [1, 0]


def test_a_trained_model_of_face_pictures_keeps_their_framing(trained: TrainedStages):
    expression = EngagementImageProcessor.from_pretrained(trained.expression)
    right, down, width, height = expression.face_framing
    assert abs(right) < 0.3 and abs(down) < 0.3 and width == pytest.approx(height)
    predictor = Predictor.from_pretrained(str(trained.expression))
    assert predictor.video_processor.face_framing == expression.face_framing
    assert Predictor.from_pretrained(str(trained.engagement)).video_processor.face_framing is None


def logits_of(predictor: Predictor, path: Path) -> np.ndarray:
    with torch.inference_mode():
        pixel_values = predictor.processor.to_pixel_values(predictor.prepare_photo(path).frames)
        return predictor.model(pixel_values).logits.numpy()[0]


def test_pictures_given_as_faces_have_the_logits_of_the_evaluation(trained: TrainedStages, drawn_expressions: Path):
    measured, _ = read_predictions(trained.expression, "test")
    predictor = Predictor.from_pretrained(str(trained.expression), faces_given=True).speed_up()
    for (clip_id, _), expected in zip(measured.keys, measured.logits, strict=True):
        np.testing.assert_allclose(logits_of(predictor, drawn_expressions / clip_id), expected, rtol=0, atol=1e-5)


@pytest.mark.real_data
@pytest.mark.parametrize("table", ["fer2013/test.parquet", "daisee_crops/validation.parquet"])
def test_real_pictures_given_as_faces_have_the_logits_of_the_evaluation(table: str, tmp_path: Path):
    if not (REAL_DATA / table).is_file():
        pytest.skip(f"{table} is not there: set ENGAGEMENT_REAL_DATA")
    contents = pyarrow.parquet.read_table(REAL_DATA / table, columns=["image"])["image"][:20].to_pylist()
    processor = EngagementImageProcessor(**SMALL)
    torch.manual_seed(0)
    predictor = Predictor(tiny_model("resnet", "image"), processor, faces_given=True)
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content["bytes"])
        frames = np.asarray(Image.open(io.BytesIO(content["bytes"])).convert("RGB"))[None]
        batch = FrameCollator(processor, single_face=True)([{"frames": frames, "label": 0, "row": 0, "scores": None}])
        with torch.inference_mode():
            expected = predictor.model(batch["pixel_values"]).logits.numpy()[0]
        np.testing.assert_allclose(logits_of(predictor, path), expected, rtol=0, atol=1e-5)


def test_the_command_takes_a_picture_as_a_face(
    trained: TrainedStages, tmp_path: Path, engagement: Command, face_pictures: list[np.ndarray]
):
    Image.fromarray(face_pictures[0]).save(tmp_path / "face.png")
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    for arguments, expected, told in (
        (["--faces", tmp_path / "face.png"], 0, "box [0.0, 0.0, 96.0, 120.0], the whole picture"),
        ([tmp_path / "wall.png"], 2, "If the picture is a face already, pass --faces."),
    ):
        code, out, err = engagement("predict", "--model", trained.expression, *arguments)
        assert code == expected and told in out + err


def test_frames_of_a_video_and_what_is_explained_are_faces_too(
    trained: TrainedStages, tmp_path: Path, face_pictures: list[np.ndarray]
):
    for model in (trained.expression, trained.engagement):
        predictor = Predictor.from_pretrained(str(model), faces_given=True)
        clip = predictor.video_processor.prepare_clip(np.stack([face_pictures[0]] * 4))
        assert clip.face_coverage is None
    Image.fromarray(face_pictures[0]).save(tmp_path / "face.png")
    predictor = Predictor.from_pretrained(str(trained.expression), faces_given=True)
    (clip,) = explain_file(predictor, tmp_path / "face.png").clips
    assert clip.face is None  # nobody has looked where it is
    np.testing.assert_array_equal(clip.pictures[0], face_pictures[0])
    assert clip.explanation.scores == predictor.predict(tmp_path / "face.png").faces[0].scores


def test_a_model_of_whole_frames_takes_no_faces():
    processor = EngagementImageProcessor(**SMALL, pictures_are_frames=True)
    with pytest.raises(RecipeError, match="whole frames"):
        Predictor(tiny_model("resnet", "image"), processor, faces_given=True)
