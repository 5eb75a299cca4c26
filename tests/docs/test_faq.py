"""docs/faq.md shows messages as users see them: what it quotes is what the commands print, between its `...`."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from page_inputs import write_video
from places import ROOT

PAGE = ROOT / "docs/faq.md"
QUOTED = [
    line
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    for line in block.splitlines()
    if not language
]


def nobody(folder: Path) -> list[str]:
    write_video(folder / "wall.mp4", [np.full((120, 160, 3), 90 + step, np.uint8) for step in range(9)])
    return ["predict", str(folder / "wall.mp4")]


def no_video(folder: Path) -> list[str]:
    (folder / "notes.mp4").write_text("These are notes.", encoding="utf-8")
    return ["predict", str(folder / "notes.mp4")]


def no_picture(folder: Path) -> list[str]:
    (folder / "notes.jpg").write_text("These are notes.", encoding="utf-8")
    return ["predict", str(folder / "notes.jpg")]


def cut_video(folder: Path) -> list[str]:
    path = folder / "cut.mp4"
    write_video(path, [np.random.default_rng(step).integers(0, 255, (120, 160, 3), np.uint8) for step in range(30)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return ["predict", str(path)]


def no_people(folder: Path) -> list[str]:
    (folder / "clips.csv").write_text("path,label\na.mp4,engaged\n", encoding="utf-8")
    return ["prepare", "videos", str(folder / "clips.csv"), "--output", str(folder / "own")]


def no_gpu(folder: Path) -> list[str]:
    return [*no_video(folder), "--device", f"cuda:{torch.cuda.device_count()}"]


def no_model(folder: Path) -> list[str]:
    return [*no_video(folder), "--model", "nobody/nothing"]


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (nobody, "a face in"),
        (no_video, "container format"),
        (no_picture, "image file"),
        (cut_video, "a whole video"),
        (no_people, "subject_id"),
        (no_gpu, "no device"),
        (no_model, "an engagement model"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_message_that_is_quoted_is_printed(
    words: Callable[[Path], list[str]], quoted: str, tmp_path: Path, engagement: Command
):
    (line,) = (line for line in QUOTED if quoted in line)
    exit_code, out, err = engagement(*words(tmp_path))
    parts = [re.escape(part.strip()) for part in line.split("...")]
    assert exit_code == 2 and re.search(".*".join(parts), out + err), (line, err)
