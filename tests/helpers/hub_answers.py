"""What `hub_server` keeps, hears and answers: files, repositories, requests, answers and refusals."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit; its bytes lie under `oid`: LFS's SHA-256, else git's SHA-1 of the blob."""

    oid: str
    size: int
    is_lfs: bool


@dataclass
class Repository:
    """A repository: `commits` holds (id, files by path), oldest first."""

    private: bool
    commits: list[tuple[str, dict[str, StoredFile]]]


@dataclass(frozen=True)
class Request:
    """What a client sent, as far as tests ask for it."""

    method: str
    path: str
    host: str
    token: str | None
    range: str | None


class Refused(Exception):
    """An answer other than the one hoped for, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


@dataclass(frozen=True)
class Answer:
    """A status, a body and headers; an `Answer` of JSON by default."""

    body: object = field(default_factory=dict)  # bytes as they are, all else as JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def described(path: str, file: StoredFile) -> dict[str, object]:
    lfs = {"lfs": {"oid": file.oid, "size": file.size, "pointerSize": 130}} if file.is_lfs else {}
    return {"type": "file", "path": path, "oid": file.oid, "size": file.size, **lfs}
