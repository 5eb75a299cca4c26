"""A folder in which one job is at work at a time: another is refused, or waits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..processor.input_errors import DataError, in_one_line
from .atomic_files import writing


@contextlib.contextmanager
def alone_in(output: Path, job: str) -> Iterator[None]:
    """Two jobs in one folder would write over each other; the lock goes with the process that holds it.

    Args:
        job: what the other one would be, such as "preparation".

    Raises:
        DataError: another one is at work there, or the lock cannot be written.
    """
    lock = FileLock(output.with_name(f"{output.name}.lock"), timeout=0)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()  # where nothing can be written the lock itself would wait as if it were another's
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"Expected to be alone in {output}, another {job} is running there; wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise DataError(
            f"Expected to write beside {output}, got: {in_one_line(error)}; choose another place."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # before its release: after it, it may be another's
            Path(lock.lock_file).unlink()
        lock.release()


@contextlib.contextmanager
def waiting_for(output: Path) -> Iterator[None]:
    """As `alone_in`, once whoever is at work there is done; raises DataError where the lock cannot be written."""
    lock = output.with_name(f"{output.name}.lock")
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # as above; it stays, since one who waits may hold it open
    with FileLock(lock):
        yield
