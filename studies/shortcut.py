"""`engagement shortcut`: does a model look at the face? Drawn data with a planted shortcut, and two recipes.

In training and validation the curtains' colour agrees with the label, in test it does not (`data.drawn.shortcut`).
A model of whole frames and one of face crops are trained on the same clips. The CNN + LSTM study found that its best
model looked at background and clothes: here the model of whole frames does the same, with good scores on validation and
poor ones on test, and face crops prevent that. `shortcut.md`, `shortcut.json` and `shortcut.png` compare scores, face
focus and maps. Finished models are kept, so that an interrupted experiment can be resumed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from .. import register_auto_classes
from ..data.atomic_files import claim_folder, write_whole, writing
from ..data.drawn.datasets import write_daisee
from ..data.drawn.shortcut import AGREEING_SHARE, read_curtains
from ..data.json_records import parse_record, write_record
from ..data.preparation.settings import settings_for
from ..data.schema import BINARY
from ..evaluation.focus_records import FocusRegion
from ..evaluation.markdown import markdown_table
from ..evaluation.metrics import compute_scores
from ..evaluation.results_file import read_results, write_results
from ..evaluation.split_evaluation import read_predictions
from ..explanation.data_set_focus import find_clips, measure_focus
from ..explanation.explain_files import explain_file
from ..hub.card import write_card
from ..inference.predictor import Predictor
from ..processor.input_errors import ModelLoadError, RecipeError
from ..train import check_options, train
from ..training.arguments import Recipe, plan_stages, read_recipe
from ..training.recipes import RECIPES
from ..training.stage_data import frame_options
from .shortcut_figure import save_shortcut_figure
from .shortcut_records import CurtainsAlone, Example, ShortcutMacroF1, ShortcutPlan, ShortcutRecord, ShortcutRun

ROWS = {"whole_frame": "whole frame", "face_crop": "face crop"}
_PLAN = "plan.json"
_SET_HERE = {"data", "seed", "output_dir", "cache_dir", "resume_from_checkpoint", "push_to_hub"}


def run_experiment(
    output: Path,
    seeds: int = 1,
    options: Mapping[str, str] | None = None,
    subjects: int = 60,
    clips_per_subject: int = 6,
) -> Path:
    """Draw the data, train both recipes with seeds 0 to `seeds` - 1, and measure both; finished parts are kept.

    Args:
        output: a new folder, or one with the same experiment; more seeds may be added there.
        options: of train.py, overriding both recipes; the table lists them.
        subjects, clips_per_subject: of the drawn data.

    Returns:
        The table, `shortcut.md`; `shortcut.json` and `shortcut.png` are in the same folder.

    Raises:
        RecipeError, ModelLoadError: no seed, an option that is invalid or set by the experiment itself, or a folder
            with other content; all found before anything is drawn or written.
        DataError: the folder's data was drawn with other options, or the folder cannot be written.
    """
    options = dict(options or {})
    own = sorted(name for name in options if name.removeprefix("engagement_").removeprefix("expression_") in _SET_HERE)
    if seeds < 1 or own:
        raise RecipeError(f"Expected at least one seed, and no options {', '.join(sorted(_SET_HERE))}, got {seeds} "
                          f"and {', '.join(own) or 'none'}.")  # fmt: skip
    recipes = {name: read_recipe(RECIPES / "shortcut" / f"{name}.yaml") for name in ROWS}
    register_auto_classes()
    for name, recipe in recipes.items():  # find typing errors before minutes of drawing
        for run in plan_stages(recipe, dict(_options_of(output, name, 0, options))):
            check_options(run)
            settings_for("video", frame_options(run.stage))
    _claim(output, ShortcutPlan(recipes={name: dict(of.options) for name, of in recipes.items()}, options=options))
    data = output / "data"
    with writing(data):
        write_daisee(
            data,
            subjects,
            clips_per_subject,
            seed=0,
            variant="shortcut",
            fps=2,
            duration_sec=4.0,
            width_px=320,
            height_px=240,
            quirks=False,
        )
    runs = [_run(output, name, seed, recipes[name], options) for seed in range(seeds) for name in ROWS]
    record = ShortcutRecord(options=options, curtains_alone=_score_curtains(data), runs=runs)
    write_record(output / "shortcut.json", record)
    save_shortcut_figure(record, ROWS, _explain_examples(output, data), output / "shortcut.png")
    table = output / "shortcut.md"
    write_whole(table, render_table(record))
    return table


def _options_of(output: Path, name: str, seed: int, options: Mapping[str, str]) -> dict[str, str]:
    """The options of train.py for one model."""
    places = {"engagement_data": output / "data", "output_dir": _folder(output, name, seed).parent,
              "cache_dir": output / "cache"}  # fmt: skip
    told = {place: str(path) for place, path in places.items()}
    return {**options, **told, "seed": str(seed), "resume_from_checkpoint": "true"}


def _claim(output: Path, plan: ShortcutPlan) -> None:
    """Mark the folder as this experiment's; refuse one with other content."""
    text = json.dumps(plan.model_dump(), indent=2, sort_keys=True)
    begun = claim_folder(output, _PLAN, text, "a shortcut experiment")
    if begun != text:
        _require_same(output, begun, plan)
        write_whole(output / _PLAN, text + "\n")


def _require_same(output: Path, text: str, plan: ShortcutPlan) -> None:
    """Raises RecipeError if models were trained with other options, as they would be kept; drawn clips are the same."""
    remedy = f"{output} contains something else; choose a different --output"
    begun = parse_record(text, output / _PLAN, ShortcutPlan, RecipeError, "a shortcut experiment's plan", remedy)
    if not any((output / name).exists() for name in ROWS):
        return
    before, now = begun.options, plan.options
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    told = ", ".join(f"{name} {now.get(name, 'left out')} (was {before.get(name, 'left out')})" for name in changed)
    raise RecipeError(
        f"{output} was started with other recipes or options ({_as_typed(before) or 'no options'}); now different: "
        f"{told or 'recipes of another version'}; use the same ones, or choose a different --output."
    )


def _run(output: Path, name: str, seed: int, recipe: Recipe, options: Mapping[str, str]) -> ShortcutRun:
    """One model, trained and measured unless that is already done."""
    folder, data = _folder(output, name, seed), output / "data"
    try:
        results = read_results(folder)
    except ModelLoadError:
        print(f"{ROWS[name]}, seed {seed}", flush=True)
        train(recipe, _options_of(output, name, seed, options))
        results = read_results(folder)
    test, training = results.measured_on("test"), results.training
    if test is None or training is None:
        raise ModelLoadError(f"The model in {folder} was not trained here or not measured on test; delete the folder.")
    focus = test.evaluation.face_focus
    if focus is None:
        predictor = Predictor.from_pretrained(str(folder))
        focus = measure_focus(predictor, find_clips(data, "test"))
        evaluation = test.evaluation.model_copy(update={"face_focus": focus})
        results = results.with_measurement(test.model_copy(update={"evaluation": evaluation}))
        with writing(folder):  # the card first: if killed between the two, the next run measures and writes both again
            write_card(folder, predictor.model, predictor.tensor_processor, results)
            write_results(folder, results)
    return ShortcutRun(
        recipe=name,
        seed=seed,
        folder=folder.relative_to(output).as_posix(),
        fingerprint=test.data.fingerprint,
        macro_f1=ShortcutMacroF1(
            validation=_macro_f1_of_stored(folder, "validation"),
            test=test.evaluation.scores.macro_f1,
            test_interval=test.evaluation.intervals.intervals["macro_f1"],
            test_majority=test.evaluation.majority_baseline.macro_f1,
        ),
        face_focus=focus,
        training_seconds=training.seconds,
    )


def _folder(output: Path, name: str, seed: int) -> Path:
    return output / name / f"seed{seed}" / "engagement"


def _macro_f1_of_stored(folder: Path, split: str) -> float:
    """Training only measures test; validation is measured here, from stored predictions."""
    predictions, names = read_predictions(folder, split)
    clips = predictions.by_clip()
    return compute_scores(clips.label_ids, clips.scores.argmax(axis=1), names).macro_f1


def _score_curtains(data: Path) -> CurtainsAlone:
    """Macro-F1 by split of predicting the label from the curtains."""
    rows = read_curtains(data)
    scores = {}
    for split in ("validation", "test"):
        pairs = [(row["label"], row["curtains"]) for row in rows if row["split"] == split]
        true, told = (np.array([BINARY.index(label) for label in labels]) for labels in zip(*pairs, strict=True))
        scores[split] = compute_scores(true, told, BINARY).macro_f1
    return CurtainsAlone(**scores)


def _explain_examples(output: Path, data: Path) -> list[Example]:
    """For each label and colour the first test clip, of different people, explained for both models of seed 0."""
    predictors = {name: Predictor.from_pretrained(str(_folder(output, name, 0))) for name in ROWS}
    clips = [(clip, clip.source) for clip in find_clips(data, "test")]
    paths = {clip.clip_id: (path, clip.subject_id) for clip, path in clips if isinstance(path, Path)}
    examples: list[Example] = []
    seen: set[str | None] = set()
    rows = [row for row in read_curtains(data) if row["split"] == "test"]
    for label in BINARY:
        for curtains in BINARY:
            fitting = [row["clip_id"] for row in rows if (row["label"], row["curtains"]) == (label, curtains)]
            others = [clip_id for clip_id in fitting if paths[clip_id][1] not in seen] or fitting
            if not others:
                continue
            path, subject = paths[others[0]]
            seen.add(subject)
            explained = {name: explain_file(predictor, path).clips[0] for name, predictor in predictors.items()}
            examples.append(Example(label, curtains, explained))
    return examples


def render_table(record: ShortcutRecord) -> str:
    """The content of `shortcut.json` as Markdown."""
    options = _as_typed(record.options)
    curtains = record.curtains_alone
    header = ["recipe", "seed", "macro-F1, validation", "macro-F1, test (95 %)", "face focus (95 %)", "face's area"]
    rows = [_cells(run) for run in record.runs]
    rows += [_mean_cells(name, record.runs) for name in ROWS if len(rows) > len(ROWS)]
    rows.append(["curtains alone", "–", f"{curtains.validation:.3f}", f"{curtains.test:.3f}", "0", "–"])
    shares = AGREEING_SHARE
    lines = [
        "# Does it look at the face? A planted shortcut",
        "",
        f"Drawn clips. In {shares['train']:.0%} of training and validation clips the curtains have the label's colour, "
        f"in test in {shares['test']:.0%}: there they contain no information. Face focus is the share of Grad-CAM's "
        "heat inside the face box; evenly spread heat would have the box's share of the area. Intervals are over "
        "people.",
        "",
        *([f"**The recipes were changed: trained with {options}.**", ""] if options else []),
        markdown_table(header, rows),
        "",
        "![scores, face focus and maps](shortcut.png)",
    ]
    return "\n".join(lines) + "\n"


def _as_typed(options: Mapping[str, str]) -> str:
    return ", ".join(f"--{name} {value}" for name, value in sorted(options.items()))


def _cells(run: ShortcutRun) -> list[str]:
    scores, face = run.macro_f1, run.face_focus.face
    bounds = scores.test_interval.in_words("")
    return [
        ROWS[run.recipe],
        str(run.seed),
        f"{scores.validation:.3f}",
        f"{scores.test:.3f}{f' ({bounds})' if bounds else ''}",
        "unknown" if face.mean is None else f"{face.mean:.3f}{_bounds(face)}",
        "–" if face.chance is None else f"{face.chance:.3f}",
    ]


def _mean_cells(name: str, runs: Sequence[ShortcutRun]) -> list[str]:
    of_row = [run for run in runs if run.recipe == name]
    columns: list[list[float | None]] = [
        [run.macro_f1.validation for run in of_row],
        [run.macro_f1.test for run in of_row],
        [run.face_focus.face.mean for run in of_row],
        [run.face_focus.face.chance for run in of_row],
    ]
    known = [[value for value in column if value is not None] for column in columns]
    means = ["unknown" if len(values) < len(of_row) else f"{fmean(values):.3f}" for values in known]
    return [f"**{ROWS[name]}**", f"mean of {len(of_row)}", *means]


def _bounds(face: FocusRegion) -> str:
    return "" if face.lower is None or face.upper is None else f" ({face.lower:.3f} to {face.upper:.3f})"
