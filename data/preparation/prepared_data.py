"""A prepared data set on disk: face clips as JPEG bytes in Arrow, with all that is known about each.

The folder opens with `datasets.load_from_disk` and also contains `manifest.csv` (one row per window), `rejects.csv`
(what was rejected, and why) and `dataset.json` (counts, settings, seeds, versions, fingerprint), which is written last:
a folder without it is unfinished. `prepare` makes the rows; `audit` judges whether their split can be trusted.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    Value,
    concatenate_datasets,
    disable_progress_bars,
    enable_progress_bars,
    load_from_disk,
)
from datasets import List as Repeated

from ...processor.input_errors import DataError, RecipeError, in_one_line
from ..checksums import write_checksums
from ..face_signals import SIGNALS
from ..required_packages import installed_version
from ..schema import AFFECTS, LABEL_SCHEMES, OWN_LABELS, SPLITS, Reject, order_label_names
from .description import (
    DESCRIPTION_FILE,
    REMEDY,
    DatasetDescription,
    Provenance,
    SplitCounts,
    read_description,
    write_description,
)
from .row_facts import BATCH, count_rows, current_fingerprint, repeated_window

REJECTS_FILE = "rejects.csv"
MANIFEST_FILE = "manifest.csv"
FEATURES = Features(
    {
        "frames": Repeated(Value("binary")),  # encoded pictures; one for a single face
        "clip_id": Value("string"),
        "window_index": Value("int32"),
        "subject_id": Value("string"),  # null: unknown
        "split": Value("string"),
        "source_path": Value("string"),
        "label": Value("string"),
        "label_scores": Repeated(Value("float32")),  # shares of people's votes, by `EXPRESSIONS`, sum 1; null: no votes
        **{affect: Value("int8") for affect in AFFECTS},  # DAiSEE's ratings; null for other data
        "frame_times_sec": Repeated(Value("float64")),  # NaN: unknown
        "found": Repeated(Value("bool")),  # this and the next three are null if no face was looked for
        "boxes_xyxy_px": Repeated(Repeated(Value("float32"))),  # (num_frames, 4)
        "landmarks_xy_px": Repeated(Repeated(Repeated(Value("float32")))),  # (num_frames, 5, 2)
        "transforms": Repeated(Repeated(Repeated(Value("float64")))),  # (num_frames, 2, 3), from crop to frame
        **{signal: Value("float32") for signal in SIGNALS},  # null: unknown
        "frames_sha256": Value("string"),  # of the stored pixels
        "frame_hash": Value("string"),  # perceptual, of the whole frame in the middle of the window
    }
)
_MANIFEST = ("clip_id", "window_index", "subject_id", "split", "source_path", "label", *AFFECTS)
_LATER_COLUMNS = ("label_scores", *SIGNALS)  # missing in rows of earlier versions
_VERSIONED_PACKAGES = ("engagement-recognition", "datasets", "av", "facenet-pytorch", "torch", "pillow")


@dataclass(frozen=True)
class PreparedData:
    """A finished data set: its non-empty splits and its description from `dataset.json`."""

    splits: DatasetDict
    folder: Path
    description: DatasetDescription

    @property
    def fingerprint(self) -> str:
        return self.description.fingerprint

    @property
    def label_schemes(self) -> list[str]:
        """The schemes under which these rows have labels: their own names, and those based on DAiSEE's ratings."""
        counted = self.description.splits.values()
        own = [OWN_LABELS] if any(counts.label is not None for counts in counted) else []
        return [*own, *(LABEL_SCHEMES if any(counts.boredom is not None for counts in counted) else ())]

    def choose_label_scheme(self, asked: str | None) -> str:
        """The requested scheme; by default the data's own labels, or binary for data rated as in DAiSEE.

        Raises:
            RecipeError: the data has no labels under that scheme.
        """
        known = self.label_schemes
        chosen = asked or (OWN_LABELS if OWN_LABELS in known else "binary")
        if chosen not in known:
            among = ", ".join(known) or "none"
            raise RecipeError(f"{self.folder} has no labels under the scheme {chosen!r}; choose one of: {among}.")
        return chosen

    def label_names(self, label_scheme: str) -> list[str]:
        """The labels by index."""
        if label_scheme != OWN_LABELS:
            return list(LABEL_SCHEMES[label_scheme][0])
        found = {label for rows in self.splits.values() for label in rows["label"][:]}
        return order_label_names(label for label in found if label is not None)

    def window_span_sec(self) -> float | None:
        """Median time from the first to the last frame of a window; None for pictures and for frames without times."""
        times = (
            row
            for rows in self.splits.values()
            for row in rows.select_columns(["frame_times_sec"])[:]["frame_times_sec"]
        )
        spans = [row[-1] - row[0] for row in times if len(row) > 1]
        spans = [span for span in spans if math.isfinite(span)]
        return round(median(spans), 3) if spans else None

    def rejects(self) -> list[dict[str, str]]:
        """The rows of `rejects.csv`."""
        with (self.folder / REJECTS_FILE).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def read_rejects(data: PreparedData) -> list[Reject]:
    """The content of `rejects.csv` as records."""
    return [
        Reject(row["path"], row["clip_id"], row["stage"], row["reason"], int(window) if window else None)
        for row in data.rejects()
        for window in (row.get("window_index"),)
    ]


def is_prepared(folder: Path) -> bool:
    """Whether the folder contains a finished data set."""
    return (folder / DESCRIPTION_FILE).is_file()


def load_prepared(folder: Path) -> PreparedData:
    """Open a folder written by `engagement prepare`.

    Raises:
        DataError: it is missing, unfinished, of a different version, or cannot be read.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        hint = "to resume a preparation, run `engagement prepare` again" if folder.is_dir() else "check the path"
        raise DataError(f"{folder} is not a prepared data set: it has no {path.name}; {hint}.")
    description, splits = read_description(folder), _load_splits(folder)
    for split, counts in description.splits.items():
        num_rows = len(splits[split]) if split in splits else 0
        if num_rows != counts.windows:
            raise DataError(f"Expected {counts.windows} windows in {folder / split}, got {num_rows}; {REMEDY}.")
    return PreparedData(splits, folder, description)


def _load_splits(folder: Path) -> DatasetDict:
    try:
        splits = load_from_disk(str(folder)).with_format(None)
        return DatasetDict({split: with_later_columns(rows) for split, rows in splits.items()})
    except Exception as error:  # the datasets library raises many kinds for edited files
        raise DataError(
            f"{folder} could not be opened with the datasets library ({in_one_line(error)}); {REMEDY}."
        ) from error


def with_later_columns(rows: Dataset) -> Dataset:
    """Rows of any version with today's columns, null where they lack one; the content stays on disk."""
    missing = Features({name: FEATURES[name] for name in _LATER_COLUMNS if name not in rows.column_names})
    if not missing:
        return rows
    empty = Dataset.from_dict({name: [None] * len(rows) for name in missing}, features=missing)
    return concatenate_datasets([rows, empty], axis=1)


def write_prepared(rows: Dataset, rejects: Sequence[Reject], provenance: Provenance, folder: Path) -> PreparedData:
    """Store rows by split, then the CSV tables and, last, the description.

    Args:
        rows: with `FEATURES`, in their final order.
        provenance: what is known besides the rows; counts, versions and the fingerprint are added here.

    Raises:
        DataError: two rows are the same window of the same clip.
    """
    repeated = repeated_window(rows)
    if repeated:
        raise DataError(f"Window {repeated[1]} of clip {repeated[0]} occurs twice in {folder}.")
    split_column = np.asarray(rows["split"][:])
    chosen = {split: np.flatnonzero(split_column == split) for split in SPLITS}
    splits = DatasetDict({split: rows.select(order) for split, order in chosen.items() if len(order)})
    disable_progress_bars()
    try:
        splits.save_to_disk(str(folder))
    finally:
        enable_progress_bars()
    _write_rejects(rejects, folder / REJECTS_FILE)
    _write_manifest(rows, folder / MANIFEST_FILE)
    record_pictures(folder)
    counted = {split: count_rows(rows.select(order)) for split, order in chosen.items()}
    by_stage = Counter(reject.stage for reject in rejects)
    return finish_prepared(folder, provenance, current_fingerprint(splits), counted, by_stage)


def finish_prepared(
    folder: Path,
    provenance: Provenance,
    fingerprint: str,
    counted: Mapping[str, SplitCounts],
    rejects_by_stage: Mapping[str, int],
) -> PreparedData:
    """Write the description, which completes the folder.

    Args:
        counted: content of each split.

    Raises:
        DataError: it cannot be written.
    """
    description = DatasetDescription(
        **dict(provenance),
        fingerprint=fingerprint,
        splits=dict(counted),
        rejects_by_stage=dict(sorted(rejects_by_stage.items())),
        versions={name: installed_version(name) or "not installed" for name in _VERSIONED_PACKAGES},
    )
    write_description(folder, description)
    return load_prepared(folder)


def record_pictures(folder: Path) -> None:
    """Write the checksums of the tables in a data set's folder.

    Raises:
        DataError: it cannot be written.
    """
    tables = [path for split in SPLITS for path in (folder / split).glob("*.arrow")]
    write_checksums(folder, [path.relative_to(folder).as_posix() for path in tables])


def _write_rejects(rejects: Iterable[Reject], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Reject.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(reject) for reject in rejects)


def _write_manifest(rows: Dataset, path: Path) -> None:
    """Write `manifest.csv`; unknown values are empty cells."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_MANIFEST, "face_coverage", *SIGNALS])
        for batch in rows.select_columns([*_MANIFEST, "found", *SIGNALS]).iter(BATCH):
            coverage = ["" if of_row is None else f"{np.mean(of_row):.3f}" for of_row in batch["found"]]
            signals = [["" if value is None else f"{value:.6g}" for value in batch[name]] for name in SIGNALS]
            writer.writerows(zip(*(batch[name] for name in _MANIFEST), coverage, *signals, strict=True))
