"""`engagement reproduce STUDY`: every row of a published study, trained with several seeds → what was published beside
what was measured, in `study.json` and `table.md`.

A study is a folder with `study.yaml` (what was published, on which split), a recipe a row and perhaps `improved/`
recipes of the same names; ours are in recipes/. Each run is one of `train`, in a folder of its own, so that a study
killed anywhere goes on: finished runs are read from their results, one under way resumes from its last whole
checkpoint, a failed one is tried again. What is made of the runs is in `study_table`.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..data.atomic_files import claim_folder, write_whole
from ..data.preparation.prepared_data import is_prepared, load_prepared
from ..evaluation.results_file import read_results
from ..evaluation.split_evaluation import evaluate_predictions, read_predictions
from ..processor.input_errors import DataError, EngagementInputError, ModelLoadError, RecipeError
from ..train import train
from ..training.arguments import STAGES, plan_stages, read_recipe
from ..training.augmentation import Augmentation
from ..training.recipes import RECIPES
from ..training.stage_data import parse_json
from .table import one_line, write_study

_DESCRIPTION, _PLAN = "study.yaml", "plan.json"
_SCORES = ("macro_f1", "balanced_accuracy", "accuracy", "weighted_f1", "auroc")
_SCORE = re.compile("macro_f1|accuracy|weighted_f1|auroc|(recall|precision|f1)/.+")
_SET_BY_STUDY = {"data", "seed", "output_dir", "resume_from_checkpoint", "push_to_hub", "hub_token"}
# Where and how fast, not what: these change no protocol.
_HARMLESS = {"cache_dir", "num_preparation_processes", "dataloader_num_workers", "disable_tqdm"}
_Record = dict[str, object]


@dataclass(frozen=True)
class Row:
    """One system of a study, as published or improved."""

    name: str  # also the folder of its runs
    title: str
    published: dict[str, float]
    stages: tuple[str, ...]  # the last is the one that is measured
    recipe: dict[str, object]
    improves: bool = False  # our way of the row above it


@dataclass(frozen=True)
class Study:
    """A published study: its rows in order, and which of them it compares."""

    name: str
    title: str
    data: str  # what the data must be, for people
    split: str  # on which the published numbers were measured
    rows: list[Row]
    contrasts: list[dict[str, object]]  # name, rows (two names), score


@dataclass(frozen=True)
class Reproduction:
    """What came of a study."""

    table: Path
    failures: list[str]  # one line a run that failed in itself


def reproduce(
    study: str | Path,
    data: Path,
    output: Path,
    expression_data: Path | None = None,
    seeds: int = 1,
    improved: bool = False,
    options: Mapping[str, str] | None = None,
) -> Reproduction:
    """Train every row for seeds 0 to `seeds` - 1, or find it trained; the table is renewed after every run.

    Args:
        study: a name in recipes/, or a folder with `study.yaml`.
        output: a new folder, or one in which the same study was begun; more seeds, and `improved`, may be added there.
        improved: below each row also our way of the same task.
        options: of train.py, over every recipe; the table says so.

    Raises:
        RecipeError: a study, recipe or option that is wrong, expression data that is missing, or an output folder that
            holds something else. All of it is found before anything is trained.
        DataError: there is no data at a path.
    """
    options, sources = dict(options or {}), {"expression": expression_data, "engagement": data}
    planned = read_study(study, improved, expression_data is not None)
    _check(planned, sources, seeds, options)
    _claim(output, planned, sources, options)
    keys = [(row, seed) for seed in range(seeds) for row in planned.rows]  # the whole table once, before it is refined
    runs = {
        (row.name, seed): _read_run(output, row, seed, planned.split)
        for row, seed in keys
        if _is_finished(output / row.name / f"seed{seed}" / row.stages[-1])
    }
    described = _describe(planned, sources, seeds, options)
    table = _write(output, planned, described, runs)
    todo = [(row, seed) for row, seed in keys if (row.name, seed) not in runs]
    for place, (row, seed) in enumerate(todo):
        where = f"row {planned.rows.index(row) + 1} of {len(planned.rows)}, seed {seed + 1} of {seeds}"
        print(f"{where}: {row.title}; {_time_left([row.name for row, _ in todo[place:]], runs)}", flush=True)
        runs[row.name, seed] = _run(output, row, seed, planned.split, _options_of(row, sources, options))
        table = _write(output, planned, described, runs)
    failures = [f"{name}, seed {seed}: {run['failure']}" for (name, seed), run in runs.items() if run["failure"]]
    return Reproduction(table, failures)


def read_study(study: str | Path, improved: bool = False, has_expression_data: bool = False) -> Study:
    """The study with all of its recipes.

    Args:
        has_expression_data: an improved recipe with an expression stage then gets one, though its row needs none.

    Raises:
        RecipeError: no such study, or one whose files cannot be understood.
    """
    folder = next((path for path in (RECIPES / study, Path(study)) if (path / _DESCRIPTION).is_file()), None)
    if folder is None:
        known = sorted(path.parent.name for path in RECIPES.glob(f"*/{_DESCRIPTION}"))
        raise RecipeError(f"Expected a study among {', '.join(known)}, or a folder with {_DESCRIPTION}, got {study}.")
    described = read_recipe(folder / _DESCRIPTION)
    _check_description(described, folder / _DESCRIPTION)
    rows = []
    for name, entry in described["rows"].items():
        stages = tuple(stage for stage in STAGES if stage in entry.get("stages", ["engagement"]))
        title = str(entry.get("title", name))
        rows.append(Row(name, title, entry.get("published") or {}, stages, read_recipe(folder / f"{name}.yaml")))
        if improved:
            recipe = read_recipe(folder / "improved" / f"{name}.yaml")
            extended = has_expression_data and "expression" in recipe and "engagement" in stages
            stages = STAGES if extended else stages
            rows.append(Row(f"improved/{name}", f"{title}, improved", {}, stages, recipe, improves=True))
    title, data = str(described.get("title", folder.name)), str(described.get("data", "see the recipes"))
    return Study(folder.resolve().name, title, data, described["split"], rows, described.get("contrasts") or [])


def _check_description(described: dict[str, object], path: Path) -> None:
    rows, contrasts = described.get("rows"), described.get("contrasts") or []
    if described.get("split") not in ("validation", "test") or not isinstance(rows, dict) or not rows:
        raise RecipeError(f"Expected rows, and split: test or validation, in {path}; compare recipes/*/{_DESCRIPTION}.")
    for name, row in rows.items():
        _check_row(row, f"row {name} of {path}")
    known = {*rows, *(f"improved/{name}" for name in rows)}
    for contrast in contrasts:
        pair = contrast.get("rows", []) if isinstance(contrast, dict) else []
        if len(pair) != 2 or set(pair) - known or not {"name", "score"} <= contrast.keys():
            raise RecipeError(f"Expected name, score and two known rows in each contrast of {path}, got {contrast}.")


def _check_row(row: object, where: str) -> None:
    stages, published = ([], {}) if not isinstance(row, dict) else (row.get("stages"), row.get("published") or {})
    if stages not in (None, ["expression"], ["engagement"], list(STAGES)):
        raise RecipeError(f"Expected names and values, and stages among {', '.join(STAGES)}, in {where}, got {row!r}.")
    for name, value in published.items():
        if not _SCORE.fullmatch(name) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise RecipeError(f"Expected published scores such as macro_f1: 0.59 in {where}, got {name}: {value}.")


def _check(study: Study, sources: Mapping[str, Path | None], seeds: int, options: Mapping[str, str]) -> None:
    """What would break a row after hours; an encoder is not looked for, since it may have to be fetched."""
    if seeds < 1:
        raise RecipeError(f"Expected at least one seed, got {seeds}.")
    own = [name for name in options if _without_stage(name) in _SET_BY_STUDY]
    if own:
        raise RecipeError(f"Expected no {', '.join(own)}, which the study sets for each of its rows by itself.")
    starving = [row.name for row in study.rows if any(sources[stage] is None for stage in row.stages)]
    if starving:
        raise RecipeError(f"Expected --expression-data for {', '.join(starving)}, got none.")
    for row in study.rows:
        try:
            for run in plan_stages(row.recipe, _options_of(row, sources, options)):
                Augmentation.from_recipe(parse_json(run.stage.augmentation, "augmentation", dict))
        except RecipeError as error:
            raise RecipeError(f"{row.name}: {error}") from error


def _without_stage(option: str) -> str:
    return re.sub(f"^({'|'.join(STAGES)})_", "", option)


def _protocol(options: Mapping[str, str]) -> dict[str, str]:
    """The options that change what is measured."""
    return {name: value for name, value in options.items() if _without_stage(name) not in _HARMLESS}


def _identify(path: Path, expected: str) -> str:
    """What lies there, as far as is cheaply known: names, sizes and tables, or a prepared data set's fingerprint."""
    if not path.exists():
        raise DataError(f"Expected data ({expected}) at {path}, found nothing; check the path.")
    if is_prepared(path):
        return load_prepared(path).fingerprint
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes() if file.suffix.lower() == ".csv" else b"")  # a label can change, the size not
    return digest.hexdigest()


def _claim(output: Path, study: Study, sources: Mapping[str, Path | None], options: Mapping[str, str]) -> None:
    """Mark the folder as this study's; refuse one that holds anything else, or a row of it that was asked otherwise."""
    identities = {stage: _identify(path, study.data) for stage, path in sources.items() if path is not None}
    rows = {row.name: _hash_of(row, options, [identities[stage] for stage in row.stages]) for row in study.rows}
    text = json.dumps({"study": study.name, "rows": rows}, indent=2)
    claimed = json.loads(claim_folder(output, _PLAN, text, "a study"))
    changed = [name for name, asked in rows.items() if claimed["rows"].get(name, asked) != asked]
    if claimed["study"] != study.name or changed:
        raise RecipeError(
            f"Expected in {output} the study, recipes, options and data it was begun with, got others for "
            f"{', '.join(changed) or study.name}; choose another --output."
        )
    rows = {**claimed["rows"], **rows}
    write_whole(output / _PLAN, json.dumps({"study": study.name, "rows": rows}, indent=2) + "\n")


def _hash_of(row: Row, options: Mapping[str, str], data: Sequence[str]) -> str:
    asked = [row.stages, row.recipe, _protocol(options), data]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _options_of(row: Row, sources: Mapping[str, Path | None], options: Mapping[str, str]) -> dict[str, str]:
    data = {f"{stage}_data": str(sources[stage]) if stage in row.stages else "none" for stage in STAGES}
    # Without its callbacks' states a resumed run would wait longer before it stops early than one in one go.
    return {**options, **data, "resume_from_checkpoint": "true"}


def _is_finished(export: Path) -> bool:
    """An export folder is written whole or not at all; `_claim` made sure of what it is a run of."""
    try:
        return bool(read_results(export))
    except ModelLoadError:
        return False


def _run(output: Path, row: Row, seed: int, split: str, options: dict[str, str]) -> _Record:
    """Train one row with one seed; what goes wrong in the row itself is recorded, the study goes on."""
    folder = output / row.name / f"seed{seed}"
    options |= {"seed": str(seed), "output_dir": str(folder)}
    starts_elsewhere = plan_stages(row.recipe, options)[-1].stage.start_from
    if row.stages == STAGES and not starts_elsewhere and _is_finished(folder / "expression"):
        options |= {"expression_data": "none", "engagement_start_from": str(folder / "expression")}
    try:
        train(row.recipe, options)
        return _read_run(output, row, seed, split)
    except EngagementInputError as error:
        reason = one_line(error, output)
        print(f"{row.name}, seed {seed} failed: {reason}", flush=True)
        return {"seed": seed, "failure": reason}


def _read_run(output: Path, row: Row, seed: int, split: str) -> _Record:
    """What the study keeps of a finished run; `seconds` are those of its last sitting's training."""
    exports = {stage: output / row.name / f"seed{seed}" / stage for stage in row.stages}
    results = {stage: read_results(export) for stage, export in exports.items()}
    measured = results[row.stages[-1]]
    evaluation = measured["evaluation"].get(split) or _evaluate_stored(exports[row.stages[-1]], measured, split)
    by_window = evaluation.get("scores_by_window")
    return {
        "seed": seed,
        "failure": None,
        "folder": exports[row.stages[-1]].relative_to(output).as_posix(),
        "scores": _flat(evaluation["scores"]),
        "scores_by_window": by_window and _flat(by_window),
        "majority_baseline": _flat(evaluation["majority_baseline"]),
        "intervals": evaluation["intervals"],
        "num_clips": evaluation["num_clips"],
        "collapse": evaluation["collapse"],
        "data": {stage: _describe_data(of_stage["data"]) for stage, of_stage in results.items()},
        "seconds": sum(of_stage["training"]["seconds"] for of_stage in results.values()),
    }


def _evaluate_stored(export: Path, results: Mapping[str, object], split: str) -> dict[str, object]:
    """Training measures test alone; validation is measured here, from stored predictions."""
    predictions, names = read_predictions(export, split)
    counts = results["train_label_counts"]
    train_label_ids = [label for label, name in enumerate(names) for _ in range(counts[name])]
    return evaluate_predictions(predictions, None, train_label_ids, names)


def _flat(scores: Mapping[str, object]) -> dict[str, float | None]:
    """Headline scores, and those of each class under the names `bootstrap` uses."""
    of_classes = {f"{kind}/{label}": row[kind] for label, row in scores["per_class"].items()
                  for kind in ("recall", "precision", "f1")}  # fmt: skip
    return {name: scores[name] for name in _SCORES if name in scores} | of_classes


def _describe_data(data: Mapping[str, object]) -> dict[str, object]:
    audit = data["audit"]
    return {"source": data["source"], "fingerprint": data["fingerprint"],
            "audit": "missing" if audit is None else "passed" if audit["passed"] else "failed",
            "leakage_allowed": data["leakage_allowed"]}  # fmt: skip


def _without_folder(value: str) -> str:
    """The table may be published, and where a file lay on somebody's disk is nobody's business."""
    return Path(value).name if Path(value).exists() else value


def _time_left(todo: Sequence[str], runs: Mapping[tuple[str, int], _Record]) -> str:
    """From the row's own finished seeds, else from all finished rows."""
    seconds = defaultdict(list)
    for (name, _), run in runs.items():
        if not run["failure"]:
            seconds[name].append(run["seconds"])
    if not seconds:
        return "time left not known yet"
    overall = fmean(value for values in seconds.values() for value in values)
    minutes = round(sum(fmean(seconds[name]) if name in seconds else overall for name in todo) / 60)
    if minutes < 1:
        return "less than a minute left"
    return f"about {f'{minutes // 60} h ' if minutes >= 60 else ''}{minutes % 60} min left"


def _describe(
    study: Study, sources: Mapping[str, Path | None], seeds: int, options: Mapping[str, str]
) -> dict[str, object]:
    return {
        "name": study.name,
        "title": study.title,
        "split": study.split,
        "seeds": seeds,
        "changed_options": {name: _without_folder(value) for name, value in sorted(_protocol(options).items())},
        "prepared_beforehand": [path.name for path in sources.values() if path is not None and is_prepared(path)],
    }


def _write(
    output: Path, study: Study, described: Mapping[str, object], runs: Mapping[tuple[str, int], _Record]
) -> Path:
    rows = []
    for row in study.rows:
        of_row = [runs[row.name, seed] for seed in range(described["seeds"]) if (row.name, seed) in runs]
        known = {"name": row.name, "title": row.title, "improves": row.improves, "stages": list(row.stages)}
        rows.append({**known, "published": row.published, "runs": of_row})
    return write_study(output, described, rows, study.contrasts)
