"""Single entry point to all readers: a path, and if needed its kind → labelled records, each with a split.

The kind of a source is detected from its content; in every reader inputs = records + rejects.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ...processor.input_errors import DataError, RecipeError, in_one_line
from ...processor.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from ..drawn.datasets import SETTINGS_NAME
from ..preparation.settings import FrameOptions, settings_for
from ..schema import LabelledSource
from ..splits import complete_splits
from .affectnet import is_affectnet, read_affectnet
from .class_folders import read_class_folders
from .daisee import is_daisee, read_daisee
from .engagenet import is_engagenet, read_engagenet
from .fer2013 import find_table, has_pixels, read_fer2013
from .fer_votes import VOTE_LABELS, apply_votes
from .file_trees import FileTree, is_zip, open_tree
from .frame_windows import WindowOptions
from .parquet_rows import is_fer2013
from .picture_tables import SUFFIXES as TABLE_SUFFIXES
from .picture_tables import cut_class_folders, find_tables, has_pictures, is_metadata, read_picture_tables
from .rafdb import is_rafdb, read_rafdb
from .reference_h5 import SUFFIXES as H5_SUFFIXES
from .reference_h5 import read_reference_h5
from .table_text import WORKBOOK_SUFFIXES, workbook_error
from .video_tables import read_video_folder, read_video_table

KINDS = ("daisee", "engagenet", "fer2013", "affectnet", "rafdb", "images", "videos", "reference-h5")
_BY_LISTS = {"engagenet": is_engagenet, "affectnet": is_affectnet, "rafdb": is_rafdb}
UNDERSTOOD = (
    "DAiSEE (folders DataSet and Labels), EngageNet, AffectNet or RAF-DB (their lists and their files), FER2013 (a csv "
    "with pixels, or parquet files), a folder for each label with pictures or videos, a csv or parquet table of "
    "pictures, a csv table of videos, or the reference's HDF5 files"
)


@dataclass(frozen=True)
class SourceOptions:
    """Options of a source besides its kind."""

    subset: str | None = None  # daisee: "stratified"
    subject_pattern: str | None = None  # class folders: regular expression for the subject in a file path
    seed: int = 0  # for splits that the source lacks
    no_subjects: bool = False  # tables: the people are declared unknown
    pictures_as: str | None = None  # images: "pictures", or "clips" of frames in order; None: depends on the source
    window_label: str | None = None  # for such clips: majority (the default), mean or last
    votes: Path | None = None  # fer2013: FER+ votes
    vote_labels: str | None = None  # with votes: soft (the default) or majority


def read_source(
    kind: str | None, path: Path, options: SourceOptions | None = None, frames: FrameOptions | None = None
) -> LabelledSource:
    """Read a source of the given kind (None: detect it), and complete its splits.

    Args:
        frames: options for the frames; pictures that are frames in order are cut into windows here.

    Raises:
        DataError: the path does not exist, or its content is not of the expected kind.
        RecipeError: the kind does not exist, or an option does not fit it.
    """
    options = options or SourceOptions()
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"Expected a kind of source among {', '.join(KINDS)}, got {kind!r}.")
    _check_exists(path)
    if path.suffix.lower() in WORKBOOK_SUFFIXES and path.is_file():
        raise workbook_error(path.name)
    kind = kind or detect_kind(path)
    _check_options(kind, path, options)
    source = _read(kind, path, options, frames or FrameOptions())
    if not source.records:
        return source
    try:
        records, origin = complete_splits(source.records, options.seed)
    except DataError as error:
        raise DataError(f"{str(error).removesuffix('.')} in {path}.") from error
    notes = replace(
        source.notes,
        subset=options.subset,
        subject_pattern=options.subject_pattern,
        seed=options.seed,
        split=f"{origin}; {source.notes.split}" if source.notes.split else origin,
    )
    return replace(source, records=records, notes=notes, drawn=is_drawn(path))


def is_drawn(path: Path) -> bool:
    """Whether the people at this path are drawn: the path, or the folder around it, contains a drawing's settings.

    The path may be a table next to the settings, a split below them, or an archive of the folder or of its contents.
    """
    if is_zip(path):
        tree = open_tree(path)
        found = [tree.read(name) for name in tree.names if f"/{name}".endswith(f"/{SETTINGS_NAME}")]
    else:
        places = [folder / SETTINGS_NAME for folder in (path, path.absolute().parent, path.resolve().parent)]
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
        raise DataError(f"Expected a data set at {path}, got {found}; check the path.")


def detect_kind(source: Path) -> str:
    """One of KINDS, detected from names and, for tables, from their columns.

    Raises:
        DataError: the source does not exist, is not of a known kind, or is an unknown table.
    """
    suffix = source.suffix.lower()
    if source.is_file() and not is_zip(source):
        tree = FileTree(source.parent, [source.name], [])
        if kind := _kind_of_lists(tree):
            return kind  # its reader reports that it needs the folder
        if suffix in TABLE_SUFFIXES:
            return _kind_of_table(tree, source.name)
        kind = "reference-h5" if suffix in H5_SUFFIXES else None
    else:
        kind = _kind_of_tree(source)
    if kind is None:
        raise DataError(f"{source} is none of the known kinds of data: {UNDERSTOOD}.")
    return kind


def _kind_of_table(tree: FileTree, name: str) -> str:
    if name.lower().endswith(".parquet"):
        with tree.open(name) as file:
            return "fer2013" if is_fer2013(file, name) else "images"
    if has_pixels(tree, name):
        return "fer2013"
    return "images" if has_pictures(tree, name) else "videos"


def _kind_of_tree(source: Path) -> str | None:
    if is_daisee(source):
        return "daisee"
    tree = open_tree(source)
    if kind := _kind_of_lists(tree):
        return kind
    names = [name.lower() for name in tree.names]
    if source.is_dir() and any(name.endswith(H5_SUFFIXES) for name in names):
        return "reference-h5"
    if find_table(tree):
        return "fer2013"
    if tables := find_tables(tree):
        return _kind_of_table(tree, tables[0])
    if _video_tables(source):
        return "videos"
    num_pictures, num_videos = (
        sum(name.endswith(suffixes) for name in names) for suffixes in (PICTURE_SUFFIXES, VIDEO_SUFFIXES)
    )
    if not num_pictures and not num_videos:
        return None
    return "images" if num_pictures >= num_videos else "videos"


def _kind_of_lists(tree: FileTree) -> str | None:
    return next((kind for kind, is_of_kind in _BY_LISTS.items() if is_of_kind(tree)), None)


def _check_options(kind: str, path: Path, options: SourceOptions) -> None:
    if options.subset is not None and kind != "daisee":
        raise RecipeError(f"{kind} has no subset {options.subset!r}; only daisee has subsets.")
    is_table = (kind == "images" and _is_of_tables(path)) or (
        kind == "videos" and (not _is_tree(path) or bool(_video_tables(path)))
    )
    has_class_folders = kind in ("images", "videos") and not is_table
    if options.subject_pattern is not None and not has_class_folders:
        raise RecipeError(
            f"The subject pattern {options.subject_pattern!r} does not apply to {kind} at {path}; it is for the file "
            "names of pictures and videos in a folder for each label."
        )
    if options.no_subjects and not is_table:
        raise RecipeError(f"no_subjects is for tables of pictures or videos, not for {kind} at {path}.")
    if options.pictures_as not in (None, "pictures", "clips"):
        raise RecipeError(f"Pictures can be read as pictures or clips, not as {options.pictures_as!r}.")
    if kind != "images" and (options.pictures_as == "clips" or options.window_label is not None):
        raise RecipeError(f"Clips of pictures and window labels are for images, not for {kind}.")
    if kind != "fer2013" and (options.votes is not None or options.vote_labels is not None):
        raise RecipeError(f"FER+ votes are for fer2013, not for {kind} at {path}.")
    if options.vote_labels not in (None, *VOTE_LABELS) or (options.vote_labels and options.votes is None):
        raise RecipeError(
            f"Expected vote labels {' or '.join(VOTE_LABELS)} together with votes, got {options.vote_labels!r} and "
            f"{options.votes or 'none'}."
        )


def _is_tree(path: Path) -> bool:
    return path.is_dir() or is_zip(path)


def _video_tables(path: Path) -> list[str]:
    """The datasets library's tables next to their videos, in a folder."""
    if not path.is_dir():
        return []
    tree = open_tree(path)
    return [name for name in tree.names if is_metadata(name) and not has_pictures(tree, name)]


def _is_of_tables(path: Path) -> bool:
    return not _is_tree(path) or bool(find_tables(open_tree(path)))


def _read(kind: str, path: Path, options: SourceOptions, frames: FrameOptions) -> LabelledSource:
    if kind == "daisee":
        return read_daisee(path, options.subset)
    if kind == "fer2013":
        source = read_fer2013(path)
        return source if options.votes is None else apply_votes(source, options.votes, options.vote_labels or "soft")
    if kind == "engagenet":
        return read_engagenet(path)
    if kind in ("affectnet", "rafdb"):
        return (read_affectnet if kind == "affectnet" else read_rafdb)(path, frames.face_crop is True)
    if kind == "reference-h5":
        return read_reference_h5(path)
    if kind == "videos" and not _is_tree(path):
        return read_video_table(path, options.no_subjects)
    if kind == "videos" and _video_tables(path):
        return read_video_folder(path, _video_tables(path), options.no_subjects)
    if kind == "videos":
        return read_class_folders(path, "video", kind, options.subject_pattern)
    settings = settings_for("frames", frames)
    windows = WindowOptions(
        settings.num_frames, settings.window_stride_frames or settings.num_frames, options.window_label or "majority"
    )
    as_clips = None if options.pictures_as is None else options.pictures_as == "clips"
    if _is_of_tables(path):
        return read_picture_tables(path, windows, as_clips, options.no_subjects)
    pictures = read_class_folders(path, "picture", kind, options.subject_pattern)
    return cut_class_folders(pictures, path, windows) if as_clips else pictures
