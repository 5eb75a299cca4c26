"""Whether the pictures of a prepared data set are still those that were prepared: a disk that flips a bit says nothing.

What is prepared today lies beside its checksums, which read a gigabyte per second or so. Older data has none: its
pictures are decoded once and compared with the hashes of their pixels, and then it has checksums too.
"""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...processor.input_errors import DataError, ImageReadError
from ..checksums import CHECKSUMS_FILE, what_changed
from ..worker_processes import usable_cpus
from .description import REMEDY
from .picture_codec import pixels_sha256
from .prepared_data import PreparedData, load_prepared, record_pictures
from .row_facts import current_fingerprint

_BATCH = 256
_DAMAGED_AT_MOST = 0.5  # of the rows; where more differ, it is the decoder that does


class DamagedDataError(DataError):
    """Pictures of a prepared data set are not those that were prepared."""


def require_undamaged(folder: Path) -> None:
    """
    Raises:
        DamagedDataError: pictures or labels are not those that were prepared.
        DataError: the data has no checksums, and cannot be opened.
    """
    if (folder / CHECKSUMS_FILE).is_file():
        changed = what_changed(folder)
        if changed:
            raise _damaged(folder, changed)
        return
    prepared = load_prepared(folder)
    num_rows = sum(len(rows) for rows in prepared.splits.values())
    print(f"{folder} was prepared without checksums: its {num_rows:,} windows are looked at once", flush=True)
    if current_fingerprint(prepared.splits) != prepared.fingerprint:
        raise _damaged(folder, "its labels, people or splits are not those of its fingerprint")
    damaged = _differing(prepared)
    if len(damaged) > _DAMAGED_AT_MOST * num_rows:
        print(f"{folder}: this OpenCV decodes pictures otherwise than the one that prepared them; not checked")
    elif damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise _damaged(folder, f"the pixels of {damaged[0]}{more} are not those that were prepared")
    if os.access(folder, os.W_OK):
        with contextlib.suppress(DataError):  # a convenience
            record_pictures(folder)


def _damaged(folder: Path, what: str) -> DamagedDataError:
    return DamagedDataError(f"Expected {folder} as it was prepared, but {what}; {REMEDY}.")


def _differing(prepared: PreparedData) -> list[str]:
    """Clips whose pixels are not those of their hash; one that does not decode at all among them."""
    found = []
    with ThreadPoolExecutor(usable_cpus()) as threads:
        for rows in prepared.splits.values():
            known = rows.select_columns(["frames", "frames_sha256", "clip_id"])
            for start in range(0, len(known), _BATCH):
                batch = known[start : start + _BATCH]
                digests = threads.map(_digest_or_none, batch["frames"])
                triples = zip(batch["clip_id"], batch["frames_sha256"], digests, strict=True)
                found += [clip_id for clip_id, recorded, digest in triples if digest != recorded]
    return found


def _digest_or_none(contents: Sequence[bytes]) -> str | None:
    try:
        return pixels_sha256(contents)
    except ImageReadError:
        return None
