"""A folder or a zip archive, read through one interface: the names of its files, and the bytes of each.

Nothing is extracted to disk. Links within a folder are its owner's and are followed; those in an archive are not. What
is not safe to read there (a name that leaves the root, a link, a bomb, an encrypted or second member of one name)
becomes a reject when the tree is opened; a damaged member is refused when it is read.
"""

import io
import posixpath
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...processor.input_errors import ArchiveError, DataError, in_one_line
from ..schema import ClipRecord, Reject
from .folder_walk import walk

MAX_FILE_BYTES = 2 << 30  # a member is held in memory when it is read
MAX_RATIO = 1000  # deflate reaches 1032 on zeros alone
MAX_BYTES_AT_ANY_RATIO = 64 << 20
_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others decompress without a limit on memory
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class FileTree:
    """The files below a folder, or in a zip archive: names sorted and with forward slashes."""

    root: Path
    names: list[str]
    rejects: list[Reject]  # what is there and is not safe to read, with stage "archive"

    def open(self, name: str) -> BinaryIO:
        """A file of the tree for reading.

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
            raise DataError(f"Expected a readable file at {content}, got: {in_one_line(error)}.") from error

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises what `open` raises."""
        with self.open(name) as file:
            return file.read()

    def refused(self) -> str:
        """For the end of an error's message: what was not read and may be what is missing."""
        return f" (Not read: {self.rejects[0].path!r}; {self.rejects[0].reason})" if self.rejects else ""


@dataclass(frozen=True)
class _Archive:
    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]  # those that are safe to read, by name
    rejects: list[Reject]


def open_tree(source: Path) -> FileTree:
    """List a folder or a zip archive; file system litter (dot files, `__MACOSX`, `Thumbs.db`) is left out.

    Raises:
        DataError: nothing is there, or it is neither a folder nor a zip archive that is whole.
    """
    if source.is_dir():
        names, rejects = _list_folder(source)
        return FileTree(source, sorted(names), rejects)
    if is_zip(source):
        archive = _archive_at(str(source))
        return FileTree(source, sorted(archive.members), archive.rejects)
    found = "a file of another kind" if source.is_file() else "a device or pipe" if source.exists() else "nothing"
    raise DataError(f"Expected a folder or a zip archive at {source}, found {found}; check the path.")


def is_zip(source: Path) -> bool:
    """Whether a file is, or calls itself, a zip archive."""
    if not source.is_file() or source.suffix.lower() == ".zip":
        return source.is_file()
    try:
        with source.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise DataError(f"Expected a readable file at {source}, got: {in_one_line(error)}.") from error


def fetch_file(root: str, name: str) -> Path | bytes:
    """The path of a folder's file, or the bytes of an archive's member once its checksum is verified.

    Raises:
        ArchiveError: the member is damaged, or was refused when the archive was listed.
        DataError: the archive cannot be opened any more.
    """
    if not Path(root).is_file():
        return Path(root) / name
    archive = _archive_at(root)
    if name not in archive.members:
        raise ArchiveError(f"Expected the member {name} in {root}, found none that is safe to read.")
    member = archive.members[name]
    try:
        with archive.file.open(member) as file:
            content = file.read(member.file_size)  # never more than declared, whatever the stream holds
    except _DAMAGE as error:
        raise ArchiveError(f"Expected {name} whole in {root}, got: {error}; fetch the archive again.") from error
    if len(content) != member.file_size:
        raise ArchiveError(
            f"Expected {member.file_size} bytes in {name} of {root}, got {len(content)}; fetch the archive again."
        )
    return content


def read_source_file(root: str, record: ClipRecord) -> Path | bytes:
    """The file of a record; `partial(read_source_file, root)` is what readers of file trees hand out as `read`."""
    return fetch_file(root, record.source_path)


def prefix_above(names: Iterable[str], folders: Sequence[str]) -> str | None:
    """What stands before `folders` in the names, "" or for instance "DAiSEE/": the shallowest place that has all."""
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
        _reject(place.relative_to(root).as_posix(), f"{reason} in {root}") for place, reason in walked.left_out.items()
    ]
    for path in walked.files:
        name = path.relative_to(root).as_posix()
        if any(_is_litter(part) for part in PurePosixPath(name).parts):
            continue
        if problem := _name_problem(name) or (None if path.is_file() else _what_else(path)):
            rejects.append(_reject(name, f"{problem} in {root}"))
        else:
            names.append(name)
    return names, rejects


def _what_else(path: Path) -> str:
    return f"Expected a file, got {'a link that leads nowhere' if path.is_symlink() else 'a device or pipe'}"


def _archive_at(path: str) -> _Archive:
    try:
        return _open_archive(path, Path(path).stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"Expected a zip archive at {path}, cannot open it: {in_one_line(error)}.") from error


# Thousands of members are read one by one, and the directory of a large archive takes seconds to read.
@lru_cache(maxsize=4)
def _open_archive(path: str, modified_ns: int) -> _Archive:
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:
        raise DataError(
            f"Expected a zip archive that is whole, got {path}, which is truncated or no zip at all ({error}); "
            "fetch it again."
        ) from error
    members: dict[str, zipfile.ZipInfo] = {}
    rejects = []
    for member in _files_of(file):
        name = posixpath.normpath(member.filename)
        problem = _name_problem(member.filename) or _member_problem(member)
        if problem is None and name in members:
            problem = "Expected one member of a name, got a second one"
        if problem is None:
            members[name] = member
        else:
            rejects.append(_reject(member.filename, f"{problem} in {path}"))
    return _Archive(file, members, rejects)


def _files_of(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        # A name that is empty has no last letter for zipfile to look at.
        if not (member.filename and member.is_dir()) and not any(_is_litter(part) for part in parts):
            yield member


def _is_litter(name: str) -> bool:
    return name.lower() in _SYSTEM_FILES or (name.startswith(".") and name != "..")


def _name_problem(name: str) -> str | None:
    """Why a name cannot be used, on any system and in any table."""
    if posixpath.normpath(name) == ".":
        return "Expected a name, got an empty one"
    if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        return "Expected a name below the root, with forward slashes, got one that could lead elsewhere"
    if any(ord(character) < 32 for character in name) or name != _printable(name):
        return "Expected a name in UTF-8 without control characters, got another"
    return None


def _member_problem(member: zipfile.ZipInfo) -> str | None:
    file_type = stat.S_IFMT(member.external_attr >> 16)
    if file_type not in (0, stat.S_IFREG):
        return "Expected a file, got a link or a device"
    if member.flag_bits & 1:
        return "Expected a file that is not encrypted, got an encrypted one"
    if member.compress_type not in _METHODS:
        return f"Expected stored or deflated data, got compression method {member.compress_type}"
    if member.file_size > MAX_FILE_BYTES:
        return f"Expected at most {MAX_FILE_BYTES} bytes, got {member.file_size}"
    if member.file_size > max(MAX_BYTES_AT_ANY_RATIO, MAX_RATIO * member.compress_size):
        return f"Expected data packed at most {MAX_RATIO} times, got {member.file_size} from {member.compress_size}"
    return None


def _reject(name: str, reason: str) -> Reject:
    return Reject(_printable(name), "", "archive", f"{reason}.")


def _printable(name: str) -> str:
    """Names of files need not be text; what is written to tables must be."""
    return name.encode("utf-8", "replace").decode("utf-8")
