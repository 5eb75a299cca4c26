"""How much of a training's steps is spent waiting for pictures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback

_MUCH = 0.05


class StepTimes(TrainerCallback):
    """Seconds of all steps so far: `loading` until their batches arrive, `computing` from then to their end."""

    def __init__(self) -> None:
        self.loading = self.computing = 0.0
        self._loaded: float | None = None  # when the batches of the current step arrived

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wraps the loading of a step's batches."""
        began = time.perf_counter()
        yield
        self._loaded = time.perf_counter()
        self.loading += self._loaded - began

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        if self._loaded is not None:
            self.computing += time.perf_counter() - self._loaded
            self._loaded = None

    def loading_share(self) -> float | None:
        """0 to 1; None before the first step."""
        return self.loading / (self.loading + self.computing) if self.computing else None

    def advice(self, num_workers: int) -> str | None:
        """One line if loading takes much of the time; else None."""
        share = self.loading_share()
        if share is None or share <= _MUCH:
            return None
        return f"{share:.0%} of the time was spent waiting for pictures, with --dataloader_num_workers {num_workers}"
