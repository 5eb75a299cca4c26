"""Features of a frozen encoder, computed once a frame: without augmentation every epoch would compute the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..modeling_engagement import EngagementFrameEncoder


@contextmanager
def remembered_features(encoder: EngagementFrameEncoder) -> Iterator[None]:
    """While the context lasts the encoder, which must be frozen, finds features of a frame it has seen by its pixels.

    Its outputs hold no feature maps meanwhile. Features stay in memory: feature_size numbers a frame.
    """
    compute = encoder.forward
    known: dict[bytes, torch.Tensor] = {}

    def forward(pixel_values: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        keys = [blake2b(frame.tobytes(), digest_size=16).digest() for frame in pixel_values.float().cpu().numpy()]
        unseen = {key: place for place, key in enumerate(keys) if key not in known}
        if unseen:
            with torch.no_grad():
                found = compute(pixel_values[list(unseen.values())], **kwargs).pooler_output
            known.update(zip(unseen, found, strict=True))
        return BaseModelOutputWithPooling(pooler_output=torch.stack([known[key] for key in keys]))

    encoder.forward = forward  # of this one object, found before its class's
    try:
        yield
    finally:
        del encoder.forward
