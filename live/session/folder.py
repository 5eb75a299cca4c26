"""A session's folder: its recordings, what was read from each, and the tables and page made from that.

`session.json` lists the recordings, and `parts/` has one journal per recording. Tables and page are written from the
journals again whenever a recording is finished, so that they exist after any kind of end.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow
import pyarrow.parquet

from ...data.atomic_files import claim_folder, whole_file, write_whole, writing
from ...data.face_signals import SIGNALS
from ...data.json_records import Count, Record, read_record, write_record
from ...inference.answer_table import fingerprint
from ...inference.predictions import Refusal
from ...inference.predictor import Predictor
from ...processor.input_errors import DataError, RecipeError, VideoReadError, in_one_line
from ...processor.video_container import resolve_source
from .journal import kept_in, read_recording
from .page import render_page
from .reader import KEEP_LOST_SEC, LOOK_EVERY_SEC, MAX_PEOPLE, MIN_SEEN_SEC
from .records import SessionRow, SessionVideo

SESSION_FILE = "session.json"
WINDOWS_TABLE, WINDOWS_PARQUET, PEOPLE_TABLE = "windows.csv", "windows.parquet", "people.csv"
REFUSED_TABLE = "refused.csv"
PAGE_FILE, BLURRED_FOLDER = "session.html", "blurred"
_PARTS = "parts"
_HASHED_BYTES = 1 << 20  # at a recording's start and end; reading all of an hour would take a while
_REMEDY = "choose another folder"
Cell = str | float | int | None


class Recording(Record):
    """One file of a session."""

    source: str
    """its path, as given"""
    num_bytes: Count
    content: str
    """SHA-256 of its first and last megabyte, to notice a different file"""


class SessionRecord(Record):
    """The content of a session's folder."""

    version: Literal[1]
    made_with: str
    """fingerprint of model and settings"""
    recordings: list[Recording]
    """in the order of their numbers in `parts`"""


class SessionFolder:
    """
    Args:
        sources: all requested recordings; they must include those in the folder.
        video_track: which of several, from 1; None: the default one.

    Raises:
        DataError: the folder contains something else, another session, or other recordings.
        RecipeError: the model reads whole frames, which cannot be assigned to people.
    """

    def __init__(
        self, path: Path, predictor: Predictor, sources: Sequence[Path], video_track: int | None = None
    ) -> None:
        self.path, self._predictor, self._sources = path, predictor, list(sources)
        self._video_track = video_track
        if not predictor.video_processor.face_crop:
            raise RecipeError("A session needs a model of faces, got one of whole frames; use another model.")
        settings = [fingerprint(predictor, None, video_track), LOOK_EVERY_SEC, MIN_SEEN_SEC, KEEP_LOST_SEC, MAX_PEOPLE]
        made_with = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        record = SessionRecord(version=1, made_with=made_with, recordings=[])
        claim_folder(path, SESSION_FILE, record.model_dump_json(indent=2), "a session")
        self._record = read_record(path / SESSION_FILE, SessionRecord, DataError, "a session", _REMEDY)
        if self._record.made_with != made_with:
            raise DataError(f"The session in {path} was made with another model or other settings; {_REMEDY}.")
        asked = set(map(name_of, self._sources))
        recordings = enumerate(self._record.recordings, start=1)
        read = [known.source for number, known in recordings if self._journal(number).exists()]
        if others := [source for source in read if source not in asked]:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise DataError(
                f"The session in {path} also contains {others[0]}{more}; {_REMEDY}, or name those recordings too."
            )

    def read(self, source: Path, on_window: Callable[[int, int], None] | None = None) -> SessionVideo:
        """Read a recording, from where an earlier run stopped.

        Args:
            on_window: called with the number of windows done, and of all.

        Raises:
            EngagementInputError: it cannot be read, is a different file than before, or the disk is full; what was read
                before is not lost.
        """
        journal = self._journal(self._number_of(source))
        return read_recording(self._predictor, source, name_of(source), journal, on_window, self._video_track)

    def write_tables(self, refused: Sequence[Refusal], names: str | None = None) -> list[SessionVideo]:
        """Write tables and page for all recordings read so far; returns these in the requested order.

        Args:
            refused: recordings that could not be read.
            names: what the model predicts, if not engagement.

        Raises:
            DataError: they cannot be written.
        """
        numbers = {known.source: number for number, known in enumerate(self._record.recordings, start=1)}
        asked = dict.fromkeys(name for name in map(name_of, self._sources) if name in numbers)
        kept = [kept_in(self._journal(numbers[name])) for name in asked]
        videos = [entry.video for entry in kept if entry is not None]
        columns = columns_of(self._predictor.rule.label_names)
        rows = [_flat(row, columns) for video in videos for row in video.rows]
        write_whole(self.path / WINDOWS_TABLE, _to_csv(columns, [list(row.values()) for row in rows]))
        # Explicit types: without any label in a session, the column's type would be unknown.
        text = dict.fromkeys(("source", "label", "reason"), pyarrow.string())
        types = dict.fromkeys(columns, pyarrow.float64()) | text | {"person": pyarrow.int32()}
        table = pyarrow.table({name: pyarrow.array([row[name] for row in rows], types[name]) for name in columns})
        with whole_file(self.path / WINDOWS_PARQUET) as partial, writing(self.path / WINDOWS_PARQUET):
            pyarrow.parquet.write_table(table, partial)
        visits: list[list[Cell]] = [
            [video.source, person.number, round(visit.start_sec, 3), round(visit.end_sec, 3), person.may_be]
            for video in videos
            for person in video.people
            for visit in person.visits
        ]
        write_whole(
            self.path / PEOPLE_TABLE, _to_csv(["source", "person", "start_sec", "end_sec", "may_be_person"], visits)
        )
        reasons: list[list[Cell]] = [[name_of(Path(refusal.source)), refusal.error] for refusal in refused]
        write_whole(self.path / REFUSED_TABLE, _to_csv(["source", "error"], reasons))
        page = render_page(videos, refused, self._predictor.rule, self._predictor.warnings, names)
        write_whole(self.path / PAGE_FILE, page)
        return videos

    def blurred_copy(self, source: Path) -> Path:
        """Path of a recording's copy with blurred faces; copies after the first of the same name are numbered."""
        number = self._number_of(source)
        earlier = {Path(known.source).stem.casefold() for known in self._record.recordings[: number - 1]}
        stem = Path(name_of(source)).stem
        return self.path / BLURRED_FOLDER / f"{stem}{f'_{number}' if stem.casefold() in earlier else ''}.mp4"

    @property
    def made_with(self) -> str:
        """A fingerprint that changes with model and settings."""
        return self._record.made_with

    def _number_of(self, source: Path) -> int:
        """A recording's number, assigned permanently."""
        found = _describe(source)
        for number, known in enumerate(self._record.recordings, start=1):
            if known.source == found.source:
                if known != found:
                    raise DataError(
                        f"{source} has changed since this session began; {_REMEDY}, or give the file another name."
                    )
                return number
        recordings = [*self._record.recordings, found]
        self._record = self._record.model_copy(update={"recordings": recordings})
        write_record(self.path / SESSION_FILE, self._record)
        return len(recordings)

    def _journal(self, number: int) -> Path:
        return self.path / _PARTS / f"{number:04}.jsonl"


def name_of(source: Path) -> str:
    """A recording's name in tables, which can only contain valid text."""
    return str(source).encode("utf-8", "replace").decode()


def columns_of(label_names: Sequence[str]) -> list[str]:
    """Columns of `windows.csv`, which has one row per person and window."""
    scores = [f"score/{name}" for name in label_names]
    return [
        "source", "person", "start_sec", "end_sec", "label", "reason", "certainty", *scores, "face_coverage", *SIGNALS,
    ]  # fmt: skip


def _flat(row: SessionRow, columns: Sequence[str]) -> dict[str, Cell]:
    known: dict[str, Cell] = {f"score/{name}": score for name, score in (row.scores or {}).items()}
    known |= row.signals
    return {name: known.get(name, getattr(row, name, None)) for name in columns}


def _to_csv(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    text = io.StringIO()
    rounded = [[round(cell, 4) if isinstance(cell, float) else cell for cell in row] for row in rows]
    csv.writer(text, lineterminator="\n").writerows([columns, *rounded])
    return text.getvalue()


def _describe(source: Path) -> Recording:
    resolve_source(source)  # refuses addresses, folders and pictures
    try:
        with source.open("rb") as file:
            num_bytes = file.seek(0, io.SEEK_END)
            content = hashlib.sha256()
            for start in (0, max(0, num_bytes - _HASHED_BYTES)):
                file.seek(start)
                content.update(file.read(_HASHED_BYTES))
    except (OSError, ValueError) as error:
        raise VideoReadError(f"The video {source} cannot be read ({in_one_line(error)}); check the path.") from error
    return Recording(source=name_of(source), num_bytes=num_bytes, content=content.hexdigest())
