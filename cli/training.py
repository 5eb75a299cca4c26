"""Commands that train, import and measure models."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .placement_options import BatchSize, Device, DType, Engine, Workers

app = typer.Typer()


# train.py parses every word, --help too: it lists about a hundred options.
@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context) -> None:
    """Train a recipe, given as a file or a name; the same as `python train.py RECIPE [OPTIONS]`."""
    from ..train import main as train_main

    raise typer.Exit(train_main(context.args))


@app.command()
def recipes() -> None:
    """The recipes that `engagement train` knows by name, and what each of them trains."""
    from rich.console import Console
    from rich.table import Column, Table

    from ..training.recipes import recipe_header, recipe_names

    table = Table(Column("recipe", no_wrap=True), "what it trains", box=None)
    for name in recipe_names():
        table.add_row(name, recipe_header(name))
    Console().print(table)


class Split(StrEnum):
    """Parts of a data set that share no person."""

    train = "train"
    validation = "validation"
    test = "test"


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder written by train.py or import-checkpoint.")],
    data: Annotated[Path, typer.Option(help="A prepared data set, hf://org/name too, or a raw source.")],
    split: Annotated[Split, typer.Option(help="The part to measure.")] = Split.test,
    label_scheme: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    groups: Annotated[Path | None, typer.Option(help="CSV: subject_id and columns such as gender.")] = None,
    face_focus: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="Also measure where it looks, on this many random clips.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "torch",
    batch_size: BatchSize = None,
    workers: Workers = None,
) -> None:
    """Measure a model, and update results.json, predictions, figures and card in its folder."""
    from ..evaluate_model import evaluate_model
    from ..evaluation.split_evaluation import describe_scores
    from ..explanation.data_set_focus import describe_focus

    measured = evaluate_model(
        model, data, split.value, label_scheme, groups, face_focus,
        device=device, dtype=dtype, engine=engine, batch_size=batch_size, workers=workers,
    )  # fmt: skip
    typer.echo(describe_scores(measured, split.value))
    if measured.decided_on:
        typer.echo(f"no validation split here: threshold and temperature come from the {measured.decided_on}")
    elif measured.decision is None and split is not Split.validation:
        typer.echo("no validation split here or in the model's folder: no threshold or temperature was chosen")
    if measured.face_focus:
        typer.echo(describe_focus(measured.face_focus, split.value))
    typer.echo(f"{model}: results.json, predictions.parquet, figures/ and README.md are updated")


# `--with` is parsed as an argument: its place separates the folders, and an option of typer takes one value.
@app.command(context_settings={"ignore_unknown_options": True})
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="FIRST... [--with] SECOND...",
            help="Two measured models, or as many before --with as after it, such as a recipe's seeds.",
        ),
    ],
    split: Annotated[Split, typer.Option(help="Whose predictions are compared.")] = Split.test,
    data: Annotated[str | None, typer.Option(help="Name or fingerprint; default: what each was trained on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, not a table.")] = False,
) -> None:
    """Is the second better than the first, or is it chance which people were tested? A paired bootstrap over people."""
    from ..evaluation.comparison import compare_pairs, describe_comparison

    first, second = _split_at_with(runs)
    compared = compare_pairs(first, second, split.value, data=data)
    typer.echo(compared.model_dump_json(indent=2) if as_json else describe_comparison(compared))


def _split_at_with(runs: list[str]) -> tuple[list[Path], list[Path]]:
    """The folders before and after `--with`; without it there are two."""
    from ..processor.input_errors import RecipeError

    place = runs.index("--with") if "--with" in runs else 1
    first, second = runs[:place], [run for run in runs[place:] if run != "--with"]
    unknown = [run for run in (*first, *second) if run.startswith("-")]
    if unknown:
        raise RecipeError(f"{unknown[0]} is not an option of compare; see engagement compare --help.")
    if not first or len(first) != len(second):
        raise RecipeError(
            f"Expected two folders, or as many before --with as after it, got {len(first)} and {len(second)}."
        )
    return [Path(run) for run in first], [Path(run) for run in second]


@app.command()
def average(
    runs: Annotated[list[Path], typer.Argument(help="Runs of one recipe in folds, with different seeds.")],
    output: Annotated[Path, typer.Option(help="Folder for the scores; no model is made.")],
) -> None:
    """Average several seeds' scores in folds into one measurement; each fold is calibrated and thresholded again."""
    from ..evaluation.fold_runs import average_seeds
    from ..evaluation.split_evaluation import describe_scores

    results = average_seeds(runs, output)
    typer.echo(f"{output / 'engagement'}: {describe_scores(results.measurements[0].evaluation, 'test')}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Measured models.")],
    output: Annotated[Path | None, typer.Option(help="Folder for report.html and report.md.")] = None,
    training_log: Annotated[list[Path] | None, typer.Option(help="CSV log of the CNN + LSTM study, as curves.")] = None,
) -> None:
    """Measured results of one or more models: a Markdown table and, with --output, a page with figures."""
    from ..evaluation.report import results_table, write_report
    from ..processor.input_errors import RecipeError

    if training_log and output is None:
        raise RecipeError("--training-log needs --output: its curves are drawn on the page.")
    typer.echo(results_table(folders))
    for path in write_report(folders, output, training_log or ()) if output else ():
        typer.echo(path)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reproduce(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="Such as cnn_lstm, nezami or beit, or a folder with study.yaml.")],
    data: Annotated[Path, typer.Option(help="What the study measures on: DAiSEE, faces or states.")],
    expression_data: Annotated[Path | None, typer.Option(help="FER2013, for rows pretrained on it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Each row is trained this often.")] = 1,
    improved: Annotated[bool, typer.Option(help="Also train each row's improved recipe.")] = False,
    output: Annotated[Path | None, typer.Option(help="Default: runs/STUDY; a killed study continues there.")] = None,
) -> None:
    """Train every row of a study; compare measured and published results. Further options go to train.py."""
    from ..studies.reproduce import default_output
    from ..studies.reproduce import reproduce as run_study
    from ..training.command_line import read_options

    output = output or default_output(study)
    done = run_study(study, data, output, expression_data, seeds, improved, read_options(context.args))
    typer.echo(done.table.read_text(encoding="utf-8"))
    for failure in done.failures:
        typer.echo(f"failed: {failure}", err=True)
    raise typer.Exit(1 if done.failures else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def tune(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe, a file or a name.")],
    trials: Annotated[
        int, typer.Option(min=1, max=100_000, help="In total; the first is the unchanged recipe. Can be raised later.")
    ] = 20,
    space: Annotated[
        Path | None, typer.Option(help="YAML: options with ranges or choices. Default: a few around the recipe's own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Default: runs/tune/RECIPE; an interrupted search continues there.")
    ] = None,
) -> None:
    """Search a recipe's options with Optuna, on validation data; writes best.yaml. Further options go to train.py."""
    from ..studies.tune import describe_search
    from ..studies.tune import tune as run_search
    from ..training.command_line import read_options
    from ..training.recipes import find_recipe

    path = find_recipe(recipe)
    output = output or Path("runs/tune") / path.stem
    search = run_search(path, output, trials, space, read_options(context.args))
    typer.echo("\n".join(describe_search(search, output)))
    typer.echo(f"{output}: best.yaml, trials.csv, trials.png, search.json")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def shortcut(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="A new folder; an interrupted experiment continues there.")],
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Each recipe is trained this often.")] = 1,
) -> None:
    """Face or wallpaper? Whole frames and face crops learn clips with a planted shortcut. Options go to train.py."""
    from ..studies.shortcut import run_experiment
    from ..training.command_line import read_options

    table = run_experiment(output, seeds, read_options(context.args))
    typer.echo(table.read_text(encoding="utf-8"))
    typer.echo(f"{table}, {table.with_suffix('.png').name}, {table.with_suffix('.json').name}")


@app.command()
def import_checkpoint(
    source: Annotated[str, typer.Argument(help="A .pth file of the CNN + LSTM study, or a stock BEiT or timm model.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    labels: Annotated[str | None, typer.Option(help="In order of index, with commas; default: the original's.")] = None,
) -> None:
    """Import an existing model; it gives the same logits as the original. No code in it runs."""
    from ..conversion import import_reference as checkpoints
    from ..hub.card import write_card

    path, names = Path(source), labels.split(",") if labels else None
    if path.is_file() or path.suffix in (".pth", ".pt"):
        imported = checkpoints.import_checkpoint(path, output, names)
    else:
        imported = checkpoints.import_stock_classifier(source, output, names)
    write_card(output, imported.model, imported.processor, imported.results)
    origin = imported.origin
    summary = f"{output}: {origin.system}, {origin.num_weights:,} weights, {', '.join(imported.results.label_names)}"
    typer.echo(f"{summary}\nnext: engagement evaluate {output} --data DATA")


@app.command()
def benchmark(
    video: Annotated[Path | None, typer.Argument(help="A video; default: ten drawn seconds.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A folder; repeatable. Default: ResNet-18 + LSTM and BEiT-base of single faces, untrained."),
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="Data for int8, as export takes it; default: none.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="A folder for benchmark.json, benchmark.png and performance.md.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="warm, cold, batches, faces or training; repeatable. Default: all.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="How often each variant is timed, in turn.")] = 7,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads that each variant may use.")] = 2,
    clips: Annotated[int, typer.Option(min=1, max=100_000, help="Number of clips in the part batches.")] = 200,
    data: Annotated[Path | None, typer.Option(help="A prepared data set: time reading it instead.")] = None,
) -> None:
    """Every engine against the plain way, from video file to label: warm, cold, in batches; faces, and training."""
    from ..studies.benchmark import PARTS, BenchmarkOptions, run_benchmark
    from ..studies.cache_speed import run_cache_benchmark
    from ..studies.speed_page import write_speed

    if data is not None:
        typer.echo(json.dumps(run_cache_benchmark(data, rounds), indent=2))
        return
    parts = tuple(part or PARTS)
    options = BenchmarkOptions(video, tuple(model or ()), calibration, rounds, threads, clips, parts)
    measured = run_benchmark(options, (lambda record: write_speed(record, output)) if output else lambda record: None)
    typer.echo(measured.model_dump_json(indent=2))
    if output is not None:
        typer.echo(f"{output}: benchmark.json, performance.md and a picture", err=True)
