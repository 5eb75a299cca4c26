"""Every file below a folder, following links: a Hub cache, DVC and clusters build folders out of links.

Each real folder is walked once, under its own name rather than a link's, so that a loop of links ends.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...processor.input_errors import in_one_line


@dataclass
class Walked:
    """Files (and anything that is not a folder), and folders that were left out, each with the reason."""

    files: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)


def walk(root: Path) -> Walked:
    """The files below a folder; folders whose names begin with a dot are ignored."""
    walked, seen, links = Walked(), set[str](), [root]
    above = {os.fspath(parent) for parent in Path(os.path.realpath(root)).parents}
    while links:
        top, links = links[0], links[1:]
        real = os.path.realpath(top)
        if real in above:
            walked.left_out[top] = "A link to a folder that holds the link itself"
        elif real in seen:
            walked.left_out[top] = "A link to a folder that was already read"
        else:
            links += _walk_real(top, seen, walked)
    return walked


def _walk_real(top: Path, seen: set[str], walked: Walked) -> Iterator[Path]:
    """Walk everything below without following links; yields the links to folders, to be followed at the end."""

    def leave_out(error: OSError) -> None:
        walked.left_out[Path(error.filename)] = f"A folder that cannot be read ({in_one_line(error)})"

    for folder, subfolders, files in os.walk(top, onerror=leave_out):
        seen.add(os.path.realpath(folder))
        here = Path(folder)
        walked.files += [here / name for name in sorted(files)]
        inner = [name for name in sorted(subfolders) if not name.startswith(".")]
        linked = [here / name for name in inner if (here / name).is_symlink()]
        subfolders[:] = [
            name for name in inner if here / name not in linked and os.path.realpath(here / name) not in seen
        ]
        yield from linked
