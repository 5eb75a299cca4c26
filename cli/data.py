"""Commands that draw, prepare and audit data."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .placement_options import Address
from .shard_options import JoinOption, ShardOption, nothing_to_do, parse_shard

if TYPE_CHECKING:
    from ..data.preparation.prepared_data import PreparedData

app = typer.Typer()
_DETECTOR_HELP = "Device of the face detector: cpu, auto, cuda, cuda:1 or mps. Boxes differ slightly between devices."


class DrawnFormat(StrEnum):
    """Layouts that can be drawn."""

    daisee = "daisee"
    expressions = "expressions"
    states = "states"


class DrawnVariant(StrEnum):
    """What in a drawn clip shows its label."""

    appearance = "appearance"
    dynamics = "dynamics"
    shortcut = "shortcut"


@app.command()
def draw(
    output: Annotated[Path, typer.Option(help="Folder to write to.")],
    format: Annotated[DrawnFormat, typer.Option(help="Layout and labels.")] = DrawnFormat.daisee,
    subjects: Annotated[int, typer.Option(min=3, max=10_000, help="People, split by person.")] = 12,
    clips_per_subject: Annotated[int, typer.Option(min=1, max=10_000, help="Clips (or pictures) per person.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    variant: Annotated[DrawnVariant, typer.Option(help="Clips: label in frames, their order, or also curtains.")] = (
        DrawnVariant.appearance
    ),
    fps: Annotated[int, typer.Option(min=1, max=60, help="Clips: frames per second.")] = 30,
    duration_sec: Annotated[float, typer.Option(min=0.5, max=60, help="Clips: length in seconds.")] = 10.0,
    height_px: Annotated[int, typer.Option(min=120, max=1080, help="Clips: height; 4:3.")] = 480,
) -> None:
    """Draw labelled data of people who do not exist, in the layout of a real data set."""
    from ..data.drawn.datasets import write_daisee, write_expressions, write_states
    from ..processor.input_errors import RecipeError

    if format is DrawnFormat.daisee:
        size_px = height_px * 4 // 3 // 2 * 2, height_px // 2 * 2  # h264 needs even sizes
        counts = write_daisee(output, subjects, clips_per_subject, seed, variant.value, fps, duration_sec, *size_px)
    elif variant is not DrawnVariant.appearance:
        name = variant.value
        raise RecipeError(f"--variant {name} is only for --format daisee; leave it out for pictures.")
    else:
        write = write_expressions if format is DrawnFormat.expressions else write_states
        counts = write(output, subjects, clips_per_subject, seed)
    typer.echo(f"{output}: {json.dumps(counts)}")


class DataKind(StrEnum):
    """Sources that can be read; the same names as data.sources.KINDS, which would be slow to import here."""

    daisee = "daisee"
    engagenet = "engagenet"
    fer2013 = "fer2013"
    affectnet = "affectnet"
    rafdb = "rafdb"
    images = "images"
    videos = "videos"
    reference_h5 = "reference-h5"


class Sampling(StrEnum):
    """How a clip becomes windows of frames."""

    uniform = "uniform"
    consecutive = "consecutive"


class PicturesAs(StrEnum):
    """How pictures are read."""

    pictures = "pictures"
    clips = "clips"


class WindowLabel(StrEnum):
    """How a window of labelled frames gets its label."""

    majority = "majority"
    mean = "mean"
    last = "last"


class VoteLabels(StrEnum):
    """How people's votes are used."""

    soft = "soft"
    majority = "majority"


class Subset(StrEnum):
    """Published parts of a data set."""

    stratified = "stratified"


class PreparedBy(StrEnum):
    """What prepares the parts of a source."""

    processes = "processes"
    ray = "ray"


@app.command()
def prepare(
    output: Annotated[Path, typer.Option(help="Folder for the prepared data; an interrupted run continues there.")],
    kind: Annotated[DataKind | None, typer.Argument(help="What the source is.")] = None,
    source: Annotated[
        Path | None, typer.Argument(help="A folder, an archive (.zip), a table (.csv, .parquet), an .h5 file.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, max=10_000, help="Frames per window; default: 8.")] = None,
    sampling: Annotated[Sampling | None, typer.Option(help="One window over the whole clip, or many in a row.")] = None,
    stride_frames: Annotated[
        int | None,
        typer.Option(min=1, max=10**6, help="Between consecutive windows; default: 16, with --as clips: --frames."),
    ] = None,
    face_crop: Annotated[
        bool | None,
        typer.Option(
            "--face-crop/--whole-frames",
            help="Default: crop faces of videos, not of pictures (affectnet: crop the boxes in its lists).",
        ),
    ] = None,
    crop_size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Side of a crop in pixels; default: 224.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Default: one per processor; on a GPU, whose memory they share, at most 4."),
    ] = None,
    device: Annotated[str, typer.Option(help=_DETECTOR_HELP)] = "cpu",
    subset: Annotated[Subset | None, typer.Option(help="daisee: the published stratified subset.")] = None,
    subject_pattern: Annotated[str | None, typer.Option(help="images, videos: regex for the person in a path.")] = None,
    no_subjects: Annotated[bool, typer.Option(help="Tables: the people are unknown; the results say so.")] = False,
    pictures_as: Annotated[
        PicturesAs | None,
        typer.Option("--as", help="images: single, or frames of clips; default: clips if there is a frame_index."),
    ] = None,
    window_label: Annotated[
        WindowLabel | None, typer.Option(help="images as clips: how frames' labels combine; default: majority.")
    ] = None,
    votes: Annotated[Path | None, typer.Option(help="fer2013: a CSV table of FER+ votes.")] = None,
    vote_labels: Annotated[
        VoteLabels | None,
        typer.Option(help="With --votes: add vote shares, or replace labels by the majority; default: soft."),
    ] = None,
    drop_conflicts: Annotated[bool, typer.Option(help="Leave out identical pictures with different labels.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the split, if the source has none.")] = 0,
    push_to_hub: Annotated[
        str | None, typer.Option(help="org/name: push the result to the Hub, replacing an earlier version.")
    ] = None,
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="With --push-to-hub; default: public for drawn people.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="With --push-to-hub: the data's, in the Hub's spelling; default: unknown.")
    ] = None,
    engine: Annotated[PreparedBy, typer.Option(help="What does the work: processes here, or a Ray cluster.")] = (
        PreparedBy.processes
    ),
    address: Address = None,
    shard: ShardOption = None,
    join: JoinOption = None,
) -> None:
    """Turn labelled videos or pictures into a data set that `engagement audit` and `train.py` read."""
    from ..data.atomic_files import require_writable
    from ..data.preparation.join import join_shards, prepare_shard
    from ..data.preparation.prepare import describe_counts
    from ..data.preparation.prepare import prepare as prepare_source
    from ..data.preparation.settings import FrameOptions, settings_for
    from ..data.readers.sources import SourceOptions, read_source
    from ..inference.devices import choose_device
    from ..processor.input_errors import RecipeError

    if push_to_hub is None and (public is not None or license is not None):
        raise RecipeError("--public, --private and --license need --push-to-hub org/name; add it, or leave them out.")
    if push_to_hub is not None and shard is not None:
        raise RecipeError("--push-to-hub does not push a single shard; pass it with --join, when all are finished.")
    part = parse_shard(shard, join, output, kind, source)
    require_writable(output)
    if join is not None:
        _finish(join_shards(join, output), push_to_hub, public, license)
        return
    if kind is None or source is None:
        raise nothing_to_do()
    if engine is not PreparedBy.ray and address is not None:
        raise RecipeError("Expected --engine ray beside --address, got none; name it or leave the address out.")
    if engine is PreparedBy.ray and part is not None:
        raise RecipeError("Expected --engine ray or --shard, got both; Ray shares the clips out itself.")
    detector_device = choose_device(device if engine is PreparedBy.processes else "cpu")  # Ray's are elsewhere
    options = SourceOptions(
        subset=subset and subset.value,
        subject_pattern=subject_pattern,
        seed=seed,
        no_subjects=no_subjects,
        pictures_as=pictures_as and pictures_as.value,
        window_label=window_label and window_label.value,
        votes=votes,
        vote_labels=vote_labels and vote_labels.value,
    )
    asked = FrameOptions(
        num_frames=frames,
        sampling=sampling and sampling.value,
        window_stride_frames=stride_frames,
        face_crop=face_crop,
        face_crop_size_px=crop_size,
    )
    found = read_source(kind.value, source, options, asked)
    if found.media == "picture" and (frames or sampling or stride_frames or window_label):
        raise RecipeError(
            "--frames, --sampling, --stride-frames and --window-label do not apply to single pictures; leave them out, "
            "or pass --as clips if the pictures are frames in order."
        )
    if found.media == "frames" and sampling is Sampling.uniform:
        raise RecipeError("--sampling uniform does not apply to frames stored as pictures; use --sampling consecutive.")
    settings = settings_for(found.media, asked)
    if push_to_hub is not None:
        from ..hub.push_data import check_push

        check_push(found, push_to_hub, public, license)
    if part is not None:
        prepared = prepare_shard(found, settings, source, output, part, processes, drop_conflicts, detector_device)
        typer.echo(f"{part.folder(output)}: {describe_counts(prepared.description)}")
        typer.echo(f"next, when all {part.count} are finished: engagement prepare --join {output} --output FOLDER")
        return
    if engine is PreparedBy.ray:
        from ..data.ray_cluster import ray_cluster

        with ray_cluster(address, processes, device) as cluster:
            prepared = prepare_source(found, settings, source, output, None, drop_conflicts, cluster=cluster)
    else:
        prepared = prepare_source(found, settings, source, output, processes, drop_conflicts, detector_device)
    _finish(prepared, push_to_hub, public, license)


def _finish(prepared: "PreparedData", push_to_hub: str | None, public: bool | None, license: str | None) -> None:
    """Print what was prepared, and push it if asked to."""
    from ..data.preparation.prepare import describe_counts
    from ..hub.push_data import push_data

    description, output = prepared.description, prepared.folder
    typer.echo(f"{output}: {describe_counts(description)}")
    if description.media == "video" and not description.settings.as_played:
        typer.echo("  begun and finished as an earlier version did: frames by number, pixels as stored")
    if description.notes.no_subjects:
        typer.echo("take care: the people are unknown, so one person may be in several splits", err=True)
    for split, counts in description.splits.items():
        typer.echo(f"  {split}: {json.dumps(counts.model_dump(exclude_none=True), ensure_ascii=False)}")
    if push_to_hub is None:
        typer.echo(f"next: engagement audit {output}")
        return
    typer.echo(f"pushed to {push_data(output, push_to_hub, public, license)}")
    typer.echo(f"use it as hf://{push_to_hub} wherever a command takes data")


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="A prepared data set; hf://org/name: one on the Hub.")],
    label_scheme: Annotated[str | None, typer.Option(help="For data rated like DAiSEE; default: binary.")] = None,
    suggest_split: Annotated[Path | None, typer.Option(help="Write the data with a new split to this folder.")] = None,
    deduplicate: Annotated[Path | None, typer.Option(help="Write the data without duplicates to this folder.")] = None,
) -> None:
    """Can the split be trusted? Writes audit.json and audit.html. Exit code 0: yes, 1: no."""
    from ..data.audit import resplit
    from ..data.audit.leakage import audit as run_audit
    from ..data.audit.page import print_audit, write_audit
    from ..data.hub_source import local_folder
    from ..data.preparation.prepared_data import load_prepared

    folder = local_folder(folder)
    prepared = load_prepared(folder)
    found = run_audit(prepared, label_scheme)
    write_audit(found, prepared, folder)
    print_audit(found, folder)
    repairs = ((suggest_split, resplit.suggest_split), (deduplicate, resplit.deduplicate))
    for target, repair in repairs:
        if target is not None:
            repaired = repair(prepared, found, target)
            notes = repaired.description.notes
            typer.echo(f"{target}: {notes.split}; {'; '.join(notes.split_limits or ()) or 'no class is missing'}")
            again = run_audit(repaired, label_scheme)
            write_audit(again, repaired, target)
            print_audit(again, target)
    raise typer.Exit(0 if found.passed else 1)
