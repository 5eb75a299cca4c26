"""Many files, in order, each answered when it is ready: what `engagement predict`, the page and tables use.

What reads the files can be exchanged: anything that takes paths and yields, in their order, each as the model reads it
or what is wrong with it.
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
    """One prediction a path, in order, when it is ready; whatever goes wrong with a file is that file's `Refusal`.

    Args:
        timeline_step_sec: also predict a span of each video every so many seconds.
        reader: None: `read_bounded`.
        on_window: told the number of a video's windows read, and of all.
        video_track: of videos with several, from 1; None: the default one.
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
    """Reads in processes of their own, the predictor's if it has some: what hangs, crashes or starves a decoder is that
    file's refusal. One worker opens the next file while one is answered, and begins with it; several read as many files
    at once, and find the faces in them too.

    Args:
        bounded: whose processes these are, when it has begun already; it is closed at the end.
    """
    if bounded is None and predictor.reader is HERE:
        bounded = BoundedReader()
    own = bounded or nullcontext(predictor.reader)
    num_workers = predictor.num_workers
    if (asked := predictor.placement.workers or 1) > num_workers:
        said = f"workers: {num_workers} of {asked}, as many as there are processors for this process"
        print(said, file=sys.stderr, flush=True)
    if num_workers == 1:
        # The reader is closed first, which ends what the thread may be waiting for.
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

        # Of a reader of its own the processes are ended; another's finish what they are at.
        yield from read_at_once(read, paths, num_workers, None if bounded is None else bounded.close)


def read_here(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    video_track: int | None = None,
) -> Iterator[Reading | Refusal]:
    """Reads in this process, each file when it is asked for."""
    for path in paths:
        try:
            reading: Reading | Refusal = predictor.read(path, timeline_step_sec, video_track)
        except Exception as error:
            reading = refuse(str(path), error)
        yield reading


def refuse(source: str, error: Exception) -> Refusal:
    """A file's refusal in one line; that of an unexpected error begins with its type."""
    if isinstance(error, EngagementInputError):
        return Refusal(source, in_one_line(error, max_chars=1000), type(error).__name__)
    return Refusal(source, f"{source}: {type(error).__name__}: {in_one_line(error)}", type(error).__name__)
