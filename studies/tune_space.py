"""The space of a search: ranges and choices of a stage's options, from a YAML file or around the recipe's own values.

    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    temporal_num_layers: {low: 1, high: 3}
    augmentation.brightness: {low: 0, high: 0.4, step: 0.1}
    class_weight_cap: [1, 3, 5]

Any option that affects learning from the same data is allowed, and `augmentation.NAME` for one strength. Options that
affect selection or measurement are not: their scores could not be compared. Both ends of each range and all choices are
checked with the recipe before the search starts, so that a mistake is reported at once.
"""

import json
import math
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field
from transformers import TrainingArguments

from ..data.json_records import Record, parse_record
from ..processor.input_errors import EngagementInputError, RecipeError, in_one_line
from ..train import check_options
from ..training.arguments import Recipe, StageArguments, StageRun, plan_stages, read_recipe
from ..training.augmentation import Augmentation
from ..training.run_record import FREE, OptionValue, options_of
from ..training.selection import full_name
from ..training.stage_data import parse_json

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

_Number = Annotated[float, Field(strict=False)]  # YAML reads 1e-4 as text


class Range(Record):
    """The range of a numeric option."""

    low: _Number
    """smallest value"""
    high: _Number
    """largest value, included"""
    log: bool = False
    """whether values are proposed on a logarithmic scale; not with a step"""
    step: _Number | None = None
    """distance between values; null: 1 for whole numbers, else none"""


SearchSpace = Mapping[str, Range | list[OptionValue]]
_AUGMENTATION = "augmentation."
# Options of measurement, selection or randomness.
_FIXED = frozenset({
    "model", "folds", "num_frames", "sampling", "window_stride_frames", "face_crop", "face_crop_size_px", "as_played",
    "picture_norm", "shuffle_frames", "metric_for_best_model", "greater_is_better", "load_best_model_at_end",
    "eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps", "seed", "data_seed", "full_determinism",
    "cache_features",
})  # fmt: skip
# Options of the loss: losses of different trials could not be compared.
_OF_LOSS = frozenset({"loss", "focal_gamma", "class_weight_cap", "logit_adjustment", "label_smoothing"})
# Options that change the pictures, so that the data has to be loaded again.
_OF_PICTURES = frozenset({
    "encoder", "start_from", "encoder_features", "image_size", "grayscale", "image_mean", "image_std", "oversample_to",
})  # fmt: skip


def default_space(run: StageRun) -> SearchSpace:
    """A space around the recipe's own values, small enough for twenty trials."""
    rate, decay, stage = run.training.learning_rate, run.training.weight_decay, run.stage
    space: dict[str, Range | list[OptionValue]] = {
        "learning_rate": Range(low=rate / 10, high=rate * 10, log=True),
        "weight_decay": Range(low=0, high=max(0.1, 2 * decay)),
        "dropout": Range(low=0, high=max(0.7, stage.dropout)),
    }
    if not _goes_by_loss(run):
        space["class_weight_cap"] = Range(low=1, high=max(10, stage.class_weight_cap), log=True)
    if stage.model == "video" and stage.temporal in ("lstm", "transformer"):
        size = stage.temporal_hidden_size
        space["temporal_hidden_size"] = [size // 2, size, size * 2]
    return space


def read_space(path: Path, run: StageRun) -> SearchSpace:
    """
    Args:
        run: of the recipe.

    Raises:
        RecipeError: no file, no option, or an option, range or choice that does not fit this stage; names the option.
    """
    if not path.is_file():
        raise RecipeError(f"There is no search space {path}.")
    content = read_recipe(path).options
    if not content:
        raise RecipeError(f"{path} contains no option to search; docs/tuning.md shows an example.")
    return {name: _read_entry(name, entry, path, run) for name, entry in content.items()}


def _read_entry(name: str, entry: object, path: Path, run: StageRun) -> Range | list[OptionValue]:
    is_fixed = name in _FIXED or name in FREE - {"start_from"}
    if is_fixed or (name in _OF_LOSS and _goes_by_loss(run)):
        why = "it affects selection, measurement or output, not learning; leave it out"
        if name in _OF_LOSS:
            why = "it changes the loss that selects epochs; pass --metric_for_best_model auroc, or leave it out"
        raise RecipeError(f"{name} in {path} cannot be searched: {why}.")
    try:
        _require_known(name, run)
        found = _parse_entry(name, entry, path)
        values = found if isinstance(found, list) else [_number(name, found.low), _number(name, found.high)]
        distribution_of(name, found)
        for value in values:
            plan_with(run, {name: value})
    except EngagementInputError as error:
        said = str(error)
        raise type(error)(said if str(path) in said else f"{path}, {name}: {said}") from error
    return found


def _require_known(name: str, run: StageRun) -> None:
    if not name.startswith(_AUGMENTATION):
        _plan(run, {name: None})
    elif name.removeprefix(_AUGMENTATION) not in {item.name for item in fields(Augmentation)}:
        Augmentation.from_recipe({name.removeprefix(_AUGMENTATION): 0})


def _parse_entry(name: str, entry: object, path: Path) -> Range | list[OptionValue]:
    kinds = _kinds_of(name)
    if isinstance(entry, dict):
        if not kinds & {int, float}:
            raise RecipeError(f"{name} in {path} is not a number and cannot have a range; give a list of choices.")
        remedy = "write {low: 1, high: 2}, or a list of choices"
        return parse_record(json.dumps(entry), path, Range, RecipeError, f"a range of {name}", remedy)
    if not isinstance(entry, list) or not entry:
        raise RecipeError(f"Expected a range or a list of choices for {name} in {path}, got {entry!r}.")
    return [_as_choice(value, kinds) for value in entry]


def _as_choice(value: object, kinds: set[type]) -> OptionValue:
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, str) and kinds & {int, float} and str not in kinds:
        try:
            return int(value) if float not in kinds else float(value)
        except ValueError:
            raise RecipeError(f"Expected only numbers as choices, got {value!r}.") from None
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _kinds_of(name: str) -> set[type]:
    kinds = {item.name: item.type for kind in (StageArguments, TrainingArguments) for item in fields(kind)}
    inner = {item.name: item.type for item in fields(Augmentation)}
    found = inner[name.removeprefix(_AUGMENTATION)] if name.startswith(_AUGMENTATION) else kinds[name]
    return set(get_args(found)) or {found}


def _is_whole(name: str) -> bool:
    return float not in _kinds_of(name)


def _number(name: str, value: float) -> OptionValue:
    return int(value) if _is_whole(name) else value


def distribution_of(
    name: str, entry: Range | list[OptionValue]
) -> "CategoricalDistribution | FloatDistribution | IntDistribution":
    """Optuna's distribution for an entry.

    Raises:
        RecipeError: a range without values.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(entry, list):
        return CategoricalDistribution(entry)
    numbers = [number for number in (entry.low, entry.high, entry.step) if number is not None]
    if not all(map(math.isfinite, numbers)) or (_is_whole(name) and any(number % 1 for number in numbers)):
        kind = "whole" if _is_whole(name) else "finite"
        raise RecipeError(f"Expected {kind} numbers, got {', '.join(f'{number:g}' for number in numbers)}.")
    try:
        if _is_whole(name):
            return IntDistribution(int(entry.low), int(entry.high), entry.log, int(entry.step or 1))
        return FloatDistribution(entry.low, entry.high, entry.log, entry.step)
    except ValueError as error:
        raise RecipeError(f"The range is not valid: {in_one_line(error)}") from error


def suggest(trial: "Trial", space: SearchSpace) -> dict[str, OptionValue]:
    """A value for each option, proposed by the study's sampler."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    values: dict[str, OptionValue] = {}
    for name, entry in space.items():
        of = distribution_of(name, entry)
        if isinstance(of, CategoricalDistribution):
            values[name] = trial.suggest_categorical(name, of.choices)
        elif isinstance(of, IntDistribution):
            values[name] = trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
        else:
            values[name] = trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)
    return values


def own_values(run: StageRun, space: SearchSpace) -> dict[str, OptionValue]:
    """The recipe's own values, inside the space or not."""
    options = {**options_of(run), "start_from": run.stage.start_from}
    augmentation = Augmentation.from_recipe(parse_json(run.stage.augmentation, "augmentation", dict))
    strengths = {f"{_AUGMENTATION}{item.name}": getattr(augmentation, item.name) for item in fields(Augmentation)}
    return {name: (options | strengths).get(name) for name in space}


def holds(space: SearchSpace, values: Mapping[str, OptionValue]) -> bool:
    """Whether all of these values are in the space."""
    return all(_holds(entry, values[name]) for name, entry in space.items())


def _holds(entry: Range | list[OptionValue], value: OptionValue) -> bool:
    if isinstance(entry, list):
        return value in entry
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not entry.low <= value <= entry.high:
        return False
    steps = (value - entry.low) / entry.step if entry.step else 0
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def changes_pictures(space: SearchSpace) -> bool:
    """Whether trials differ in their pixels or rows, not only in how they learn."""
    return not _OF_PICTURES.isdisjoint(space)


def plan_with(run: StageRun, values: Mapping[str, OptionValue]) -> StageRun:
    """The stage, planned again with these values instead of its own, and checked; repeated output is hidden.

    Raises:
        RecipeError, ModelLoadError: as `plan_stages` and `check_options`.
    """
    with redirect_stdout(StringIO()):
        planned = _plan(run, values)
        check_options(planned)
    return planned


def _plan(run: StageRun, values: Mapping[str, OptionValue]) -> StageRun:
    section = dict(run.given)
    for name in sorted(values, key=lambda name: name.startswith(_AUGMENTATION)):
        if name.startswith(_AUGMENTATION):
            given = section.get("augmentation") or {}
            strengths = parse_json(given, "augmentation", dict) if isinstance(given, str) else given
            assert isinstance(strengths, dict)  # checked when the recipe was planned
            section["augmentation"] = {**strengths, name.removeprefix(_AUGMENTATION): values[name]}
        else:
            section[name] = values[name]
    return plan_stages(Recipe({run.name: section}), {})[0]


def _goes_by_loss(run: StageRun) -> bool:
    return full_name(run.training.metric_for_best_model or "loss") == "loss"
