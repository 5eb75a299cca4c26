"""Arguments of `engagement predict` → files: folders, patterns, a table's column `path`, and standard input."""

import glob
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data.readers.table_text import WORKBOOK_SUFFIXES
from ..processor.input_errors import DataError
from ..processor.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES

STANDARD_INPUT = "-"
TABLE_SUFFIXES = (".csv", ".tsv", *WORKBOOK_SUFFIXES)


def list_files(inputs: Iterable[str], recursive: bool = False) -> list[Path]:
    """Files in order. A folder is replaced by its photos and videos, sorted by name; without any it stays, as does a
    missing file, and is refused by its reader.

    Args:
        inputs: files, folders, patterns such as `clips/*.mp4`, tables, or `-` for one path per line on standard input.
        recursive: include subfolders.

    Raises:
        DataError: a table has no column `path`, or cannot be read as a table.
    """
    return [file for given in inputs for file in _files_of(given, recursive)]


def _files_of(given: str, recursive: bool) -> Iterator[Path]:
    if given == STANDARD_INPUT:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # file names need not be valid text
        for line in sys.stdin:
            if name := line.rstrip("\r\n"):
                yield from _files_of(name if name == name.strip() or Path(name).exists() else name.strip(), recursive)
        return
    path = Path(given)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError):  # no permission for a parent folder, or too long a name: reported by its reader
        is_folder, is_there = False, True
    if is_folder:
        from ..data.readers.folder_walk import walk

        suffixes = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
        files = walk(path).files if recursive else path.glob("*")
        yield from sorted(file for file in files if file.suffix.lower() in suffixes) or [path]
    elif path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        yield from _files_in_table(path)
    elif not is_there and glob.has_magic(given):
        found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (Path's takes no absolute pattern)
        yield from map(Path, found) if found else [path]
    else:
        yield path


def _files_in_table(path: Path) -> list[Path]:
    """Paths are relative to the table's folder, or absolute."""
    from ..data.readers.found_files import find_below
    from ..data.readers.tables import is_blank, read_table  # slower to import than to answer one file

    try:
        with path.open("rb") as file:
            rows = list(read_table(file, str(path), ["path"]).rows)
    except OSError as error:
        raise DataError(f"The table {path} cannot be read ({error.strerror}).") from error
    names = [
        row.cells["path"].replace("\\", "/") if "/" not in row.cells["path"] else row.cells["path"] for row in rows
    ]
    return [path.parent / find_below(path.parent, name) for name in names if not is_blank(name)]
