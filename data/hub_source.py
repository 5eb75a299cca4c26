"""A data set that was pushed to the Hub → an ordinary prepared data set in the cache, downloaded and converted once.

It is named `hf://org/name` or `hf://org/name@REVISION`. The download is compared with its checksums, and the
fingerprint computed from its rows with the recorded one; an audit that was pushed with the data is stored with it.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..processor.input_errors import DataError
from .atomic_files import whole_folder, writing
from .audit.page import AUDIT_FILE, DUPLICATES_FILE
from .checksums import CHECKSUMS_FILE, what_changed
from .hub_errors import cause_of, reason_of, wants_a_token
from .json_records import read_record
from .locked_folder import waiting_for
from .parquet_tables import TABLES_FOLDER, read_tables
from .preparation.description import DESCRIPTION_FILE, DatasetDescription, Provenance
from .preparation.prepare import describe_counts
from .preparation.prepared_data import REJECTS_FILE, is_prepared, load_prepared, write_prepared

BESIDE_TABLES = (DESCRIPTION_FILE, REJECTS_FILE, AUDIT_FILE, DUPLICATES_FILE)  # the last two if there is an audit
_PREFIX = re.compile(r"hf:/{1,2}")  # pathlib merges two slashes into one
_NAME = re.compile(r"(?:datasets/)?([^/@]+/[^/@]+)(?:@(.+))?")
_REMEDY = "ask the owner of {} to push it again"
_HOW = "write it as hf://org/name or hf://org/name@REVISION"


@dataclass(frozen=True)
class HubData:
    """A data set on the Hub."""

    repository: str  # org/name
    revision: str | None  # branch, tag or commit; None: the newest

    def __str__(self) -> str:
        return f"hf://{self.repository}{f'@{self.revision}' if self.revision else ''}"


def is_on_hub(data: Path | str) -> bool:
    """Whether this names a data set on the Hub and not a path on this disk."""
    return bool(_PREFIX.match(Path(data).as_posix()))


def local_folder(data: Path, cache_dir: Path = Path("runs/cache")) -> Path:
    """A local path unchanged; for a data set on the Hub its folder in the cache, downloaded first if needed.

    Raises:
        DataError: no such data set, not in this project's format, damaged in transfer, or the Hub does not answer.
    """
    return fetch(parse_name(data), cache_dir) if is_on_hub(data) else data


def data_name(data: Path) -> str:
    """The data's name in records: the last part of a path, or the full name on the Hub."""
    return str(parse_name(data)) if is_on_hub(data) else data.name


def parse_name(data: Path | str) -> HubData:
    """
    Raises:
        DataError: it is not a name of a data set on the Hub.
    """
    text = Path(data).as_posix()
    match = _NAME.fullmatch(_PREFIX.sub("", text, count=1))
    try:
        if match:
            validate_repo_id(match[1])
            return HubData(match[1], match[2])
    except HFValidationError:
        pass
    raise DataError(f"{text.replace('hf:/', 'hf://', 1)!r} is not the name of a data set on the Hub; {_HOW}.")


def fetch(data: HubData, cache_dir: Path) -> Path:
    """The folder in the cache that holds this data set, named by repository and commit; raises as `local_folder`."""
    name = data.repository
    with _hub_refusals(data):
        described = Path(hf_hub_download(name, DESCRIPTION_FILE, repo_type="dataset", revision=data.revision))
    remedy = f"update this package, or {_REMEDY.format(data)}"
    description = read_record(described, DatasetDescription, DataError, f"a prepared data set at {data},", remedy)
    commit = described.parent.name
    folder = cache_dir / f"hub-{name.replace('/', '--')}-{commit[:12]}"
    with waiting_for(folder):
        if not is_prepared(folder):
            wanted = [*BESIDE_TABLES, CHECKSUMS_FILE, f"{TABLES_FOLDER}/*.parquet"]
            with _hub_refusals(data):  # files that are already in the Hub's own cache are not downloaded again
                snapshot = snapshot_download(name, repo_type="dataset", revision=commit, allow_patterns=wanted)
            _convert(Path(snapshot), description, folder, data)
    print(f"{data} at {commit[:12]} -> {folder}: {describe_counts(description)}", flush=True)
    return folder


@contextmanager
def _hub_refusals(data: HubData) -> Iterator[None]:
    """Raises a one-line DataError if the Hub does not deliver what the block requests."""
    try:
        yield
    except RepositoryNotFoundError as error:
        found = "a model has this name" if _is_model(data.repository) else "none, or not readable with this token"
        raise DataError(
            f"{data} is not a data set on the Hub ({found}); check the name, or log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"The Hub has no such revision of {data}; check the part after the @.") from error
    except RemoteEntryNotFoundError as error:
        raise DataError(
            f"{data} has no {DESCRIPTION_FILE}: `engagement prepare --push-to-hub` did not make it; download it and "
            "pass its folder as a raw source."
        ) from error
    except Exception as error:  # the client has many, for the connection, the disk and the cache
        cause = cause_of(error.__cause__ or error)
        remedy = "log in with `hf auth login`" if wants_a_token(cause) else "try again, downloaded files are kept"
        if isinstance(cause, OfflineModeIsEnabled):
            remedy = "unset HF_HUB_OFFLINE and try again"
        raise DataError(f"{data} could not be downloaded from the Hub ({reason_of(cause)}); {remedy}.") from error


def _is_model(repository: str) -> bool:
    try:
        return HfApi().repo_exists(repository)
    except Exception:  # only for a hint
        return False


def _convert(source: Path, description: DatasetDescription, folder: Path, data: HubData) -> None:
    """Convert the snapshot to a prepared data set at `folder`, completely or not at all."""
    remedy = _REMEDY.format(data)
    if not (source / CHECKSUMS_FILE).is_file():
        raise DataError(f"{data} has no {CHECKSUMS_FILE} for its tables; {remedy}.")
    if changed := what_changed(source):
        raise DataError(f"{data} is damaged: {changed}; delete {source} and try again, or {remedy}.")
    known = {name: getattr(description, name) for name in Provenance.model_fields}
    with whole_folder(folder) as unfinished, writing(folder):
        table = unfinished / "rows.arrow"
        try:
            rows = read_tables(source, table)
        except DataError as error:
            raise DataError(f"{str(error).removesuffix('.')} at {data}; {remedy}.") from error
        written = write_prepared(rows, [], Provenance(**known), unfinished)
        if written.fingerprint != description.fingerprint:
            raise DataError(
                f"The rows of {data} were changed: their fingerprint is {written.fingerprint[:12]} instead of "
                f"{description.fingerprint[:12]}; {remedy}."
            )
        table.unlink()
        for name in BESIDE_TABLES:
            if (source / name).is_file():
                shutil.copyfile(source / name, unfinished / name)
        load_prepared(unfinished)  # checks the recorded counts against the rows
