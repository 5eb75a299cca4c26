"""Markdown of results: tables, and text that stays text."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of these cells; a row that is short is filled with empty ones."""
    filled = ([*row, *[""] * (len(header) - len(row))] for row in rows)
    lines = [[escape_markdown(cell) for cell in line] for line in (header, *filled)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(header), *lines[1:]])


def escape_markdown(text: str) -> str:
    """Names are text: no cell ends early, and nothing becomes HTML."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())
