"""Labelled source → prepared data set: decoded, cropped by the model's processor, stored as JPEG bytes in Arrow.

Work is divided into parts of a few clips. Each finished part is on disk, so that a killed run resumes where it stopped
and ends with the same result, whatever the number of processes. A clip that cannot be used is a reject with stage and
reason, and inputs = outputs + rejects always holds. The finished folder is described in `prepared_data`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ...processor.input_errors import DataError
from ..atomic_files import claim_folder, writing
from ..described_data import LabelConflicts
from ..locked_folder import alone_in
from ..ray_cluster import RayCluster
from ..schema import ClipRecord, LabelledSource, Media, Reject
from ..worker_processes import spawned, usable_cpus
from .description import DATA_VERSION, TRAINING_VERSION, ClipCounts, DatasetDescription, InputCounts, Provenance
from .parts import Content, is_done, leave_with_parent, prepare_part, read_part
from .prepared_data import FEATURES, PreparedData, is_prepared, load_prepared, write_prepared
from .row_facts import conflicting_rows
from .settings import PreparationSettings

# Clips per part: a balance between what a killed run may lose and the cost of a file.
CLIPS_PER_PART = {"video": 16, "picture": 2000, "windows": 64, "frames": 200}
PLAN_FILE = "plan.json"
_CPU = torch.device("cpu")
_MOST_PROCESSES_ON_A_GPU = 4  # each one takes half a gigabyte of its memory before the first frame


def plan_of(source: LabelledSource, settings: PreparationSettings, root: Path, drop_conflicts: bool = False) -> str:
    """Identifier of a preparation, known before it is done: any clip, label, split, file size or setting changes it."""
    told = asdict(settings)
    if not settings.as_played:  # like earlier versions, which had no such setting
        del told["as_played"]
    plan = [TRAINING_VERSION, source.kind, drop_conflicts, told]
    plan += ["drawn"] if source.drawn else []  # earlier versions did not record it
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
    items: list[ClipRecord | Reject] = [*source.records, *source.rejects]
    for item in items:
        digest.update(json.dumps(vars(item), sort_keys=True).encode())
    for path in [root] if root.is_file() else sorted(path for path in root.glob("*") if path.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())  # tables and archives contain many pictures
    folder = root.parent if root.is_file() else root
    for record in source.records:
        for name in record.frame_paths or [record.source_path]:
            path = folder / name
            digest.update(f"{path.stat().st_size if path.is_file() else -1}\n".encode())
    return digest.hexdigest()


def prepare(
    source: LabelledSource,
    settings: PreparationSettings,
    root: Path,
    output: Path,
    num_processes: int | None = None,
    drop_conflicts: bool = False,
    device: torch.device = _CPU,
    may_be_empty: bool = False,
    cluster: RayCluster | None = None,
) -> PreparedData:
    """Decode, crop and store every clip of the source, unless already done; shows progress and the time left.

    Args:
        root: the file or folder the source was read from.
        output: an empty folder, or one in which the same preparation was started.
        num_processes: default: one per processor that this process may use; at most four if `device` is not a CPU.
        drop_conflicts: leave out identical pictures that carry different labels.
        device: where faces are detected. It is not a setting of the data, although boxes may differ slightly between
            devices, and with them the crops and the data's fingerprint.
        may_be_empty: whether a result without any clip is accepted.
        cluster: does the work instead of local processes, on its own device.

    Raises:
        DataError: nothing to prepare, no usable clip, or the folder has other content.
    """
    if not source.records and not may_be_empty:
        first = f"; first of {len(source.rejects)} rejects: {source.rejects[0].reason}" if source.rejects else ""
        raise DataError(f"Expected at least one labelled clip or picture in {root}, got none{first}")
    plan = plan_of(source, settings, root, drop_conflicts)
    parts = output / "parts"
    with alone_in(output, "preparation"):
        begun = claim_folder(output, PLAN_FILE, plan, "prepared data")
        if begun != plan and settings.as_played:  # an earlier version may have started it
            settings = replace(settings, as_played=False)
            plan = plan_of(source, settings, root, drop_conflicts)
        if begun != plan:
            raise DataError(
                f"{output} has a preparation of a different source or with other settings; choose another folder, or "
                "delete this one."
            )
        if is_prepared(output):
            prepared = load_prepared(output)
        else:
            most = usable_cpus()
            most = most if device.type == "cpu" else min(most, _MOST_PROCESSES_ON_A_GPU)
            _prepare_parts(source, settings, parts, num_processes or most, device, cluster)
            prepared = _join_parts(source, settings, root, output, drop_conflicts, may_be_empty)
        shutil.rmtree(parts, ignore_errors=True)
    return prepared


def _prepare_parts(
    source: LabelledSource,
    settings: PreparationSettings,
    parts: Path,
    num_processes: int,
    device: torch.device,
    cluster: RayCluster | None,
) -> None:
    with writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
    size = CLIPS_PER_PART[source.media]
    chunks = {start: source.records[start : start + size] for start in range(0, len(source.records), size)}
    todo = {start: chunk for start, chunk in chunks.items() if not is_done(parts, start)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    time_columns = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *time_columns, console=Console(stderr=True)) as progress:
        finished = sum(len(chunks[start]) for start in chunks.keys() - todo.keys())
        bar = progress.add_task("preparing", total=len(source.records), completed=finished)
        for start in _run(todo, source, settings, parts, num_processes, device, cluster):
            progress.advance(bar, len(chunks[start]))


def _run(
    todo: dict[int, list[ClipRecord]],
    source: LabelledSource,
    settings: PreparationSettings,
    parts: Path,
    num_processes: int,
    device: torch.device,
    cluster: RayCluster | None,
) -> Iterator[int]:
    """Prepare these parts, here or on a cluster; yields each part's number when it is on disk."""
    work = (source.read, source.media, settings, parts)
    if cluster is not None:
        prepare_one = partial(_prepare_chunk, *work, torch.device(cluster.device))
        yield from cluster.each(prepare_one, list(todo.items()), parts.parent / PLAN_FILE)
        return
    # Pictures that are already faces are only read; sending them to other processes would cost more.
    if num_processes == 1 or len(todo) < 2 or (source.media in ("picture", "frames") and not settings.face_crop):
        for start, chunk in todo.items():
            prepare_part(chunk, *work, start, device)
            yield start
        return
    prepare_one = partial(_prepare_chunk, *work, device)  # spawned processes may use CUDA, forked ones not
    with spawned(
        prepare_one, list(todo.items()), min(num_processes, len(todo)), partial(leave_with_parent, os.getpid())
    ) as futures:
        for done in as_completed(futures):
            yield done.result()


def _prepare_chunk(
    read: Callable[[ClipRecord], Content],
    media: Media,
    settings: PreparationSettings,
    parts: Path,
    device: torch.device,
    numbered: tuple[int, list[ClipRecord]],
) -> int:
    start, chunk = numbered
    prepare_part(chunk, read, media, settings, parts, start, device)
    return start


def _join_parts(
    source: LabelledSource,
    settings: PreparationSettings,
    root: Path,
    output: Path,
    drop_conflicts: bool,
    may_be_empty: bool,
) -> PreparedData:
    tables, rejects = [], list(source.rejects)
    for start in range(0, len(source.records), CLIPS_PER_PART[source.media]):
        table, rejected = read_part(output / "parts", start)
        tables += [table] if table is not None else []
        rejects += rejected
    if not tables and not may_be_empty:
        raise DataError(
            f"Expected usable clips in {root}, all {len(source.records)} were rejected; the first: {rejects[0].reason}"
        )
    rows = concatenate_datasets(tables) if tables else Dataset.from_dict({name: [] for name in FEATURES}, FEATURES)
    conflicts = conflicting_rows(rows)
    if drop_conflicts and conflicts:
        rows, dropped = without_conflicts(rows, conflicts)
        rejects += dropped
    provenance = Provenance(
        version=DATA_VERSION,
        kind=source.kind,
        media=source.media,
        source=root.name.encode("utf-8", "replace").decode(),  # a name that is not valid text cannot be stored in JSON
        drawn=source.drawn,
        settings=settings,
        notes=source.notes,
        **dict(count_clips(source, rows, rejects)),
        label_conflicts=LabelConflicts(
            groups=len(conflicts), pictures=sum(map(len, conflicts)), dropped=drop_conflicts
        ),
    )
    with writing(output):
        return write_prepared(rows, rejects, provenance, output)


def without_conflicts(rows: Dataset, conflicts: Sequence[Sequence[int]]) -> tuple[Dataset, list[Reject]]:
    """The rows that are in no group of `row_facts.conflicting_rows`, and a reject for each of the others."""
    dropped = np.array(sorted(row for group in conflicts for row in group))
    reason = "the same picture is there with another label"
    twins = rows.select_columns(["source_path", "clip_id"]).select(dropped)
    rejects = [Reject(twin["source_path"], twin["clip_id"], "conflict", reason) for twin in twins]
    return rows.select(np.setdiff1d(np.arange(len(rows)), dropped)), rejects


def count_clips(source: LabelledSource, rows: Dataset, rejects: Sequence[Reject]) -> ClipCounts:
    """Inputs, outputs and rejects, by clip and by window.

    A clip with at least one usable window is an output; its other windows are rejected windows.

    Raises:
        DataError: they do not add up, as in a damaged folder.
    """
    outputs = set(rows["clip_id"][:])
    at_reading = len(source.rejects)
    lost = {record.clip_id for record in source.records} - outputs
    missing = lost - {reject.clip_id for reject in rejects[at_reading:]}
    if missing:
        raise DataError(
            f"{len(missing)} clips are neither prepared nor rejected, such as {min(missing)}; delete the output folder "
            "and prepare again."
        )
    windows = sum(reject.window_index is not None for reject in rejects)
    return ClipCounts(
        inputs=len(source.records) + at_reading,
        outputs=len(outputs),
        rejects=len(lost) + at_reading,
        windows=InputCounts(inputs=len(rows) + windows, outputs=len(rows), rejects=windows),
    )


def describe_counts(description: DatasetDescription) -> str:
    """One line: inputs = outputs + rejects, and the rejects by stage."""
    stages = ", ".join(f"{stage} {count}" for stage, count in description.rejects_by_stage.items())
    line = f"inputs {description.inputs} = outputs {description.outputs} + rejects {description.rejects}"
    windows = description.windows
    if windows.outputs != description.outputs:
        line += f"; windows {windows.inputs} = {windows.outputs} + {windows.rejects}"
    return f"{line}{f' ({stages})' if stages else ''}"
