"""A frozen encoder reads each picture once: its features are stored, and only the head is trained on them.

A frozen encoder gives the same features for the same picture in every epoch, and in every window that contains the
picture. Augmented pictures are different each time, so nothing is stored then.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..data.atomic_files import whole_file, writing
from ..data.preparation.picture_codec import decode_picture
from ..modeling_engagement import EngagementPreTrainedModel
from ..processor.input_errors import DataError, in_one_line
from .arguments import StageRun
from .augmentation import Augmentation
from .processes import first_on_each_node
from .stage_data import StageData
from .training_sets import FrameCollator, LabelledExample, LabelledFrames

_BATCH = 128
LARGEST_BYTES = 4 * 2**30  # of features in memory


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
    """Replaces the frozen encoder, and keeps its weights under their own names, so that checkpoints are complete."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.model = encoder.model

    def train(self, mode: bool = True) -> "KeptFeatures":
        """The frozen encoder's mode does not change."""
        return self

    def forward(self, features: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        """features: (num_images, D, 1, 1) → the same, as the heads take them; there are no outputs of layers."""
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=features.flatten(1))


@contextmanager
def frames_or_features(
    model: EngagementPreTrainedModel, run: StageRun, data: StageData, augmentation: Augmentation
) -> Iterator[tuple[StageData, type[FrameCollator]]]:
    """The data that a model is trained on, and its collator; with stored features, the model takes them in the context.

    Features can be stored if a picture always has the same ones and only the head uses them. They are in memory, or
    with `cache_features` in a file below `cache_dir`, where the next training finds them.

    Raises:
        DataError: the file of features cannot be written, or is damaged.
    """
    stage = run.stage
    is_mixed = stage.cutmix or stage.mixup or stage.subject_adversary
    can_be_kept = stage.freeze_encoder and augmentation == Augmentation() and not is_mixed
    kept = _keep_features(model, run, data) if can_be_kept and stage.cache_features is not False else None
    if kept is None:
        yield data, FrameCollator
        return
    # No pictures are left to read, and starting workers takes longer than an epoch.
    run.training.dataloader_num_workers, run.training.dataloader_prefetch_factor = 0, None
    run.training.dataloader_persistent_workers = False
    encoder = model.encoder
    model.encoder = KeptFeatures(encoder)  # type: ignore[assignment] # it has what the heads need of an encoder
    try:
        yield kept, FeatureCollator
    finally:
        model.encoder = encoder


def _keep_features(model: EngagementPreTrainedModel, run: StageRun, data: StageData) -> StageData | None:
    """The same splits with features instead of pictures; None where they would fill the memory."""
    pictures: dict[str, bytes] = {}  # by their digests
    sets = {"train": data.train, "validation": data.validation, "test": data.test}
    digests_of = {split: [_digests(row, pictures) for row in _contents(rows)] for split, rows in sets.items()}
    pictures = dict(sorted(pictures.items()))  # in an order that does not depend on the splits
    size = model.encoder.feature_size
    encoded = partial(_encode, model, data, run.training.device, list(pictures.values()))
    if run.stage.cache_features:
        folder = Path(run.stage.cache_dir) / "features"
        path = folder / f"{_key_of(model, data, run.training.device, pictures)[:16]}.npy"
        features = first_on_each_node(run.training, partial(_on_disk, path, (len(pictures), size), encoded))
    elif len(pictures) * size * 4 <= LARGEST_BYTES:
        features = np.concatenate(list(encoded()))
    else:
        print(
            f"the features of {len(pictures):,} pictures are not stored: {size} numbers each would fill the memory; "
            "--cache_features true stores them on disk"
        )
        return None
    places = {digest: place for place, digest in enumerate(pictures)}
    frames_of = {split: [[places[digest] for digest in row] for row in rows] for split, rows in digests_of.items()}
    train, validation, test = (
        FeatureRows(rows, features[..., None, None], frames_of[split]) for split, rows in sets.items()
    )
    return replace(data, train=train, validation=validation, test=test)


def _encode(
    model: EngagementPreTrainedModel, data: StageData, device: torch.device, pictures: list[bytes]
) -> Iterator[np.ndarray]:
    """The pictures' features, (pictures, D) float32, one batch at a time."""
    collate = FrameCollator(data.processor, single_face=True)
    model.to(device).eval()  # type: ignore[arg-type] # transformers' wrapper loses `self`
    starts = range(0, len(pictures), _BATCH)
    with torch.no_grad():  # not inference_mode: BEiT keeps a tensor made here
        for start in track(starts, f"Features of {len(pictures):,} pictures", disable=len(starts) < _BATCH):
            batch = [
                LabelledExample(frames=decode_picture(content)[None], label=0, row=0, scores=None)
                for content in pictures[start : start + _BATCH]
            ]
            yield model.encoder(collate.to_pixel_values(batch).to(device)).pooler_output.float().cpu().numpy()


def _on_disk(path: Path, shape: tuple[int, int], encoded: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """The features in a file, (pictures, D) float32; the file is made if it does not exist."""
    if not path.is_file():
        with whole_file(path) as unfinished, writing(path), unfinished.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for features in encoded():
                file.write(features.tobytes())
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise _damaged(path, in_one_line(error)) from error
    if found.shape != shape or found.dtype != np.float32:
        raise _damaged(path, f"{found.dtype} of shape {found.shape}")
    return found


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"The stored features in {path} are damaged ({found}); delete the file, and it is made again.")


def _key_of(model: EngagementPreTrainedModel, data: StageData, device: torch.device, digests: Iterable[str]) -> str:
    """SHA-256 of all that features depend on: weights, the encoder's settings, processor, pictures, device and torch
    version."""
    encoder, config = model.encoder, model.config
    key = hashlib.sha256()
    parts = (
        device.type, torch.__version__, config.encoder_config.to_json_string(), config.encoder_features,
        config.test_time_views, data.processor.to_json_string(), *digests,
    )  # fmt: skip
    key.update(json.dumps(parts).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        key.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        key.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy())
    return key.hexdigest()


def _contents(rows: LabelledFrames) -> Iterable[list[bytes]]:
    for start in range(0, len(rows), _BATCH):
        for contents in rows.rows[start : start + _BATCH]["frames"]:
            yield contents[:1] if rows.single_face else contents


def _digests(contents: list[bytes], pictures: dict[str, bytes]) -> list[str]:
    """The digest of each picture, which is also added to `pictures`."""
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    pictures.update(zip(digests, contents, strict=True))
    return digests
