"""Whole recordings: the command `engagement session`, its progress and printed lines."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .placement_options import BatchSize, Device, DType, Engine
from .shard_options import JoinOption, ShardOption, nothing_to_do, parse_shard

if TYPE_CHECKING:
    from ..inference.predictions import Refusal
    from ..live.session.folder import SessionFolder
    from ..live.session.records import SessionVideo
    from .file_progress import FileProgress

app = typer.Typer()


@app.command()
def session(
    output: Annotated[Path, typer.Option(help="A new folder, or that of an interrupted session to continue.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Videos, folders, patterns, a CSV table with a column path, or - for one path per line."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder written by train.py, or a Hub id.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Include subfolders.")] = False,
    blur: Annotated[bool, typer.Option("--blur", help="Also write copies of the videos with blurred faces.")] = False,
    video_track: Annotated[
        int | None, typer.Option(min=1, help="Which of several video tracks, from 1; default: a player's.")
    ] = None,
    abstain_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="No label below this certainty; default: the model's own.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "torch",
    batch_size: BatchSize = None,
    shard: ShardOption = None,
    join: JoinOption = None,
) -> None:
    """Follow everybody in recorded sessions of people who agreed: one row per person and window, as tables and a page.
    Exit code 0: all recordings succeeded, 1: some were refused, 2: all were."""
    part = parse_shard(shard, join, output, inputs, model)
    if join is not None:
        from ..live.session.join import join_sessions

        num_recordings = join_sessions(join, output)
        typer.echo(f"{output}: tables of {num_recordings} recordings; pages and copies are in the shards' folders")
        return
    if not inputs or model is None:
        raise nothing_to_do()
    from ..data.locked_folder import alone_in
    from ..data.schema import EXPRESSIONS
    from ..data.shards import digest_of, finish_shard
    from ..hub.use_limits import limits_for_terminal
    from ..inference.input_files import list_files
    from ..inference.many_files import refuse
    from ..inference.predictor import Predictor
    from ..inference.shipped_model import WHAT_IT_NAMES
    from ..live.session.blur import NOT_ANONYMOUS
    from ..live.session.folder import PAGE_FILE, PEOPLE_TABLE, WINDOWS_PARQUET, WINDOWS_TABLE, SessionFolder, name_of
    from ..processor.input_errors import EngagementInputError
    from .file_progress import FileProgress

    files = every_file = list(dict.fromkeys(list_files(inputs, recursive)))
    if part is not None:
        files, output = list(part.share(files)), part.folder(output)
    typer.echo(limits_for_terminal(), err=True)
    predictor = Predictor.from_pretrained(
        model, device=device, abstain_below=abstain_below, dtype=dtype, engine=engine, batch_size=batch_size
    )
    for warning in predictor.warnings:
        typer.echo(f"take care: {warning}", err=True)
    names = WHAT_IT_NAMES if set(predictor.rule.label_names) <= set(EXPRESSIONS) else None
    refused: list[Refusal] = []
    num_uncopied = 0
    with alone_in(output, "session"):
        folder = SessionFolder(output, predictor.speed_up(), files, video_track)
        try:
            with FileProgress(len(files)) as progress:
                for file in files:
                    progress.tell(file.name)
                    try:
                        video = folder.read(file, progress.on_window)
                        folder.write_tables(refused, names)
                    except Exception as error:  # concerns one recording; the others go on
                        _raise_where_no_room(error)
                        refused.append(refuse(str(file), error))
                        progress.hide()
                        typer.echo(f"refused: {refused[-1].error}", err=True)
                        progress.advance()
                        continue
                    progress.hide()
                    typer.echo(_in_words(video))
                    if blur:
                        try:
                            _blur(folder, file, str(predictor.device), progress, video_track)
                        except EngagementInputError as error:
                            _raise_where_no_room(error)
                            num_uncopied += 1
                            progress.hide()
                            typer.echo(f"no copy with blurred faces: {error}", err=True)
                    progress.advance()
        except KeyboardInterrupt:
            folder.write_tables(refused, names)
            raise KeyboardInterrupt(
                f"what was read is in {output}, with tables and page; type the same command to go on"
            ) from None
        folder.write_tables(refused, names)
        if part is not None:
            made_with = {"model and settings": folder.made_with, "blurred": str(blur)}
            finish_shard(output, "session", part, digest_of(map(name_of, every_file)), made_with)
    if blur:
        typer.echo(f"take care: {NOT_ANONYMOUS}", err=True)
    typer.echo(f"{output / PAGE_FILE}, {WINDOWS_TABLE}, {WINDOWS_PARQUET}, {PEOPLE_TABLE}")
    raise typer.Exit(0 if not refused and not num_uncopied else 2 if len(refused) == len(files) else 1)


def _raise_where_no_room(error: Exception) -> None:
    """Stop at a full disk: the next recording would not fit either."""
    if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        raise error


def _in_words(video: "SessionVideo") -> str:
    from ..inference.timeline import clock

    num_people, of_people = len(video.people), [row for row in video.rows if row.person is not None]
    num_answered = sum(row.label is not None for row in of_people)
    line = f"{video.source}: {clock(video.duration_sec)}, "
    if num_people:
        line += f"{num_people} {'person' if num_people == 1 else 'people'}, a label in {num_answered} of their "
        line += f"{len(of_people)} windows"
    else:
        line += "nobody was seen"
    if num_short := video.num_passers_by:
        line += f"; {num_short} {'face was' if num_short == 1 else 'faces were'} seen too briefly to count"
    return "\n".join([line, *(f"  {note}" for note in video.notes)])


def _blur(folder: "SessionFolder", file: Path, device: str, progress: "FileProgress", video_track: int | None) -> None:
    """Write the blurred copy unless it exists, and print the report on it."""
    from ..inference.timeline import clock
    from ..live.session.blur import blur_faces

    copy = folder.blurred_copy(file)
    if copy.exists():
        typer.echo(f"  {copy}: exists already")
        return
    copy.parent.mkdir(exist_ok=True)
    report = blur_faces(file, copy, lambda done_sec: progress.tell(f"blurring, {clock(done_sec)}"), device, video_track)
    progress.hide()
    typer.echo(f"  {copy}: faces are blurred in {report.num_frames_with_faces} of {report.num_frames} frames")
    for note in report.notes:
        typer.echo(f"  {note}")
