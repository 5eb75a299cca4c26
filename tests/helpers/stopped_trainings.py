"""Trainings that are stopped within, at a step or an evaluation that a test names."""

from collections.abc import Callable

import pytest

from engagement_recognition.training.trainer import EngagementTrainer


def interrupt() -> None:
    raise KeyboardInterrupt


def stop_in(
    patch: pytest.MonkeyPatch, number: int, stop: Callable[[], None] = interrupt, method: str = "training_step"
) -> list[int]:
    """Whatever trains next is stopped where `method` begins for the `number`th time; the steps at which it began."""
    work, began = getattr(EngagementTrainer, method), []

    def counted(self: EngagementTrainer, *arguments: object, **options: object) -> object:
        began.append(self.state.global_step)
        if len(began) == number:
            stop()
        return work(self, *arguments, **options)

    patch.setattr(EngagementTrainer, method, counted)
    return began
