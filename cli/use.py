"""Commands that use a model: explanations, live predictions, the page, publication."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .placement_options import BatchSize, Device, DType, Engine, Faces

app = typer.Typer()


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(help="A video or, with a single-face model, a photo.")],
    model: Annotated[str, typer.Option(help="Folder written by train.py, or a Hub id.")],
    output: Annotated[Path, typer.Option(help="The picture (.png).")],
    label: Annotated[str | None, typer.Option(help="The label to explain; default: the predicted one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Also print scores and face focus as JSON.")] = False,
    faces: Faces = False,
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "torch",
    batch_size: BatchSize = None,
) -> None:
    """Where does the model look? A heat map over the frames, and the share of heat on the face."""
    from ..explanation.explain_files import explain_file, to_json
    from ..explanation.heat_map_figure import picture_path, save_explanation
    from ..inference.predictor import Predictor

    _require_gradients(dtype, engine)
    path = picture_path(output, source)
    predictor = Predictor.from_pretrained(model, faces, device, dtype="float32", batch_size=batch_size)
    explanation = explain_file(predictor, source, label)
    save_explanation(explanation, path)
    typer.echo(json.dumps({**to_json(explanation), "picture": str(path)}, indent=2) if as_json else path)


def _require_gradients(dtype: str, engine: str) -> None:
    """Raise RecipeError before anything is loaded."""
    from ..processor.input_errors import RecipeError

    if engine != "torch":
        raise RecipeError(f"explain needs gradients, which --engine {engine} does not compute; use --engine torch.")
    if dtype not in ("auto", "float32"):
        raise RecipeError(f"explain needs --dtype float32, got {dtype}: its gradients are too small for it.")


@app.command()
def live(
    model: Annotated[str, typer.Option(help="Folder written by train.py, or a Hub id.")],
    source: Annotated[
        str, typer.Option(help="webcam, webcam:1, screen, screen:X,Y,WIDTH,HEIGHT, an address or a video.")
    ] = ("webcam"),
    window: Annotated[bool, typer.Option("--window/--no-window", help="Show boxes, labels and scores.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per frame.")] = False,
    output: Annotated[Path | None, typer.Option(help="A video (.mp4) of the annotated frames.")] = None,
    abstain_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="No label below this certainty; default: the model's own.")
    ] = None,
    smoothing: Annotated[
        float, typer.Option(min=0.01, max=1, help="Weight of the newest scores; 1: no smoothing.")
    ] = 0.3,
    window_sec: Annotated[
        float | None, typer.Option(min=0.1, max=3600, help="Clip models: length of a window in seconds.")
    ] = None,
    small_faces: Annotated[bool, typer.Option(help="Also find small faces; slower.")] = False,
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "torch",
) -> None:
    """Watch a webcam, a call on the screen or a file: one smoothed prediction per person. Ctrl-C or Q ends it."""
    import threading

    from ..inference.predictor import Predictor
    from ..live.drawing import model_note
    from ..live.engine import LiveEngagement, run_live, window_of_short
    from ..live.network import without_password
    from ..live.outputs import LiveOutputs, check_film
    from ..live.settings import LiveSettings
    from ..live.signals import stopping_on_signals, why_ended
    from ..live.sources import open_source
    from ..processor.input_errors import RecipeError

    if not (window or as_json or output):
        raise RecipeError("--no-window needs --json or --output: otherwise nothing would be shown.")
    if window and source.lower() == "screen":
        raise RecipeError(
            "On --source screen the window would film itself; pass a part of the screen (screen:X,Y,WIDTH,HEIGHT) that "
            "leaves space for the window, or --no-window."
        )
    if output is not None:
        check_film(output, source)
    predictor = Predictor.from_pretrained(model, device=device, dtype=dtype, engine=engine).speed_up()
    stop = threading.Event()
    for warning in predictor.warnings:
        typer.echo(f"take care: {warning}", err=True)
    with open_source(source, predictor.video_processor.as_played) as frames:
        if window_sec is None and (window_sec := window_of_short(predictor, frames.duration_sec)):
            typer.echo(f"a short video: a window spans {window_sec:.1f} s of it", err=True)
        settings = LiveSettings(
            abstain_below=abstain_below, smoothing_alpha=smoothing, window_sec=window_sec, small_faces=small_faces
        )
        lines, note = _echo_line if as_json else None, model_note(predictor.rule)
        name = without_password(source)
        outputs = LiveOutputs(name, window, lines, output, frames.fps, frames.duration_sec, stop.set, note)
        watching, reason = LiveEngagement(predictor, settings), "it broke off"
        try:
            with stopping_on_signals(stop) as signals, outputs:
                run_live(frames, watching, outputs, stop)
            reason = why_ended(signals, stop)
        finally:
            for words in [*frames.notes, *outputs.last_words(name, reason, watching.window_sec)]:
                typer.echo(words, err=True)


def _echo_line(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()  # a reader on a pipe waits for each line


@app.command("app")
def serve_page(
    models: Annotated[list[str], typer.Argument(help="Folders written by train.py, or Hub ids; to choose from.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    host: Annotated[str, typer.Option(help="127.0.0.1: only this machine.")] = "127.0.0.1",
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "torch",
    batch_size: BatchSize = None,
) -> None:
    """A page in the browser: webcam, videos, photos, and explanations. All on this machine, after consent."""
    from ..inference.placement import Placement
    from ..live.page import name_models, serve

    serve(name_models(models), port, host, Placement(device, dtype, engine, batch_size))


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A measured model's folder.")],
    repo: Annotated[
        str,
        typer.Option(help="org/name on the Hub; replaces only an earlier version of this model."),
    ],
    private: Annotated[bool, typer.Option(help="Refused if the repository exists and is public.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Write and list the folder, but push nothing.")] = False,
    license: Annotated[
        str | None, typer.Option(help="The weights', in the Hub's spelling; default: mit, or other if imported.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Hub id of data it was trained on; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write the folder; default: RUN_hub.")] = None,
) -> None:
    """Push a model with its measured results and card; refused if the results cannot be trusted."""
    from ..evaluation.results_file import read_results
    from ..hub.publish import assemble
    from ..hub.push import push_folder

    named = run.resolve() if run.name in ("", "..") else run  # "." has no name
    folder = output or named.with_name(f"{named.name}_hub")
    for file in assemble(run, folder, repo, license, dataset or ()):
        typer.echo(f"{(folder / file).stat().st_size:>12,}  {file}")
    for warning in read_results(run).warnings():
        typer.echo(f"take care: {warning}", err=True)
    typer.echo(f"{folder} {'would be' if dry_run else 'is'} pushed to {repo}")
    typer.echo("" if dry_run else push_folder(folder, repo, private or None))


@app.command()
def env() -> None:
    """Versions, devices, codecs and threads: lines to paste into a bug report."""
    from .environment import describe_environment

    for name, value in describe_environment():
        typer.echo(f"- {name}: {value}")


@app.command()
def serve(
    export: Annotated[Path, typer.Argument(help="Folder that `engagement export --to onnx` or openvino wrote.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8080,
    host: Annotated[str, typer.Option(help="0.0.0.0: whoever can reach this machine may send requests.")] = "127.0.0.1",
) -> None:
    """Answer over HTTP, without PyTorch: post a video or, for a single-face model, a picture; the answer is JSON."""
    from ..hub.endpoint.export_handler import ExportHandler
    from ..hub.endpoint.server import make_server, serve_until_stopped
    from ..hub.use_limits import limits_for_terminal
    from ..processor.input_errors import RecipeError

    typer.echo(limits_for_terminal(), err=True)
    handler = ExportHandler(str(export))
    try:
        server = make_server(handler, host, port)
    except (OSError, OverflowError) as error:
        raise RecipeError(f"Cannot listen at {host}:{port} ({error}); choose another --port.") from error
    at = "{}:{}".format(*server.server_address[:2])
    typer.echo(f"{export} answers at http://{at} (curl --data-binary @clip.mp4 http://{at}); Ctrl-C ends it", err=True)
    serve_until_stopped(server)
