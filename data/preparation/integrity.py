"""Whether the pictures of a prepared data set are unchanged: a disk may flip a bit without reporting it.

New data is stored with checksums, which are verified at about a gigabyte per second. Older data has none: its pictures
are decoded once and compared with the hashes of their pixels, and then checksums are added.
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
_DAMAGED_AT_MOST = 0.5  # of the rows; if more differ, the decoder is different


class DamagedDataError(DataError):
    """Pictures of a prepared data set were changed after preparation."""


def require_undamaged(folder: Path) -> None:
    """
    Raises:
        DamagedDataError: pictures or labels were changed after preparation.
        DataError: the data has no checksums, and cannot be opened.
    """
    if (folder / CHECKSUMS_FILE).is_file():
        changed = what_changed(folder)
        if changed:
            raise _damaged(folder, changed)
        return
    prepared = load_prepared(folder)
    num_rows = sum(len(rows) for rows in prepared.splits.values())
    print(f"{folder} was prepared without checksums: its {num_rows:,} windows are checked once", flush=True)
    if current_fingerprint(prepared.splits) != prepared.fingerprint:
        raise _damaged(folder, "its labels, people or splits do not match its fingerprint")
    damaged = _differing(prepared)
    if len(damaged) > _DAMAGED_AT_MOST * num_rows:
        print(f"{folder}: this OpenCV decodes pictures differently from the one that prepared them; not checked")
    elif damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise _damaged(folder, f"the pixels of {damaged[0]}{more} were changed after preparation")
    if os.access(folder, os.W_OK):
        with contextlib.suppress(DataError):  # only a convenience
            record_pictures(folder)


def _damaged(folder: Path, what: str) -> DamagedDataError:
    return DamagedDataError(f"{folder} is damaged: {what}; {REMEDY}.")


def _differing(prepared: PreparedData) -> list[str]:
    """Clips whose pixels do not match their hash, including those that do not decode."""
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
