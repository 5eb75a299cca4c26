"""`dataset.json`: what is known of a prepared data set beside its rows."""

from pathlib import Path
from typing import Literal

from ...processor.input_errors import DataError
from ..described_data import LabelConflicts
from ..json_records import Count, Record, read_record, write_record
from ..schema import Media, SourceNotes
from .settings import PreparationSettings

DATA_VERSION: Literal[4] = 4
# The latest version that changed what training reads. Only what is older is prepared again where it lies in a cache.
TRAINING_VERSION = 3
DESCRIPTION_FILE = "dataset.json"
REMEDY = "put it right, or delete the folder and prepare it again"


class InputCounts(Record):
    """Inputs are outputs and rejects."""

    inputs: Count
    outputs: Count
    rejects: Count


class ClipCounts(InputCounts):
    """By clip; a clip of which at least one window came out is an output."""

    windows: InputCounts
    """by window"""


class Provenance(Record):
    """Where rows come from, how they were made, and what was lost on the way: all that the rows do not say."""

    version: Literal[2, 3, 4]
    """earlier ones are read; rows of versions 2 and 3 have no signals, those of 2 no `label_scores`"""
    kind: str
    """the reader: `daisee`, `engagenet`, `fer2013`, `affectnet`, `rafdb`, `images`, `videos`,
    `reference-h5`"""
    media: Media
    """what a clip was"""
    source: str
    """name of the file or folder that was read"""
    drawn: bool = False
    """whether the people do not exist; files from before that was recorded count as not drawn"""
    settings: PreparationSettings
    """how frames were chosen and cropped"""
    notes: SourceNotes
    """what the reader told"""
    inputs: Count
    """files or table rows looked at"""
    outputs: Count
    """clips that came out"""
    rejects: Count
    """inputs that could not be used"""
    windows: InputCounts
    """by window"""
    label_conflicts: LabelConflicts
    """identical pictures with different labels"""


class SplitCounts(Record):
    """What one split holds; windows are also counted by label and by level of each rating, where they have any."""

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
    """by name; one that is empty is there"""
    rejects_by_stage: dict[str, Count]
    """stage → rejected clips and windows"""
    versions: dict[str, str]
    """package → version"""
    split: str | None = None
    """of some early files: what `notes` says of the split"""


def read_description(folder: Path) -> DatasetDescription:
    """
    Raises:
        DataError: there is none, of another version, or it holds something else; the key is named.
    """
    return read_record(folder / DESCRIPTION_FILE, DatasetDescription, DataError, "a prepared data set", REMEDY)


def write_description(folder: Path, description: DatasetDescription) -> None:
    """What is unknown is left out.

    Raises:
        DataError: it cannot be written.
    """
    write_record(folder / DESCRIPTION_FILE, description, exclude_none=True)
