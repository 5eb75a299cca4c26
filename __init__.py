"""Recognising apparent student engagement from face video, as Hugging Face Transformers models.

The package's root is lazy (PEP 562): importing torch and transformers takes seconds, and `engagement --help` must not.
Touching any of the classes below imports them and registers them with transformers' Auto classes.
"""

import importlib

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


def register_auto_classes() -> None:
    """Make AutoConfig, AutoModelFor..., AutoImageProcessor and AutoVideoProcessor know our classes; once is enough."""
    importlib.import_module(".auto_classes", __name__).register()
