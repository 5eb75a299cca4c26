"""Where results go: a folder or file that is whole or not there, and a place that cannot be written told in one line.

What takes long asks first and works in `<output>.unfinished` beside it, which takes the output's name at the end.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..processor.input_errors import DataError


def require_new_folder(output: Path, holds: str) -> None:
    """Raises DataError unless `output` is an empty folder, or not there; `holds` names what will be in it."""
    with writing(output):
        is_taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if is_taken:
        raise DataError(f"Expected a new or empty folder for {holds}, got {output}, which holds something.")


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Raises DataError where the block cannot write."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"Expected to write {output}, could not ({reason}); choose another place.") from error


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """A new folder that takes the place of `output` when the block ends, or is gone when it fails.

    Raises:
        DataError: it cannot be made there; at the start, so that nobody waits for that.
    """
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


@contextlib.contextmanager
def whole_file(output: Path) -> Iterator[Path]:
    """As `whole_folder`, for a file that is not there yet."""
    unfinished = unfinished_beside(output)
    try:
        with writing(output):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            unfinished.touch()
        yield unfinished
        with writing(output):
            unfinished.rename(output)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def unfinished_beside(output: Path) -> Path:
    """Where the work is done until it is whole."""
    place = Path.cwd() / output  # "." has no name
    return place.with_name(f"{place.name}.unfinished")
