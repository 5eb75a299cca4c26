"""Archives, links and folders."""

from rows import Row

ROWS: list[Row] = []
