"""A file to which lines are added as they come, each whole or not at all, however the work ends."""

import os
from contextlib import suppress
from pathlib import Path

from .atomic_files import writing


class GrowingFile:
    """Use in a `with`.

    Args:
        path: of a file that is there, or will be; its folder too.
        end: where what is to be kept ends, in bytes; the rest is cut off.

    Raises:
        DataError: no place to write.
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
        """Add a text; raises OSError of a full disk, and leaves the file as it was."""
        rest = text.encode()
        try:
            while rest:  # a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
            self.end = self._file.tell()
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.end)
                self._file.seek(self.end, os.SEEK_SET)
            raise
