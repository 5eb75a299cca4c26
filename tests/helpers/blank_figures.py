"""Results as figures that nobody looks at: drawing them takes most of a report's time."""

from pathlib import Path

import pytest


def leave_blank(patch: pytest.MonkeyPatch) -> None:
    """Every figure is an empty SVG from now on, whatever its name says."""

    def save(_: object, path: Path, **options: object) -> None:
        path.write_text("<svg></svg>")

    patch.setattr("matplotlib.figure.Figure.savefig", save)
