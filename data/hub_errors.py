"""Describes in one line what went wrong between a client and the Hub, in the Hub's own words if there are any."""

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from ..processor.input_errors import in_one_line


def cause_of(error: BaseException) -> BaseException:
    """The Hub's response error, if the client wrapped it in an error of its own."""
    inner = error.__cause__ or error.__context__
    return cause_of(inner) if inner and type(error) in (RuntimeError, ValueError) else error


def reason_of(cause: BaseException) -> str:
    """Description of what went wrong, in one line."""
    if isinstance(cause, HfHubHTTPError) and cause.server_message:
        return " ".join(f"{cause.response.status_code}: {cause.server_message}".split())
    # If one file's connection breaks off, the client closes the others' and reports only that.
    if "client has been closed" in str(cause):
        return "the connection broke off"
    if isinstance(cause, OfflineModeIsEnabled):
        return "offline mode is enabled"
    if isinstance(cause, LocalTokenNotFoundError):
        return "no token is set here"
    return in_one_line(cause)


def wants_a_token(cause: BaseException) -> bool:
    """Whether a different token, or any token, would have helped."""
    is_refused = isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403)
    return is_refused or isinstance(cause, LocalTokenNotFoundError)
