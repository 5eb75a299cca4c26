"""Result of an audit: findings with their grades, the record of a whole audit, and helpers to count and list."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, Self

from pydantic import model_validator, with_config
from typing_extensions import TypeAliasType

from ..described_data import AuditSummary, FindingSummary
from ..json_records import Count, Record

AUDIT_VERSION: Final = 1
FAIL: Final = "fail"
REPORT: Final = "report"
OK: Final = "ok"
PREDICTS_LABEL: Final = "predicts label"  # suffix of the name of each finding about label giveaways
_SHOWN = 3

# Each finding has its own kind of details; they are shown to people and read by no code.
Detail = TypeAliasType("Detail", "int | float | str | Sequence[Detail] | Mapping[str, Detail]")


@with_config(Record.model_config)
@dataclass(frozen=True)
class Finding:
    """Result of one check of an audit."""

    name: str
    grade: Literal["fail", "report", "ok"]
    summary: str  # one sentence
    details: Mapping[str, Detail]

    def in_short(self) -> FindingSummary:
        """What results say of it."""
        return FindingSummary(name=self.name, grade=self.grade, summary=self.summary)


class AuditCounts(Record):
    """What was checked."""

    windows: dict[str, Count]
    """split → windows"""
    clean_windows: dict[str, Count]
    """split → windows without a duplicate in an earlier split"""
    clips: Count
    subjects: Count
    """known people"""
    groups: Count
    """groups of clips, files and pictures that resemble each other"""
    recordings_by_pictures: Count
    """groups that count as recordings by their pictures alone"""
    windows_without_label: Count
    windows_without_hash: Count


class AuditRecord(Record):
    """`audit.json`."""

    version: Literal[1]
    fingerprint: str
    """fingerprint of the audited data"""
    passed: bool
    """whether nothing failed; findings to report do not count as failures"""
    label_scheme: str
    """label scheme of the audit"""
    counts: AuditCounts
    findings: list[Finding]
    """one for each check"""
    thresholds: dict[str, int | float]
    """every threshold that a verdict depends on"""
    seeds: dict[str, int] = {}
    """always empty: an audit uses no random numbers"""
    versions: dict[str, str]
    """package → version"""

    @model_validator(mode="after")
    def _check_verdict(self) -> Self:
        failed = [finding.name for finding in self.findings if finding.grade == FAIL]
        if self.passed and failed:
            raise ValueError(f"passed true although findings failed: {', '.join(failed)}")
        if not self.passed and not failed:
            raise ValueError("passed false although no finding failed")
        return self

    def in_short(self) -> AuditSummary:
        """What results say of it."""
        return AuditSummary(passed=self.passed, findings=[finding.in_short() for finding in self.findings])


def listed(names: Iterable[str]) -> str:
    """The first three names and the number of the others."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(islice(names, _SHOWN)) + more


def number_of(things: Sized, one: str, many: str | None = None) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"
