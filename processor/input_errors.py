"""The family of errors that a user's input can cause; every entry point prints them as one line.

Each message names the problem, its value, the file, and what to do. The classes contain only their message, so that
they can be pickled between processes. Errors in our own code are not in this family and keep their traceback.
"""

from typing import TypeVar


class EngagementInputError(ValueError):
    """A user's input (a file, a folder, a recipe, an option) cannot be used."""


class VideoReadError(EngagementInputError):
    """A video file cannot be read: missing, a directory, empty, not a video, unreadable."""


class NoVideoStreamError(VideoReadError):
    """The container has no video stream, for instance only sound."""


class NoDecodableFrameError(VideoReadError):
    """The video stream exists, but none of its frames (or not the requested one) can be decoded."""


class TruncatedVideoError(VideoReadError):
    """The file ends before all frames that its structure declares."""


class VideoTooLargeError(VideoReadError):
    """The frames exceed the pixel limit; refused before decoding."""


class ImageReadError(EngagementInputError):
    """A picture file cannot be read."""


class NoFaceError(EngagementInputError):
    """No face in any of the searched frames."""


class DataError(EngagementInputError):
    """A data set's folder, table or label cannot be used."""


class ArchiveError(EngagementInputError):
    """A member of an archive cannot be read: bad checksum, encrypted, or not safe to read."""


class LeakageError(EngagementInputError):
    """A data set's split cannot be trusted, or was not audited."""


class RecipeError(EngagementInputError):
    """A recipe or an option of a run is invalid."""


class ModelLoadError(EngagementInputError):
    """A model or encoder cannot be loaded from the given place."""


class NonFiniteLossError(EngagementInputError):
    """Training stopped at a loss that is not a finite number."""


def printable(name: str) -> str:
    """A file name that fits any output on one line: control characters, and bytes that are not text, are escaped."""
    spaces = "\u3000\xa0"  # which also occur in names
    return "".join(each if each.isprintable() or each in spaces else repr(each)[1:-1] for each in name)


Kind = TypeVar("Kind", bound=EngagementInputError)


def error_named(name: str, says: str, kind: type[Kind]) -> Kind:
    """The error class of this name, sent by another process, if it is a `kind`; else `kind`; with this message."""
    named = globals().get(name)
    return named(says) if isinstance(named, type) and issubclass(named, kind) else kind(says)


def in_one_line(error: BaseException, max_chars: int = 200) -> str:
    """A library's error message for use in ours: on one line, limited in length, never empty."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(text.split()))[:max_chars] or type(error).__name__
