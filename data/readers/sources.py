"""One door to all readers: a path, and if need be what it is → labelled records with a split each.

The kind of a source is told from what lies in it; every reader keeps inputs = records + rejects.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...processor.input_errors import DataError, RecipeError, in_one_line
from ...processor.media_inputs import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from ..drawn.datasets import SETTINGS_NAME
from ..schema import LabelledSource, Media
from ..splits import complete_splits
from .class_folders import read_class_folders
from .daisee import is_daisee, read_daisee
from .fer2013 import find_table, read_fer2013
from .file_trees import is_zip, open_tree
from .reference_h5 import SUFFIXES as H5_SUFFIXES
from .reference_h5 import read_reference_h5
from .video_tables import read_video_table

KINDS = ("daisee", "fer2013", "images", "videos", "reference-h5")
UNDERSTOOD = (
    "DAiSEE (folders DataSet and Labels), FER2013 (a csv with pixels, or parquet files), a folder for each label with "
    "pictures or videos, a csv table of videos, or the reference's HDF5 files"
)


@dataclass(frozen=True)
class SourceOptions:
    """What may be asked of a source beyond its kind."""

    subset: str | None = None  # daisee: "stratified"
    subject_pattern: str | None = None  # class folders: regular expression for the subject in a file's path
    seed: int = 0  # of the splits that the source lacks


def read_source(kind: str | None, path: Path, options: SourceOptions | None = None) -> LabelledSource:
    """Read a source of a known or (None) of a detectable kind, and complete its splits.

    Raises:
        DataError: nothing is at the path, or it is not what it should be.
        RecipeError: no such kind, or an option that does not fit it.
    """
    options = options or SourceOptions()
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"Expected a kind of source among {', '.join(KINDS)}, got {kind!r}.")
    _check_exists(path)
    kind = kind or detect_kind(path)
    _check_options(kind, path, options)
    source = _read(kind, path, options)
    if not source.records:
        return source
    try:
        records, origin = complete_splits(source.records, options.seed)
    except DataError as error:
        raise DataError(f"{str(error).removesuffix('.')} in {path}.") from error
    notes = replace(source.notes, **asdict(options), split=origin)
    return replace(source, records=records, notes=notes, drawn=is_drawn(path))


def is_drawn(path: Path) -> bool:
    """Whether the people at this path do not exist: the settings of a drawing lie there, or in the folder around it.

    A table lies beside them, a split below them, and an archive may hold the folder itself or its contents.
    """
    if is_zip(path):
        tree = open_tree(path)
        found = [tree.read(name) for name in tree.names if f"/{name}".endswith(f"/{SETTINGS_NAME}")]
    else:
        places = [folder / SETTINGS_NAME for folder in (path, path.resolve().parent)]
        found = [place.read_bytes() for place in places if place.is_file()]
    return any(_is_drawing(content) for content in found)


def _is_drawing(content: bytes) -> bool:
    try:
        settings = json.loads(content)
    except ValueError:
        return False
    return isinstance(settings, dict) and "drawing_version" in settings


def _check_exists(path: Path) -> None:
    try:
        found = None if path.exists() else "nothing"
    except OSError as error:  # a name that is too long, for instance
        found = in_one_line(error)
    if found:
        raise DataError(f"Expected a data set at {path}, found {found}; check the path.")


def detect_kind(source: Path) -> str:
    """One of KINDS, told from names and, for a csv table, from its header.

    Raises:
        DataError: nothing is there, or nothing that is understood.
    """
    suffix = source.suffix.lower()
    if source.is_file() and not is_zip(source):
        if suffix == ".csv":
            with source.open("rb") as file:
                return "fer2013" if b"pixels" in file.readline(10_000).lower() else "videos"
        kind = "reference-h5" if suffix in H5_SUFFIXES else "fer2013" if suffix == ".parquet" else None
    else:
        kind = _kind_of_tree(source)
    if kind is None:
        raise DataError(f"Expected {UNDERSTOOD}; found none of these at {source}.")
    return kind


def _kind_of_tree(source: Path) -> str | None:
    if is_daisee(source):
        return "daisee"
    tree = open_tree(source)
    names = [name.lower() for name in tree.names]
    if source.is_dir() and any(name.endswith(H5_SUFFIXES) for name in names):
        return "reference-h5"
    if find_table(tree) or any(name.endswith(".parquet") for name in names):
        return "fer2013"
    num_pictures, num_videos = (
        sum(name.endswith(suffixes) for name in names) for suffixes in (PICTURE_SUFFIXES, VIDEO_SUFFIXES)
    )
    if not num_pictures and not num_videos:
        return None
    return "images" if num_pictures >= num_videos else "videos"


def _check_options(kind: str, path: Path, options: SourceOptions) -> None:
    if options.subset is not None and kind != "daisee":
        raise RecipeError(f"Expected no subset for {kind}, got {options.subset!r}; it exists for daisee alone.")
    has_class_folders = kind == "images" or (kind == "videos" and _is_tree(path))
    if options.subject_pattern is not None and not has_class_folders:
        raise RecipeError(
            f"Expected no subject pattern for {kind} at {path}, got {options.subject_pattern!r}; "
            "it reads the file names of pictures and videos in a folder for each label."
        )


def _is_tree(path: Path) -> bool:
    return path.is_dir() or is_zip(path)


def _read(kind: str, path: Path, options: SourceOptions) -> LabelledSource:
    if kind == "daisee":
        return read_daisee(path, options.subset)
    if kind == "fer2013":
        return read_fer2013(path)
    if kind == "reference-h5":
        return read_reference_h5(path)
    if kind == "videos" and not _is_tree(path):
        return read_video_table(path)
    media: Media = "picture" if kind == "images" else "video"
    return read_class_folders(path, media, kind, options.subject_pattern)
