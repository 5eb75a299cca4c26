"""Names in a table → existing files, although a name may be in a different Unicode form.

A Mac writes "é" as an e and an accent, other systems as one letter: a table and a folder from different systems may
differ in bytes although they look the same.
"""

import os
import posixpath
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path


def find_below(folder: Path, name: str) -> str:
    """The file's actual name if only one in a different Unicode form exists; else `name` itself.

    Args:
        name: with forward slashes, below `folder` or absolute.
    """
    if name.isascii() or _is_there(folder / name):
        return name
    here, found = folder, "/" if name.startswith("/") else ""
    for part in name.strip("/").split("/"):
        if not _is_there(here / found / part):
            part = next((entry for entry in _entries(str(here / found)) if _is_alike(entry, part)), part)
        found = posixpath.join(found, part)
    return found if _is_there(folder / found) else name


def find_among(names: Collection[str], name: str) -> str:
    """Like `find_below`, among the members of an archive."""
    if name in names or name.isascii():
        return name
    return next((other for other in names if _is_alike(other, name)), name)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, for instance
        return False


def _is_alike(name: str, other: str) -> bool:
    return unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)


@lru_cache(maxsize=16)
def _entries(folder: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 (only names)
    except OSError:
        return ()
