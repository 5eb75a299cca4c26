"""Command line of `python train.py` and `engagement train` → recipe and options; `--help` lists every option.

The help texts come from our arguments and transformers' TrainingArguments, with our defaults. Values are parsed later,
in `arguments`, together with the recipe's.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from typing import get_args, get_type_hints

from transformers import TrainingArguments

from ..processor.input_errors import RecipeError
from .arguments import (
    STAGES,
    TRAINING_DEFAULTS,
    DataArguments,
    FrameArguments,
    LearningArguments,
    ModelArguments,
    StageArguments,
    train_command,
)
from .recipes import find_recipe

_DESCRIPTION = """\
Train in two stages: facial expressions first, engagement second. Either stage
alone works. A stage is trained where it has data.

  %(prog)s demo
  %(prog)s fer2013_resnet18 --expression_data fer2013/
  %(prog)s my_recipe.yaml --learning_rate 1e-4 --engagement_bf16 false

Each option below applies to both stages, unless its text names one; write
--expression_NAME or --engagement_NAME instead of --NAME to set it for one
stage. A recipe can set the same options; those typed here override it. Each
stage writes one folder, OUTPUT_DIR/expression or OUTPUT_DIR/engagement:
weights, config, processor, code, results and a card.
"""
_GROUPS = {
    "data": DataArguments,
    "model": ModelArguments,
    "frames": FrameArguments,
    "loss and learning rate": LearningArguments,
    "options of transformers' Trainer (TrainingArguments)": TrainingArguments,
}
# Where our runs differ from Trainer's own help text.
_TRAINER_HELP = {
    "output_dir": "Folder of the run; the stages' models and checkpoints are in folders below it.",
    "bf16": "bfloat16 mixed precision; auto: where the machine is fast at it.",
    "label_smoothing_factor": "Has no effect here: use --label_smoothing.",
    "push_to_hub": "After all training, push each stage's folder to its hub_model_id.",
    "hub_model_id": "Repository org/name of one stage: --expression_hub_model_id, --engagement_hub_model_id.",
    "hub_strategy": "Has no effect here: only finished models are pushed, no checkpoints.",
    "hub_always_push": "Has no effect here: only finished models are pushed, no checkpoints.",
    "hub_revision": "Has no effect here: pushes go to the main branch.",
    "metric_for_best_model": (
        "Validation score that selects the checkpoint: auto, auroc, auprc, macro_f1, macro_f1_fitted, accuracy, "
        "balanced_accuracy, weighted_f1, quadratic_kappa, mae or loss."
    ),
    "resume_from_checkpoint": "true: from the last whole checkpoint in output_dir, if any; or a checkpoint's path.",
}


def parse_command_line(argv: Sequence[str] | None = None) -> tuple[Path | None, dict[str, str]]:
    """The recipe's path, if given, and all options as typed; `--help` prints the help and exits.

    Raises:
        RecipeError: there is no such recipe, or a word is neither an option nor its value.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        help_parser().parse_args(["--help"])
    recipe = find_recipe(arguments.pop(0)) if arguments and not arguments[0].startswith("-") else None
    return recipe, read_options(arguments)


def read_options(options: list[str]) -> dict[str, str]:
    """`["--seed", "1", "--bf16"]` → `{"seed": "1", "bf16": "true"}`; dashes in names become underscores.

    Raises:
        RecipeError: a word that belongs to no option, or an option that needs a value and has none.
    """
    values: dict[str, str] = {}
    name = None
    for option in options:
        if option.startswith("--"):
            name, _, value = option[2:].partition("=")
            name = name.replace("-", "_")
            values[name] = value
        elif name is None:
            raise RecipeError(
                f"{option!r} is neither an option (--name) nor the value of one; a recipe comes first, and an option "
                f"takes one value: see {train_command()} --help."
            )
        else:
            values[name], name = option, None
    for name, value in values.items():
        if not value and _needs_value(name):
            raise RecipeError(f"--{name} needs a value; see {train_command()} --help.")
    return {name: value or "true" for name, value in values.items()}


def _needs_value(name: str) -> bool:
    bare = next((name.removeprefix(f"{stage}_") for stage in STAGES if name.startswith(f"{stage}_")), name)
    kinds = {item.name: item.type for kind in (StageArguments, TrainingArguments) for item in fields(kind)}
    is_switch = bare == "resume_from_checkpoint" or bool in (kinds.get(bare), *get_args(kinds.get(bare)))
    return bare in kinds and not is_switch


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's line breaks, and shows defaults."""


def help_parser() -> argparse.ArgumentParser:
    """A parser that explains every option of a run."""
    command = train_command()
    parser = argparse.ArgumentParser(
        prog=command,
        usage=f"{command} [RECIPE] [--NAME VALUE ...]",
        description=_DESCRIPTION,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", default=argparse.SUPPRESS,
        help="a YAML file, or the name of a recipe that `engagement recipes` lists",
    )  # fmt: skip
    for title, kind in _GROUPS.items():
        group = parser.add_argument_group(title, None if kind is TrainingArguments else kind.__doc__)
        hints = get_type_hints(kind)
        for item in (item for item in fields(kind) if item.init):
            default = _default_of(item)
            group.add_argument(
                f"--{item.name}",
                metavar=_shown_type(hints[item.name]),
                default=argparse.SUPPRESS if default in (None, "", []) else default,
                help=_help_of(item, hints[item.name]),
            )
    return parser


def _help_of(item: Field[object], hint: object) -> str:
    text = _TRAINER_HELP.get(item.name) or item.metadata.get("help", "").replace("%%", "%")
    choices = next((kind for kind in get_args(hint) if isinstance(kind, type) and issubclass(kind, Enum)), None)
    if choices and "Options:" not in text:
        text += f" One of: {', '.join(choice.value for choice in choices)}."
    return text.replace("%", "%%")  # argparse fills in %(default)s; TrainingArguments escape some of theirs


def _shown_type(hint: object) -> str:
    kinds = get_args(hint) or (hint,)
    return next((kind.__name__.upper() for kind in (int, float, bool) if kind in kinds and str not in kinds), "TEXT")


def _default_of(item: Field[object]) -> object:
    if item.name == "use_cpu":
        return "True if there is no accelerator"
    if item.name == "dataloader_num_workers":
        return "0 on a CPU; with a GPU, the number of processors minus one, 8 at most"
    default = item.default if item.default_factory is MISSING else item.default_factory()
    return TRAINING_DEFAULTS.get(item.name, default)
