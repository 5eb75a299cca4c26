"""Pictures become pixel values: a face is found and cropped, or taken as it is; normalised as a video's frame is."""

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor, register_auto_classes
from engagement_recognition.data.drawn.faces import (
    FacePose,
    Person,
    draw_face_picture,
    draw_frame,
    draw_people,
    draw_subject,
)
from engagement_recognition.processor.face_cropping import invert_transform, map_points
from engagement_recognition.processor.input_errors import EngagementInputError, ImageReadError, NoFaceError
from engagement_recognition.processor.media_inputs import load_picture

SMALL = {"size": {"height": 32, "width": 32}, "face_crop_size_px": 64}
PLAIN = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
EMPTY_ROOM = draw_people([], 320, 240)


def small_processor(**settings: object) -> EngagementImageProcessor:
    return EngagementImageProcessor(**{**SMALL, **settings})


def as_faces(**settings: object) -> EngagementImageProcessor:
    """Of pictures that are faces already."""
    return small_processor(face_crop=False, **settings)


@pytest.fixture(scope="module")
def couple() -> np.ndarray:
    """A small face on the left and a large one, turned away and less sure, on the right: (240, 320, 3)."""
    turned = FacePose(yaw_deg=40, pitch_deg=15)
    people = [Person(draw_subject(1), FacePose(), (70, 110), 60), Person(draw_subject(2), turned, (225, 110), 110)]
    return draw_people(people, 320, 240)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """One face, (48, 48, 3), as in FER2013."""
    return draw_face_picture(draw_subject(1), FacePose(), 48)


# Pixel values, which both processors make in one place


def image_pixels(picture: np.ndarray, **settings: object) -> torch.Tensor:
    """(height, width, 3) -> (C, 32, 32)."""
    return as_faces(**settings)(picture)["pixel_values"][0]


def video_pixels(picture: np.ndarray, **settings: object) -> torch.Tensor:
    """(height, width, 3) -> (C, 32, 32)."""
    processor = EngagementVideoProcessor(**SMALL, face_crop=False, num_frames=1, **settings)
    return processor(picture[None])["pixel_values"][0, 0]


both_processors = pytest.mark.parametrize("pixels_of", [image_pixels, video_pixels], ids=["image", "video"])
PixelsOf = Callable[..., torch.Tensor]


@both_processors
def test_pixels_are_normalised_by_mean_and_std(pixels_of: PixelsOf):
    picture = np.broadcast_to(np.array([255, 0, 51], np.uint8), (40, 60, 3))
    pixels = pixels_of(picture, image_mean=[0.5, 0.25, 0.0], image_std=[0.5, 0.25, 2.0])
    assert pixels.dtype == torch.float32
    for channel, expected in zip(pixels, [(1.0 - 0.5) / 0.5, (0.0 - 0.25) / 0.25, (0.2 - 0.0) / 2.0], strict=True):
        torch.testing.assert_close(channel, torch.full((32, 32), expected))


@both_processors
def test_grayscale_gives_one_channel_of_luminance(pixels_of: PixelsOf):
    picture = np.broadcast_to(np.array([200, 100, 50], np.uint8), (40, 60, 3))
    pixels = pixels_of(picture, do_grayscale=True, image_mean=[0.5, 9.0, 9.0], image_std=[0.25, 9.0, 9.0])
    luminance = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255
    expected = torch.full((1, 32, 32), (luminance - 0.5) / 0.25)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0.02)  # the luminance is rounded to a whole level


@both_processors
@pytest.mark.parametrize("do_grayscale", [False, True])
def test_picture_norm_takes_the_mean_and_scales_the_rest(pixels_of: PixelsOf, do_grayscale: bool, portrait: np.ndarray):
    settings = {"picture_norm": 100.0, "do_grayscale": do_grayscale}
    pixels = pixels_of(portrait, **settings, **PLAIN)
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-4)
    assert float(pixels.norm()) == pytest.approx(100, rel=1e-5)
    # A darker picture with less contrast comes out the same: that is what this normalisation is for.
    torch.testing.assert_close(pixels_of(portrait // 2, **settings, **PLAIN), pixels, rtol=0, atol=0.5)
    assert pixels.abs().max() > 2
    shifted = pixels_of(portrait, **settings, image_mean=[1.0] * 3, image_std=[2.0] * 3)
    torch.testing.assert_close(shifted, (pixels - 1.0) / 2.0)


@both_processors
def test_a_flat_picture_has_no_norm_to_scale(pixels_of: PixelsOf):
    with pytest.raises(EngagementInputError, match=r"picture of one colour \(frame 0"):
        pixels_of(np.full((40, 60, 3), 128, np.uint8), picture_norm=100.0)


def test_a_picture_and_a_video_of_it_give_the_same_crop():
    # A model trained on pictures may serve videos: the crops must not differ.
    frame = draw_frame(draw_subject(3), FacePose(roll_deg=12), 320, 240)
    video = EngagementVideoProcessor(**SMALL, num_frames=2)(np.stack([frame, frame]))["pixel_values"][0]
    picture = small_processor()(frame)["pixel_values"][0]
    torch.testing.assert_close(video, torch.stack([picture, picture]), rtol=0, atol=1e-5)


# What goes in

WAYS_IN: dict[str, Callable[[Path, np.ndarray], object]] = {
    "path": lambda path, pixels: path,
    "name": lambda path, pixels: str(path),
    "bytes": lambda path, pixels: path.read_bytes(),
    "binary file": lambda path, pixels: io.BytesIO(path.read_bytes()),
    "picture": lambda path, pixels: Image.open(path),
    "array": lambda path, pixels: pixels,
    "channels first": lambda path, pixels: pixels.transpose(2, 0, 1),
    "tensor": lambda path, pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "floats": lambda path, pixels: pixels / 255,
    "with alpha": lambda path, pixels: Image.fromarray(pixels).convert("RGBA"),
    "list": lambda path, pixels: [path],
    "4-d array": lambda path, pixels: pixels[None],
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_one_picture_however_it_is_handed_over(way: str, tmp_path: Path, portrait: np.ndarray):
    path = tmp_path / "a face.png"
    Image.fromarray(portrait).save(path)
    got = as_faces()(WAYS_IN[way](path, portrait))
    assert set(got) == {"pixel_values"} and got["pixel_values"].shape == (1, 3, 32, 32)
    assert torch.equal(got["pixel_values"], as_faces()(portrait)["pixel_values"])


def test_a_list_of_mixed_kinds_is_a_batch_in_order(couple: np.ndarray, tmp_path: Path):
    path = tmp_path / "mirrored.png"
    mirrored = np.ascontiguousarray(couple[:, ::-1])
    Image.fromarray(mirrored).save(path)
    together = small_processor()([couple, path, Image.fromarray(couple)])["pixel_values"]
    alone = [small_processor()(picture)["pixel_values"][0] for picture in (couple, mirrored, couple)]
    assert not torch.equal(alone[0], alone[1])
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-6)


def test_grey_pictures_of_two_dimensions_become_colour(portrait: np.ndarray):
    grey = portrait[..., 0]
    assert torch.equal(as_faces()(grey)["pixel_values"], as_faces()(np.stack([grey] * 3, axis=2))["pixel_values"])


def test_a_photo_is_turned_upright(tmp_path: Path, portrait: np.ndarray):
    # Phones store the sensor's picture and a note how to turn it; 6 is "turn a quarter clockwise".
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.png"
    Image.fromarray(np.rot90(portrait)).save(path, exif=exif)
    assert torch.equal(as_faces()(path)["pixel_values"], as_faces()(portrait)["pixel_values"])


# Faces


def test_every_face_of_a_picture_is_prepared(couple: np.ndarray, tmp_path: Path):
    path = tmp_path / "couple.png"
    Image.fromarray(couple).save(path)
    faces = small_processor().prepare_faces(path)
    assert faces.source == str(path)
    assert faces.frames.shape == (2, 64, 64, 3) and faces.frames.dtype == np.uint8
    assert faces.boxes_xyxy_px.shape == (2, 4) and faces.landmarks_xy_px.shape == (2, 5, 2)
    assert faces.transforms.shape == (2, 2, 3) and faces.probabilities.shape == (2,)
    centers = (faces.boxes_xyxy_px[:, 0] + faces.boxes_xyxy_px[:, 2]) / 2
    np.testing.assert_allclose(centers, [70, 225], atol=16, err_msg="they are numbered from left to right")
    for landmarks, transform in zip(faces.landmarks_xy_px, faces.transforms, strict=True):
        eyes = map_points(landmarks, invert_transform(transform))[:2]
        assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=1e-3)


def test_called_it_takes_the_largest_face(couple: np.ndarray):
    processor = small_processor()
    faces = processor.prepare_faces(couple, thorough=False)
    assert faces.boxes_xyxy_px[1, 0] > 160, "the larger face is meant to be on the right"
    assert torch.equal(processor(couple)["pixel_values"], processor.to_pixel_values(faces.frames[1:]))


def test_nobody_in_the_picture_is_said_with_its_name(tmp_path: Path):
    path = tmp_path / "empty room.png"
    Image.fromarray(EMPTY_ROOM).save(path)
    for prepare in (small_processor(), small_processor().prepare_faces):
        with pytest.raises(NoFaceError, match=r"face in .*empty room\.png"):
            prepare(path)
        with pytest.raises(NoFaceError, match="Expected a face in <picture>, found none"):
            prepare(EMPTY_ROOM)
    assert as_faces()(path)["pixel_values"].shape == (1, 3, 32, 32)
    assert small_processor()(path, face_crop=False)["pixel_values"].shape == (1, 3, 32, 32)


def test_the_same_call_gives_the_same_tensor_and_draws_nothing(couple: np.ndarray):
    state = torch.get_rng_state()
    first, second = (small_processor()(couple)["pixel_values"] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)


# What is refused


def write_bad_files(folder: Path) -> dict[str, Path]:
    whole = io.BytesIO()
    Image.fromarray(EMPTY_ROOM).save(whole, "JPEG")
    contents = {"text": b"no picture", "empty": b"", "cut": whole.getvalue()[:1000]}
    paths = {kind: folder / f"{kind} file.jpg" for kind in (*contents, "missing", "folder")}
    for kind, content in contents.items():
        paths[kind].write_bytes(content)
    paths["folder"].mkdir()
    return paths


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "cannot identify image file"),
        ("empty", "an empty file"),
        ("cut", "truncated"),
        ("missing", "no such file"),
        ("folder", "the folder"),
    ],
)
@pytest.mark.parametrize("face_crop", [False, True])
def test_a_file_that_is_no_picture_is_refused_by_name(kind: str, reason: str, face_crop: bool, tmp_path: Path):
    path = write_bad_files(tmp_path)[kind]
    for source in (path, str(path)):
        with pytest.raises(ImageReadError, match=rf"{kind} file\.jpg") as caught:
            small_processor(face_crop=face_crop)(source)
        assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_large_picture_is_read_in_peace_and_a_huge_one_refused(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
):
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    assert load_picture(file.getvalue()).shape == (48, 64, 3) and not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2 - 1)
    with pytest.raises(ImageReadError, match=r"at most 3,070 pixels.* <bytes>; make it smaller"):
        load_picture(file.getvalue())


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_bytes_that_are_no_picture_are_refused(content: bytes):
    for source in (content, io.BytesIO(content)):
        with pytest.raises(ImageReadError, match="<bytes>"):
            as_faces()(source)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ([], "at least one picture, got an empty list"),
        (7, "got int"),
        ([7], "Expected a picture, got int"),
        (np.zeros(8, np.uint8), r"2 or 3 dimensions, got shape \(8,\)"),
        (np.zeros((8, 8, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 8, 3), np.uint8), r"got \(1, 0, 8, 3\)"),
        (np.full((8, 8, 3), 200.0), r"float frames in 0\.\.1, got 200\.\.200"),
        (np.zeros((8, 8, 3), np.int32), "got int32"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(picture: object, message: str):
    with pytest.raises(EngagementInputError, match=message) as caught:
        as_faces()(picture)
    assert "\n" not in str(caught.value)


# Settings

SETTINGS = {
    "size": {"height": 24, "width": 40},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "face_crop": False,
    "face_margin_ratio": 0.35,
    "face_crop_size_px": 48,
    "do_grayscale": True,
    "picture_norm": 100.0,
}


def test_every_setting_survives_saving(tmp_path: Path, portrait: np.ndarray):
    register_auto_classes()
    processor = EngagementImageProcessor(**SETTINGS)
    processor.save_pretrained(tmp_path)
    assert {name: json.loads(processor.to_json_string())[name] for name in SETTINGS} == SETTINGS
    for loaded in (EngagementImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is EngagementImageProcessor
        assert {name: json.loads(loaded.to_json_string())[name] for name in SETTINGS} == SETTINGS
        got = loaded(portrait)["pixel_values"]
        assert got.shape == (1, 1, 24, 40)
        assert torch.equal(got, processor(portrait)["pixel_values"])


def test_a_setting_is_overridden_on_loading(tmp_path: Path, portrait: np.ndarray):
    as_faces().save_pretrained(tmp_path)
    loaded = EngagementImageProcessor.from_pretrained(tmp_path, do_grayscale=True)
    assert loaded(portrait)["pixel_values"].shape == (1, 1, 32, 32)


def test_loading_by_the_auto_class_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    # Registered for another backend, it said "Requested torchvision backend is not available" to every user.
    register_auto_classes()
    small_processor().save_pretrained(tmp_path)
    logging.Logger.warning_once.cache_clear()  # transformers' own, which stays silent the second time
    AutoImageProcessor.from_pretrained(tmp_path)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_every_face_of_a_group_is_prepared_the_small_ones_too():
    # The fast setting alone finds the near face and would leave the far ones out.
    sizes_px = (170.0, 50.0, 50.0)
    places = ((200.0, 280.0), (430.0, 200.0), (560.0, 200.0))
    people = [
        Person(draw_subject(i), FacePose(), place, size)
        for i, (place, size) in enumerate(zip(places, sizes_px, strict=True))
    ]
    faces = EngagementImageProcessor().prepare_faces(draw_people(people, 640, 480))
    assert len(faces.frames) == 3
