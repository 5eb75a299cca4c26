"""Where results go: a folder or file that is whole or not there, and a place that cannot be written told in one line.

Work is done under another name beside the output, which takes the output's name at the end. A job that may be killed
and go on claims its folder first.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from ..processor.input_errors import DataError, in_one_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PARTIAL = ".partial"  # the ending of a file that is being written; whoever finds one may delete it


def require_new_folder(output: Path, holds: str) -> None:
    """Raises DataError unless `output` is an empty folder, or not there; `holds` names what will be in it."""
    with writing(output):
        is_taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if is_taken:
        raise DataError(f"Expected a new or empty folder for {holds}, got {output}, which holds something.")


def claim_folder(output: Path, claim_file: str, claim: str, holds: str) -> str:
    """Mark a folder as that of one job, so that the same job goes on there and no other begins.

    Args:
        claim_file: its name in the folder.
        claim: what tells this job from others; `holds` names what will be in the folder.

    Returns:
        What the folder was claimed with earlier, for the caller to compare; `claim` itself for a new folder.

    Raises:
        DataError: a file is there, or a folder that holds something and is not claimed; or nothing can be written.
    """
    with writing(output):
        if (output / claim_file).is_file():
            return (output / claim_file).read_text(encoding="utf-8", errors="replace").strip()
        if output.exists() and (not output.is_dir() or any(path.suffix != PARTIAL for path in output.iterdir())):
            raise DataError(
                f"Expected a new folder for {holds}, or one in which the same was begun, got {output}, which holds "
                "something else; choose another place."
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
        # A full disk, where weights are written; by its name, for whoever writes none has no such library.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        remedy = "choose another place"
        if getattr(error, "errno", None) in _FULL or "No space left" in str(error):
            remedy = "make room there, and type the same command again"
        raise DataError(f"Expected to write {output}, could not ({in_one_line(error)}); {remedy}.") from error


def require_writable(output: Path) -> None:
    """Raises DataError where nothing can be written to `output`, a folder that is there or not; before the work."""
    with writing(output):
        TemporaryFile(dir=next(place for place in (output, *output.absolute().parents) if place.exists())).close()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, or replace it, so that nobody ever sees a part of it.

    Raises:
        DataError: it cannot be written.
    """
    with whole_file(path) as partial, writing(path):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` when the block ends, or is gone when it fails.

    Raises:
        DataError: it cannot be made there; at the start, so that nobody waits for that.
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
    """As `whole_file`, for a new folder; what is in `output` goes."""
    unfinished = unfinished_beside(output)
    try:
        with writing(output):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        yield unfinished
        with writing(output):
            if output.exists():
                shutil.rmtree(output)  # not every system renames onto a folder
            unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfinished_beside(output: Path) -> Path:
    """Where a folder is made until it is whole."""
    place = Path.cwd() / output  # "." has no name
    return place.with_name(f"{place.name}.unfinished")
