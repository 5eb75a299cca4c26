"""Prepared data as Trainer eats it: torch data sets of raw frames, and the collator that makes pixel values of them.

Frames are decoded one by one and changed, resized and normalised a batch at a time, which is several times faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from ..processor.face_preparation import FacePreparation
from ..processor.input_errors import DataError
from .augmentation import Augmentation
from .preparation import decode_picture
from .schema import AFFECTS, LABEL_SCHEMES


class LabelledFrames(TorchDataset):
    """Rows of encoded frames with a label each.

    `[i]` gives `frames` (num_frames, height, width, 3) uint8, `label` and `row`; a single picture has one frame.
    """

    def __init__(self, rows: Dataset, frames_column: str, label_ids: Sequence[int], names: Sequence[str]) -> None:
        self.rows = rows.select_columns([frames_column])
        self.frames_column = frames_column
        self.label_ids = list(label_ids)
        self.names = list(names)  # clip or picture ids, to name the culprits of a bad loss

    def __len__(self) -> int:
        return len(self.label_ids)

    def __getitem__(self, row: int) -> dict[str, object]:
        content = self.rows[row][self.frames_column]
        try:
            frames = [decode_picture(item) for item in (content if isinstance(content, list) else [content])]
        except (OSError, SyntaxError) as error:  # PIL raises SyntaxError for a broken PNG
            raise DataError(
                f"Expected a picture in {self.names[row]}, could not read it: {error}; delete it."
            ) from error
        return {"frames": np.stack(frames), "label": self.label_ids[row], "row": row}


def clips_with_labels(rows: Dataset, label_scheme: str, label_names: Sequence[str]) -> LabelledFrames:
    """Prepared clips under a label scheme of `schema.LABEL_SCHEMES`."""
    _, to_label = LABEL_SCHEMES[label_scheme]
    affects = zip(*(rows[affect] for affect in AFFECTS), strict=True)
    labels = [to_label(dict(zip(AFFECTS, values, strict=True))) for values in affects]
    return LabelledFrames(rows, "frames", [label_names.index(label) for label in labels], rows["clip_id"])


def pictures_with_labels(rows: Dataset) -> LabelledFrames:
    """Face pictures under their own labels."""
    return LabelledFrames(rows, "picture", rows["label"], rows["picture_id"])


@dataclass
class FrameCollator:
    """Rows of `LabelledFrames` → `pixel_values`, `labels` and `rows`, as the processor that serves would make them.

    `pixel_values` is (batch, num_frames, C, H, W), or (batch, C, H, W) with `single_face`.
    """

    processor: FacePreparation
    single_face: bool
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __call__(self, rows: list[dict[str, object]]) -> dict[str, torch.Tensor]:
        if len({row["frames"].shape for row in rows}) > 1:  # pictures of several sizes
            frames = torch.stack([self.processor.to_model_size(row["frames"]) for row in rows])
        else:
            frames = torch.from_numpy(np.stack([row["frames"] for row in rows])).permute(0, 1, 4, 2, 3)
        if self.augmentation != Augmentation():
            frames = self.augmentation(frames)  # (batch, frames, C, H, W) uint8
        flat = frames.flatten(0, 1).permute(0, 2, 3, 1).numpy()  # (batch, frames, C, H, W) -> (batch*frames, H, W, C)
        pixel_values = self.processor.to_pixel_values(flat)
        if not self.single_face:
            pixel_values = pixel_values.unflatten(0, frames.shape[:2])  # -> (batch, frames, C, H, W)
        labels = torch.tensor([row["label"] for row in rows])
        return {"pixel_values": pixel_values, "labels": labels, "rows": torch.tensor([row["row"] for row in rows])}
