"""Markdown of results: tables and escaped text."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of these cells; short rows are filled with empty ones."""
    filled = ([*row, *[""] * (len(header) - len(row))] for row in rows)
    lines = [[escape_markdown(cell) for cell in line] for line in (header, *filled)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(header), *lines[1:]])


def escape_markdown(text: str) -> str:
    """Names as text: none ends its cell early or becomes HTML."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())
