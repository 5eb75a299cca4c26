"""Many files, answered in order, each as soon as it is ready; used by `engagement predict`, the page and tables.

The reader can be replaced: anything that takes paths and yields, in their order, each file as the model reads it or its
refusal.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from ..processor.bounded_reader import BoundedReader
from ..processor.input_errors import EngagementInputError, in_one_line
from ..processor.media_reader import HERE
from .answering import Failure, OnWindow, Reading, answer_readings
from .predictions import Prediction, Refusal
from .predictor import Predictor
from .reading_ahead import read_at_once

Reader = Callable[[Iterable[Path]], Iterator[Reading | Refusal]]


def predict_many(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    reader: Reader | None = None,
    on_window: OnWindow | None = None,
    video_track: int | None = None,
    bounded: BoundedReader | None = None,
) -> Iterator[Prediction]:
    """One prediction per path, in order, as soon as it is ready; any error with a file becomes that file's `Refusal`.

    Args:
        timeline_step_sec: also predict spans of each video, at this interval.
        reader: None: `read_bounded`.
        on_window: called with the number of a video's windows read so far, and of all.
        video_track: which of several, from 1; None: the default one.
        bounded: as for `read_bounded`.
    """
    readings = reader(paths) if reader else read_bounded(predictor, paths, timeline_step_sec, video_track, bounded)
    for answer in answer_readings(predictor.scorer, readings, on_window):
        yield refuse(*answer) if isinstance(answer, Failure) else answer


def read_bounded(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    video_track: int | None = None,
    bounded: BoundedReader | None = None,
) -> Iterator[Reading | Refusal]:
    """Reads in separate processes, the predictor's if it has any: a file that hangs or crashes its decoder, or exhausts
    memory, is refused. One worker opens and starts the next file while the current one is answered; several workers
    read one file each and also find the faces.

    Args:
        bounded: a reader that was started earlier; it is closed at the end.
    """
    if bounded is None and predictor.reader is HERE:
        bounded = BoundedReader()
    own = bounded or nullcontext(predictor.reader)
    num_workers = predictor.num_workers
    if (asked := predictor.placement.workers or 1) > num_workers:
        said = f"workers: {num_workers} instead of {asked}, since this process may use {num_workers} processors"
        print(said, file=sys.stderr, flush=True)
    if num_workers == 1:
        # The reader is closed first, which ends any read that the thread waits for.
        with ThreadPoolExecutor(1) as thread, own as files:
            readings = read_here(predictor.with_reader(files), paths, timeline_step_sec, video_track)
            ahead = thread.submit(next, readings, None)
            while (reading := ahead.result()) is not None:
                ahead = thread.submit(next, readings, None)
                yield reading
        return
    with own as files:
        reading_one = predictor.with_reader(files)

        def read(path: Path) -> Reading | Refusal:
            return next(read_here(reading_one, [path], timeline_step_sec, video_track))

        # Our own reader's processes are stopped; another's finish their current files.
        yield from read_at_once(read, paths, num_workers, None if bounded is None else bounded.close)


def read_here(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    video_track: int | None = None,
) -> Iterator[Reading | Refusal]:
    """Reads in this process, each file when it is requested."""
    for path in paths:
        try:
            reading: Reading | Refusal = predictor.read(path, timeline_step_sec, video_track)
        except Exception as error:
            reading = refuse(str(path), error)
        yield reading


def refuse(source: str, error: Exception) -> Refusal:
    """A file's refusal in one line; an unexpected error's begins with its type."""
    if isinstance(error, EngagementInputError):
        return Refusal(source, in_one_line(error, max_chars=1000), type(error).__name__)
    return Refusal(source, f"{source}: {type(error).__name__}: {in_one_line(error)}", type(error).__name__)
