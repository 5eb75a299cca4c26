"""Tables, and folders of data."""

from rows import Row

ROWS: list[Row] = []
