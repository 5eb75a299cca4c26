"""A data set that was pushed to the Hub → an ordinary prepared data set in the cache, fetched and converted once.

It is named `hf://org/name` or `hf://org/name@REVISION`. What arrives is compared with its checksums, and the
fingerprint that follows from its rows with the recorded one; an audit that was pushed with the data lies beside it.
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

BESIDE_TABLES = (DESCRIPTION_FILE, REJECTS_FILE, AUDIT_FILE, DUPLICATES_FILE)  # the last two where there is an audit
_PREFIX = re.compile(r"hf:/{1,2}")  # pathlib makes one stroke of two
_NAME = re.compile(r"(?:datasets/)?([^/@]+/[^/@]+)(?:@(.+))?")
_REMEDY = "whoever pushed {} should push it again"
_HOW = "it is written hf://org/name or hf://org/name@REVISION"


@dataclass(frozen=True)
class HubData:
    """A data set on the Hub."""

    repository: str  # org/name
    revision: str | None  # branch, tag or commit; None: the newest

    def __str__(self) -> str:
        return f"hf://{self.repository}{f'@{self.revision}' if self.revision else ''}"


def is_on_hub(data: Path | str) -> bool:
    """Whether this names a data set on the Hub, and nothing on this disk."""
    return bool(_PREFIX.match(Path(data).as_posix()))


def local_folder(data: Path, cache_dir: Path = Path("runs/cache")) -> Path:
    """A path as it is; of a data set on the Hub the folder in the cache, fetched before if need be.

    Raises:
        DataError: no such data set, none of ours, damaged on the way, or a Hub that does not answer.
    """
    return fetch(parse_name(data), cache_dir) if is_on_hub(data) else data


def data_name(data: Path) -> str:
    """What records call it: the last part of a path, or all of a name on the Hub."""
    return str(parse_name(data)) if is_on_hub(data) else data.name


def parse_name(data: Path | str) -> HubData:
    """
    Raises:
        DataError: it is no name of a data set on the Hub.
    """
    text = Path(data).as_posix()
    match = _NAME.fullmatch(_PREFIX.sub("", text, count=1))
    try:
        if match:
            validate_repo_id(match[1])
            return HubData(match[1], match[2])
    except HFValidationError:
        pass
    raise DataError(f"Expected a data set on the Hub, got {text.replace('hf:/', 'hf://', 1)!r}; {_HOW}.")


def fetch(data: HubData, cache_dir: Path) -> Path:
    """The folder in the cache that holds this data set, named by repository and commit; raises as `local_folder`."""
    name = data.repository
    with _hub_refusals(data):
        described = Path(hf_hub_download(name, DESCRIPTION_FILE, repo_type="dataset", revision=data.revision))
    remedy = f"a newer version of this package may know it, or {_REMEDY.format(data)}"
    description = read_record(described, DatasetDescription, DataError, f"a prepared data set at {data},", remedy)
    commit = described.parent.name
    folder = cache_dir / f"hub-{name.replace('/', '--')}-{commit[:12]}"
    with waiting_for(folder):
        if not is_prepared(folder):
            wanted = [*BESIDE_TABLES, CHECKSUMS_FILE, f"{TABLES_FOLDER}/*.parquet"]
            with _hub_refusals(data):  # what is in the Hub's own cache already is not fetched again
                snapshot = snapshot_download(name, repo_type="dataset", revision=commit, allow_patterns=wanted)
            _convert(Path(snapshot), description, folder, data)
    print(f"{data} at {commit[:12]} -> {folder}: {describe_counts(description)}", flush=True)
    return folder


@contextmanager
def _hub_refusals(data: HubData) -> Iterator[None]:
    """Raises DataError, in one line, where the Hub does not give what the block asks for."""
    try:
        yield
    except RepositoryNotFoundError as error:
        found = "a model of that name" if _is_model(data.repository) else "none, or none that this token may read"
        raise DataError(
            f"Expected a data set on the Hub at {data}, found {found}; check the name, or log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(
            f"Expected {data} on the Hub, it has no such revision; check what stands after the @."
        ) from error
    except RemoteEntryNotFoundError as error:
        raise DataError(
            f"Expected a data set that `engagement prepare --push-to-hub` made at {data}, found no {DESCRIPTION_FILE} "
            "there; download what is there, and name its folder as a raw source."
        ) from error
    except Exception as error:  # of the connection, the disk, the cache; the client has many
        cause = cause_of(error.__cause__ or error)
        remedy = "log in with `hf auth login`" if wants_a_token(cause) else "what has arrived is kept, so try again"
        raise DataError(f"Expected {data} from the Hub, could not fetch it ({reason_of(cause)}); {remedy}.") from error


def _is_model(repository: str) -> bool:
    try:
        return HfApi().repo_exists(repository)
    except Exception:  # only for a hint
        return False


def _convert(source: Path, description: DatasetDescription, folder: Path, data: HubData) -> None:
    """The snapshot as a prepared data set at `folder`, whole or not at all."""
    remedy = _REMEDY.format(data)
    if not (source / CHECKSUMS_FILE).is_file():
        raise DataError(f"Expected {CHECKSUMS_FILE} beside the tables of {data}, found none; {remedy}.")
    if changed := what_changed(source):
        raise DataError(f"Expected {data} as it was pushed, but {changed}; delete {source} and try again, or {remedy}.")
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
                f"Expected rows with the fingerprint {description.fingerprint[:12]} at {data}, got "
                f"{written.fingerprint[:12]}: somebody has changed them; {remedy}."
            )
        table.unlink()
        for name in BESIDE_TABLES:
            if (source / name).is_file():
                shutil.copyfile(source / name, unfinished / name)
        load_prepared(unfinished)  # counts that were recorded are those of the rows
