"""The project's JSON files, which people may open and edit, as pydantic records that write, read and check themselves.

A field's name is its key in the file, its type defines the allowed values, and the string below it explains it: the
docs of a file are generated from that. A file with anything else in it is refused in one line that names the key.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..processor.input_errors import EngagementInputError, in_one_line
from .atomic_files import write_whole

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_ROUNDING = 1e-9  # by rounding, a mean of shares can lie this far outside 0 to 1
_SHOWN_CHARACTERS = 60

Share = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]  # from 0 to 1
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A JSON object of the project; other keys are refused and no types are converted."""

    # Built on first use, since the command line imports all of them; for the same reason pydantic reads no docs.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_record(path: Path, record: Record, exclude_none: bool = False) -> None:
    """Write the record as a JSON file, completely or not at all.

    Args:
        exclude_none: leave out keys whose value is null.

    Raises:
        DataError: it cannot be written.
    """
    write_whole(path, record.model_dump_json(indent=2, by_alias=True, exclude_none=exclude_none) + "\n")


def read_record(
    path: Path, kind: type[AnyRecord], error: type[EngagementInputError], expected: str, remedy: str
) -> AnyRecord:
    """
    Args:
        error: class of the error to raise.
        expected: what the file should contain, such as "measured results".
        remedy: what the user should do if it does not.

    Raises:
        EngagementInputError: as `error`: the file is missing, not JSON, or has other content; the key is named.
    """
    return parse_record(read_text(path, error, expected, remedy), path, kind, error, expected, remedy)


def read_text(path: Path, error: type[EngagementInputError], expected: str, remedy: str) -> str:
    """The file's text; arguments and errors as for `read_record`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        reason = f"got none that can be read ({in_one_line(problem)})"
        raise error(f"Expected {expected} in {path}, {reason}; {remedy}.") from problem


def parse_record(
    text: str, path: Path, kind: type[AnyRecord], error: type[EngagementInputError], expected: str, remedy: str
) -> AnyRecord:
    """Parse `text` as the record; `path` is its file, other arguments as in `read_record`."""
    with refusing(text, path, error, expected, remedy):
        record = kind.model_validate_json(text)
    return record


@contextmanager
def refusing(text: str, path: Path, error: type[EngagementInputError], expected: str, remedy: str) -> Iterator[None]:
    """Raises `error` if a record refuses the content of `text`; arguments as in `parse_record`."""
    try:
        yield
    except ValidationError as problem:
        wrong = _by_key(problem.errors(include_url=False), text)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        got = _in_words(*next(iter(wrong.items())))
        raise error(f"Expected {expected} in {path}, got {got}{more}; {remedy}.") from problem


def version_of(text: str) -> object:
    """Value of `version` in the text of a JSON file; None if there is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content.get("version") if isinstance(content, dict) else None


def _by_key(details: list["ErrorDetails"], text: str) -> dict[str, list["ErrorDetails"]]:
    """Errors by key; every branch of a union reports one, and the innermost key is the wrong one."""
    if details[0]["type"] == "json_invalid":
        return {"": details}
    content = json.loads(text)
    wrong: dict[str, list[ErrorDetails]] = {}
    for detail in details:
        wrong.setdefault(_key_of(detail, content), []).append(detail)
    return {
        key: found
        for key, found in wrong.items()
        if not any(other != key and other.startswith((f"{key}.", f"{key}[") if key else "") for other in wrong)
    }


def _key_of(detail: "ErrorDetails", content: object) -> str:
    """Such as `measurements[0].evaluation`; without union branches, which pydantic names but the file does not."""
    key = ""
    for number, part in enumerate(detail["loc"], start=1):
        is_absent = detail["type"] == "missing" and number == len(detail["loc"])
        if isinstance(content, list) and isinstance(part, int):
            key, content = f"{key}[{part}]", content[part]
        elif isinstance(content, dict) and (part in content or is_absent):
            key, content = f"{key}.{part}", content.get(str(part))
    return key.removeprefix(".")


def _in_words(key: str, details: list["ErrorDetails"]) -> str:
    detail = details[0]
    if detail["type"] == "json_invalid":
        return f"no JSON ({detail['ctx']['error']})"
    if detail["type"] == "value_error" and not key:  # from a record's own check, which names the key
        return str(detail["ctx"]["error"])
    if detail["type"] == "missing":
        return f"no {key}"
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"an unknown key {key}"
    shown = json.dumps(detail["input"], default=str, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
    reasons = " or ".join(dict.fromkeys(map(_reason, details)))
    return f"{shown} as {key or 'its content'} ({reasons.replace('or input should be', 'or')})"


def _reason(detail: "ErrorDetails") -> str:
    told = str(detail["ctx"]["error"]).removesuffix(".") if detail["type"] == "value_error" else detail["msg"]
    told = told.replace(str(1 + _ROUNDING), "1").replace(str(-_ROUNDING), "0")  # without the rounding margin
    return told[:1].lower() + told[1:]
