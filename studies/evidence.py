"""`study.json` of several studies → docs/evidence.md, and the contrasts in README: what helped, and what did not.

A difference whose interval includes zero is a result, too, and shown like the others.
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

QUESTION = (
    "Does it help to train on expressions first, and to read frames in order, on people the model has never seen?"
)
NOTHING = "Nothing has been measured yet."
_HOW_TO_READ = """\
How to read it:

- A difference is the second system minus the first, as a mean over seeds (± standard deviation), on the same people.
  Its interval is over resampled people, each with all of their clips, for these trainings only.
- "Not shown" is a result: the interval includes zero, and the difference may be as large as its ends.
- Each contrast is judged only by the score that its study names first; other scores are shown for information.
- AUROC: how often a clip of the rarest class gets a higher score for it than a clip of another class; 0.5 is chance.
  Within-person AUROC only compares clips of the same person, so that distinguishing people does not raise it. "Fitted"
  means with the decision fitted on validation people."""


class _Look(NamedTuple):
    """A contrast with its study."""

    record: StudyRecord
    contrast: MeasuredContrast

    def people(self) -> str:
        """The people it was measured on, in a few words."""
        rows = [row for row in self.record.rows if row.name in self.contrast.rows and row.finished]
        if not rows:
            return "–"
        run = rows[-1].finished[0]
        number, drawn = run.measured_on.num_people, any(data.drawn for data in run.data.values())
        return ("unknown" if number is None else f"{number:,}") + (" drawn" if drawn else "")

    def cells(self) -> list[str]:
        """People, score, difference, interval and verdict, for the score that judges it."""
        judged = self.contrast.scores[0]
        found = [difference_text(judged), difference_interval(judged), verdict(judged)]
        return [self.people(), score_in_words(judged.score), *found]


def render_evidence(records: Mapping[str, StudyRecord]) -> str:
    """docs/evidence.md.

    Args:
        records: by the address of each record's file, relative to the page.
    """
    opening = f"# Evidence\n\n{QUESTION}\n`make readme` generates this page from the files of the studies."
    if not records:
        return f"{opening}\n\n{NOTHING}\n"
    parts = [opening, "## In one look", _look_table(records), _count(records), _HOW_TO_READ]
    for address, record in records.items():
        parts += [f"## {record.title}", *_study(record, address)]
    return "\n\n".join(parts) + "\n"


def render_contrasts(records: Mapping[str, StudyRecord], page: str) -> str:
    """The part of README: one line per contrast.

    Args:
        page: address of docs/evidence.md.
    """
    if not records:
        return f"{QUESTION} {NOTHING}\nThe results will be in [{page}]({page})."
    told = f"How to read it, all scores and systems, and how to repeat it: [{page}]({page})."
    return "\n\n".join([QUESTION, _look_table(records, page), f"{_count(records)}\n{told}"])


def _look_table(records: Mapping[str, StudyRecord], page: str = "") -> str:
    """One line per contrast, with links to the studies' parts of the page."""
    header = ["contrast", "study", "people", "score", "difference", "95 % interval over people", "verdict"]
    rows = [
        [look.contrast.name, f"[{look.record.name}]({page}#{_slug(look.record.title)})", *look.cells()]
        for look in _looks(records)
    ]
    return markdown_table(header, rows)


def _looks(records: Mapping[str, StudyRecord]) -> list[_Look]:
    return [_Look(record, contrast) for record in records.values() for contrast in record.contrasts]


def _count(records: Mapping[str, StudyRecord]) -> str:
    """How many contrasts have each verdict, and how many would differ from zero by chance."""
    verdicts = Counter(verdict(look.contrast.scores[0]).partition(":")[0] for look in _looks(records))
    told = ", ".join(f'{number} "{what}"' for what, number in verdicts.most_common())
    contrasts = "1 contrast" if verdicts.total() == 1 else f"{verdicts.total()} contrasts"
    return f"{contrasts}: {told}. Without any effect, the interval of about 1 in 20 would exclude zero."


def _study(record: StudyRecord, address: str) -> Iterator[str]:
    yield " ".join([*(line for line in protocol_warning(record) if line), *describe_people(record)])
    seeds = f"mean ± sd over {record.seeds} seeds" if record.seeds > 1 else "one seed"
    yield f"Scores on {record.split}, {seeds} (95 % interval over people):"
    yield score_table(record)
    if record.contrasts:
        yield "Differences, the second system minus the first (95 % interval over people):"
        yield contrast_table(record)
    yield "\n".join(f"- {note}" for note in notes_of(record))
    yield f"All numbers: [{address.rpartition('/')[2]}]({address}). To repeat it:"
    yield f"```bash\n{record.command}\n```"


def _slug(title: str) -> str:
    """The anchor of a heading within a page, as generated by GitHub."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
