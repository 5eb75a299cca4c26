"""The folder that a run writes to: checked before the work to be writable and free of other trainings."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data.atomic_files import writing
from ..data.locked_folder import alone_in
from .arguments import StageRun


@contextlib.contextmanager
def alone_in_folders(runs: Sequence[StageRun]) -> Iterator[None]:
    """Until the block ends, no other training writes to the folders of these runs.

    Raises:
        DataError: another training runs there, or the folder is not writable.
    """
    folders = {run.run_dir.resolve(): run.run_dir for run in runs}
    with contextlib.ExitStack() as locks:
        for folder in folders.values():
            locks.enter_context(alone_in(folder, "training"))
        for folder in folders.values():
            _require_writable(folder)
            locks.callback(_remove_if_empty, folder)
        for run in runs:
            _require_writable(Path(str(run.training.output_dir)))
            locks.callback(_remove_if_empty, Path(str(run.training.output_dir)).parent)
            locks.callback(_remove_if_empty, Path(str(run.training.output_dir)))
        yield


def _require_writable(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
