"""Face focus over a data set: the share of heat for the predicted class on the face, with intervals over people.

Clips are sampled at random and explained as `explain` does, each video through the model's own processor. For a model
of whole frames the detector then searches the file's frames for the face, since prepared whole frames are resized to
squares and have no detections. Clips without a face, or without heat, are counted separately, outside the mean.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from ..data.preparation.picture_codec import decode_picture
from ..data.preparation.prepared_data import PreparedData, is_prepared, load_prepared
from ..data.readers.sources import SourceOptions, read_source
from ..data.schema import ClipRecord
from ..evaluation.focus_records import FaceFocusResults, FocusPeople, FocusRegion, FocusSanity
from ..inference.predictor import Predictor
from ..processor.input_errors import DataError, EngagementInputError, NoFaceError
from .explain_files import explain_file
from .face_focus import REGIONS, FaceFocus, face_focus, focus_over_people, input_transforms
from .heat_maps import ClipExplanation, explain_clip
from .map_checks import deletion_insertion, randomisation_check

CHECKED_CLIPS = 5  # number of clips whose maps are checked
_UNTRAINED_DRAWS = 2
_DELETION = {"steps": 8, "num_random_orders": 3}


class FaceCropRow(TypedDict):
    """The columns used of a row of prepared face crops; one entry per frame."""

    frames: list[bytes]
    boxes_xyxy_px: list[list[float]]
    landmarks_xy_px: list[list[list[float]]]
    transforms: list[list[list[float]]]
    found: list[bool]


@dataclass(frozen=True)
class FocusClip:
    """One clip to be explained, and its person."""

    clip_id: str
    subject_id: str | None
    source: Path | Callable[[], FaceCropRow]  # a video file, or a function that reads a row of prepared face crops


@dataclass(frozen=True)
class _Explained:
    pixel_values: torch.Tensor  # (num_frames, C, H, W)
    explanation: ClipExplanation
    focus: FaceFocus


def find_clips(
    data: Path, split: str = "test", kind: str | None = None, options: SourceOptions | None = None
) -> list[FocusClip]:
    """The clips of a split: the video files of a raw source, or the face crops of prepared data (the first
    window of each clip).

    Args:
        kind, options: for a raw source, as for `read_source`.

    Raises:
        DataError: there is no such split, or the data are single face pictures, or prepared whole frames, whose faces
            are unknown.
    """
    if is_prepared(data):
        return _find_prepared(load_prepared(data), split)
    source = read_source(kind, data, options)
    if source.media != "video":
        raise _not_defined(data, source.media)
    return [
        FocusClip(record.clip_id, record.subject_id, _file_of(record, source.read(record), data))
        for record in source.records
        if record.split == split
    ]


def measure_focus(
    predictor: Predictor, clips: Sequence[FocusClip], num_clips: int | None = None, seed: int = 0
) -> FaceFocusResults:
    """The share of heat on the face, on eyes and brows and on the mouth, and whether the maps could have failed.

    Args:
        clips: from `find_clips`.
        num_clips: size of a random sample; None: all.

    Raises:
        DataError: there are no clips.
    """
    if not clips:
        raise DataError("There are no clips to explain in this split; choose another.")
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(clips), min(num_clips or len(clips), len(clips)), replace=False)
    chosen = [clips[i] for i in sorted(drawn)]
    counts: Counter[str] = Counter()
    found: list[tuple[FocusClip, FaceFocus]] = []
    map_size: list[int] | None = None
    checks: list[FocusSanity] = []
    console = Console(stderr=True)
    for clip in track(chosen, "Explaining clips", console=console, disable=not console.is_terminal):
        explained = _explain(predictor, clip)
        if isinstance(explained, str):
            counts[explained] += 1
            continue
        found.append((clip, explained.focus))
        map_size = list(explained.explanation.map_size)
        if len(checks) < CHECKED_CLIPS:
            checks.append(_check(predictor, explained, seed + len(checks)))
    regions, people = _over_people(found, seed)
    return FaceFocusResults(
        num_clips=len(chosen),
        num_without_face=counts["without_face"],
        num_without_heat=counts["without_heat"],
        num_unreadable=counts["unreadable"],
        label="predicted",
        seed=seed,
        map_size=map_size,
        **regions,
        people=people,
        sanity=FocusSanity(
            num_clips=len(checks),
            randomised_rank_correlation=_mean(check.randomised_rank_correlation for check in checks),
            deletion_gain=_mean(check.deletion_gain for check in checks),
            insertion_gain=_mean(check.insertion_gain for check in checks),
        ),
    )


def describe_focus(focus: FaceFocusResults, split: str) -> str:
    """For the terminal: the share of heat on the face, chance, and what was left out."""
    face = focus.face
    if face.mean is None or face.chance is None:
        return f"face focus unknown: none of {focus.num_clips} {split} clips shows both heat and a face"
    bounds = "unknown" if face.lower is None else f"{face.lower:.3f} to {face.upper:.3f}"
    size = "×".join(str(places) for places in focus.map_size or ())
    coarse = f"; maps of {size} places are too coarse to separate a face from its surroundings"
    counts = {
        "without face": focus.num_without_face,
        "without heat": focus.num_without_heat,
        "unreadable": focus.num_unreadable,
    }
    left_out = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    return (
        f"face focus {face.mean:.3f} on {focus.num_clips} {split} clips (95 % over people: {bounds}), its area "
        f"{face.chance:.3f} of the picture{coarse if focus.is_coarse else ''}"
        + (f"; left out: {left_out}" if left_out else "")
    )


def _find_prepared(prepared: PreparedData, split: str) -> list[FocusClip]:
    if split not in prepared.splits:
        raise DataError(
            f"{prepared.folder} has no split {split}, only {', '.join(prepared.splits)}; choose one of them."
        )
    rows = prepared.splits[split]
    if rows["boxes_xyxy_px"][0] is None:
        raise _not_defined(prepared.folder, prepared.description.media)
    first: dict[str, int] = {}
    for row, clip_id in enumerate(rows["clip_id"][:]):
        first.setdefault(clip_id, row)
    subjects = rows["subject_id"][:]
    return [FocusClip(clip_id, subjects[row], partial(rows.__getitem__, row)) for clip_id, row in first.items()]


def _not_defined(data: Path, media: str) -> DataError:
    if media in ("picture", "frames"):
        return DataError(
            f"{data} contains pictures that are faces already, for which face focus is not defined; leave out "
            "--face-focus."
        )
    return DataError(
        f"{data} contains whole frames without detected faces; for --face-focus pass the raw source, or prepared face "
        "crops."
    )


def _file_of(record: ClipRecord, video: object, data: Path) -> Path:
    if not isinstance(video, Path) or record.clip_start_sec is not None or record.clip_end_sec is not None:
        raise DataError(
            f"--face-focus needs whole video files in a folder, but {record.source_path} of {data} is a span or in an "
            "archive; prepare the data with face crops, and pass that."
        )
    return video


def _explain(predictor: Predictor, clip: FocusClip) -> _Explained | str:
    """One clip, or the reason why it is left out."""
    source = clip.source
    try:
        explained = _explain_file(predictor, source) if isinstance(source, Path) else _explain_row(predictor, source())
    except NoFaceError:
        return "without_face"
    except EngagementInputError:
        return "unreadable"
    if explained is None or explained.focus.num_without_face == explained.focus.num_frames:
        return "without_face"
    return "without_heat" if explained.focus.clip["face"]["heat_share"] is None else explained


def _explain_file(predictor: Predictor, path: Path) -> _Explained | None:
    """None: no face was found in whole frames."""
    clip = explain_file(predictor, path).clips[0]
    if clip.face is None:
        return None
    processor = predictor.video_processor
    frames = clip.pictures if clip.transforms is not None else processor.shrink_whole_frames(clip.pictures)
    return _Explained(predictor.to_tensor(frames), clip.explanation, clip.face.focus)


def _explain_row(predictor: Predictor, row: FaceCropRow) -> _Explained:
    """A row of prepared data; its crops are those of the evaluation."""
    frames = np.stack([decode_picture(content) for content in row["frames"]])
    pixel_values = predictor.to_tensor(frames)
    explanation = explain_clip(predictor.model, pixel_values, rule=predictor.rule)
    maps = explanation.maps
    to_frame = input_transforms(np.array(row["transforms"]), frames.shape[1:3], maps.shape[1:], len(maps))
    boxes, landmarks = np.array(row["boxes_xyxy_px"]), np.array(row["landmarks_xy_px"])
    focus = face_focus(maps, boxes, landmarks, to_frame, np.array(row["found"]))
    return _Explained(pixel_values, explanation, focus)


def _over_people(found: Sequence[tuple[FocusClip, FaceFocus]], seed: int) -> tuple[dict[str, FocusRegion], FocusPeople]:
    subjects = [clip.subject_id for clip, _ in found if clip.subject_id is not None]
    known = len(subjects) == len(found)
    regions, people = {}, FocusPeople(suppressed=True, num_people=None, lowest_means=[])
    for region in REGIONS:
        clips = [focus.clip[region] for _, focus in found]
        shares = [clip["heat_share"] for clip in clips]
        over = focus_over_people(shares, subjects, seed=seed) if known else None
        mean, chance = _mean(shares), _mean(clip["area_share"] for clip in clips)
        ratio = mean / chance if mean is not None and chance else None
        lower, upper = (over.lower, over.upper) if over else (None, None)
        regions[region] = FocusRegion(mean=mean, chance=chance, ratio=ratio, lower=lower, upper=upper)
        if region == "face" and over is not None:
            lowest = [person.mean for person in over.lowest_people]
            people = FocusPeople(suppressed=False, num_people=over.num_people, lowest_means=lowest)
    return regions, people


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the defined values."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _check(predictor: Predictor, explained: _Explained, seed: int) -> FocusSanity:
    """Check one clip; see `randomisation_check` and `deletion_insertion`."""
    model, pixel_values, maps = predictor.model, explained.pixel_values, explained.explanation.maps
    label = explained.explanation.label
    untrained = randomisation_check(model, pixel_values, label, num_draws=_UNTRAINED_DRAWS, seed=seed)
    moved = deletion_insertion(model, pixel_values, maps, label, seed=seed, **_DELETION)
    return FocusSanity(
        num_clips=1,
        randomised_rank_correlation=untrained.rank_correlation,
        deletion_gain=moved.deletion.random_area - moved.deletion.area,
        insertion_gain=moved.insertion.area - moved.insertion.random_area,
    )
