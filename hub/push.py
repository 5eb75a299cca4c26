"""An assembled folder goes to the Hub, in place of an earlier version of the same model or data and of nothing else."""

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

_ALWAYS_THERE = {".gitattributes", CARD_FILE}  # the Hub itself makes both


@dataclass(frozen=True)
class Pushed:
    """What a repository holds, and how an earlier version of it is told from all else."""

    repo_type: Literal["model", "dataset"]
    noun: str
    described_in: str  # nothing of ours is pushed without it: files alone are somebody else's
    may_hold: Callable[[str], bool]  # whether some version holds a file of this name; the card aside
    identity: Callable[[Path], str]  # of such a description: another one is another model, or data set
    card_remedy: str  # where the Hub refuses the card


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
    card_remedy="publish again with what it names mended, such as --license or --dataset",
)


def push_folder(
    folder: Path,
    repository: str,
    private: bool | None = None,
    token: str | None = None,
    kind: Pushed = MODEL,
    made_of: Path | None = None,
) -> str:
    """Upload a folder as it is, in one commit; returns the repository's address. Can be repeated after a failure.

    Args:
        made_of: what a folder that goes away again was made of, for messages; None: it stays.

    Raises:
        EngagementInputError: the Hub refused or did not answer, a private repository was asked for and the one there
            is public, or it holds what is no earlier version of this model or data set.
    """
    api = HfApi(token=token)
    with _hub_refusals(f"push {made_of or folder} to {repository}", "the folder is whole", kind):
        # First, so that no empty repository is left behind.
        RepoCard.load(folder / CARD_FILE).validate(kind.repo_type)
        created = api.create_repo(repository, repo_type=kind.repo_type, private=private, exist_ok=True)
        there = _info(api, created.repo_id, kind)  # it may have been there before
        _require_private(there, private)
        _require_earlier_version(api, there, kind, folder)
        # What an earlier version left there and this one does not hold goes away.
        api.upload_folder(
            repo_id=there.id, repo_type=kind.repo_type, folder_path=folder, commit_message=f"Add {kind.noun}",
            delete_patterns="*",
        )  # fmt: skip
    return created.url


def check_repository(
    repository: str, private: bool | None, license_name: str | None, kind: Pushed, token: str | None = None
) -> None:
    """What would stop a push however its folder turns out: asked before hours of work; the Hub is left as it is.

    Args:
        license_name: what the card will say; None: something that the Hub takes.

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
                f"Expected a token that may write to {repository}, got one that may only read; log in with one by "
                "`hf auth login`."
            )
        with contextlib.suppress(RepositoryNotFoundError):
            there = _info(api, repository, kind)
            _require_private(there, private)
            _require_earlier_version(api, there, kind)


@contextlib.contextmanager
def _hub_refusals(job: str, kept: str, kind: Pushed) -> Iterator[None]:
    """Raises EngagementInputError, in one line, where the Hub refuses what the block does, or does not answer."""
    try:
        yield
    except EngagementInputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = cause_of(error)
        remedy = kind.card_remedy if type(error) is ValueError else _advice(cause, kept)
        raise EngagementInputError(
            f"Expected to {job}, the Hub did not take it ({reason_of(cause)}); {remedy}."
        ) from error


def _info(api: HfApi, repository: str, kind: Pushed) -> ModelInfo | DatasetInfo:
    return api.model_info(repository) if kind.repo_type == "model" else api.dataset_info(repository)


def _require_private(there: ModelInfo | DatasetInfo, private: bool | None) -> None:
    if private and not there.private:
        raise EngagementInputError(
            f"Expected to push to a private repository, got {there.id}, which is public; make it private in its "
            "settings, or pass another."
        )


def _require_earlier_version(
    api: HfApi, there: ModelInfo | DatasetInfo, kind: Pushed, folder: Path | None = None
) -> None:
    """Raises EngagementInputError where the upload would take away what is not an earlier version of this.

    Args:
        folder: what will be uploaded; None: nobody knows yet, and any model or data set of ours will do.
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
        found = f"another {kind.noun} ({kind.described_in} names {old}, this one {new})" if old != new else ""
    if found:
        raise EngagementInputError(
            f"Expected {there.id} to be empty or to hold an earlier version of this {kind.noun}, which would be "
            f"replaced, got {found}; name another repository, or delete what is there first."
        )


def _advice(cause: BaseException, kept: str) -> str:
    """What may help against it."""
    if isinstance(cause, OfflineModeIsEnabled):
        return "unset HF_HUB_OFFLINE and push again"
    return f"{kept}, so {'log in with `hf auth login` and ' if wants_a_token(cause) else ''}push again"
