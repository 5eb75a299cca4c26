"""A file to which lines are appended one by one, each completely or not at all, however the work ends."""

import os
from contextlib import suppress
from pathlib import Path

from .atomic_files import writing


class GrowingFile:
    """Use in a `with`.

    Args:
        path: of a file that may exist; a missing folder is created.
        end: number of bytes to keep; the rest is cut off.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, end: int) -> None:
        self.path, self.end = path, end

    def __enter__(self) -> "GrowingFile":
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
            self._file.truncate(self.end)
            self._file.seek(self.end)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, text: str) -> None:
        """Append a text; on a full disk raises OSError and leaves the file unchanged."""
        rest = text.encode()
        try:
            while rest:  # a disk that is nearly full may accept only a part
                rest = rest[self._file.write(rest) :]
            self.end = self._file.tell()
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.end)
                self._file.seek(self.end, os.SEEK_SET)
            raise
