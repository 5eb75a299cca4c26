"""Recognises apparent student engagement in face video, as Hugging Face Transformers models.

The package's root is lazy (PEP 562): importing torch and transformers takes seconds, and `engagement --help` must not.
Accessing any of the classes below imports them and registers them with transformers' Auto classes.
"""

import importlib
from functools import cache

__version__ = "0.1.0"

_HOMES = {
    "EngagementConfig": ".configuration_engagement",
    "EngagementFrameEncoder": ".modeling_engagement",
    "EngagementForImageClassification": ".modeling_engagement",
    "EngagementForVideoClassification": ".modeling_engagement",
    "EngagementImageProcessor": ".processor.image_processing_engagement",
    "EngagementVideoProcessor": ".processor.video_processing_engagement",
}
__all__ = ["__version__", "register_auto_classes", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register_auto_classes()
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


@cache
def register_auto_classes() -> None:
    """Register our classes with transformers' Auto classes, without `trust_remote_code`; saving copies our code."""
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForVideoClassification,
        AutoVideoProcessor,
    )

    from .configuration_engagement import EngagementConfig
    from .modeling_engagement import (
        EngagementForImageClassification,
        EngagementForVideoClassification,
        EngagementFrameEncoder,
    )
    from .processor.image_processing_engagement import EngagementImageProcessor
    from .processor.video_processing_engagement import EngagementVideoProcessor

    AutoConfig.register(EngagementConfig.model_type, EngagementConfig)
    AutoModel.register(EngagementConfig, EngagementFrameEncoder)
    AutoModelForImageClassification.register(EngagementConfig, EngagementForImageClassification)
    AutoModelForVideoClassification.register(EngagementConfig, EngagementForVideoClassification)
    AutoImageProcessor.register(EngagementConfig, image_processor_classes={"torchvision": EngagementImageProcessor})
    AutoVideoProcessor.register(EngagementConfig, EngagementVideoProcessor)
    # These make save_pretrained write auto_map and the code files, for use without this package.
    EngagementConfig.register_for_auto_class()
    EngagementFrameEncoder.register_for_auto_class("AutoModel")
    EngagementForImageClassification.register_for_auto_class("AutoModelForImageClassification")
    EngagementForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
    EngagementImageProcessor.register_for_auto_class()
    EngagementVideoProcessor.register_for_auto_class()
