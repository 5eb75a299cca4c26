"""The cost of a training step: memory layout and precision, loading, stored features, a busy machine.

`python -m engagement_recognition.studies.training_speed --threads 1` prints JSON: milliseconds, and ratios of ways that
were timed in turn within this run; with one thread, milliseconds of CPU time, independent of other programs. `--busy`
starts a process that computes all the time, and times a step next to it with all threads and with one less. Faces are
drawn; models are untrained.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import cv2
import numpy as np
import torch
from datasets import Dataset

from ..data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from ..data.preparation.picture_codec import encode_jpeg
from ..modeling_engagement import EngagementForVideoClassification
from ..processor.video_processing_engagement import EngagementVideoProcessor
from ..training.augmentation import Augmentation
from ..training.frozen_features import FeatureCollator, FeatureRows, KeptFeatures
from ..training.machine import has_fast_bf16
from ..training.training_sets import FrameCollator, LabelledFrames
from .warm_speed import time_in_turn

_AUGMENTATION = Augmentation(
    flip=0.5, rotation_deg=6, shift=0.05, zoom=0.08, brightness=0.2, contrast=0.2
)  # the demo's
Step = Callable[[], object]


def measure(encoder: str, crop_px: int, image_px: int, num_clips: int, rounds: int) -> dict[str, float]:
    """Milliseconds per step with this number of clips of eight frames, for each way, and ratios of the ways."""
    rows = _draw_rows(num_clips, crop_px)
    size = {"height": image_px, "width": image_px}
    processor = EngagementVideoProcessor(size=size, face_crop_size_px=crop_px)
    augmented = FrameCollator(processor, False, _AUGMENTATION)
    numbers = list(range(num_clips))
    batch = augmented(rows.__getitems__(numbers))
    ways: dict[str, Step] = {"load": lambda: augmented(rows.__getitems__(numbers))}
    for name, layout, is_bf16 in (
        ("contiguous", torch.contiguous_format, False),
        ("channels_last", torch.channels_last, False),
        ("bf16", torch.channels_last, True),
    ):
        if not is_bf16 or has_fast_bf16():
            ways[name] = _step_of(_model(encoder, image_px).to(memory_format=layout), batch, is_bf16)  # type: ignore[call-arg] # transformers' wrapper loses `self`
    frozen = _model(encoder, image_px).to(memory_format=torch.channels_last)  # type: ignore[call-arg] # as above
    frozen.encoder.requires_grad_(False)
    plain = FrameCollator(processor, False)
    ways["frozen"] = lambda: _step_of(frozen, plain(rows.__getitems__(numbers)), False)()
    kept = _model(encoder, image_px)
    features = np.zeros((num_clips * 8, kept.encoder.feature_size, 1, 1), np.float32)
    kept_rows = FeatureRows(rows, features, [list(range(8 * row, 8 * row + 8)) for row in numbers])
    kept.encoder = KeptFeatures(kept.encoder)  # type: ignore[assignment] # it has what the heads need of an encoder
    optimizer = torch.optim.AdamW(kept.parameters())
    ways["kept"] = lambda: _take_step(
        kept, FeatureCollator(processor, False)(kept_rows.__getitems__(numbers)), optimizer
    )
    found = time_in_turn(ways, rounds, time.process_time if torch.get_num_threads() == 1 else time.perf_counter)
    fastest = min(found[name] for name in ("contiguous", "channels_last", "bf16") if name in found)
    ratios = {f"{name}_ratio": found["contiguous"] / found[name] for name in ("channels_last", "bf16") if name in found}
    ratios["loading_share"] = found["load"] / (found["load"] + fastest)
    ratios["kept_ratio"] = found["frozen"] / found["kept"]
    return {f"{name}_ms": value for name, value in found.items()} | ratios


def measure_beside_a_busy_process(encoder: str, image_px: int, num_clips: int, rounds: int) -> dict[str, float]:
    """Milliseconds per step with all threads and with one less, in turn, while another process occupies a core."""
    threads = torch.get_num_threads()
    frames = torch.randn(num_clips, 8, 3, image_px, image_px)
    batch = {"pixel_values": frames, "labels": torch.zeros(num_clips, dtype=torch.long)}
    step = _step_of(_model(encoder, image_px).to(memory_format=torch.channels_last), batch, has_fast_bf16())  # type: ignore[call-arg] # as above

    def with_threads(number: int) -> None:
        torch.set_num_threads(number)
        step()

    try:
        with _busy_process():
            found = time_in_turn(
                {"all": partial(with_threads, threads), "free": partial(with_threads, threads - 1)}, rounds
            )
    finally:
        torch.set_num_threads(threads)
    return {"all_threads_ms": found["all"], "free_cores_ms": found["free"], "ratio": found["all"] / found["free"]}


@contextmanager
def _busy_process() -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=_compute_for_ever, daemon=True)
    process.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.join()


def _compute_for_ever() -> None:
    while True:
        pass


def _model(encoder: str, image_px: int) -> EngagementForVideoClassification:
    torch.manual_seed(0)
    return EngagementForVideoClassification.from_encoder(encoder, image_size=image_px).train()


def _step_of(model: EngagementForVideoClassification, batch: Mapping[str, torch.Tensor], is_bf16: bool) -> Step:
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    return partial(_take_step, model, batch, optimizer, is_bf16)


def _take_step(
    model: EngagementForVideoClassification, batch: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer,
    is_bf16: bool = False,
) -> None:  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16) if is_bf16 else nullcontext():
        logits = model(batch["pixel_values"]).logits
    torch.nn.functional.cross_entropy(logits.float(), batch["labels"]).backward()
    optimizer.step()
    optimizer.zero_grad()


def _draw_rows(num_clips: int, crop_px: int) -> LabelledFrames:
    levels = AffectLevels(boredom=0, engagement=3, confusion=0, frustration=0)
    poses = list(engagement_trajectory(levels, "appearance", 8.0, 1, np.random.default_rng(0)))
    clips = [
        [
            encode_jpeg(cv2.resize(draw_frame(draw_subject(person), pose, noise_seed=0), (crop_px, crop_px)))
            for pose in poses
        ]
        for person in range(num_clips)
    ]
    keys = [(str(clip), 0) for clip in range(num_clips)]
    return LabelledFrames(Dataset.from_dict({"frames": clips}), keys, [None] * num_clips, [0] * num_clips, False)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads torch may use")
    parser.add_argument("--rounds", type=int, default=5, help="number of times that each way is timed, in turn")
    parser.add_argument("--clips", type=int, default=8, help="clips per batch, eight frames each")
    parser.add_argument(
        "--busy", action="store_true", help="also time it while another process occupies a core; needs two threads"
    )
    options = parser.parse_args(argv)
    if min(options.threads - options.busy, options.rounds, options.clips) < 1:
        parser.error("--threads, --rounds and --clips must be at least 1, and --threads at least 2 with --busy")
    torch.set_num_threads(options.threads)
    resnet, demo = ("resnet18", 224, 224), ("face_vgg8_050", 96, 48)
    found: dict[str, object] = {"threads": options.threads, "has_fast_bf16": has_fast_bf16()}
    for name, (encoder, crop_px, image_px) in {"resnet18_224": resnet, "demo": demo}.items():
        found[name] = _rounded(measure(encoder, crop_px, image_px, options.clips, options.rounds))
    if options.busy:
        found["beside_a_busy_process"] = _rounded(
            measure_beside_a_busy_process(demo[0], demo[2], options.clips, options.rounds)
        )
    print(json.dumps(found, indent=2))
    return 0


def _rounded(found: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4 if name.endswith("share") else 2) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
