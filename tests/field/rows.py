"""What a row of the matrix is: a small input that the field has, what is done with it, and what must come out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from bench import Bench, Said

from engagement_recognition.processor.input_errors import EngagementInputError

# The kinds of failure that were met in the field; a row says which of them it holds, or none for what always held.
KINDS = {
    1: "damage inside a Matroska, WebM or TS file loses frames without a word; a box walk without end",
    2: "variable frame rate: frames spread over numbers, not over time",
    3: "a video track that begins after the sound: labels of a player's clock",
    4: "several video tracks: the default one",
    5: "pixels that are not square",
    6: "HEIC, HEIF and AVIF photos",
    7: "rotated, mirrored, edited starts are exact",
    8: "split folders by other names",
    9: "nan as a result",
    10: "several people: how many, and whose answer it is",
    11: "downloads that break off, odd addresses, hosts that refuse",
    12: "HDR without tone mapping",
    13: "cached pictures that no longer match their hashes",
    14: "older PyAV gives other pixels",
    15: "interlaced AVCHD: two packets a frame",
    16: "sizes in a container that are off by a few bytes",
    17: "links: a Hub cache, DVC, scratch",
    18: "endings that one reader knows and another does not; animations",
    19: "tables as people have them",
    20: "what datasets hands out",
    21: "call arguments of Hugging Face processors",
    22: "FER2013's other forms",
    23: "a size that changes in the middle",
    24: "rtsp and http cameras",
    25: "heads cut short",
    26: "broken EXIF and pictures, loops of links, odd archive members",
    27: "pipes, endless timelines, patterns without end",
    28: "gigapixels: at most 2 GB",
    29: "one unreadable file ends a batch",
    30: "names that are not UTF-8, output that is not",
    31: "broken model folders",
    32: "full disks, folders that cannot be written",
    33: "hand-edited records",
    34: "options without sense",
    35: "malformed events on the page",
    36: "code in a model folder is run after a question",
    37: "addresses that pass for public ones",
    38: "two trainings in one folder",
    39: "resuming with other options",
    40: "broken checkpoints",
    41: "two GPUs without accelerate",
    42: "ranks that wait while one prepares",
    43: "workers counted from the host; killed workers",
    44: "a tracker that publishes",
}


class Expected(Protocol):
    """What must come out of a row."""

    def check(self, call: Callable[[], Any]) -> None:
        """Fails unless it does."""


@dataclass(frozen=True)
class Comes:
    """A result; `says` are words among its notes (or, of a command, in what it printed), `that` looks at it."""

    says: tuple[str, ...] = ()
    that: Callable[[Any], object] = lambda result: None  # asserts; what it returns must not be False

    def check(self, call: Callable[[], Any]) -> None:
        result = call()
        if isinstance(result, Said):
            assert result.code == 0, result
        notes = getattr(result, "notes", ())  # a source of data has others
        told = result.text if isinstance(result, Said) else "; ".join(notes if isinstance(notes, tuple) else ())
        for words in self.says:
            assert words in told, told
        assert self.that(result) is not False, result


@dataclass(frozen=True)
class Refused:
    """One line, with each of `words`: the file, the reason, the remedy. Of a command: an exit code that is not 0."""

    words: tuple[str, ...]
    kind: type[EngagementInputError] = EngagementInputError

    def check(self, call: Callable[[], Any]) -> None:
        try:
            result = call()
        except EngagementInputError as error:
            assert isinstance(error, self.kind), type(error)
            lines = [str(error)]
        else:
            assert isinstance(result, Said), f"came out: {result}"
            assert result.code in (1, 2) and "Traceback" not in result.text, result
            lines = [line for line in result.err.splitlines() if line.startswith(("error:", "refused:"))]
            assert len(lines) == 1, result
        assert "\n" not in lines[0]
        for word in self.words:
            assert word in lines[0], lines[0]


@dataclass(frozen=True)
class Row:
    """One case."""

    name: str  # unique, as it is shown
    make: Callable[[Path], Any]  # an empty folder → the input, made there
    run: Callable[[Bench, Any], Any]  # the input → a result, or what a command said
    expect: Expected
    kind: int | None = None  # of `KINDS`
    slow: bool = False
    upstream: str = field(default="")  # a defect of a library below us, with its issue, that decides what comes out

    def as_param(self) -> Any:  # pytest's own class is not public
        return pytest.param(self, id=self.name, marks=[pytest.mark.slow] if self.slow else [])
