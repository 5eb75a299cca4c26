"""The shortcut of drawn clips: curtains whose colour goes with the label in training, and tells nothing of it in test.

They stand for the rooms and clothes on which the CNN + LSTM reference found its best model to look. They hang beside
the person, cover more of a frame than the face does, and lie outside of face crops. `curtains.csv` beside the clips
says what they tell of each. How they are painted is in `drawn_faces`, the clips are written in `drawn_datasets`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..schema import SPLITS

CURTAINS_FILE = "curtains.csv"
# Of each class's clips, those whose curtains have the class's own colour. A half in test: independent of the label.
AGREEING_SHARE = {"train": 0.95, "validation": 0.95, "test": 0.5}
CURTAIN_COLORS = {"disengaged": (196, 104, 66), "engaged": (66, 112, 168)}


def choose_curtains(labels: Sequence[str], splits: Sequence[str], seed: int) -> list[str]:
    """The label whose colour each clip's curtains have: the clip's own, or the other one."""
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
    """The table's text, for rows of clip id, split, label and the label that the curtains tell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("clip_id", "split", "label", "curtains"), *rows])
    return text.getvalue().encode()


def read_curtains(root: Path) -> list[Mapping[str, str]]:
    """The table's rows, by the names `clip_id`, `split`, `label` and `curtains`."""
    with (root / CURTAINS_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
