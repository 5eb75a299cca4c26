"""Prepared data for Trainer: torch data sets of raw frames, and the collator that turns them into pixel values.

Frames are decoded one by one, but augmented, resized and normalised in batches, which is several times faster.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from ..data.preparation.picture_codec import decode_picture
from ..data.schema import AFFECTS, labels_of
from ..processor.tensor_preparation import TensorPreparation
from .augmentation import Augmentation

# What is read of all rows; frames are decoded when they are needed.
_COLUMNS = ("clip_id", "window_index", "subject_id", "label", "label_scores", *AFFECTS)


class LabelledExample(TypedDict):
    """One row of `LabelledFrames`."""

    frames: np.ndarray  # (num_frames, height, width, 3) uint8 RGB
    label: int
    row: int  # its number
    scores: list[float] | None  # raters' votes as a share per label


class LabelledFrames(TorchDataset[LabelledExample]):
    """Windows (or single pictures), each with a label.

    With `single_face` only a window's first frame is read, as in the one-frame baseline of the CNN + LSTM study.
    """

    def __init__(
        self,
        rows: Dataset,
        keys: Sequence[tuple[str, int]],
        subject_ids: Sequence[str | None],
        label_ids: Sequence[int],
        single_face: bool,
        label_scores: Sequence[list[float] | None] | None = None,
    ) -> None:
        self.rows = rows  # only their `frames` are read
        self.keys = keys  # clip id and window index: to name clips in error messages, and to find a row again
        self.subject_ids = subject_ids  # None where unknown
        self.label_ids = label_ids
        self.single_face = single_face
        self.label_scores = label_scores  # raters' shares per label; None, for all or for a row: unknown

    def __len__(self) -> int:
        return len(self.label_ids)

    def __getitem__(self, row: int) -> LabelledExample:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[LabelledExample]:
        """A whole batch, as torch's loader asks for it: one access to the table instead of one per row."""
        return [
            LabelledExample(
                frames=np.stack([decode_picture(c) for c in (contents[:1] if self.single_face else contents)]),
                label=self.label_ids[row],
                row=row,
                scores=self.label_scores[row] if self.label_scores else None,
            )
            for row, contents in zip(rows, self.rows[rows]["frames"], strict=True)
        ]

    def name_of(self, row: int) -> str:
        """The clip's id, and the number of the window if it is not the first."""
        clip_id, window_index = self.keys[row]
        return f"{clip_id} (window {window_index})" if window_index else clip_id

    def take(self, rows: Sequence[int]) -> "LabelledFrames":
        """These rows, in this order; a row may occur more than once."""
        return LabelledFrames(
            self.rows.select(rows),
            [self.keys[row] for row in rows],
            [self.subject_ids[row] for row in rows],
            [self.label_ids[row] for row in rows],
            self.single_face,
            self.label_scores and [self.label_scores[row] for row in rows],
        )

    def oversampled(self, target: int, seed: int) -> "LabelledFrames":
        """Rows of classes with fewer than `target` rows are repeated until there are as many; no file is copied.

        Every row of a class is repeated once, in an order from the seed, before any is repeated again.
        """
        rng = random.Random(seed)
        chosen = list(range(len(self)))
        for label in sorted(set(self.label_ids)):
            rows = [row for row, other in enumerate(self.label_ids) if other == label]
            missing = target - len(rows)
            while missing > 0:
                again = rng.sample(rows, len(rows))[:missing]
                chosen += again
                missing -= len(again)
        return self.take(chosen)


def labelled_frames(
    rows: Dataset, label_scheme: str, label_names: Sequence[str], single_face: bool
) -> tuple[LabelledFrames, int]:
    """The rows that have a label under the scheme, and how many have none."""
    known = rows.select_columns([name for name in _COLUMNS if name in rows.column_names])[:]
    labels = labels_of(known, label_scheme)
    kept = [row for row, label in enumerate(labels) if label is not None]
    label_ids = [label_names.index(labels[row]) for row in kept]
    frames = rows.select_columns(["frames"]).select(kept)
    keys = [(known["clip_id"][row], known["window_index"][row]) for row in kept]
    subject_ids = [known["subject_id"][row] for row in kept]
    scores = [known["label_scores"][row] for row in kept] if "label_scores" in known else None
    return LabelledFrames(frames, keys, subject_ids, label_ids, single_face, scores), len(labels) - len(kept)


@dataclass
class FrameCollator:
    """Rows of `LabelledFrames` → `pixel_values`, `labels` and `rows`, prepared by the processor that also serves.

    `pixel_values` is (batch, num_frames, C, H, W), or (batch, C, H, W) with `single_face`. `labels` is (batch,) class
    indices or, with `soft_share`, (batch, num_labels): this share of each target comes from the raters' votes, if the
    data has them, and the rest from the label. With `shuffle` the frames of each clip are put in random order: drawn
    from torch's generator at each call ("anew"), or determined by the row ("by_row"), so that measurements can be
    repeated.
    """

    processor: TensorPreparation
    single_face: bool
    augmentation: Augmentation = field(default_factory=Augmentation)
    soft_share: float = 0.0
    shuffle: Literal["anew", "by_row"] | None = None

    def __call__(self, rows: list[LabelledExample]) -> dict[str, torch.Tensor]:
        pixel_values = self.to_pixel_values(rows)
        if self.shuffle:
            clips = zip(rows, pixel_values, strict=True)
            pixel_values = torch.stack([clip[self._order(row, len(clip))] for row, clip in clips])
        row_numbers = torch.tensor([row["row"] for row in rows])
        return {"pixel_values": pixel_values, "labels": self._labels_of(rows), "rows": row_numbers}

    def to_pixel_values(self, rows: list[LabelledExample]) -> torch.Tensor:
        """The model's input for these rows, with their frames in order."""
        if len({row["frames"].shape for row in rows}) > 1:  # pictures of several sizes
            frames = torch.stack([self.processor.to_model_size(row["frames"]) for row in rows])
        else:
            frames = torch.from_numpy(np.stack([row["frames"] for row in rows])).permute(0, 1, 4, 2, 3)
        if self.augmentation != Augmentation():
            frames = self.augmentation(frames)  # (batch, frames, C, H, W) uint8
        flat = frames.flatten(0, 1).permute(0, 2, 3, 1).numpy()  # (batch, frames, C, H, W) -> (batch*frames, H, W, C)
        pixel_values = self.processor.to_pixel_values(flat)
        # -> (batch, frames, C, H, W)
        return pixel_values if self.single_face else pixel_values.unflatten(0, frames.shape[:2])

    def _order(self, row: LabelledExample, num_frames: int) -> torch.Tensor:
        by_row = torch.Generator().manual_seed(row["row"]) if self.shuffle == "by_row" else None
        return torch.randperm(num_frames, generator=by_row)

    def _labels_of(self, rows: list[LabelledExample]) -> torch.Tensor:
        labels = torch.tensor([row["label"] for row in rows])
        known = [(place, row["scores"]) for place, row in enumerate(rows) if row["scores"] is not None]
        if not self.soft_share or not known:
            return labels
        targets = functional.one_hot(labels, len(known[0][1])).float()
        for place, scores in known:
            targets[place] = (1 - self.soft_share) * targets[place] + self.soft_share * torch.tensor(scores)
        return targets
