"""Writes an audit: `audit.json` for programs, `audit.html` with pictures for people, `duplicates.csv`, and a table for
the terminal. The page shows faces, so it is self-contained, loads nothing and asks to be kept on this machine.
"""

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from ...processor.input_errors import DataError
from ..json_records import read_record, write_record
from ..preparation.prepared_data import PreparedData
from .leakage import Audit
from .verdicts import FAIL, OK, PREDICTS_LABEL, REPORT, AuditRecord

AUDIT_FILE = "audit.json"
PAGE_FILE = "audit.html"
DUPLICATES_FILE = "duplicates.csv"
MOST_PICTURES = 40
_DUPLICATE_PAIRS = 8
_GROUPS_SHOWN, _PICTURES_A_GROUP = 4, 6
_THUMBNAIL_PX = 128
_TEMPLATE = Path(__file__).with_suffix(".html")
_STYLES = {FAIL: "bold red", REPORT: "yellow", OK: "green"}


@dataclass(frozen=True)
class Strip:
    """A row of pictures on the page: a title, and thumbnails with captions."""

    title: str
    pictures: list[dict[str, str]]  # uri, caption


def write_audit(audit: Audit, data: PreparedData, folder: Path) -> None:
    """Write `duplicates.csv`, `audit.html` and, last, `audit.json`, whose presence marks the audit as complete."""
    # The title is the folder's own name, without its location.
    page = render_page(audit, data.folder.resolve().name)
    (folder / AUDIT_FILE).unlink(missing_ok=True)
    _write_duplicates(audit, folder / DUPLICATES_FILE)
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    write_record(folder / AUDIT_FILE, audit.record())


def read_audit(folder: Path) -> AuditRecord | None:
    """The content of `audit.json`; None if the data was not audited.

    Raises:
        DataError: it is damaged or of a different version; the message names the key.
    """
    path = folder / AUDIT_FILE
    if not path.exists():
        return None
    return read_record(path, AuditRecord, DataError, "an audit", f"run `engagement audit {folder}`")


def read_duplicates(folder: Path, split: str) -> set[tuple[str, int]]:
    """Clip and window of a split's rows with a duplicate in an earlier split; empty if the data was not audited.

    Raises:
        DataError: the table is damaged.
    """
    path = folder / DUPLICATES_FILE
    if not path.exists():
        return set()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
            return {(row["clip_id"], int(row["window_index"])) for row in rows if row["split"] == split}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged; write it again with `engagement audit {folder}`.") from error


def describe_verdict(audit: Audit) -> str:
    """One line: whether the split can be trusted, what speaks against it, and what gives the label away, in numbers."""
    failed = [finding.name for finding in audit.findings if finding.grade == FAIL]
    reported = [finding for finding in audit.findings if finding.grade == REPORT]
    others = [finding.name for finding in reported if failed or not finding.name.endswith(PREDICTS_LABEL)]
    told = f" To be reported with the scores: {', '.join(others)}." if others else ""
    if failed:
        return f"Failed: this split cannot be trusted ({', '.join(failed)}).{told}"
    if len(others) < len(reported):
        warned = [finding.summary.partition(";")[0] for finding in reported if finding.name not in others]
        return f"Passed, with a warning: scores may come from something other than the face. {'. '.join(warned)}.{told}"
    return f"Passed: nothing found that would make this split worthless.{told}"


def render_table(audit: Audit) -> Table:
    """The findings, one per line, for the terminal."""
    table = Table("", "finding", "what was found", box=None, padding=(0, 1), show_header=False)
    for finding in audit.findings:
        style = _STYLES[finding.grade]
        table.add_row(f"[{style}]{finding.grade.upper()}[/{style}]", finding.name, _escaped(finding.summary))
    return table


def print_audit(audit: Audit, folder: Path, console: Console | None = None) -> None:
    """Print the table, the verdict in one line, and the page's path."""
    console = console or Console()
    console.print(render_table(audit))
    console.print(_escaped(describe_verdict(audit)), style=_STYLES[OK if audit.passed else FAIL], soft_wrap=True)
    console.print(_escaped(f"with pictures (of people: keep it on this machine): {folder / PAGE_FILE}"), soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def render_page(audit: Audit, name: str) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(audit=audit, name=name, verdict=describe_verdict(audit), strips=_strips(audit))


def _strips(audit: Audit) -> list[Strip]:
    strips = [*_group_strips(audit), *_duplicate_strips(audit)]
    kept, left = [], MOST_PICTURES
    for strip in strips:
        if len(strip.pictures) <= left:
            kept.append(strip)
            left -= len(strip.pictures)
    return kept


def _group_strips(audit: Audit) -> list[Strip]:
    """The largest shared groups; pictures are taken from each split in turn."""
    sizes = np.bincount(audit.groups)
    strips = []
    for group in sorted(audit.shared_groups, key=lambda group: -sizes[group])[:_GROUPS_SHOWN]:
        members = np.flatnonzero(audit.groups == group)
        by_split = [members[audit.rows.split[members] == split] for split in audit.counts.windows]
        a_split = -(-_PICTURES_A_GROUP // sum(len(rows) > 0 for rows in by_split))
        spread = [rows[:: max(1, len(rows) // a_split)][:a_split] for rows in by_split]
        pictures = [_picture(audit, row) for row in np.concatenate(spread)]
        strips.append(Strip(f"One recording in several splits: {len(members)} windows", pictures))
    return strips


def _duplicate_strips(audit: Audit) -> list[Strip]:
    """Pairs of nearly identical pictures, the least similar first; identical pairs come last."""
    pairs = sorted(audit.duplicates, key=lambda item: (item.identical, -item.distance_bits))[:_DUPLICATE_PAIRS]
    strips = []
    for item in pairs:
        kind = (
            "The same picture"
            if item.identical
            else f"Nearly the same picture ({item.distance_bits} of 256 bits differ)"
        )
        title = f"{kind} in {audit.rows.split[item.row]} and {audit.rows.split[item.other]}"
        strips.append(Strip(title, [_picture(audit, item.row), _picture(audit, item.other)]))
    return strips


def _picture(audit: Audit, row: int) -> dict[str, str]:
    image = Image.open(io.BytesIO(audit.rows.picture(row))).convert("RGB")
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    label = audit.rows.label[row] or "no label"
    return {
        "uri": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}",
        "caption": f"{audit.rows.split[row]}, {label}: {audit.rows.name(row)}",
    }


def _write_duplicates(audit: Audit, path: Path) -> None:
    rows, columns = audit.rows, ("clip_id", "window_index", "split")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*columns, "distance", *(f"other_{name}" for name in columns)))
        for item in audit.duplicates:
            first, second = (
                (rows.clip_id[row], rows.window_index[row], rows.split[row]) for row in (item.row, item.other)
            )
            writer.writerow((*first, item.distance_bits, *second))
