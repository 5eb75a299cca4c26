"""`engagement benchmark`: every speed that docs/performance.md quotes, in one run, each way in turn.

Each part stands in a module of its own; one that cannot be measured here says why, and the others go on.
"""

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import BeitConfig, PreTrainedConfig, TimmWrapperConfig

from ..configuration_engagement import EngagementConfig
from ..data.drawn.datasets import encode_video
from ..data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from ..data.required_packages import installed_version
from ..modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import EngagementInputError, RecipeError, in_one_line
from ..processor.video_decoding import decode_video
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .cold_speed import measure_cold
from .plain_way import decode_plainly
from .speed_record import Ratio, SpeedRecord
from .warm_speed import measure_warm, time_in_turn

PARTS = ("warm", "cold", "batches", "faces", "training")
_Part = TypeVar("_Part")


def run_benchmark(
    video: Path | None, models: Sequence[str], num_rounds: int, num_threads: int, parts: Sequence[str] = PARTS
) -> SpeedRecord:
    """
    Args:
        video: None: ten seconds are drawn.
        models: folders; none: ResNet-18 + LSTM and BEiT-base of single faces, untrained.
        parts: of `PARTS`.

    Raises:
        RecipeError: no such part.
        EngagementInputError: the video or a model cannot be read.
    """
    if unknown := sorted({*parts} - {*PARTS}):
        raise RecipeError(f"Expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}.")
    not_measured: dict[str, str] = {}

    def measure(part: str, work: Callable[[], _Part], nothing: _Part) -> _Part:
        if part not in parts:
            return nothing
        try:
            return work()
        except EngagementInputError as error:
            not_measured[part] = in_one_line(error)
            return nothing

    with torch_threads(num_threads), tempfile.TemporaryDirectory() as folder:
        source = video or draw_clip(Path(folder) / "drawn.mp4")
        names = list(models) or _write_untrained(Path(folder))
        decode, identical = _decoding(source, num_rounds)
        return SpeedRecord(
            version=1,
            environment=_environment(num_threads),
            video=source.name,
            rounds=num_rounds,
            threads=num_threads,
            decode=decode,
            frames_identical=identical,
            warm=measure("warm", lambda: [measure_warm(name, source, num_rounds) for name in names], []),
            cold=measure("cold", lambda: measure_cold(source, names[0], Path(folder), num_rounds), []),
            batches=[],
            faces=[],
            training=[],
            loading_share=None,
            not_measured=not_measured,
        )


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decoding(source: Path, num_rounds: int) -> tuple[Ratio, bool]:
    num_frames = EngagementVideoProcessor.num_frames
    plain, ours = (lambda: decode_plainly(source, num_frames)), (lambda: decode_video(source, num_frames).frames)
    times = time_in_turn({"plain": plain, "ours": ours}, num_rounds, time.process_time)
    ratio = Ratio(
        name="decode 8 frames: all to RGB, or those that are wanted (CPU time)", before_ms=times["plain"],
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


def _write_untrained(folder: Path) -> list[str]:
    """Folders of the two models that the figures are quoted of."""
    torch.manual_seed(0)
    resnet: PreTrainedConfig = TimmWrapperConfig(architecture="resnet18")
    clips = EngagementForVideoClassification(EngagementConfig(encoder_config=resnet, image_size=224, num_labels=2))
    faces = EngagementForImageClassification(
        EngagementConfig(encoder_config=BeitConfig(), image_size=224, num_frames=8, num_labels=2)
    )
    clips.save_pretrained(folder / "resnet18_lstm")
    EngagementVideoProcessor().save_pretrained(folder / "resnet18_lstm")
    faces.save_pretrained(folder / "beit")
    EngagementImageProcessor().save_pretrained(folder / "beit")
    return [str(folder / "resnet18_lstm"), str(folder / "beit")]


def draw_clip(path: Path) -> Path:
    """A drawn person for ten seconds, 640x480, 30 frames a second."""
    levels = AffectLevels(boredom=0, engagement=3, confusion=0, frustration=0)
    poses = engagement_trajectory(levels, "appearance", 10.0, 30, np.random.default_rng(0))
    frames = (draw_frame(draw_subject(0), pose, noise_seed=number) for number, pose in enumerate(poses))
    encode_video(path, frames, fps=30, width_px=640, height_px=480, container_format="mp4")
    return path
