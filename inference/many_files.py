"""Many files, one after the other, each answered when it is ready: what `engagement predict`, the page and tables use.

What reads the files can be exchanged: anything that takes paths and yields, in their order, each as the model reads it
or what is wrong with it.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from ..processor.bounded_reader import BoundedReader
from ..processor.input_errors import EngagementInputError, in_one_line
from ..processor.media_reader import HERE
from .predictions import Prediction, Refusal
from .predictor import PhotoReading, Predictor, VideoReading

Reader = Callable[[Iterable[Path]], Iterator[VideoReading | PhotoReading | Refusal]]


def predict_many(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    reader: Reader | None = None,
    on_window: Callable[[int, int], None] | None = None,
    video_track: int | None = None,
) -> Iterator[Prediction]:
    """One prediction a path, in order, when it is ready; whatever goes wrong with a file is that file's `Refusal`.

    Args:
        timeline_step_sec: also predict a span of each video every so many seconds.
        reader: None: `read_bounded`.
        on_window: told the number of a video's windows done, and of all.
        video_track: of videos with several, from 1; None: the default one.
    """
    readings = reader(paths) if reader else read_bounded(predictor, paths, timeline_step_sec, video_track)
    for reading in readings:
        if isinstance(reading, Refusal):
            yield reading
            continue
        try:
            yield predictor.answer(reading, on_window)
        except Exception as error:  # of one file; the others still come out
            yield refuse(reading.source, error)


def read_bounded(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    video_track: int | None = None,
) -> Iterator[VideoReading | PhotoReading | Refusal]:
    """Reads in a process of its own, the predictor's if it has one: what hangs, crashes or starves a decoder is that
    file's refusal. While a file is answered the next one is opened there, and begun with."""
    own = nullcontext(predictor.reader) if predictor.reader is not HERE else BoundedReader()
    # The reader is closed first, which ends what the thread may be waiting for.
    with ThreadPoolExecutor(1) as thread, own as files:
        readings = read_here(predictor.with_reader(files), paths, timeline_step_sec, video_track)
        ahead = thread.submit(next, readings, None)
        while (reading := ahead.result()) is not None:
            ahead = thread.submit(next, readings, None)
            yield reading


def read_here(
    predictor: Predictor,
    paths: Iterable[Path],
    timeline_step_sec: float | None = None,
    video_track: int | None = None,
) -> Iterator[VideoReading | PhotoReading | Refusal]:
    """Reads in this process, each file when it is asked for."""
    for path in paths:
        try:
            reading: VideoReading | PhotoReading | Refusal = predictor.read(path, timeline_step_sec, video_track)
        except Exception as error:
            reading = refuse(str(path), error)
        yield reading


def refuse(source: str, error: Exception) -> Refusal:
    """A file's refusal in one line; that of an unexpected error begins with its type."""
    if isinstance(error, EngagementInputError):
        return Refusal(source, in_one_line(error, max_chars=1000), type(error).__name__)
    return Refusal(source, f"{source}: {type(error).__name__}: {in_one_line(error)}", type(error).__name__)
