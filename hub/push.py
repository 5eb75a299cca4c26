"""Pushes an assembled folder to the Hub; replaces only an earlier version of the same model or data."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import DatasetInfo, HfApi, ModelInfo, RepoCard
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from ..data.hub_errors import cause_of, reason_of, wants_a_token
from ..processor.input_errors import EngagementInputError
from .model_files import CARD_FILE, is_published_name

_ALWAYS_THERE = {".gitattributes", CARD_FILE}  # the Hub creates both


@dataclass(frozen=True)
class Pushed:
    """A kind of repository, and how to recognise an earlier version of its content."""

    repo_type: Literal["model", "dataset"]
    noun: str
    described_in: str  # always pushed by us; without it the files are not ours
    may_hold: Callable[[str], bool]  # whether a version may contain a file of this name; except the card
    identity: Callable[[Path], str]  # from the description: if it differs, so does the model or data set
    card_remedy: str  # if the Hub refuses the card


def _architecture(config: Path) -> str:
    """The class that a model's config names."""
    try:
        return ", ".join(json.loads(config.read_text(encoding="utf-8"))["architectures"])
    except (ValueError, LookupError, TypeError):
        return "no architecture"


MODEL = Pushed(
    repo_type="model",
    noun="model",
    described_in="config.json",
    may_hold=is_published_name,
    identity=_architecture,
    card_remedy="correct what it names, such as --license or --dataset, and publish again",
)


def push_folder(
    folder: Path,
    repository: str,
    private: bool | None = None,
    token: str | None = None,
    kind: Pushed = MODEL,
    made_of: Path | None = None,
) -> str:
    """Upload a folder in one commit; returns the repository's address. Can be repeated after a failure.

    Args:
        made_of: the source of a temporary folder, for messages; None: the folder is permanent.

    Raises:
        EngagementInputError: the Hub refused or did not answer, the repository is public although a private one was
            requested, or it contains something other than an earlier version of this model or data set.
    """
    api = HfApi(token=token)
    with _hub_refusals(f"push {made_of or folder} to {repository}", "the folder is complete", kind):
        # First, so that no empty repository is left behind.
        RepoCard.load(folder / CARD_FILE).validate(kind.repo_type)
        created = api.create_repo(repository, repo_type=kind.repo_type, private=private, exist_ok=True)
        there = _info(api, created.repo_id, kind)  # it may have existed before
        _require_private(there, private)
        _require_earlier_version(api, there, kind, folder)
        # Files of an earlier version that this one lacks are deleted.
        api.upload_folder(
            repo_id=there.id, repo_type=kind.repo_type, folder_path=folder, commit_message=f"Add {kind.noun}",
            delete_patterns="*",
        )  # fmt: skip
    return created.url


def check_repository(
    repository: str, private: bool | None, license_name: str | None, kind: Pushed, token: str | None = None
) -> None:
    """Check, before hours of work, whether a push would be refused; the Hub is not changed.

    Args:
        license_name: the card's licence; None: one that the Hub accepts.

    Raises:
        EngagementInputError: as `push_folder`.
    """
    api = HfApi(token=token)
    with _hub_refusals(f"push to {repository}", "nothing has been done yet", kind):
        if license_name is not None:
            RepoCard(f"---\nlicense: {license_name}\n---\n").validate(kind.repo_type)
        known = api.whoami()
        if known.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise EngagementInputError(
                f"The Hub's token may only read, and pushing to {repository} needs write access; log in with another: "
                "`hf auth login`."
            )
        with contextlib.suppress(RepositoryNotFoundError):
            there = _info(api, repository, kind)
            _require_private(there, private)
            _require_earlier_version(api, there, kind)


@contextlib.contextmanager
def _hub_refusals(job: str, kept: str, kind: Pushed) -> Iterator[None]:
    """Raises EngagementInputError, in one line, if the Hub refuses the block's requests or does not answer."""
    try:
        yield
    except EngagementInputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = cause_of(error)
        remedy = kind.card_remedy if type(error) is ValueError else _advice(cause, kept)
        raise EngagementInputError(
            f"Could not {job}: the Hub did not accept it ({reason_of(cause)}); {remedy}."
        ) from error


def _info(api: HfApi, repository: str, kind: Pushed) -> ModelInfo | DatasetInfo:
    return api.model_info(repository) if kind.repo_type == "model" else api.dataset_info(repository)


def _require_private(there: ModelInfo | DatasetInfo, private: bool | None) -> None:
    if private and not there.private:
        raise EngagementInputError(
            f"{there.id} is public, but a private repository was requested; make it private in its settings, or pass "
            "another."
        )


def _require_earlier_version(
    api: HfApi, there: ModelInfo | DatasetInfo, kind: Pushed, folder: Path | None = None
) -> None:
    """Raises EngagementInputError if the upload would replace anything but an earlier version.

    Args:
        folder: the folder to upload; None: not known yet, so any model or data set of ours is accepted.
    """
    names = [file.rfilename for file in there.siblings or ()]
    is_described = kind.described_in in names
    ours = {
        name for name in names if is_described and ((folder and (folder / name).is_file()) or kind.may_hold(name))
    } | _ALWAYS_THERE
    strangers = [name for name in names if name not in ours]
    found = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
    if is_described and not strangers and folder:
        new = kind.identity(folder / kind.described_in)
        described = api.hf_hub_download(there.id, kind.described_in, repo_type=kind.repo_type, revision=there.sha)
        old = kind.identity(Path(described))
        found = f"a different {kind.noun} ({kind.described_in} names {old}, this one {new})" if old != new else ""
    if found:
        raise EngagementInputError(
            f"{there.id} contains {found}; only an empty repository or an earlier version of this {kind.noun} is "
            "replaced, so name another repository, or delete its content first."
        )


def _advice(cause: BaseException, kept: str) -> str:
    """The remedy for a failure."""
    if isinstance(cause, OfflineModeIsEnabled):
        return "unset HF_HUB_OFFLINE and push again"
    return f"{kept}, so {'log in with `hf auth login` and ' if wants_a_token(cause) else ''}push again"
