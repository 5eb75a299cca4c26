"""Containers, codecs and forms of pictures, each of which gives just the frames that it has."""

from rows import Row

ROWS: list[Row] = []
