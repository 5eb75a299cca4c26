"""The journal of one recording: a first line that names it, one line per window, and a last line about people.

During reading, a second file stores the reader's state; with both, reading continues after any interruption.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...data.growing_file import GrowingFile
from ...inference.predictor import Predictor
from ...inference.timeline import clock
from ...processor.input_errors import DataError, in_one_line
from ...processor.video_decoding import sampling_notes
from ...processor.video_index import VideoIndex
from .reader import SessionReader, plan_looks
from .records import SessionPerson, SessionRow, SessionVideo, Visit
from .state import load_state, save_state

SAVED_EVERY_WINDOWS = 6  # at most a minute of video is read again


@dataclass(frozen=True)
class _Kept:
    """The content of a journal."""

    video: SessionVideo
    line_ends: list[int]  # in bytes, of the first line and each window
    is_finished: bool


def read_recording(
    predictor: Predictor,
    path: Path,
    source: str,
    journal: Path,
    on_window: Callable[[int, int], None] | None = None,
    video_track: int | None = None,
) -> SessionVideo:
    """Read a recording, from where its journal ends.

    Args:
        path: the recording.
        source: its name in the rows.
        on_window: called with the number of windows done, and of all.
        video_track: which of several, from 1; None: the default one.

    Raises:
        EngagementInputError: it cannot be read, or the disk is full; what was read before is not lost.
    """
    kept = kept_in(journal)
    if kept is not None and kept.is_finished:
        return kept.video
    index, state = predictor.video_processor.index_file(path, video_track, whole=False), journal.with_suffix(".npz")
    reader, end = SessionReader(predictor, source), 0
    if kept is not None and load_state(reader, state):
        if reader.num_windows >= len(kept.line_ends):
            raise DataError(
                f"{journal} has fewer than the {reader.num_windows} windows in {state}; delete {state.name}."
            )
        end = kept.line_ends[reader.num_windows]
    num_windows = len(plan_looks(predictor, index))
    with GrowingFile(journal, end) as file:
        if not end:
            _append(file, {"source": source, "duration_sec": index.end_sec})
        for rows in reader.rows_of(index):
            _append(file, {"rows": [_row_to_json(row) for row in rows]})
            if reader.num_windows % SAVED_EVERY_WINDOWS == 0:
                save_state(reader, state)
            if on_window is not None:
                on_window(reader.num_windows, num_windows)
        reader.finish()
        people = [asdict(person) for person in reader.people.records()]
        processor = predictor.video_processor
        notes = _notes(reader, index) + list(sampling_notes(index, processor.num_frames, processor.sampling))
        _append(file, {"people": people, "num_passers_by": reader.num_passers_by, "notes": notes})
    state.unlink(missing_ok=True)
    finished = kept_in(journal)
    if finished is None:
        raise DataError(f"The journal {journal} was deleted during reading; type the same command again.")
    return finished.video


def kept_in(journal: Path) -> "_Kept | None":
    """What was read of a recording so far, or None. People are known only once it is finished.

    Raises:
        DataError: the file is not a journal.
    """
    try:
        lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
        lines = [line for line in lines if line.endswith(b"\n")]  # a killed process may leave an incomplete line
        if not lines:
            return None
        head, *entries = [json.loads(line) for line in lines]
        last = entries.pop() if entries and "people" in entries[-1] else None
        source, duration_sec = head["source"], head["duration_sec"]
        rows = [SessionRow(source, **row) for entry in entries for row in entry["rows"]]
        people = tuple(_person_of(person) for person in last["people"]) if last else ()
        num_passers_by, notes = (last["num_passers_by"], tuple(last["notes"])) if last else (0, ())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{journal} is not a recording's journal ({in_one_line(error)}); delete it to read the recording again."
        ) from error
    if last is None:
        read_sec = rows[-1].end_sec if rows else 0.0
        notes = (f"read up to {clock(read_sec)} of {clock(duration_sec)} so far",)
    ends, at = [], 0
    for line in lines:
        ends.append(at := at + len(line))
    video = SessionVideo(source, duration_sec, tuple(rows), people, num_passers_by, notes)
    return _Kept(video, ends, last is not None)


def _append(file: GrowingFile, line: dict[str, Any]) -> None:  # JSON
    try:
        file.append(json.dumps(line, allow_nan=False) + "\n")
    except OSError as error:
        raise DataError(
            f"No room in {file.path} ({in_one_line(error)}); what was read before is saved: make room and type the "
            "same command again."
        ) from error


def _row_to_json(row: SessionRow) -> dict[str, Any]:  # as JSON has it
    return {name: value for name, value in asdict(row).items() if name != "source"}


def _person_of(known: dict[str, Any]) -> SessionPerson:  # as JSON has it
    visits = tuple(Visit(**visit) for visit in known["visits"])
    return SessionPerson(known["number"], visits, known["may_be"])


def _notes(reader: SessionReader, index: VideoIndex) -> list[str]:
    notes = list(index.notes)
    if index.cut:
        notes.append(f"the file breaks off after {clock(index.end_sec)} ({index.cut}), and was read up to there")
    if reader.num_unreadable_looks:
        notes.append(f"{reader.num_unreadable_looks} of the sampled frames cannot be read")
    return notes
