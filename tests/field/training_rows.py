"""Trainings that are stopped, resumed, doubled."""

from rows import Row

ROWS: list[Row] = []
