"""A video of a face becomes pixel values: whatever it comes as, the same frames, the same person, the same numbers."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from places import REAL_DATA
from transformers import AutoVideoProcessor

from engagement_recognition import EngagementVideoProcessor, register_auto_classes
from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import FacePose, Person, draw_frame, draw_people, draw_subject
from engagement_recognition.processor.face_cropping import invert_transform, map_points
from engagement_recognition.processor.input_errors import EngagementInputError, NoFaceError, VideoReadError

WORDS = ("again", "book", "help", "learn", "no", "please", "school", "sister", "student", "yes")
WIDTH_PX, HEIGHT_PX, NUM_FRAMES = 320, 240, 12
SMALL = {"size": {"height": 32, "width": 32}, "face_crop_size_px": 64, "num_frames": 4}


def small_processor(**settings: object) -> EngagementVideoProcessor:
    return EngagementVideoProcessor(**{**SMALL, **settings})


def whole_frames(**settings: object) -> EngagementVideoProcessor:
    return small_processor(face_crop=False, **settings)


def empty_room() -> np.ndarray:
    return draw_people([], WIDTH_PX, HEIGHT_PX)


def face_at(x: float, head_width_px: float, seed: int = 1) -> Person:
    return Person(draw_subject(seed), FacePose(), (x, 110.0), head_width_px)


def draw_face(pose: FacePose, seed: int = 3) -> np.ndarray:
    return draw_frame(draw_subject(seed), pose, WIDTH_PX, HEIGHT_PX)


def write_video(path: Path, frames: np.ndarray) -> Path:
    encode_video(path, iter(frames), 4, frames.shape[2], frames.shape[1], path.suffix[1:])
    return path


def decode_all(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def lecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that turns from one side to the other: 12 frames of 320x240."""
    frames = [draw_face(FacePose(yaw_deg=3.0 * i - 16, roll_deg=i - 6)) for i in range(NUM_FRAMES)]
    return write_video(tmp_path_factory.mktemp("videos") / "a lecture.mp4", np.stack(frames))


@pytest.fixture(scope="module")
def frames(lecture: Path) -> np.ndarray:
    """The lecture's frames, (12, 240, 320, 3)."""
    return decode_all(lecture)


# What comes out


def test_the_result_is_what_the_model_takes_and_nothing_else(lecture: Path):
    result = small_processor()(lecture)
    assert set(result) == {"pixel_values"}
    assert result["pixel_values"].shape == (1, 4, 3, 32, 32)
    assert result["pixel_values"].dtype == torch.float32


# What goes in

WAYS_IN: dict[str, Callable[[Path, np.ndarray], object]] = {
    "path": lambda path, frames: path,
    "name": lambda path, frames: str(path),
    "bytes": lambda path, frames: path.read_bytes(),
    "binary file": lambda path, frames: io.BytesIO(path.read_bytes()),
    "frames, channels last": lambda path, frames: frames,
    "frames, channels first": lambda path, frames: frames.transpose(0, 3, 1, 2),
    "tensor": lambda path, frames: torch.from_numpy(frames),
    "tensor, channels first": lambda path, frames: torch.from_numpy(frames).permute(0, 3, 1, 2),
    "floats": lambda path, frames: (frames / 255).astype(np.float32),
    "floats a little off": lambda path, frames: (frames / 255 - 1e-3).clip(0, 1),
    "half precision floats": lambda path, frames: torch.from_numpy(frames).half() / 255,
    "with alpha": lambda path, frames: np.concatenate([frames, frames[..., :1]], axis=3),
    "pictures": lambda path, frames: [Image.fromarray(frame) for frame in frames],
    "list of arrays": lambda path, frames: list(frames),
    "tuple of tensors": lambda path, frames: tuple(torch.from_numpy(frames)),
    "batch of one": lambda path, frames: frames[None],
    "list of one path": lambda path, frames: [path],
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_one_video_however_it_is_handed_over(way: str, lecture: Path, frames: np.ndarray):
    processor = whole_frames()
    got = processor(WAYS_IN[way](lecture, frames))["pixel_values"]
    assert torch.equal(got, processor(frames)["pixel_values"])


@pytest.mark.parametrize("face_crop", [False, True])
def test_a_batch_of_mixed_kinds_keeps_its_order(face_crop: bool, lecture: Path, frames: np.ndarray):
    processor = small_processor(face_crop=face_crop)
    backwards = frames[::-1]
    together = processor([lecture, torch.from_numpy(backwards.copy()), list(frames), lecture.read_bytes()])
    forth, back = (processor(clip)["pixel_values"][0] for clip in (frames, backwards))
    assert not torch.equal(forth, back)
    for got, expected in zip(together["pixel_values"], [forth, back, forth, forth], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_a_5_d_array_is_a_batch_of_videos(frames: np.ndarray):
    together = whole_frames()(np.stack([frames, frames[::-1]]))["pixel_values"]
    alone = [whole_frames()(clip)["pixel_values"][0] for clip in (frames, frames[::-1])]
    assert torch.equal(together, torch.stack(alone))


def test_grey_frames_become_colour():
    grey = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 1), dtype=np.uint8)
    assert torch.equal(whole_frames()(grey)["pixel_values"], whole_frames()(grey.repeat(3, axis=3))["pixel_values"])


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.full((4, 8, 8, 3), 1.5), r"float frames in 0\.\.1, got 1\.5\.\.1\.5 .*uint8 for 0\.\.255"),
        (np.full((4, 8, 8, 3), -0.1), r"float frames in 0\.\.1"),
        (np.full((4, 8, 8, 3), np.nan), r"float frames in 0\.\.1, got nan"),
        (np.zeros((4, 8, 8, 3), np.int64), "uint8, or floats in 0..1, got int64"),
        (np.zeros((4, 8, 8, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(num_frames, height, width, channels\), got \(0, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), r"\(num_frames, height, width, channels\), got \(8, 8, 3\)"),
        ([], "got list of length 0"),
        ([[]], "Expected frames, got list"),
        (7, "got int"),
        (None, "got NoneType"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "frames of one size, got 2 sizes"),
        ([np.zeros((4, 8, 8, 3), np.uint8), 7], "Expected frames, got int"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(video: object, message: str):
    with pytest.raises(EngagementInputError, match=message) as caught:
        whole_frames()(video)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_video_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video", encoding="utf-8")
    with pytest.raises(VideoReadError, match=r"notes\.mp4"):
        small_processor()(path)
    with pytest.raises(TypeError, match="num_frame"):
        small_processor()(path, num_frame=3)  # a typing error must not be swallowed


# Which frames

SAMPLING = [
    ({}, [1, 4, 7, 10]),
    ({"num_frames": 6}, [1, 3, 5, 7, 9, 11]),
    ({"num_frames": 1}, [6]),
    ({"sampling": "consecutive"}, [0, 1, 2, 3]),
    ({"sampling": "consecutive", "start_frame": 5, "num_frames": 3}, [5, 6, 7]),
    ({"sampling": "consecutive", "start_frame": 10}, [10, 11, 11, 11]),
    ({"num_frames": 14}, [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11]),
]


@pytest.mark.parametrize(("arguments", "indices"), SAMPLING)
def test_files_and_arrays_are_sampled_alike(arguments: dict, indices: list[int], lecture: Path, frames: np.ndarray):
    for video in (lecture, frames):
        clip = whole_frames().prepare_clip(video, **arguments)
        assert clip.frame_indices.tolist() == indices
        np.testing.assert_array_equal(clip.whole_frames, frames[indices])
        assert clip.num_repeated_frames == len(indices) - len(set(indices))
        called = whole_frames()(video, **arguments)["pixel_values"]
        assert torch.equal(called[0], whole_frames().to_pixel_values(clip.frames))
    assert np.isnan(clip.frame_times_sec).all()
    np.testing.assert_allclose(
        whole_frames().prepare_clip(lecture, **arguments).frame_times_sec, np.array(indices) / 4, atol=1e-3
    )


def test_a_span_of_a_file_is_sampled_within_its_seconds(lecture: Path):
    clip = whole_frames().prepare_clip(lecture, clip_start_sec=1.0, clip_end_sec=2.0)  # at 4 frames a second
    assert clip.frame_indices.tolist() == [4, 5, 6, 7]


def test_unsampled_frames_are_taken_as_they_are(frames: np.ndarray):
    every = whole_frames()(frames[:5], do_sample_frames=False)["pixel_values"]
    assert torch.equal(every, whole_frames()(frames[:5], num_frames=5)["pixel_values"])


@pytest.mark.parametrize(
    "arguments", [{"sampling": "random"}, {"start_frame": 3}, {"sampling": "consecutive", "start_frame": 12}]
)
def test_a_sampling_that_makes_no_sense_is_refused(arguments: dict, lecture: Path, frames: np.ndarray):
    for video in (lecture, frames):
        with pytest.raises(EngagementInputError, match=r"Expected (sampling|a start_frame)"):
            whole_frames()(video, **arguments)
    with pytest.raises(EngagementInputError, match="num_frames, got 0"):
        whole_frames()(frames, num_frames=0)


# Whole frames, or the face


def test_whole_frames_are_squeezed_not_cut():
    # Left half black, right half white, in a wide frame: a centre crop would move the edge's neighbours out.
    video = np.zeros((1, 20, 200, 3), np.uint8)
    video[:, :, 190:] = 255  # the last twentieth, which only a squeeze of the whole frame keeps
    clip = whole_frames(num_frames=1).prepare_clip(video)
    assert clip.frames.shape == (1, 64, 64, 3)
    columns = clip.frames[0].mean(axis=(0, 2))
    assert columns[:58].max() == 0 and columns[-1] == 255
    assert columns.sum() / 255 == pytest.approx(64 / 20, rel=0.05)
    assert (clip.found, clip.boxes_xyxy_px, clip.landmarks_xy_px, clip.transforms, clip.face_coverage) == (None,) * 5


def test_a_prepared_clip_says_where_the_face_is(lecture: Path):
    clip = small_processor().prepare_clip(lecture)
    assert clip.source.endswith("a lecture.mp4")
    assert clip.frames.shape == (4, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert clip.whole_frames.shape == (4, HEIGHT_PX, WIDTH_PX, 3)
    assert clip.found.tolist() == [True] * 4 and clip.face_coverage == 1.0
    assert clip.boxes_xyxy_px.shape == (4, 4) and clip.landmarks_xy_px.shape == (4, 5, 2)
    assert clip.transforms.shape == (4, 2, 3) and clip.probabilities.shape == (4,) and clip.probabilities.min() > 0.9
    for box, landmarks, transform in zip(clip.boxes_xyxy_px, clip.landmarks_xy_px, clip.transforms, strict=True):
        assert (landmarks > box[:2]).all() and (landmarks < box[2:]).all()
        in_crop = map_points(landmarks, invert_transform(transform))
        assert (in_crop > 0).all() and (in_crop < 64).all()


def test_the_crop_is_overridden_call_by_call(lecture: Path):
    cropped, whole = (small_processor()(lecture, face_crop=face_crop)["pixel_values"] for face_crop in (True, False))
    assert torch.equal(cropped, small_processor()(lecture)["pixel_values"])
    assert torch.equal(whole, whole_frames()(lecture)["pixel_values"])
    assert not torch.equal(cropped, whole)


@pytest.mark.parametrize("roll_deg", [-25.0, 0.0, 18.0])
def test_leaning_heads_are_levelled(roll_deg: float):
    processor = small_processor(face_crop_size_px=160)
    clip = processor.prepare_clip(np.stack([draw_face(FacePose(roll_deg=roll_deg))] * 4))
    in_crop = map_points(clip.landmarks_xy_px[0], invert_transform(clip.transforms[0]))
    assert in_crop[0, 1] == pytest.approx(in_crop[1, 1], abs=1e-3)
    assert in_crop[0, 0] < in_crop[1, 0]
    turned_deg = np.degrees(np.arctan2(clip.transforms[0, 1, 0], clip.transforms[0, 0, 0]))
    assert turned_deg == pytest.approx(roll_deg, abs=6)
    # The pixels are turned with the points: looked for anew, the eyes lie level in the crop itself.
    eyes = processor.detect_faces(clip.frames[:1])[0].landmarks_xy_px[0][:2]
    assert abs(np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1]))) < 6


def test_frames_without_the_face_take_the_nearest_box():
    boxes_at = [120, 120, None, None, None, 200]
    video = np.stack(
        [empty_room() if x is None else draw_people([face_at(x, 70)], WIDTH_PX, HEIGHT_PX) for x in boxes_at]
    )
    clip = small_processor(num_frames=6).prepare_clip(video)
    assert clip.found.tolist() == [True, True, False, False, False, True]
    assert clip.face_coverage == 0.5
    assert (clip.probabilities > 0).tolist() == clip.found.tolist()
    np.testing.assert_array_equal(clip.boxes_xyxy_px[[2, 3, 4]], clip.boxes_xyxy_px[[1, 1, 5]])
    np.testing.assert_array_equal(clip.transforms[[2, 3, 4]], clip.transforms[[1, 1, 5]])
    assert clip.boxes_xyxy_px[5, 0] - clip.boxes_xyxy_px[1, 0] == pytest.approx(80, abs=8)


def test_nobody_at_all_names_the_video(tmp_path: Path):
    path = write_video(tmp_path / "empty room.avi", np.stack([empty_room()] * 4))
    for video, name in ((path, r"empty room\.avi"), (np.stack([empty_room()] * 4), "<frames>")):
        with pytest.raises(NoFaceError, match=rf"face in .*{name}.*face_crop=False") as caught:
            small_processor()(video)
        assert "\n" not in str(caught.value)


def test_a_passer_by_who_is_larger_is_not_the_person():
    student, passer_by = face_at(80, 60, seed=1), face_at(235, 100, seed=2)
    is_there = [False, True, True, False, False, False]
    video = np.stack([draw_people([student] + [passer_by] * here, WIDTH_PX, HEIGHT_PX) for here in is_there])
    processor = small_processor(num_frames=6)
    assert [len(faces) for faces in processor.detect_faces(video)] == [1, 2, 2, 1, 1, 1], "both are meant to be found"
    clip = processor.prepare_clip(video)
    assert clip.face_coverage == 1.0
    centers = (clip.boxes_xyxy_px[:, 0] + clip.boxes_xyxy_px[:, 2]) / 2
    np.testing.assert_allclose(centers, 80, atol=10)


@pytest.mark.parametrize("face_crop", [False, True])
def test_a_short_clip_says_how_many_frames_are_repeats(face_crop: bool, tmp_path: Path, frames: np.ndarray):
    path = write_video(tmp_path / "short.mp4", frames[:3])
    clip = small_processor(face_crop=face_crop).prepare_clip(path, num_frames=8)
    assert clip.frame_indices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert clip.num_repeated_frames == 5 and len(clip.frames) == 8


def test_the_same_call_gives_the_same_tensor_and_draws_nothing(lecture: Path):
    processor = small_processor()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (processor(lecture)["pixel_values"] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


# Settings

SETTINGS = {
    "num_frames": 5,
    "sampling": "consecutive",
    "size": {"height": 24, "width": 40},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "face_crop": False,
    "face_margin_ratio": 0.35,
    "face_crop_size_px": 48,
    "do_grayscale": True,
    "picture_norm": 100.0,
}


def test_every_setting_survives_saving(tmp_path: Path, lecture: Path):
    register_auto_classes()
    processor = EngagementVideoProcessor(**SETTINGS)
    processor.save_pretrained(tmp_path)
    for loaded in (EngagementVideoProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is EngagementVideoProcessor
        assert {name: json.loads(loaded.to_json_string())[name] for name in SETTINGS} == SETTINGS
        assert torch.equal(loaded(lecture)["pixel_values"], processor(lecture)["pixel_values"])
        assert loaded(lecture)["pixel_values"].shape == (1, 5, 1, 24, 40)


def test_a_setting_is_overridden_on_loading(tmp_path: Path, frames: np.ndarray):
    whole_frames().save_pretrained(tmp_path)
    loaded = EngagementVideoProcessor.from_pretrained(tmp_path, num_frames=2)
    assert loaded(frames)["pixel_values"].shape[1] == 2
    assert json.loads(json.dumps(loaded.to_dict()))["num_frames"] == 2


def test_the_pipeline_s_way_of_calling(lecture: Path):
    # transformers' video pipeline passes exactly this, and hands the result to the model whole.
    inputs = small_processor()(str(lecture), num_frames=8, do_sample_frames=True, return_tensors="pt").to(
        torch.bfloat16
    )
    assert list(inputs) == ["pixel_values"]
    assert inputs["pixel_values"].shape == (1, 8, 3, 32, 32) and inputs["pixel_values"].dtype == torch.bfloat16


# Real videos


def real_video(name: str) -> Path:
    path = REAL_DATA / "videos" / name
    if not path.is_file():
        pytest.skip(f"needs the real video {name}; set ENGAGEMENT_REAL_DATA")
    return path


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        *((f"{word}.mkv", 1.0, 1.0) for word in WORDS[:3]),
        ("single_face.mp4", 1.0, 1.0),
        ("noface_face.mov", 0.1, 0.9),
        ("face_noface.mov", 0.1, 0.9),
    ],
)
def test_the_share_of_real_frames_with_a_face(name: str, least: float, most: float):
    clip = EngagementVideoProcessor().prepare_clip(real_video(name))
    assert least <= clip.face_coverage <= most


@pytest.mark.real_data
def test_a_real_video_without_a_face_is_refused():
    with pytest.raises(NoFaceError, match=r"no_face\.mp4"):
        EngagementVideoProcessor()(real_video("no_face.mp4"))
