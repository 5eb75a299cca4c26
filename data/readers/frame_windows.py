"""Pictures that are frames in order → windows of consecutive frames with one label each.

A window never spans a gap: frames are divided into runs where one is missing, and each gap is a reject. Two frames at
the same position are rejected, too. Frames left at the end of a run, too few for a window, are counted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from ...processor.input_errors import RecipeError
from ..schema import AFFECTS, LEVELS, ClipRecord, Reject

WindowLabel = Literal["majority", "mean", "last"]
WINDOW_LABELS: tuple[WindowLabel, ...] = ("majority", "mean", "last")


@dataclass(frozen=True)
class WindowOptions:
    """Options for making windows of frames in order."""

    num_frames: int
    stride_frames: int
    label: str  # of WINDOW_LABELS


@dataclass(frozen=True)
class Frame:
    """A picture and its position in a sequence."""

    picture: ClipRecord
    sequence: str  # the clip, or the person, that the frame belongs to
    index: int


@dataclass(frozen=True)
class FrameWindows:
    """One record per window, rejects, and the number of frames that are in no window."""

    records: list[ClipRecord]
    rejects: list[Reject]
    left_over: int


def cut_windows(frames: Sequence[Frame], options: WindowOptions) -> FrameWindows:
    """Windows of each sequence, in the sequences' order of appearance; frames may come in any order.

    A clip id is the sequence, then `@first-last`: the positions of the window's first and last frame. A change of split
    or person within a sequence ends a run.

    Raises:
        RecipeError: the window label does not exist, or is a mean of labels that have no order.
    """
    if options.label not in WINDOW_LABELS:
        raise RecipeError(f"Expected a window label among {', '.join(WINDOW_LABELS)}, got {options.label!r}.")
    by_sequence: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_sequence[frame.sequence].append(frame)
    records: list[ClipRecord] = []
    rejects: list[Reject] = []
    used: set[str] = set()
    for sequence, members in by_sequence.items():
        for run in _runs(sequence, sorted(members, key=lambda frame: frame.index), rejects):
            if len(run) < options.num_frames:
                rejects.append(_too_short(sequence, run, options.num_frames))
            for start in range(0, len(run) - options.num_frames + 1, options.stride_frames):
                window = run[start : start + options.num_frames]
                used.update(frame.picture.source_path for frame in window)
                records.append(_to_record(sequence, window, options.label))
    left_over = len({frame.picture.source_path for frame in frames} - used)
    return FrameWindows(records, rejects, left_over)


def _runs(sequence: str, frames: Sequence[Frame], rejects: list[Reject]) -> Iterator[list[Frame]]:
    """Runs of consecutive frames; each gap is added to `rejects`."""
    run = [frames[0]]
    for before, frame in pairwise(frames):
        missing = frame.index - before.index - 1
        if missing:
            which = f"frame {before.index + 1}" if missing == 1 else f"frames {before.index + 1} to {frame.index - 1}"
            reason = f"{sequence} lacks {which}; no window spans this gap."
            rejects.append(Reject(frame.picture.source_path, sequence, "source", reason))
        if missing or _whose(before) != _whose(frame):
            yield run
            run = []
        run.append(frame)
    yield run


def _whose(frame: Frame) -> tuple[str | None, str | None]:
    return frame.picture.split, frame.picture.subject_id


def _too_short(sequence: str, run: Sequence[Frame], num_frames: int) -> Reject:
    places = f"frames {run[0].index} to {run[-1].index}" if len(run) > 1 else f"frame {run[0].index}"
    reason = f"A window needs {num_frames} consecutive frames, {sequence} has only {len(run)}: {places}."
    return Reject(run[0].picture.source_path, sequence, "source", reason)


def _to_record(sequence: str, window: Sequence[Frame], how: str) -> ClipRecord:
    pictures = [frame.picture for frame in window]
    labels = [picture.label for picture in pictures if picture.label is not None]
    rated = [picture.affects for picture in pictures if picture.affects]
    return replace(
        pictures[0],
        clip_id=f"{sequence}@{window[0].index}-{window[-1].index}",
        label=_label_of(labels, how) if labels else None,
        affects={name: int(_level_of([str(of[name]) for of in rated], how)) for name in AFFECTS} if rated else {},
        group_id=sequence,
        frame_paths=[picture.source_path for picture in pictures],
    )


def _label_of(labels: Sequence[str], how: str) -> str:
    if how != "mean":
        return _level_of(labels, how)
    if set(labels) <= set(LEVELS):
        return LEVELS[int(_level_of([str(LEVELS.index(label)) for label in labels], how))]
    if not all(label.isdigit() for label in labels):
        raise RecipeError(
            f"The window label mean needs levels (whole numbers, or {', '.join(LEVELS)}), got "
            f"{', '.join(sorted(set(labels)))}; choose majority or last."
        )
    return _level_of(labels, how)


def _level_of(levels: Sequence[str], how: str) -> str:
    """The mean rounded (a half up), the last, or the most frequent level (the latest one of a tie)."""
    if how == "mean":
        return str(int(sum(map(int, levels)) / len(levels) + 0.5))
    return levels[-1] if how == "last" else Counter(reversed(levels)).most_common(1)[0][0]
