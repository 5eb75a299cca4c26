"""Predictions of files: the command `engagement predict`, its progress, printed lines, tables and timelines."""

import json
import sys
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .placement_options import Address, BatchSize, Device, DType, Faces, Workers
from .shard_options import JoinOption, ShardOption, nothing_to_do, parse_shard

if TYPE_CHECKING:
    from ..inference.answer_table import AnswerTable
    from ..inference.predictions import Prediction, VideoPrediction
    from ..inference.predictor import Predictor

app = typer.Typer()
_TRACK_HELP = "Which of several video tracks, from 1; default: the one that a player shows."
_ABSTAIN_HELP = "No label below this certainty; default: as chosen on the model's validation split."


@app.command()
def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos, folders, patterns, a CSV table with a column path, or - for one path per line on standard "
            "input; with a single-face model also photos."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder written by train.py, or a Hub id; default: this package's expression model."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A table (.csv, .jsonl, .parquet) that grows by each answer; the same command goes on."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines: one object per input.")] = False,
    faces: Faces = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Include subfolders.")] = False,
    timeline: Annotated[float | None, typer.Option(min=0.2, help="Also predict at this interval, in seconds.")] = None,
    plot_dir: Annotated[Path, typer.Option(help="Folder for a timeline's PNG and CSV.")] = Path(),
    video_track: Annotated[int | None, typer.Option(min=1, help=_TRACK_HELP)] = None,
    abstain_below: Annotated[float | None, typer.Option(min=0, max=1, help=_ABSTAIN_HELP)] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="torch, onnxruntime or openvino: the export beside the model, or one made once and kept. ray, or "
            "ray+onnxruntime: so, on a cluster."
        ),
    ] = "torch",
    address: Address = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    shard: ShardOption = None,
    join: JoinOption = None,
) -> None:
    """Predict apparent engagement or, without --model, facial expressions. Exit code 0: all inputs succeeded, 1: some
    were refused, 2: all were."""
    part = parse_shard(shard, join, output, inputs)
    if join is not None and output is not None:
        from ..inference.answer_rows import join_answers

        raise _finished(output, *join_answers(join, output))
    if not inputs:
        raise nothing_to_do()
    from ..processor.bounded_reader import BoundedReader

    on_ray, engine = _on_ray(engine, address, output, timeline, as_json, shard)
    bounded = None if on_ray else BoundedReader().start()  # takes as long as loading a model
    from ..inference.input_files import list_files
    from ..inference.many_files import predict_many
    from ..inference.predictions import Refusal, VideoPrediction
    from ..inference.predictor import Predictor
    from ..inference.shipped_model import WHAT_IT_NAMES, shipped_expression_model
    from .file_progress import FileProgress

    files = every_file = list_files(inputs, recursive)
    if part is not None:
        files = list(part.share(every_file := list(dict.fromkeys(files))))
    plots = {}
    if timeline:
        from ..data.required_packages import require_packages

        require_packages(("matplotlib",))
        plots = _timeline_plots(files, plot_dir)
    if is_shipped := model is None:
        from ..hub.use_limits import limits_for_terminal

        model = str(shipped_expression_model())
        typer.echo(limits_for_terminal(), err=True)
    load = partial(
        Predictor.from_pretrained, model, faces, abstain_below=abstain_below, dtype=dtype, engine=engine,
        batch_size=batch_size,
    )  # fmt: skip
    predictor = load(device="cpu") if on_ray else load(device=device, workers=workers)
    for warning in predictor.warnings:
        typer.echo(f"take care: {warning}", err=True)
    names = WHAT_IT_NAMES if is_shipped else None
    if on_ray:
        from ..inference.ray_predict import predict_in_ray

        assert output is not None
        try:
            counts = predict_in_ray(load, predictor, files, output, address, workers, device, video_track)
        except KeyboardInterrupt:
            kept = f"what is answered is kept in {output}.ray; type the same command to go on"
            raise KeyboardInterrupt(kept) from None
        raise _finished(output, *counts)
    with ExitStack() as closing:
        table = None
        if output is not None:
            from ..data.locked_folder import alone_in
            from ..data.shards import digest_of, finish_shard
            from ..inference.answer_rows import ANSWERS_FILE, LABELS
            from ..inference.answer_table import AnswerTable, fingerprint

            folder, made_with = output, fingerprint(predictor, timeline, video_track)
            if part is not None:
                folder = part.folder(output)
                closing.enter_context(alone_in(folder, "prediction"))
                output = folder / ANSWERS_FILE
            table = closing.enter_context(AnswerTable(output, predictor.rule.label_names, predictor.about, made_with))
            files = _left_to_do(files, table)
        num_refused, num_done, has_said_names = 0, 0, False
        progress = closing.enter_context(FileProgress(len(files)))
        try:
            answers = predict_many(
                predictor.speed_up(),
                files,
                timeline,
                on_window=progress.on_window,
                video_track=video_track,
                bounded=bounded,
            )
            for result in answers:
                num_done, num_refused = num_done + 1, num_refused + isinstance(result, Refusal)
                if table is not None:
                    table.write(result)
                progress.hide()
                if names and not as_json and not has_said_names and not isinstance(result, Refusal):
                    typer.echo(names)  # a heading, printed only if an answer follows
                    has_said_names = True
                _say(result, predictor, names, as_json)
                if isinstance(result, VideoPrediction) and result.timeline:
                    _show_timeline(result, predictor, names, plots[Path(result.source)], as_json)
                progress.advance()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_kept(num_done, len(files), output)) from None
        if table is not None:
            table.finish()
            if part is not None:
                labels = {LABELS: json.dumps(predictor.rule.label_names), "model and settings": made_with}
                finish_shard(folder, "predict", part, digest_of(map(str, every_file)), labels)
            raise _finished(table.path, len(table.done), table.num_refused)
    raise typer.Exit(0 if num_refused == 0 else 2 if num_refused == num_done else 1)


def _finished(output: Path, num_files: int, num_refused: int) -> typer.Exit:
    typer.echo(f"{output}: {num_files} files, {num_refused} of them refused", err=True)
    return typer.Exit(0 if num_refused == 0 else 2 if num_refused == num_files else 1)


def _on_ray(engine: str, address: str | None, output: Path | None, *others: object) -> tuple[bool, str]:
    """Whether the model runs on a cluster, and by what; `ray` alone is the model's own engine, as without it."""
    from ..processor.input_errors import RecipeError

    kind, _, runtime = engine.partition("+")
    if kind != "ray":
        if address is not None:
            raise RecipeError(f"Expected --engine ray beside --address, got {engine}; name one or leave the other out.")
        return False, engine
    if output is None or any(others):
        raise RecipeError(
            "Expected --output answers.parquet beside --engine ray, and no --timeline, --json or --shard; answers go "
            "into the table alone, and Ray shares the files out itself."
        )
    return True, runtime or "torch"


def _left_to_do(files: list[Path], table: "AnswerTable") -> list[Path]:
    """Each file once, without those that the table has already; prints how many it skips."""
    left = [file for file in dict.fromkeys(files) if table.name_of(str(file)) not in table.done]
    if num_skipped := len(set(files)) - len(left):
        typer.echo(
            f"{table.path}: skips {num_skipped} files that it contains already, {table.num_refused} of them refused "
            "(delete their rows to try these again)",
            err=True,
        )
    return left


def _what_is_kept(num_done: int, num_files: int, output: Path | None) -> str:
    done = f"{num_done} of {num_files} files are answered"
    if output is None:
        return f"{done}, see above; with --output answers.csv the same command could have gone on from there"
    return f"{done} and saved in {output}; type the same command to go on"


def _say(result: "Prediction", predictor: "Predictor", names: str | None, as_json: bool) -> None:
    from ..inference.predictions import Refusal, to_json, to_json_line, to_lines

    if isinstance(result, Refusal):
        typer.echo(f"refused: {result.error}", err=True)
    elif not as_json:
        typer.echo("\n".join(to_lines(result)))
    if as_json:
        about = {"names": names} if names and not isinstance(result, Refusal) else {}
        typer.echo(to_json_line(to_json(result, predictor.about) | about, sys.stdout.encoding))
    sys.stdout.flush()  # a reader on a pipe waits for each line


def _timeline_plots(inputs: list[Path], folder: Path) -> dict[Path, Path]:
    """One picture's path per input, in a writable folder; inputs that share a stem are numbered.

    Raises:
        DataError: `folder` is a file, or nothing can be written there.
    """
    from ..data.atomic_files import require_writable

    require_writable(folder)
    stems = [source.stem for source in inputs]
    taken = {stem.casefold() for stem in stems}  # not every system tells "A" from "a"
    names = []
    for stem in stems:
        if sum(stem.casefold() == other.casefold() for other in stems) > 1:
            stem = next(name for name in map(f"{stem}_{{}}".format, count(1)) if name.casefold() not in taken)
            taken.add(stem.casefold())
        names.append(stem)
    return {source: folder / f"{name}_timeline.png" for source, name in zip(inputs, names, strict=True)}


def _show_timeline(
    result: "VideoPrediction", predictor: "Predictor", names: str | None, path: Path, as_json: bool
) -> None:
    from ..data.atomic_files import write_whole, writing
    from ..inference.timeline import draw_in_terminal, in_terminal, save_plot, timeline_csv

    band, table = predictor.rule.uncertain_band(), path.with_suffix(".csv")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_plot(result, path, band, "; ".join(filter(None, [names, *predictor.warnings])) or None)
    write_whole(table, timeline_csv(result))
    drawn = "" if as_json else f"{in_terminal(draw_in_terminal(result, band), sys.stdout.encoding)}\n"
    typer.echo(f"{drawn}timeline: {path}, {table}", err=as_json)
