"""A prepared data set → the Hub: Parquet that `datasets` and the Hub's viewer read, its description, audit and card.

Data whose terms forbid sharing is refused, except drawn people. Pushed data is private by default, except drawn people,
whom it cannot hurt. Names of local folders are not published.
"""

import csv
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.atomic_files import unfinished_beside, writing
from ..data.audit.page import read_audit
from ..data.audit.verdicts import AuditRecord
from ..data.checksums import CHECKSUMS_FILE, write_checksums
from ..data.hub_source import BESIDE_TABLES
from ..data.locked_folder import alone_in
from ..data.open_data import audit_of, audit_under_the_scheme
from ..data.parquet_tables import TABLES_FOLDER, write_tables
from ..data.preparation.description import DESCRIPTION_FILE, read_description
from ..data.preparation.integrity import require_undamaged
from ..data.preparation.prepared_data import REJECTS_FILE, PreparedData, load_prepared
from ..data.schema import SPLITS, LabelledSource
from ..processor.input_errors import DataError
from .data_card import write_data_card
from .publish import require_hub_names
from .push import Pushed, check_repository, push_folder

# Kinds of data that must not be shared, and whose they are; drawn people in the same layout may be.
_TERMS = {
    "daisee": "DAiSEE, which its authors give for research on request",
    "reference-h5": "frames of DAiSEE, which its authors give for research on request",
    "fer2013": "FER2013, pictures of people who were not asked, given under the rules of its competition",
    "engagenet": "EngageNet, which its authors give to those who sign its agreement",
    "affectnet": "AffectNet, which its authors give to institutions that sign its agreement",
    "rafdb": "RAF-DB, which its authors give for research on request",
}
_RATED = "data rated like DAiSEE (boredom, engagement, confusion, frustration), which is treated as DAiSEE"
_TABLE = re.compile(rf"{TABLES_FOLDER}/({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}\.parquet")
_PATH_START = r"(?<![^\s'\"(\[])(?:[A-Za-z]:[/\\]|[/~]|\\\\)"  # of an absolute path


def _kind_in_words(description_file: Path) -> str:
    try:
        described = read_description(description_file.parent)
    except DataError:
        return "no prepared data"
    return f"{'drawn ' if described.drawn else ''}{described.kind}, {described.media}"


DATA_SET = Pushed(
    repo_type="dataset",
    noun="data set",
    described_in=DESCRIPTION_FILE,
    may_hold=lambda name: name in (*BESIDE_TABLES, CHECKSUMS_FILE) or bool(_TABLE.fullmatch(name)),
    identity=_kind_in_words,
    card_remedy="correct what it names, such as --license, and push again",
)


def check_push(
    source: LabelledSource,
    repository: str,
    public: bool | None = None,
    license_name: str | None = None,
    token: str | None = None,
) -> None:
    """Check, before hours of preparing a source, whether a push would be refused.

    Raises:
        RecipeError: the Hub does not accept an id or the licence.
        DataError: the data must not be shared.
        EngagementInputError: the Hub does not answer, or the repository's content must not be replaced.
    """
    require_hub_names(repository, license_name)
    _require_free(source.kind, source.drawn, any(record.affects for record in source.records))
    check_repository(repository, _is_private(public, source.drawn), license_name, DATA_SET, token)


def push_data(
    folder: Path,
    repository: str,
    public: bool | None = None,
    license_name: str | None = None,
    token: str | None = None,
) -> str:
    """Push the prepared data set in `folder`, which is not changed; returns the repository's address.

    Data without a current audit is audited first. Can be repeated after a failure: files that the Hub has are not sent
    again.

    Args:
        repository: org/name; an earlier version of the data set there is replaced.
        public: None: only drawn people are public.
        license_name: the data's licence in the Hub's spelling; None: unknown.

    Raises:
        RecipeError: the Hub does not accept an id or the licence.
        DataError: the data must not be shared, is damaged, or names local folders.
        EngagementInputError: the Hub refused or did not answer, the repository contains something else, or is public
            although a private one was requested.
    """
    require_hub_names(repository, license_name)
    require_undamaged(folder)
    prepared = load_prepared(folder)
    described = prepared.description
    _require_free(described.kind, described.drawn, "binary" in prepared.label_schemes)
    _require_relative(prepared)
    if audit_of(prepared) is None:
        audit_under_the_scheme(prepared)
    audited = read_audit(folder)
    assert audited is not None
    if not audited.passed:
        print("take care: its split failed the audit for leakage, and the card says so", file=sys.stderr)
    with _unfinished(folder) as staged:
        _assemble(prepared, audited, staged, repository, license_name)
        return push_folder(staged, repository, _is_private(public, described.drawn), token, DATA_SET, folder)


def _is_private(public: bool | None, is_drawn: bool) -> bool:
    return not (is_drawn if public is None else public)


def _require_free(kind: str, is_drawn: bool, is_rated: bool) -> None:
    """Raises DataError for data that must not be shared."""
    found = _TERMS.get(kind, _RATED if is_rated else None)
    if found and not is_drawn:
        raise DataError(f"This is {found}; it must not be shared and is not pushed, not even to a private repository.")


def _require_relative(prepared: PreparedData) -> None:
    """Raises DataError if rows contain absolute paths, as tables of videos may."""
    for rows in prepared.splits.values():
        for column in ("source_path", "clip_id"):
            named = next((name for name in rows.unique(column) if re.match(_PATH_START, name)), None)
            if named is not None:
                raise DataError(
                    f"{prepared.folder} contains the absolute path {named}, which would be published; use paths "
                    "relative to the table's folder, and prepare the data again."
                )


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A temporary folder for the files until they are on the Hub."""
    staged = unfinished_beside(folder.resolve().with_name(f"{folder.resolve().name}_hub"))
    with alone_in(folder, "push"):
        try:
            with writing(staged):
                shutil.rmtree(staged, ignore_errors=True)  # left by a killed push
                staged.mkdir()
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _assemble(
    prepared: PreparedData, audited: AuditRecord, staged: Path, repository: str, license_name: str | None
) -> None:
    print(f"{prepared.folder}: writing Parquet for {repository}", flush=True)
    with writing(staged):
        names = write_tables(prepared.splits, staged)
        beside = [
            name for name in BESIDE_TABLES if (prepared.folder / name).is_file()
        ]  # not the page, which shows people
        for name in beside:
            shutil.copyfile(prepared.folder / name, staged / name)
        _leave_out_places(staged / REJECTS_FILE)
        write_checksums(staged, [*names, *beside])
        write_data_card(staged, prepared, audited, repository, license_name)


def _leave_out_places(rejects: Path) -> None:
    """Remove local folders from the reasons of rejects."""
    with rejects.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = reader.fieldnames or (), list(reader)
    with rejects.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            if row["path"] and not re.match(_PATH_START, row["path"]):
                row["reason"] = re.sub(f"{_PATH_START}.*?(?={re.escape(row['path'])})", "", row["reason"])
            writer.writerow({name: re.sub(f"{_PATH_START}.*", "...", text) for name, text in row.items()})
