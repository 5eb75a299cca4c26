"""A frozen encoder reads each picture once: its features are kept, and the head alone is trained on them.

An encoder that does not learn gives the same features of the same picture at each epoch, and in every window that the
picture is part of. Pictures that are augmented are new each time; then nothing is kept.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from rich.progress import track
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..data.preparation.picture_codec import decode_picture
from ..modeling_engagement import EngagementPreTrainedModel
from .arguments import StageArguments
from .augmentation import Augmentation
from .stage_data import StageData
from .training_sets import FrameCollator, LabelledExample, LabelledFrames

_BATCH = 128
_LARGEST_BYTES = 4 * 2**30


class FeatureRows(LabelledFrames):
    """`LabelledFrames` whose `frames` are features, (num_frames, D, 1, 1) float32."""

    def __init__(self, rows: LabelledFrames, features: np.ndarray, frames_of: list[list[int]]) -> None:
        super().__init__(rows.rows, rows.keys, rows.subject_ids, rows.label_ids, rows.single_face, rows.label_scores)
        self.features = features  # (pictures, D, 1, 1), of all splits
        self.frames_of = frames_of  # row → its pictures there

    def __getitems__(self, rows: list[int]) -> list[LabelledExample]:
        return [
            LabelledExample(
                frames=self.features[self.frames_of[row]],
                label=self.label_ids[row],
                row=row,
                scores=self.label_scores[row] if self.label_scores else None,
            )
            for row in rows
        ]


class FeatureCollator(FrameCollator):
    """Of `FeatureRows`: `pixel_values` are features, (batch, num_frames, D, 1, 1) or (batch, D, 1, 1)."""

    def to_pixel_values(self, rows: list[LabelledExample]) -> torch.Tensor:
        values = torch.from_numpy(np.stack([row["frames"] for row in rows]))
        return values.flatten(0, 1) if self.single_face else values


class KeptFeatures(nn.Module):
    """Stands in for the frozen encoder, whose weights it holds under their own names, so that checkpoints are whole."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.model = encoder.model

    def train(self, mode: bool = True) -> "KeptFeatures":
        """The encoder stays as it is."""
        return self

    def forward(self, features: torch.Tensor) -> BaseModelOutputWithPooling:
        """features: (num_images, D, 1, 1) → themselves, as the heads take them."""
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=features.flatten(1))


@contextmanager
def frames_or_features(
    model: EngagementPreTrainedModel, stage: StageArguments, data: StageData, augmentation: Augmentation,
    device: torch.device,
) -> Iterator[tuple[StageData, type[FrameCollator]]]:  # fmt: skip
    """What a model learns from, and its collator; where features can be kept, the model takes them within the context.

    They can where a picture has the same features whenever it is read, and nothing but the head asks for them.
    """
    is_mixed = stage.cutmix or stage.mixup or stage.subject_adversary
    can_be_kept = stage.freeze_encoder and augmentation == Augmentation() and not is_mixed
    kept = _keep_features(model, data, device) if can_be_kept else None
    if kept is None:
        yield data, FrameCollator
        return
    encoder = model.encoder
    model.encoder = KeptFeatures(encoder)  # type: ignore[assignment] # what the heads ask of an encoder, it has
    try:
        yield kept, FeatureCollator
    finally:
        model.encoder = encoder


def _keep_features(model: EngagementPreTrainedModel, data: StageData, device: torch.device) -> StageData | None:
    """The same splits with features in the place of pictures; None where these would fill the memory."""
    places: dict[str, int] = {}  # a picture's digest → its place among the features
    pictures: list[bytes] = []
    sets = {"train": data.train, "validation": data.validation, "test": data.test}
    frames_of = {split: [_place(row, places, pictures) for row in _contents(rows)] for split, rows in sets.items()}
    size = model.encoder.feature_size
    if len(pictures) * size * 4 > _LARGEST_BYTES:
        print(f"features of {len(pictures):,} pictures are not kept: {size} numbers each would fill the memory")
        return None
    collate = FrameCollator(data.processor, single_face=True)
    features = np.empty((len(pictures), size, 1, 1), np.float32)
    model.to(device).eval()  # type: ignore[arg-type] # transformers' wrapper loses `self`
    starts = range(0, len(pictures), _BATCH)
    with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
        for start in track(starts, f"Features of {len(pictures):,} pictures", disable=len(starts) < _BATCH):
            batch = [_as_example(content) for content in pictures[start : start + _BATCH]]
            read = model.encoder(collate.to_pixel_values(batch).to(device)).pooler_output
            features[start : start + _BATCH, :, 0, 0] = read.float().cpu().numpy()
    train, validation, test = (FeatureRows(rows, features, frames_of[split]) for split, rows in sets.items())
    return replace(data, train=train, validation=validation, test=test)


def _contents(rows: LabelledFrames) -> Iterable[list[bytes]]:
    for start in range(0, len(rows), _BATCH):
        for contents in rows.rows[start : start + _BATCH]["frames"]:
            yield contents[:1] if rows.single_face else contents


def _place(contents: list[bytes], places: dict[str, int], pictures: list[bytes]) -> list[int]:
    found = []
    for content in contents:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in places:
            places[digest] = len(pictures)
            pictures.append(content)
        found.append(places[digest])
    return found


def _as_example(content: bytes) -> LabelledExample:
    return LabelledExample(frames=decode_picture(content)[None], label=0, row=0, scores=None)
