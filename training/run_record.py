"""What determines the weights of a training, recorded in each checkpoint: a resumed training must have the same.

Options, data, first weights and the number of processes are compared; versions are only information. Options for
where a training runs, how fast, and what it prints are `FREE`: they may change when it is resumed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path

from pydantic import JsonValue, TypeAdapter, ValidationError
from transformers import TrainingArguments

from ..data.json_records import Record, read_record, write_record
from ..data.required_packages import installed_version
from ..processor.input_errors import RecipeError
from .arguments import TRAINING_DEFAULTS, Recipe, StageArguments, StageRun
from .data_arguments import DataArguments

RECORD_FILE = "training_recipe.json"
# Options of the data that its fingerprint and label names do not cover.
_OF_DATA = {"oversample_to", "folds"}
# Where it runs, how fast, and what it prints: nothing that the weights depend on.
FREE = frozenset({
    *({item.name for item in fields(DataArguments)} - _OF_DATA),
    "start_from",  # its weights are compared
    "output_dir", "resume_from_checkpoint", "disable_tqdm", "log_level", "log_level_replica", "log_on_each_node",
    "logging_dir", "logging_strategy", "logging_first_step", "logging_steps", "logging_nan_inf_filter", "report_to",
    "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
    "include_num_input_tokens_seen", "include_for_metrics", "per_device_eval_batch_size", "eval_accumulation_steps",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "save_total_limit", "save_on_each_node", "enable_jit_checkpoint", "skip_memory_metrics", "push_to_hub",
    "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push", "hub_revision",
    "ddp_timeout", "ddp_backend", "local_rank", "use_cpu", "do_train", "do_eval", "do_predict", "debug",
})  # fmt: skip
_PACKAGES = ("engagement-recognition", "transformers", "accelerate", "torch", "timm", "peft")


OptionValue = str | int | float | bool | None  # lists and mappings as JSON text


class TrainingRecipe(Record):
    """`training_recipe.json` in a checkpoint."""

    stage: str
    # Those of StageArguments and TrainingArguments that may not change.
    options: dict[str, OptionValue]
    # Of the prepared data.
    fingerprint: str
    label_names: list[str]
    # SHA-256 of the weights that the training started from; null: initialised by their architecture, or from the Hub.
    first_weights: str | None
    # Each contributes a batch to every step.
    num_processes: int
    # torch's threads when the checkpoint was written, as sums round differently with a different number; null: written
    # by an earlier version.
    threads: int | None = None
    versions: dict[str, str | None]


def options_of(run: StageRun) -> dict[str, OptionValue]:
    """Every option of a run that its weights depend on, as JSON values."""
    found: dict[str, OptionValue] = {}
    for arguments in (run.stage, run.training):
        for item in fields(arguments):
            if item.init and item.name not in FREE:
                found[item.name] = _as_option(getattr(arguments, item.name))
    if run.stage.start_from:
        del found["encoder"]  # not used
    elif Path(run.stage.encoder).is_dir():
        found["encoder"] = Path(run.stage.encoder).resolve().name  # its weights are compared
    # As the user gave them: for Trainer they are resolved for the data, or for the installed versions.
    asked = {**TRAINING_DEFAULTS, **run.given}
    return found | {name: _as_option(asked.get(name)) for name in ("metric_for_best_model", "accelerator_config")}


def _as_option(value: object) -> OptionValue:
    content = _as_json(value)
    return json.dumps(content, sort_keys=True) if isinstance(content, (list, dict)) else content


def _as_json(value: object) -> JsonValue:
    if isinstance(value, Enum):
        return _as_json(value.value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(entry) for entry in value]
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):  # JSON, however it was spaced
        try:
            return TypeAdapter(JsonValue).validate_json(value)
        except ValidationError:
            return value
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def describe_training(
    run: StageRun, fingerprint: str, label_names: list[str], start: str | Path | None
) -> TrainingRecipe:
    """
    Args:
        fingerprint: of the prepared data.
        start: source of the first weights, a folder or a name on the Hub; None: the run's encoder.
    """
    options = options_of(run)
    if start:
        options.pop("encoder", None)
    weights = Path(start or run.stage.encoder) / "model.safetensors"
    digest = None
    if weights.is_file():
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TrainingRecipe(
        stage=run.name,
        options=options,
        fingerprint=fingerprint,
        label_names=label_names,
        first_weights=digest,
        num_processes=run.training.world_size,
        versions={name: installed_version(name) for name in _PACKAGES},
    )


def write_training_recipe(recipe: TrainingRecipe, checkpoint: Path) -> None:
    """Raises DataError where it cannot be written."""
    write_record(checkpoint / RECORD_FILE, recipe)


def read_training_recipe(checkpoint: Path) -> TrainingRecipe | None:
    """The recipe in a checkpoint; None if an earlier version wrote it.

    Raises:
        RecipeError: it is damaged.
    """
    path = checkpoint / RECORD_FILE
    if not path.is_file():
        return None
    remedy = "delete the checkpoint, and resume from the one before it"
    return read_record(path, TrainingRecipe, RecipeError, "the recipe of a training", remedy)


def options_that_differ(kept: TrainingRecipe, options: Mapping[str, OptionValue]) -> list[str]:
    """Such as `learning_rate 0.001, got 0.002`: the value in the checkpoint, and the value now."""
    defaults = {
        item.name: _as_option(item.default_factory() if callable(item.default_factory) else item.default)
        for kind in (StageArguments, TrainingArguments)
        for item in fields(kind)
        if item.init
    }
    differing = []
    for name in sorted({*kept.options, *options}):
        if name not in defaults or (name == "encoder" and not (name in kept.options and name in options)):
            continue  # an option that another version of transformers had
        before, now = (values.get(name, defaults[name]) for values in (kept.options, options))
        if before != now:
            differing.append(f"{name} {_shown(before)}, got {_shown(now)}")
    return differing


def inputs_that_differ(kept: TrainingRecipe, now: TrainingRecipe) -> list[str]:
    """As `options_that_differ`, for what is known only once the data is open."""
    pairs = {
        "label names": (", ".join(kept.label_names), ", ".join(now.label_names)),
        "data with fingerprint": (kept.fingerprint[:12], now.fingerprint[:12]),
        "first weights with SHA-256": (_short(kept.first_weights), _short(now.first_weights)),
    }
    return [f"{name} {before}, got {after}" for name, (before, after) in pairs.items() if before != after]


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _shown(value: OptionValue) -> str:
    return "none" if value is None else str(value)


def recipe_as_given(run: StageRun) -> Recipe:
    """For results, which may be published: without tokens and local paths."""
    return Recipe(
        {  # Hub ids stay whole
            name: Path(value).name if isinstance(value, str) and Path(value).exists() else value
            for name, value in run.given.items()
            if name != "hub_token"
        }
    )
