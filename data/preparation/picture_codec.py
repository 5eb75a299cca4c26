"""Encodes and decodes the pictures that a prepared data set stores."""

import hashlib
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ...processor.input_errors import ImageReadError

JPEG_QUALITY = 95  # 8 crops of 224 px: 0.1 MiB, compared with 0.7 to 1 MiB as gzipped arrays


def encode_jpeg(frame: np.ndarray) -> bytes:
    """(height, width, 3) uint8 RGB → JPEG bytes, with colour at half resolution, as in videos.

    Compared with full resolution: read in three quarters of the time, 0.08 grey levels more error on average.
    """
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return file.getvalue()


def decode_small(content: bytes) -> np.ndarray:
    """Encoded bytes → (height, width, 3) uint8 BGR at an eighth of the size, which is much faster for JPEG.

    Raises:
        ImageReadError: as `decode_picture`.
    """
    return _decode(content, cv2.IMREAD_REDUCED_COLOR_8)


def decode_picture(content: bytes) -> np.ndarray:
    """Encoded bytes → (height, width, 3) uint8 RGB. OpenCV takes two thirds of PIL's time for the same pixels.

    Raises:
        ImageReadError: the bytes are not a picture, so the data set is damaged.
    """
    return _decode(content, cv2.IMREAD_COLOR_RGB)


def pixels_sha256(contents: Sequence[bytes]) -> str:
    """SHA-256 of the decoded pixels of pictures, in order; independent of the file format.

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
        raise ImageReadError(f"{len(content)} stored bytes do not decode as a picture; prepare the data again.")
    return pixels
