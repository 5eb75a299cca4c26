"""Check a model's folder, or its files on the Hub, before anything is built from them.

The folder may come from anybody. Its code is never run, and there is no question whether to run it: our own classes
read the model, and those of transformers and timm its encoder. Whatever would make these run or fetch something else
(`auto_map`, kernels, pickled weights, adapters) is refused here, and so are sizes much larger than the stored weights,
for which memory would be allocated.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import nn
from transformers import AutoModel, PreTrainedConfig, TimmWrapperConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import cached_file, is_peft_available

from ..configuration_engagement import EngagementConfig
from ..face_encoders import is_timm_name, own_size, repository_of
from ..modeling_engagement import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementFrameEncoder,
    load_encoder_config,
    plan_config,
)
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.input_errors import ModelLoadError, in_one_line
from ..processor.video_processing_engagement import EngagementVideoProcessor

Json = dict[str, object]  # a stored config, with any content
EngagementModel = EngagementForImageClassification | EngagementForVideoClassification
_MODELS = (EngagementForImageClassification, EngagementForVideoClassification)
_PROCESSORS = (EngagementImageProcessor, EngagementVideoProcessor)
_OUR_CLASSES = {kind.__name__ for kind in (EngagementConfig, EngagementFrameEncoder, *_MODELS, *_PROCESSORS)}
_WEIGHTS, _ADAPTER = "model.safetensors", "adapter_config.json"
_SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")
_USUAL_SIZE_PX = 112
# Entries that make transformers, and arguments that make timm, fetch or run more than a config's own class.
_REACHES_OUT = ("quantization_config", "transformers_weights", "custom_pipelines", "base_model_name_or_path")
_TIMM_REACHES_OUT = re.compile(r"pretrained.*|checkpoint_path|cache_dir|file|url|hf_hub_id|.*_fn|kwargs")
_LARGEST_NUMBER, _LARGEST_SIDE_PX, _MOST_LAYERS = 1_000_000, 4096, 1000
_SIDE = re.compile(r"(image|img)_size")
_LAYERS = re.compile(r"(.*_)?(layers|depths?|blocks|stages)")
_SIZE = re.compile(r".*_(sizes?|dims?|layers|heads|channels)")
_FLOATS = ("F64", "F32", "F16", "BF16")
# How many more numbers than its weights file a model may have, such as tables computed when it is built.
_SPARE_NUMBERS, _SPARE_RATIO = 50_000_000, 1.1


def check_model(model: str) -> type[EngagementModel]:
    """The class of an engagement model, from a folder or a Hub id.

    Raises:
        ModelLoadError: it is no such model, it needs code of its own, its sizes are far too large, or its weights are
            not safetensors.
    """
    stored = _read_config(model)
    found = stored.get("model_type")
    if found != EngagementConfig.model_type:
        raise ModelLoadError(f"{model} is not an engagement model: its config has the type {found!r}.")
    _require_own_classes(stored, model)
    kinds: dict[str, type[EngagementModel]] = {kind.__name__: kind for kind in _MODELS}
    architectures = stored.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else architectures
    if not isinstance(name, str) or name not in kinds:
        raise ModelLoadError(f"The architecture of {model} must be {' or '.join(kinds)}, got {name!r}.")
    _require_plain(stored, model)
    _require_labels(stored, model)
    encoder = stored.get("encoder_config")
    if not isinstance(encoder, dict):
        raise ModelLoadError(f"encoder_config in the config of {model} must be an object, got {_shown(encoder)}.")
    _require_encoder(encoder, model)
    config = EngagementConfig.from_dict(stored)
    weights = _weight_files(model)
    if not weights:
        raise _no_safetensors(model)
    _require_as_large_as_weights(lambda: kinds[name](config), weights, model)
    return kinds[name]


def check_processor(model: str, is_video: bool) -> type[EngagementVideoProcessor] | type[EngagementImageProcessor]:
    """The class of an engagement model's processor; raises ModelLoadError if the config is of another class."""
    stored: Json
    if is_video:
        kind: type[EngagementVideoProcessor] | type[EngagementImageProcessor] = EngagementVideoProcessor
        stored, _ = EngagementVideoProcessor.get_video_processor_dict(model)
    else:
        kind = EngagementImageProcessor
        stored, _ = EngagementImageProcessor.get_image_processor_dict(model)
    if not isinstance(stored, dict):
        raise ModelLoadError(f"The processor's settings in {model} are {_shown(stored)}, no object; train it again.")
    _require_own_classes(stored, model)
    found = stored.get("video_processor_type", stored.get("image_processor_type", kind.__name__))
    if found != kind.__name__:
        raise ModelLoadError(f"{model} needs the settings of a {kind.__name__}, got those of {_shown(found)}.")
    return kind


def check_encoder(
    encoder: str | Path, image_size: int | None = None, num_channels: int = 3, features: str | None = None
) -> int:
    """Check a training's encoder, as `from_encoder` takes it, without its weights, before any data is prepared.

    Args:
        image_size: height and width of its pictures in pixels; None: the encoder's own or, if it takes any size, 112.

    Returns:
        The pictures' size.

    Raises:
        ModelLoadError: there is no such encoder, it needs code of its own, its sizes are far too large, or it does not
            read pictures of this size.
    """
    _require_known_encoder(encoder)
    try:
        found = load_encoder_config(encoder)
        size = image_size or own_size(getattr(found, "encoder_config", found)) or _USUAL_SIZE_PX
        plan_config(encoder, image_size=size, num_channels=num_channels, encoder_features=features)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelLoadError(in_one_line(error, 500)) from error
    return size


def _require_known_encoder(encoder: str | Path) -> str:
    """Check a stored encoder; raises as `check_encoder`. Returns its location; a timm name is returned unchanged."""
    if is_timm_name(encoder):
        return str(encoder)
    try:
        source = str(repository_of(encoder))
    except OSError as error:
        raise ModelLoadError(in_one_line(error, 1000)) from error
    try:
        stored = _read_config(source)
    except OSError as error:
        raise ModelLoadError(
            f"The pretrained encoder '{source}' could be neither found here nor fetched from the Hub "
            f"({in_one_line(error)}); pass a local folder with config.json and model.safetensors, or a timm "
            "architecture such as resnet18 to start from random weights."
        ) from error
    if stored.get("model_type") != EngagementConfig.model_type:
        _require_encoder(stored, source)
        return source
    _require_plain(stored, source)
    if isinstance(inner := stored.get("encoder_config"), dict):
        _require_encoder(inner, source)
    return source


def check_encoder_weights(encoder: str | Path) -> None:
    """Check an encoder before it is built; raises ModelLoadError as `check_encoder`, and if its weights cannot be read
    or are fewer than its config requires."""
    source = _require_known_encoder(encoder)
    if is_timm_name(encoder):
        return
    weights = _weight_files(source)
    if not weights and Path(source).is_dir():
        raise _no_safetensors(source)
    if weights:  # else older weights on the Hub, which transformers loads without running code
        stored = _read_config(source)
        _require_as_large_as_weights(lambda: _build_encoder(stored), weights, source)


def check_stock(source: str | Path, build: Callable[..., nn.Module]) -> None:
    """Check the config and the weights' headers of a stock classifier like any other.

    Args:
        build: `from_config` of its class in transformers.
    """
    stored = _read_config(str(source))
    _require_encoder(stored, str(source))
    if weights := _weight_files(str(source)):
        config = CONFIG_MAPPING[str(stored["model_type"])].from_dict(stored)
        _require_as_large_as_weights(lambda: build(config, trust_remote_code=False), weights, str(source))


def _no_safetensors(source: str) -> ModelLoadError:
    return ModelLoadError(
        f"{source} contains no {_WEIGHTS}; weights in another format, such as a pickled pytorch_model.bin, may contain "
        "code and are not read: convert them to safetensors."
    )


def _build_encoder(stored: Json) -> nn.Module:
    config = CONFIG_MAPPING[str(stored["model_type"])].from_dict(dict(stored))
    if isinstance(config, EngagementConfig):
        return EngagementFrameEncoder(config)
    return AutoModel.from_config(config, trust_remote_code=False)


def _read_config(source: str) -> Json:
    """The stored config; raises OSError as transformers does if there is none."""
    try:
        stored, _ = PreTrainedConfig.get_config_dict(source)
    except (AttributeError, TypeError, KeyError, RecursionError, UnicodeError) as error:
        raise ModelLoadError(f"Expected a JSON object as config.json in {source}, got something else.") from error
    if not isinstance(stored, dict) or not stored:
        raise ModelLoadError(f"Expected a JSON object as config.json in {source}, got something else.")
    stored.pop("_commit_hash", None)
    # With peft installed transformers would load the model that an adapter names, from any location.
    if (Path(source) / _ADAPTER).is_file() or (is_peft_available() and _cached(source, _ADAPTER)):
        raise ModelLoadError(f"{source} contains an adapter ({_ADAPTER}), not a whole model; merge it first.")
    return stored


def _require_own_classes(stored: Json, source: str) -> None:
    """Our models come with the code of their classes, which is not read here; any other name means other code."""
    names = stored.get("auto_map") or {}
    for name in _strings(names.values() if isinstance(names, dict) else names):
        if name.rpartition(".")[2] not in _OUR_CLASSES:
            raise ModelLoadError(
                f"The config of {source} names {name} as auto_map, which is not in this package; code from a model's "
                "folder is never run, so remove that entry or use another model."
            )


def _strings(values: object) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        yield from _strings(values.values())
    elif hasattr(values, "__iter__"):
        for value in values:
            yield from _strings(value)


def _require_encoder(stored: Json, source: str) -> None:
    """Raises ModelLoadError unless transformers or timm has the architecture and needs nothing else for it."""
    name = stored.get("model_type", TimmWrapperConfig.model_type)
    kind = CONFIG_MAPPING[name] if isinstance(name, str) and name in CONFIG_MAPPING else None
    if kind is None or not (_reads_pictures(kind) or _reads_pictures(kind.sub_configs.get("vision_config"))):
        code = " and code of its own, which is never run here" if stored.get("auto_map") else ""
        raise ModelLoadError(
            f"Expected an image encoder of transformers or timm in {source}, got model_type {_shown(name)}{code}; use "
            "another."
        )
    _require_plain(stored, source)
    if issubclass(kind, TimmWrapperConfig):
        architecture, arguments = stored.get("architecture", "resnet50"), stored.get("model_args") or {}
        if not isinstance(architecture, str) or not timm.is_model(architecture) or ":" in architecture:
            raise ModelLoadError(
                f"timm {timm.__version__} does not have the architecture {_shown(architecture)} of {source}; check the "
                "name, or update timm."
            )
        strange = [key for key in arguments if _TIMM_REACHES_OUT.fullmatch(key)] if isinstance(arguments, dict) else [0]
        if strange:
            raise ModelLoadError(f"model_args in {source} may contain only sizes, got {_shown(arguments)}.")


def _reads_pictures(kind: type[PreTrainedConfig] | None) -> bool:
    if kind is None or kind not in MODEL_MAPPING or issubclass(kind, EngagementConfig):  # ours contains one
        return False
    model = MODEL_MAPPING[kind]
    return getattr(model[0] if isinstance(model, tuple) else model, "main_input_name", None) == "pixel_values"


def _require_plain(stored: Json, source: str) -> None:
    """Raises ModelLoadError for a config that would fetch or run something, and for sizes that are far too large."""
    for key, value in _leaves(stored):
        place = f"{key} in the config of {source}"
        if key in _REACHES_OUT or (key.endswith("_implementation") and isinstance(value, str) and "/" in value):
            raise ModelLoadError(f"{place} is {_shown(value)}, which would fetch or run other files; remove it.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not math.isfinite(value) or abs(value) > _LARGEST_NUMBER:
            raise ModelLoadError(f"{place} must be at most {_LARGEST_NUMBER:,}, got {_shown(value)}.")
        most = _LARGEST_SIDE_PX if _SIDE.fullmatch(key) else _MOST_LAYERS if _LAYERS.fullmatch(key) else math.inf
        if value > most or (value < 0 and (most < math.inf or _SIZE.fullmatch(key))):
            most = _LARGEST_NUMBER if most == math.inf else most
            raise ModelLoadError(f"{place} must be from 0 to {most:,}, got {_shown(value)}.")


def _leaves(stored: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Each key with its value, also inside objects and lists."""
    if isinstance(stored, dict):
        for name, value in stored.items():
            if name in _REACHES_OUT and value:
                yield name, value
            yield from _leaves(value, name)
    elif isinstance(stored, list):
        for value in stored:
            yield from _leaves(value, key)
    else:
        yield key, stored


def _require_labels(stored: Json, source: str) -> None:
    names = stored.get("id2label")
    if names is None:
        return
    reason = None
    if not isinstance(names, dict) or not names or sorted(names) != sorted(map(str, range(len(names)))):
        reason = "a name for each index from 0"
    elif not all(isinstance(name, str) and name for name in names.values()) or len({*names.values()}) < len(names):
        reason = "different names"
    if reason is None:
        return
    raise ModelLoadError(f"id2label in the config of {source} needs {reason}, got {_shown(names)}; correct it.")


def _weight_files(source: str) -> list[Path]:
    """The safetensors files; empty if the weights are missing or in another format."""
    found = _cached(source, _WEIGHTS)
    if found:
        return [found]
    index = _cached(source, f"{_WEIGHTS}.index.json")
    if index is None:
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not names or not all(_SHARD_NAME.fullmatch(name) for name in names):
            raise ValueError(f"files by the names {_shown(sorted(names))}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(
            f"{index} does not list weight files ({in_one_line(error)}); copy the whole model."
        ) from error
    shards = {name: _cached(source, name) for name in sorted(names)}
    missing = [name for name, path in shards.items() if path is None]
    if missing:
        raise ModelLoadError(f"{source} has no {missing[0]}; copy the whole model.")
    return [path for path in shards.values() if path is not None]


def _cached(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        return path if (path := Path(source) / name).is_file() else None
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def _require_as_large_as_weights(build: Callable[[], nn.Module], weights: list[Path], source: str) -> None:
    """Raises ModelLoadError for a model with many more numbers than its files contain, which would fill memory, and for
    weights of other shapes, or that are not floating-point numbers."""
    stored = {name: head for path in weights for name, head in _read_heads(path).items()}
    if any(".lora_A." in name for name in stored):  # transformers would initialise the adapted layers at random
        raise ModelLoadError(
            f"{source} contains adapters that are not merged, as in a checkpoint of a training with lora_rank; use the "
            "folder that the training exports."
        )
    try:
        with torch.device("meta"):  # allocates no memory
            model = build()
    except Exception as error:  # timm and transformers raise nearly anything for sizes that do not fit
        raise ModelLoadError(
            f"Expected a config that a model can be built from in {source}, got: {in_one_line(error)}"
        ) from error
    num_stored = sum(math.prod(shape) for _, shape in stored.values())
    num_asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if num_asked > _SPARE_RATIO * num_stored + _SPARE_NUMBERS:
        raise ModelLoadError(
            f"The config of {source} needs weights of {num_asked:,} numbers, its files contain {num_stored:,}; one of "
            "the two is of another model."
        )
    for name, weight in model.named_parameters():
        kind, shape = stored.get(name, ("F32", tuple(weight.shape)))
        if shape != tuple(weight.shape) or kind not in _FLOATS:
            raise ModelLoadError(
                f"The config of {source} needs {name} of shape {tuple(weight.shape)}, its weights have {shape} of type "
                f"{kind}; one of the two is of another model."
            )


def _read_heads(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape by name, from the file's header, which safetensors checks against the file's length."""
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in parts.items()}
    except Exception as error:  # SafetensorError, or OSError for what is not a file
        raise ModelLoadError(
            f"The weights {path} are damaged or not safetensors ({in_one_line(error)}); copy the file again."
        ) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
