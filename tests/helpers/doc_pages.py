"""Pages of the docs as Markdown, and the code in them."""

from collections.abc import Iterator
from pathlib import Path

from notebook_pages import as_markdown


def text_of(page: Path) -> str:
    """As Markdown."""
    return as_markdown(page) if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")


def blocks(page: Path, language: str, marker: str = "") -> Iterator[str]:
    """Code in one language; with a marker, of blocks below it alone."""
    lines = text_of(page).splitlines()
    for start, line in enumerate(lines):
        if line == f"```{language}" and (not marker or lines[start - 1] == marker):
            yield "\n".join(lines[start + 1 : lines.index("```", start)])
