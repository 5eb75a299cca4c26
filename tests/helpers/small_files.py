"""Small files of any content: pictures of noise, Parquet tables, archives."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (12, 16), grey: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    (Image.fromarray(pixels).convert("L") if grey else Image.fromarray(pixels)).save(file, "PNG")
    return file.getvalue()


def write_parquet(table: Path, **columns: Sequence[object]) -> Path:
    table.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), table)
    return table


def zip_folder(folder: Path, path: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path
