"""A folder in which only one job works at a time: a second one is refused, or waits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..processor.input_errors import DataError, in_one_line
from .atomic_files import writing


@contextlib.contextmanager
def alone_in(output: Path, job: str) -> Iterator[None]:
    """Lock a folder, since two jobs would overwrite each other's files; the lock ends with its process.

    Args:
        job: name of the job for the error message, such as "preparation".

    Raises:
        DataError: another job is running there, or the lock cannot be written.
    """
    lock = FileLock(output.with_name(f"{output.name}.lock"), timeout=0)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()  # without write access the lock would wait as if somebody else held it
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"Another {job} is running in {output}; wait for it to finish, or choose another folder."
        ) from error
    except OSError as error:
        raise DataError(
            f"A lock file next to {output} could not be written ({in_one_line(error)}); choose another place."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # before its release: afterwards it may belong to another job
            Path(lock.lock_file).unlink()
        lock.release()


@contextlib.contextmanager
def waiting_for(output: Path) -> Iterator[None]:
    """Like `alone_in`, but waits for a running job; raises DataError if the lock cannot be written."""
    lock = output.with_name(f"{output.name}.lock")
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # as above; it is not deleted, since a waiting job may have it open
    with FileLock(lock):
        yield
