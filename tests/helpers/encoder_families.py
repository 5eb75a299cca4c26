"""Image encoders by family, as people have them: timm's by name, transformers' as folders saved from small configs.

docs/encoders.md is made of what `encoder_trial` finds of these. Weights are random: the names of pretrained ones are
what a user would pass, and none is fetched.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import transformers as hf
from transformers import PreTrainedModel, TimmWrapperConfig, TimmWrapperModel

from engagement_recognition.face_encoders import TimmEncoder

Build = Callable[[], PreTrainedModel]


@dataclass(frozen=True)
class Family:
    """One family, in its smallest form."""

    name: str  # timm's architecture, or the class whose weights a transformers repository holds
    build: Build | None = None  # what is saved as a folder; None: a bare name of timm's
    hub_id: str = ""  # of pretrained weights, where it is no tag of timm's
    size_px: int | None = None  # asked for; default: the encoder's own, or 224
    whole: bool = False  # all steps are tried, not only those that take a second

    @property
    def package(self) -> str:
        return "timm" if timm.is_model(self.name) else "transformers"

    @property
    def pretrained(self) -> str:
        """What a user passes for pretrained weights; empty where timm has none."""
        tagged = timm.list_pretrained(f"{self.name}.*") if not self.hub_id else []
        return self.hub_id or (min(tagged, key=len) if tagged else "")

    def stored(self) -> "Family":
        """The same as a repository holds it, whose weights are of one size."""
        config = TimmWrapperConfig(architecture=self.name)
        return self if self.build else replace(self, build=lambda: TimmEncoder(config))

    def source(self, folder: Path) -> str:
        """What `from_encoder` takes: a bare name, or `folder`, into which a model of random weights is saved."""
        if self.build is None:
            return self.name
        self.build().save_pretrained(folder)
        return str(folder)


def _small(name: str, whole: bool = False, size_px: int | None = None, **model_args: object) -> Family:
    """A timm architecture that is too large as it is."""
    config = TimmWrapperConfig(architecture=name, model_args=model_args)
    return Family(name, lambda: TimmWrapperModel(config), size_px=size_px, whole=whole)


_TIMM_WHOLE = [
    *(Family(name, size_px=64, whole=True) for name in ("resnet18", "mobilenetv3_small_050", "efficientnet_b0")),
    *(Family(name, size_px=64, whole=True) for name in ("convnext_atto", "regnety_002", "hrnet_w18_small")),
    *(Family(name, whole=True) for name in ("vit_tiny_patch16_224", "levit_128s", "coatnet_nano_rw_224")),
    _small("swin_tiny_patch4_window7_224", True, embed_dim=24, depths=(1, 1, 1, 1)),
    _small("beit_base_patch16_224", True, img_size=64, embed_dim=96, depth=2, num_heads=2),
    _small("eva02_tiny_patch14_224", True, img_size=56, depth=2),
    _small("maxvit_rmlp_pico_rw_256", True, depths=(1, 1, 1, 1)),
]
_ANY_SIZE = (
    "mobilenetv2_050", "mobilenetv4_conv_small_035", "densenet121", "repvgg_a0", "ghostnet_050", "lcnet_050",
    "dla46_c", "nf_regnet_b0", "starnet_s1", "mambaout_femto",
)  # fmt: skip
_OWN_SIZE = (
    "deit_tiny_distilled_patch16_224", "mobilevit_xxs", "edgenext_xx_small", "fastvit_t8", "efficientformer_l1",
    "pvt_v2_b0", "poolformer_s12", "xcit_nano_12_p16_224", "swiftformer_xs", "shvit_s1", "repvit_m0_9", "pit_ti_224",
    "coat_lite_tiny", "mixer_s32_224", "resmlp_12_224",
)  # fmt: skip
_TIMM = [
    *_TIMM_WHOLE,
    *(Family(name, size_px=64) for name in _ANY_SIZE),
    *(Family(name) for name in _OWN_SIZE),
    _small("deit3_small_patch16_224", img_size=64, depth=2),
    _small("hiera_tiny_224", embed_dim=32, stages=(1, 1, 1, 1)),
    _small("cait_xxs24_224", img_size=64, depth=2),
    _small("vit_base_patch16_siglip_224", img_size=64, embed_dim=96, depth=2, num_heads=2),
    _small("vit_small_patch14_dinov2", img_size=56, depth=2),
    _small("vit_small_patch16_dinov3", img_size=64, depth=2),
    _small("davit_tiny", embed_dims=(16, 24, 32, 48), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), size_px=224),
]

TOKENS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VISION = {**TOKENS, "image_size": 32, "patch_size": 8}
TEXT = {**TOKENS, "vocab_size": 99}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_HEADS = {**_STAGES, "num_attention_heads": [1, 1, 2, 2]}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
_MAE = {f"decoder_{name}": size for name, size in TOKENS.items()}
_HIERA = {"embed_dim": 16, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "image_size": [64, 64], "num_query_pool": 2}
_LEVIT = {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
_FOCAL = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]}
_MOBILE_VIT = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 64]}


def _folder(form: str, hub_id: str, whole: bool = False, size_px: int | None = None, **config: object) -> Family:
    """A repository of transformers that holds a model of class `form`."""
    model_class = getattr(hf, form)
    config_class = model_class.config_class
    return Family(form, lambda: model_class(config_class(**config)), hub_id, size_px, whole)


_TRANSFORMERS = [
    _folder("ViTForImageClassification", "google/vit-base-patch16-224", True, **VISION, num_labels=7),
    _folder("CLIPModel", "openai/clip-vit-base-patch32", True, vision_config=VISION, text_config=TEXT),
    _folder("SiglipModel", "google/siglip-base-patch16-224", True, vision_config=VISION, text_config=TEXT),
    _folder("ViTMAEForPreTraining", "facebook/vit-mae-base", True, **VISION, **_MAE),
    _folder("SegformerForImageClassification", "nvidia/mit-b0", True, **_HEADS),
    _folder("PvtForImageClassification", "Zetatech/pvt-tiny-224", True, image_size=64, **_HEADS),
    _folder("EfficientNetForImageClassification", "google/efficientnet-b0", True, 64,
            width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320),
    _folder("MobileNetV2ForImageClassification", "google/mobilenet_v2_1.0_224", True, 64, depth_multiplier=0.35),
    _folder("MobileViTForImageClassification", "apple/mobilevit-small", True, 64, **_MOBILE_VIT),
    _folder("HieraForImageClassification", "facebook/hiera-tiny-224-in1k-hf", True, **_HIERA),
    _folder("SwinForImageClassification", "microsoft/swin-tiny-patch4-window7-224", True, **_SWIN),
    _folder("Dinov2ForImageClassification", "facebook/dinov2-small", True, **VISION),
    _folder("ViTModel", "google/vit-base-patch16-224-in21k", **VISION),
    _folder("DeiTForImageClassification", "facebook/deit-base-patch16-224", **VISION),
    _folder("BeitForImageClassification", "microsoft/beit-base-patch16-224-pt22k-ft22k", whole=True, **VISION),
    _folder("Swinv2ForImageClassification", "microsoft/swinv2-tiny-patch4-window8-256", **_SWIN),
    _folder("ConvNextForImageClassification", "facebook/convnext-tiny-224", whole=True, size_px=64, **_STAGES),
    _folder("ConvNextV2ForImageClassification", "facebook/convnextv2-atto-1k-224", size_px=64, **_STAGES),
    _folder("ResNetForImageClassification", "microsoft/resnet-18", whole=True, size_px=64, embedding_size=8,
            layer_type="basic", **_STAGES),
    _folder("RegNetForImageClassification", "facebook/regnet-y-040", size_px=64, embedding_size=8, groups_width=8,
            **_STAGES),
    _folder("BitForImageClassification", "google/bit-50", size_px=64, embedding_size=8, num_groups=4, **_STAGES),
    _folder("PvtV2ForImageClassification", "OpenGVLab/pvt_v2_b0", size_px=64, **_HEADS),
    _folder("PoolFormerForImageClassification", "sail/poolformer_s12", size_px=64, **_STAGES),
    _folder("SwiftFormerForImageClassification", "MBZUAI/swiftformer-xs", size_px=64, embed_dims=[16, 24, 32, 48],
            depths=[1, 1, 1, 1]),
    _folder("FocalNetForImageClassification", "microsoft/focalnet-tiny", hidden_sizes=[16, 32], **_FOCAL),
    _folder("LevitForImageClassification", "facebook/levit-128S", key_dim=[8, 8, 8], **_LEVIT),
    _folder("MobileNetV1ForImageClassification", "google/mobilenet_v1_1.0_224", size_px=64, depth_multiplier=0.25),
    _folder("MobileViTV2ForImageClassification", "apple/mobilevitv2-1.0-imagenet1k-256", size_px=64,
            width_multiplier=0.5),
    _folder("CLIPVisionModelWithProjection", "openai/clip-vit-base-patch32", **VISION, projection_dim=16),
    _folder("ViTMSNModel", "facebook/vit-msn-small", **VISION),
    _folder("Dinov2WithRegistersModel", "facebook/dinov2-with-registers-small", **VISION),
    _folder("DINOv3ViTModel", "facebook/dinov3-vits16-pretrain-lvd1689m", **VISION),
    _folder("DINOv3ConvNextModel", "facebook/dinov3-convnext-tiny-pretrain-lvd1689m", size_px=64, **_STAGES),
    _folder("IJepaModel", "facebook/ijepa_vith14_1k", **VISION),
    _folder("Data2VecVisionForImageClassification", "facebook/data2vec-vision-base-ft1k", **VISION),
]  # fmt: skip

FAMILIES = {family.name: family for family in (*_TIMM, *_TRANSFORMERS)}
# What takes a second of theirs is tried in every run of the tests.
QUICK = (
    "mobilenetv3_small_050", "deit_tiny_distilled_patch16_224", "ViTForImageClassification", "CLIPModel",
    "ViTMAEForPreTraining", "PvtForImageClassification", "MobileViTForImageClassification",
)  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Something that is no encoder of single pictures, or not of the size that is asked for."""

    title: str
    source: str | Build
    size_px: int | None = None


REFUSALS = [
    Refusal("a text model", lambda: hf.BertModel(hf.BertConfig(**TEXT))),
    Refusal("a video model (VideoMAE)", lambda: hf.VideoMAEModel(hf.VideoMAEConfig(**VISION, num_frames=4))),
    Refusal("a video model (TimeSformer)", lambda: hf.TimesformerModel(hf.TimesformerConfig(**VISION, num_frames=2))),
    Refusal("a video model (ViViT)", lambda: hf.VivitModel(
        hf.VivitConfig(**TOKENS, image_size=32, num_frames=4, tubelet_size=[2, 8, 8]))),
    Refusal("SigLIP 2 of flexible resolution", lambda: hf.Siglip2Model(
        hf.Siglip2Config(vision_config={**TOKENS, "patch_size": 8, "num_patches": 16}, text_config=TEXT))),
    Refusal("timm's CrossViT, which has two maps", "crossvit_tiny_240"),
    Refusal("another size than a PVT's own", FAMILIES["PvtForImageClassification"].build or "", 48),
    Refusal("another size than a LeViT's own", FAMILIES["LevitForImageClassification"].build or "", 48),
    Refusal("a size below a network's strides", "vit_tiny_patch16_224", 8),
    Refusal("a tag that timm does not have", "resnet18.no_such_tag"),
]  # fmt: skip
