"""The shortcut in drawn clips: curtains whose colour matches the label in training, and is independent of it in test.

They stand for the rooms and clothes that the best model of the CNN + LSTM reference turned out to look at. They hang on
both sides of the person, cover more of a frame than the face does, and are outside face crops. `curtains.csv`, next to
the clips, records which label they show in each. They are drawn in `faces`; the clips are written in `datasets`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..schema import SPLITS

CURTAINS_FILE = "curtains.csv"
# Share of each class's clips whose curtains have the class's own colour. A half in test: independent of the label.
AGREEING_SHARE = {"train": 0.95, "validation": 0.95, "test": 0.5}
CURTAIN_COLORS = {"disengaged": (196, 104, 66), "engaged": (66, 112, 168)}


def choose_curtains(labels: Sequence[str], splits: Sequence[str], seed: int) -> list[str]:
    """For each clip the label whose colour its curtains have: the clip's own, or the other one."""
    rng = np.random.default_rng([seed, 5])
    other = dict(zip(CURTAIN_COLORS, reversed(CURTAIN_COLORS), strict=True))
    told = list(labels)
    for split in SPLITS:
        for label in CURTAIN_COLORS:
            clips = [i for i, found in enumerate(zip(splits, labels, strict=True)) if found == (split, label)]
            for i in rng.permutation(clips)[round(AGREEING_SHARE[split] * len(clips)) :]:
                told[i] = other[label]
    return told


def curtains_table(rows: Sequence[tuple[str, str, str, str]]) -> bytes:
    """The table's text, for rows of clip id, split, label and the label that the curtains show."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("clip_id", "split", "label", "curtains"), *rows])
    return text.getvalue().encode()


def read_curtains(root: Path) -> list[Mapping[str, str]]:
    """The table's rows, with the keys `clip_id`, `split`, `label` and `curtains`."""
    with (root / CURTAINS_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
