"""Prepares data in shards and joins them to what a single run would have made, with new counts.

Tables are linked, not copied, where the file system supports it; only names, labels and hashes are read, in batches.
Tables are rewritten only if conflicting pictures are dropped.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets

from ...processor.input_errors import DataError
from ..atomic_files import claim_folder, writing
from ..checksums import CHECKSUMS_FILE
from ..described_data import LabelConflicts
from ..json_records import read_record
from ..locked_folder import alone_in
from ..schema import SPLITS, LabelledSource
from ..shards import SHARD_FILE, Shard, ShardRecord, digest_of, finish_shard, join_csv, read_shards
from .description import DatasetDescription, InputCounts, Provenance, SplitCounts
from .prepare import PLAN_FILE, prepare, without_conflicts
from .prepared_data import (
    MANIFEST_FILE,
    REJECTS_FILE,
    PreparedData,
    finish_prepared,
    is_prepared,
    load_prepared,
    read_rejects,
    write_prepared,
)
from .row_facts import LABELS, clips_of, conflicting_rows, current_fingerprint, people_of, repeated_window
from .settings import PreparationSettings

_STATE, _INFO = "state.json", "dataset_info.json"  # files of a split saved by the datasets library
_COUNTS = ("inputs", "outputs", "rejects")
_DROP = "drop_conflicts"


def prepare_shard(
    source: LabelledSource,
    settings: PreparationSettings,
    root: Path,
    output: Path,
    shard: Shard,
    num_processes: int | None,
    drop_conflicts: bool,
    device: torch.device,
) -> PreparedData:
    """Prepare one shard in its own folder below `output`; a repeated call resumes it, or finds it finished.

    Args:
        source: the whole source. Conflicting pictures are found, and dropped, when shards are joined.

    Raises:
        DataError: as in `prepare`, but an empty shard is not an error.
    """
    own = replace(
        source, records=list(shard.share(source.records)), rejects=source.rejects if shard.number == 1 else []
    )
    folder = shard.folder(output)
    prepared = prepare(own, settings, root, folder, num_processes, device=device, may_be_empty=True)
    mark_shard(prepared, shard, digest_of(vars(item) for item in (*source.records, *source.rejects)), drop_conflicts)
    return prepared


def mark_shard(prepared: PreparedData, shard: Shard, inputs: str, drop_conflicts: bool) -> None:
    """Mark a finished data set as a complete shard.

    Args:
        inputs: `digest_of` the inputs of all shards.

    Raises:
        DataError: it cannot be written.
    """
    described = prepared.description
    made_with = {"kind": described.kind, "settings": json.dumps(asdict(described.settings))}
    made_with |= {_DROP: str(drop_conflicts), **described.versions}
    finish_shard(prepared.folder, "prepare", shard, inputs, made_with)


def join_shards(folder: Path, output: Path) -> PreparedData:
    """The data set that one run of `prepare` would have made: the same rows, fingerprint, rejects and counts.

    Args:
        folder: contains all shards, which stay unchanged.
        output: an empty folder, or one in which joining these shards was started or finished.

    Raises:
        DataError: a shard is missing, unfinished or made with different settings, two contain the same clip, all are
            empty, or the output has other content.
    """
    shards = read_shards(folder, "prepare")
    parts = [load_prepared(shard) for shard in shards]
    claim = digest_of([part.fingerprint for part in parts])
    with alone_in(output, "preparation"):
        if claim_folder(output, PLAN_FILE, claim, "prepared data") != claim:
            raise DataError(f"{output} has other data than these shards; choose an empty folder.")
        if not is_prepared(output):
            _join(shards, parts, output)
    return load_prepared(output)


def _join(shards: Sequence[Path], parts: Sequence[PreparedData], output: Path) -> None:
    splits = {
        split: concatenate_datasets([part.splits[split] for part in parts if split in part.splits])
        for split in SPLITS
        if any(split in part.splits for part in parts)
    }
    folder = shards[0].parent
    if not splits:
        raise DataError(f"None of the {len(parts)} shards of {folder} has a usable clip: all were rejected.")
    rows = concatenate_datasets(list(splits.values()))
    if repeated := repeated_window(rows):
        raise DataError(f"Window {repeated[1]} of clip {repeated[0]} occurs twice in {folder}.")
    conflicts = conflicting_rows(rows)
    record = read_record(shards[0] / SHARD_FILE, ShardRecord, DataError, "a shard", "run it again")
    drop = record.made_with[_DROP] == str(True)
    told = [part.description for part in parts]
    found = LabelConflicts(groups=len(conflicts), pictures=sum(map(len, conflicts)), dropped=drop)
    shared = {name: getattr(told[0], name) for name in Provenance.model_fields}
    provenance = Provenance(**shared | _sums(told) | {"label_conflicts": found})
    with writing(output):
        if drop and conflicts:
            _write_without_conflicts(rows, conflicts, provenance, parts, output)
            return
        for split in splits:
            _link_split(split, shards, output / split)
        names = json.dumps({"splits": list(splits)})
        (output / "dataset_dict.json").write_text(names, encoding="utf-8")
        for name in (MANIFEST_FILE, REJECTS_FILE):
            join_csv([shard / name for shard in shards], output / name)
        _join_checksums(shards, output)
    by_stage = sum((Counter(part.rejects_by_stage) for part in told), Counter[str]())
    counted = {split: _count(split, splits, told) for split in SPLITS}
    finish_prepared(output, provenance, current_fingerprint(splits), counted, by_stage)


def _sums(told: Sequence[DatasetDescription]) -> dict[str, int | InputCounts]:
    """Sums of the shards' counts; no clip is in two shards, so that all counts except those of people add up."""
    windows = [part.windows for part in told]
    return {
        **{name: sum(getattr(part, name) for part in told) for name in _COUNTS},
        "windows": InputCounts(**{name: sum(getattr(part, name) for part in windows) for name in _COUNTS}),
    }


def _count(split: str, splits: Mapping[str, Dataset], told: Sequence[DatasetDescription]) -> SplitCounts:
    parts = [part.splits[split] for part in told]
    labels: dict[str, dict[str, int]] = {}
    for name in LABELS:
        counts = sum((Counter(getattr(part, name) or {}) for part in parts), Counter[str]())
        labels |= {name: dict(sorted(counts.items()))} if counts else {}
    return SplitCounts(
        clips=sum(part.clips for part in parts),
        windows=sum(part.windows for part in parts),
        subjects=len(people_of(splits[split])) if split in splits else 0,
        **labels,
    )


def _write_without_conflicts(
    rows: Dataset,
    conflicts: Sequence[Sequence[int]],
    provenance: Provenance,
    parts: Sequence[PreparedData],
    output: Path,
) -> None:
    kept, dropped = without_conflicts(rows, conflicts)
    lost = {reject.clip_id for reject in dropped} - clips_of(kept)  # some windows of a clip may remain
    windows = provenance.windows
    update = {
        "outputs": provenance.outputs - len(lost),
        "rejects": provenance.rejects + len(lost),
        "windows": InputCounts(
            inputs=windows.inputs - len(dropped), outputs=windows.outputs - len(dropped), rejects=windows.rejects
        ),
    }
    rejects = [reject for part in parts for reject in read_rejects(part)]
    write_prepared(kept, [*rejects, *dropped], provenance.model_copy(update=update), output)


def _link_split(split: str, shards: Sequence[Path], output: Path) -> None:
    """Link the tables of all shards under new names, with the files that the datasets library stores with them."""
    with_rows = [shard / split for shard in shards if (shard / split).is_dir()]
    state = json.loads((with_rows[0] / _STATE).read_text(encoding="utf-8"))
    output.mkdir(exist_ok=True)
    names = []
    for number, table in enumerate(_tables(with_rows)):
        names.append(f"data-{number:06}.arrow")
        _link(table, output / names[-1])
    shutil.copyfile(with_rows[0] / _INFO, output / _INFO)
    state |= {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": digest_of(map(str, with_rows))[:16],
    }
    (output / _STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")


def _tables(folders: Sequence[Path]) -> Iterator[Path]:
    """The tables in a split's folders, in the order of their rows."""
    for folder in folders:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        yield from (folder / file["filename"] for file in state["_data_files"])


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # left by a join that was killed
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _join_checksums(shards: Sequence[Path], output: Path) -> None:
    """Checksums of linked tables are taken from the shards, without reading the tables."""
    known: dict[Path, str] = {}
    for shard in shards:
        lines = (shard / CHECKSUMS_FILE).read_text(encoding="utf-8").splitlines()
        known |= {shard / name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    with (output / CHECKSUMS_FILE).open("w", encoding="utf-8") as file:
        for split in SPLITS:
            folders = [shard / split for shard in shards if (shard / split).is_dir()]
            for number, table in enumerate(_tables(folders)):
                file.write(f"{known[table]}  {split}/data-{number:06}.arrow\n")
