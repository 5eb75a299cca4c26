"""LoRA: small matrices are trained in parallel to an encoder's attention layers, whose own weights stay frozen.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021: where a frozen layer gives W x, an adapted one
gives W x + B A x, with A and B of a low rank. As in the paper, the query and value layers are adapted; where a library
fuses them with the keys in one layer, that layer is. After the training B A is added to W, and an ordinary model is
measured and exported. The adapters are peft's, with scale 1 (alpha is the rank) and no dropout.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from ..configuration_engagement import EngagementConfig
from ..data.required_packages import require_extra
from ..face_encoders import build_encoder, trial
from ..modeling_engagement import EngagementFrameEncoder, EngagementPreTrainedModel, load_encoder_config
from ..processor.input_errors import ModelLoadError, RecipeError, in_one_line
from .arguments import StageRun

# Linear layers for queries, values, or several of these at once, by their names in transformers and timm.
_ADAPTED = frozenset({
    "q_proj", "v_proj", "query", "value", "projection_query", "projection_value", "q", "v", "kv", "qk", "qkv",
    "wq", "wv",
})  # fmt: skip
# Adapted instead of a fused layer whose weights timm uses without calling it (BEiT, EVA, Swin v2).
_OUTPUT = "proj"


def check_lora(run: StageRun, encoder: str | Path) -> None:
    """Whether the encoder can be adapted as a stage asks; called before data is prepared.

    Raises:
        EngagementInputError: peft is missing or too old.
        RecipeError: the encoder has no attention layers, or the rank is not below their width.
        ModelLoadError: there is no such encoder.
    """
    rank = run.stage.lora_rank
    if not rank:
        return
    require_extra("lora", ("peft",))
    try:
        found = load_encoder_config(encoder)
    except (OSError, ValueError) as error:
        raise ModelLoadError(in_one_line(error)) from error
    config = found.encoder_config if isinstance(found, EngagementConfig) else found
    with trial(config):
        layers = _attention_layers(build_encoder(config))
    if not layers:
        raise RecipeError(
            f"lora_rank {rank} in stage {run.name} needs an encoder with attention layers, and {encoder} has none; use "
            "a ViT, DeiT, BEiT, Swin, CLIP, SigLIP or DINOv2, or leave lora_rank out."
        )
    width = min(min(layer.in_features, layer.out_features) for layer in layers.values())
    if rank >= width:
        raise RecipeError(
            f"Expected lora_rank below {width}, the width of attention layers in {encoder}, got {rank}; 8 is usual."
        )


def _attention_layers(encoder: PreTrainedModel) -> dict[str, nn.Linear]:
    return {
        name: layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in _ADAPTED
    }


def add_adapters(model: EngagementPreTrainedModel, run: StageRun) -> None:
    """Put adapters into the model's encoder and freeze its own weights; does nothing without `lora_rank`.

    The first logits do not change: B starts at zero.

    Raises:
        RecipeError: the encoder calls no attention layer as a module.
    """
    rank = run.stage.lora_rank
    if not rank:
        return
    from peft import LoraConfig, inject_adapter_in_model  # an extra

    names = _layers_to_adapt(model)
    if not names:
        raise RecipeError(
            f"lora_rank {rank} cannot be used with the encoder {run.stage.start_from or run.stage.encoder}: it uses "
            "the weights of its attention layers without calling the layers; leave lora_rank out."
        )
    model.encoder.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), model.encoder.model)
    model.encoder.register_forward_pre_hook(_keep_statistics)
    if run.training.process_index == 0:
        weights = list(model.parameters())
        learning = sum(weight.numel() for weight in weights if weight.requires_grad)
        total = sum(weight.numel() for weight in weights)
        print(f"{run.name}: LoRA in {len(names)} layers; {learning:,} of {total:,} weights are trained", flush=True)


def _layers_to_adapt(model: EngagementPreTrainedModel) -> list[str]:
    """Their names in `model.encoder.model`, found with an empty picture: an adapter needs a layer that is called."""
    encoder, config = model.encoder, model.config
    layers = {name: layer for name, layer in encoder.model.named_modules() if isinstance(layer, nn.Linear)}
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers.values()]
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            encoder(torch.zeros(2, config.num_channels, config.image_size, config.image_size, device=encoder.device))
    finally:
        encoder.train(was_training)
        for hook in hooks:
            hook.remove()
    wanted = []
    for name in _attention_layers(encoder.model):
        instead = f"{name.rpartition('.')[0]}.{_OUTPUT}".removeprefix(".")
        wanted.append(name if layers[name] in called else instead)
    return [name for name in dict.fromkeys(wanted) if name in layers and layers[name] in called]


def _keep_statistics(encoder: EngagementFrameEncoder, inputs: object) -> None:
    """Before each forward pass: otherwise BatchNorm layers of the frozen encoder would keep adapting."""
    for module in encoder.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def merge_adapters(model: EngagementPreTrainedModel, run: StageRun) -> None:
    """Merge the adapters into the encoder's own weights and remove them; does nothing without `lora_rank`."""
    if not run.stage.lora_rank:
        return
    from peft.tuners.lora import LoraLayer  # an extra

    encoder = model.encoder.model
    adapted = {name: layer for name, layer in encoder.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in adapted.items():
        layer.merge(safe_merge=True)
        encoder.set_submodule(name, layer.get_base_layer())
    del encoder.peft_config  # which peft left there
