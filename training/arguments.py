"""Recipes and command-line options → the typed arguments of each stage.

A recipe is a small YAML file: options for both stages at the top, options of one stage under `expression:` and
`engagement:`. Any option may be one of `StageArguments` or of transformers' TrainingArguments. On the command line
`--name value` overrides the recipe for both stages, `--expression_name value` and `--engagement_name value` for one.
`bf16: auto` means bfloat16 where the machine is fast at it and fp16 is off; `selection.choose_score` resolves
`metric_for_best_model: auto`. With `base: other.yaml` a recipe's values override those of another recipe.
"""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal, NoReturn

import torch
import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError
from transformers import HfArgumentParser, TrainingArguments

from ..data.audit.folds import SUBJECT
from ..data.open_data import with_current_names
from ..processor.input_errors import RecipeError, in_one_line
from .data_arguments import DataArguments, FrameArguments
from .machine import has_fast_bf16, loader_workers

Stage = Literal["expression", "engagement"]
STAGES: tuple[Stage, Stage] = ("expression", "engagement")
NO_CHECKPOINT = ("false", "no", "0", "none")  # as resume_from_checkpoint
Options = Mapping[str, JsonValue]  # name → value, as YAML parses it; checked when a stage is planned
# Our defaults where they differ from those of TrainingArguments.
TRAINING_DEFAULTS: Options = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    # Macro-F1, or AUROC where a class is rare: 95 % of DAiSEE is "engaged", so accuracy rewards a constant.
    "metric_for_best_model": "auto",
    "logging_strategy": "epoch",
    "remove_unused_columns": False,
    # Otherwise a resumed run would restart its early-stopping count.
    "restore_callback_states_from_checkpoint": True,
    "report_to": "none",
    "output_dir": "runs/run",
}


@dataclass
class ModelArguments:
    """The network, and what it starts from."""

    model: str = field(
        default="video",
        metadata={"help": "stage two: video (clips of faces) or image (single faces); stage one is always image"},
    )
    encoder: str = field(
        default="resnet18",
        metadata={"help": "Hub id, local folder, or the bare name of a timm architecture: random weights"},
    )
    pretrained: bool = field(
        default=True, metadata={"help": "False: timm/NAME.TAG means the architecture NAME with random weights"}
    )
    encoder_features: str | None = field(
        default=None,
        metadata={
            "help": "map: mean over space of the last feature map; pooled: the encoder's own output (default: "
            "what suits the encoder)"
        },
    )
    start_from: str | None = field(
        default=None,
        metadata={
            "help": "folder of a trained model whose encoder is used instead of --encoder; box: the expression model "
            "of this package; with a folder of folds, each fold starts from its own model; {seed} stands for the run's "
            "seed (default in stage two: the model of stage one, if the same run trains it)"
        },
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "train only the head"})
    lora_rank: int | None = field(
        default=None,
        metadata={
            "help": "rank of LoRA: small adapters in the encoder's attention layers are trained instead of its weights "
            "and merged into them at the end; 8 is usual; needs the extra lora (default: no LoRA)"
        },
    )
    cache_features: bool | None = field(
        default=None,
        metadata={
            "help": "with freeze_encoder: True stores the encoder's features in cache_dir and turns a recipe's "
            "augmentation off, False computes them every time (default: kept in memory if nothing is augmented)"
        },
    )
    temporal: str = field(
        default="lstm", metadata={"help": "stage two, clips: lstm, transformer, mean or last (frame)"}
    )
    normalize_features: bool = field(
        default=False,
        metadata={
            "help": "stage two, clips: each feature is scaled to mean 0 and variance 1 before the temporal head (a "
            "BatchNorm); for a frozen encoder, whose features may be too small for an LSTM to begin to learn"
        },
    )
    temporal_hidden_size: int = field(
        default=256, metadata={"help": "stage two, clips: units of the LSTM, or width of the transformer"}
    )
    temporal_num_layers: int = field(
        default=1, metadata={"help": "stage two, clips: layers of the LSTM or of the transformer"}
    )
    temporal_positions: str = field(
        default="sinusoidal",
        metadata={"help": "stage two, clips: how a transformer knows the order of frames: sinusoidal or convolutional"},
    )
    dropout: float = field(default=0.5, metadata={"help": "share of the features dropped before the classifier"})
    test_time_views: int = field(
        default=1,
        metadata={"help": "views of a face averaged outside training: 1, 2 (mirrored) or 10 (also four corners)"},
    )
    channels_last: bool = field(
        default=True, metadata={"help": "memory layout; it makes no difference on the CPU on which it was measured"}
    )


@dataclass
class LearningArguments:
    """What is minimised, and how."""

    loss: str = field(
        default="cross_entropy", metadata={"help": "cross_entropy, focal, or ordinal for label_scheme levels"}
    )
    focal_gamma: float = field(default=2.0, metadata={"help": "loss focal: how much less an easy example counts"})
    class_weight_cap: float = field(
        default=5.0, metadata={"help": "largest ratio of two class weights; 1: all classes weigh the same"}
    )
    logit_adjustment: float = field(default=0.0, metadata={"help": "tau of Menon et al. 2021; 0: none"})
    label_smoothing: float = field(default=0.0, metadata={"help": "for the losses cross_entropy and ordinal; 0: none"})
    soft_labels: float = field(
        default=0.0,
        metadata={"help": "share of the target that comes from raters' votes, if the data has them; 0: only the label"},
    )
    cutmix: float = field(
        default=0.0, metadata={"help": "probability that a batch is mixed by CutMix, in the first 85 % of the training"}
    )
    mixup: float = field(
        default=0.0, metadata={"help": "probability that a batch is mixed by mixup, in the first 85 % of the training"}
    )
    average_decay: float | None = field(
        default=None,
        metadata={"help": "decay of a moving average of the weights, which is exported; 0.999 (default: no average)"},
    )
    subject_adversary: float = field(
        default=0.0,
        metadata={"help": "strength of the adversary that removes a person's identity from the features; 0: none"},
    )
    optimizer: str | None = field(
        default=None, metadata={"help": "adam, momentum or nesterov, with an L2 penalty (default: as set by --optim)"}
    )
    lr_decay_factor: float | None = field(
        default=None,
        metadata={
            "help": "factor by which the learning rate shrinks, smoothly, over lr_decay_steps (default: as set by "
            "--lr_scheduler_type)"
        },
    )
    lr_decay_steps: int = field(default=500, metadata={"help": "steps over which lr_decay_factor applies once"})
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "evaluations without a better --metric_for_best_model before a stop (default: no stop)"},
    )


@dataclass
class StageArguments(DataArguments, ModelArguments, FrameArguments, LearningArguments):
    """A stage's data, model, frames and loss; everything else is in TrainingArguments."""


@dataclass(frozen=True)
class Recipe:
    """A recipe's options merged over those of its bases; options of one stage stand under that stage's name."""

    options: Options


@dataclass(frozen=True)
class StageRun:
    """One stage, ready to run: its name, its own arguments, Trainer's, and the options as the user gave them."""

    name: str
    stage: StageArguments
    training: TrainingArguments
    given: Options
    on_command_line: frozenset[str]  # names of the options given on the command line for this stage
    run_dir: Path
    push_to_hub: bool  # not in `training`: Trainer would push checkpoints, which contain pickles; we push the export

    @property
    def export_dir(self) -> Path:
        return self.run_dir / self.name


def read_recipe(path: Path) -> Recipe:
    """A recipe's options over those of its `base`: another recipe, named from its folder, or a list of them.

    Of several bases, the last has priority. Sections of stages are merged key by key, all else is replaced; null resets
    an option to its default.

    Raises:
        RecipeError: a file is missing, is not a YAML mapping, or is its own base.
    """
    return _read_over_bases(path, ())


def _read_over_bases(path: Path, readers: tuple[Path, ...]) -> Recipe:
    chain = (*readers, path)
    if path.resolve() in [reader.resolve() for reader in readers]:
        raise RecipeError(f"The bases of {chain[0]} form a circle: {' -> '.join(p.name for p in chain)}; remove one.")
    options = _read_yaml(path, f", the base of {readers[-1]}" if readers else "")
    bases = options.pop("base", [])
    merged: Options = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise RecipeError(f"Expected the name of a recipe under base: in {path}, got {base!r}.")
        merged = _lay_over(merged, _read_over_bases(path.parent / base, chain).options)
    return Recipe(_lay_over(merged, options))


def _lay_over(base: Options, options: Options) -> Options:
    shared = [name for name in STAGES if name in base and name in options]
    return {**base, **options, **{name: {**_section(base, name), **_section(options, name)} for name in shared}}


def _read_yaml(path: Path, role: str) -> dict[str, JsonValue]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"There is no recipe {path}{role}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise RecipeError(f"The recipe {path} could not be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"Expected names and values in the recipe {path}, got {type(content).__name__}.")
    try:
        return TypeAdapter(dict[str, JsonValue]).validate_python(content, strict=True)
    except ValidationError as error:  # YAML also has dates, sets, and keys that are not text, such as a bare `on`
        got = error.errors()[0]["input"]
        raise RecipeError(f"Expected only text and numbers in {path}, got {got!r}; put it in quotes.") from error


def train_command() -> str:
    """The command that starts a training, as the user typed it or would type it."""
    return "python train.py" if Path(sys.argv[0]).name == "train.py" else "engagement train"


def plan_stages(recipe: Recipe, options: Mapping[str, str]) -> list[StageRun]:
    """The stages that have data, in order.

    Raises:
        RecipeError: an unknown option, a value of the wrong type, or no data for any stage.
    """
    runs = [_plan_stage(name, recipe, options) for name in STAGES]
    with_data = [run for run in runs if run.stage.data]
    if with_data and with_data[-1].name == "expression" and any(run.stage.folds for run in runs):
        raise RecipeError("folds apply to stage two, which has no data here; pass --engagement_data.")
    if not with_data:
        raise RecipeError(
            "There is no data to train on; pass --expression_data or --engagement_data, or a recipe that sets one of "
            "them (`engagement recipes` lists those of this package)."
        )
    return with_data


def _plan_stage(name: str, recipe: Recipe, options: Mapping[str, str]) -> StageRun:
    for_both = {key: value for key, value in recipe.options.items() if key not in STAGES}
    of_one = tuple(f"{stage}_" for stage in STAGES)
    typed_for_both = {key: value for key, value in options.items() if not key.startswith(of_one)}
    typed = {key.removeprefix(f"{name}_"): value for key, value in options.items() if key.startswith(f"{name}_")}
    merged: dict[str, JsonValue] = {}
    for part in (for_both, _section(recipe.options, name), typed_for_both, typed):
        merged |= with_current_names(part)
    # Trainer accepts bf16 on a CPU only with use_cpu.
    values: dict[str, JsonValue] = {**TRAINING_DEFAULTS, "use_cpu": not torch.accelerator.is_available(), **merged}
    is_on_cpu = _is_true(values["use_cpu"])
    values.setdefault("dataloader_num_workers", 0 if is_on_cpu else loader_workers())
    if values.get("bf16") == "auto":
        values["bf16"] = has_fast_bf16() and not _is_true(values.get("fp16"))
    run_dir = Path(str(values["output_dir"]))
    values["output_dir"] = str(run_dir / "checkpoints" / name)
    if values.get("data") == "none":
        values["data"] = None
    if str(values.get("resume_from_checkpoint")).lower() in NO_CHECKPOINT:  # Trainer would take the text for a folder
        values["resume_from_checkpoint"] = None
    stage, training = _parse(values, {key for key in options if key.startswith(f"{name}_")})
    stage.folds = _read_folds(stage.folds)
    if stage.start_from:
        stage.start_from = stage.start_from.replace("{seed}", str(training.seed))
    if name == "expression":
        if "folds" in typed or "folds" in _section(recipe.options, name):
            raise RecipeError("folds apply only to stage two, not to stage one, whose data names no people.")
        stage.model, stage.folds = "image", None
    if stage.data and not stage.pretrained and not stage.start_from:
        stage.encoder = _without_weights(stage.encoder)
    on_command_line = frozenset(with_current_names(typed_for_both | typed))
    if stage.cache_features and "cache_features" in on_command_line and "augmentation" not in on_command_line:
        merged |= _without_augmentation(name, stage)
    push_to_hub, training.push_to_hub = training.push_to_hub, False
    if "trackio" in (training.report_to or ()) and training.hub_private_repo is None:  # its Space would be public
        training.hub_private_repo = True
        print(
            "take care: trackio and a push create private repositories; --hub_private_repo false makes them public",
            file=sys.stderr,
        )
    return StageRun(name, stage, training, merged, on_command_line, run_dir, push_to_hub)


def _is_true(value: JsonValue) -> bool:
    return str(value).lower() in ("true", "yes", "1", "t", "y")  # as transformers' parser reads it


def _read_folds(asked: int | str | None) -> int | str | None:
    """The parser gives text, but a checkpoint's record contains a number."""
    if asked is None or asked == SUBJECT:
        return asked
    try:
        return int(asked)
    except ValueError as error:
        raise RecipeError(f"Expected a number of folds, or {SUBJECT}, got {asked!r}.") from error


def _without_augmentation(name: str, stage: StageArguments) -> Options:
    """Stored features cannot be augmented: turn the recipe's augmentation off, and report it; returns that option."""
    if stage.augmentation == "{}":
        return {}
    if stage.data:
        print(f"{name}: --cache_features turns the recipe's augmentation off: {stage.augmentation}", flush=True)
    stage.augmentation = "{}"
    return {"augmentation": {}}


def _without_weights(encoder: str) -> str:
    """`timm/resnet18.tv_in1k` → `resnet18`, with random weights, so that a recipe can be tried offline."""
    if "/" not in encoder or Path(encoder).is_dir():
        return encoder
    owner, _, name = encoder.partition("/")
    if owner != "timm":
        raise RecipeError(
            f"pretrained false needs an encoder timm/NAME.TAG, got {encoder!r}; pass --encoder with a local folder or "
            "the name of a timm architecture."
        )
    return name.partition(".")[0]


def _section(options: Options, name: str) -> Options:
    section = options.get(name) or {}
    if not isinstance(section, dict):
        raise RecipeError(f"Expected names and values under {name}:, got {section!r}.")
    return section


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"The options are not valid: {message}.")


@cache  # of two hundred options: a search plans a stage for every value
def _parser() -> _Parser:
    kinds = (StageArguments, TrainingArguments)
    return _Parser(kinds, allow_abbrev=False)  # type: ignore[arg-type] # its annotation does not accept classes


def _parse(values: Options, of_stage: Collection[str]) -> tuple[StageArguments, TrainingArguments]:
    """Args: of_stage: the options typed for this stage only, with the stage's name as prefix."""
    known = {item.name for kind in (StageArguments, TrainingArguments) for item in fields(kind)}
    of_one_stage = [f"{stage}_{name}" for stage in STAGES for name in known]
    for name in values:
        if name not in known:
            typed = next((key for key in of_stage if key.partition("_")[2] == name), name)
            # A stage's name, if typed, must not make all options look similar.
            near = get_close_matches(name, known if typed != name else [*known, *of_one_stage], 1)
            hint = f"did you mean {typed.removesuffix(name)}{near[0]}? See" if near else "see"
            raise RecipeError(f"There is no option {typed!r}; {hint} {train_command()} --help.")
    argv = []
    for name, value in values.items():
        if value is not None:
            argv += [f"--{name}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    try:
        stage, training = _parser().parse_args_into_dataclasses(argv, look_for_args_file=False)
    except RecipeError:  # also a ValueError, and already complete
        raise
    except Exception as error:  # TrainingArguments checks combinations, reads files and requires packages
        raise RecipeError(f"The options do not go together: {in_one_line(error)}") from error
    return stage, training
