"""`study.json` of several studies → docs/evidence.md, and the contrasts that README shows: what helped, what did not.

A difference that is not clear of zero is a result, and stands beside those that are.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..evaluation.markdown import markdown_table
from ..evaluation.score_records import score_in_words
from .study_records import MeasuredContrast, StudyRecord
from .table import (
    contrast_table,
    describe_people,
    difference_interval,
    difference_text,
    notes_of,
    protocol_warning,
    score_table,
    verdict,
)

QUESTION = "Do expressions first and time help, on people whom the model has never seen?"
NOTHING = "Nothing was measured yet."
_HOW_TO_READ = """\
How to read it:

- A difference is the second system minus the first, in the mean over seeds (± their standard deviation), on the same
  people. Its interval is over resampled people, each with all of their clips, for just these trainings.
- "Not shown" is a result: the difference cannot be told from zero, and may be as large as the interval's ends.
- Each contrast is judged by the one score that its study names first; other scores stand beside it and judge nothing.
- AUROC: how often a clip of the rarest class gets a higher score for it than another clip does; 0.5 is chance.
  Within-person AUROC counts pairs of clips of the same person alone, so that telling people apart adds nothing to it.
  "Fitted" is at the decision fitted on validation people."""


class _Look(NamedTuple):
    """A contrast with its study."""

    record: StudyRecord
    contrast: MeasuredContrast

    def people(self) -> str:
        """On whom, in a few words."""
        rows = [row for row in self.record.rows if row.name in self.contrast.rows and row.finished]
        if not rows:
            return "–"
        run = rows[-1].finished[0]
        number, drawn = run.measured_on.num_people, any(data.drawn for data in run.data.values())
        return ("unknown" if number is None else f"{number:,}") + (" drawn" if drawn else "")

    def cells(self) -> list[str]:
        """People, score, difference, interval and verdict, of the score that it is judged by."""
        judged = self.contrast.scores[0]
        found = [difference_text(judged), difference_interval(judged), verdict(judged)]
        return [self.people(), score_in_words(judged.score), *found]


def render_evidence(records: Mapping[str, StudyRecord]) -> str:
    """docs/evidence.md.

    Args:
        records: by the address of the file that each was read from, as seen from the page.
    """
    opening = f"# Evidence\n\n{QUESTION} `make readme` makes this\npage from the files of the studies."
    if not records:
        return f"{opening}\n\n{NOTHING}\n"
    parts = [opening, "## In one look", _look_table(records), _count(records), _HOW_TO_READ]
    for address, record in records.items():
        parts += [f"## {record.title}", *_study(record, address)]
    return "\n\n".join(parts) + "\n"


def render_contrasts(records: Mapping[str, StudyRecord], page: str) -> str:
    """What README shows: a line a contrast.

    Args:
        page: address of docs/evidence.md.
    """
    if not records:
        return f"{QUESTION} {NOTHING}\nIt will stand in [{page}]({page})."
    told = f"How to read it, all scores and systems, and how to do it again: [{page}]({page})."
    return "\n\n".join([QUESTION, _look_table(records, page), f"{_count(records)}\n{told}"])


def _look_table(records: Mapping[str, StudyRecord], page: str = "") -> str:
    """A line a contrast, with links to the studies' parts of the page."""
    header = ["contrast", "study", "people", "score", "difference", "95 % interval over people", "verdict"]
    rows = [
        [look.contrast.name, f"[{look.record.name}]({page}#{_slug(look.record.title)})", *look.cells()]
        for look in _looks(records)
    ]
    return markdown_table(header, rows)


def _looks(records: Mapping[str, StudyRecord]) -> list[_Look]:
    return [_Look(record, contrast) for record in records.values() for contrast in record.contrasts]


def _count(records: Mapping[str, StudyRecord]) -> str:
    """How many helped, and how many would by chance."""
    verdicts = Counter(verdict(look.contrast.scores[0]).partition(":")[0] for look in _looks(records))
    told = ", ".join(f'{number} "{what}"' for what, number in verdicts.most_common())
    contrasts = "1 contrast" if verdicts.total() == 1 else f"{verdicts.total()} contrasts"
    return f"{contrasts}: {told}. If nothing had any effect, about 1 in 20 would be clear of zero."


def _study(record: StudyRecord, address: str) -> Iterator[str]:
    yield " ".join([*(line for line in protocol_warning(record) if line), *describe_people(record)])
    seeds = f"mean ± sd over {record.seeds} seeds" if record.seeds > 1 else "one seed"
    yield f"Scores on {record.split}, {seeds} (95 % interval over people):"
    yield score_table(record)
    if record.contrasts:
        yield "Differences, the second system minus the first (95 % interval over people):"
        yield contrast_table(record)
    yield "\n".join(f"- {note}" for note in notes_of(record))
    yield f"All numbers: [{address.rpartition('/')[2]}]({address}). Again:"
    yield f"```bash\n{record.command}\n```"


def _slug(title: str) -> str:
    """The address of a heading within a page, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
