"""A folder or a zip archive, read through one interface: the names of its files, and their bytes.

Nothing is extracted to disk. Links in a folder are trusted and followed; links in an archive are not. Members that are
not safe to read (a name that leaves the root, a link, a zip bomb, an encrypted member, a second member of the same
name) become rejects when the tree is opened; a damaged member is refused when it is read.
"""

import io
import posixpath
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...processor.input_errors import ArchiveError, DataError, in_one_line
from ..schema import ClipRecord, Reject
from .folder_walk import walk

MAX_FILE_BYTES = 2 << 30  # a member is held in memory when it is read
MAX_RATIO = 1000  # deflate reaches 1032 only for zeros
MAX_BYTES_AT_ANY_RATIO = 64 << 20
_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the other methods decompress without a limit on memory
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class FileTree:
    """The files below a folder, or in a zip archive; names are sorted and use forward slashes."""

    root: Path
    names: list[str]
    rejects: list[Reject]  # files that are not safe to read, with stage "archive"

    def open(self, name: str) -> BinaryIO:
        """Open a file of the tree for reading.

        Raises:
            ArchiveError: a member of an archive is damaged.
            DataError: a file of a folder cannot be opened.
        """
        content = fetch_file(str(self.root), name)
        if isinstance(content, bytes):
            return io.BytesIO(content)
        try:
            return content.open("rb")
        except OSError as error:
            raise DataError(f"{content} could not be read ({in_one_line(error)}).") from error

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises the same errors as `open`."""
        with self.open(name) as file:
            return file.read()

    def refused(self) -> str:
        """Suffix for an error message: a file that was not read and may be the missing one."""
        return f" (Not read: {self.rejects[0].path!r}; {self.rejects[0].reason})" if self.rejects else ""


@dataclass(frozen=True)
class _Archive:
    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]  # by name; only those that are safe to read
    rejects: list[Reject]


def open_tree(source: Path) -> FileTree:
    """List a folder or a zip archive; file system litter (dot files, `__MACOSX`, `Thumbs.db`) is left out.

    Raises:
        DataError: the source does not exist, or is neither a folder nor a complete zip archive.
    """
    if source.is_dir():
        names, rejects = _list_folder(source)
        return FileTree(source, sorted(names), rejects)
    if is_zip(source):
        archive = _archive_at(str(source))
        return FileTree(source, sorted(archive.members), archive.rejects)
    found = "a file of another kind" if source.is_file() else "a device or pipe" if source.exists() else "nothing"
    raise DataError(f"{source} is neither a folder nor a zip archive (found {found}); check the path.")


def is_zip(source: Path) -> bool:
    """Whether a file is a zip archive by its content or its name."""
    if not source.is_file() or source.suffix.lower() == ".zip":
        return source.is_file()
    try:
        with source.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise DataError(f"{source} could not be read ({in_one_line(error)}).") from error


def fetch_file(root: str, name: str) -> Path | bytes:
    """The path of a folder's file, or the bytes of an archive's member after its checksum was verified.

    Raises:
        ArchiveError: the member is damaged, or was refused when the archive was listed.
        DataError: the archive can no longer be opened.
    """
    if not Path(root).is_file():
        return Path(root) / name
    archive = _archive_at(root)
    if name not in archive.members:
        raise ArchiveError(f"{root} has no member {name} that is safe to read.")
    member = archive.members[name]
    try:
        with archive.file.open(member) as file:
            content = file.read(member.file_size)  # at most the declared size, whatever the stream contains
    except _DAMAGE as error:
        raise ArchiveError(f"{name} in {root} is damaged ({error}); download the archive again.") from error
    if len(content) != member.file_size:
        raise ArchiveError(
            f"{name} in {root} has {len(content)} bytes instead of {member.file_size}; download the archive again."
        )
    return content


def read_source_file(root: str, record: ClipRecord) -> Path | bytes:
    """The file of a record; readers of file trees return `partial(read_source_file, root)` as `read`."""
    return fetch_file(root, record.source_path)


def prefix_above(names: Iterable[str], folders: Sequence[str]) -> str | None:
    """Prefix of `folders` in the names, such as "DAiSEE/" or "": the shallowest place that contains all of them."""
    slashed = [f"/{name}" for name in names]
    places = [
        {name[: name.index(f"/{folder}/") + 1] for name in slashed if f"/{folder}/" in name} for folder in folders
    ]
    shared = set.intersection(*places)
    return min(shared, key=lambda place: (place.count("/"), place))[1:] if shared else None


def _list_folder(root: Path) -> tuple[list[str], list[Reject]]:
    names: list[str] = []
    walked = walk(root)
    rejects = [
        _reject(place.relative_to(root).as_posix(), f"{reason}, in {root}") for place, reason in walked.left_out.items()
    ]
    for path in walked.files:
        name = path.relative_to(root).as_posix()
        if _is_litter(name):
            continue
        problem = _name_problem(name)
        if not problem and not path.is_file():
            problem = "A link that leads nowhere" if path.is_symlink() else "A device or pipe, not a file"
        if problem:
            rejects.append(_reject(name, f"{problem}, in {root}"))
        else:
            names.append(name)
    return names, rejects


def _archive_at(path: str) -> _Archive:
    try:
        return _open_archive(path, Path(path).stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"The zip archive {path} could not be opened ({in_one_line(error)}).") from error


# Cached: members are read one by one, and the directory of a large archive takes seconds to read.
@lru_cache(maxsize=4)
def _open_archive(path: str, modified_ns: int) -> _Archive:
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"{path} is truncated or not a zip archive ({error}); download it again.") from error
    members: dict[str, zipfile.ZipInfo] = {}
    rejects = []
    for member in file.infolist():
        # zipfile's is_dir fails on an empty name, since it looks at the last letter.
        if (member.filename and member.is_dir()) or _is_litter(member.filename):
            continue
        name = posixpath.normpath(member.filename)
        problem = _name_problem(member.filename) or _member_problem(member)
        if problem is None and name in members:
            problem = "A second file of this name"
        if problem is None:
            members[name] = member
        else:
            rejects.append(_reject(member.filename, f"{problem}, in {path}"))
    return _Archive(file, members, rejects)


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.lower() in _SYSTEM_FILES or (part.startswith(".") and part != "..") for part in parts)


def _name_problem(name: str) -> str | None:
    """Why a name cannot be used on every system and in every table; None: it can."""
    if posixpath.normpath(name) == ".":
        return "An empty name"
    if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        return "A name that could lead outside the folder"
    if any(ord(character) < 32 for character in name) or name != _printable(name):
        return "A name with control characters, or not in UTF-8"
    return None


def _member_problem(member: zipfile.ZipInfo) -> str | None:
    file_type = stat.S_IFMT(member.external_attr >> 16)
    if file_type not in (0, stat.S_IFREG):
        return "Not a file but a link or a device"
    if member.flag_bits & 1:
        return "An encrypted file"
    if member.compress_type not in _METHODS:
        return f"Compressed by method {member.compress_type}, where only stored and deflated data can be read"
    if member.file_size > MAX_FILE_BYTES:
        return f"{member.file_size} bytes, more than the {MAX_FILE_BYTES} that are read"
    if member.file_size > max(MAX_BYTES_AT_ANY_RATIO, MAX_RATIO * member.compress_size):
        return f"Compressed more than {MAX_RATIO} times: {member.file_size} bytes from {member.compress_size}"
    return None


def _reject(name: str, reason: str) -> Reject:
    return Reject(_printable(name), "", "archive", f"{reason}.")


def _printable(name: str) -> str:
    """Escape a file name that is not valid text, so that it can be written to tables."""
    return name.encode("utf-8", "replace").decode("utf-8")
