"""One process that reads files for all commands of a block; outside of tests each command starts its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from engagement_recognition.inference import many_files
from engagement_recognition.processor import bounded_reader
from engagement_recognition.processor.bounded_reader import BoundedReader


class _KeptReader(BoundedReader):
    def start(self) -> Self:
        return self

    def close(self) -> None:
        """The next command goes on with it."""


@contextmanager
def one_reader() -> Iterator[None]:
    reader = _KeptReader()
    with pytest.MonkeyPatch.context() as patch:
        for module in (bounded_reader, many_files):
            patch.setattr(module, "BoundedReader", lambda: reader)
        yield
    BoundedReader.close(reader)
