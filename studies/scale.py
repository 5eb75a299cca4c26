"""The cost of many clips: `python -m engagement_recognition.studies.scale VIDEO --output FOLDER`

Measures, each in its own process with one thread: reading a table of many paths, preparing and predicting copies of a
video, joining shards of many rows, and auditing them. Hours, disk space and memory for any number of clips are
extrapolated from these, as long as the rest of the machine keeps up. The measurements are in `scale.json`.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from datasets import Dataset

from ..data.audit.leakage import audit
from ..data.described_data import LabelConflicts
from ..data.json_records import Count, NotNegative, Positive, Record, write_record
from ..data.preparation.description import DATA_VERSION, InputCounts, Provenance
from ..data.preparation.join import join_shards, mark_shard
from ..data.preparation.picture_codec import encode_jpeg
from ..data.preparation.prepare import plan_of, prepare
from ..data.preparation.prepared_data import FEATURES, load_prepared, write_prepared
from ..data.preparation.settings import FrameOptions, settings_for
from ..data.readers.sources import read_source
from ..data.schema import SourceNotes
from ..data.shards import Shard
from ..evaluation.markdown import markdown_table
from ..inference.predictor import Predictor
from ..inference.shipped_model import shipped_expression_model
from .batch_speed import measure as measure_batches
from .peak_memory import PeakMemory

SCALE_FILE = "scale.json"
_MODULE = "engagement_recognition.studies.scale"
_SETTINGS = settings_for("video", FrameOptions())
_SIZES = (10_000, 1_000_000, 10_000_000)
_NIGHT_HOURS = 10


class Cost(Record):
    """The cost of one kind of work, in one process with one thread."""

    items: Count
    """clips, or rows"""
    seconds: Positive
    base_mb: NotNegative
    """memory before the work"""
    peak_mb: Positive
    """peak memory during the work, of the process and its children"""
    disk_bytes: Count = 0
    """size of its output on disk"""

    def hours(self, num_items: int) -> float:
        """Hours for this number of items."""
        return self.seconds / self.items * num_items / 3600

    def memory_gb(self, num_items: int) -> float:
        """Memory for this number of items: the part that grows with them, and the memory before."""
        return (self.base_mb + (self.peak_mb - self.base_mb) / self.items * num_items) / 1000


class ScaleRecord(Record):
    """`scale.json`"""

    version: int
    video: str
    costs: dict[str, Cost]


@contextmanager
def _costs(num_items: int, found: list[Cost], output: Path | None = None) -> Iterator[None]:
    with PeakMemory() as memory:
        time.sleep(0.2)  # so that the memory before is sampled
        base, start = memory.peak_bytes, time.perf_counter()
        yield
        seconds = time.perf_counter() - start
    disk_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) if output else 0
    found.append(
        Cost(
            items=num_items, seconds=seconds, base_mb=base / 1e6, peak_mb=memory.peak_bytes / 1e6, disk_bytes=disk_bytes
        )
    )


def measure_list(video: Path, num_paths: int, folder: Path) -> Cost:
    """Reading a table of clips that all exist, and computing the preparation's plan."""
    table, found = _write_table(video, num_paths, folder), list[Cost]()
    with _costs(num_paths, found):
        plan_of(read_source("videos", table), _SETTINGS, table)
    return found[0]


def measure_preparing(video: Path, num_clips: int, folder: Path) -> Cost:
    """Preparing data: decoding, faces, crops and JPEG."""
    table, output, found = _write_table(video, num_clips, folder), folder / "prepared", list[Cost]()
    source = read_source("videos", table)
    with _costs(num_clips, found, output):
        prepare(source, _SETTINGS, table, output, num_processes=1)
    return found[0]


def measure_predicting(video: Path, num_clips: int, folder: Path) -> Cost:
    """Predicting with the model of this package, PyTorch, one worker, and a reader in a separate process."""
    speed = measure_batches(Predictor.from_pretrained(str(shipped_expression_model())), [video] * num_clips, 1, 1)
    return Cost(items=num_clips, seconds=num_clips / speed.clips_per_sec, base_mb=speed.peak_mb, peak_mb=speed.peak_mb)


def measure_joining(video: Path, num_rows: int, folder: Path) -> Cost:
    """Joining two shards on one disk, whose rows contain little besides their names."""
    found = list[Cost]()
    for shard in (Shard(1, 2), Shard(2, 2)):
        _write_shard(shard, num_rows // 2, shard.folder(folder / "shards"))
    with _costs(num_rows, found):
        join_shards(folder / "shards", folder / "joined")
    return found[0]


def measure_auditing(video: Path, num_rows: int, folder: Path) -> Cost:
    """The audit for leakage on rows without duplicates."""
    found = list[Cost]()
    _write_shard(Shard(1, 1), num_rows, folder / "prepared")
    prepared = load_prepared(folder / "prepared")
    with _costs(num_rows, found):
        audit(prepared)
    return found[0]


_MEASURES: dict[str, tuple[Callable[[Path, int, Path], Cost], int]] = {
    "list": (measure_list, 1_000_000),
    "preparing": (measure_preparing, 100),
    "predicting": (measure_predicting, 100),
    "joining": (measure_joining, 200_000),
    "auditing": (measure_auditing, 20_000),
}


def _write_table(video: Path, num_clips: int, folder: Path) -> Path:
    """A table of clips, all links to one video; each person is in one split."""
    table, splits = folder / "clips.csv", ("train", "validation", "test")
    with table.open("w", encoding="utf-8") as file:
        file.write("path,label,subject_id,split\n")
        for clip in range(num_clips):
            path = Path(f"{clip // 1000:06}", f"{clip:08}{video.suffix}")
            if clip % 1000 == 0:
                (folder / path.parent).mkdir()
            (folder / path).symlink_to(video.absolute())
            label, person = ("disengaged", "engaged")[clip % 2], clip // 10
            file.write(f"{path.as_posix()},{label},person{person},{splits[person % 3]}\n")
    return table


def _write_shard(shard: Shard, num_rows: int, folder: Path) -> None:
    rows, picture = np.arange(num_rows), encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    names = [f"{shard.number}/{row:08}.mp4" for row in rows]
    known: dict[str, list[object]] = {name: [None] * num_rows for name in FEATURES}
    known |= {"clip_id": [*names], "source_path": [*names], "window_index": [0] * num_rows}
    known |= {"frames": [[picture] * 8] * num_rows, "frame_hash": [os.urandom(224).hex() for _ in names]}
    known |= {"frames_sha256": [f"{shard.number}{row:063x}" for row in rows]}
    known |= {"label": np.array(["disengaged", "engaged"])[rows % 2].tolist()}
    known |= {"split": np.array(["train", "validation", "test"])[rows // 10 % 3].tolist()}
    known |= {"subject_id": [f"person{row // 10}" for row in rows]}
    counts = InputCounts(inputs=num_rows, outputs=num_rows, rejects=0)
    about = Provenance(
        version=DATA_VERSION, kind="videos", media="video", source="clips.csv", settings=_SETTINGS, notes=SourceNotes(),
        inputs=num_rows, outputs=num_rows, rejects=0, windows=counts,
        label_conflicts=LabelConflicts(groups=0, pictures=0, dropped=False),
    )  # fmt: skip
    mark_shard(write_prepared(Dataset.from_dict(known, FEATURES), [], about, folder), shard, "made up", False)


def scale_table(record: ScaleRecord) -> str:
    """The extrapolated cost by number of clips, in Markdown."""
    cost, rows = record.costs, []
    for clips in _SIZES:
        preparing, predicting = cost["preparing"].hours(clips), cost["predicting"].hours(clips)
        disk_gb = cost["preparing"].disk_bytes / cost["preparing"].items * clips / 1e9
        rows.append([
            f"{clips:,}", f"{preparing:,.1f}", f"{math.ceil(preparing / _NIGHT_HOURS):,}", f"{disk_gb:,.1f}",
            f"{predicting:,.1f}", f"{cost['list'].hours(clips) * 60:,.1f}", f"{cost['list'].memory_gb(clips):,.1f}",
            f"{cost['joining'].hours(clips) * 60:,.1f}", f"{cost['joining'].memory_gb(clips):,.1f}",
        ])  # fmt: skip
    header = (
        "clips", "preparing, core hours", f"cores for {_NIGHT_HOURS} hours", "prepared, GB", "predicting, core hours",
        "list: minutes", "list: GB of memory", "join: minutes", "join: GB of memory",
    )  # fmt: skip
    return markdown_table(header, rows)


def costs_table(record: ScaleRecord) -> str:
    """The measurements, in Markdown."""
    rows = [
        [name, f"{cost.items:,}", f"{cost.seconds:.1f}", _rate(cost), f"{cost.base_mb:.0f}",
         f"{cost.peak_mb:.0f}", f"{cost.disk_bytes / cost.items / 1000:.0f}" if cost.disk_bytes else ""]
        for name, cost in record.costs.items()
    ]  # fmt: skip
    header = ("work", "items", "seconds", "items per second", "MB at start", "peak MB", "kB per item")
    return markdown_table(header, rows)


def _rate(cost: Cost) -> str:
    """Items per second, to three digits."""
    return f"{float(f'{cost.items / cost.seconds:.3g}'):,g}"


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="The cost of many clips.")
    parser.add_argument("video", type=Path, help="a clip similar to yours")
    parser.add_argument("--output", type=Path, help="a folder for scale.json")
    parser.add_argument("--work", choices=_MEASURES, help="measure only this, and print a line of JSON")
    for name, (_, items) in _MEASURES.items():
        parser.add_argument(f"--{name}", type=int, default=items, help="number of items (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.work:
        measure, _ = _MEASURES[options.work]
        with TemporaryDirectory() as folder:
            print(measure(options.video, getattr(options, options.work), Path(folder)).model_dump_json(), flush=True)
        return 0
    costs = {}
    for work in _MEASURES:
        command = [sys.executable, "-m", _MODULE, *(arguments or sys.argv[1:]), "--work", work]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        costs[work] = Cost.model_validate_json(done.stdout.splitlines()[-1])
        print(f"{work}: {costs[work].model_dump_json()}", flush=True)
    record = ScaleRecord(version=1, video=options.video.name, costs=costs)
    print(f"\n{costs_table(record)}\n\n{scale_table(record)}")
    if options.output:
        write_record(options.output / SCALE_FILE, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
