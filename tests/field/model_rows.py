"""Model folders and records of results."""

from rows import Row

ROWS: list[Row] = []
