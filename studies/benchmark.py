"""Our way against the plain way, in turn within one run and quoted as ratios: from a video file to its label, and from
a prepared data set to the pixels of a random clip.

The plain way is what a first script does: decode every frame to RGB, MTCNN with its defaults on each sampled frame,
crop, run the model as it was loaded. Both take the same frames of the same file through the same weights.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import av
import h5py
import numpy as np
import torch
from datasets import Dataset
from transformers import TimmWrapperConfig

from ..configuration_engagement import EngagementConfig
from ..data.drawn.datasets import encode_video
from ..data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from ..data.preparation.picture_codec import decode_picture
from ..data.preparation.prepared_data import load_prepared
from ..inference.predictor import Predictor
from ..modeling_engagement import EngagementForVideoClassification
from ..processor.face_cropping import crop_faces
from ..processor.input_errors import NoFaceError
from ..processor.video_decoding import decode_video, uniform_frame_indices
from ..processor.video_processing_engagement import EngagementVideoProcessor

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN


class PlainAndOurs(TypedDict):
    """Milliseconds of either way, and plain over ours."""

    plain: float
    ours: float
    ratio: float


class SpeedJson(TypedDict):
    """What `engagement benchmark` prints of a video."""

    video: str
    rounds: int
    threads: int
    frames_identical: bool
    decode_cpu_ms: PlainAndOurs
    video_to_label_wall_ms: PlainAndOurs


class Hdf5AndOurs(TypedDict):
    """Of the reference's store, of ours, and the first over the second."""

    hdf5_gzip: float
    ours: float
    ratio: float


class CacheJson(TypedDict):
    """What `engagement benchmark` prints of a prepared data set."""

    data: str
    clips: int
    rounds: int
    frames_a_clip: list[int]
    mib_a_clip: Hdf5AndOurs
    ms_a_random_clip: Hdf5AndOurs


def run_benchmark(video: Path | None, model: str | None, num_rounds: int, num_threads: int) -> SpeedJson:
    """Medians in milliseconds and the ratios plain / ours, warm, of decoding (CPU time) and of the whole way (wall)."""
    with _torch_threads(num_threads), tempfile.TemporaryDirectory() as folder:
        source = video or _draw_clip(Path(folder) / "drawn.mp4")
        predictor = Predictor.from_pretrained(model, device="cpu") if model else _untrained_predictor()
        plain_model = copy.deepcopy(predictor.model).eval().to(memory_format=torch.contiguous_format)
        predictor.speed_up()
        num_frames = predictor.video_processor.num_frames
        plain_decode, our_decode = _time_in_turn(
            lambda: decode_plainly(source, num_frames),
            lambda: decode_video(source, num_frames),
            num_rounds,
            time.process_time,
        )
        plain_way, our_way = _time_in_turn(
            lambda: _predict_plainly(source, predictor, plain_model),
            lambda: predictor.predict_video(source),
            num_rounds,
            time.perf_counter,
        )
        identical = np.array_equal(decode_plainly(source, num_frames), decode_video(source, num_frames).frames)
    return {
        "video": source.name,
        "rounds": num_rounds,
        "threads": num_threads,
        "frames_identical": identical,
        "decode_cpu_ms": {"plain": plain_decode, "ours": our_decode, "ratio": round(plain_decode / our_decode, 2)},
        "video_to_label_wall_ms": {"plain": plain_way, "ours": our_way, "ratio": round(plain_way / our_way, 2)},
    }


def run_cache_benchmark(folder: Path, num_rounds: int, num_clips: int = 200) -> CacheJson:
    """A prepared data set against the same frames as the CNN + LSTM reference stores them: gzipped arrays in HDF5.

    Returns MiB a clip, medians in milliseconds to read a random clip, and the ratios reference / ours.

    Raises:
        DataError: there is no prepared data set.
    """
    rows = load_prepared(folder).splits["train"].select_columns(["frames", "clip_id"])
    rows = rows.select(range(min(num_clips, len(rows))))
    order = iter(np.random.default_rng(0).integers(len(rows), size=(2, num_rounds + 1)).flatten().tolist())
    with tempfile.TemporaryDirectory() as temporary, h5py.File(Path(temporary) / "frames.h5", "w") as file:
        for row in range(len(rows)):
            file.create_dataset(
                f"sequences/{row}", data=_frames_of(rows, row)[None], compression="gzip", compression_opts=4
            )
        file.flush()
        hdf5_mib = Path(file.filename).stat().st_size / len(rows) / 2**20
        hdf5_ms, our_ms = _time_in_turn(
            lambda: file[f"sequences/{next(order)}"][0],
            lambda: _frames_of(rows, next(order)),
            num_rounds,
            time.perf_counter,
        )
    our_mib = sum(len(frame) for frames in rows["frames"] for frame in frames) / len(rows) / 2**20
    return {
        "data": folder.name,
        "clips": len(rows),
        "rounds": num_rounds,
        "frames_a_clip": list(_frames_of(rows, 0).shape),
        "mib_a_clip": {
            "hdf5_gzip": round(hdf5_mib, 3),
            "ours": round(our_mib, 3),
            "ratio": round(hdf5_mib / our_mib, 2),
        },
        "ms_a_random_clip": {"hdf5_gzip": hdf5_ms, "ours": our_ms, "ratio": round(hdf5_ms / our_ms, 2)},
    }


def _frames_of(rows: Dataset, row: int) -> np.ndarray:
    """(num_frames, height, width, 3) uint8 RGB."""
    return np.stack([decode_picture(frame) for frame in rows[row]["frames"]])


@contextmanager
def _torch_threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def decode_plainly(source: Path, num_frames: int) -> np.ndarray:
    """Every frame to RGB, then the sampled ones: (num_frames, height, width, 3) uint8."""
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[i] for i in uniform_frame_indices(len(frames), num_frames)])


def _predict_plainly(source: Path, predictor: Predictor, model: EngagementForVideoClassification) -> int:
    processor = predictor.video_processor
    frames = decode_plainly(source, processor.num_frames)
    found = [_default_mtcnn().detect(frame, landmarks=True) for frame in frames]
    seen = [i for i, (boxes, *_) in enumerate(found) if boxes is not None]
    if not seen:
        raise NoFaceError(f"Expected a face in {source}, the plain way found none; pass another video.")
    nearest = [found[min(seen, key=lambda j: abs(i - j))] for i in range(len(found))]
    boxes, landmarks = (np.stack([frame[part][0] for frame in nearest]).astype(np.float64) for part in (0, 2))
    size_px, margin_ratio = processor.face_crop_size_px, processor.face_margin_ratio
    crops, _ = crop_faces(frames, boxes, landmarks, size_px, margin_ratio, processor.face_framing)
    pixel_values = processor.to_pixel_values(crops)
    if not predictor.is_video_model:
        return int(model(pixel_values).logits.mean(dim=0).argmax())
    return int(model(pixel_values[None]).logits.argmax())


@cache
def _default_mtcnn() -> "MTCNN":
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True)


def _untrained_predictor() -> Predictor:
    config = EngagementConfig(encoder_config=TimmWrapperConfig(architecture="resnet18"), image_size=224)
    return Predictor(EngagementForVideoClassification(config), EngagementVideoProcessor(), device="cpu")


def _draw_clip(path: Path) -> Path:
    levels = AffectLevels(boredom=0, engagement=3, confusion=0, frustration=0)
    poses = engagement_trajectory(levels, "appearance", 10.0, 30, np.random.default_rng(0))
    frames = (draw_frame(draw_subject(0), pose, noise_seed=number) for number, pose in enumerate(poses))
    encode_video(path, frames, fps=30, width_px=640, height_px=480, container_format="mp4")
    return path


def _time_in_turn(
    plain: Callable[[], object], ours: Callable[[], object], num_rounds: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Median milliseconds of each, timed A B A B after one warm-up of each."""
    times: dict[Callable[[], object], list[float]] = {plain: [], ours: []}
    for round_number in range(num_rounds + 1):
        for way, milliseconds in times.items():
            start = clock()
            way()
            if round_number:
                milliseconds.append((clock() - start) * 1000)
    return round(statistics.median(times[plain]), 2), round(statistics.median(times[ours]), 2)
