"""People dealt into folds: each is tested once, by a model that was trained on others and selected on yet others.

People, recordings and pictures that are alike stay in one fold, as `resplit` keeps them, so that no fold knows anything
of another. Fold k is tested on part k and selected on part k + 1; the rest it is trained on. In folds by subject each
person, with whoever shares a recording or picture, is a part; one person is too little to select on, so that the deal
into fifths says who selects: the fifth after the tested person's.
"""

import hashlib
from collections.abc import Collection, Sequence
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

_SEED = 0  # of the deal, whatever the training's seed: runs with other options or seeds then test the same folds
_SHARED = ("shared subjects", "shared files", "shared recordings", "duplicates")  # which no deal of ours lets happen
_LEAST = 3  # a part to test, one to select on, one to train on
SUBJECT = "subject"  # in place of a number of folds: one for each person
_SELECTING_PARTS = 5  # of folds by subject: a fifth of the people selects


class EarlierFolds(NamedTuple):
    """How other data of the same people was dealt: by fold, the people that it was tested and selected on."""

    tested: Sequence[Collection[str]]
    selected: Sequence[Collection[str]]


class _Deal(NamedTuple):
    part: np.ndarray  # (rows,) int: the fold that is tested on the row
    share: np.ndarray  # (rows,) int: folds by number have their parts again, folds by subject the fifths
    selects: np.ndarray  # (folds,) int: the share that each fold is selected on


@dataclass(frozen=True)
class DealtFolds:
    """A data set whose every row has its part."""

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
        """Where the split comes from, in words."""
        if not self.by_subject:
            return f"{self.num_folds} folds by person and recording, class shares kept (seed {_SEED})"
        shares = len(np.unique(self.deal.share))
        return (
            f"{self.num_folds} folds of one person each, with whoever shares a recording or picture; selected on one "
            f"of {shares} shares of the people, class shares kept (seed {_SEED})"
        )

    def fingerprint(self, fold: int | None = None) -> str:
        """Of the data as one fold splits it; None: of all folds together."""
        which = "" if fold is None else f"{fold} of "
        return hashlib.sha256(f"{self.data.fingerprint} {which}{self._deal()}".encode()).hexdigest()

    def _deal(self) -> str:
        told = f"{self.num_folds} {_digest(self.deal.part)}"
        return f"{SUBJECT} {told} {_digest(self.deal.share)} {_digest(self.deal.selects)}" if self.by_subject else told

    def fold(self, fold: int) -> PreparedData:
        """The data as this fold splits it, 0 being the first; nothing is written."""
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
        folds: how many, or SUBJECT.
        earlier: folds to deal the people as; default: drawn, so that each part gets its share of every class.

    Raises:
        RecipeError: fewer than three folds, or other people than were dealt.
        DataError: a person is unknown, there are fewer groups of people than folds, or a fold is left with one label to
            learn, or with nobody.
        LeakageError: a class comes from one recording alone.
    """
    if folds != SUBJECT and int(folds) < _LEAST:
        raise RecipeError(
            f"Expected at least {_LEAST} folds (to train on, to select on, to test), got {folds}; 5 are usual."
        )
    found = audit(data, label_scheme)
    unknown = sum(subject is None for subject in found.rows.subject_id)
    if unknown:
        raise DataError(
            f"Expected the person of every clip in {data.folder} for folds, got {unknown} clips of nobody known; name "
            "the people when preparing it, or train without --folds."
        )
    failed = [finding.summary for finding in found.findings if finding.grade == FAIL and finding.name not in _SHARED]
    if failed:
        raise LeakageError(f"Expected data in {data.folder} that folds can measure, the audit says: {failed[0]}")
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
            f"Expected at least {num_folds} people for {num_folds} folds, got {num_groups} who share no recording or "
            "picture; ask for fewer folds."
        )
    part = _draw(found, groups, num_folds)
    return _Deal(part, part, np.roll(np.arange(num_folds), -1))


def _deal_subjects(found: Audit, groups: np.ndarray) -> _Deal:
    num_groups = int(groups.max()) + 1
    if num_groups < _LEAST:
        raise DataError(
            f"Expected at least {_LEAST} people who share no recording or picture for a fold each, got {num_groups}; "
            "record more people."
        )
    part = np.unique(groups, return_inverse=True)[1].ravel()
    num_shares = min(_SELECTING_PARTS, num_groups)
    share = _draw(found, groups, num_shares)
    own = np.array([share[part == fold][0] for fold in range(num_groups)])
    return _Deal(part, share, (own + 1) % num_shares)


def _draw(found: Audit, groups: np.ndarray, num_parts: int) -> np.ndarray:
    """(rows,) int: groups dealt into so many parts."""
    drawn = draw_splits(
        groups.tolist(), found.rows.label, {str(part): 1 / num_parts for part in range(num_parts)}, _SEED
    )
    return np.array([int(name) for name in drawn])


def _require_labels(found: Audit, deal: _Deal) -> None:
    """Seen before the first fold, not after hours: of a class that few people show, nothing may be left to train on."""
    labels = np.array([label or "" for label in found.rows.label])
    for fold in range(len(deal.selects)):
        for split, rows in _chosen(deal, fold).items():
            there = set(labels[rows]) - {""}
            least = 2 if split == "train" else 1
            if len(there) < least:
                raise DataError(
                    f"Expected at least {least} of the labels in {split} of every fold, got "
                    f"{', '.join(sorted(there)) or 'none'} alone in fold {fold + 1} of {len(deal.selects)}: too few "
                    "people show the others; add some who do, or deal the people otherwise."
                )


def _as_dealt(found: Audit, groups: np.ndarray, earlier: EarlierFolds) -> _Deal:
    people = [str(subject) for subject in found.rows.subject_id]
    parts, shares = _numbers_of(earlier.tested), _numbers_of(_distinct(earlier.selected))
    others = sorted(set(people) - (parts.keys() & shares.keys()))
    if others:
        raise RecipeError(
            f"Expected the people of the folds that training starts from, got {len(others)} others, such as "
            f"{others[0]}; start from something else, or from folds of all of these people."
        )
    part = np.array([parts[person] for person in people])
    torn = _torn_groups(groups, part)
    if torn:
        raise LeakageError(
            f"Expected people and recordings that the folds to start from keep whole, got {torn} groups of similar "
            "pictures in more than one of them; start from something else."
        )
    selects = np.array([shares[next(iter(selected))] for selected in earlier.selected])
    return _Deal(part, np.array([shares[person] for person in people]), selects)


def _distinct(groups: Sequence[Collection[str]]) -> list[Collection[str]]:
    return list(dict.fromkeys(frozenset(group) for group in groups))


def _numbers_of(groups: Sequence[Collection[str]]) -> dict[str, int]:
    """Subject id → the group it is in."""
    return {subject: number for number, group in enumerate(groups) for subject in group}


def _torn_groups(groups: np.ndarray, part: np.ndarray) -> int:
    pairs = np.unique(np.stack([groups, part], axis=1), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum())


def _summarise(found: Audit, groups: np.ndarray, num_folds: int) -> AuditSummary:
    kept = [finding for finding in found.findings if finding.name not in (*_SHARED, "split contents")]
    whole = (
        f"People, recordings and pictures that are alike lie in one of {num_folds} folds: {int(groups.max()) + 1} "
        f"groups of {len(set(found.rows.subject_id))} people."
    )
    findings = [FindingSummary(name=item.name, grade=item.grade, summary=item.summary) for item in kept]
    return AuditSummary(passed=True, findings=[FindingSummary(name="folds", grade=OK, summary=whole), *findings])
