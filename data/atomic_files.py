"""Writes results so that a file or folder is either complete or absent; a failure to write is a one-line error.

Work is done under a temporary name next to the output and renamed at the end. A job that may be killed and resumed
claims its folder first.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from ..processor.input_errors import DataError, in_one_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PARTIAL = ".partial"  # suffix of a file that is still being written; a leftover one may be deleted


def require_new_folder(output: Path, holds: str) -> None:
    """Raises DataError unless `output` is an empty folder or does not exist; `holds` names its future content."""
    with writing(output):
        is_taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if is_taken:
        raise DataError(f"{output} is not empty; choose a new or empty folder for {holds}.")


def claim_folder(output: Path, claim_file: str, claim: str, holds: str) -> str:
    """Mark a folder as belonging to one job, so that the same job can resume there and no other can start.

    Args:
        claim_file: name of the file in the folder that stores the claim.
        claim: text that identifies this job; `holds` names the folder's future content.

    Returns:
        The claim that the folder already has, for the caller to compare; `claim` itself for a new folder.

    Raises:
        DataError: `output` is a file, or a folder with other content and no claim; or it cannot be written.
    """
    with writing(output):
        if (output / claim_file).is_file():
            return (output / claim_file).read_text(encoding="utf-8", errors="replace").strip()
        if output.exists() and (not output.is_dir() or any(path.suffix != PARTIAL for path in output.iterdir())):
            raise DataError(
                f"{output} has other content; choose a new folder for {holds}, or the one in which the same job was "
                "started."
            )
        output.mkdir(parents=True, exist_ok=True)
    write_whole(output / claim_file, f"{claim}\n")
    return claim


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Raises DataError where the block cannot write."""
    try:
        yield
    except Exception as error:
        # SafetensorError: a full disk while weights are written. By name: that library may not be installed.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        remedy = "choose another place"
        if getattr(error, "errno", None) in _FULL or "No space left" in str(error):
            remedy = "make room there and run the same command again"
        raise DataError(f"{output} could not be written ({in_one_line(error)}); {remedy}.") from error


def require_writable(output: Path) -> None:
    """Raises DataError, before any work, if the folder `output` (which need not exist yet) cannot be written to."""
    with writing(output):
        TemporaryFile(dir=next(place for place in (output, *output.absolute().parents) if place.exists())).close()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write or replace a file so that it is never visible half written.

    Raises:
        DataError: it cannot be written.
    """
    with whole_file(path) as partial, writing(path):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path for a file that replaces `path` when the block ends, and is deleted when the block fails.

    Raises:
        DataError: it cannot be created; raised at the start, before any work is done.
    """
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with writing(path):
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.touch()
        yield partial
        with writing(path):
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Like `whole_file`, for a folder; the current content of `output` is deleted."""
    unfinished = unfinished_beside(output)
    try:
        with writing(output):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        yield unfinished
        with writing(output):
            if output.exists():
                shutil.rmtree(output)  # some systems cannot rename onto an existing folder
            unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfinished_beside(output: Path) -> Path:
    """Temporary path of a folder until it is complete."""
    place = Path.cwd() / output  # Path(".") has an empty name
    return place.with_name(f"{place.name}.unfinished")
