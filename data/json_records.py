"""JSON files of ours that people open, and edit: records that write, read and check themselves; pydantic does the work.

A field's name is its key in the file, its type says what may stand there, and the line below it says what it means: the
docs of a file are made from that. A file with anything else in it is refused in one line that names the key.
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

_ROUNDING = 1e-9  # a mean of shares can lie that far outside 0 to 1
_SHOWN_CHARACTERS = 60

Share = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]  # from 0 to 1
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """What a JSON object of ours holds; nothing else may stand in it, and nothing is converted."""

    # Built when first used, since the command line imports them all; for the same reason pydantic reads no docs.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_record(path: Path, record: Record, exclude_none: bool = False) -> None:
    """The record as a JSON file, whole or not at all.

    Args:
        exclude_none: leave keys out that would say null.

    Raises:
        DataError: it cannot be written.
    """
    write_whole(path, record.model_dump_json(indent=2, by_alias=True, exclude_none=exclude_none) + "\n")


def read_record(
    path: Path, kind: type[AnyRecord], error: type[EngagementInputError], expected: str, remedy: str
) -> AnyRecord:
    """
    Args:
        error: what is raised.
        expected: what the file should hold, such as "measured results".
        remedy: what the user is to do about one that does not.

    Raises:
        EngagementInputError: as `error`, the file is missing, is no JSON, or holds something else; the key is named.
    """
    return parse_record(read_text(path, error, expected, remedy), path, kind, error, expected, remedy)


def read_text(path: Path, error: type[EngagementInputError], expected: str, remedy: str) -> str:
    """The file's text; arguments and errors as those of `read_record`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        reason = f"got none that can be read ({in_one_line(problem)})"
        raise error(f"Expected {expected} in {path}, {reason}; {remedy}.") from problem


def parse_record(
    text: str, path: Path, kind: type[AnyRecord], error: type[EngagementInputError], expected: str, remedy: str
) -> AnyRecord:
    """`text` as the record; `path` is where it stands, the rest as in `read_record`."""
    with refusing(text, path, error, expected, remedy):
        record = kind.model_validate_json(text)
    return record


@contextmanager
def refusing(text: str, path: Path, error: type[EngagementInputError], expected: str, remedy: str) -> Iterator[None]:
    """Raises `error` where a record refuses what stands in `text`; arguments as in `parse_record`."""
    try:
        yield
    except ValidationError as problem:
        wrong = _by_key(problem.errors(include_url=False), text)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        got = _in_words(*next(iter(wrong.items())))
        raise error(f"Expected {expected} in {path}, got {got}{more}; {remedy}.") from problem


def version_of(text: str) -> object:
    """What stands under `version` in the text of a JSON file; None where nothing does."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content.get("version") if isinstance(content, dict) else None


def _by_key(details: list["ErrorDetails"], text: str) -> dict[str, list["ErrorDetails"]]:
    """What is wrong under each key; every branch of a union complains, and the innermost key is the wrong one."""
    if details[0]["type"] == "json_invalid":
        return {"": details}
    content = json.loads(text)
    wrong: dict[str, list[ErrorDetails]] = {}
    for detail in details:
        wrong.setdefault(_key_of(detail, content), []).append(detail)
    return {key: found for key, found in wrong.items() if not any(_is_within(other, key) for other in wrong)}


def _is_within(key: str, outer: str) -> bool:
    return key != outer and key.startswith((f"{outer}.", f"{outer}[") if outer else "")


def _key_of(detail: "ErrorDetails", content: object) -> str:
    """Such as `measurements[0].evaluation`; pydantic also names the branch of a union, which is no key of the file."""
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
    if detail["type"] == "value_error" and not key:  # of a record's own check, which names the key
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
    told = told.replace(str(1 + _ROUNDING), "1").replace(str(-_ROUNDING), "0")  # as the bounds are meant
    return told[:1].lower() + told[1:]
