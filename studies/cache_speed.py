"""A prepared data set compared with the storage of the CNN + LSTM study for the same frames, in turn within one run."""

import tempfile
from pathlib import Path
from typing import TypedDict

import h5py
import numpy as np
from datasets import Dataset

from ..data.hub_source import data_name, local_folder
from ..data.preparation.picture_codec import decode_picture
from ..data.preparation.prepared_data import load_prepared
from .warm_speed import time_in_turn


class Hdf5AndOurs(TypedDict):
    """A number for the study's storage, for ours, and their ratio."""

    hdf5_gzip: float
    ours: float
    ratio: float


class CacheJson(TypedDict):
    """The output of `engagement benchmark` for a prepared data set."""

    data: str
    clips: int
    rounds: int
    frames_a_clip: list[int]
    mib_a_clip: Hdf5AndOurs
    ms_a_random_clip: Hdf5AndOurs


def run_cache_benchmark(folder: Path, num_rounds: int, num_clips: int = 200) -> CacheJson:
    """A prepared data set compared with the CNN + LSTM study's storage of the same frames: gzipped arrays in HDF5.

    Returns MiB per clip, median milliseconds to read a random clip, and the ratios study / ours.

    Raises:
        DataError: there is no prepared data set.
    """
    rows = load_prepared(local_folder(folder)).splits["train"].select_columns(["frames", "clip_id"])
    rows = rows.select(range(min(num_clips, len(rows))))
    order = iter(np.random.default_rng(0).integers(len(rows), size=(2, num_rounds + 1)).flatten().tolist())
    with tempfile.TemporaryDirectory() as temporary, h5py.File(Path(temporary) / "frames.h5", "w") as file:
        for row in range(len(rows)):
            file.create_dataset(
                f"sequences/{row}", data=_frames_of(rows, row)[None], compression="gzip", compression_opts=4
            )
        file.flush()
        hdf5_mib = Path(file.filename).stat().st_size / len(rows) / 2**20
        ways = {"theirs": lambda: file[f"sequences/{next(order)}"][0], "ours": lambda: _frames_of(rows, next(order))}
        times = time_in_turn(ways, num_rounds)
        hdf5_ms, our_ms = times["theirs"], times["ours"]
    our_mib = sum(len(frame) for frames in rows["frames"] for frame in frames) / len(rows) / 2**20
    return {
        "data": data_name(folder),
        "clips": len(rows),
        "rounds": num_rounds,
        "frames_a_clip": list(_frames_of(rows, 0).shape),
        "mib_a_clip": {
            "hdf5_gzip": round(hdf5_mib, 3),
            "ours": round(our_mib, 3),
            "ratio": round(hdf5_mib / our_mib, 2),
        },
        "ms_a_random_clip": {"hdf5_gzip": hdf5_ms, "ours": our_ms, "ratio": round(hdf5_ms / our_ms, 2)},
    }


def _frames_of(rows: Dataset, row: int) -> np.ndarray:
    """(num_frames, height, width, 3) uint8 RGB."""
    return np.stack([decode_picture(frame) for frame in rows[row]["frames"]])
