"""Data that somebody names → a prepared data set: opened as it is, or prepared and audited into the cache first.

A split that cannot be trusted is refused here; what results say of the data is written here.
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
from .described_data import AuditSummary, DescribedData, FindingSummary, PreparedWith
from .hub_source import local_folder
from .locked_folder import alone_in
from .preparation.description import DATA_VERSION, TRAINING_VERSION, read_description
from .preparation.integrity import DamagedDataError, require_undamaged
from .preparation.prepare import describe_counts, plan_of, prepare
from .preparation.prepared_data import PreparedData, is_prepared, load_prepared
from .preparation.settings import FrameOptions, settings_for
from .readers.sources import SourceOptions, read_source

PREPARATION_OPTIONS = tuple(option.name for option in fields(FrameOptions))
SOURCE_OPTIONS = ("subset", "subject_pattern")  # what they mean depends on the source
_OLD_NAMES = {"face_crop_size": "face_crop_size_px"}  # in recipes and results of earlier versions

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how a raw source is read and prepared; what is None is what suits the source."""

    path: Path  # a prepared data set, here or on the Hub, or a raw source
    label_scheme: str | None = None
    kind: str | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    frames: FrameOptions = field(default_factory=FrameOptions)
    drop_conflicts: bool = False
    cache_dir: Path = Path("runs/cache")
    num_processes: int | None = None


def with_current_names(options: Mapping[str, _Value]) -> dict[str, _Value]:
    """Options under the names they have today; what earlier versions wrote goes on being read."""
    return {_OLD_NAMES.get(name, name): value for name, value in options.items()}


def open_or_prepare(options: DataOptions) -> PreparedData:
    """The prepared data set that is named, fetched from the Hub if it lies there, or the raw source prepared and
    audited into the cache.

    Raises:
        DataError: nothing is there, or nothing that can be used.
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
                f"{options.path} is prepared again, as a player shows it: {as_stored} has frames as they are stored; "
                "as_played false goes on with those"
            )
    prepared = prepare(source, settings, options.path, folder, options.num_processes, options.drop_conflicts)
    print(f"{options.path} -> {folder}: {describe_counts(prepared.description)}")
    audit_under_the_scheme(prepared, options.label_scheme)
    return prepared


def require_same_frames(options: DataOptions, prepared: PreparedData) -> None:
    """Pictures come as they are; clips must have been cut and cropped as the model's processor does it. Of frames that
    come as pictures nobody knows the times, and they are faces already: so many there must be, and no more is asked.

    Raises:
        RecipeError: they were not.
    """
    if prepared.description.media == "picture":
        return
    is_frames = prepared.description.media == "frames"
    for name in ("num_frames",) if is_frames else ("num_frames", "sampling", "face_crop", "face_crop_size_px"):
        stored, expected = (getattr(told, name) for told in (prepared.description.settings, options.frames))
        if expected is not None and stored != expected:
            raise RecipeError(
                f"Expected {name} {expected}, as the model reads its frames, got {prepared.folder} prepared with "
                f"{stored}; pass the raw source, or prepare it so."
            )


def _forget_damaged(folder: Path) -> None:
    """The cache is ours, and its source is there: what a disk has damaged is said, and made again."""
    try:
        require_undamaged(folder)
    except DamagedDataError as error:
        print(f"prepared again: {error}", flush=True)
        with alone_in(folder, "preparation"), writing(folder):
            shutil.rmtree(folder)


def _tell_of_older(options: DataOptions, kind: str) -> None:
    """One line where the cache holds this source as an earlier version prepared it, which is not used any more."""
    for folder in sorted(options.cache_dir.glob(f"{kind}-*")):
        if is_prepared(folder):
            known = read_description(folder)
            if known.version < TRAINING_VERSION and known.source == options.path.name:
                print(
                    f"{options.path} is prepared again: {folder} is of version {known.version} of prepared data, and "
                    f"today's is {DATA_VERSION}; delete it to save its space"
                )


def audit_under_the_scheme(prepared: PreparedData, label_scheme: str | None = None) -> None:
    """Audit what nobody has audited as it is now, under the labels that will be trained on."""
    scheme = prepared.choose_label_scheme(label_scheme)
    audited = audit_of(prepared)
    if audited is not None and audited.label_scheme == scheme:
        return
    found = audit(prepared, scheme)
    write_audit(found, prepared, prepared.folder)
    print(f"audit of {prepared.folder}: {'passed' if found.passed else 'failed'}; see audit.html there")


def audit_of(prepared: PreparedData) -> AuditRecord | None:
    """What `audit.json` holds; None where nobody has audited the data as it is now.

    Raises:
        DataError: it is damaged.
    """
    found = read_audit(prepared.folder)
    return found if found is not None and found.fingerprint == prepared.fingerprint else None


def require_audit(prepared: PreparedData) -> None:
    """
    Raises:
        LeakageError: nobody has audited the data as it is now, or its split cannot be trusted.
        DataError: the audit is damaged.
    """
    audited = audit_of(prepared)
    if audited is None:
        raise LeakageError(
            f"Expected an audit of {prepared.folder} as it is now, found none; run `engagement audit "
            f"{prepared.folder}`, or pass --allow_leakage, which the results will say."
        )
    if not audited.passed:
        failed = {finding.name: finding.summary for finding in audited.findings if finding.grade == FAIL}
        remedy = f"Run `engagement audit {prepared.folder} --suggest-split FOLDER`"
        if set(failed) == {"one-recording classes"}:
            remedy = "No split can mend that: add recordings of these classes"
        raise LeakageError(
            f"Expected a split that can be trusted in {prepared.folder}, the audit failed: {' '.join(failed.values())} "
            f"{remedy}, or pass --allow_leakage, which the results will say."
        )


def describe_data(prepared: PreparedData, label_scheme: str, examples: Mapping[str, int]) -> DescribedData:
    """What results say of the data they were measured on.

    Args:
        examples: split → labelled windows or pictures that were used.

    Raises:
        DataError: its audit is damaged.
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
        audit=None if audited is None else _in_short(audited),
    )


def _in_short(audited: AuditRecord) -> AuditSummary:
    findings = [FindingSummary(name=found.name, grade=found.grade, summary=found.summary) for found in audited.findings]
    return AuditSummary(passed=audited.passed, findings=findings)


def describe_preparation(prepared: PreparedData) -> PreparedWith:
    """The options under which the same source becomes the same data again, beside its kind and dropped conflicts."""
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
