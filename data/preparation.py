"""Labelled videos → a cache of face clips: decoded, cropped by the one processor, stored as JPEG bytes in Arrow.

Work is cut into parts of a few clips; each finished part is a file, so that a run that was killed goes on where it
was and ends with the same result. A clip that cannot be used is a row in `rejects.csv` with stage and reason, and
inputs = outputs + rejects always holds. The folder's name carries a fingerprint of the clips and the settings.
"""

import csv
import hashlib
import io
import json
import multiprocessing
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, disable_progress_bars, load_from_disk
from datasets import List as Repeated
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..processor.input_errors import DataError, EngagementInputError, NoFaceError
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .schema import AFFECTS, SPLITS, ClipRecord

CACHE_VERSION = 1
CLIPS_PER_PART = 16
JPEG_QUALITY = 95  # 0.12 MiB for 8 crops of 224, against 0.96 as gzipped arrays
# Settings that change the stored crops. Size, mean and deviation apply after the cache and are not among them.
CROP_SETTINGS = ("num_frames", "sampling", "face_crop", "face_margin_ratio", "face_crop_size_px")
FEATURES = Features(
    {
        "frames": Repeated(Value("binary")),
        "clip_id": Value("string"),
        "window_index": Value("int32"),
        "subject_id": Value("string"),
        "split": Value("string"),
        "source_path": Value("string"),
        **{affect: Value("int8") for affect in AFFECTS},
        "frame_times_sec": Repeated(Value("float64")),
        "found": Repeated(Value("bool")),
        "boxes_xyxy_px": Repeated(Repeated(Value("float32"))),
        "landmarks_xy_px": Repeated(Repeated(Repeated(Value("float32")))),
        "transforms": Repeated(Repeated(Repeated(Value("float64")))),
    }
)


@dataclass(frozen=True)
class PreparedData:
    """A finished cache: its splits, what was left out and why, and what identifies it."""

    splits: DatasetDict
    rejects: list[dict[str, str]]
    fingerprint: str
    folder: Path


def prepare_clips(
    clips: Sequence[ClipRecord], processor: EngagementVideoProcessor, cache_dir: Path, num_processes: int = 2
) -> PreparedData:
    """Decode, crop and store all clips, or find them done; progress and time left are shown.

    Raises:
        DataError: there is no clip to prepare, or not one of them came out.
    """
    if not clips:
        raise DataError("Expected at least one clip with a label and a video, got none.")
    settings = {name: getattr(processor, name) for name in CROP_SETTINGS}
    fingerprint = fingerprint_of(clips, settings)
    folder = cache_dir / f"clips-{fingerprint[:12]}"
    if not (folder / "dataset.json").is_file():
        _prepare_parts(clips, settings, folder / "parts", num_processes)
        _join_parts(len(clips), settings, fingerprint, folder)
    with (folder / "rejects.csv").open(encoding="utf-8", newline="") as file:
        rejects = list(csv.DictReader(file))
    return PreparedData(load_from_disk(str(folder / "arrow")), rejects, fingerprint, folder)


def fingerprint_of(clips: Iterable[ClipRecord], settings: dict[str, object]) -> str:
    """Changes with any clip (id, label, split, size of its file), any setting and the cache's version."""
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, settings], sort_keys=True).encode())
    for clip in clips:
        row = {**asdict(clip), "source_path": Path(clip.source_path).name, "bytes": _size_bytes(clip.source_path)}
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def _size_bytes(path: str) -> int:
    return Path(path).stat().st_size if Path(path).is_file() else -1


def _prepare_parts(clips: Sequence[ClipRecord], settings: dict[str, object], parts: Path, num_processes: int) -> None:
    parts.mkdir(parents=True, exist_ok=True)
    chunks = {start: clips[start : start + CLIPS_PER_PART] for start in range(0, len(clips), CLIPS_PER_PART)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    spawn = multiprocessing.get_context("spawn")  # a forked torch can hang
    with Progress(*columns) as progress, ProcessPoolExecutor(num_processes, mp_context=spawn) as pool:
        bar = progress.add_task("preparing clips", total=len(clips))
        todo = {}
        for start, chunk in chunks.items():
            if (parts / f"{start:08}.parquet").is_file():
                progress.advance(bar, len(chunk))
            else:
                todo[pool.submit(_prepare_part, chunk, settings, parts, start)] = len(chunk)
        for done in as_completed(todo):
            done.result()
            progress.advance(bar, todo[done])


def _prepare_part(chunk: Sequence[ClipRecord], settings: dict[str, object], parts: Path, start: int) -> None:
    torch.set_num_threads(1)  # one thread in each of several processes is fastest
    processor = EngagementVideoProcessor(**settings)
    rows, rejects = [], []
    for clip in chunk:
        try:
            rows.append(_to_row(clip, processor))
        except EngagementInputError as error:
            stage = "face" if isinstance(error, NoFaceError) else "decode"
            rejects.append({"path": clip.source_path, "clip_id": clip.clip_id, "stage": stage, "reason": str(error)})
    (parts / f"{start:08}.rejects.json").write_text(json.dumps(rejects), encoding="utf-8")
    disable_progress_bars()
    # The table's name appears last and at once: a killed run leaves no part that looks whole.
    unfinished = parts / f"{start:08}.partial"
    # By column, since all clips of a part may have been rejected.
    columns = {name: [row[name] for row in rows] for name in FEATURES}
    pyarrow.parquet.write_table(Dataset.from_dict(columns, features=FEATURES).data.table, unfinished)
    unfinished.rename(parts / f"{start:08}.parquet")


def _to_row(clip: ClipRecord, processor: EngagementVideoProcessor) -> dict[str, object]:
    prepared = processor.prepare_clip(
        clip.source_path, clip_start_sec=clip.clip_start_sec, clip_end_sec=clip.clip_end_sec
    )
    return {
        "frames": [encode_jpeg(frame) for frame in prepared.frames],
        "clip_id": clip.clip_id,
        "window_index": 0,
        "subject_id": clip.subject_id,
        "split": clip.split,
        "source_path": clip.source_path,
        **{affect: clip.affects.get(affect) for affect in AFFECTS},
        "frame_times_sec": prepared.frame_times_sec.tolist(),
        "found": _listed(prepared.found),
        "boxes_xyxy_px": _listed(prepared.boxes_xyxy_px),
        "landmarks_xy_px": _listed(prepared.landmarks_xy_px),
        "transforms": _listed(prepared.transforms),
    }


def _listed(array: np.ndarray | None) -> list | None:
    return None if array is None else array.tolist()


def encode_jpeg(frame: np.ndarray) -> bytes:
    """(height, width, 3) uint8 RGB → JPEG bytes, colour at full resolution."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def decode_picture(content: bytes) -> np.ndarray:
    """Encoded bytes → (height, width, 3) uint8 RGB."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _join_parts(num_clips: int, settings: dict[str, object], fingerprint: str, folder: Path) -> None:
    parts = folder / "parts"
    # A table without rows, of a part whose clips were all rejected, cannot be loaded.
    filled = [path for path in sorted(parts.glob("*.parquet")) if pyarrow.parquet.read_metadata(path).num_rows]
    rejects = [row for path in sorted(parts.glob("*.rejects.json")) for row in json.loads(path.read_text("utf-8"))]
    if not filled:
        raise DataError(f"Expected usable clips, all {num_clips} were rejected; the first: {rejects[0]['reason']}")
    # Cached beside the parts, which go when all is done, and not in the user's home.
    load = partial(Dataset.from_parquet, features=FEATURES, cache_dir=str(parts / "loaded"))
    whole = concatenate_datasets([load(str(path)) for path in filled])
    if len(whole) + len(rejects) != num_clips:
        raise DataError(
            f"Expected {num_clips} clips, got {len(whole)} prepared and {len(rejects)} rejected in {folder}; "
            "delete that folder and prepare again."
        )
    split_column = np.asarray(whole["split"])
    splits = DatasetDict({split: whole.select(np.flatnonzero(split_column == split)) for split in SPLITS})
    splits.save_to_disk(str(folder / "arrow"))
    _write_rejects(rejects, folder / "rejects.csv")
    counts = {split: len(rows) for split, rows in splits.items()}
    description = {"version": CACHE_VERSION, "fingerprint": fingerprint, "settings": settings, "inputs": num_clips}
    description |= {"outputs": len(whole), "rejects": len(rejects), "clips": counts}
    # Written last: a folder without it is unfinished.
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(parts)


def _write_rejects(rejects: list[dict[str, str]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "clip_id", "stage", "reason"])
        writer.writeheader()
        writer.writerows(rejects)
