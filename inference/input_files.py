"""What is given to `engagement predict` → files: folders, patterns, a table's column `path`, and standard input."""

import glob
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data.readers.tables import is_blank, read_table
from ..processor.input_errors import DataError
from ..processor.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES

STANDARD_INPUT = "-"
TABLE_SUFFIXES = (".csv", ".tsv")


def list_files(inputs: Iterable[str], recursive: bool = False) -> list[Path]:
    """In order. A folder stands for the photos and videos in it, by name; without one it stays, to be refused, and so
    does what is not there.

    Args:
        inputs: files, folders, patterns such as `clips/*.mp4`, tables, or `-` for a path a line on standard input.
        recursive: the folders within a folder, too.

    Raises:
        DataError: a table without a column `path`, or one that is none.
    """
    return [file for given in inputs for file in _files_of(given, recursive)]


def _files_of(given: str, recursive: bool) -> Iterator[Path]:
    if given == STANDARD_INPUT:
        for line in sys.stdin:
            if line.strip():
                yield from _files_of(line.strip(), recursive)
        return
    path = Path(given)
    if path.is_dir():
        yield from _media_in(path, recursive) or [path]
    elif path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        yield from _files_in_table(path)
    elif not path.exists() and glob.has_magic(given):
        found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (Path's takes no absolute pattern)
        yield from map(Path, found) if found else [path]
    else:
        yield path


def _media_in(folder: Path, recursive: bool) -> list[Path]:
    suffixes = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    return sorted(path for path in folder.glob("**/*" if recursive else "*") if path.suffix.lower() in suffixes)


def _files_in_table(path: Path) -> list[Path]:
    """Paths are relative to the table's folder, or absolute."""
    try:
        with path.open("rb") as file:
            rows = list(read_table(file, str(path), ["path"]).rows)
    except OSError as error:
        raise DataError(f"Expected a table in {path}, could not read it ({error.strerror}).") from error
    return [path.parent / row.cells["path"] for row in rows if not is_blank(row.cells["path"])]
