"""A notebook as a Markdown page, so that what holds of the other pages' links, commands and Python is tested of it."""

import re
from pathlib import Path

import nbformat

_COMMAND = re.compile(r"^(\w+ = )?!(.*)\n?", re.M)  # `!command`, or `lines = !command`


def as_markdown(path: Path) -> str:
    """Text as it is but for its indentation in lists; of code the commands, then the Python without them."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(
        _text_of(cell.source) if cell.cell_type == "markdown" else _code_of(cell.source) for cell in cells
    )


def _text_of(source: str) -> str:
    return re.sub("^   ", "", source, flags=re.M)


def _code_of(source: str) -> str:
    commands = "".join(f"{command}\n" for _, command in _COMMAND.findall(source))
    python = _COMMAND.sub(lambda found: f"{found[1]}...\n" if found[1] else "", source).rstrip("\n")
    return f"```bash\n{commands}```\n\n```python\n{python}\n```"
