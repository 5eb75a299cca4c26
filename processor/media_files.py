"""Media files before decoding: paths, URLs and bytes, and the suffixes and first bytes of known formats.

Nothing here needs torch, so that the process that reads untrusted files starts quickly.
"""

import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, TypeGuard

from .input_errors import EngagementInputError, VideoReadError, in_one_line

if TYPE_CHECKING:
    import urllib.request

MediaSource = str | os.PathLike[str] | bytes | BinaryIO  # a path or URL, a file's bytes, or a binary file
PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".hif", ".avif",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".flv", ".f4v", ".wmv", ".asf", ".mpg", ".mpeg", ".vob", ".3gp",
    ".3g2", ".mts", ".m2ts", ".ts", ".ogv", ".mxf",
)  # fmt: skip
HEAD_BYTES = 64  # first bytes of a file, which identify its kind
_PICTURE_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
# Brands of ISO/IEC 23008-12 and AV1 image files: MP4-like boxes that contain one picture, often in tiles.
_HEIF_BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"mif3", b"msf1",
    b"miaf", b"avci", b"avcs", b"jpeg", b"jpgs", b"j2ki", b"j2is", b"vvic", b"vvis", b"mHEI",
}  # fmt: skip
_AVIF_BRANDS = {b"avif", b"avis", b"avio", b"MA1A", b"MA1B"}
_MAX_DOWNLOAD_BYTES = 1 << 30
_DOWNLOAD_TIMEOUT_SEC = 30
_USER_AGENT = "Mozilla/5.0 (compatible; engagement-recognition)"  # many hosts refuse "Python-urllib"
_IN_A_URL = "%/:=&?~#+!$,;'@()*[]"  # characters that are not quoted, or are part of quoting


def is_file_like(source: object) -> TypeGuard[MediaSource]:
    """A path, a URL, bytes or a binary file."""
    return isinstance(source, (str, os.PathLike, bytes)) or hasattr(source, "read")


def unpacked(source: object) -> object:
    """The datasets library's undecoded files, `{"path": ..., "bytes": ...}` → the bytes, else the path; anything else
    is returned unchanged.

    Raises:
        EngagementInputError: it has neither.
    """
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if not isinstance(source, Mapping):
        return source
    found = source.get("bytes") or source.get("path")
    if not found:
        keys = ", ".join(map(str, source)) or "none"
        raise EngagementInputError(
            f"The dict has neither a path nor bytes (it has the keys {keys}); pass {{'path': ...}} or {{'bytes': ...}}."
        )
    return found


def picture_kind(head: bytes) -> str | None:
    """The kind of picture by a file's first bytes, whatever its name; None: no known kind."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    return next((kind for start, kind in _PICTURE_STARTS.items() if head.startswith(start)), None)


def _kind_of_brands(head: bytes) -> str | None:
    begin = 16 if head[:4] == b"\0\0\0\1" else 8  # the size may follow the name, in eight bytes
    main = head[begin : begin + 4]
    size = int.from_bytes(head[8:16] if begin == 16 else head[:4], "big")
    others = {head[at : at + 4] for at in range(begin + 8, min(size, len(head)) - 3, 4)}
    if main in _AVIF_BRANDS or (main in _HEIF_BRANDS and others & _AVIF_BRANDS and not main.startswith(b"he")):
        return "AVIF"
    return "HEIC" if main in _HEIF_BRANDS else "Canon raw" if main == b"crx " else None


def open_regular(path: str | os.PathLike[str], what: str, error: type[EngagementInputError]) -> BinaryIO:
    """Open a regular file for reading; a pipe or device could block, or never end.

    Args:
        what: the expected content, such as "a picture".

    Raises:
        EngagementInputError: as `error`: the file does not exist or cannot be read; the message names it.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 (a Path of an odd string fails otherwise)
        if stat.S_ISREG(mode):
            return open(name, "rb")  # noqa: PTH123 (the caller closes it)
        found = f"the folder {name}" if stat.S_ISDIR(mode) else f"the device or pipe {name}"
        remedy = "pass the files in it" if stat.S_ISDIR(mode) else "copy its content to a file"
    except FileNotFoundError:
        found, remedy = f"no such file: {name}", "check the path"
    except (OSError, ValueError) as problem:  # no permission, a loop of links; a name too long or with a zero byte
        found, remedy = f"{in_one_line(problem)}: {name}", "check the path, and who may read it"
    raise error(f"Expected {what}, got {found}; {remedy}.")


def fetch(source: MediaSource) -> MediaSource:
    """Download a URL's bytes; everything else is returned unchanged.

    Raises:
        VideoReadError: the address does not answer in time, or answers with an error, incompletely, or with more than
            1 GiB.
    """
    if not (isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))):
        return source
    import http.client  # these imports take longer than opening a file
    import urllib.error

    try:
        with _opener().open(_request(source), timeout=_DOWNLOAD_TIMEOUT_SEC) as response:
            content = response.read(_MAX_DOWNLOAD_BYTES + 1)
            length = response.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403, 406, 429)
        remedy = (
            "download it with a browser and pass the file" if refused else "check the address, or pass a local file"
        )
        answer = f"{error.code} {in_one_line(error) if error.code < 400 else http.client.responses.get(error.code, '')}"
        raise VideoReadError(f"Expected a file at {source}, got {answer.strip()}; {remedy}.") from error
    except http.client.IncompleteRead as error:
        raise VideoReadError(_broke_off(source, len(error.partial), None)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        found = f"got no answer ({in_one_line(error)})"
        raise VideoReadError(f"Expected a file at {source}, {found}; pass a local file.") from error
    if len(content) > _MAX_DOWNLOAD_BYTES:
        raise VideoReadError(f"{source} is larger than 1 GiB; download the file and cut it first.")
    if length.isdigit() and len(content) < int(length):
        raise VideoReadError(_broke_off(source, len(content), int(length)))
    return content


def _broke_off(source: str, got: int, length: int | None) -> str:
    after = f"{got:,} of {length:,} bytes" if length else f"{got:,} bytes"
    return f"The download from {source} broke off after {after}; try again, or pass a local file."


def _request(url: str) -> "urllib.request.Request":
    """A request with spaces and non-ASCII letters quoted."""
    import urllib.parse
    import urllib.request

    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    address = urllib.parse.urlunsplit(parts._replace(netloc=host))
    return urllib.request.Request(
        urllib.parse.quote(address, safe=_IN_A_URL), headers={"User-Agent": _USER_AGENT, "Accept": "*/*"}
    )


def _opener() -> "urllib.request.OpenerDirector":
    """Opens only http and https, also for redirects; neither files nor FTP."""
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener
