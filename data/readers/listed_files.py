"""Lists of file names with labels, and the files → records: shared by the readers of EngageNet, AffectNet and RAF-DB.

A line and its file are one input; either alone is also one, and is rejected. Names are compared in lower case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...processor.input_errors import DataError
from ..schema import ClipRecord, Media, Reject
from .tables import Row, find_repeats


@dataclass(frozen=True)
class LabelNames:
    """Meaning of the labels in a list."""

    names: Mapping[str, str]  # text in the list, in lower case → our label
    unusable: Mapping[str, str]  # likewise → why it is not a label

    def name_of(self, text: str) -> str:
        """
        Raises:
            DataError: it is not a usable label.
        """
        if text.lower() in self.unusable:
            raise DataError(f"Expected a label to learn, got {text}: {self.unusable[text.lower()]}")
        if text.lower() not in self.names:
            raise DataError(f"Expected a label among {', '.join(self.names)}, got {text!r}")
        return self.names[text.lower()]


@dataclass(frozen=True)
class Listed:
    """One line of a list."""

    row: Row
    file: str  # key of its file
    clip_id: str
    split: str
    label: str  # as in the list
    subject_id: str | None = None
    problem: str | None = None  # why the line cannot be used, apart from its label


def match_files(
    listed: Iterable[Listed], files: Iterable[tuple[str, str]], names: LabelNames, media: Media
) -> tuple[list[ClipRecord], list[Reject]]:
    """Records in the order of the list, and rejects.

    Args:
        files: the key of each file, as in `Listed.file`, and its path in the source.
    """
    paths, rejects = _one_file_each(files, media)
    usable: list[tuple[Listed, str]] = []
    mentioned: set[str] = set()  # the file of a rejected line is not a second input
    for entry in listed:
        mentioned.add(entry.file.lower())
        try:
            entry.row.check_width()
            label = names.name_of(entry.label)
            if entry.problem:
                raise DataError(entry.problem)
            usable.append((entry, label))
        except DataError as error:
            rejects.append(entry.row.reject("label", entry.clip_id, error))
    records, unmatched = _to_records(usable, paths, media)
    rejects += unmatched
    rejects += [
        Reject(path, file, "label", f"{path} is in no list.") for file, path in paths.items() if file not in mentioned
    ]
    return records, rejects


def _to_records(
    usable: Sequence[tuple[Listed, str]], paths: Mapping[str, str], media: Media
) -> tuple[list[ClipRecord], list[Reject]]:
    repeats = find_repeats([(entry.clip_id.lower(), (label, entry.split)) for entry, label in usable])
    records, rejects = [], []
    for position, (entry, label) in enumerate(usable):
        path = paths.get(entry.file.lower())
        if position in repeats:
            reason = f"Expected one line for {entry.clip_id}, {repeats[position]}"
            rejects.append(entry.row.reject("label", entry.clip_id, reason))
        elif path is None:
            reason = f"There is no {media} for {entry.file}, named"
            rejects.append(entry.row.reject("source", entry.clip_id, reason))
        else:
            records.append(ClipRecord(entry.clip_id, entry.subject_id, entry.split, path, label=label))
    return records, rejects


def _one_file_each(files: Iterable[tuple[str, str]], media: Media) -> tuple[dict[str, str], list[Reject]]:
    paths: dict[str, str] = {}
    rejects = []
    for file, path in files:
        first = paths.setdefault(file.lower(), path)
        if first != path:
            reason = f"{file} has two {media}s: {path} and {first}."
            rejects.append(Reject(path, file, "source", reason))
    return paths, rejects
