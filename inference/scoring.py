"""Crops of clips and faces → scores: many in one forward pass, from any number of files, and fewer if memory is short.
An error in one of them does not affect the others."""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from ..answer_rule import AnswerRule
from ..processor.face_preparation import FacePreparation
from ..processor.input_errors import EngagementInputError, in_one_line
from .engines import Engine

# Libraries' messages when memory runs out: torch on a CPU, CUDA and MPS, ONNX Runtime and OpenVINO.
_OUT_OF_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "failed to allocate memory", "bad allocation",
    "bad_alloc", "cublas_status_alloc_failed",
)  # fmt: skip


class BatchDoesNotFitError(EngagementInputError):
    """Even a single clip or face does not fit in the device's memory."""


class Batches:
    """
    Args:
        size: rows at once, at most.
        device: for messages.
    """

    def __init__(self, size: int, device: str) -> None:
        self.size, self._device = size, device

    def run(self, compute: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Results of `compute`, from (n, ...) to (n, ...), for all rows (at least one), in order. If a batch does not
        fit in memory, the size is halved permanently; a line on standard error says so.

        Raises:
            BatchDoesNotFitError: even one row does not fit.
        """
        found, at, too_large = [], 0, 0
        while at < len(rows):
            batch = rows[at : at + self.size]
            try:
                found.append(compute(batch))
                at += len(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise BatchDoesNotFitError(
                        f"Not enough memory on {self._device} even for one input at a time ({in_one_line(error)}); end "
                        "other programs that use it, or choose another --device."
                    ) from error
                too_large, self.size = too_large or len(batch), len(batch) // 2
        if too_large:
            said = f"batch of {too_large} did not fit in memory: {self.size} from now on"
            print(said, file=sys.stderr, flush=True)
        return found[0] if len(found) == 1 else np.concatenate(found)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library ran out of memory; each reports it in its own way."""
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's, which may not be installed
        return True
    return not isinstance(error, ValueError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


class Scorer:
    """
    Args:
        processor: makes pixel values, which a clip model reads as one row per clip, any other as one per face.
        rule: turns logits into scores.
        batches: determines how many rows go into one forward pass.
    """

    def __init__(self, engine: Engine, processor: FacePreparation, rule: AnswerRule, batches: Batches) -> None:
        self.engine, self.rule, self.batches = engine, rule, batches
        self._processor = processor.on_device("cpu")  # the engine moves a whole batch at once

    def num_rows(self, crops: np.ndarray) -> int:
        """How many rows of a batch (num_frames, height, width, 3) become."""
        return 1 if self.engine.reads_clips else len(crops)

    def score(self, parts: Sequence[np.ndarray]) -> list[np.ndarray | Exception]:
        """
        Args:
            parts: (num_frames, height, width, 3) uint8 RGB each, a clip or faces.

        Returns:
            for each part (num_rows, num_labels), as the answer rule gives them, or its error.
        """
        rows = [self._rows_of(part) for part in parts]
        good = [row for row in rows if not isinstance(row, Exception)]
        scores = iter(self._score_each(good))
        return [row if isinstance(row, Exception) else next(scores) for row in rows]

    def _rows_of(self, crops: np.ndarray) -> np.ndarray | Exception:
        try:
            pixel_values = np.asarray(self._processor.to_pixel_values(crops))  # (num_frames, C, H, W)
        except Exception as error:
            return error
        return pixel_values[None] if self.engine.reads_clips else pixel_values

    def _score_each(self, parts: Sequence[np.ndarray]) -> Sequence[np.ndarray | Exception]:
        if not parts:
            return []
        try:
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            scores = self.rule.to_scores(self.batches.run(self.engine.logits, rows))
            return np.split(scores, np.cumsum([len(part) for part in parts])[:-1])
        except Exception as error:
            if len(parts) == 1:
                return [error]
        return [scored for part in parts for scored in self._score_each([part])]  # perhaps only one of them fails
