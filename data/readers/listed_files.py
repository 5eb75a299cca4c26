"""Lists of file names with a label each, and the files → records: what EngageNet, AffectNet and RAF-DB have in common.

A line and its file are one input; a line or a file alone is one too, and is rejected. Names are compared in lower case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...processor.input_errors import DataError
from ..schema import ClipRecord, Media, Reject
from .tables import Row, find_repeats


@dataclass(frozen=True)
class LabelNames:
    """What the labels in a list mean."""

    names: Mapping[str, str]  # as the list has it, in lower case → a label of ours
    unusable: Mapping[str, str]  # likewise → what it says in place of a label

    def name_of(self, text: str) -> str:
        """
        Raises:
            DataError: no label of ours.
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
    file: str  # by which its file is known
    clip_id: str
    split: str
    label: str  # as the list has it
    subject_id: str | None = None
    problem: str | None = None  # why it cannot be used although its label can


def match_files(
    listed: Iterable[Listed], files: Iterable[tuple[str, str]], names: LabelNames, media: Media
) -> tuple[list[ClipRecord], list[Reject]]:
    """Records in the order of the list, and what cannot be used.

    Args:
        files: what each file is known by, as in `Listed.file`, and its path in the source.
    """
    paths, rejects = _one_file_each(files, media)
    usable: list[tuple[Listed, str]] = []
    mentioned: set[str] = set()  # the file of a rejected line is no second input
    for entry in listed:
        mentioned.add(entry.file.lower())
        try:
            usable.append((entry, _label_of(entry, names)))
        except DataError as error:
            rejects.append(entry.row.reject("label", entry.clip_id, error))
    records, unmatched = _to_records(usable, paths, media)
    rejects += unmatched
    rejects += [
        Reject(path, file, "label", f"Expected a line for {path} in a list, found none.")
        for file, path in paths.items()
        if file not in mentioned
    ]
    return records, rejects


def _label_of(entry: Listed, names: LabelNames) -> str:
    entry.row.check_width()
    label = names.name_of(entry.label)
    if entry.problem:
        raise DataError(entry.problem)
    return label


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
            reason = f"Expected a {media} for {entry.file}, found none"
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
            reason = f"Expected one {media} for {file}, got {path} beside {first}."
            rejects.append(Reject(path, file, "source", reason))
    return paths, rejects
