"""How far a command is with many files: a bar on a terminal, out of the way while something is printed."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class FileProgress:
    """With the time left; use in a `with`."""

    def __init__(self, num_files: int) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("files"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[part]}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._num_done = 0
        self._task = self._bar.add_task("files", total=num_files, part="")

    def __enter__(self) -> "FileProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_window(self, done: int, total: int) -> None:
        """Of a long film, where in it the work is."""
        part = f"window {done} of {total}" if total > 1 else ""
        self._bar.update(self._task, completed=self._num_done + done / total, part=part)

    def tell(self, part: str) -> None:
        """What is done with the file now."""
        self._bar.update(self._task, part=part)
        self._bar.start()

    def hide(self) -> None:
        """Before something is printed."""
        self._bar.stop()

    def advance(self) -> None:
        """A file is done."""
        self._num_done += 1
        self._bar.update(self._task, completed=self._num_done, part="")
        self._bar.start()
