"""Pictures of one split that also occur, exactly or nearly, in another split, and the rows to leave out therefore.

Near-identical: at most 24 of 256 hash bits differ, and the pictures' thumbnails (24x24, grey, each about its own mean)
by at most 3 of 255 grey levels on average. Of FER2013's test pictures with a training picture within 2.5 levels this
finds all, and three more that are within 3.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..preparation.picture_hashes import grey_distances, grey_thumbnail
from ..schema import SPLITS
from .rows import AuditRows

DUPLICATE_LEVELS = 3.0
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class Duplicate:
    """A row and its nearest duplicate in an earlier split; the order is train, validation, test."""

    row: int
    other: int
    distance_bits: int
    identical: bool  # in the pixels of every frame


def find_duplicates(rows: AuditRows, candidates: np.ndarray) -> tuple[Duplicate, ...]:
    """One for each row and each earlier split that contains a duplicate of it, ordered by row.

    Args:
        candidates: (pairs, 3) row, other row (in an earlier split), number of hash bits that differ.
    """
    nearest = {(item.row, rows.split[item.other]): item for item in _confirmed(rows, candidates)}
    nearest |= {(item.row, rows.split[item.other]): item for item in _identical(rows)}
    return tuple(sorted(nearest.values(), key=lambda item: (item.row, item.other)))


def _identical(rows: AuditRows) -> Iterable[Duplicate]:
    first: dict[tuple[str, str], int] = {}
    for row, pixels in enumerate(rows.frames_sha256):
        for split in SPLITS[: SPLITS.index(rows.split[row])]:
            if (pixels, split) in first:
                yield Duplicate(row, first[pixels, split], 0, True)
        first.setdefault((pixels, str(rows.split[row])), row)


def _confirmed(rows: AuditRows, candidates: np.ndarray) -> list[Duplicate]:
    """Candidates whose pixels agree; a row's nearest comes last, so that a dict keeps that one."""
    wanted = np.unique(candidates[:, :2])
    place = {int(row): number for number, row in enumerate(wanted)}
    thumbnails = np.array([grey_thumbnail(rows.picture(row)) for row in wanted])
    found = []
    for start in range(0, len(candidates), _PAIRS_AT_ONCE):
        part = candidates[start : start + _PAIRS_AT_ONCE]
        first, second = (thumbnails[[place[int(row)] for row in part[:, side]]] for side in (0, 1))
        for row, other, bits in part[grey_distances(first, second) <= DUPLICATE_LEVELS].tolist():
            found.append(Duplicate(row, other, bits, rows.frames_sha256[row] == rows.frames_sha256[other]))
    return sorted(found, key=lambda item: -item.distance_bits)


def count_by_splits(rows: AuditRows, duplicates: Iterable[Duplicate]) -> dict[str, dict[str, int]]:
    """`{"test in train": {"identical": 3, "near-identical": 5}, ...}`, counted in rows of the later split."""
    counts: dict[str, Counter[str]] = {}
    for item in duplicates:
        kind = "identical" if item.identical else "near-identical"
        counts.setdefault(f"{rows.split[item.row]} in {rows.split[item.other]}", Counter())[kind] += 1
    return {pair: {kind: count[kind] for kind in ("identical", "near-identical")} for pair, count in counts.items()}


def clean_rows(rows: AuditRows, duplicates: Iterable[Duplicate]) -> np.ndarray:
    """Whether a row has no duplicate in an earlier split (always true in train): (rows,) bool."""
    clean = np.ones(len(rows), bool)
    clean[[item.row for item in duplicates]] = False
    return clean
