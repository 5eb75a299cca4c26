"""What is given to `engagement predict` → files: a folder stands for the photos and videos in it."""

from collections.abc import Iterable
from pathlib import Path

from ..processor.media_inputs import PICTURE_SUFFIXES, VIDEO_SUFFIXES


def list_files(inputs: Iterable[Path]) -> list[Path]:
    """In order, a folder's by name and without those of folders within; a folder that has none stays, to be refused."""
    return [file for source in inputs for file in (_media_in(source) if source.is_dir() else []) or [source]]


def _media_in(folder: Path) -> list[Path]:
    suffixes = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
