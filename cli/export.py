"""`engagement export`: write a model in a format that other software serves or another engine runs."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ..inference.export_folder import ExportRecord

app = typer.Typer()


class ExportFormat(StrEnum):
    """Formats that other software serves or other engines run."""

    stock = "stock"
    onnx = "onnx"
    openvino = "openvino"
    space = "space"


class Part(StrEnum):
    """Parts of an encoder that may stay in float32: `conversion.export_int8.PARTS`."""

    first = "first"
    last = "last"
    attention = "attention"


_TO_HELP = (
    "stock: plain transformers; onnx: one file, or a folder for --engine and --model; openvino: such a folder; space: "
    "a page on the Hub."
)
_INT8_HELP = "The encoder in int8, written only if at least 99 % of labels stay the same."
_CALIBRATION_HELP = (
    "For --int8: prepared data or a raw source, as evaluate takes it, or a folder of videos without labels; one part "
    "is for calibration, the rest for the check."
)
_KEEP_HELP = "For --int8: a part that stays in float32, as a refusal suggests; repeatable."


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model's folder, or a Hub id.")],
    to: Annotated[ExportFormat, typer.Option(help=_TO_HELP)],
    output: Annotated[Path, typer.Option(help="A new folder, or a new .onnx file; --engine finds MODEL/onnx.")],
    int8: Annotated[bool, typer.Option("--int8", help=_INT8_HELP)] = False,
    calibration: Annotated[Path | None, typer.Option(help=_CALIBRATION_HELP)] = None,
    int8_keep: Annotated[list[Part] | None, typer.Option(help=_KEEP_HELP)] = None,
    cache_dir: Annotated[Path, typer.Option(help="For --int8: where a raw source is prepared.")] = Path("runs/cache"),
) -> None:
    """Write a model in a format that others serve or another engine runs; refused if its answers would differ."""
    _check_int8(int8, calibration, int8_keep, to, output)
    _tell_warnings(Path(model))
    if to is ExportFormat.space:
        from ..hub.space import export_space

        files = export_space(model, output)
        size_mb = sum(path.stat().st_size for path in files) / 1e6
        origin = "" if Path(model).is_dir() else f"; {model} is not a local folder: the Space will load it from the Hub"
        typer.echo(f"{output}: {len(files)} files, {size_mb:.1f} MB{origin}; try it: python {output / 'app.py'}")
        typer.echo(f"push it: hf upload YOUR-NAME/SPACE {output} --repo-type space --private")
    elif to is ExportFormat.stock or output.suffix.lower() == ".onnx":
        from ..conversion.export_onnx import export_onnx
        from ..conversion.export_stock import export_stock

        write = export_stock if to is ExportFormat.stock else export_onnx
        typer.echo(f"{output}: logits differ by at most {write(Path(model), output):.1e}")
    else:
        from ..conversion.export_int8 import export_int8
        from ..conversion.export_networks import export_networks

        format_: Literal["onnx", "openvino"] = "onnx" if to is ExportFormat.onnx else "openvino"
        if calibration is not None:
            record = export_int8(
                model, output, format_, calibration, [part.value for part in int8_keep or ()], cache_dir
            )
        else:
            record = export_networks(model, output, format_)
        _say(record, output)


def _check_int8(int8: bool, calibration: Path | None, keep: list[Part] | None, to: ExportFormat, output: Path) -> None:
    from ..processor.input_errors import RecipeError

    if not int8:
        if calibration is not None or keep:
            given = "--calibration" if calibration is not None else "--int8-keep"
            raise RecipeError(f"{given} is only for --int8; add --int8, or leave {given} out.")
        return
    if to not in (ExportFormat.onnx, ExportFormat.openvino) or output.suffix.lower() == ".onnx":
        raise RecipeError(f"--int8 needs --to onnx or openvino and a folder, got --to {to} --output {output}.")
    if calibration is None:
        raise RecipeError(
            "--int8 needs data for calibration and the check; add --calibration with prepared data, a raw source, or a "
            "folder of videos."
        )


def _tell_warnings(model: Path) -> None:
    from ..evaluation.results_file import RESULTS_FILE, read_results

    known = read_results(model) if (model / RESULTS_FILE).is_file() else None
    for warning in known.warnings() if known else ():
        typer.echo(f"take care: {warning}", err=True)


def _say(record: "ExportRecord", output: Path) -> None:
    from ..conversion.export_int8 import FEW
    from ..inference.export_folder import engine_of

    said, gate = f"float32 logits differ by at most {record.logits_difference:.1e}", record.gate
    if gate is not None:
        said += (
            f"; on {gate.num_checked} {gate.of} outside calibration int8 gives the same label for "
            f"{gate.label_agreement:.1%}, the same answer (or none) for {gate.answer_agreement:.1%}, and scores "
            f"that differ by at most {gate.largest_score_difference:.2g}"
        )
        if gate.num_checked < FEW:
            typer.echo(f"take care: {gate.num_checked} {gate.of} are too few; check on {FEW} or more", err=True)
    typer.echo(f"{output}: {said}")
    typer.echo(f"run it with {engine_of(record.format)}: engagement predict FILE --model {output}")
