"""Time from a file to its label in a warm process: the plain way and each engine, in turn, on the same file; by stage.

Without calibration data only existing int8 exports are measured.
"""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..inference.predictor import Predictor
from ..inference.torch_engine import Model
from ..processor.video_decoding import decode_video
from .plain_way import predict_plainly
from .speed_record import Floor, Warm, Way

# Folder of an export within the model's -> engine and dtype; torch runs the model itself.
_ENGINES = {
    "torch": ("torch", "auto"),
    "onnx": ("onnxruntime", "auto"),
    "openvino": ("openvino", "auto"),
    "onnx_int8": ("onnxruntime", "int8"),
    "openvino_int8": ("openvino", "int8"),
}
_MATRIX = 1024


def measure_warm(folder: Path, not_exported: dict[str, str], video: Path, num_rounds: int) -> Warm:
    """
    Args:
        folder: of a model, with its exports.
        not_exported: name of an export -> why there is none.

    Raises:
        EngagementInputError: no model, or a video that the plain way cannot read.
    """
    plain = Predictor.from_pretrained(str(folder), device="cpu")
    plain_model: Model = copy.deepcopy(plain.model).eval().to(memory_format=torch.contiguous_format)
    predictors = {
        name: Predictor.from_pretrained(str(folder), device="cpu", engine=engine, dtype=dtype).speed_up()
        for name, (engine, dtype) in _ENGINES.items()
        if name not in not_exported
    }
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: predict_plainly(video, plain.video_processor, plain_model)
    }
    ways |= {name: partial(predictor.predict_video, video) for name, predictor in predictors.items()}
    times = time_in_turn(ways, num_rounds)
    expected = predict_plainly(video, plain.video_processor, plain_model)
    first = times["plain"]
    rows = [
        Way(
            name="plain", engine=plain.engine.name, dtype="float32", whole_ms=first, stages_ms={}, ratio=1.0,
            same_label=True,
        )
    ]  # fmt: skip
    for name, predictor in predictors.items():
        stages, label = _stages(predictor, video, num_rounds)
        rows.append(
            Way(
                name=name,
                engine=predictor.engine.name,
                dtype=predictor.engine.dtype,
                whole_ms=times[name],
                stages_ms=stages,
                ratio=round(times["plain"] / times[name], 2),
                same_label=label == expected,
            )
        )
    parameters = sum(weights.numel() for weights in plain_model.parameters())
    floor = _floor(plain, plain_model, video, num_rounds)
    return Warm(model=_describe(plain_model), parameters=parameters, ways=rows, floor=floor, not_measured=not_exported)


def time_in_turn(
    ways: dict[str, Callable[[], object]], num_rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median milliseconds of each way, timed A B C A B C after one warm-up of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(num_rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if round_number:
                times[name].append((clock() - start) * 1000)
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def _stages(predictor: Predictor, video: Path, num_rounds: int) -> tuple[dict[str, float], int]:
    """Median milliseconds by stage, each with the output of the previous one as input; and the label's number."""
    processor = predictor.video_processor
    times: dict[str, list[float]] = {name: [] for name in ("decode", "faces", "crops", "model")}
    logits = np.zeros((1, len(predictor.engine.label_names)), np.float32)
    for round_number in range(num_rounds + 1):
        marks = [time.perf_counter()]
        frames = decode_video(video, processor.num_frames).frames
        marks.append(time.perf_counter())
        person = processor.find_person(frames, video.name)
        marks.append(time.perf_counter())
        crops, _ = processor.crop(frames, person.boxes_xyxy_px, person.landmarks_xy_px)
        pixel_values = processor.to_pixel_values(crops)
        marks.append(time.perf_counter())
        logits = predictor.engine.logits(pixel_values[None] if predictor.is_video_model else pixel_values)
        marks.append(time.perf_counter())
        if round_number:
            for name, began, ended in zip(times, marks, marks[1:], strict=False):
                times[name].append((ended - began) * 1000)
    return {name: round(statistics.median(found), 3) for name, found in times.items()}, int(
        logits.mean(axis=0).argmax()
    )


def _floor(predictor: Predictor, model: Model, video: Path, num_rounds: int) -> Floor:
    processor = predictor.video_processor
    config, num_frames = model.config, processor.num_frames
    shape = (num_frames, config.num_channels, config.image_size, config.image_size)
    noise = torch.zeros((1, *shape) if predictor.is_video_model else shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(noise)
    gflop = counter.get_total_flops() / 1e9
    matrix = torch.rand(_MATRIX, _MATRIX)
    times = time_in_turn(
        {"decode": lambda: decode_video(video, num_frames), "product": lambda: matrix @ matrix}, max(num_rounds, 5)
    )
    rate = 2 * _MATRIX**3 / 1e6 / times["product"]  # GFLOP/s
    return Floor(
        decode_ms=times["decode"], gflop=round(gflop, 3), gflop_per_sec=round(rate, 1),
        arithmetic_ms=round(gflop / rate * 1000, 3),
    )  # fmt: skip


def _describe(model: Model) -> str:
    encoder = model.config.encoder_config
    name = getattr(encoder, "architecture", None) or encoder.model_type
    head = f" + {model.config.temporal}" if "Video" in type(model).__name__ else ", single faces"
    return f"{name}{head}, {model.config.image_size} px"
