"""Finds similar pictures: a fingerprint per picture, and all close pairs among very many of them.

A fingerprint is imagehash's perceptual hash (256 bits: where brightness lies) followed by the mean colours of an 8x8
grid (192 bytes). The bits find candidates by one matrix product; the colours distinguish a neighbour from a stranger
who merely sits in the same pose, which the bits alone do not. `recordings` judges which pairs are too close.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import imagehash
import numpy as np
import torch
from PIL import Image

from ...processor.input_errors import DataError

HASH_SIZE = 16
HASH_BITS = HASH_SIZE**2
GRID_CELLS = 8
_DIGITS = HASH_BITS // 4 + 2 * 3 * GRID_CELLS**2
# A perceptual hash sets half of its bits; a blank picture's sets almost none and resembles any other blank one's.
_FEWEST_BITS_SET = HASH_BITS // 4
# 8.4 million pairs at once: 34 MB of products, and 150 MB if all of them were close.
_ROWS_PER_TILE, _OTHERS_PER_TILE = 1024, 8192
THUMBNAIL_PX = 24


@dataclass(frozen=True)
class PictureHashes:
    """Fingerprints as arrays, one row per picture."""

    signs: np.ndarray  # (rows, 256) int8, -1 or 1
    colors: np.ndarray  # (rows, 192) uint8
    usable: np.ndarray  # (rows,) bool; False: no fingerprint, or a blank picture

    def __len__(self) -> int:
        return len(self.usable)

    def color_distances(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Mean absolute difference of the 8x8 colours, in levels from 0 to 255: (pairs,) float32."""
        distances = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), 100_000):  # 77 MB at a time
            part = slice(start, start + 100_000)
            difference = self.colors[rows[part]].astype(np.int16) - self.colors[others[part]]
            distances[part] = np.abs(difference, out=difference).mean(1, dtype=np.float32)
        return distances


def perceptual_hash(picture: np.ndarray) -> str:
    """(height, width, 3) uint8 RGB → 448 hex digits: 256 bits of structure, then 8x8 mean colours."""
    image = Image.fromarray(picture)
    colors = np.asarray(image.resize((GRID_CELLS, GRID_CELLS), Image.Resampling.BOX))
    return str(imagehash.phash(image, hash_size=HASH_SIZE)) + colors.tobytes().hex()


def unpack_hashes(hashes: Sequence[str | None]) -> PictureHashes:
    """
    Raises:
        DataError: one of them is not a result of `perceptual_hash`.
    """
    known = np.array([bool(text) for text in hashes], bool)
    packed = np.zeros((len(hashes), _DIGITS // 2), np.uint8)
    for row, text in enumerate(hashes):
        if not text:
            continue
        try:
            packed[row] = np.frombuffer(bytes.fromhex(text), np.uint8)
        except ValueError as error:
            raise DataError(
                f"Expected frame hashes of {_DIGITS} hex digits, got {text[:16]!r}... ({len(text)}) in row {row}; "
                "prepare the data again."
            ) from error
    bits = np.unpackbits(packed[:, : HASH_BITS // 8], axis=1)
    signs = bits.astype(np.int8) * 2 - 1
    return PictureHashes(signs, packed[:, HASH_BITS // 8 :], known & (bits.sum(1) >= _FEWEST_BITS_SET))


def count_tiles(num_rows: int) -> int:
    """Number of times that `close_pairs` yields."""
    return sum(len(_tiles_before(stop)) for _, stop in _blocks(num_rows))


def close_pairs(hashes: PictureHashes, max_distance_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All usable pairs within a distance, tile by tile, so that memory does not grow with the square of the rows.

    Yields:
        Rows, other rows (other < row) and the number of bits that differ; each (pairs,). Rows increase from block to
        block: once a block is passed, its rows do not occur again.
    """
    usable = torch.from_numpy(hashes.usable)
    signs = torch.from_numpy(hashes.signs)
    least_product = HASH_BITS - 2 * max_distance_bits
    for start, stop in _blocks(len(hashes)):
        block = signs[start:stop].float()
        for other_start, other_stop in _tiles_before(stop):
            # (rows, 256) @ (256, others): number of equal bits minus number of different ones
            products = block @ signs[other_start:other_stop].float().T
            rows, others = torch.nonzero(products >= least_product, as_tuple=True)
            distances = (HASH_BITS - products[rows, others]) / 2
            rows, others = rows + start, others + other_start
            kept = (others < rows) & usable[rows] & usable[others]
            yield rows[kept].numpy(), others[kept].numpy(), distances[kept].short().numpy()


def _blocks(num_rows: int) -> list[tuple[int, int]]:
    return [(start, min(start + _ROWS_PER_TILE, num_rows)) for start in range(0, num_rows, _ROWS_PER_TILE)]


def _tiles_before(stop: int) -> list[tuple[int, int]]:
    return [(start, min(start + _OTHERS_PER_TILE, stop)) for start in range(0, stop, _OTHERS_PER_TILE)]


def grey_thumbnail(content: bytes) -> np.ndarray:
    """An encoded picture → (24, 24) uint8, read at reduced size if its format supports it."""
    image = Image.open(BytesIO(content))
    image.draft("L", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
    return np.asarray(image.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX))


def grey_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean absolute difference of thumbnails, each less its own mean, so that a brighter copy is still a copy.

    Args:
        first, second: (pairs, 24, 24) uint8.

    Returns:
        Grey levels, from 0 to 255: (pairs,).
    """
    first, second = (pictures - pictures.mean((1, 2), keepdims=True) for pictures in (first, second))
    return np.abs(first - second).mean((1, 2))
