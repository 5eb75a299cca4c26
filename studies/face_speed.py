"""Speed and agreement of face detection: `python -m engagement_recognition.studies.face_speed VIDEO...`

Faces in frames of the given videos, and of drawn people who move, enter, leave and cross, are detected in turn in the
old way, by facenet-pytorch's own MTCNN with the settings of `FaceDetector.detect_fast`, and by `FaceDetector`. Prints a
table with milliseconds per frame, their ratio, and the agreement of boxes; `--json` writes it. `--networks` names a
folder written by `conversion.export_detector`, to detect with ONNX Runtime.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import torch
from av.error import FFmpegError
from PIL import Image

from ..data.drawn.faces import FacePose, Person, draw_people, draw_subject
from ..evaluation.markdown import markdown_table
from ..processor.face_detection import FRAMES_PER_BATCH, FaceDetections, FaceDetector
from ..processor.input_errors import EngagementInputError, VideoReadError, in_one_line

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

SAME_FACE_IOU = 0.9
_REPEATS = 3


@dataclass(frozen=True)
class FaceSpeed:
    """The results for one source; ms are CPU time per frame, the minimum of three runs."""

    source: str
    num_frames: int
    num_faces: int  # found in the old way
    ms_before: float
    ms_now: float
    same_count: int  # frames with the same number of faces
    ious: list[float]  # of each face of the old way with the closest in the same frame; 0 if there is none

    @property
    def ratio(self) -> float:
        return self.ms_before / self.ms_now


def detect_the_old_way(frames: np.ndarray) -> list[FaceDetections]:
    """As `FaceDetector().detect_fast`, but only with the library: (num_frames, height, width, 3), uint8 RGB."""
    ours = FaceDetector()
    reduction = max(1, max(frames.shape[1:3]) // ours.fast_long_side_px)
    found = []
    for start in range(0, len(frames), FRAMES_PER_BATCH):
        batch = frames[start : start + FRAMES_PER_BATCH]
        reduced = np.stack([np.asarray(Image.fromarray(frame).reduce(reduction)) for frame in batch])
        with torch.inference_mode():
            answers = _library_s(ours.fast_min_face_size_px).detect(reduced, landmarks=True)
        for boxes, probabilities, landmarks in zip(*answers, strict=True):
            if boxes is None:
                boxes, probabilities, landmarks = np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))
            boxes, probabilities, landmarks = (
                np.asarray(values, np.float32) for values in (boxes, probabilities, landmarks)
            )
            boxes = boxes - np.array([1, 1, 0, 0], np.float32)
            sure = probabilities >= ours.min_probability
            found.append(FaceDetections(boxes[sure] * reduction, probabilities[sure], landmarks[sure] * reduction))
    return found


@cache
def _library_s(min_face_size_px: int) -> "MTCNN":
    from facenet_pytorch import MTCNN

    mtcnn = MTCNN(keep_all=True, min_face_size=min_face_size_px).eval()
    mtcnn.rnet, mtcnn.onet = _FewBatchSizes(mtcnn.rnet), _FewBatchSizes(mtcnn.onet)
    return mtcnn


class _FewBatchSizes(torch.nn.Module):
    """Pads a batch of candidates to one of a few sizes, since oneDNN compiles kernels for each size."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, candidates: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = len(candidates)
        missing = -count % (8 if count <= 64 else 64)
        filled = torch.cat([candidates, candidates.new_zeros(missing, *candidates.shape[1:])])
        return tuple(answer[:count] for answer in self.network(filled))


def compare(source: str, frames: np.ndarray, detector: FaceDetector) -> FaceSpeed:
    """frames: (num_frames, height, width, 3), uint8 RGB."""
    before, now = detect_the_old_way(frames), detector.detect_fast(frames)  # also warms both up
    seconds = np.array(
        [[_cpu_sec(detect_the_old_way, frames), _cpu_sec(detector.detect_fast, frames)] for _ in range(_REPEATS)]
    )
    ms_before, ms_now = seconds.min(axis=0) * 1000 / len(frames)
    return FaceSpeed(
        source=source,
        num_frames=len(frames),
        num_faces=sum(map(len, before)),
        ms_before=round(float(ms_before), 2),
        ms_now=round(float(ms_now), 2),
        same_count=sum(len(old) == len(new) for old, new in zip(before, now, strict=True)),
        ious=[best_iou(box, new) for old, new in zip(before, now, strict=True) for box in old.boxes_xyxy_px],
    )


def _cpu_sec(look: Callable[[np.ndarray], list[FaceDetections]], frames: np.ndarray) -> float:
    start = time.process_time()
    look(frames)
    return time.process_time() - start


def best_iou(box: np.ndarray, found: FaceDetections) -> float:
    """Of a box with the one found that overlaps it most; 0: none does."""
    others = found.boxes_xyxy_px.astype(np.float64)
    sides = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0)
    shared, areas = sides.prod(axis=1), (others[:, 2:] - others[:, :2]).prod(axis=1)
    return float((shared / (areas + np.prod(box[2:] - box[:2]) - shared)).max(initial=0))


def draw_moving_people(num_frames: int) -> np.ndarray:
    """Four people: one moves, one enters, one leaves, and two of them cross: (num_frames, 360, 640, 3)."""
    subjects = [draw_subject(seed) for seed in (1, 2, 4, 5)]
    frames = []
    for index, part in enumerate(np.linspace(0, 1, num_frames)):
        places = [
            (110 + 30 * np.sin(9 * part), 190 + 10 * np.cos(7 * part)),
            (245, 185 - 400 * max(0, part - 0.5)),
            (-60 + 760 * part, 110),
            (700 - 760 * part, 100),
        ]
        people = [
            Person(subject, FacePose(yaw_deg=20 * np.sin(6 * part + number)), (float(x), float(y)), 60)
            for number, (subject, (x, y)) in enumerate(zip(subjects, places, strict=True))
        ]
        frames.append(draw_people(people[::-1], 640, 360, noise_seed=index))
    return np.stack(frames)


def evenly_spread_frames(video: Path, num_frames: int) -> np.ndarray:
    """(num_frames or fewer, height, width, 3), uint8 RGB.

    Raises:
        VideoReadError: it cannot be decoded.
    """
    try:
        with av.open(str(video)) as container:
            num_there = sum(1 for _ in container.decode(video=0))
            container.seek(0)
            wanted = set(np.linspace(0, num_there - 1, num_frames).round().astype(int).tolist())
            decoded = enumerate(container.decode(video=0))
            return np.stack([frame.to_ndarray(format="rgb24") for at, frame in decoded if at in wanted])
    except (FFmpegError, IndexError, ValueError) as error:
        raise VideoReadError(f"{video} could not be decoded as a video ({in_one_line(error)}).") from error


def describe(speeds: Sequence[FaceSpeed]) -> str:
    """One row per source, and one for all."""
    num_frames = sum(speed.num_frames for speed in speeds)
    whole = FaceSpeed(
        source="all",
        num_frames=num_frames,
        num_faces=sum(speed.num_faces for speed in speeds),
        ms_before=sum(speed.ms_before * speed.num_frames for speed in speeds) / num_frames,
        ms_now=sum(speed.ms_now * speed.num_frames for speed in speeds) / num_frames,
        same_count=sum(speed.same_count for speed in speeds),
        ious=[iou for speed in speeds for iou in speed.ious],
    )
    header = [
        "source",
        "frames",
        "faces",
        "ms before",
        "ms now",
        "ratio",
        "IoU worst",
        "median",
        f">= {SAME_FACE_IOU}",
        "same count",
    ]
    return markdown_table(header, [_row(speed) for speed in (*speeds, whole)])


def _row(speed: FaceSpeed) -> list[str]:
    ious = np.array(speed.ious)
    overlap = (
        [f"{ious.min():.4f}", f"{np.median(ious):.4f}", f"{(ious >= SAME_FACE_IOU).mean():.1%}"]
        if len(ious)
        else ["–"] * 3
    )
    times = [f"{speed.ms_before:.2f}", f"{speed.ms_now:.2f}", f"{speed.ratio:.2f}"]
    return [
        speed.source, str(speed.num_frames), str(speed.num_faces), *times, *overlap,
        f"{speed.same_count / speed.num_frames:.1%}",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--frames", type=int, default=32, help="frames per video (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (%(default)s)")
    parser.add_argument("--networks", type=Path, help="a folder of the networks as ONNX files")
    parser.add_argument("--json", type=Path, help="file for the results as JSON")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        detector = FaceDetector(networks=given.networks)
        speeds = [compare("drawn people", draw_moving_people(given.frames), detector)]
        for video in given.videos:
            speeds.append(compare(video.name, evenly_spread_frames(video, given.frames), detector))
    except EngagementInputError as error:
        sys.exit(str(error))
    print(describe(speeds))
    if given.json:
        rows = [{**asdict(speed), "ratio": round(speed.ratio, 2)} for speed in speeds]
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
