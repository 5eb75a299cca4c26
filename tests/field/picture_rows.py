"""Pictures and faces of the field."""

from rows import Row

ROWS: list[Row] = []
