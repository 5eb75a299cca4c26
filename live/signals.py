"""Signals that end a live run or a page (Ctrl-C, SIGTERM, a closed terminal), and how to delay them.

Python handles signals only in the main thread. Finishing work before a run ends is left to the callers.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def quit_signals() -> tuple[int, ...]:
    """Signals that ask a program to end: SIGINT, SIGTERM, and a closed terminal's SIGHUP if the system has it.

    SIGHUP is left out if it is ignored, as under nohup: the program is then meant to outlive the terminal.
    """
    hangup: int | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, hangup


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Inside, a signal to quit sets `stop`, so that the current step is finished; a second one interrupts at once.

    Yields the numbers of received signals.
    """
    before = {number: signal.getsignal(number) for number in quit_signals()}
    came: list[int] = []

    def ask(number: int, _: object) -> None:
        came.append(number)
        stop.set()
        for number in before:
            signal.signal(number, signal.default_int_handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def why_ended(came: Sequence[int], stop: threading.Event) -> str:
    """The reason why a run ended without an error.

    Args:
        came: as `stopping_on_signals` yields them.
        stop: set by a signal, or when the window was closed.
    """
    if came:
        return f"ended by {'Ctrl-C' if came[0] == signal.SIGINT else signal.Signals(came[0]).name}"
    return "the window was closed" if stop.is_set() else "reached its end"


@contextmanager
def signals_held(forget: bool = False) -> Iterator[None]:
    """Delay signals to quit until after the block, or drop them. Outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # A handler that was not installed from Python reads as None and could not be restored.
    numbers = [number for number in quit_signals() if signal.getsignal(number) is not None]
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in [] if forget else came:
        signal.raise_signal(number)
