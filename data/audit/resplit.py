"""A new split for data whose own cannot be trusted, and the same split without its duplicates.

Both write a new prepared data set and leave the old one unchanged; the new one needs an audit of its own.
"""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset, Value, concatenate_datasets

from ...processor.input_errors import DataError
from ..preparation.description import DATA_VERSION, InputCounts, Provenance
from ..preparation.prepared_data import FEATURES, PreparedData, read_rejects, write_prepared
from ..schema import SPLITS, Reject
from ..splits import SHARES, draw_splits
from .duplicates import Duplicate, clean_rows
from .leakage import Audit
from .recordings import join_groups, join_pairs
from .rows import to_codes


def suggest_split(data: PreparedData, audit: Audit, output: Path, seed: int = 0) -> PreparedData:
    """Draw a new split of 60 / 20 / 20: people and recordings stay whole, each split gets its share of every class.

    The description's `notes` record in `split` how it was drawn, and in `split_limits` what was impossible.

    Raises:
        DataError: the audit is of different data, the folder is not empty, or there are fewer than three groups.
    """
    _check(data, audit, output)
    groups, by_what = whole_groups(audit)
    if groups.max() + 1 < len(SPLITS):
        raise DataError(
            f"{data.folder} has {groups.max() + 1} people or recordings, and a split needs at least {len(SPLITS)}; no "
            "split of this data can be trusted, so record more people."
        )
    split = np.asarray(draw_splits(groups.tolist(), audit.rows.label, SHARES, seed))
    how = f"drawn by {by_what}, class shares kept (seed {seed}, from {data.fingerprint[:12]})"
    limits = _limits(groups, audit.rows.label, split)
    rows = all_rows(data)
    rows = rows.remove_columns("split").add_column("split", split.tolist(), feature=Value("string"))
    notes = replace(data.description.notes, split=how, split_limits=limits)
    provenance = _provenance(data).model_copy(update={"notes": notes})
    return write_prepared(rows.select_columns(list(FEATURES)), read_rejects(data), provenance, output)


def deduplicate(data: PreparedData, audit: Audit, output: Path) -> PreparedData:
    """The same splits without rows that have a duplicate in an earlier split; those rows become rejects.

    Raises:
        DataError: the audit is of different data, the folder is not empty, or a split would be empty.
    """
    _check(data, audit, output)
    clean = clean_rows(audit.rows, audit.duplicates)
    emptied = [split for split in data.splits if not clean[audit.rows.split == split].any()]
    if emptied:
        raise DataError(
            f"{' and '.join(emptied)} of {data.folder} would be empty without duplicates; draw a new split with "
            "--suggest-split."
        )
    rejected = _duplicates_as_rejects(audit)
    lost = {reject.clip_id for reject in rejected} - {audit.rows.clip_id[row] for row in np.flatnonzero(clean)}
    before = _provenance(data)
    changes = {
        "outputs": before.outputs - len(lost),
        "rejects": before.rejects + len(lost),
        "windows": InputCounts(
            inputs=before.windows.inputs,
            outputs=before.windows.outputs - len(rejected),
            rejects=before.windows.rejects + len(rejected),
        ),
        "notes": replace(before.notes, deduplicated_from=data.fingerprint),
    }
    kept = all_rows(data).select(np.flatnonzero(clean))
    return write_prepared(kept, [*read_rejects(data), *rejected], before.model_copy(update=changes), output)


def _check(data: PreparedData, audit: Audit, output: Path) -> None:
    if audit.fingerprint != data.fingerprint:
        raise DataError(f"The audit is not of {data.folder} in its current state; audit it again.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} is not empty; choose a new or empty folder.")


def all_rows(data: PreparedData) -> Dataset:
    """All splits in one table, in the row order of an audit."""
    return concatenate_datasets([data.splits[split] for split in SPLITS if split in data.splits])


def _provenance(data: PreparedData) -> Provenance:
    """What stays valid for the new rows; counts are made again, and the latest version is written."""
    known = {name: getattr(data.description, name) for name in Provenance.model_fields}
    return Provenance(**known | {"version": DATA_VERSION})


def _duplicates_as_rejects(audit: Audit) -> list[Reject]:
    """One reject per window, naming its nearest duplicate."""
    rows = audit.rows
    nearest: dict[int, Duplicate] = {}
    for item in sorted(audit.duplicates, key=lambda item: (item.row, item.distance_bits)):
        nearest.setdefault(item.row, item)
    rejects = []
    for row, item in nearest.items():
        kind = "identical to" if item.identical else f"nearly identical ({item.distance_bits} of 256 bits) to"
        reason = f"{rows.split[row]} picture {kind} {rows.name(item.other)} in {rows.split[item.other]}"
        where = rows.source_path[row], rows.clip_id[row]
        rejects.append(Reject(*where, "duplicate", reason, rows.window_index[row]))
    return rejects


def whole_groups(audit: Audit) -> tuple[np.ndarray, str]:
    """Recordings, merged where they share a person or a picture: (rows,) int; and a description of the groups."""
    rows = audit.rows
    # A row of an unknown person counts as a person of its own; its recording still keeps it with others.
    subjects = to_codes([subject or f" {row}" for row, subject in enumerate(rows.subject_id)])
    whole = join_groups(join_groups(audit.groups, subjects), to_codes(rows.frames_sha256))
    doubles = np.array([(item.row, item.other) for item in audit.duplicates], np.int64).reshape(-1, 2)
    whole = join_pairs(whole, doubles[:, 0], doubles[:, 1])
    known = sum(subject is not None for subject in rows.subject_id)
    if known == len(rows):
        return whole, "person and recording"
    return whole, "recording, for people are not known" if not known else "person where known, and recording"


def _limits(groups: np.ndarray, labels: list[str | None], split: np.ndarray) -> list[str]:
    """The split's limits in words: classes that are missing from a split."""
    groups_of: dict[str, set[int]] = defaultdict(set)
    splits_of: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group, name in zip(labels, groups.tolist(), split.tolist(), strict=True):
        if label is not None:
            groups_of[label].add(group)
            splits_of[label][name] += 1
    limits = []
    for label in sorted(groups_of):
        absent = [name for name in SPLITS if not splits_of[label][name]]
        if absent:
            held = f"{len(groups_of[label])} group{'s' if len(groups_of[label]) > 1 else ''} of one person or recording"
            limits.append(f"{label} is in {held} and so is missing from {' and '.join(absent)}")
    return limits
