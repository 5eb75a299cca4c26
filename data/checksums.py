"""SHA-256 of the files in a folder, to detect later changes: `SHA256SUMS`, in the format of `sha256sum -c`."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .atomic_files import write_whole
from .worker_processes import usable_cpus

CHECKSUMS_FILE = "SHA256SUMS"


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Record the current checksums of these files, named relative to the folder.

    Raises:
        DataError: it cannot be written.
    """
    digests = _digests(folder, sorted(names))
    write_whole(folder / CHECKSUMS_FILE, "".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def what_changed(folder: Path) -> str | None:
    """Describes what differs from the recorded checksums; None: nothing does, or none were recorded."""
    path = folder / CHECKSUMS_FILE
    if not path.is_file():
        return None
    try:
        lines = [line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        lines = []
    recorded = {name: digest for digest, _, name in lines if name and len(digest) == 2 * hashlib.sha256().digest_size}
    if not recorded or len(recorded) < len(lines):
        return f"{CHECKSUMS_FILE} is damaged"
    missing = [name for name in recorded if not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing"
    of_nothing = hashlib.sha256().hexdigest()
    empty = [name for name in recorded if not (folder / name).stat().st_size and recorded[name] != of_nothing]
    if empty:
        return f"{empty[0]} is empty"
    found = _digests(folder, recorded)
    changed = [name for name in recorded if found[name] != recorded[name]]
    return f"{changed[0]} has changed since it was written" if changed else None


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name → digest; in threads, since hashlib releases the lock."""

    def digest(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    names = list(names)
    with ThreadPoolExecutor(usable_cpus()) as threads:
        return dict(zip(names, threads.map(digest, names), strict=True))
