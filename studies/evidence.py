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
    protocol_warning,
    score_table,
    seed_notes,
    trust_notes,
    verdict,
)

QUESTION = (
    "Does it help to train on expressions first, and to read frames in order, on people the model has never seen?"
)
_MARKS = "¹²³⁴⁵⁶⁷⁸⁹"  # of caveats
NOTHING = "Nothing has been measured yet."
_HOW_TO_READ = """\
How to read it:

- A difference is the second system minus the first, on the same people: the mean over seeds ± standard deviation. Its
  interval is over resampled people, each with all of their clips, for these trainings only.
- "Not shown" is a result: the interval includes zero, and the difference may be as large as its ends.
- Each contrast is judged by one score, which its study names first. The other scores are shown below for information,
  also where they point the other way ("hurts").
- AUROC: how often a clip of the rarest class gets a higher score for it than a clip of another class; 0.5 is chance.
  Within-person AUROC only compares clips of the same person, so that distinguishing people does not raise it. "Fitted"
  means with the decision fitted on validation people.
- Minutes per run only show which systems cost more: the machine is not recorded."""


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

    def cells(self, mark: str) -> list[str]:
        """People, score, difference, interval and verdict, for the score that judges it.

        Args:
            mark: leads to the contrast's caveat; empty without one.
        """
        judged = self.contrast.scores[0]
        found = [difference_text(judged), difference_interval(judged), verdict(judged) + mark]
        return [self.people(), score_in_words(judged.score), *found]


def render_evidence(records: Mapping[str, StudyRecord], answer: str = "") -> str:
    """docs/evidence.md.

    Args:
        records: by the address of each record's file, relative to the page.
        answer: the answer to `QUESTION`, in words.
    """
    opening = f"# Evidence\n\n{QUESTION}"
    if not records:
        return f"{opening}\n\n{NOTHING}\n"
    generated = "`make readme` generates this page from the files of the studies."
    parts = [opening, *filter(None, [answer]), generated, "## In one look", *_look(records), _HOW_TO_READ]
    for address, record in records.items():
        parts += [f"## {record.title}", *_study(record, address)]
    return "\n\n".join(parts) + "\n"


def render_contrasts(records: Mapping[str, StudyRecord], page: str, answer: str = "") -> str:
    """The part of README: one line per contrast.

    Args:
        page: address of docs/evidence.md.
        answer: the answer to `QUESTION`, in words.
    """
    if not records:
        return f"{QUESTION} {NOTHING}\nThe results will be in [{page}]({page})."
    told = f"How to read it, all scores and systems, and how to repeat it: [{page}]({page})."
    return "\n\n".join([QUESTION, *filter(None, [answer]), *_look(records, page), told])


def _look(records: Mapping[str, StudyRecord], page: str = "") -> Iterator[str]:
    """A table with one line per contrast and links to the studies' parts of the page; caveats; counts of verdicts."""
    header = ["contrast", "study", "people", "score", "difference", "95 % interval over people", "verdict"]
    looks = _looks(records)
    noted = [look for look in looks if look.contrast.caveat]
    marks = [f" {_MARKS[noted.index(look)]}" if look in noted else "" for look in looks]
    yield markdown_table(
        header,
        [
            [look.contrast.name, f"[{look.record.name}]({page}#{_slug(look.record.title)})", *look.cells(mark)]
            for look, mark in zip(looks, marks, strict=True)
        ],
    )
    yield from (f"{mark} {look.contrast.caveat}" for mark, look in zip(_MARKS, noted, strict=False))
    yield _count(records)


def _looks(records: Mapping[str, StudyRecord]) -> list[_Look]:
    return [_Look(record, contrast) for record in records.values() for contrast in record.contrasts]


def _count(records: Mapping[str, StudyRecord]) -> str:
    """How many contrasts have each verdict, and how many would differ from zero by chance."""
    verdicts = Counter(verdict(look.contrast.scores[0]).partition(":")[0] for look in _looks(records))
    told = ", ".join(f'{number} "{what}"' for what, number in verdicts.most_common())
    contrasts = "1 contrast" if verdicts.total() == 1 else f"{verdicts.total()} contrasts"
    return f"{contrasts}: {told}. If nothing had any effect, about 1 in 20 intervals would still exclude zero."


def _study(record: StudyRecord, address: str) -> Iterator[str]:
    yield " ".join([*(line for line in protocol_warning(record) if line), *describe_people(record)])
    seeds = f"mean ± sd over {record.seeds} seeds" if record.seeds > 1 else "one seed"
    yield f"Scores on {record.split}, {seeds} (95 % interval over people):"
    yield score_table(record)
    if record.contrasts:
        yield "Differences, the second system minus the first (95 % interval over people):"
        yield contrast_table(record)
    yield "\n".join(f"- {note}" for note in _notes(record))
    data = "[the data](studies.md#do-expressions-first-and-time-help-on-real-people)"
    yield f"All numbers: [{address.rpartition('/')[2]}]({address}). To repeat it, with {data} in a folder of that name:"
    yield f"```bash\n{record.command}\n```"


def _notes(record: StudyRecord) -> list[str]:
    """Without names of folders, and without advice for who trains."""
    caveats = [f"{contrast.name}: {contrast.caveat}" for contrast in record.contrasts if contrast.caveat]
    runs = [run for row in record.rows for run in row.finished]
    known = dict.fromkeys(data.fingerprint[:12] for run in runs for data in run.data.values())
    fingerprints = [f"Fingerprint of the prepared data: {', '.join(f'`{one}`' for one in known)}."] if known else []
    collapsed = [row.title for row in record.rows if any(run.collapse for run in row.finished)]
    which = "every system" if len(collapsed) == len(record.rows) else "; ".join(collapsed)
    collapses = [
        f"By plain argmax, nearly every clip gets the most frequent class from {which}. The scores above do not use "
        'argmax: AUROC and average precision rank clips, and "fitted" means the decision fitted on validation people.'
    ]
    return [
        *record.notes, *caveats, *trust_notes(record.rows), *seed_notes(record), *(collapses if collapsed else []),
        *fingerprints,
    ]  # fmt: skip


def _slug(title: str) -> str:
    """The anchor of a heading within a page, as generated by GitHub."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
