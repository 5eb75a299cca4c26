"""Work in a fork of this process, which has imported everything: a new process would spend seconds on that."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest


def in_a_fork(work: Callable[[], object], said: Path) -> int:
    """The fork's number, for `os.waitpid`; what it prints lies in `said`, and it ends with `work`'s exit code."""
    if not hasattr(os, "fork"):
        pytest.skip("Windows has no forks")
    if pid := os.fork():
        return pid
    code = 1
    try:
        sys.stdout = sys.stderr = said.open("w", buffering=1, encoding="utf-8")
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # no exit handler of the process that was forked


def exit_code_of(fork: int) -> int:
    """Waits for its end; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
