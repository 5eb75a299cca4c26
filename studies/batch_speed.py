"""Speed on many clips: `python -m engagement_recognition.studies.batch_speed VIDEOS... --clips 200`

Predicts the clips, repeated until there are that many, with each number of workers and each batch size. Prints one line
of JSON for each: clips per second, and the peak memory of the process and its readers together. Each combination runs
in its own process, which has loaded the model and predicted one clip before the clock starts.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from ..data.worker_processes import usable_cpus
from ..inference.input_files import list_files
from ..inference.many_files import predict_many
from ..inference.predictions import Refusal
from ..inference.predictor import Predictor
from ..inference.shipped_model import shipped_expression_model
from .peak_memory import PeakMemory

_MODULE = "engagement_recognition.studies.batch_speed"


class BatchSpeed(NamedTuple):
    """The result for one combination."""

    workers: int
    batch_size: int
    clips_per_sec: float
    peak_mb: float  # of the processes together
    num_clips: int
    num_refused: int
    engine: str
    device: str
    dtype: str


def measure(predictor: Predictor, files: Sequence[Path], workers: int, batch_size: int) -> BatchSpeed:
    """Predict `files`, in a process that does nothing else."""
    list(predict_many(predictor.speed_up(), files[:1]))
    with PeakMemory() as memory:
        start = time.perf_counter()
        num_refused = sum(isinstance(answer, Refusal) for answer in predict_many(predictor, files))
        seconds = time.perf_counter() - start
    about = predictor.about
    return BatchSpeed(
        workers, batch_size, round(len(files) / seconds, 3), round(memory.peak_bytes / 1e6, 1), len(files), num_refused,
        about["engine"], about["device"], about["dtype"],
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Speed on many clips.")
    parser.add_argument("videos", nargs="+", help="files, folders, patterns")
    parser.add_argument("--clips", type=int, default=200, help="number of clips; the videos are repeated")
    parser.add_argument("--model", default=str(shipped_expression_model()), help="default: the model of this package")
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, min(2, usable_cpus())}))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    for name, default in (("device", "auto"), ("dtype", "auto"), ("engine", "torch")):
        parser.add_argument(f"--{name}", default=default)
    options = parser.parse_args(arguments)
    ways = [(workers, batch_size) for workers in options.workers for batch_size in options.batch_sizes]
    if len(ways) > 1:  # each in its own process, so that memory and caches do not affect the next
        for workers, batch_size in ways:
            chosen = ["--workers", str(workers), "--batch-sizes", str(batch_size)]
            command = [sys.executable, "-m", _MODULE, *(arguments or sys.argv[1:]), *chosen]
            subprocess.run(command, check=True)
        return 0
    ((workers, batch_size),) = ways
    predictor = Predictor.from_pretrained(
        options.model, device=options.device, dtype=options.dtype, engine=options.engine, batch_size=batch_size,
        workers=workers,
    )  # fmt: skip
    files = list(islice(cycle(list_files(options.videos)), options.clips))
    print(json.dumps(measure(predictor, files, workers, batch_size)._asdict()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
