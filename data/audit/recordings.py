"""Finds the rows of one recording by the similarity of their pictures, where no table names the recording.

Two pictures are neighbours when at most 48 of 256 hash bits and 6 of 255 grey levels of an 8x8 colour grid differ.
Nearly all frames of one webcam recording have such neighbours: all 185 frames of ten real clips, which fell into their
four sittings, and 99 % of drawn frames, face crops included. No two strangers were neighbours: real sittings stayed
11 levels apart, drawn people in different rooms 8; bits alone would have joined 6,301 pairs of drawn frames.
Of FER2013's 644 million pairs 0.0006 % are neighbours, nearly all of them one photograph cropped in several ways.

Neighbours of neighbours form a group. A group counts as a recording only if at least twelve of its pictures have four
neighbours each; chains and variants of one photograph stay below that (at most nine in FER2013).
"""

from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..preparation.picture_hashes import close_pairs, count_tiles, unpack_hashes
from .rows import AuditRows, to_codes

NEIGHBOUR_BITS = 48
NEIGHBOUR_LEVELS = 6.0
# Two people filmed in one room differ by 34 bits and 5.9 levels; any closer, they are one person under two names.
OTHER_SUBJECT_BITS = 24
OTHER_SUBJECT_LEVELS = 3.0
DUPLICATE_BITS = 24  # candidates, which are then compared by their pixels
CANDIDATES_KEPT = 8  # the nearest, for each row in each other split
_CANDIDATES_AT_ONCE = 4_000_000  # 96 MB
RECORDING_PICTURES = 12
RECORDING_NEIGHBOURS = 4
_SHOW_PROGRESS_FROM_ROWS = 10_000


@dataclass(frozen=True)
class Likeness:
    """Result of comparing all pictures with each other."""

    groups: np.ndarray  # (rows,) int: the same number for rows of one clip, file or group of neighbours
    neighbours: np.ndarray  # (rows,) int: number of distinct neighbours without copies; exact up to four
    candidates: np.ndarray  # (pairs, 3) int: row, possible duplicate in an earlier split, bits that differ
    num_without_hash: int

    def recordings(self) -> np.ndarray:
        """The groups that count as recordings by their pictures alone."""
        dense = self.groups[self.neighbours >= RECORDING_NEIGHBOURS]
        numbers, counts = np.unique(dense, return_counts=True)
        return numbers[counts >= RECORDING_PICTURES]


def compare_rows(rows: AuditRows, files: list[str | None]) -> Likeness:
    """
    Args:
        files: the video or picture file of each row; None for a row of a table.
    """
    hashes = unpack_hashes(rows.frame_hash)
    known = [name or f" {row}" for row, name in enumerate(files)]
    groups = join_groups(to_codes(rows.clip_id), to_codes(known))
    neighbours = np.zeros(len(rows), np.int64)
    candidates: list[np.ndarray] = []
    splits = to_codes(rows.split)
    # A picture stored five times is one neighbour, not five.
    is_copy = np.ones(len(rows), bool)
    is_copy[np.unique(to_codes(rows.frames_sha256), return_index=True)[1]] = False
    subjects = np.array([subject or "" for subject in rows.subject_id])
    console, tiles = Console(stderr=True), close_pairs(hashes, NEIGHBOUR_BITS)
    hidden = len(rows) < _SHOW_PROGRESS_FROM_ROWS or not console.is_terminal
    for pairs in track(tiles, "Comparing pictures", count_tiles(len(rows)), console=console, disable=hidden):
        row, other, bits = pairs
        double = (bits <= DUPLICATE_BITS) & (splits[row] != splits[other])
        candidates.append(np.stack([side[double] for side in pairs], 1))
        if sum(map(len, candidates)) > _CANDIDATES_AT_ONCE + CANDIDATES_KEPT * len(splits):
            candidates = [_keep_nearest(np.concatenate(candidates), splits)]
        # Pairs that can change neither group nor verdict are skipped: one long recording has millions of pairs.
        new = (groups[row] != groups[other]) | (np.minimum(neighbours[row], neighbours[other]) < RECORDING_NEIGHBOURS)
        row, other, bits = row[new], other[new], bits[new]
        strangers = (subjects[row] != subjects[other]) & (subjects[row] != "") & (subjects[other] != "")
        near = hashes.color_distances(row, other) <= np.where(strangers, OTHER_SUBJECT_LEVELS, NEIGHBOUR_LEVELS)
        near &= bits <= np.where(strangers, OTHER_SUBJECT_BITS, NEIGHBOUR_BITS)
        row, other = row[near], other[near]
        distinct = ~is_copy[row] & ~is_copy[other]
        neighbours += np.bincount(np.concatenate([row[distinct], other[distinct]]), minlength=len(rows))
        groups = join_pairs(groups, row, other)
    nearest = _keep_nearest(np.concatenate(candidates), splits)
    return Likeness(groups, neighbours, nearest, int(sum(not text for text in rows.frame_hash)))


def join_groups(groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Merge groups whose rows share a group of the other kind; numbered from 0: (rows,)."""
    return _connect(groups, (groups, others + groups.max() + 1))  # one node per group of either kind, one edge per row


def join_pairs(groups: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Merge groups that are linked by a pair of rows; numbered from 0: (rows,)."""
    return _connect(groups, (groups[rows], groups[others])) if len(rows) else groups


def _connect(groups: np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    size = int(max(groups.max(), *(edge.max() for edge in edges))) + 1
    graph = coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(size, size))
    return np.unique(connected_components(graph, directed=False)[1][groups], return_inverse=True)[1]


def _keep_nearest(candidates: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """The nearest few candidates of each row in each other split."""
    row, other, bits = candidates.T
    order = np.lexsort((other, bits, splits[other], row))
    key = row[order] * 3 + splits[other[order]]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.empty(0, int)
    place = np.arange(len(key)) - np.repeat(first, np.diff(np.append(first, len(key))))
    return candidates[order[place < CANDIDATES_KEPT]]
