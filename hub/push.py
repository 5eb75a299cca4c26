"""An assembled folder goes to the Hub, in place of an earlier version of the same model and of nothing else."""

import json
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelInfo
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from ..processor.input_errors import EngagementInputError, in_one_line
from .model_files import CARD_FILE, is_published_name


def push_folder(folder: Path, repository: str, private: bool | None = None, token: str | None = None) -> str:
    """Upload a folder as it is, in one commit; returns the repository's address. Can be repeated after a failure.

    Raises:
        EngagementInputError: the Hub refused or did not answer, a private repository was asked for and the one there
            is public, or it holds what is no earlier version of this model.
    """
    api = HfApi(token=token)
    try:
        ModelCard.load(folder / CARD_FILE).validate()  # first, so that no empty repository is left behind
        created = api.create_repo(repository, private=private, exist_ok=True)
        there = api.model_info(created.repo_id)  # it may have been there before
        if private and not there.private:
            raise EngagementInputError(
                f"Expected to push to a private repository, got {repository}, which is public; make it private in its "
                "settings, or pass another."
            )
        _require_earlier_version(api, there, folder)
        # What an earlier version left there and this one does not hold goes away.
        api.upload_folder(repo_id=there.id, folder_path=folder, commit_message="Add model", delete_patterns="*")
    except EngagementInputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = _cause_of(error)
        raise EngagementInputError(
            f"Expected to push {folder} to {repository}, the Hub did not take it ({_reason(cause)}); "
            f"{_REFUSED_CARD if type(error) is ValueError else _advice(cause)}."
        ) from error
    return created.url


_REFUSED_CARD = "publish again with what it names mended, such as --license or --dataset"


_ALWAYS_THERE = {".gitattributes", CARD_FILE}  # the Hub itself makes both


def _require_earlier_version(api: HfApi, there: ModelInfo, folder: Path) -> None:
    """Raises EngagementInputError where the upload would take away what is not an earlier version of this model."""
    names = [file.rfilename for file in there.siblings or ()]
    has_config = "config.json" in names
    # Nothing is published without a config: weights alone are somebody else's.
    ours = {name for name in names if has_config and ((folder / name).is_file() or is_published_name(name))}
    ours |= _ALWAYS_THERE
    strangers = [name for name in names if name not in ours]
    found = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
    if has_config and not strangers:
        new = _architecture(folder / "config.json")
        old = _architecture(Path(api.hf_hub_download(there.id, "config.json", revision=there.sha)))
        found = f"another model (config.json names {old}, this one {new})" if old != new else ""
    if found:
        raise EngagementInputError(
            f"Expected {there.id} to be empty or to hold an earlier version of this model, which would be replaced, "
            f"got {found}; name another repository, or delete what is there first."
        )


def _architecture(config: Path) -> str:
    """The class that a model's config names."""
    try:
        return ", ".join(json.loads(config.read_text(encoding="utf-8"))["architectures"])
    except (ValueError, LookupError, TypeError):
        return "no architecture"


def _cause_of(error: BaseException) -> BaseException:
    """What the Hub answered, where the client tells of it in an error of its own."""
    inner = error.__cause__ or error.__context__
    return _cause_of(inner) if inner and type(error) in (RuntimeError, ValueError) else error


def _reason(cause: BaseException) -> str:
    """What went wrong, in one line: the Hub's own words where there are any."""
    if isinstance(cause, HfHubHTTPError) and cause.server_message:
        return " ".join(f"{cause.response.status_code}: {cause.server_message}".split())
    # Where one file's connection breaks off, the client closes those of the others, and names only that.
    if "client has been closed" in str(cause):
        return "the connection broke off"
    if isinstance(cause, OfflineModeIsEnabled):
        return "offline mode is enabled"
    return in_one_line(cause)


def _advice(cause: BaseException) -> str:
    """What may help against it."""
    if isinstance(cause, OfflineModeIsEnabled):
        return "unset HF_HUB_OFFLINE and push again"
    if isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403):
        return "the folder is whole, so log in with `hf auth login` and push again"
    return "the folder is whole, so push again"
