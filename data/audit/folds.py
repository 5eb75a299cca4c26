"""Cross-validation folds by person: each person is tested once, by a model trained and selected on other people.

People who share a recording or similar pictures stay in one fold, as in `resplit`, so that nothing leaks between folds.
Fold k is tested on part k, selected on part k + 1 and trained on the rest. In folds by subject each person, together
with anybody who shares a recording or picture, is a part. One person is too little data for model selection, so the
people are also dealt into fifths, and the fifth after the tested person's is used for selection.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict

from ...processor.input_errors import DataError, LeakageError, RecipeError
from ..described_data import AuditSummary, FindingSummary
from ..preparation.prepared_data import PreparedData
from ..preparation.row_facts import count_rows
from ..schema import SPLITS
from ..splits import draw_splits
from .leakage import Audit, audit
from .resplit import all_rows, whole_groups
from .verdicts import FAIL, OK

_SEED = 0  # independent of the training's seed, so that runs with different options or seeds use the same folds
_SHARED = ("shared subjects", "shared files", "shared recordings", "duplicates")  # ruled out by construction
_LEAST = 3  # a part to test, one to select on, one to train on
SUBJECT = "subject"  # instead of a number of folds: one fold for each person
_SELECTING_PARTS = 5  # for folds by subject: a fifth of the people is used for selection


class EarlierFolds(NamedTuple):
    """The folds of other data of the same people: for each fold, the people used for testing and for selection."""

    tested: Sequence[Collection[str]]
    selected: Sequence[Collection[str]]


class _Deal(NamedTuple):
    part: np.ndarray  # (rows,) int: the fold that is tested on the row
    share: np.ndarray  # (rows,) int: equal to `part`; for folds by subject, the fifth
    selects: np.ndarray  # (folds,) int: the share used for selection in each fold


@dataclass(frozen=True)
class DealtFolds:
    """A data set in which every row is assigned to a part."""

    data: PreparedData
    rows: Dataset
    deal: _Deal
    by_subject: bool
    audit: AuditSummary  # of all the folds

    @property
    def num_folds(self) -> int:
        return len(self.deal.selects)

    @property
    def how(self) -> str:
        """Description of where the split comes from."""
        if not self.by_subject:
            return f"{self.num_folds} folds by person and recording, class shares kept (seed {_SEED})"
        shares = len(np.unique(self.deal.share))
        return (
            f"{self.num_folds} folds of one person each, with whoever shares a recording or picture; selected on one "
            f"of {shares} shares of the people, class shares kept (seed {_SEED})"
        )

    def fingerprint(self, fold: int | None = None) -> str:
        """Fingerprint of the data as one fold splits it; None: of all folds together."""
        which = "" if fold is None else f"{fold} of "
        deal = f"{self.num_folds} {_digest(self.deal.part)}"
        if self.by_subject:
            deal = f"{SUBJECT} {deal} {_digest(self.deal.share)} {_digest(self.deal.selects)}"
        return hashlib.sha256(f"{self.data.fingerprint} {which}{deal}".encode()).hexdigest()

    def fold(self, fold: int) -> PreparedData:
        """The data as split by this fold, counted from 0; nothing is written."""
        chosen = _chosen(self.deal, fold)
        orders = {split: np.flatnonzero(chosen[split]) for split in SPLITS}
        described = self.data.description
        splits = DatasetDict({split: self.rows.select(order) for split, order in orders.items()})
        description = described.model_copy(
            update={
                "fingerprint": self.fingerprint(fold),
                "splits": {split: count_rows(rows) for split, rows in splits.items()},
                "notes": replace(described.notes, split=f"fold {fold + 1} of {self.how}"),
            }
        )
        return PreparedData(splits, self.data.folder, description)


def _digest(numbers: np.ndarray) -> str:
    return hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()


def _chosen(deal: _Deal, fold: int) -> dict[str, np.ndarray]:
    """Split → (rows,) bool."""
    tested = deal.part == fold
    selected = (deal.share == deal.selects[fold]) & ~tested
    return {"train": ~tested & ~selected, "validation": selected, "test": tested}


def deal_folds(
    data: PreparedData, folds: int | str, label_scheme: str, earlier: EarlierFolds | None = None
) -> DealtFolds:
    """Audit the data and deal its people.

    Args:
        folds: number of folds, or SUBJECT.
        earlier: existing folds to reuse; default: drawn so that each part gets its share of every class.

    Raises:
        RecipeError: fewer than three folds, or people who are not in the earlier folds.
        DataError: a person is unknown, there are fewer groups of people than folds, or a fold has too few labels in a
            split.
        LeakageError: a class comes from one recording alone.
    """
    if folds != SUBJECT and int(folds) < _LEAST:
        raise RecipeError(
            f"{folds} folds are too few: training, selection and test need at least {_LEAST}; 5 are usual."
        )
    found = audit(data, label_scheme)
    unknown = sum(subject is None for subject in found.rows.subject_id)
    if unknown:
        raise DataError(
            f"Folds need the person of every clip, but {data.folder} has {unknown} clips of unknown people; name the "
            "people when preparing it, or train without --folds."
        )
    failed = [finding.summary for finding in found.findings if finding.grade == FAIL and finding.name not in _SHARED]
    if failed:
        raise LeakageError(f"{data.folder} cannot be evaluated with folds; the audit says: {failed[0]}")
    groups, _ = whole_groups(found)
    if earlier is not None:
        deal = _as_dealt(found, groups, earlier)
    else:
        deal = _deal_subjects(found, groups) if folds == SUBJECT else _deal_parts(found, groups, int(folds))
    _require_labels(found, deal)
    return DealtFolds(data, all_rows(data), deal, folds == SUBJECT, _summarise(found, groups, len(deal.selects)))


def _deal_parts(found: Audit, groups: np.ndarray, num_folds: int) -> _Deal:
    num_groups = int(groups.max()) + 1
    if num_groups < num_folds:
        raise DataError(
            f"{num_folds} folds need at least {num_folds} people who share no recording or picture, got {num_groups}; "
            "use fewer folds."
        )
    part = _draw(found, groups, num_folds)
    return _Deal(part, part, np.roll(np.arange(num_folds), -1))


def _deal_subjects(found: Audit, groups: np.ndarray) -> _Deal:
    num_groups = int(groups.max()) + 1
    if num_groups < _LEAST:
        raise DataError(
            f"Folds by person need at least {_LEAST} people who share no recording or picture, got {num_groups}; "
            "record more people."
        )
    part = np.unique(groups, return_inverse=True)[1].ravel()
    num_shares = min(_SELECTING_PARTS, num_groups)
    share = _draw(found, groups, num_shares)
    own = np.array([share[part == fold][0] for fold in range(num_groups)])
    return _Deal(part, share, (own + 1) % num_shares)


def _draw(found: Audit, groups: np.ndarray, num_parts: int) -> np.ndarray:
    """Deal groups into parts: (rows,) int."""
    drawn = draw_splits(
        groups.tolist(), found.rows.label, {str(part): 1 / num_parts for part in range(num_parts)}, _SEED
    )
    return np.array([int(name) for name in drawn])


def _require_labels(found: Audit, deal: _Deal) -> None:
    """Checked before the first fold: a class that few people show may be missing from a fold's training data."""
    labels = np.array([label or "" for label in found.rows.label])
    for fold in range(len(deal.selects)):
        for split, rows in _chosen(deal, fold).items():
            there = set(labels[rows]) - {""}
            least = 2 if split == "train" else 1
            if len(there) < least:
                raise DataError(
                    f"Every fold needs at least {least} of the labels in {split}, but fold {fold + 1} of "
                    f"{len(deal.selects)} has only {', '.join(sorted(there)) or 'none'}: too few people show the "
                    "others; add people who do, or use a different number of folds."
                )


def _as_dealt(found: Audit, groups: np.ndarray, earlier: EarlierFolds) -> _Deal:
    people = [str(subject) for subject in found.rows.subject_id]
    parts, shares = _numbers_of(earlier.tested), _numbers_of(dict.fromkeys(map(frozenset, earlier.selected)))
    others = sorted(set(people) - (parts.keys() & shares.keys()))
    if others:
        raise RecipeError(
            f"The folds to start from lack {len(others)} of these people, such as {others[0]}; start from a different "
            "model, or from folds of all of these people."
        )
    part = np.array([parts[person] for person in people])
    pairs = np.unique(np.stack([groups, part], axis=1), axis=0)
    torn = int((np.bincount(pairs[:, 0]) > 1).sum())
    if torn:
        raise LeakageError(
            f"The folds to start from would split {torn} groups of similar pictures between folds; start from a "
            "different model."
        )
    selects = np.array([shares[next(iter(selected))] for selected in earlier.selected])
    return _Deal(part, np.array([shares[person] for person in people]), selects)


def _numbers_of(groups: Iterable[Collection[str]]) -> dict[str, int]:
    """Subject id → its group's number."""
    return {subject: number for number, group in enumerate(groups) for subject in group}


def _summarise(found: Audit, groups: np.ndarray, num_folds: int) -> AuditSummary:
    kept = [finding.in_short() for finding in found.findings if finding.name not in (*_SHARED, "split contents")]
    whole = (
        f"People who share recordings or similar pictures are in the same one of {num_folds} folds: "
        f"{int(groups.max()) + 1} groups of {len(set(found.rows.subject_id))} people."
    )
    return AuditSummary(passed=True, findings=[FindingSummary(name="folds", grade=OK, summary=whole), *kept])
