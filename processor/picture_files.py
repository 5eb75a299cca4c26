"""A picture file → its pixels, upright.

Pillow decodes. A picture with broken metadata is still read; an animation or an incomplete file is refused with a
one-line error. A very large picture is reduced while reading, so that 2 GB of memory suffice.
"""

import importlib
import importlib.util
import io
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from .input_errors import ImageReadError, in_one_line
from .media_files import HEAD_BYTES, MediaSource, open_regular, picture_kind
from .picture_metadata import without_metadata

LARGE_PIXELS = 64_000_000  # a larger picture is read at half its size, a third, ...
_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")  # an MPO's second picture, or a TIFF's second page, is not an animation
_ROWS_AT_ONCE = 256
_TO_COLOURS_FIRST = ("1", "P", "PA")  # modes whose values are not brightness, so that they cannot be averaged
_NO_METADATA = "its metadata is broken and was left out, including the picture's orientation"
_NO_ORIENTATION = "its EXIF is broken; the picture is read in the orientation in which it is stored"


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture."""

    pixels: np.ndarray  # (height, width, 3) uint8 RGB, upright
    notes: tuple[str, ...] = ()  # remarks for the user, each a phrase
    stored_as: tuple[str, str] | None = None  # Pillow's format and mode, if the pixels are exactly the file's


def read_picture(source: MediaSource, is_limited: bool = False) -> Picture:
    """A path, bytes or binary file → its picture.

    Args:
        is_limited: this process has a memory limit, and the caller that set it reports a MemoryError.

    Raises:
        ImageReadError: the file is missing, empty or not a still picture; the message names it.
    """
    name = str(source) if isinstance(source, (str, Path)) else "<bytes>"
    try:
        return _read_file(source, name)
    except MemoryError as error:
        if is_limited:
            raise
        raise ImageReadError(f"There is not enough memory for the picture {name}; make it smaller.") from error


def _read_file(source: MediaSource, name: str) -> Picture:
    with _open(source) as file:
        head = file.read(HEAD_BYTES)
        kind, formats = picture_kind(head), None
        if not head:
            raise ImageReadError(f"Expected a picture, got an empty file in {name}; copy it again.")
        if kind == "HEIC":
            formats = _heif_formats(name)
        if kind == "AVIF" and not features.check("avif"):
            raise ImageReadError(
                f"Expected a picture that can be read here, got AVIF in {name}; convert it to JPEG, or pip install -U "
                "pillow."
            )
        file.seek(0)
        try:
            return _read(lambda: Image.open(file, formats=formats), name)
        except _Unreadable as problem:
            file.seek(0)
            plain = without_metadata(file.read())
            if plain is None:
                raise _refusal(name, str(problem)) from problem
            try:
                found = _read(lambda: Image.open(io.BytesIO(plain)), name)
            except _Unreadable:
                raise _refusal(name, str(problem)) from problem
            return Picture(found.pixels, (_NO_METADATA, *found.notes))


def from_pillow(picture: Image.Image) -> Picture:
    """Convert Pillow's picture, which may be a file that is not decoded yet.

    Raises:
        ImageReadError: it cannot be decoded, or is an animation.
    """
    try:
        return _read(lambda: picture, "<picture>", is_ours=False)
    except _Unreadable as problem:
        raise _refusal("<picture>", str(problem)) from problem


class _Unreadable(Exception):
    """Pillow cannot open or decode the file, for the reason that is the message."""


def _refusal(name: str, reason: str) -> ImageReadError:
    return ImageReadError(f"Expected a picture, got {reason} in {name}; pass a JPEG, PNG or WebP file.")


def _open(source: MediaSource) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        return open_regular(source, "a picture", ImageReadError)
    if source.seekable():
        source.seek(0)
    return io.BytesIO(source.read())


def _heif_formats(name: str) -> list[str]:
    """Pillow's names of the format, after enabling Pillow to read it.

    Raises:
        ImageReadError: it cannot.
    """
    # Not an import statement: for this file on the Hub, the loader would require the package from everybody.
    if importlib.util.find_spec("pillow_heif") is None:
        raise ImageReadError(
            f"Expected a picture that can be read here, got HEIC in {name}; convert it to JPEG, or pip install "
            "pillow-heif."
        )
    importlib.import_module("pillow_heif").register_heif_opener()
    return ["HEIF"]


def _read(open_picture: Callable[[], Image.Image], name: str, is_ours: bool = True) -> Picture:
    """
    Args:
        is_ours: no other code uses the picture object, so that it may be decoded at a reduced size.

    Raises:
        _Unreadable: Pillow cannot read it; its readers raise many kinds of exceptions.
        ImageReadError: too large, or an animation.
    """
    try:
        with warnings.catch_warnings():  # Pillow warns about pictures that it can still read
            warnings.simplefilter("ignore")
            picture = open_picture()
            size_px = picture.size
            if is_ours and (factor := _reduction(picture)) > 1:
                picture.draft(None, (picture.width // factor, picture.height // factor))  # only has an effect on JPEG
            if picture.format in _ANIMATIONS and getattr(picture, "is_animated", False):
                raise ImageReadError(
                    f"Expected a still picture, got an animation ({picture.format}) in {name}; convert it to MP4, or "
                    "pass one of its frames."
                )
            picture.load()
            num_pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            notes = (f"the first of its {num_pages} pages",) if num_pages > 1 else ()
            return _to_picture(picture, size_px, notes, is_ours)
    except (ImageReadError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # with None there is no limit, and not this error
        raise ImageReadError(
            f"Expected a picture of at most {limit:,} pixels, got more in {name}; make it smaller."
        ) from error
    except Exception as error:
        reason = "cannot identify image file" if isinstance(error, UnidentifiedImageError) else None
        raise _Unreadable(reason or in_one_line(error)) from error


def _to_picture(picture: Image.Image, size_px: tuple[int, int], notes: tuple[str, ...], is_ours: bool) -> Picture:
    form = (picture.format or "", picture.mode)
    turn, note = _turn_of(picture)
    notes += (note,) if note else ()
    upright = _to_8_bit(picture)
    if (factor := _reduction(upright)) > 1:
        upright = (upright.convert("RGB") if upright.mode in _TO_COLOURS_FIRST else upright).reduce(factor)
    if is_ours and upright is not picture:
        picture.close()  # a large one takes half of the allowed memory
    if is_smaller := upright.size != size_px:
        parts = {2: "half", 3: "a third", 4: "a quarter"}
        scale = round(size_px[0] / upright.width)
        part = parts.get(scale, f"1/{scale} of")
        notes += (f"{size_px[0]}x{size_px[1]} pixels, read at {part} the size, in whose pixels boxes are given",)
    upright = upright if turn is None else upright.transpose(turn)
    pixels = np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
    return Picture(pixels, notes, None if is_smaller or turn is not None or note else form)


def _reduction(picture: Image.Image) -> int:
    """Integer by which the sides of a large picture are divided; 1: no reduction."""
    return math.ceil(math.sqrt(picture.width * picture.height / LARGE_PIXELS)) or 1


def _turn_of(picture: Image.Image) -> tuple[Image.Transpose | None, str | None]:
    """The rotation that makes it upright, or why that is unknown; Pillow's `exif_transpose` would rewrite all EXIF."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
        return _TURNS.get(orientation), None
    except Exception:  # struct.error, SyntaxError, ...
        return None, _NO_ORIENTATION


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """16-bit grey and floats to 8 bits; PIL's own conversion would turn every value above 255 white."""
    if picture.mode == "F":
        return _floats_to_8_bit(picture)
    if not picture.mode.startswith("I"):
        return picture
    levels = np.asarray(picture)
    if picture.mode == "I" and levels.max() <= 255:
        return Image.fromarray(levels.astype(np.uint8))
    strips = np.array_split(levels, max(1, len(levels) // _ROWS_AT_ONCE))  # a large picture takes a gigabyte per step
    return Image.fromarray(np.concatenate([np.clip(strip // 257, 0, 255).astype(np.uint8) for strip in strips]))


def _floats_to_8_bit(picture: Image.Image) -> Image.Image:
    """Scale values from 0 to 1, 255 or 65535 (chosen by their maximum) to 8 bits."""
    levels = np.nan_to_num(np.asarray(picture), posinf=0, neginf=0)
    scale = next((255 / top for top in (1, 255, 65535) if levels.max() <= top), 255 / float(levels.max()))
    return Image.fromarray(np.clip(np.rint(levels * scale), 0, 255).astype(np.uint8))
