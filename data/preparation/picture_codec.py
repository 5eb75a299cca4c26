"""Frames as encoded bytes and back: what a prepared data set stores."""

import hashlib
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ...processor.input_errors import ImageReadError

JPEG_QUALITY = 95  # 0.1 MiB for 8 crops of 224, against 0.7 to 1 as gzipped arrays


def encode_jpeg(frame: np.ndarray) -> bytes:
    """(height, width, 3) uint8 RGB → JPEG bytes, colour at half resolution as videos store it themselves.

    Against full resolution: read in three quarters of the time, 0.08 grey levels more error on average.
    """
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return file.getvalue()


def decode_small(content: bytes) -> np.ndarray:
    """Encoded bytes → (height, width, 3) uint8 BGR at an eighth of the size, which for JPEG costs a fraction.

    Raises:
        ImageReadError: as `decode_picture`.
    """
    return _decode(content, cv2.IMREAD_REDUCED_COLOR_8)


def decode_picture(content: bytes) -> np.ndarray:
    """Encoded bytes → (height, width, 3) uint8 RGB. OpenCV takes two thirds of PIL's time, for the same pixels.

    Raises:
        ImageReadError: the bytes are no picture, which only a damaged data set holds.
    """
    return _decode(content, cv2.IMREAD_COLOR_RGB)


def pixels_sha256(contents: Sequence[bytes]) -> str:
    """Of the pixels of encoded pictures, one after the other: whatever files they came in.

    Raises:
        ImageReadError: as `decode_picture`.
    """
    digest = hashlib.sha256()
    for content in contents:
        pixels = decode_picture(content)
        digest.update(str(pixels.shape).encode() + pixels.tobytes())
    return digest.hexdigest()


def _decode(content: bytes, flags: int) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        raise ImageReadError(f"Expected an encoded picture, got {len(content)} other bytes; prepare the data again.")
    return pixels
