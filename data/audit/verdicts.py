"""What an audit says: a finding, its grade, and how it counts and lists in words. Imports nothing of ours."""

from collections.abc import Iterable, Sized
from dataclasses import asdict, dataclass
from itertools import islice

FAIL, REPORT, OK = "fail", "report", "ok"
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing an audit looked for."""

    name: str
    grade: str  # fail, report or ok
    summary: str  # one sentence
    details: dict[str, object]

    def to_json(self) -> dict[str, object]:
        """As `audit.json` holds it."""
        return asdict(self)


def listed(names: Iterable[str]) -> str:
    """The first three, and how many more."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(islice(names, _SHOWN)) + more


def number_of(things: Sized, one: str, many: str | None = None) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"
