"""The `engagement` command. It only reads options and prints; what it prints is computed in the other rooms.

Imports are inside the commands: torch and transformers take seconds, and `engagement --help` must answer at once.
"""

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recognise apparent student engagement from face video.",
)


class DrawnFormat(str, Enum):
    """Layouts that can be drawn."""

    daisee = "daisee"
    expressions = "expressions"
    states = "states"


class DrawnVariant(str, Enum):
    """Where a drawn clip's label shows."""

    appearance = "appearance"
    dynamics = "dynamics"


@app.command()
def draw(
    output: Annotated[Path, typer.Option(help="Folder to write to.")],
    format: Annotated[DrawnFormat, typer.Option(help="Layout and labels.")] = DrawnFormat.daisee,
    subjects: Annotated[int, typer.Option(min=3, help="People, split by person.")] = 12,
    clips_per_subject: Annotated[int, typer.Option(min=1, help="Clips (or pictures) a person.")] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    variant: Annotated[DrawnVariant, typer.Option(help="Clips: label in each frame, or only in their order.")] = (
        DrawnVariant.appearance
    ),
    fps: Annotated[int, typer.Option(min=1, max=60, help="Clips: frames a second.")] = 30,
    duration_sec: Annotated[float, typer.Option(min=0.5, max=60, help="Clips: seconds each.")] = 10.0,
    height_px: Annotated[int, typer.Option(min=120, max=1080, help="Clips: height; 4:3.")] = 480,
) -> None:
    """Draw labelled data of people who do not exist, in the layout of a real data set."""
    from .data.drawn_datasets import draw_dataset

    clip_options = {"variant": variant.value, "fps": fps, "duration_sec": duration_sec}
    clip_options |= {"width_px": height_px * 4 // 3 // 2 * 2, "height_px": height_px // 2 * 2}  # h264 wants even sizes
    options = clip_options if format is DrawnFormat.daisee else {}
    counts = draw_dataset(format.value, output, subjects, clips_per_subject, seed, **options)
    typer.echo(f"{output}: {json.dumps(counts)}")


class DataKind(str, Enum):
    """Sources that can be read; the same names as data.sources.KINDS, which would be slow to import here."""

    daisee = "daisee"
    fer2013 = "fer2013"
    images = "images"
    videos = "videos"
    reference_h5 = "reference-h5"


class Sampling(str, Enum):
    """How a clip becomes windows of frames."""

    uniform = "uniform"
    consecutive = "consecutive"


class Subset(str, Enum):
    """Published parts of a data set."""

    stratified = "stratified"


@app.command()
def prepare(
    kind: Annotated[DataKind, typer.Argument(help="What the source is.")],
    source: Annotated[Path, typer.Argument(help="A folder, an archive (.zip), a table (.csv) or an .h5 file.")],
    output: Annotated[Path, typer.Option(help="Folder for the prepared data; a killed run goes on where it was.")],
    frames: Annotated[int | None, typer.Option(min=1, help="Frames a window; default: 8.")] = None,
    sampling: Annotated[Sampling | None, typer.Option(help="One uniform window a clip, or many in a row.")] = None,
    stride_frames: Annotated[int | None, typer.Option(min=1, help="Consecutive windows; default: 16.")] = None,
    face_crop: Annotated[
        bool | None, typer.Option("--face-crop/--whole-frames", help="Default: faces of videos, pictures as they are.")
    ] = None,
    crop_size: Annotated[int | None, typer.Option(min=16, help="Side of a crop in pixels; default: 224.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one a processor.")] = None,
    subset: Annotated[Subset | None, typer.Option(help="daisee: the published stratified subset.")] = None,
    subject_pattern: Annotated[str | None, typer.Option(help="images, videos: regex, the person in a path.")] = None,
    drop_conflicts: Annotated[bool, typer.Option(help="Leave out equal pictures with different labels.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, where the source has none.")] = 0,
) -> None:
    """Turn labelled videos or pictures into a data set that `engagement audit` and `train.py` read."""
    from .data.preparation import describe_counts
    from .data.preparation import prepare as prepare_source
    from .data.preparation_parts import settings_for
    from .data.sources import SourceOptions, read_source
    from .processor.input_errors import RecipeError

    options = SourceOptions(subset=subset and subset.value, subject_pattern=subject_pattern, seed=seed)
    found = read_source(kind.value, source, options)
    if found.media == "picture" and (frames or sampling or stride_frames):
        raise RecipeError("Expected no --frames, --sampling or --stride-frames for pictures, which are single frames.")
    settings = settings_for(
        found.media,
        num_frames=frames,
        sampling=sampling and sampling.value,
        window_stride_frames=stride_frames,
        face_crop=face_crop,
        face_crop_size=crop_size,
    )
    prepared = prepare_source(found, settings, source, output, processes, drop_conflicts)
    typer.echo(f"{output}: {describe_counts(prepared.description)}")
    for split, counts in prepared.description["splits"].items():
        typer.echo(f"  {split}: {json.dumps(counts, ensure_ascii=False)}")
    typer.echo(f"next: engagement audit {output}")


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="A prepared data set.")],
    label_scheme: Annotated[str | None, typer.Option(help="For data rated as DAiSEE is; default: binary.")] = None,
    suggest_split: Annotated[Path | None, typer.Option(help="Write the data, split anew, to this folder.")] = None,
    deduplicate: Annotated[Path | None, typer.Option(help="Write the part without duplicates to this folder.")] = None,
) -> None:
    """Can the split be trusted? Writes audit.json and audit.html. Exit code 0: yes, 1: no."""
    from .data import resplit
    from .data.audit_page import print_audit, write_audit
    from .data.leakage import audit as run_audit
    from .data.prepared_data import load_prepared

    prepared = load_prepared(folder)
    found = run_audit(prepared, label_scheme)
    write_audit(found, prepared, folder)
    print_audit(found, folder)
    repairs = ((suggest_split, resplit.suggest_split), (deduplicate, resplit.deduplicate))
    for target, repair in repairs:
        if target is not None:
            repaired = repair(prepared, found, target)
            notes = repaired.description["notes"]
            typer.echo(
                f"{target}: {notes['split']}; {'; '.join(notes.get('split_limits', [])) or 'no class is missing'}"
            )
            again = run_audit(repaired, label_scheme)
            write_audit(again, repaired, target)
            print_audit(again, target)
    raise typer.Exit(0 if found.passed else 1)


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Videos; photos too, with a single-face model.")],
    model: Annotated[str, typer.Option(help="Folder written by train.py, or a Hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
    timeline: Annotated[float | None, typer.Option(min=0.2, help="Also a score every so many seconds.")] = None,
    plot_dir: Annotated[Path, typer.Option(help="Where a timeline's PNG goes.")] = Path(),
) -> None:
    """Predict apparent engagement. Exit code 0: all came out, 1: some inputs were refused, 2: all were."""
    from .predict import Predictor, Refusal, predict_all, to_json

    results = predict_all(Predictor.from_pretrained(model).speed_up(), inputs, timeline)
    if as_json:
        typer.echo(json.dumps([to_json(result) for result in results], indent=2, ensure_ascii=False))
    for result in results:
        if isinstance(result, Refusal):
            typer.echo(f"refused: {result.error}", err=True)
        elif not as_json:
            _print_prediction(result)
        if getattr(result, "timeline", None):
            _show_timeline(result, plot_dir, as_json)
    num_refused = sum(isinstance(result, Refusal) for result in results)
    raise typer.Exit(0 if num_refused == 0 else 2 if num_refused == len(results) else 1)


def _print_prediction(result: object) -> None:
    from .predict import PhotoPrediction

    if isinstance(result, PhotoPrediction):
        typer.echo(f"{result.source}: {len(result.faces)} face{'s' if len(result.faces) != 1 else ''}")
        for face in result.faces:
            typer.echo(f"  {face.label}  {_scores(face.scores)}  box {face.box_xyxy_px}")
        return
    coverage = "whole frames" if result.face_coverage is None else f"face in {result.face_coverage:.0%} of frames"
    repeats = f", {result.num_repeated_frames} frames repeated" if result.num_repeated_frames else ""
    typer.echo(f"{result.source}: {result.label}  {_scores(result.scores)}  ({coverage}{repeats})")


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {score:.3f}" for name, score in scores.items())


def _show_timeline(result: object, plot_dir: Path, as_json: bool) -> None:
    from .timeline import draw_in_terminal, save_plot

    path = plot_dir / f"{Path(result.source).stem}_timeline.png"
    plot_dir.mkdir(parents=True, exist_ok=True)
    save_plot(result, path)
    typer.echo(f"{'' if as_json else draw_in_terminal(result)}\ntimeline: {path}", err=as_json)


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(help="A video; a photo too, with a single-face model.")],
    model: Annotated[str, typer.Option(help="Folder written by train.py, or a Hub id.")],
    output: Annotated[Path, typer.Option(help="The picture (.png).")],
    label: Annotated[str | None, typer.Option(help="What speaks for it; default: the predicted one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Scores and face focus as JSON, too.")] = False,
) -> None:
    """Where does the model look? Heat over the frames, and the share of it that lies on the face."""
    from .explain import explain_file, to_json
    from .explanation_figures import save_explanation
    from .predict import Predictor

    explanation = explain_file(Predictor.from_pretrained(model), source, label)
    save_explanation(explanation, output)
    typer.echo(json.dumps(to_json(explanation), indent=2) if as_json else output)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context, recipe: Annotated[Path, typer.Argument(help="A YAML file, see recipes/.")]) -> None:
    """Train a recipe; the same as `python train.py RECIPE [OPTIONS]`."""
    from .train import main as train_main

    raise typer.Exit(train_main([str(recipe), *context.args]))


class Split(str, Enum):
    """Parts of a data set, no person in two of them."""

    train = "train"
    validation = "validation"
    test = "test"


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder written by train.py or import-checkpoint.")],
    data: Annotated[Path, typer.Option(help="A prepared data set, or a raw source.")],
    split: Annotated[Split, typer.Option(help="What is measured.")] = Split.test,
    label_scheme: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    groups: Annotated[Path | None, typer.Option(help="CSV: subject_id and columns such as gender.")] = None,
) -> None:
    """Measure a model: results.json, predictions, figures and card in its folder are renewed."""
    from .evaluation import describe_scores
    from .model_evaluation import evaluate_model

    typer.echo(describe_scores(evaluate_model(model, data, split.value, label_scheme, groups), split.value))
    typer.echo(f"{model}: results.json, predictions.parquet, figures/ and README.md are renewed")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A measured model.")],
    second: Annotated[Path, typer.Argument(help="Another, measured on the same clips.")],
    split: Annotated[Split, typer.Option(help="Whose predictions are compared.")] = Split.test,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, instead of a table.")] = False,
) -> None:
    """Is the second better than the first, or were these just other people? A paired bootstrap over people."""
    from .comparison import compare_runs, describe_comparison

    compared = compare_runs(first, second, split.value)
    typer.echo(json.dumps(compared, indent=2) if as_json else describe_comparison(compared))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reproduce(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="cnn_lstm, nezami, beit, or a folder with study.yaml.")],
    data: Annotated[Path, typer.Option(help="What the study measures on: DAiSEE, faces or states.")],
    expression_data: Annotated[Path | None, typer.Option(help="FER2013, for rows that begin with it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Each row is trained this often.")] = 1,
    improved: Annotated[bool, typer.Option(help="Also each row's improved recipe.")] = False,
    output: Annotated[Path | None, typer.Option(help="Default: runs/STUDY; a killed study goes on there.")] = None,
) -> None:
    """Train every row of a published study; published and measured side by side. Further options go to train.py."""
    from .run_arguments import read_options
    from .study import reproduce as run_study

    output = output or Path("runs") / Path(study).name
    done = run_study(study, data, output, expression_data, seeds, improved, read_options(context.args))
    typer.echo(done.table.read_text(encoding="utf-8"))
    for failure in done.failures:
        typer.echo(f"failed: {failure}", err=True)
    raise typer.Exit(1 if done.failures else 0)


@app.command()
def import_checkpoint(
    source: Annotated[str, typer.Argument(help="A .pth file of the CNN + LSTM study, or a stock BEiT or timm model.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    labels: Annotated[str | None, typer.Option(help="By index, with commas; default: the original's.")] = None,
) -> None:
    """Take in a model that people have; it gives the logits of the original. No code in it runs."""
    from . import checkpoints
    from .card import write_card

    path, names = Path(source), labels.split(",") if labels else None
    is_file = path.is_file() or path.suffix in (".pth", ".pt")
    take_in = checkpoints.import_checkpoint if is_file else checkpoints.import_stock_classifier
    imported = take_in(path if is_file else source, output, names)
    write_card(output, imported.model, imported.processor, imported.results)
    origin, names = imported.results["imported"], ", ".join(imported.results["label_names"])
    summary = f"{output}: {origin['system']}, {origin['num_weights']:,} weights, {names}"
    typer.echo(f"{summary}\nnext: engagement evaluate {output} --data DATA")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Measured models.")],
    output: Annotated[Path | None, typer.Option(help="Folder for report.html and report.md.")] = None,
    training_log: Annotated[list[Path] | None, typer.Option(help="CSV log of the CNN + LSTM study, as curves.")] = None,
) -> None:
    """Measured results of one or more models: a Markdown table and, with --output, a page with figures."""
    from .processor.input_errors import RecipeError
    from .report import results_table, write_report

    if training_log and output is None:
        raise RecipeError("Expected --output beside --training-log: curves are drawn on the page.")
    typer.echo(results_table(folders))
    for path in write_report(folders, output, training_log or ()) if output else ():
        typer.echo(path)


class ExportFormat(str, Enum):
    """Forms that others serve."""

    stock = "stock"
    onnx = "onnx"


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model's folder.")],
    to: Annotated[ExportFormat, typer.Option(help="A folder for plain transformers, or one ONNX file.")],
    output: Annotated[Path, typer.Option(help="A new folder, or a new .onnx file.")],
) -> None:
    """Write a model in a form that needs no code of ours; refused where the logits would not be the same."""
    from . import exports

    write = exports.export_stock if to is ExportFormat.stock else exports.export_onnx
    difference = write(model, output)
    typer.echo(f"{output}: logits differ by at most {difference:.1e}")


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A measured model's folder.")],
    repo: Annotated[str, typer.Option(help="org/name on the Hub.")],
    private: Annotated[bool, typer.Option(help="Refused where a public one is there already.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Write the exact folder and list it, and push nothing.")] = False,
    license: Annotated[str, typer.Option(help="Of the weights, as the Hub spells it.")] = "mit",
    output: Annotated[Path | None, typer.Option(help="Where that folder goes; default: RUN_hub.")] = None,
) -> None:
    """Push a model with its measured results and a card made of them; what cannot be trusted is not published."""
    from .publish import assemble, push_folder

    folder = output or run.with_name(f"{run.name}_hub")
    for file in assemble(run, folder, repo, license):
        typer.echo(f"{(folder / file).stat().st_size:>12,}  {file}")
    typer.echo(f"{folder} is what {'would go' if dry_run else 'goes'} to {repo}")
    typer.echo("" if dry_run else push_folder(folder, repo, private or None))


@app.command()
def benchmark(
    video: Annotated[Path | None, typer.Argument(help="A video; without one, ten seconds are drawn.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or Hub id; default: ResNet-18 + LSTM, untrained.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each way is timed this often, in turn.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use.")] = 2,
    data: Annotated[Path | None, typer.Option(help="A prepared data set: time reading it instead.")] = None,
) -> None:
    """Our way against the plain way, from video file to label, as ratios within one run."""
    from .benchmark import run_benchmark, run_cache_benchmark

    if data is not None:
        typer.echo(json.dumps(run_cache_benchmark(data, rounds), indent=2))
        return
    typer.echo(json.dumps(run_benchmark(video, model, rounds, threads), indent=2))


def main() -> None:
    """What a user got wrong is one line and exit code 2; only our own mistakes show a traceback."""
    try:
        app()
    except ValueError as error:
        from .processor.input_errors import EngagementInputError

        if not isinstance(error, EngagementInputError):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
