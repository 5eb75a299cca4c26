"""Checks of a run's options before data is prepared, which takes hours: one line that names the wrong option."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks

from ..data.preparation.settings import SAMPLINGS
from ..data.readers.daisee import SUBSETS
from ..data.readers.fer_votes import VOTE_LABELS
from ..data.readers.frame_windows import WINDOW_LABELS
from ..data.readers.sources import KINDS
from ..data.required_packages import require_extra
from ..data.schema import LABEL_SCHEMES, OWN_LABELS
from ..processor.input_errors import RecipeError, in_one_line
from .arguments import StageArguments, StageRun
from .augmentation import Augmentation
from .losses import LOSSES
from .mixing import Mixing
from .stage_data import parse_json
from .trial_step import try_one_step

_CHOICES: Mapping[str, tuple[object, ...]] = {
    "model": ("video", "image"),
    "data_kind": KINDS,
    "subset": tuple(SUBSETS),
    "pictures_as": ("pictures", "clips"),
    "window_label": WINDOW_LABELS,
    "vote_labels": tuple(VOTE_LABELS),
    "label_scheme": (OWN_LABELS, *LABEL_SCHEMES),
    "sampling": SAMPLINGS,
    "encoder_features": ("map", "pooled"),
    "temporal": ("lstm", "transformer", "mean", "last"),
    "temporal_positions": ("sinusoidal", "convolutional"),
    "test_time_views": (1, 2, 10),
    "loss": LOSSES,
    "optimizer": ("adam", "momentum", "nesterov"),
}
# Switches of Trainer whose values our evaluation and collators depend on.
_FIXED: Mapping[str, object] = {
    "remove_unused_columns": False,
    "prediction_loss_only": False,
    "batch_eval_metrics": False,
    "eval_do_concat_batches": True,
    "label_names": None,
    "enable_jit_checkpoint": False,  # it ends the training at SIGTERM, and unfinished weights would be exported
}


class _Range(NamedTuple):
    """From `least` to `most`; `above` and `below` exclude the ends."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        is_high_enough = (self.least is None or value >= self.least) and (self.above is None or value > self.above)
        return (
            is_high_enough and (self.most is None or value <= self.most) and (self.below is None or value < self.below)
        )

    def in_words(self) -> str:
        words = {"of at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {number:g}" for word, number in words.items() if number is not None)


_SHARE, _COUNT, _NOT_NEGATIVE, _POSITIVE = _Range(0, 1), _Range(1), _Range(0), _Range(above=0)
_SEED = _Range(0, 2**32 - 1)  # numpy's limits
_RANGES: Mapping[str, _Range] = {
    # Ours.
    "oversample_to": _NOT_NEGATIVE, "folds": _Range(3), "num_preparation_processes": _COUNT,
    "lora_rank": _COUNT, "temporal_hidden_size": _COUNT, "temporal_num_layers": _COUNT, "dropout": _Range(0, below=1),
    "num_frames": _COUNT, "window_stride_frames": _COUNT, "image_size": _COUNT, "face_crop_size_px": _COUNT,
    "picture_norm": _POSITIVE, "focal_gamma": _NOT_NEGATIVE, "class_weight_cap": _Range(1),
    "logit_adjustment": _NOT_NEGATIVE, "label_smoothing": _Range(0, below=1), "soft_labels": _SHARE, "cutmix": _SHARE,
    "mixup": _SHARE, "average_decay": _Range(above=0, below=1), "subject_adversary": _NOT_NEGATIVE,
    "lr_decay_factor": _Range(above=0, most=1), "lr_decay_steps": _COUNT, "early_stopping_patience": _NOT_NEGATIVE,
    # Of TrainingArguments.
    "learning_rate": _POSITIVE, "num_train_epochs": _POSITIVE, "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT, "gradient_accumulation_steps": _COUNT, "seed": _SEED, "data_seed": _SEED,
    "weight_decay": _NOT_NEGATIVE, "adam_beta1": _Range(0, below=1), "adam_beta2": _Range(0, below=1),
    "adam_epsilon": _POSITIVE, "max_grad_norm": _NOT_NEGATIVE, "warmup_steps": _NOT_NEGATIVE,
    "label_smoothing_factor": _Range(0, below=1), "eval_steps": _POSITIVE,
    "save_steps": _POSITIVE, "logging_steps": _POSITIVE, "eval_delay": _NOT_NEGATIVE, "save_total_limit": _NOT_NEGATIVE,
    "dataloader_num_workers": _NOT_NEGATIVE, "dataloader_prefetch_factor": _COUNT, "eval_accumulation_steps": _COUNT,
    "torch_empty_cache_steps": _COUNT, "ddp_timeout": _COUNT, "ddp_bucket_cap_mb": _COUNT,
    "neftune_noise_alpha": _NOT_NEGATIVE,
}  # fmt: skip


def check_options_alone(run: StageRun) -> None:
    """
    Raises:
        RecipeError: a number out of range, an unknown value, or options that this machine or installation does not
            support.
    """
    for arguments in (run.stage, run.training):
        for item in fields(arguments):
            if item.init:
                _check_value(item.name, getattr(arguments, item.name), run.given)
    if run.training.max_steps == 0 or run.training.max_steps < -1:
        raise RecipeError(f"Expected max_steps of at least 1, or -1 for no limit, got {run.training.max_steps}.")
    Mixing(run.stage.cutmix, run.stage.mixup)
    _check_lora(run)
    _check_features(run)
    _check_pixels(run.stage)
    if run.training.fp16 and run.training.device.type == "cpu":
        raise RecipeError("fp16 needs a GPU, and this training runs on the CPU; leave it out, or pass --bf16.")
    _check_schedule(run.training)
    _check_trackers(run.training)
    try_one_step(run.training, run.stage.early_stopping_patience)


def _check_value(name: str, value: object, given: Mapping[str, object]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"Expected a finite number as {name}, got {value}.")
    known = _RANGES.get(name)
    if known and isinstance(value, (int, float)) and not known.holds(value):
        raise RecipeError(f"Expected {name} {known.in_words()}, got {value}.")
    if name in _CHOICES and value is not None and value not in _CHOICES[name]:
        raise RecipeError(f"Expected {name} among {', '.join(map(str, _CHOICES[name]))}, got {value!r}.")
    if name in _FIXED and value != _FIXED[name]:
        raise RecipeError(f"{name} is fixed at {_FIXED[name]} here, got {value}; leave it out.")
    if name.endswith(("_kwargs", "_config")) and isinstance(value, str) and not Path(value).is_file():
        raise RecipeError(f"Expected {name} as a JSON mapping, or the path of a file with one, got {value!r}.")
    if given.get(name) == "":
        raise RecipeError(f"{name} is empty; give it a value, leave it out, or set it to null in a recipe.")


def _check_lora(run: StageRun) -> None:
    """Whether the stage's other options let its adapters be trained."""
    stage, training = run.stage, run.training
    if not stage.lora_rank:
        return
    beside = f"together with lora_rank {stage.lora_rank}, got true in stage {run.name}"
    for name in ("freeze_encoder", "cache_features"):
        if getattr(stage, name):
            raise RecipeError(
                f"Expected {name} false {beside}: LoRA trains adapters within the encoder; leave one of the two out "
                "(with LoRA the encoder's own weights are always frozen)."
            )
    checkpointing = training.gradient_checkpointing_kwargs
    if isinstance(checkpointing, dict) and checkpointing.get("use_reentrant"):
        raise RecipeError(
            f"Expected use_reentrant false in gradient_checkpointing_kwargs {beside}: otherwise no gradient reaches "
            "the adapters; leave it out."
        )


def _check_features(run: StageRun) -> None:
    """Whether features can be stored as the stage asks."""
    stage = run.stage
    if not stage.cache_features:
        return
    augmentation = Augmentation.from_recipe(parse_json(stage.augmentation, "augmentation", dict))
    changing = {
        "freeze_encoder": not stage.freeze_encoder,
        "augmentation": augmentation != Augmentation(),
        "cutmix": stage.cutmix > 0, "mixup": stage.mixup > 0, "subject_adversary": stage.subject_adversary > 0,
    }  # fmt: skip
    name = next((name for name, changes in changing.items() if changes), None)
    if name:
        wanted = {"freeze_encoder": "true", "augmentation": "{}"}.get(name, "0")
        raise RecipeError(
            f"Expected {name} {wanted} together with cache_features true, got {getattr(stage, name)} in stage "
            f"{run.name}: a picture's features would differ each time; pass --{run.name}_{name} {wanted!r}, or leave "
            "cache_features out."
        )


def _check_pixels(stage: StageArguments) -> None:
    """Mean and standard deviation of the model's input."""
    for name in ("image_mean", "image_std"):
        text = getattr(stage, name)
        if text is None or text == "train":
            continue
        values = parse_json(text, name, list)
        are_numbers = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
        if len(values) not in (1, 3) or not are_numbers or (name == "image_std" and min(values) <= 0):
            above = ", each above 0" if name == "image_std" else ""
            raise RecipeError(f"Expected {name} as a list of one or three numbers{above}, or train, got {text}.")


def _check_schedule(training: TrainingArguments) -> None:
    """Optimizer and learning-rate schedule, tried on a model with one weight."""
    try:
        Trainer.get_optimizer_cls_and_kwargs(training)
        rate, kwargs = training.learning_rate, training.lr_scheduler_kwargs
        get_scheduler(
            training.lr_scheduler_type,
            torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate),
            num_warmup_steps=training.get_warmup_steps(100),
            num_training_steps=100,
            scheduler_specific_kwargs=dict(kwargs) if isinstance(kwargs, dict) else {},
        )
    except Exception as error:  # a dozen optimizer packages fail in different ways
        asked = f"optim {training.optim} and lr_scheduler_type {training.lr_scheduler_type}"
        raise RecipeError(f"{asked} cannot be used here: {in_one_line(error)}") from error


def _check_trackers(training: TrainingArguments) -> None:
    names = [training.report_to] if isinstance(training.report_to, str) else list(training.report_to or [])
    if "tensorboard" in names:
        require_extra("tensorboard", ["tensorboard"], "leave --report_to out")
    try:
        get_reporting_integration_callbacks(names)
    except (ValueError, ImportError) as error:
        raise RecipeError(f"transformers does not know this report_to: {in_one_line(error)}") from error
    absent = [name for name in names if name not in (*get_available_reporting_integrations(), "all", "none")]
    if absent:
        raise RecipeError(
            f"report_to {absent[0]} needs that package, which is not installed; install it, or pass none."
        )
