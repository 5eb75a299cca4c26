"""Can the split of a prepared data set be trusted? Finds what the splits share and grades each finding.

`fail`: scores on this split would say little about new people. `report`: known, counted, and to be reported with the
scores. `ok`: looked for and not found. Similarity of pictures is computed in `recordings` and `duplicates`, what gives
the labels away in `label_giveaways`; pages and tables are made in `page`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from ..preparation.prepared_data import PreparedData
from ..schema import SPLITS
from . import duplicates as doubles
from . import label_giveaways, recordings
from .duplicates import Duplicate, clean_rows, count_by_splits, find_duplicates
from .label_giveaways import find_conflicts, judge_classes, judge_giveaway, judge_looks
from .recordings import Likeness, compare_rows
from .rows import AuditRows, read_rows
from .verdicts import AUDIT_VERSION, FAIL, OK, REPORT, AuditCounts, AuditRecord, Detail, Finding, listed, number_of

# Small groups of neighbours (one photograph cropped in several ways, a few frames of one person) occur in most data;
# they spoil a split when they make up this share of a held-out split. FER2013 has 5 %.
SHARED_GROUP_PICTURES = 3
SHARED_ROWS_SHARE = 0.1
SHARED_ROWS_LEAST = 3
# Some duplicates are reported; when this share of a held-out split occurs in an earlier one, it measures memory.
# FER2013's test has 9 %.
DUPLICATES_SHARE = 0.2
_NAMES_KEPT = 100  # listed in the details of a finding
# `fer2013.csv#12` names a row of a table; any other path is a file and counts as one recording.
_TABLE_ROW = re.compile(r"\.(csv|tsv|parquet|h5|hdf5)#", re.IGNORECASE)


@dataclass(frozen=True)
class Audit:
    """All findings. Everything but the arrays is written to `audit.json`."""

    findings: tuple[Finding, ...]
    fingerprint: str  # of the data that was audited
    counts: AuditCounts
    rows: AuditRows = field(repr=False)
    duplicates: tuple[Duplicate, ...] = field(repr=False)
    groups: np.ndarray = field(repr=False)  # (rows,) int: rows of one clip, file, or group of neighbours
    shared_groups: tuple[int, ...] = field(repr=False)  # those behind the finding "shared recordings"

    @property
    def passed(self) -> bool:
        """Whether nothing failed; findings to report do not count as failures."""
        return all(finding.grade != FAIL for finding in self.findings)

    def record(self) -> AuditRecord:
        """The content of `audit.json`."""
        return AuditRecord(
            version=AUDIT_VERSION,
            fingerprint=self.fingerprint,
            passed=self.passed,
            label_scheme=self.rows.label_scheme,
            counts=self.counts,
            findings=list(self.findings),
            thresholds=thresholds(),
            versions={name: version(name) for name in ("engagement-recognition", "imagehash", "scikit-learn")},
        )


def thresholds() -> dict[str, int | float]:
    """Every threshold that a verdict depends on."""
    return {
        "neighbour_bits": recordings.NEIGHBOUR_BITS,
        "neighbour_levels": recordings.NEIGHBOUR_LEVELS,
        "other_subject_bits": recordings.OTHER_SUBJECT_BITS,
        "other_subject_levels": recordings.OTHER_SUBJECT_LEVELS,
        "recording_pictures": recordings.RECORDING_PICTURES,
        "recording_neighbours": recordings.RECORDING_NEIGHBOURS,
        "shared_group_pictures": SHARED_GROUP_PICTURES,
        "shared_rows_share": SHARED_ROWS_SHARE,
        "shared_rows_least": SHARED_ROWS_LEAST,
        "duplicates_share": DUPLICATES_SHARE,
        "duplicate_bits": recordings.DUPLICATE_BITS,
        "duplicate_levels": doubles.DUPLICATE_LEVELS,
        "giveaway_gain": label_giveaways.HIGH_GAIN,
        "giveaway_share": label_giveaways.HIGH_SHARE,
        "giveaway_auroc": label_giveaways.HIGH_AUROC,
        "giveaway_p": label_giveaways.LARGEST_P,
    }


def audit(data: PreparedData, label_scheme: str | None = None) -> Audit:
    """Run all checks for what can make a split untrustworthy.

    Args:
        label_scheme: which labels to use; default: the data's own, or "binary" for data rated as in DAiSEE.

    Raises:
        RecipeError: the scheme does not exist.
        DataError: the data's frame hashes cannot be read.
    """
    rows = read_rows(data, label_scheme)
    files = [None if _TABLE_ROW.search(path) else path for path in rows.source_path]
    likeness = compare_rows(rows, files)
    duplicates = find_duplicates(rows, likeness.candidates)
    shared, recordings_finding = _judge_recordings(rows, likeness)
    findings = (
        _judge_subjects(rows),
        _judge_files(rows, files),
        recordings_finding,
        judge_classes(rows, likeness.groups),
        _judge_split_contents(rows),
        _judge_duplicates(rows, duplicates),
        find_conflicts(rows, duplicates),
        judge_giveaway(rows, rows.subject_id, "subject"),
        judge_giveaway(rows, likeness.groups.tolist(), "recording"),
        *judge_looks(rows),
    )
    counts = _count(rows, likeness, duplicates)
    return Audit(findings, data.fingerprint, counts, rows, duplicates, likeness.groups, shared)


def _count(rows: AuditRows, likeness: Likeness, duplicates: Iterable[Duplicate]) -> AuditCounts:
    clean = clean_rows(rows, duplicates)
    splits = _present(rows)
    return AuditCounts(
        windows={split: int((rows.split == split).sum()) for split in splits},
        clean_windows={split: int(clean[rows.split == split].sum()) for split in splits},
        clips=len(set(rows.clip_id)),
        subjects=len(set(rows.subject_id) - {None}),
        groups=int(likeness.groups.max()) + 1,
        recordings_by_pictures=len(likeness.recordings()),
        windows_without_label=sum(label is None for label in rows.label),
        windows_without_hash=likeness.num_without_hash,
    )


def _present(rows: AuditRows) -> list[str]:
    return [split for split in SPLITS if split in set(rows.split.tolist())]


def _judge_subjects(rows: AuditRows) -> Finding:
    splits = _splits_of(rows, rows.subject_id)
    shared = {subject: found for subject, found in splits.items() if len(found) > 1}
    unknown = sum(subject is None for subject in rows.subject_id)
    details: dict[str, Detail] = {"num_shared": len(shared), "shared": _some(shared), "windows_unknown": unknown}
    if shared:
        told = listed(f"{subject} ({', '.join(found)})" for subject, found in sorted(shared.items()))
        summary = f"{len(shared)} of {number_of(splits, 'person', 'people')} are in more than one split: {told}."
        return Finding("shared subjects", FAIL, summary, details)
    if unknown:
        summary = f"Cannot be fully checked: the person is unknown in {unknown} of {len(rows)} windows."
        return Finding("unknown people", REPORT, summary, details)
    return Finding("shared subjects", OK, f"Each of {number_of(splits, 'person', 'people')} is in one split.", details)


def _judge_files(rows: AuditRows, files: list[str | None]) -> Finding:
    splits = _splits_of(rows, files)
    shared = {path: found for path, found in sorted(splits.items()) if len(found) > 1}
    details: dict[str, Detail] = {"num_shared": len(shared), "shared": _some(shared), "files": len(splits)}
    if shared:
        told = listed(f"{path} ({', '.join(found)})" for path, found in shared.items())
        return Finding("shared files", FAIL, f"{len(shared)} source files are in more than one split: {told}.", details)
    told = f"Each of {number_of(splits, 'source file')} is in one split." if splits else "The source is a table."
    return Finding("shared files", OK, told, details)


def _some(shared: dict[str, list[str]]) -> dict[str, list[str]]:
    return dict(sorted(shared.items())[:_NAMES_KEPT])


def _splits_of(rows: AuditRows, keys: Iterable[str | None]) -> dict[str, list[str]]:
    """Key → the splits it occurs in; rows without a key are left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for key, split in zip(keys, rows.split.tolist(), strict=True):
        if key is not None:
            found[key].add(split)
    return {key: [split for split in SPLITS if split in splits] for key, splits in found.items()}


def _judge_recordings(rows: AuditRows, likeness: Likeness) -> tuple[tuple[int, ...], Finding]:
    """Groups of similar pictures that occur in several splits."""
    sizes = np.zeros((int(likeness.groups.max()) + 1, len(SPLITS)), np.int64)  # (groups, 3) windows
    np.add.at(sizes, (likeness.groups, np.array([SPLITS.index(split) for split in rows.split])), 1)
    # One or two copies in another split are duplicates; a recording that was cut up leaves more.
    shared = np.flatnonzero((sizes > 0).sum(1) > 1)
    away = sizes.sum(1) - sizes.max(1)
    large = np.intersect1d(shared[away[shared] >= SHARED_ROWS_LEAST], likeness.recordings())
    small = shared[sizes[shared].sum(1) >= SHARED_GROUP_PICTURES]
    held_out = [column for column in (1, 2) if sizes[:, column].any()]
    shares = {SPLITS[column]: float(sizes[small, column].sum() / sizes[:, column].sum()) for column in held_out}
    widespread = any(
        shares[SPLITS[column]] >= SHARED_ROWS_SHARE and sizes[small, column].sum() >= SHARED_ROWS_LEAST
        for column in held_out
    )
    details: dict[str, Detail] = {
        "recordings": [_describe_group(rows, likeness.groups, group, sizes[group]) for group in large[:20]],
        "num_recordings": len(large),
        "num_groups": len(small),
        "share_of_split": {split: round(share, 4) for split, share in shares.items()},
    }
    told = " and ".join(f"{share:.1%} of {split}" for split, share in shares.items())
    if len(large):
        windows = int(sizes[large].sum())
        summary = (
            f"{number_of(large, 'recording')} ({windows} windows) lie in several splits; {told} resemble other splits."
        )
    elif widespread:
        summary = f"{told} belong to groups of similar pictures that lie in several splits."
    else:
        summary = f"No recording lies in several splits; {told} belong to small groups of similar pictures that do."
    if len(large) or widespread:
        return tuple((large if len(large) else small).tolist()), Finding("shared recordings", FAIL, summary, details)
    if len(small):
        return (), Finding("shared recordings", REPORT, summary, details)
    return (), Finding("shared recordings", OK, "No group of similar pictures lies in several splits.", details)


def _describe_group(rows: AuditRows, groups: np.ndarray, group: int, sizes: np.ndarray) -> dict[str, Detail]:
    members = np.flatnonzero(groups == group)
    return {
        "windows": {split: int(size) for split, size in zip(SPLITS, sizes, strict=True) if size},
        "labels": dict(Counter(rows.label[row] or "none" for row in members)),
        "subjects": sorted(_known(rows.subject_id[row] for row in members))[:20],
        "examples": [rows.name(row) for row in members[:: max(1, len(members) // 5)][:5]],
    }


def _known(names: Iterable[str | None]) -> set[str]:
    return {name for name in names if name is not None}


def _judge_split_contents(rows: AuditRows) -> Finding:
    """An empty split, or one that lacks a class, cannot be used to measure it."""
    classes = {split: _known(rows.label[row] for row in np.flatnonzero(rows.split == split)) for split in SPLITS}
    every = sorted(set[str]().union(*classes.values()))
    empty = [split for split in SPLITS if not (rows.split == split).any()]
    lacking = {split: [name for name in every if name not in classes[split]] for split in SPLITS if split not in empty}
    lacking = {split: names for split, names in lacking.items() if names}
    told = [f"{split} is empty" for split in empty]
    told += [f"{split} has no {listed(names)}" for split, names in lacking.items()]
    details: dict[str, Detail] = {"empty": empty, "lacking": lacking}
    if told:
        return Finding("split contents", REPORT, f"{'; '.join(told).capitalize()}.", details)
    return Finding("split contents", OK, "Every class is in every split.", details)


def _judge_duplicates(rows: AuditRows, duplicates: tuple[Duplicate, ...]) -> Finding:
    counts = count_by_splits(rows, duplicates)
    left_out = ~clean_rows(rows, duplicates)
    by_split = {split: int(left_out[rows.split == split].sum()) for split in _present(rows)}
    shares = {split: count / int((rows.split == split).sum()) for split, count in by_split.items()}
    details: dict[str, Detail] = {"by_splits": counts, "windows_to_leave_out": by_split}
    if not duplicates:
        return Finding("duplicates", OK, "No picture of one split is in another, exactly or nearly.", details)
    told = "; ".join(
        f"{pair}: {kinds['identical']} identical, {kinds['near-identical']} nearly so" for pair, kinds in counts.items()
    )
    summary = f"{number_of(left_out.nonzero()[0], 'window')} to leave out, listed in duplicates.csv ({told})."
    widespread = [f"{share:.0%} of {split}" for split, share in shares.items() if share >= DUPLICATES_SHARE]
    if widespread:
        return Finding(
            "duplicates", FAIL, f"{' and '.join(widespread)} also occur in earlier splits; {summary}", details
        )
    return Finding("duplicates", REPORT, summary, details)
