"""Ctrl-C, and the SIGTERM that SLURM, Docker and others send: one line says what is kept, and with which command to
resume.

A training ends at once, since SIGTERM is followed by SIGKILL seconds later; finished work is already on the disk.
"""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..data.checksums import CHECKSUMS_FILE
from .arguments import StageRun

_OPTION = "resume_from_checkpoint"


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class TrainingInterrupted(KeyboardInterrupt):
    """A signal arrived while a stage was running.

    Args:
        stop: as it was raised.
        goes_on: whether `--resume_from_checkpoint true` would find anything to resume from.
    """

    def __init__(self, stop: KeyboardInterrupt, goes_on: bool) -> None:
        super().__init__()
        self.args = ()  # these would be printed
        self.by_sigterm, self.goes_on = isinstance(stop, Terminated), goes_on


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within the context SIGTERM raises Terminated, once. Only Python's main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _terminate(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a launcher sends it again, which would interrupt the cleaning up
    raise Terminated


@contextmanager
def noting_what_is_kept(runs: Sequence[StageRun]) -> Iterator[None]:
    """Checkpoints from before the block belong to an earlier training, unless this one resumes from them.

    Raises:
        TrainingInterrupted: a signal ended the block.
    """
    before = _parts(runs)
    try:
        yield
    except KeyboardInterrupt as stop:
        resumes = any(run.training.resume_from_checkpoint for run in runs)
        raise TrainingInterrupted(stop, goes_on=resumes or bool(_parts(runs) - before)) from stop


def _parts(runs: Sequence[StageRun]) -> set[tuple[Path, int]]:
    """Whole checkpoints and finished models, with the time of each."""
    patterns = [
        f"{folder}{name}"
        for folder in ("", "folds/*/")
        for run in runs
        for name in (f"checkpoints/{run.name}/checkpoint-*/{CHECKSUMS_FILE}", f"{run.name}/results.json")
    ]
    found = [path for run in runs for pattern in patterns for path in run.run_dir.glob(pattern)]
    return {(path, path.stat().st_mtime_ns) for path in found}


def exit_code(stop: KeyboardInterrupt) -> int:
    """As shells report the signal."""
    return 128 + (signal.SIGTERM if _is_by_sigterm(stop) else signal.SIGINT)


def how_to_go_on(stop: KeyboardInterrupt, options: Sequence[str] | None) -> str:
    """One line: what is kept, and the user's command with the option that resumes.

    Args:
        options: the words that the training was called with; None: those of the process.
    """
    by = "SIGTERM" if _is_by_sigterm(stop) else "Ctrl-C"
    typed = list(sys.argv[1:] if options is None else options)
    if isinstance(stop, TrainingInterrupted) and stop.goes_on:
        kept, verb = "checkpoints and finished models are kept", "resume with"
        typed = [*_without_resumption(typed), f"--{_OPTION}", "true"]
    else:
        kept, verb = "there was no checkpoint yet; prepared data is kept", "start again with"
    # The command line of `accelerate launch` is not known here.
    launched = "your launch command and " if "WORLD_SIZE" in os.environ else ""
    return f"stopped by {by}: {kept}; {verb} {launched}{shlex.join([*_program(), *typed])}"


def _is_by_sigterm(stop: KeyboardInterrupt) -> bool:
    return isinstance(stop, Terminated) or (isinstance(stop, TrainingInterrupted) and stop.by_sigterm)


def _program() -> list[str]:
    """The words before the options."""
    if Path(sys.argv[0]).name != "train.py":
        return ["engagement", "train"]
    return sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]


def _without_resumption(words: Sequence[str]) -> list[str]:
    """Without the option (of either stage, or both) and its value."""
    kept: list[str] = []
    is_value_of_it = False
    for word in words:
        name = word.partition("=")[0].replace("-", "_")
        is_option = word.startswith("--")
        is_it = is_option and name.endswith(_OPTION)
        if not (is_it or (is_value_of_it and not is_option)):
            kept.append(word)
        is_value_of_it = is_it and "=" not in word
    return kept
