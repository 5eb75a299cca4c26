"""`engagement tune`: search a recipe's options with Optuna, only on validation.

Trainer's `hyperparameter_search` runs each trial by `train(trial=...)`, and by default sets the values that Optuna
proposes in TrainingArguments. Dropout, losses and augmentation are not among those, and model and loss would not
change; so here that call plans the whole stage again, and trains it like `train.py`.

Finished trials are recorded in `search.json`. For each trial Optuna's study is rebuilt from it in memory, with a
sampler seeded by the recipe's seed and the trial's number, so that an interrupted search proposes the same values as an
uninterrupted one. The first trial is the unchanged recipe. No picture of test is read.
"""

import random
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import yaml
from accelerate.utils.memory import should_reduce_batch_size
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from .. import register_auto_classes
from ..data.atomic_files import require_new_folder, require_writable, write_whole
from ..data.locked_folder import alone_in
from ..data.required_packages import installed_version, require_extra
from ..inference.loading import without_file_bars
from ..inference.shipped_model import resolve_start
from ..processor.input_errors import (
    DataError,
    EngagementInputError,
    ModelLoadError,
    NonFiniteLossError,
    RecipeError,
    in_one_line,
    printable,
)
from ..train import check_options, stage_trainer, train
from ..training.arguments import Recipe, StageRun, plan_stages, read_recipe, train_command
from ..training.checkpoints import choose_checkpoint
from ..training.failures import could_not_write, failures_in_one_line
from ..training.progress import EpochLines, in_words
from ..training.run_record import OptionValue, describe_training, options_of
from ..training.selection import SelectionOutcome, choose_score
from ..training.stage_data import StageData, load_stage_data
from .finished_runs import is_finished
from .tune_figure import save_search_figure
from .tune_records import RECORD_FILE, Search, Trial, read_search, require_same, write_search
from .tune_space import (
    SearchSpace,
    changes_pictures,
    default_space,
    distribution_of,
    holds,
    own_values,
    plan_with,
    read_space,
    suggest,
)

if TYPE_CHECKING:
    import optuna

BEST_RECIPE, FIGURE = "best.yaml", "trials.png"
_SET_HERE = {"output_dir", "resume_from_checkpoint"}
_RANDOM_TRIALS = 5  # before the sampler uses results; Optuna's default of ten would be half of a night's trials
_MOST_KILLS = 3  # of one trial: the cause, such as too little memory, would kill it every time
_GO_ON = "run the same command again: finished trials are kept"


@dataclass(frozen=True)
class Stage:
    """The stage that is searched."""

    output: Path
    run: StageRun  # the unchanged recipe; if stage one was trained for it, starting from that model
    data: StageData  # without test

    def place_of(self, number: int) -> dict[str, OptionValue]:
        """The folder of a trial's checkpoints, until it is finished."""
        return {"output_dir": str(self.output / f"trial_{number}")}


def tune(
    recipe_path: Path, output: Path, trials: int, space: Path | None = None, options: Mapping[str, str] | None = None
) -> Search:
    """Search, or resume the search in `output`, until that many trials are finished, including failed ones.

    Args:
        space: a YAML file, see `tune_space`; None: the default space.
        options: of train.py, overriding the recipe.

    Returns:
        The content of `search.json`; `best.yaml`, `trials.csv` and `trials.png` are in the same folder.

    Raises:
        EngagementInputError: Optuna is missing.
        RecipeError: a recipe, option or space that cannot be searched, or a folder with a different search, all found
            before anything is trained; or the recipe's own values cannot be trained.
        DataError: data that cannot be used, or a folder that cannot be written.
    """
    require_extra("tune", ("optuna",))
    if trials < 1:
        raise RecipeError(f"Expected at least one trial, got {trials}.")
    register_auto_classes()
    runs = _plan(recipe_path, output, options or {})
    run = runs[-1]
    chosen = default_space(run) if space is None else read_space(space, run)
    if "encoder" in chosen and (len(runs) > 1 or run.stage.start_from):
        start = run.stage.start_from or "stage one"
        raise RecipeError(f"{space} cannot search encoder: {recipe_path.name} starts from {start}; leave it out.")
    require_writable(output)
    with alone_in(output, "search"), _failing_in_one_line(output), without_file_bars():
        return _search(recipe_path, runs, chosen, output, trials)


def _plan(recipe_path: Path, output: Path, options: Mapping[str, str]) -> list[StageRun]:
    """The stages of the recipe, the last of which is searched; raises RecipeError if it cannot be."""
    own = [name for name in options if name.removeprefix("expression_").removeprefix("engagement_") in _SET_HERE]
    if own:
        raise RecipeError(f"The search sets --{own[0]} itself; leave it out, and choose the folder with --output.")
    told = {"output_dir": str(output / "stage_one"), "resume_from_checkpoint": "true"}
    runs = plan_stages(read_recipe(recipe_path), {**options, **told})
    for run in runs:
        check_options(run)
    last = runs[-1]
    refused = {
        "no folds, each of which has its own validation split": last.stage.folds,
        "no push_to_hub, since its result is a recipe": any(run.push_to_hub for run in runs),
        "a single process without a launcher": last.training.world_size > 1,
        "metric_for_best_model and load_best_model_at_end, to compare trials": not (
            last.training.metric_for_best_model and last.training.load_best_model_at_end
        ),
    }
    wrong = next((expected for expected, is_wrong in refused.items() if is_wrong), None)
    if wrong:
        raise RecipeError(f"The search of {recipe_path.name}, stage {last.name}, needs {wrong}.")
    return runs


@contextmanager
def _failing_in_one_line(output: Path) -> Iterator[None]:
    try:
        with failures_in_one_line(_GO_ON):
            yield
    except DataError as error:
        if not could_not_write(error):
            raise
        reason = in_one_line(error.__cause__ or error)
        raise DataError(f"{output} could not be written ({reason}); free disk space, and {_GO_ON}.") from error


def _search(recipe_path: Path, runs: Sequence[StageRun], space: SearchSpace, output: Path, trials: int) -> Search:
    kept = read_search(output)
    if kept is None:
        require_new_folder(output, "a search")
    *before, run = runs
    data = _without_test(load_stage_data(run))
    asked, labels = str(run.training.metric_for_best_model), (data.train.label_ids, data.validation.label_ids)
    score = choose_score(asked, *labels, data.label_names)
    recipe = describe_training(run, data.description.fingerprint, data.label_names, resolve_start(run.stage.start_from))
    now = Search(
        recipe=recipe_path.name,
        training=recipe.model_copy(update={"versions": {**recipe.versions, "optuna": installed_version("optuna")}}),
        expression=options_of(before[0]) if before and not run.stage.start_from else None,
        space=dict(space),
        score=score,
        greater_is_better=bool(run.training.greater_is_better),
    )
    if kept is not None:
        require_same(output, kept, now)
    search = kept or now
    write_search(output, search)
    # From here on with this score: `auto` could mean a different one for a trial with repeated rows.
    given: dict[str, OptionValue] = {"metric_for_best_model": score}
    if search.expression is not None:
        (stage_one,) = before  # trained once for all trials; it stays in the folder
        if not is_finished(stage_one.export_dir):
            train(Recipe({stage_one.name: dict(stage_one.given)}), {})
        given["start_from"] = str(stage_one.export_dir)
    return _run_trials(search, Stage(output, plan_with(run, given), data), trials)


def _without_test(data: StageData) -> StageData:
    return replace(data, test=data.test.take([]))


def _run_trials(search: Search, stage: Stage, trials: int) -> Search:
    while (number := len(search.trials) + 1) <= trials:
        _remove_trials(stage.output, but=number)
        begun = search.model_copy(update={"begun": search.begun + 1})
        write_search(stage.output, begun)
        try:
            trial = _run_trial(begun, stage)
        except BaseException:  # stopped, but not killed: the attempt is not counted
            with suppress(EngagementInputError):
                write_search(stage.output, search)
            raise
        if number == 1 and trial.failure:
            write_search(stage.output, search)
            raise RecipeError(f"The first trial, the unchanged recipe {search.recipe}, failed: {trial.failure}")
        search = search.model_copy(update={"begun": 0, "trials": [*search.trials, trial]})
        write_search(stage.output, search)
        _write_best(search, stage)
        print(_describe_trial(search, trials), flush=True)
    _remove_trials(stage.output)
    save_search_figure(search, stage.output / FIGURE)
    return search


def _remove_trials(output: Path, but: int | None = None) -> None:
    """Remove the checkpoints of all trials, or of all but one."""
    for folder in output.glob("trial_*"):
        if folder.name != f"trial_{but}":
            shutil.rmtree(folder, ignore_errors=True)


class _SearchingTrainer(Trainer):
    """Trainer whose trials are trained by a given function."""

    objective: float | None  # read by `hyperparameter_search` after each trial

    def __init__(self, folder: Path, use_cpu: bool, train_trial: "Callable[[optuna.Trial], float]") -> None:
        arguments = TrainingArguments(str(folder), report_to="none", use_cpu=use_cpu)
        # Trainer requires a model, which is never trained.
        super().__init__(args=arguments, model_init=lambda: torch.nn.Linear(1, 1))  # type: ignore[arg-type, return-value]
        self.train_trial = train_trial

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: object = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        import optuna

        assert isinstance(trial, optuna.Trial)
        self.objective = self.train_trial(trial)
        return TrainOutput(0, 0.0, {})


def _run_trial(search: Search, stage: Stage) -> Trial:
    """The next trial, proposed by Optuna from those before; for the first, nothing is proposed."""
    import optuna  # an extra

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    number = len(search.trials) + 1
    finished: list[Trial] = []

    def train_trial(trial: optuna.Trial) -> float:
        finished.append(_train_trial(search, stage, suggest(trial, search.space) if number > 1 else {}))
        return finished[0].score or 0.0  # any number will do for a failed trial: this study is not used again

    direction: Literal["maximize", "minimize"] = "maximize" if search.greater_is_better else "minimize"
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name=RECORD_FILE, direction=direction)
    study.add_trials(_as_optuna(search, trial) for trial in search.trials if holds(search.space, trial.values))
    seed = random.Random(f"{stage.run.training.seed} {number}").getrandbits(32)
    _SearchingTrainer(stage.output / f"trial_{number}", stage.run.training.use_cpu, train_trial).hyperparameter_search(
        n_trials=1,
        direction=direction,
        backend="optuna",
        storage=storage,
        study_name=RECORD_FILE,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=seed),
    )
    return finished[0]


def _as_optuna(search: Search, trial: Trial) -> "optuna.trial.FrozenTrial":
    import optuna

    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if trial.failure else optuna.trial.TrialState.COMPLETE,
        value=trial.score,
        params=trial.values,
        distributions={name: distribution_of(name, entry) for name, entry in search.space.items()},
    )


def _train_trial(search: Search, stage: Stage, values: dict[str, OptionValue]) -> Trial:
    """
    Args:
        values: empty: the recipe's own.
    """
    number, began = len(search.trials) + 1, time.monotonic()
    known = values or own_values(stage.run, search.space)
    twin = next((trial for trial in search.trials if trial.values == known), None)
    if twin is not None:  # the same seed would give the same score
        return twin.model_copy(update={"seconds": 0.0})
    score, noise, failure = None, None, None
    try:
        if search.begun > _MOST_KILLS:
            raise RecipeError(f"its process was killed {_MOST_KILLS} times")
        outcome = train_candidate(plan_with(stage.run, {**values, **stage.place_of(number)}), search, stage.data)
        score, noise, failure = outcome.value, outcome.noise, outcome.warning if outcome.value is None else None
    except (NonFiniteLossError, RecipeError, ModelLoadError) as error:
        failure = str(error)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
        failure = "memory was full"
    return Trial(values=known, score=score, noise=noise, failure=failure, seconds=time.monotonic() - began)


def train_candidate(run: StageRun, search: Search, data: StageData) -> SelectionOutcome:
    """As in `train.py`, up to the weights that it would export."""
    if changes_pictures(search.space):
        data = _without_test(load_stage_data(run))
    start = resolve_start(run.stage.start_from)
    recipe = describe_training(run, data.description.fingerprint, data.label_names, start)
    checkpoint = choose_checkpoint(run, recipe)
    with stage_trainer(run, data, start, checkpoint, recipe) as (trainer, _):
        trainer.pop_callback(EpochLines)  # one line per trial is enough
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        outcome = trainer.selected()
    assert outcome is not None  # `_plan` requires a score
    return outcome


def _write_best(search: Search, stage: Stage) -> None:
    """The best trial as a recipe for `engagement train`."""
    best = search.best()
    values = {} if best is None or best == 1 else search.trials[best - 1].values
    planned = plan_with(stage.run, values)
    section = {name: value for name, value in planned.given.items() if name not in {*_SET_HERE, "hub_token"}}
    recipe = {"output_dir": str(stage.output / "best"), planned.name: section}
    header = "".join(f"# {line}\n" for line in describe_search(search, stage.output))
    write_whole(stage.output / BEST_RECIPE, header + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def _describe_trial(search: Search, trials: int) -> str:
    number, trial = len(search.trials), search.trials[-1]
    found = f"{search.score} {trial.score:.3f}" if trial.score is not None else f"failed, {trial.failure}"
    values = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in trial.values.items()
    )
    best = search.best() or 1
    best_score = search.trials[best - 1].score
    line = f"trial {number} of {trials}: {found}; {values}; best {best_score:.3f}, trial {best}"
    seconds = [trial.seconds for trial in search.trials if trial.seconds]
    left = (trials - number) * sum(seconds) / max(1, len(seconds))
    return f"{line}; about {in_words(left)} left" if number < trials else line


def describe_search(search: Search, output: Path) -> list[str]:
    """Lines with the result, and the command that measures it on test."""
    number = search.best() or 1
    best, own = search.trials[number - 1], search.trials[0]
    num_failed = sum(trial.failure is not None for trial in search.trials)
    failed = f" ({num_failed} failed)" if num_failed else ""
    scores = f"trial {number}, {search.score} {best.score:.3f} on validation; unchanged recipe: {own.score:.3f}"
    lines = [f"The best of {len(search.trials)} trials of {printable(search.recipe)}{failed}: {scores}."]
    gain = abs((best.score or 0) - (own.score or 0))
    if number == 1:
        lines.append("No trial was better than the unchanged recipe.")
    elif best.noise is not None and gain < best.noise:
        lines.append(f"That is within the noise: the standard error of the score is {best.noise:.3f}.")
    lines += [
        "As the best of several on validation, this score is optimistic. Measure it on test, once:",
        f"  {train_command()} {shlex.quote(str(output / BEST_RECIPE))}",
    ]
    return lines
