"""Draws splits: the published subset of DAiSEE, and splits by person for data without its own."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from ..processor.input_errors import DataError
from .schema import BINARY, SPLITS, ClipRecord, binary_label

SUBSET_SEED = 42
SUBSET_CLIPS_PER_SUBJECT = 15  # of each class
SUBSET_LARGEST_RATIO = 3  # engaged clips per disengaged clip
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}  # of splits that are drawn here
_DRAWS = 50
_DRAWN_GROUPS = 20_000  # in all draws together: with very many groups, all draws are similar


def stratified_subset(labels: dict[str, dict[str, int]]) -> list[str]:
    """The clip ids of one split's stratified subset, drawn exactly as the CNN + LSTM reference draws it.

    With a fresh `random.Random(42)`, first for disengaged, then for engaged: for each person in sorted order the rows
    of that class are shuffled and the first 15 kept. Then, if there are more than three times as many engaged as
    disengaged clips, the engaged ones are shuffled as a whole and cut to that number.

    Args:
        labels: clip id → affects; the draw depends on their order, that of the label file.

    Returns:
        Clip ids in the order of the label file.
    """
    rng = random.Random(SUBSET_SEED)
    clip_ids = list(labels)
    kept = {name: _keep_some_of_each_person(clip_ids, labels, name, rng) for name in BINARY}
    limit = SUBSET_LARGEST_RATIO * len(kept["disengaged"])
    if len(kept["engaged"]) > limit:
        rng.shuffle(kept["engaged"])
        del kept["engaged"][limit:]
    return [clip_ids[row] for row in sorted(kept["disengaged"] + kept["engaged"])]


def _keep_some_of_each_person(
    clip_ids: Sequence[str], labels: dict[str, dict[str, int]], name: str, rng: random.Random
) -> list[int]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, clip_id in enumerate(clip_ids):
        if binary_label(labels[clip_id]) == name:
            rows_of[clip_id[:6]].append(row)
    kept = []
    for subject in sorted(rows_of):
        rng.shuffle(rows_of[subject])
        kept += rows_of[subject][:SUBSET_CLIPS_PER_SUBJECT]
    return kept


def complete_splits(records: Sequence[ClipRecord], seed: int) -> tuple[list[ClipRecord], str]:
    """Give every record a split, and describe where the splits come from.

    The source's own splits are kept. Each missing one is drawn as a fifth of the training people; without training
    people (data for evaluation only) none is drawn. A source without any split is split 60 / 20 / 20. Each person, or
    each recording if people are unknown, stays in one split; else clips are drawn one by one, which an audit reports.

    Raises:
        DataError: some records have a split and others none.
    """
    given = {record.split for record in records}
    missing = [split for split in SPLITS if split not in given]
    if not missing:
        return list(records), "the source's own"
    if given == {None}:
        return _draw(records, SHARES, seed), f"drawn {_by_what(records)} (seed {seed})"
    if None in given:
        found = ", ".join(sorted(str(split) for split in given))
        raise DataError(f"Expected a split for every clip or for none, got {found}.")
    if "train" not in given:
        return list(records), f"the source's own, which has no {' and no '.join(missing)}"
    train = [record for record in records if record.split == "train"]
    shares = {"train": 1 - 0.2 * len(missing)} | dict.fromkeys(missing, 0.2)
    split_of = {record.clip_id: record.split for record in _draw(train, shares, seed)}
    completed = [replace(record, split=split_of.get(record.clip_id, record.split)) for record in records]
    told = f"{' and '.join(missing)} drawn from train {_by_what(train)} (seed {seed})"
    return completed, f"the source's own, {told}"


def _draw(records: Sequence[ClipRecord], shares: dict[str, float], seed: int) -> list[ClipRecord]:
    labels = [record.label or (binary_label(record.affects) if record.affects else None) for record in records]
    groups = [f"subject {of.subject_id}" if of.subject_id else f"clip {of.group_id or of.clip_id}" for of in records]
    drawn = draw_splits(groups, labels, shares, seed)
    return [replace(record, split=split) for record, split in zip(records, drawn, strict=True)]


def draw_splits(
    groups: Sequence[Hashable], labels: Sequence[str | None], shares: dict[str, float], seed: int
) -> list[str]:
    """One split per row: rows of one group stay together, and each split gets its share of every class.

    Several seeded draws are made; the one with the most classes in every split is used, then the closest shares.
    """
    group_of = np.unique([str(group) for group in groups], return_inverse=True)[1].ravel()
    class_of = np.unique([label or "" for label in labels], return_inverse=True)[1].ravel()
    counts = np.zeros((group_of.max() + 1, class_of.max() + 1))  # (groups, classes) rows
    np.add.at(counts, (group_of, class_of), 1)
    # The total counts as one more class, since a class in a single group does not tell where to put the next one.
    counts = np.column_stack([counts / counts.sum(0), counts.sum(1) / counts.sum()])
    wanted = np.outer(list(shares.values()), np.ones(counts.shape[1]))  # (splits, classes) shares of each class
    rng = random.Random(seed)
    num_draws = max(1, min(_DRAWS, _DRAWN_GROUPS // len(counts)))
    draws = [_place(counts, wanted, rng) for _ in range(num_draws)]
    best = min(draws, key=lambda placed: _cost(placed, counts, wanted))
    return [list(shares)[split] for split in best[group_of]]


def _place(counts: np.ndarray, wanted: np.ndarray, rng: random.Random) -> np.ndarray:
    """Assign groups one by one, large ones first, to the split that lacks their classes most: (groups,) int."""
    # A split's shortfall in rows (fills train first) or as a share of its target (fills all three evenly).
    scale = wanted ** rng.choice((0.0, 0.5, 1.0))
    size = counts[:, -1]
    order = sorted(range(len(counts)), key=lambda group: -size[group] * rng.uniform(0.7, 1.3))
    held = np.zeros_like(wanted)
    placed = np.zeros(len(counts), np.int64)
    for group in order:
        placed[group] = ((wanted - held) / scale @ counts[group]).argmax()
        held[placed[group]] += counts[group]
    return placed


def _cost(placed: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> tuple[int, int, float]:
    """Empty splits, classes missing from a split, distance from the shares: lower is better."""
    held = np.zeros_like(wanted)
    np.add.at(held, placed, counts)
    return int((held[:, -1] == 0).sum()), int((held == 0).sum()), float(np.abs(held - wanted).sum())


def _by_what(records: Sequence[ClipRecord]) -> str:
    return "by person" if all(record.subject_id for record in records) else "clip by clip, for people are not known"
