"""Progress through many files: a bar on a terminal, hidden while something is printed."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class FileProgress:
    """A bar with the time left; use in a `with`."""

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
        """Show the progress within a long video."""
        part = f"window {done} of {total}" if total > 1 else ""
        self._update(self._num_done + done / total, part)

    def tell(self, part: str) -> None:
        """Show what is being done with the current file."""
        self._update(None, part)
        if self._bar is not None:
            self._bar.start()

    def hide(self) -> None:
        """Hide the bar before something is printed."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """Count one more file as done."""
        self._num_done += 1
        self._update(self._num_done, "")
        if self._bar is not None:
            self._bar.start()

    def _update(self, completed: float | None, part: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=completed, part=part)


def _draw_bar(num_files: int) -> "Progress":
    """Called only on a terminal: rich takes a while to import."""
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
