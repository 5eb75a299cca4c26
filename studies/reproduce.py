"""`engagement reproduce STUDY`: every row of a study, trained with several seeds → measured scores, with the published
ones if there are any, in `study.json` and `table.md`.

A study is a folder with `study.yaml` (which rows are compared, by which scores, on which split), one recipe per row and
optionally `improved/` recipes with the same names; ours are in recipes/. Each run is one `train` in its own folder, so
that an interrupted study can be resumed: finished runs are read from their results, an unfinished one resumes from its
last whole checkpoint, a failed one is repeated. `finished_runs` reads a run, `summary` and `table` combine the runs,
and `study_records` defines the files.
"""

import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..data.atomic_files import claim_folder
from ..data.hub_source import data_name, is_on_hub, local_folder
from ..data.json_records import parse_record, write_record
from ..data.preparation.prepared_data import is_prepared, load_prepared
from ..evaluation.fold_runs import average_seeds
from ..processor.input_errors import DataError, EngagementInputError, RecipeError
from ..train import train
from ..training.arguments import STAGES, Recipe, Stage, StageArguments, plan_stages, read_recipe
from ..training.augmentation import Augmentation
from ..training.recipes import RECIPES
from ..training.stage_data import parse_json
from .finished_runs import is_finished, read_finished
from .study_records import (
    Contrast,
    FailedRun,
    FinishedRun,
    MeasuredSplit,
    Plan,
    RowRuns,
    Run,
    StudyDescription,
    StudyHead,
)
from .summary import one_line
from .table import write_study

_DESCRIPTION, _PLAN = "study.yaml", "plan.json"
_SET_BY_STUDY = {"data", "seed", "output_dir", "resume_from_checkpoint", "push_to_hub", "hub_token"}
# Options for where and how fast, which do not change the protocol.
_HARMLESS = {"cache_dir", "num_preparation_processes", "dataloader_num_workers", "disable_tqdm"}
_Runs = Mapping[tuple[str, int], Run]  # by row and seed


@dataclass(frozen=True)
class Row:
    """One system of a study, as published or improved."""

    name: str  # also the folder of its runs
    title: str
    published: dict[str, float]
    stages: tuple[Stage, ...]  # the last one is measured
    recipe: Recipe
    improves: bool = False  # our improved version of the row above it
    seeds: int | None = None  # at most; None: as many as requested
    mean_of: str | None = None  # the row whose seeds are averaged

    def seeds_of(self, asked: int) -> int:
        """Number of seeds it is trained with."""
        return asked if self.seeds is None else min(asked, self.seeds)


@dataclass(frozen=True)
class Study:
    """Rows in order, and which of them are compared."""

    name: str  # for our studies, the path of the folder below recipes/, such as real/clips
    title: str
    data: str  # the data that is needed, in words
    split: MeasuredSplit  # the one that is measured
    rows: list[Row]
    contrasts: list[Contrast]
    scores: list[str]  # shown in the table; none: the usual ones
    notes: list[str]


@dataclass(frozen=True)
class Reproduction:
    """The outcome of a study."""

    table: Path
    failures: list[str]  # one line per failed run


def reproduce(
    study: str | Path,
    data: Path,
    output: Path,
    expression_data: Path | None = None,
    seeds: int = 1,
    improved: bool = False,
    options: Mapping[str, str] | None = None,
) -> Reproduction:
    """Train every row with seeds 0 to `seeds` - 1, unless already done; the table is updated after every run.

    Args:
        study: a name in recipes/, or a folder with `study.yaml`.
        output: a new folder, or one with the same study; more seeds, and `improved`, may be added there.
        improved: also train our improved version of each row.
        options: of train.py, overriding every recipe; the table lists them.

    Raises:
        RecipeError: a wrong study, recipe or option, missing expression data, or an output folder with other content;
            all found before anything is trained.
        DataError: there is no data at a path.
    """
    options, named = dict(options or {}), {"expression": expression_data, "engagement": data}
    planned = read_study(study, improved, expression_data is not None)
    _check(planned, named, seeds, options)
    # Downloaded once, so that all runs use the same version.
    cache_dir = Path(options.get("cache_dir", StageArguments.cache_dir))
    sources = {stage: path if path is None else local_folder(path, cache_dir) for stage, path in named.items()}
    _claim(output, planned, sources, options)
    trained = [row for row in planned.rows if row.mean_of is None]
    # First every row with one seed, then further seeds.
    keys = [(row, seed) for seed in range(seeds) for row in trained if seed < row.seeds_of(seeds)]
    runs: dict[tuple[str, int], Run] = {
        (row.name, seed): _read_run(output, row, seed, planned.split)
        for row, seed in keys
        if is_finished(output / row.name / f"seed{seed}" / row.stages[-1])
    }
    head = _describe(planned, named, seeds, improved, options)
    table = _write(output, planned, head, runs)
    todo = [(row, seed) for row, seed in keys if (row.name, seed) not in runs]
    for place, (row, seed) in enumerate(todo):
        where = f"row {planned.rows.index(row) + 1} of {len(planned.rows)}, seed {seed + 1} of {seeds}"
        print(f"{where}: {row.title}; {time_left([row.name for row, _ in todo[place:]], runs)}", flush=True)
        runs[row.name, seed] = _run(output, row, seed, planned.split, _options_of(row, sources, options))
        table = _write(output, planned, head, runs)
    means = [row for row in planned.rows if row.mean_of is not None]
    if means:
        for row in means:
            runs |= _average(output, row, seeds, planned.split)
        table = _write(output, planned, head, runs)
    failed = [(name, run) for (name, _), run in runs.items() if isinstance(run, FailedRun)]
    return Reproduction(table, [f"{name}, seed {run.seed}: {run.failure}" for name, run in failed])


def read_study(study: str | Path, improved: bool = False, has_expression_data: bool = False) -> Study:
    """The study with all of its recipes.

    Args:
        has_expression_data: then an improved recipe with an expression stage is trained with it, even if its row has
            none.

    Raises:
        RecipeError: no such study, or invalid files in it.
    """
    folder = _find(study)
    path = folder / _DESCRIPTION
    text = json.dumps(read_recipe(path).options)  # YAML, like a recipe
    described = parse_record(text, path, StudyDescription, RecipeError, "a study", "compare those in recipes/")
    rows = []
    for name, entry in described.rows.items():
        stages = tuple(stage for stage in STAGES if stage in entry.stages)
        title = entry.title or name
        recipe = Recipe({}) if entry.mean_of else read_recipe(folder / f"{name}.yaml")
        rows.append(Row(name, title, entry.published or {}, stages, recipe, False, entry.seeds, entry.mean_of))
        if improved and not entry.mean_of:
            recipe = read_recipe(folder / "improved" / f"{name}.yaml")
            extended = has_expression_data and "expression" in recipe.options and "engagement" in stages
            stages = STAGES if extended else stages
            rows.append(Row(f"improved/{name}", f"{title}, improved", {}, stages, recipe, improves=True))
    title, contrasts = described.title or folder.name, described.contrasts or []
    scores, name = described.scores or [], _name_of(folder)
    return Study(name, title, described.data, described.split, rows, contrasts, scores, described.notes)


def default_output(study: str | Path) -> Path:
    """`runs/STUDY`; raises RecipeError if there is no such study."""
    return Path("runs") / _name_of(_find(study))


def _find(study: str | Path) -> Path:
    folder = next((path for path in (RECIPES / study, Path(study)) if (path / _DESCRIPTION).is_file()), None)
    if folder is None:
        known = ", ".join(sorted(_name_of(path.parent) for path in RECIPES.rglob(_DESCRIPTION)))
        raise RecipeError(f"There is no study {study}; pass one of {known}, or a folder with {_DESCRIPTION}.")
    return folder


def _name_of(folder: Path) -> str:
    place, ours = folder.resolve(), RECIPES.resolve()
    return place.relative_to(ours).as_posix() if place.is_relative_to(ours) else place.name


def _check(study: Study, sources: Mapping[str, Path | None], seeds: int, options: Mapping[str, str]) -> None:
    """Find errors that would stop a row after hours; encoders are not checked, since they may need a download."""
    if seeds < 1:
        raise RecipeError(f"Expected at least one seed, got {seeds}.")
    own = [name for name in options if _without_stage(name) in _SET_BY_STUDY]
    if own:
        raise RecipeError(f"The study sets {', '.join(own)} for each of its rows; leave it out.")
    starving = [row.name for row in study.rows if any(sources[stage] is None for stage in row.stages)]
    if starving:
        raise RecipeError(f"Expression data is missing for {', '.join(starving)}; pass --expression-data.")
    for row in study.rows:
        if row.mean_of is not None:
            continue
        try:
            for run in plan_stages(row.recipe, _options_of(row, sources, options)):
                Augmentation.from_recipe(parse_json(run.stage.augmentation, "augmentation", dict))
        except RecipeError as error:
            raise RecipeError(f"{row.name}: {error}") from error


def _without_stage(option: str) -> str:
    return option.removeprefix("expression_").removeprefix("engagement_")


def _protocol(options: Mapping[str, str]) -> dict[str, str]:
    """The options that change the protocol."""
    return {name: value for name, value in options.items() if _without_stage(name) not in _HARMLESS}


def _identify(path: Path, expected: str) -> str:
    """A cheap identity of the data: names, sizes and tables, or a prepared data set's fingerprint."""
    if not path.exists():
        raise DataError(f"There is no data at {path} (needed: {expected}); check the path.")
    if is_prepared(path):
        return load_prepared(path).fingerprint
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        digest.update(
            file.read_bytes() if file.suffix.lower() == ".csv" else b""
        )  # labels may change, but not the size
    return digest.hexdigest()


def _claim(output: Path, study: Study, sources: Mapping[str, Path | None], options: Mapping[str, str]) -> None:
    """Mark the folder as this study's; refuse other content, and rows started with other options."""
    identities = {stage: _identify(path, study.data) for stage, path in sources.items() if path is not None}
    rows = {row.name: hash_of(row, options, [identities[stage] for stage in row.stages]) for row in study.rows}
    asked = Plan(study=study.name, rows=rows)
    text = claim_folder(output, _PLAN, asked.model_dump_json(indent=2), "a study")
    claimed = parse_record(text, output / _PLAN, Plan, RecipeError, "a study's plan", "choose a different --output")
    changed = [name for name, hashed in rows.items() if claimed.rows.get(name, hashed) != hashed]
    if claimed.study != study.name or changed:
        raise RecipeError(
            f"{output} was started with a different study, recipe, options or data for "
            f"{', '.join(changed) or study.name}; choose a different --output."
        )
    write_record(output / _PLAN, Plan(study=study.name, rows={**claimed.rows, **rows}))


def hash_of(row: Row, options: Mapping[str, str], data: Sequence[str]) -> str:
    """What a row's finished runs must have been trained with."""
    asked = [row.stages, row.recipe.options, _protocol(options), data]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _options_of(row: Row, sources: Mapping[str, Path | None], options: Mapping[str, str]) -> dict[str, str]:
    data = {f"{stage}_data": str(sources[stage]) if stage in row.stages else "none" for stage in STAGES}
    # Always resume: otherwise a killed run would train from the beginning.
    return {**options, **data, "resume_from_checkpoint": "true"}


def _run(output: Path, row: Row, seed: int, split: str, options: dict[str, str]) -> Run:
    """Train one row with one seed; an error in it is recorded, and the study continues."""
    folder = output / row.name / f"seed{seed}"
    options |= {"seed": str(seed), "output_dir": str(folder)}
    starts_elsewhere = plan_stages(row.recipe, options)[-1].stage.start_from
    if row.stages == STAGES and not starts_elsewhere and is_finished(folder / "expression"):
        options |= {"expression_data": "none", "engagement_start_from": str(folder / "expression")}
    try:
        train(row.recipe, options)
        return _read_run(output, row, seed, split)
    except EngagementInputError as error:
        reason = one_line(error, output)
        print(f"{row.name}, seed {seed} failed: {reason}", flush=True)
        return FailedRun(seed=seed, failure=reason)


def _average(output: Path, row: Row, seeds: int, split: str) -> _Runs:
    """The mean of the scores of another row's finished seeds, as this row's run for each of these seeds."""
    folders = {seed: output / str(row.mean_of) / f"seed{seed}" for seed in range(seeds)}
    finished = {seed: folder for seed, folder in folders.items() if is_finished(folder / row.stages[-1])}
    if len(finished) < 2:
        return {}
    try:
        average_seeds(list(finished.values()), output / row.name / "mean")
    except EngagementInputError as error:
        reason = one_line(error, output)
        return {(row.name, seed): FailedRun(seed=seed, failure=reason) for seed in finished}
    exports = {row.stages[-1]: output / row.name / "mean" / row.stages[-1]}
    return {(row.name, seed): read_finished(output, exports, seed, split) for seed in finished}


def _read_run(output: Path, row: Row, seed: int, split: str) -> FinishedRun:
    folder = output / row.name / f"seed{seed}"
    return read_finished(output, {stage: folder / stage for stage in row.stages}, seed, split)


def time_left(todo: Sequence[str], runs: _Runs) -> str:
    """Estimated from the row's own finished seeds, else from all finished rows."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for (name, _), run in runs.items():
        if isinstance(run, FinishedRun):
            seconds[name].append(run.seconds)
    if not seconds:
        return "time left unknown"
    overall = fmean(value for values in seconds.values() for value in values)
    minutes = round(sum(fmean(seconds[name]) if name in seconds else overall for name in todo) / 60)
    if minutes < 1:
        return "less than a minute left"
    return f"about {f'{minutes // 60} h ' if minutes >= 60 else ''}{minutes % 60} min left"


def _describe(
    study: Study, sources: Mapping[str, Path | None], seeds: int, improved: bool, options: Mapping[str, str]
) -> StudyHead:
    # Only the names of paths: the table may be published, and local paths are private.
    changed = {
        name: Path(value).name if Path(value).exists() else value for name, value in sorted(_protocol(options).items())
    }
    expression_data = sources["expression"]
    beside = ["--expression-data", data_name(expression_data)] if expression_data else []
    words = ["engagement", "reproduce", study.name, "--data", data_name(sources["engagement"] or Path()), *beside]
    words += ["--seeds", str(seeds), *(["--improved"] if improved else [])]
    words += [word for name, value in changed.items() for word in (f"--{name}", value)]
    return StudyHead(
        name=study.name,
        title=study.title,
        split=study.split,
        seeds=seeds,
        scores=study.scores,
        notes=study.notes,
        command=shlex.join(words),
        changed_options=changed,
        prepared_beforehand=[
            data_name(path) for path in sources.values() if path is not None and (is_on_hub(path) or is_prepared(path))
        ],
    )


def _write(output: Path, study: Study, head: StudyHead, runs: _Runs) -> Path:
    rows = [
        RowRuns(
            name=row.name,
            title=row.title,
            improves=row.improves,
            stages=list(row.stages),
            published=row.published,
            seeds=None if row.seeds is None else row.seeds_of(head.seeds),
            runs=[runs[row.name, seed] for seed in range(head.seeds) if (row.name, seed) in runs],
        )
        for row in study.rows
    ]
    return write_study(output, head, rows, study.contrasts)
