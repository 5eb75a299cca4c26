"""The only definition of columns, label names and label schemes of prepared data. Imports no other module of ours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict, with_config

SPLITS = ("train", "validation", "test")

# FER2013's own order (https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition).
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
# FER2013's expressions under all names that its editions use.
EXPRESSION_OF = {name: name for name in EXPRESSIONS} | {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
ENGAGENET_LEVELS = ("not-engaged", "barely-engaged", "engaged", "highly-engaged")
STATES = ("bored", "confused", "engaged", "neutral")  # the BEiT reference

# DAiSEE's four affects, each rated 0 (very low) to 3 (very high), by the columns of its label files.
AFFECTS = ("boredom", "engagement", "confusion", "frustration")
LEVELS = ("very low", "low", "high", "very high")
BINARY = ("disengaged", "engaged")
THREE_CLASSES = ("engaged", "bored", "other")  # the CNN + LSTM reference's order
OWN_LABELS = "own"  # the scheme of data whose labels are names already

Media = Literal["video", "picture", "windows", "frames"]
Content = Path | bytes | np.ndarray | list[Path | bytes]  # what a reader returns for one clip

# For classes stored in JSON files; in older pydantic versions they do not inherit the settings of their record.
_AS_RECORDS = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class ClipRecord:
    """One labelled clip or picture of a data set, before preparation."""

    clip_id: str  # unique within its data set
    subject_id: str | None  # None: unknown
    split: str | None  # None: the source has no splits
    source_path: str  # within the source, with forward slashes
    affects: dict[str, int] = field(default_factory=dict)  # by name, 0 to 3
    label: str | None = None  # a name, if the source has one label per clip
    clip_start_sec: float | None = None
    clip_end_sec: float | None = None
    label_scores: list[float] | None = None  # shares of people's votes, by `EXPRESSIONS`, sum 1
    group_id: str | None = None  # clips of one recording, which must stay in one split; None: the clip alone
    frame_paths: list[str] | None = None  # for a window of pictures: the location of each, like `source_path`


@with_config(_AS_RECORDS)
@dataclass(frozen=True)
class Reject:
    """One input that was rejected, and why."""

    path: str
    clip_id: str
    stage: str  # archive, table, source (file missing), label, decode, face, conflict or duplicate
    reason: str
    window_index: int | None = None  # None: the whole clip


@with_config(_AS_RECORDS)
@dataclass(frozen=True)
class SourceNotes:
    """Remarks on a source and its splits, stored in `dataset.json`; None: nothing to remark."""

    files: list[str] | None = None  # lists and tables that were read
    extra_columns: list[str] | None = None  # of tables; not read
    without_label: int | None = None  # daisee: number of videos
    without_video: int | None = None  # daisee: number of labels
    outside_subset: int | None = None  # daisee: number of labelled clips
    other_files: int | None = None  # daisee: number of files that are not videos
    subset: str | None = None
    subject_pattern: str | None = None
    no_subjects: bool | None = None  # whether the people were declared unknown
    window_label: str | None = None  # frames in order: how a window gets one label from its frames' labels
    frames_left_over: int | None = None  # number of frames in order that are in no window
    vote_labels: str | None = None  # soft or majority, if people's votes were read
    without_votes: int | None = None  # number of pictures without usable votes
    seed: int | None = None  # for splits that the source lacks
    split: str | None = None  # where the splits come from
    split_limits: list[str] | None = None  # limits of a newly drawn split
    deduplicated_from: str | None = None  # fingerprint


@dataclass(frozen=True)
class LabelledSource:
    """Result of a reader: inputs = records + rejects."""

    kind: str  # of `readers.sources.KINDS`
    media: Media  # what `read` returns: video or picture (path or bytes), windows (array), frames (list of pictures)
    records: list[ClipRecord]
    rejects: list[Reject]
    # Picklable, since it is sent to other processes. Returns a path or bytes of an encoded file, for windows an array
    # (num_windows, num_frames, height, width, 3) uint8 RGB, for frames a list of files. Raises EngagementInputError.
    read: Callable[[ClipRecord], Content]
    notes: SourceNotes = SourceNotes()
    drawn: bool = False  # people who do not exist, made by `drawn.datasets`


def binary_label(affects: dict[str, int]) -> str:
    """DAiSEE's engagement levels 0 and 1 are disengaged, 2 and 3 engaged (as in the CNN + LSTM reference)."""
    return BINARY[int(affects["engagement"] >= 2)]


def three_class_label(affects: dict[str, int]) -> str | None:
    """The strongest affect as engaged, bored or other (confused, frustrated), as in the CNN + LSTM reference.

    A tie of three or four affects has no label (None); a tie of boredom and engagement follows the binary label; any
    other tie of two is other.
    """
    strongest = _strongest(affects)
    if len(strongest) > 2:
        return None
    if strongest == {"boredom", "engagement"}:
        return "engaged" if binary_label(affects) == "engaged" else "bored"
    if strongest == {"engagement"}:
        return "engaged"
    return "bored" if strongest == {"boredom"} else "other"


def affect_label(affects: dict[str, int]) -> str | None:
    """The strongest affect; None if several are equally strong."""
    strongest = _strongest(affects)
    return strongest.pop() if len(strongest) == 1 else None


def level_label(affects: dict[str, int]) -> str:
    """The engagement level itself, as one of four names."""
    return LEVELS[affects["engagement"]]


def _strongest(affects: dict[str, int]) -> set[str]:
    return {name for name in AFFECTS if affects[name] == max(affects[other] for other in AFFECTS)}


# Label schemes, chosen at training time from the stored affects: name -> (label names, affects -> label).
# A clip whose label is None is left out and counted.
LABEL_SCHEMES: dict[str, tuple[tuple[str, ...], Callable[[dict[str, int]], str | None]]] = {
    "binary": (BINARY, binary_label),
    "three-class": (THREE_CLASSES, three_class_label),
    "levels": (LEVELS, level_label),
    "affects": (AFFECTS, affect_label),
}


def labels_of(rows: Mapping[str, Sequence[str | int | None]], label_scheme: str) -> list[str | None]:
    """One label per row under a scheme of `LABEL_SCHEMES`, or the data's own; None if there is none.

    Args:
        rows: columns by name, `label` or those of `AFFECTS`.
    """
    if label_scheme == OWN_LABELS:
        return [None if label is None else str(label) for label in rows["label"]]
    to_label = LABEL_SCHEMES[label_scheme][1]
    rated = [
        {name: int(level) for name, level in zip(AFFECTS, levels, strict=True) if level is not None}
        for levels in zip(*(rows[name] for name in AFFECTS), strict=True)
    ]
    return [to_label(affects) if len(affects) == len(AFFECTS) else None for affects in rated]


def order_label_names(names: Iterable[str]) -> list[str]:
    """The order of a known set of labels, else alphabetical."""
    present = set(names)
    for known in (BINARY, LEVELS, THREE_CLASSES, STATES, EXPRESSIONS):
        if present <= set(known):
            return [name for name in known if name in present]
    # Two labels alone, such as engaged and not-engaged, are not specific to a known set; they stay alphabetical.
    if present <= set(ENGAGENET_LEVELS) and len(present) > 2:
        return [name for name in ENGAGENET_LEVELS if name in present]
    return sorted(present)
