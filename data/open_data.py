"""The data that a user names → a prepared data set: opened directly, or prepared and audited into the cache first.

A split that cannot be trusted is refused here; the description of the data for results is made here.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

from ..processor.input_errors import LeakageError, RecipeError
from .atomic_files import writing
from .audit.leakage import audit
from .audit.page import read_audit, write_audit
from .audit.verdicts import FAIL, AuditRecord
from .described_data import DescribedData, PreparedWith
from .hub_source import local_folder
from .locked_folder import alone_in
from .preparation.description import DATA_VERSION, TRAINING_VERSION, read_description
from .preparation.integrity import DamagedDataError, require_undamaged
from .preparation.prepare import describe_counts, plan_of, prepare
from .preparation.prepared_data import PreparedData, is_prepared, load_prepared
from .preparation.settings import FrameOptions, settings_for
from .readers.sources import SourceOptions, read_source

PREPARATION_OPTIONS = tuple(option.name for option in fields(FrameOptions))
SOURCE_OPTIONS = ("subset", "subject_pattern")  # their meaning depends on the source
_OLD_NAMES = {"face_crop_size": "face_crop_size_px"}  # in recipes and results of earlier versions

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class DataOptions:
    """Which data to use, and how to read and prepare a raw source; None: the default for the source."""

    path: Path  # a prepared data set, here or on the Hub, or a raw source
    label_scheme: str | None = None
    kind: str | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    frames: FrameOptions = field(default_factory=FrameOptions)
    drop_conflicts: bool = False
    cache_dir: Path = Path("runs/cache")
    num_processes: int | None = None


def with_current_names(options: Mapping[str, _Value]) -> dict[str, _Value]:
    """Options under their current names; names from earlier versions are translated."""
    return {_OLD_NAMES.get(name, name): value for name, value in options.items()}


def open_or_prepare(options: DataOptions) -> PreparedData:
    """The named prepared data set, downloaded from the Hub if necessary, or the raw source prepared and audited into
    the cache.

    Raises:
        DataError: nothing is there, or nothing usable.
        RecipeError: options that do not fit the source.
    """
    options = replace(options, path=local_folder(options.path, options.cache_dir))
    if is_prepared(options.path):
        require_undamaged(options.path)
        prepared = load_prepared(options.path)
        if audit_of(prepared) is not None:
            audit_under_the_scheme(prepared, options.label_scheme)
        return prepared
    source = read_source(options.kind, options.path, options.source, options.frames)
    settings = settings_for(source.media, options.frames)
    plan = plan_of(source, settings, options.path, options.drop_conflicts)
    folder = options.cache_dir / f"{source.kind}-{plan[:12]}"
    if is_prepared(folder):
        _forget_damaged(folder)
    else:
        _tell_of_older(options, source.kind)
        before = replace(settings, as_played=False)
        as_stored = (
            options.cache_dir / f"{source.kind}-{plan_of(source, before, options.path, options.drop_conflicts)[:12]}"
        )
        if settings.as_played and is_prepared(as_stored):
            print(
                f"{options.path} is prepared again with frames as a player shows them: {as_stored} has frames as "
                "stored in the file; as_played false uses those"
            )
    prepared = prepare(source, settings, options.path, folder, options.num_processes, options.drop_conflicts)
    print(f"{options.path} -> {folder}: {describe_counts(prepared.description)}")
    audit_under_the_scheme(prepared, options.label_scheme)
    return prepared


def require_same_frames(options: DataOptions, prepared: PreparedData) -> None:
    """Clips must have been sampled and cropped as the model's processor does it; pictures need no check. Frames that
    come as pictures have no times and are faces already, so only their number must match.

    Raises:
        RecipeError: they differ.
    """
    if prepared.description.media == "picture":
        return
    is_frames = prepared.description.media == "frames"
    for name in ("num_frames",) if is_frames else ("num_frames", "sampling", "face_crop", "face_crop_size_px"):
        stored, expected = (getattr(told, name) for told in (prepared.description.settings, options.frames))
        if expected is not None and stored != expected:
            raise RecipeError(
                f"The model reads frames with {name} {expected}, but {prepared.folder} was prepared with {stored}; "
                "pass the raw source, or prepare it with the model's value."
            )


def _forget_damaged(folder: Path) -> None:
    """Damaged data in the cache is reported and prepared again, since its source is still there."""
    try:
        require_undamaged(folder)
    except DamagedDataError as error:
        print(f"prepared again: {error}", flush=True)
        with alone_in(folder, "preparation"), writing(folder):
            shutil.rmtree(folder)


def _tell_of_older(options: DataOptions, kind: str) -> None:
    """Print one line if the cache contains this source as prepared by an earlier version, which is no longer used."""
    for folder in sorted(options.cache_dir.glob(f"{kind}-*")):
        if is_prepared(folder):
            known = read_description(folder)
            if known.version < TRAINING_VERSION and known.source == options.path.name:
                print(
                    f"{options.path} is prepared again: {folder} has version {known.version} of prepared data, the "
                    f"current one is {DATA_VERSION}; delete it to free disk space"
                )


def audit_under_the_scheme(prepared: PreparedData, label_scheme: str | None = None) -> None:
    """Audit the data, under the labels to be trained on, unless it was audited in its current state."""
    scheme = prepared.choose_label_scheme(label_scheme)
    audited = audit_of(prepared)
    if audited is not None and audited.label_scheme == scheme:
        return
    found = audit(prepared, scheme)
    write_audit(found, prepared, prepared.folder)
    print(f"audit of {prepared.folder}: {'passed' if found.passed else 'failed'}; see audit.html there")


def audit_of(prepared: PreparedData) -> AuditRecord | None:
    """The content of `audit.json`; None if the data was not audited in its current state.

    Raises:
        DataError: it is damaged.
    """
    found = read_audit(prepared.folder)
    return found if found is not None and found.fingerprint == prepared.fingerprint else None


def require_audit(prepared: PreparedData) -> None:
    """
    Raises:
        LeakageError: the data was not audited in its current state, or its split cannot be trusted.
        DataError: the audit is damaged.
    """
    audited = audit_of(prepared)
    if audited is None:
        raise LeakageError(
            f"{prepared.folder} was not audited in its current state; run `engagement audit {prepared.folder}`, or "
            "pass --allow_leakage, which the results will record."
        )
    if not audited.passed:
        failed = {finding.name: finding.summary for finding in audited.findings if finding.grade == FAIL}
        remedy = f"Run `engagement audit {prepared.folder} --suggest-split FOLDER`"
        if set(failed) == {"one-recording classes"}:
            remedy = "No split can fix that: add recordings of these classes"
        raise LeakageError(
            f"The split of {prepared.folder} cannot be trusted, its audit failed: {' '.join(failed.values())} "
            f"{remedy}, or pass --allow_leakage, which the results will record."
        )


def describe_data(prepared: PreparedData, label_scheme: str, examples: Mapping[str, int]) -> DescribedData:
    """Description of the evaluated data for results.

    Args:
        examples: split → number of labelled windows or pictures used.

    Raises:
        DataError: the data's audit is damaged.
    """
    description, audited = prepared.description, audit_of(prepared)
    return DescribedData(
        kind=description.kind,
        source=description.source,
        fingerprint=prepared.fingerprint,
        drawn=description.drawn,
        label_scheme=label_scheme,
        split=description.notes.split,
        inputs=description.inputs,
        rejected=description.rejects,
        rejects_by_stage=description.rejects_by_stage,
        label_conflicts=description.label_conflicts,
        subjects={split: counts.subjects for split, counts in description.splits.items()},
        no_subjects=description.notes.no_subjects,
        examples=dict(examples),
        window_span_sec=prepared.window_span_sec(),
        audit=None if audited is None else audited.in_short(),
    )


def describe_preparation(prepared: PreparedData) -> PreparedWith:
    """Options that prepare the same data from the same source again, besides its kind and dropped conflicts."""
    settings, notes = prepared.description.settings, prepared.description.notes
    return PreparedWith(
        num_frames=settings.num_frames,
        sampling=settings.sampling,
        window_stride_frames=settings.window_stride_frames,
        face_crop=settings.face_crop,
        face_crop_size_px=settings.face_crop_size_px,
        as_played=settings.as_played if prepared.description.media == "video" else None,
        subset=notes.subset,
        subject_pattern=notes.subject_pattern,
        no_subjects=notes.no_subjects,
        pictures_as={"picture": "pictures", "frames": "clips"}.get(prepared.description.media),
        window_label=notes.window_label,
        vote_labels=notes.vote_labels,
        split_seed=notes.seed or 0,
    )
