"""Counts over all rows of a data set, in batches: pictures are not read, and a data set may be larger than memory."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from datasets import Dataset

from ..schema import AFFECTS, SPLITS
from .description import SplitCounts

BATCH = 10_000  # rows
_IDENTITY = ("split", "clip_id", "window_index", "subject_id", "label", *AFFECTS, "frames_sha256")
LABELS = ("label", *AFFECTS)


def _batches(rows: Dataset, names: Iterable[str]) -> Iterator[Mapping[str, Sequence[object]]]:
    """These columns only, by name, in batches of some thousand rows."""
    yield from rows.select_columns(list(names)).iter(BATCH)


def current_fingerprint(splits: Mapping[str, Dataset]) -> str:
    """Changes with any pixel, label, person, split or order, but not with the pictures' file format."""
    digest = hashlib.sha256()
    for split in (name for name in SPLITS if name in splits):
        for batch in _batches(splits[split], (*_IDENTITY, "label_scores")):
            rows = zip(*(batch[name] for name in _IDENTITY), strict=True)
            for row, scores in zip(rows, batch["label_scores"], strict=True):
                digest.update(json.dumps(row).encode())
                if scores is not None:  # data without any keeps its fingerprint from version 2
                    digest.update(json.dumps(scores).encode())
    return digest.hexdigest()


def count_rows(rows: Dataset) -> SplitCounts:
    """Count the rows of one split."""
    counted = {name: Counter[str]() for name in (*LABELS, "clip_id", "subject_id")}
    for batch in _batches(rows, counted):
        for name, counts in counted.items():
            counts.update(str(value) for value in batch[name] if value is not None)
    clips, subjects = len(counted.pop("clip_id")), len(counted.pop("subject_id"))
    labels = {name: dict(sorted(counts.items())) for name, counts in counted.items() if counts}
    return SplitCounts(clips=clips, windows=len(rows), subjects=subjects, **labels)


def clips_of(rows: Dataset) -> set[str]:
    """The ids of the clips in these rows."""
    return {str(name) for batch in _batches(rows, ["clip_id"]) for name in batch["clip_id"]}


def people_of(rows: Dataset) -> set[str]:
    """The known people in these rows."""
    return {str(name) for batch in _batches(rows, ["subject_id"]) for name in batch["subject_id"] if name is not None}


def repeated_window(rows: Dataset) -> tuple[str, int] | None:
    """Clip id and window number that occur twice; None: each occurs once."""
    alike = _alike(rows, ("clip_id", "window_index"), lambda clip_id, window: f"{window} {clip_id}")
    known = rows.select_columns(["clip_id", "window_index"]).select(alike)
    counts = Counter(zip(known["clip_id"][:], known["window_index"][:], strict=True))
    return next((key for key, count in counts.items() if count > 1), None)


def conflicting_rows(rows: Dataset) -> list[list[int]]:
    """Groups of rows with identical pixels and more than one label."""
    alike = _alike(rows, ["frames_sha256"], str)
    known = rows.select_columns(["frames_sha256", *LABELS]).select(alike)
    groups: dict[str, list[tuple[int, tuple[object, ...]]]] = defaultdict(list)
    labels = zip(*(known[name][:] for name in LABELS), strict=True)
    for row, pixels, label in zip(alike.tolist(), known["frames_sha256"][:], labels, strict=True):
        groups[pixels].append((row, label))
    return [[row for row, _ in group] for group in groups.values() if len({label for _, label in group}) > 1]


def _alike(rows: Dataset, names: Sequence[str], to_key: Callable[..., str]) -> np.ndarray:
    """Rows that may share their key with another row, ascending; compared by eight bytes of a hash to save memory."""
    keys = (
        to_key(*values)
        for batch in _batches(rows, names)
        for values in zip(*(batch[name] for name in names), strict=True)
    )
    hashes = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    short = np.fromiter((int.from_bytes(digest, "little") for digest in hashes), np.uint64, len(rows))
    _, which, counts = np.unique(short, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[which] > 1)
