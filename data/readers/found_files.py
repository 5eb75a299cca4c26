"""Names in a table → files that are there, although a name's letters may be composed in another way.

A Mac writes "é" as an e and an accent, other systems as one letter: a table and a folder that have seen both differ in
bytes that nobody sees.
"""

import os
import posixpath
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path


def find_below(folder: Path, name: str) -> str:
    """`name`, or what a file of that name in another Unicode form is called; `name` itself where there is none.

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
    """The same among the members of an archive."""
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
        return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 (names alone)
    except OSError:
        return ()
