"""Means over blocks of pixels, for whole pictures and for many parts of them at once, from one table of sums.

The results equal those of torch's `interpolate(mode="area")` to the last bit: integers are summed, so that nothing is
rounded before the division.
"""

from collections.abc import Callable

import numpy as np

_FIELD_BITS = 21  # bits for the sum over one channel; three channels share a 64-bit word
_LONGEST_BLOCK_PX = 90  # 90 * 90 * 255 < 2 ** 21


class AreaSums:
    """Tables of sums for frames of one size: (num_frames, height, width, 3), uint8."""

    def __init__(self, frames: np.ndarray, longest_block_px: int) -> None:
        """longest_block_px: the longest side of any block of pixels whose mean will be requested."""
        num_frames, height, width, _ = frames.shape
        # Sums of three channels share a word as long as none overflows into the next, which costs a third of the time.
        # Overflows in the whole table's sums do no harm, since they cancel in the differences.
        shared = longest_block_px <= _LONGEST_BLOCK_PX
        self._channels = [[0, 1, 2]] if shared else [[0], [1], [2]]
        self._tables = [np.zeros((num_frames, height + 1, width + 1), np.int64) for _ in self._channels]
        for table, channels in zip(self._tables, self._channels, strict=True):
            fields = 2.0 ** (_FIELD_BITS * np.arange(len(channels)))
            for frame, sums in zip(frames[..., channels], table[:, 1:, 1:], strict=True):
                sums[...] = frame.astype(np.float64) @ fields  # integers below 2 ** 53: exact
            np.cumsum(table, axis=2, out=table)
            for row in range(1, height + 1):  # faster than cumsum, which runs column by column
                table[:, row] += table[:, row - 1]

    def reduced(self, height: int, width: int) -> np.ndarray:
        """All frames, reduced to this size: (num_frames, height, width, 3), float32."""
        _, rows, columns = self._tables[0].shape
        top, bottom = _edges(np.array(rows - 1), height)
        left, right = _edges(np.array(columns - 1), width)

        def sums_of(table: np.ndarray) -> np.ndarray:
            bands = table.take(bottom, axis=1)
            bands -= table.take(top, axis=1)
            return bands.take(right, axis=2) - bands.take(left, axis=2)

        return self._means(sums_of, bottom - top, right - left)

    def parts(self, of_frame: np.ndarray, corners_px: np.ndarray, side: int) -> np.ndarray:
        """Parts of frames, each resized to side x side: (num_parts, side, side, 3), float32.

        of_frame: (num_parts,), the frame of each part.
        corners_px: (num_parts, 4), left, top, right, bottom: integers within the frame, right and bottom excluded.
        """
        _, rows, columns = self._tables[0].shape
        left, top, right, bottom = corners_px.T[..., None]  # each (num_parts, 1)
        first_row, next_row = _edges(bottom - top, side)  # (num_parts, side)
        first_column, next_column = _edges(right - left, side)
        above = ((of_frame[:, None] * rows + top + first_row) * columns)[:, :, None]
        below = ((of_frame[:, None] * rows + top + next_row) * columns)[:, :, None]
        before, behind = (left + first_column)[:, None], (left + next_column)[:, None]

        def sums_of(table: np.ndarray) -> np.ndarray:
            flat = table.reshape(-1)
            sums = flat.take(below + behind)
            sums -= flat.take(above + behind)
            sums -= flat.take(below + before)
            sums += flat.take(above + before)
            return sums

        return self._means(sums_of, next_row - first_row, next_column - first_column)

    def _means(
        self, sums_of: Callable[[np.ndarray], np.ndarray], heights: np.ndarray, widths: np.ndarray
    ) -> np.ndarray:
        means = None
        for table, channels in zip(self._tables, self._channels, strict=True):
            sums = sums_of(table)
            if means is None:
                means = np.empty((*sums.shape, 3), np.float32)
            for channel in channels[:-1]:
                means[..., channel] = sums & ((1 << _FIELD_BITS) - 1)
                sums >>= _FIELD_BITS
            means[..., channels[-1]] = sums
        assert means is not None
        means /= heights.astype(np.float32)[..., :, None, None]
        means /= widths.astype(np.float32)[..., None, :, None]
        return means


def _edges(length: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the blocks that a length is divided into; they overlap if it is not a multiple of count."""
    number = np.arange(count)
    return number * length // count, -(-(number + 1) * length // count)
