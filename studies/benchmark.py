"""`engagement benchmark`: every speed that docs/performance.md quotes, in one run, each way in turn.

Each part is in its own module; if one cannot be measured here, the reason is recorded, and the others are measured.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import BeitConfig, PreTrainedConfig, TimmWrapperConfig

from ..configuration_engagement import EngagementConfig
from ..conversion.export_int8 import export_int8
from ..conversion.export_networks import Format, export_networks
from ..data.drawn.datasets import encode_video
from ..data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from ..data.json_records import Record
from ..data.required_packages import installed_version
from ..inference.exported_processor import DETECTOR_FOLDER
from ..inference.loading import load_model
from ..modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import DataError, EngagementInputError, RecipeError, in_one_line
from ..processor.video_decoding import decode_video
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .cold_speed import measure_cold
from .plain_way import decode_plainly
from .speed_record import Batch, Group, Ratio, SpeedRecord
from .warm_speed import measure_warm, time_in_turn

PARTS = ("warm", "cold", "batches", "faces", "training")
# By the folder in a model's folder in which `--engine` looks: format, and whether it is int8.
_EXPORTS: dict[str, tuple[Format, bool]] = {
    "onnx": ("onnx", False), "openvino": ("openvino", False), "onnx_int8": ("onnx", True),
    "openvino_int8": ("openvino", True),
}  # fmt: skip


@dataclass(frozen=True)
class BenchmarkOptions:
    """
    Args:
        video: None: ten seconds are drawn.
        models: folders; none: ResNet-18 + LSTM and BEiT-base for single faces, untrained.
        calibration: data for int8, as for `engagement export --calibration`; None: no int8.
        num_rounds: number of times that each way is timed, in turn.
        num_threads: number that each way may use.
        num_clips: for the part batches.
        parts: some of `PARTS`.
    """

    video: Path | None = None
    models: tuple[str, ...] = ()
    calibration: Path | None = None
    num_rounds: int = 7
    num_threads: int = 2
    num_clips: int = 200
    parts: tuple[str, ...] = PARTS


def run_benchmark(
    options: BenchmarkOptions, keep: Callable[[SpeedRecord], object] = lambda record: None
) -> SpeedRecord:
    """The longest part comes last; progress is printed to standard error.

    Args:
        keep: called after each part with all results so far.

    Raises:
        RecipeError: no such part.
        EngagementInputError: the video or a model cannot be read.
    """
    if unknown := sorted({*options.parts} - {*PARTS}):
        raise RecipeError(f"There is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}.")
    rounds = options.num_rounds
    with _threads(options.num_threads), tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            load_model(name)  # so that a model that cannot be loaded is refused at once
        source = options.video or _draw_clip(Path(folder) / "drawn.mp4")
        models = [Path(name) for name in options.models] or _write_untrained(Path(folder))
        decode, identical = _decoding(source, rounds)
        measured = []
        if {"warm", "cold", "faces"} & {*options.parts}:
            measured = [_with_exports(model, Path(folder) / f"with_exports_{number}", options.calibration)
                        for number, model in enumerate(models)]  # fmt: skip
        first = measured[0].folder if measured else models[0]
        works: dict[str, Callable[[], Sequence[Record]]] = {
            "warm": lambda: [measure_warm(*model, source, rounds) for model in measured],
            "cold": lambda: measure_cold(source, first, rounds),
            "batches": lambda: _batches(source, first, options.num_clips),
            "faces": lambda: _faces(source, first, Path(folder), options.num_threads),
            "training": lambda: _training(options.num_threads),
        }
        record = SpeedRecord(
            version=1, environment=_environment(options.num_threads), video=source.name, rounds=rounds,
            threads=options.num_threads, decode=decode, frames_identical=identical,
        )  # fmt: skip
        for part in (part for part in PARTS if part in options.parts):
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            try:
                record = record.model_copy(update={part: works[part]()})
            except EngagementInputError as error:
                record = record.model_copy(update={"not_measured": {**record.not_measured, part: in_one_line(error)}})
            keep(record)
        return record


class _Measured(NamedTuple):
    folder: Path  # a copy of the model, with its exports
    not_exported: dict[str, str]  # folder of an export -> why there is none


def _with_exports(model: Path, folder: Path, calibration: Path | None) -> _Measured:
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(*_EXPORTS, "checkpoints"))
    why: dict[str, str] = {}
    for name, (form, is_int8) in _EXPORTS.items():
        print(f"exporting: {model.name} as {name}", file=sys.stderr, flush=True)
        try:
            if not is_int8:
                export_networks(str(folder), folder / name, form)
            elif calibration is None:
                why[name] = "needs --calibration"
            else:
                export_int8(str(folder), folder / name, form, calibration, cache_dir=folder / "cache")
        except EngagementInputError as error:
            said = in_one_line(error, max_chars=1000)
            why[name] = said.replace(str(calibration), calibration.name) if calibration else said
    return _Measured(folder, why)


def _batches(source: Path, model: Path, num_clips: int) -> list[Batch]:
    command = [sys.executable, "-m", "engagement_recognition.studies.batch_speed", str(source), "--model", str(model)]
    command += ["--clips", str(num_clips), "--workers", "1", "2", "--batch-sizes", "1", "16"]
    lines = _output_of(command).splitlines()
    return [
        Batch(
            engine=row["engine"], workers=row["workers"], batch_size=row["batch_size"], clips=row["num_clips"],
            clips_per_sec=row["clips_per_sec"], peak_mb=row["peak_mb"],
        )
        for row in map(json.loads, lines)
    ]  # fmt: skip


def _faces(source: Path, model: Path, folder: Path, num_threads: int) -> list[Group]:
    """The library's MTCNN against ours, in torch and, if there is an export, in ONNX Runtime."""
    groups, detector = [], model / "onnx" / DETECTOR_FOLDER
    for engine, networks in (("torch", []), ("ONNX Runtime", ["--networks", str(detector)])):
        if networks and not detector.is_dir():
            continue
        command = [sys.executable, "-m", "engagement_recognition.studies.face_speed", str(source), *networks]
        _output_of([*command, "--json", str(folder / "faces.json"), "--threads", str(num_threads)])
        for row in json.loads((folder / "faces.json").read_text(encoding="utf-8")):
            shares = {"share of frames with the same count": row["same_count"] / row["num_frames"]}
            ious = {"median IoU": statistics.median(row["ious"]), "least IoU": min(row["ious"])} if row["ious"] else {}
            times = {
                "facenet-pytorch, ms per frame": row["ms_before"],
                "this package, ms per frame": row["ms_now"],
                "ratio": row["ratio"],
            }
            groups.append(Group(name=f"{row['source']}, {engine}", values={**times, **shares, **ious}))
    return groups


def _training(num_threads: int) -> list[Group]:
    command = [sys.executable, "-m", "engagement_recognition.studies.training_speed", "--threads", str(num_threads)]
    found = json.loads(_output_of(command + ["--busy"] * (num_threads > 1)))
    return [Group(name=name, values=values) for name, values in found.items() if isinstance(values, dict)]


def _output_of(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DataError(f"{' '.join(command[1:])} failed with exit code {done.returncode}; see its message above.")
    return done.stdout


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    """torch, other engines and processes started within the context use this number of threads."""
    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        del os.environ["OMP_NUM_THREADS"]
        if variable is not None:
            os.environ["OMP_NUM_THREADS"] = variable


def _decoding(source: Path, num_rounds: int) -> tuple[Ratio, bool]:
    num_frames = EngagementVideoProcessor.num_frames
    plain, ours = (lambda: decode_plainly(source, num_frames)), (lambda: decode_video(source, num_frames).frames)
    times = time_in_turn({"plain": plain, "ours": ours}, num_rounds, time.process_time)
    ratio = Ratio(
        name="8 frames: decoding all of the video, or only those 8 (CPU time)", before_ms=times["plain"],
        after_ms=times["ours"], ratio=round(times["plain"] / times["ours"], 2),
    )  # fmt: skip
    return ratio, bool(np.array_equal(plain(), ours()))


def _environment(num_threads: int) -> dict[str, str]:
    packages = ("torch", "onnxruntime", "openvino", "av", "transformers")
    versions = [f"{name} {version}" for name in packages if (version := installed_version(name))]
    return {
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(num_threads),
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def _write_untrained(folder: Path) -> list[Path]:
    """Folders of the two models that docs/performance.md reports."""
    torch.manual_seed(0)
    resnet: PreTrainedConfig = TimmWrapperConfig(architecture="resnet18")
    clips = EngagementForVideoClassification(EngagementConfig(encoder_config=resnet, image_size=224))
    faces = EngagementForImageClassification(EngagementConfig(encoder_config=BeitConfig(), image_size=224))
    clips.save_pretrained(folder / "resnet18_lstm")
    EngagementVideoProcessor().save_pretrained(folder / "resnet18_lstm")
    faces.save_pretrained(folder / "beit")
    EngagementImageProcessor().save_pretrained(folder / "beit")
    return [folder / "resnet18_lstm", folder / "beit"]


def _draw_clip(path: Path) -> Path:
    """A drawn person for ten seconds, 640x480, 30 frames per second."""
    levels = AffectLevels(boredom=0, engagement=3, confusion=0, frustration=0)
    poses = engagement_trajectory(levels, "appearance", 10.0, 30, np.random.default_rng(0))
    frames = (draw_frame(draw_subject(0), pose, noise_seed=number) for number, pose in enumerate(poses))
    encode_video(path, frames, fps=30, width_px=640, height_px=480, container_format="mp4")
    return path
