"""docs/faq.md shows messages as users see them: what it quotes is what the commands print, between its `...`."""

import re
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that give rise to the messages."""
    folder = tmp_path_factory.mktemp("faq")
    write_video(folder / "wall.mp4", [np.full((120, 160, 3), 90 + step, np.uint8) for step in range(9)])
    for name in ("notes.mp4", "notes.jpg"):
        (folder / name).write_text("These are notes.", encoding="utf-8")
    noise = [np.random.default_rng(step).integers(0, 255, (120, 160, 3), np.uint8) for step in range(30)]
    whole = write_video(folder / "cut.mp4", noise).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "clips.csv").write_text("path,label\na.mp4,engaged\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("command", "quoted"),
    [
        ("predict {folder}/wall.mp4", "a face in"),
        ("predict {folder}/notes.mp4", "container format"),
        ("predict {folder}/notes.jpg", "image file"),
        ("predict {folder}/cut.mp4", "a whole video"),
        ("prepare videos {folder}/clips.csv --output {folder}/own", "subject_id"),
        (f"predict {{folder}}/notes.mp4 --device cuda:{torch.cuda.device_count()}", "no device"),
        ("predict {folder}/notes.mp4 --model nobody/nothing", "an engagement model"),
    ],
)
def test_a_message_that_is_quoted_is_printed(command: str, quoted: str, folder: Path, engagement: Command):
    (line,) = (line for line in QUOTED if quoted in line)
    exit_code, out, err = engagement(*(word.format(folder=folder) for word in command.split()))
    parts = [re.escape(part.strip()) for part in line.split("...")]
    assert exit_code == 2 and re.search(".*".join(parts), out + err), (line, err)
