"""People dealt into folds: each is tested once, by a model that was trained on others and selected on yet others.

People, recordings and pictures that are alike stay in one fold, as `resplit` keeps them, so that no fold knows anything
of another. Fold k is tested on part k and selected on part k + 1; the rest it is trained on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class DealtFolds:
    """A data set whose every row has its part."""

    data: PreparedData
    rows: Dataset
    part: np.ndarray  # (rows,) int, 0 to `num_folds` - 1
    num_folds: int
    audit: AuditSummary  # of all the folds

    @property
    def how(self) -> str:
        """Where the split comes from, in words."""
        return f"{self.num_folds} folds by person and recording, class shares kept (seed {_SEED})"

    def fingerprint(self, fold: int | None = None) -> str:
        """Of the data as one fold splits it; None: of all folds together."""
        which = "" if fold is None else f"{fold} of "
        return hashlib.sha256(f"{self.data.fingerprint} {which}{self._deal()}".encode()).hexdigest()

    def _deal(self) -> str:
        return f"{self.num_folds} {hashlib.sha256(self.part.astype(np.int64).tobytes()).hexdigest()}"

    def fold(self, fold: int) -> PreparedData:
        """The data as this fold splits it, 0 being the first; nothing is written."""
        tested, selected = self.part == fold, self.part == (fold + 1) % self.num_folds
        chosen = {"train": ~tested & ~selected, "validation": selected, "test": tested}
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


def deal_folds(
    data: PreparedData, num_folds: int, label_scheme: str, parts: Mapping[str, int] | None = None
) -> DealtFolds:
    """Audit the data and deal its people.

    Args:
        parts: subject id → part, as other data of the same people was dealt; default: drawn, so that each part gets its
            share of every class.

    Raises:
        RecipeError: fewer than three folds, or other people than were dealt.
        DataError: a person is unknown, or there are fewer groups of people than folds.
        LeakageError: a class comes from one recording alone.
    """
    if num_folds < _LEAST:
        raise RecipeError(
            f"Expected at least {_LEAST} folds (to train on, to select on, to test), got {num_folds}; 5 are usual."
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
    part = _draw(found, groups, num_folds) if parts is None else _as_dealt(found, groups, parts)
    return DealtFolds(data, all_rows(data), part, num_folds, _summarise(found, groups, num_folds))


def _draw(found: Audit, groups: np.ndarray, num_folds: int) -> np.ndarray:
    num_groups = int(groups.max()) + 1
    if num_groups < num_folds:
        raise DataError(
            f"Expected at least {num_folds} people for {num_folds} folds, got {num_groups} who share no recording or "
            "picture; ask for fewer folds."
        )
    drawn = draw_splits(
        groups.tolist(), found.rows.label, {str(part): 1 / num_folds for part in range(num_folds)}, _SEED
    )
    return np.array([int(name) for name in drawn])


def _as_dealt(found: Audit, groups: np.ndarray, parts: Mapping[str, int]) -> np.ndarray:
    people = [str(subject) for subject in found.rows.subject_id]
    others = sorted(set(people) - parts.keys())
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
    return part


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


def parts_of(tested: Sequence[Sequence[str | None]]) -> dict[str, int]:
    """Subject id → part, from the people that each fold was tested on, in order."""
    return {str(subject): part for part, subjects in enumerate(tested) for subject in subjects}
