"""Features of a frozen encoder, computed once a frame: without augmentation every epoch would compute the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..modeling_engagement import EngagementFrameEncoder
from .arguments import StageArguments
from .augmentation import Augmentation

_LARGEST_NUMBERS = 2**30  # of all features together: 4 GB


def can_remember(stage: StageArguments, augmentation: Augmentation) -> bool:
    """Whether a frame has the same features whenever it is read, and nothing but the head asks for them."""
    is_mixed = stage.cutmix or stage.mixup or stage.subject_adversary
    return stage.freeze_encoder and augmentation == Augmentation() and not is_mixed


@contextmanager
def remembered_features(encoder: EngagementFrameEncoder) -> Iterator[None]:
    """While the context lasts the encoder, which must be frozen, finds features of a frame it has seen by its pixels.

    Its outputs hold no feature maps meanwhile. Features stay in memory, feature_size numbers a frame, up to 4 GB.
    """
    compute = encoder.forward
    known: dict[bytes, torch.Tensor] = {}

    def forward(pixel_values: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        keys = [blake2b(frame.tobytes(), digest_size=16).digest() for frame in pixel_values.float().cpu().numpy()]
        unseen = {key: place for place, key in enumerate(keys) if key not in known}
        read: dict[bytes, torch.Tensor] = {}
        if unseen:
            with torch.no_grad():
                found = compute(pixel_values[list(unseen.values())], **kwargs).pooler_output
            read = dict(zip(unseen, found, strict=True))
            if (len(known) + len(read)) * found.shape[1] <= _LARGEST_NUMBERS:
                known.update(read)
        return BaseModelOutputWithPooling(pooler_output=torch.stack([read.get(key, known.get(key)) for key in keys]))

    encoder.forward = forward  # type: ignore[method-assign] # an attribute of this one object, before its class's
    try:
        yield
    finally:
        del encoder.forward
