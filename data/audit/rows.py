"""The rows of a prepared data set as an audit reads them: all splits in one table, with one label per row.

Pictures stay on disk and are read one by one when needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, concatenate_datasets

from ..preparation.prepared_data import PreparedData
from ..schema import AFFECTS, SPLITS, labels_of

_COLUMNS = ("clip_id", "window_index", "subject_id", "source_path", "label", *AFFECTS, "frames_sha256", "frame_hash")


@dataclass(frozen=True)
class AuditRows:
    """Every field has one entry per row: train first, then validation, then test."""

    frames: Dataset = field(repr=False)  # on disk
    label_scheme: str
    split: np.ndarray  # names
    clip_id: list[str]
    window_index: list[int]
    subject_id: list[str | None]
    source_path: list[str]
    label: list[str | None]  # None: the scheme has no label for it
    frames_sha256: list[str]
    frame_hash: list[str | None]

    def __len__(self) -> int:
        return len(self.clip_id)

    def name(self, row: int) -> str:
        """A row's name in messages."""
        return f"{self.clip_id[row]} window {self.window_index[row]}" if self.window_index[row] else self.clip_id[row]

    def picture(self, row: int) -> bytes:
        """The encoded picture in the middle of the window."""
        frames = self.frames[int(row)]["frames"]
        return frames[len(frames) // 2]


def read_rows(data: PreparedData, label_scheme: str | None = None) -> AuditRows:
    """
    Args:
        label_scheme: one of `schema.LABEL_SCHEMES`, or "own" for the data's own label names. Default: "own" if the
            data has names, else "binary".

    Raises:
        RecipeError: the data has no labels under that scheme.
    """
    names = [split for split in SPLITS if split in data.splits]
    splits = [data.splits[name] for name in names]
    read = [split.select_columns(list(_COLUMNS))[:] for split in splits]
    columns = {name: [value for split in read for value in split[name]] for name in _COLUMNS}
    scheme = data.choose_label_scheme(label_scheme)
    labels = labels_of(columns, scheme)
    frames = concatenate_datasets([split.select_columns("frames") for split in splits])
    split_column = np.repeat(names, [len(split) for split in splits])
    kept = {name: columns[name] for name in columns if name not in ("label", *AFFECTS)}
    return AuditRows(frames, scheme, split_column, label=labels, **kept)


def to_codes(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Numbers the distinct values: (rows,) int64."""
    return np.unique(np.asarray(values), return_inverse=True)[1].ravel()
