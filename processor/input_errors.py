"""The one family of errors a user's input can cause; every entry point turns them into one line.

Each message names what was expected, what was found, in which file, and what to do. The classes
carry nothing but their message, so that they survive pickling between processes. Errors in our own
code are not in this family and keep their traceback.
"""

from typing import TypeVar


class EngagementInputError(ValueError):
    """Something the user gave (a file, a folder, a recipe, an option) cannot be used."""


class VideoReadError(EngagementInputError):
    """A video file cannot be read: missing, a directory, empty, not a video, unreadable."""


class NoVideoStreamError(VideoReadError):
    """The container holds no video stream, for instance only sound."""


class NoDecodableFrameError(VideoReadError):
    """A video stream is there, and not one frame of it (or not the frame asked for) decodes."""


class TruncatedVideoError(VideoReadError):
    """The file ends before the frames its own structure promises."""


class VideoTooLargeError(VideoReadError):
    """The frames exceed the pixel limit; refused before one is decoded."""


class ImageReadError(EngagementInputError):
    """A picture file cannot be read."""


class NoFaceError(EngagementInputError):
    """No face in any of the frames looked at."""


class DataError(EngagementInputError):
    """A data set's folder, table or label cannot be used."""


class ArchiveError(EngagementInputError):
    """A member of an archive cannot be read: bad checksum, encrypted, or not safe to read."""


class LeakageError(EngagementInputError):
    """A data set's split cannot be trusted, or nobody has looked."""


class RecipeError(EngagementInputError):
    """A recipe or an option of a run is wrong."""


class ModelLoadError(EngagementInputError):
    """A model or encoder cannot be loaded from where the user said."""


class NonFiniteLossError(EngagementInputError):
    """Training met a loss that is not a finite number, and stopped."""


Kind = TypeVar("Kind", bound=EngagementInputError)


def error_named(name: str, says: str, kind: type[Kind]) -> Kind:
    """One of the errors above, as another process names it, if it is a `kind`; else a `kind` itself."""
    named = globals().get(name)
    return named(says) if isinstance(named, type) and issubclass(named, kind) else kind(says)


def in_one_line(error: BaseException, max_chars: int = 200) -> str:
    """What an error of a library says, for use within a message of ours: no line breaks, no torrent, never nothing."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:max_chars] or type(error).__name__
