"""`dataset.json`: what is known about a prepared data set besides its rows."""

from pathlib import Path
from typing import Literal

from ...processor.input_errors import DataError
from ..described_data import LabelConflicts
from ..json_records import Count, Record, read_record, write_record
from ..schema import Media, SourceNotes
from .settings import PreparationSettings

DATA_VERSION: Literal[4] = 4
# The latest version that changed what training reads. Only older data in a cache is prepared again.
TRAINING_VERSION = 3
DESCRIPTION_FILE = "dataset.json"
REMEDY = "correct it, or delete the folder and prepare it again"


class InputCounts(Record):
    """Inputs = outputs + rejects."""

    inputs: Count
    outputs: Count
    rejects: Count


class ClipCounts(InputCounts):
    """Counts by clip; a clip with at least one usable window is an output."""

    windows: InputCounts
    """by window"""


class Provenance(Record):
    """Where rows come from, how they were made and what was rejected: all that the rows themselves do not record."""

    version: Literal[2, 3, 4]
    """earlier ones are readable; rows of versions 2 and 3 have no signals, those of 2 no `label_scores`"""
    kind: str
    """the reader: `daisee`, `engagenet`, `fer2013`, `affectnet`, `rafdb`, `images`, `videos`,
    `reference-h5`"""
    media: Media
    """what a clip is in the source"""
    source: str
    """name of the source file or folder"""
    drawn: bool = False
    """whether the people do not exist; older files, which do not record it, count as not drawn"""
    settings: PreparationSettings
    """how frames were sampled and cropped"""
    notes: SourceNotes
    """remarks of the reader"""
    inputs: Count
    """number of source files or table rows"""
    outputs: Count
    """usable clips"""
    rejects: Count
    """inputs that could not be used"""
    windows: InputCounts
    """by window"""
    label_conflicts: LabelConflicts
    """identical pictures with different labels"""


class SplitCounts(Record):
    """Content of one split; windows are also counted by label and by level of each rating, if they have any."""

    clips: Count
    windows: Count
    subjects: Count
    """known people"""
    label: dict[str, Count] | None = None
    boredom: dict[str, Count] | None = None
    engagement: dict[str, Count] | None = None
    confusion: dict[str, Count] | None = None
    frustration: dict[str, Count] | None = None


class DatasetDescription(Provenance):
    """A finished data set."""

    fingerprint: str
    """changes with any pixel, label, person, split or order"""
    splits: dict[str, SplitCounts]
    """by name, including empty splits"""
    rejects_by_stage: dict[str, Count]
    """stage → rejected clips and windows"""
    versions: dict[str, str]
    """package → version"""
    split: str | None = None
    """in some early files: what `notes` now says about the split"""


def read_description(folder: Path) -> DatasetDescription:
    """
    Raises:
        DataError: it is missing, of a different version, or has other content; the message names the key.
    """
    return read_record(folder / DESCRIPTION_FILE, DatasetDescription, DataError, "a prepared data set", REMEDY)


def write_description(folder: Path, description: DatasetDescription) -> None:
    """Write the description; unknown values are left out.

    Raises:
        DataError: it cannot be written.
    """
    write_record(folder / DESCRIPTION_FILE, description, exclude_none=True)
