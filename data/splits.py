"""Who goes where: the published subset of DAiSEE, and splits by person for data that comes without."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..processor.input_errors import DataError
from .schema import BINARY, SPLITS, ClipRecord, binary_label

SUBSET_SEED = 42
SUBSET_CLIPS_PER_SUBJECT = 15  # of each class
SUBSET_LARGEST_RATIO = 3  # engaged clips for one disengaged
SHARES = (0.6, 0.2, 0.2)  # of train, validation and test, where we draw the split


def stratified_subset(labels: dict[str, dict[str, int]]) -> list[str]:
    """The clip ids of one split's stratified subset, drawn exactly as the CNN + LSTM reference draws it.

    A fresh `random.Random(42)`; the disengaged first, then the engaged; for each person in sorted order that class's
    rows are shuffled and the first 15 kept; then, if the engaged exceed three times the disengaged, they are shuffled
    as a whole and cut to that.

    Args:
        labels: clip id → affects, in the order of the label file, on which the draw depends.

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
    """Give every record a split, and say in words where the splits come from.

    Splits that the source has stay; each one it lacks is a fifth of the training people. A source without any is
    split 60 / 20 / 20. People stay whole; where nobody knows the people, clips are drawn one by one, which an audit
    will say.

    Raises:
        DataError: some records have a split and others none, or there is no train split.
    """
    given = {record.split for record in records}
    missing = [split for split in SPLITS if split not in given]
    if not missing:
        return list(records), "the source's own"
    if given == {None}:
        shares = dict(zip(SPLITS, SHARES, strict=True))
        return _draw(records, shares, seed), f"drawn {_by_what(records)} (seed {seed})"
    if None in given or "train" not in given:
        found = ", ".join(sorted(str(split) for split in given))
        raise DataError(f"Expected a train split, and a split for every clip or for none, got {found}.")
    train = [record for record in records if record.split == "train"]
    shares = {"train": 1 - 0.2 * len(missing)} | dict.fromkeys(missing, 0.2)
    split_of = {record.clip_id: record.split for record in _draw(train, shares, seed)}
    completed = [replace(record, split=split_of.get(record.clip_id, record.split)) for record in records]
    told = f"{' and '.join(missing)} drawn from train {_by_what(train)} (seed {seed})"
    return completed, f"the source's own, {told}"


def _draw(records: Sequence[ClipRecord], shares: dict[str, float], seed: int) -> list[ClipRecord]:
    drawn = draw_splits([_group_of(record) for record in records], seed, shares)
    return [replace(record, split=split) for record, split in zip(records, drawn, strict=True)]


def draw_splits(groups: Sequence[str], seed: int, shares: dict[str, float]) -> list[str]:
    """One split a row, such that rows of one group stay together; the largest groups are placed first.

    Each group goes where most rows are still missing; ties go by a seeded order of the groups.
    """
    rows_of: dict[str, int] = defaultdict(int)
    for group in groups:
        rows_of[group] += 1
    order = sorted(rows_of)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -rows_of[group])
    missing = {split: share * len(groups) for split, share in shares.items()}
    split_of = {}
    for group in order:
        split_of[group] = max(missing, key=missing.__getitem__)
        missing[split_of[group]] -= rows_of[group]
    return [split_of[group] for group in groups]


def _group_of(record: ClipRecord) -> str:
    return f"subject {record.subject_id}" if record.subject_id else f"clip {record.clip_id}"


def _by_what(records: Sequence[ClipRecord]) -> str:
    return "by person" if all(record.subject_id for record in records) else "clip by clip, for people are not known"
