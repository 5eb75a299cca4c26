"""The cost of reading files in a separate process, and of the heaviest files.

`python -m engagement_recognition.studies.reader_cost` predicts 100 drawn clips with the reader in this process and in a
separate one, in turn, and prints the times and their ratio. `--heavy` makes ten very large files, predicts each in a
new process, and prints seconds and the peak memory of the process and its reader together.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
import psutil
from PIL import Image

from ..data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from ..inference.many_files import predict_many, read_bounded, read_here
from ..inference.predictor import Predictor
from ..inference.shipped_model import shipped_expression_model

_MEGABYTE = 1 << 20
_PREDICT = "from engagement_recognition.cli.main import main; main()"


class Cost(NamedTuple):
    """Time and memory for one file."""

    name: str
    seconds: float
    megabytes: float  # peak
    said: str


def compare_readers(folder: Path, num_clips: int, num_rounds: int) -> tuple[list[float], list[float]]:
    """Seconds for all clips, read in this process and in a separate one, (num_rounds,) each, in turn."""
    clips = [_write_film(folder / f"{number}.mp4", number, 640, 480, 25, 100) for number in range(min(num_clips, 10))]
    paths = [clips[number % len(clips)] for number in range(num_clips)]
    predictor = Predictor.from_pretrained(str(shipped_expression_model()), device="cpu").speed_up()
    here, bounded = [], []
    list(predict_many(predictor, clips[:1]))
    for _ in range(num_rounds):
        here.append(
            _seconds(lambda: list(predict_many(predictor, paths, reader=lambda all: read_here(predictor, all))))
        )
        bounded.append(
            _seconds(lambda: list(predict_many(predictor, paths, reader=lambda all: read_bounded(predictor, all))))
        )
    return here, bounded


def measure_heavy(folder: Path) -> list[Cost]:
    """Ten files with the model of this package, each in a new process."""
    makers: dict[str, Callable[[Path], object]] = {
        "8192x4320.mp4": lambda path: _write_film(path, 1, 8192, 4320, 5, 8),
        "8192x4320_hevc.mp4": lambda path: _write_film(path, 1, 8192, 4320, 5, 8, "libx265"),
        "4096x2160_10bit.mp4": lambda path: _write_film(path, 1, 4096, 2160, 25, 24, "libx265", "yuv420p10le"),
        "3840x2160.webm": lambda path: _write_film(path, 1, 3840, 2160, 25, 16, "libvpx-vp9"),
        "three_hours.mp4": lambda path: _write_film(path, 1, 160, 120, 2, 21_600),
        "13000x13000.png": lambda path: _write_picture(path, 13_000),
        "13000x13000.jpg": lambda path: _write_picture(path, 13_000),
        "13000x13000.tif": lambda path: _write_picture(path, 13_000),
        "13000x13000.webp": lambda path: _write_picture(path, 13_000),
        "boxes.mp4": lambda path: path.write_bytes(b"\0\0\0\x08free" * (10 * _MEGABYTE // 8)),
    }
    costs = []
    for name, make in makers.items():
        path = folder / name
        make(path)
        costs.append(_measure(path))
        path.unlink()
    return costs


def _measure(path: Path) -> Cost:
    began, most = time.perf_counter(), 0.0
    with subprocess.Popen(
        [sys.executable, "-c", _PREDICT, "predict", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        whole = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):  # a process has just ended
                most = max(most, sum(one.memory_info().rss for one in (whole, *whole.children(recursive=True))))
            time.sleep(0.02)
        assert process.stdout is not None
        lines = [line for line in process.stdout.read().splitlines() if path.name in line or "note:" in line]
    return Cost(path.name, time.perf_counter() - began, most / _MEGABYTE, " ".join(lines[-2:])[:160])


def _write_film(
    path: Path, person: int, width_px: int, height_px: int, fps: int, num_frames: int, codec: str = "libx264",
    pixels: str = "yuv420p",
) -> Path:  # fmt: skip
    """A drawn person; frames wider than 1280 pixels are drawn smaller and enlarged."""
    poses = engagement_trajectory(AffectLevels(0, 2, 0, 0), "appearance", 2.0, 4, np.random.default_rng(person))
    drawn_px = (min(width_px, 1280), min(width_px, 1280) * height_px // width_px)
    frames = [draw_frame(draw_subject(person), pose, *drawn_px) for pose in poses]
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "cpu-used": "8", "crf": "30"}
        stream = cast("av.VideoStream", container.add_stream(codec, rate=fps, options=options))
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, pixels
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(frames[number * len(frames) // num_frames], format="rgb24")
            frame = frame.reformat(width_px, height_px, pixels)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _write_picture(path: Path, side_px: int) -> None:
    subject = draw_subject(1)
    (pose, *_) = engagement_trajectory(AffectLevels(0, 2, 0, 0), "appearance", 1.0, 4, np.random.default_rng(1))
    picture = Image.fromarray(draw_frame(subject, pose, 1280, 960)).resize((side_px, side_px), Image.Resampling.NEAREST)
    picture.save(path, compress_level=1)  # only PNG uses it


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description="The cost of reading files in a separate process.")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heavy", action="store_true", help="measure the heaviest files instead")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.heavy:
            for cost in measure_heavy(Path(folder)):
                print(f"{cost.seconds:7.1f} s {cost.megabytes:6.0f} MB  {cost.name}: {cost.said}", flush=True)
            return
        here, bounded = compare_readers(Path(folder), options.clips, options.rounds)
    ratios = [there / near for near, there in zip(here, bounded, strict=True)]
    print(f"here {', '.join(f'{one:.2f}' for one in here)} s; separate {', '.join(f'{one:.2f}' for one in bounded)} s")
    print(f"separate / here: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
