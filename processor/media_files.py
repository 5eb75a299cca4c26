"""Files as users have them, before anything is decoded as video: paths, URLs, bytes; and pictures among them.

Nothing here needs torch, so that the process that reads untrusted files starts in a blink.
"""

import io
import os
import urllib.request
import warnings
from pathlib import Path
from typing import BinaryIO, TypeGuard

import numpy as np
from PIL import Image, ImageOps

from .input_errors import ImageReadError, VideoReadError

MediaSource = str | os.PathLike[str] | bytes | BinaryIO  # a path or URL, a file's bytes, or a binary file
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm")
_MAX_DOWNLOAD_BYTES = 1 << 30
_DOWNLOAD_TIMEOUT_SEC = 30


def is_file_like(source: object) -> TypeGuard[MediaSource]:
    """A path, a URL, bytes or a binary file."""
    return isinstance(source, (str, Path, bytes)) or hasattr(source, "read")


def fetch(source: MediaSource) -> MediaSource:
    """A URL becomes its bytes; everything else stays as it is.

    Raises:
        VideoReadError: the address does not answer in time, or with more than 1 GiB.
    """
    if not (isinstance(source, str) and source.startswith(("http://", "https://"))):
        return source
    try:
        with urllib.request.urlopen(source, timeout=_DOWNLOAD_TIMEOUT_SEC) as response:
            content = response.read(_MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError) as error:
        raise VideoReadError(f"Expected a file at {source}, got no answer ({error}); pass a local file.") from error
    if len(content) > _MAX_DOWNLOAD_BYTES:
        raise VideoReadError(f"Expected at most 1 GiB, got more from {source}; download and cut the file first.")
    return content


def read_picture(source: MediaSource) -> np.ndarray:
    """A path, bytes or binary file → (height, width, 3) uint8 RGB, upright.

    Raises:
        ImageReadError: the file is missing, empty or not a picture; the message names it.
    """
    return to_rgb(_open_picture(source))


def to_rgb(picture: Image.Image) -> np.ndarray:
    """(height, width, 3) uint8, upright."""
    return np.asarray(_to_8_bit(ImageOps.exif_transpose(picture)).convert("RGB"))


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """16-bit grey to 8; PIL's own conversion would cut every value above 255 to white."""
    if not picture.mode.startswith("I"):
        return picture
    levels = np.asarray(picture).astype(np.int64)
    if picture.mode == "I" and levels.max() <= 255:
        return Image.fromarray(levels.astype(np.uint8))
    return Image.fromarray(np.clip(levels // 257, 0, 255).astype(np.uint8))


def _open_picture(source: MediaSource) -> Image.Image:
    name = str(source) if isinstance(source, (str, Path)) else "<bytes>"
    try:
        with warnings.catch_warnings():  # Pillow warns of what it reads all the same
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
            picture.load()
    except FileNotFoundError as error:
        raise ImageReadError(f"Expected a picture at {name}, found no such file.") from error
    except IsADirectoryError as error:
        raise ImageReadError(f"Expected a picture, got the folder {name}; pass the files in it.") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # None would lift the limit, and this error with it
        raise ImageReadError(
            f"Expected a picture of at most {limit:,} pixels, got more in {name}; make it smaller."
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        reason = "an empty file" if isinstance(source, (str, Path)) and Path(source).stat().st_size == 0 else error
        raise ImageReadError(f"Expected a picture, got {reason} in {name}; pass a JPEG, PNG or WebP file.") from error
    return picture
