"""What an audit says: findings with their grades, the record of a whole audit, and how it counts and lists in words."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, Self

from pydantic import model_validator, with_config
from typing_extensions import TypeAliasType

from ..json_records import Count, Record

AUDIT_VERSION: Final = 1
FAIL: Final = "fail"
REPORT: Final = "report"
OK: Final = "ok"
PREDICTS_LABEL: Final = "predicts label"  # ends the name of each finding on what gives the label away
_SHOWN = 3

# Each finding has details of its own; they are shown to people and read by nothing.
Detail = TypeAliasType("Detail", "int | float | str | Sequence[Detail] | Mapping[str, Detail]")


@with_config(Record.model_config)
@dataclass(frozen=True)
class Finding:
    """One thing an audit looked for."""

    name: str
    grade: Literal["fail", "report", "ok"]
    summary: str  # one sentence
    details: Mapping[str, Detail]


class AuditCounts(Record):
    """What was looked at."""

    windows: dict[str, Count]
    """split → windows"""
    clean_windows: dict[str, Count]
    """split → windows without their like in an earlier split"""
    clips: Count
    subjects: Count
    """known people"""
    groups: Count
    """clips, files and pictures that resemble each other taken together"""
    recordings_by_pictures: Count
    """groups that are recordings by their pictures alone"""
    windows_without_label: Count
    windows_without_hash: Count


class AuditRecord(Record):
    """`audit.json`."""

    version: Literal[1]
    fingerprint: str
    """of the data that was audited"""
    passed: bool
    """whether nothing failed; what is to be reported does not stand in the way"""
    label_scheme: str
    """which labels it was judged by"""
    counts: AuditCounts
    findings: list[Finding]
    """one for each thing that was looked for"""
    thresholds: dict[str, int | float]
    """every number that a verdict depends on"""
    seeds: dict[str, int] = {}
    """none: an audit draws no lots"""
    versions: dict[str, str]
    """package → version"""

    @model_validator(mode="after")
    def _check_verdict(self) -> Self:
        failed = [finding.name for finding in self.findings if finding.grade == FAIL]
        if self.passed and failed:
            raise ValueError(f"passed true beside findings that failed: {', '.join(failed)}")
        if not self.passed and not failed:
            raise ValueError("passed false without a finding that failed")
        return self


def listed(names: Iterable[str]) -> str:
    """The first three, and how many more."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(islice(names, _SHOWN)) + more


def number_of(things: Sized, one: str, many: str | None = None) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"
