"""Models of four states, small and saved to folders: stock ones of transformers and timm, and ours."""

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import draw_pixels, tiny_model
from torch import nn

from engagement_recognition import EngagementImageProcessor, EngagementVideoProcessor, register_auto_classes

STATES = ["bored", "confused", "engaged", "neutral"]
STATE_MAPS = {"id2label": dict(enumerate(STATES)), "label2id": {name: i for i, name in enumerate(STATES)}}
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="the extra onnx is missing"
)


def stock_beit(**fields: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    sizes |= {"image_size": 32, "patch_size": 8, "out_indices": [1, 2]}
    return transformers.BeitForImageClassification(transformers.BeitConfig(**{**sizes, **STATE_MAPS, **fields}))


def stock_timm(architecture: str, size_px: int = 64, **model_args: object) -> nn.Module:
    torch.manual_seed(0)
    settings = {"input_size": [3, size_px, size_px], "mean": MEAN, "std": STD}
    fields = {"architecture": architecture, "model_args": model_args, "pretrained_cfg": settings, **STATE_MAPS}
    return transformers.TimmWrapperForImageClassification(transformers.TimmWrapperConfig(**fields))


def save_stock(model: nn.Module, folder: Path) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    return model


def save_ours(folder: Path, encoder: str, head: str = "image", **fields: object) -> nn.Module:
    """A model with logits of deviation 1, in which differences show, and its processor."""
    register_auto_classes()
    torch.manual_seed(0)
    model = tiny_model(encoder, head, **STATE_MAPS, num_labels=len(STATES), **fields)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one batch, as if trained
    with torch.no_grad():
        model.train()(draw_pixels(model, batch_size=32))
        model.classifier.weight /= model.eval()(draw_pixels(model, batch_size=8)).logits.std()
    model.save_pretrained(folder)
    size_px = model.config.image_size
    settings = {"size": {"height": size_px, "width": size_px}, "image_mean": MEAN, "image_std": STD}
    if head != "image":
        EngagementVideoProcessor(**settings, num_frames=model.config.num_frames).save_pretrained(folder)
    else:
        EngagementImageProcessor(**settings, do_grayscale=model.config.num_channels == 1).save_pretrained(folder)
    return model
