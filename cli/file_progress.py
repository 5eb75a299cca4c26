"""How far a command is with many files: a bar on a terminal, out of the way while something is printed."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class FileProgress:
    """With the time left; use in a `with`."""

    def __init__(self, num_files: int) -> None:
        self._bar = _draw_bar(num_files) if sys.stderr.isatty() else None
        self._num_done = 0

    def __enter__(self) -> "FileProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_window(self, done: int, total: int) -> None:
        """Of a long film, where in it the work is."""
        part = f"window {done} of {total}" if total > 1 else ""
        self._update(self._num_done + done / total, part)

    def tell(self, part: str) -> None:
        """What is done with the file now."""
        self._update(None, part)
        if self._bar is not None:
            self._bar.start()

    def hide(self) -> None:
        """Before something is printed."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """A file is done."""
        self._num_done += 1
        self._update(self._num_done, "")
        if self._bar is not None:
            self._bar.start()

    def _update(self, completed: float | None, part: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=completed, part=part)


def _draw_bar(num_files: int) -> "Progress":
    """Only where somebody sees it: rich takes a while to import."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("files"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[part]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("files", total=num_files, part="")
    return bar
