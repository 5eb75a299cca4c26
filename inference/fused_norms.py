"""Batch norms folded into the convolutions before them: the same features, faster."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

_Module = TypeVar("_Module", bound=torch.nn.Module)


def fuse_batch_norms(encoder: _Module) -> _Module:
    """A copy with each batch norm folded into the convolution registered just before it.

    Two modules registered as neighbours need not follow each other in the forward pass, so the caller must compare the
    copy's output with the original's.
    """
    fused = copy.deepcopy(encoder)
    for block in list(fused.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(block.named_children())):
            if type(conv) is torch.nn.Conv2d and type(norm) is torch.nn.BatchNorm2d:
                setattr(block, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(block, norm_name, torch.nn.Identity())
    return fused.to(memory_format=torch.channels_last)
