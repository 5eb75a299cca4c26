"""DAiSEE (Gupta et al. 2016) as it really is: a folder → labelled clips in the official split.

`DataSet/<Train|Validation|Test>/<subject>/<clip>/<clip>.avi`, labels in `Labels/<Split>Labels.csv`. About 9 % of the
videos are `.mp4` while the labels always say `.avi`, so they match by base name; the header says `Frustration ` with
a blank; ids are digits and stay strings; some clips have no label, and some labels no video: both are counted.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ..processor.input_errors import DataError
from .schema import AFFECTS, SPLITS, ClipRecord

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")


@dataclass(frozen=True)
class DaiseeClips:
    """The clips with both a label and a video, and the ones with only one of the two, by clip id."""

    clips: list[ClipRecord]
    without_label: list[str]
    without_video: list[str]


def is_daisee(folder: Path) -> bool:
    """Whether the folder has DAiSEE's two parts."""
    return (folder / "DataSet").is_dir() and (folder / "Labels").is_dir()


def read_daisee(folder: Path) -> DaiseeClips:
    """All labelled clips under `folder`, in the order of the label files.

    Raises:
        DataError: no such layout, a label file is missing, or a table has other columns or labels.
    """
    if not is_daisee(folder):
        raise DataError(f"Expected DAiSEE's folders DataSet and Labels in {folder}; pass the folder that holds both.")
    clips: list[ClipRecord] = []
    without_label: list[str] = []
    without_video: list[str] = []
    for split in SPLITS:
        videos = _videos_by_clip_id(folder / "DataSet" / split.capitalize())
        labels = read_label_file(folder / "Labels" / f"{split.capitalize()}Labels.csv")
        without_label += sorted(videos.keys() - labels.keys())
        without_video += sorted(labels.keys() - videos.keys())
        for clip_id, affects in labels.items():
            if clip_id in videos:
                clips.append(ClipRecord(clip_id, clip_id[:6], split, str(videos[clip_id]), affects))
    return DaiseeClips(clips, without_label, without_video)


def read_label_file(path: Path) -> dict[str, dict[str, int]]:
    """Clip id (without suffix) → the four affects, each 0..3.

    Raises:
        DataError: the file is missing, a column is missing, a clip appears twice, or a label is not 0..3.
    """
    if not path.is_file():
        raise DataError(f"Expected the label file {path}, found none; DAiSEE ships one for each split.")
    reader = csv.DictReader(io.StringIO(_read_text(path)))
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    missing = [name for name in ("clipid", *AFFECTS) if name not in columns]
    if missing:
        raise DataError(f"Expected the columns ClipID and {', '.join(AFFECTS)} in {path}, missing: {missing}.")
    labels: dict[str, dict[str, int]] = {}
    for row in reader:
        clip_id = Path((row[columns["clipid"]] or "").strip()).stem
        if not clip_id or clip_id in labels:
            reason = f"{clip_id} twice" if clip_id else "an empty clip id"
            raise DataError(f"Expected one row a clip in {path}, got {reason} in line {reader.line_num}.")
        labels[clip_id] = {name: _level(row[columns[name]], name, path, reader.line_num) for name in AFFECTS}
    return labels


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Expected UTF-8 text in {path}, got something else ({error}); save it as CSV UTF-8."
        ) from error


def _level(text: str | None, name: str, path: Path, line: int) -> int:
    if (text or "").strip() not in ("0", "1", "2", "3"):
        raise DataError(f"Expected {name} as 0, 1, 2 or 3, got {text!r} in line {line} of {path}.")
    return int(text)


def _videos_by_clip_id(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"Expected the split folder {folder}, found none.")
    return {path.stem: path for path in sorted(folder.glob("*/*/*")) if path.suffix.lower() in VIDEO_SUFFIXES}
