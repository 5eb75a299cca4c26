"""Registration with transformers' Auto classes: in this process (`register`), and for export as remote code.

Kept out of `__init__.py`, which must not import transformers, and out of the model files, which are copied to the Hub.
"""

from functools import cache

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from .configuration_engagement import EngagementConfig
from .modeling_engagement import EngagementForImageClassification, EngagementForVideoClassification
from .processor.image_processing_engagement import EngagementImageProcessor
from .processor.video_processing_engagement import EngagementVideoProcessor


@cache
def register() -> None:
    """Let the Auto classes find ours by model type, without `trust_remote_code`; and let saving copy our code along."""
    AutoConfig.register(EngagementConfig.model_type, EngagementConfig)
    AutoModelForImageClassification.register(EngagementConfig, EngagementForImageClassification)
    AutoModelForVideoClassification.register(EngagementConfig, EngagementForVideoClassification)
    AutoImageProcessor.register(EngagementConfig, image_processor_classes={"torchvision": EngagementImageProcessor})
    AutoVideoProcessor.register(EngagementConfig, EngagementVideoProcessor)
    # These make save_pretrained write auto_map and the code files, for processes without this package.
    EngagementConfig.register_for_auto_class()
    EngagementForImageClassification.register_for_auto_class("AutoModelForImageClassification")
    EngagementForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
    EngagementImageProcessor.register_for_auto_class()
    EngagementVideoProcessor.register_for_auto_class()
