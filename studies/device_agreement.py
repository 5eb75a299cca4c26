"""Agreement of a device with the CPU: `python -m engagement_recognition.studies.device_agreement --device cuda`

People are drawn, and this package's model and a small clip model with random weights read them on the CPU and on the
device: faces, logits, heat maps, answers, and a training step. Prints a table with the largest differences, and the
time per clip on the CPU, on the device, and on the device in half precision. Exit code 0: all differences within the
limits, 1: not, 2: no such device. It needs no data, and a minute or two.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import TimmWrapperConfig

from ..configuration_engagement import EngagementConfig
from ..data.drawn.datasets import encode_video
from ..data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from ..explanation.heat_maps import explain_clip
from ..inference.devices import choose_device, half_precisions
from ..inference.placement import default_batch_size
from ..inference.predictions import PhotoPrediction, VideoPrediction
from ..inference.predictor import Predictor
from ..inference.shipped_model import shipped_expression_model
from ..modeling_engagement import EngagementForVideoClassification
from ..processor.input_errors import EngagementInputError
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .warm_speed import time_in_turn

_DURATION_SEC, _FPS, _WIDTH_PX, _HEIGHT_PX = 2.0, 4, 320, 240
_LABELS = ("disengaged", "engaged")


@dataclass(frozen=True)
class Trial:
    """How much is compared and timed."""

    num_people: int = 3
    encoder: str = "resnet18"  # of the clip model, by timm's name
    num_repeats: int = 7  # of which the median is reported


class Comparison(NamedTuple):
    """The largest difference of one quantity, and its limit."""

    what: str
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the limit; false for NaN."""
        return self.difference <= self.allowed


class Speed(NamedTuple):
    """Time per clip of one way, warm."""

    way: str
    forward_ms: float  # only the model, with the device's default batch size
    file_to_label_ms: float


class Seen(NamedTuple):
    """One device's results on the drawn people."""

    faces: list[np.ndarray]  # per frame (num_faces, 4 + 10) boxes and landmarks, in pixels
    relative: dict[str, np.ndarray]  # compared as a share of the largest number among the CPU's
    scores: dict[str, np.ndarray]  # (num_answers, num_labels)
    labels: dict[str, list[str | None]]


def compare_with_cpu(device: str, trial: Trial) -> list[Comparison]:
    """All comparisons, including those that do not agree.

    Raises:
        RecipeError: no such device.
    """
    chosen = str(choose_device(device))
    with TemporaryDirectory() as folder:
        clips = _draw_clips(Path(folder), trial.num_people)
        return compare(_look("cpu", clips, trial), _look(chosen, clips, trial))


def compare(cpu: Seen, other: Seen) -> list[Comparison]:
    """Every quantity, the largest difference and what is allowed."""
    found = [
        Comparison("boxes and landmarks, px", max(map(_difference, cpu.faces, other.faces)), 0.5),
        Comparison(
            "answers with a different label", sum(cpu.labels[what] != other.labels[what] for what in cpu.labels), 0
        ),
    ]
    for what, expected in cpu.relative.items():
        # TensorFloat-32, which cuDNN uses by default, keeps ten bits.
        allowed = 3e-2 if "as served" in what else 1e-2 if "heat" in what else 1e-3
        share = _difference(expected, other.relative[what]) / (float(abs(expected).max()) or 1.0)
        found.append(Comparison(f"{what}, of the largest", share, allowed))
    return found + [
        Comparison(what, _difference(expected, other.scores[what]), 1e-2) for what, expected in cpu.scores.items()
    ]


def _difference(expected: np.ndarray, got: np.ndarray) -> float:
    """The largest difference; infinite if the shapes differ, such as numbers of faces; NaN if a number is NaN."""
    if expected.shape != got.shape:
        return float("inf")
    return float(abs(expected - got).max(initial=0.0))


def _draw_clips(folder: Path, num_people: int) -> list[tuple[Path, Path]]:
    """For each person a video, and its first frame as a photo."""
    clips = []
    for number in range(num_people):
        levels = AffectLevels(boredom=3 - number, engagement=number, confusion=0, frustration=0)
        poses = engagement_trajectory(levels, "appearance", _DURATION_SEC, _FPS, np.random.default_rng(number))
        subject = draw_subject(number)
        frames = [draw_frame(subject, pose, _WIDTH_PX, _HEIGHT_PX, noise_seed=at) for at, pose in enumerate(poses)]
        film, photo = folder / f"{number}.mp4", folder / f"{number}.png"
        encode_video(film, iter(frames), _FPS, _WIDTH_PX, _HEIGHT_PX, "mp4")
        Image.fromarray(frames[0]).save(photo)
        clips.append((film, photo))
    return clips


def _look(device: str, clips: list[tuple[Path, Path]], trial: Trial) -> Seen:
    seen = Seen([], {}, {}, {})
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # full precision
        box = Predictor.from_pretrained(str(shipped_expression_model()), device=device, dtype="float32")
        predictors = {"model in the box": box, "clip model": _random_clip_model(device, trial.encoder)}
        for name, predictor in predictors.items():
            for number, (film, photo) in enumerate(clips):
                what = f"{name}, person {number}"
                clip = predictor.video_processor.prepare_clip(film)
                frames = predictor.video_processor.shrink_whole_frames(clip.whole_frames)
                _add_logits(seen, f"logits of the {what}", predictor, frames)
                for source in (film, photo) if predictor is box else (film,):
                    _add_answer(seen, f"scores of the {what}, {source.suffix}", predictor.predict(source))
                if predictor is box:
                    found = predictor.video_processor.detect_faces(clip.whole_frames)
                    seen.faces.extend(
                        np.hstack([faces.boxes_xyxy_px, faces.landmarks_xy_px.reshape(-1, 10)]) for faces in found
                    )
        _add_training(seen, predictors["clip model"])
    noise = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), dtype=np.uint8)
    _add_logits(seen, "as served, logits of the clip model", predictors["clip model"], noise, heat=False)
    return seen


def measure_speeds(device: str, trial: Trial) -> list[Speed]:
    """On the CPU, on the device, and on the device in half precision; with a clip model that needs no data."""
    chosen = choose_device(device)
    halves = half_precisions(chosen) or ("bfloat16",)
    ways = dict.fromkeys([("cpu", "float32"), (str(chosen), "float32"), *((str(chosen), half) for half in halves)])
    with TemporaryDirectory() as folder:
        film = _draw_clips(Path(folder), num_people=1)[0][0]
        return [_measure_speed(place, dtype, film, trial) for place, dtype in ways]


def _measure_speed(device: str, dtype: str, film: Path, trial: Trial) -> Speed:
    predictor = _random_clip_model(device, trial.encoder, dtype).speed_up()
    config, num_clips = predictor.model.config, default_batch_size(device)
    size = (num_clips, config.num_frames, config.num_channels, config.image_size, config.image_size)
    noise = np.random.default_rng(0).normal(size=size).astype(np.float32)
    forward_ms = _median_ms(lambda: predictor.engine.logits(noise), trial.num_repeats) / num_clips
    way = f"{device}, {dtype}, {num_clips} a pass"
    return Speed(way, forward_ms, _median_ms(lambda: predictor.predict(film), trial.num_repeats))


def _median_ms(work: Callable[[], object], num_repeats: int) -> float:
    """`work` must end with numbers on the CPU, so that all of it is timed."""
    return time_in_turn({"work": work}, num_repeats)["work"]


def describe_speeds(speeds: list[Speed]) -> str:
    """A table; a ratio is the speed relative to the first way."""
    first = speeds[0]
    rows = [
        f"{speed.forward_ms:>10.1f}{first.forward_ms / speed.forward_ms:>8.2f}{speed.file_to_label_ms:>15.1f}"
        f"{first.file_to_label_ms / speed.file_to_label_ms:>8.2f}  {speed.way}"
        for speed in speeds
    ]
    return "\n".join(["forward, ms   ratio   to label, ms   ratio  of a clip", *rows])


def _random_clip_model(device: str, encoder: str, dtype: str = "float32") -> Predictor:
    torch.manual_seed(0)
    network = TimmWrapperConfig(architecture=encoder)
    config = EngagementConfig(encoder_config=network, image_size=112, dropout=0.0, initializer_range=0.5)
    config.id2label = dict(enumerate(_LABELS))
    processor = EngagementVideoProcessor(size={"height": 112, "width": 112})
    return Predictor(EngagementForVideoClassification(config), processor, device=device, dtype=dtype)


def _add_logits(seen: Seen, what: str, predictor: Predictor, frames: np.ndarray, heat: bool = True) -> None:
    """Logits and one label's heat map, for frames that are the same on every device."""
    pixel_values = predictor.to_tensor(frames)
    with torch.no_grad():
        rows = pixel_values[None] if predictor.is_video_model else pixel_values
        seen.relative[what] = predictor.model(rows).logits.float().cpu().numpy()
    if heat:
        label = predictor.model.config.label_names[0]
        seen.relative[what.replace("logits", "heat map")] = explain_clip(predictor.model, pixel_values, label).maps


def _add_answer(seen: Seen, what: str, answer: VideoPrediction | PhotoPrediction) -> None:
    answers = answer.faces if isinstance(answer, PhotoPrediction) else [answer]
    seen.scores[what] = np.array([list((one.scores or {}).values()) for one in answers])
    seen.labels[what] = [one.label for one in answers]


def _add_training(seen: Seen, predictor: Predictor) -> None:
    """The loss before and after a training step, on noise."""
    model = predictor.model.train()
    noise = torch.randn((2, 8, 3, 112, 112), generator=torch.Generator().manual_seed(0)).to(predictor.device)
    labels, losses = torch.tensor([0, 1]).to(predictor.device), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        loss = model(pixel_values=noise, labels=labels).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    seen.relative["loss of the clip model before a step of training"] = np.array(losses[:1])
    seen.relative["loss of the clip model after it"] = np.array(losses[1:])


def describe(found: list[Comparison], device: str) -> str:
    """The table, and the verdict below it."""
    rows = [f"{one.difference:>10.2e}{one.allowed:>10.0e}  {'' if one.agrees else 'NO: '}{one.what}" for one in found]
    num_disagreeing = sum(not one.agrees for one in found)
    verdict = "agrees with the CPU" if not num_disagreeing else f"differs from the CPU in {num_disagreeing} of these"
    return "\n".join(["   largest   allowed  difference", *rows, f"{device}, torch {torch.__version__}: {verdict}"])


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Does a device agree with the CPU?")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--people", type=int, default=Trial.num_people, help="drawn people that are compared")
    parser.add_argument("--encoder", default=Trial.encoder, help="of the clip model, by timm's name")
    parser.add_argument("--repeats", type=int, default=Trial.num_repeats, help="of each timing")
    options = parser.parse_args(arguments)
    device, trial = options.device, Trial(options.people, options.encoder, options.repeats)
    try:
        found, speeds = compare_with_cpu(device, trial), measure_speeds(device, trial)
    except EngagementInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe_speeds(speeds), describe(found, str(choose_device(device))), sep="\n\n")
    return 0 if all(one.agrees for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
