"""What results say of the data that a model was trained or measured on: records in `results.json`."""

from typing import Literal

from .json_records import Count, Record

LAYOUTS = {"images": "class folders"}  # by kind of data, where the kind is no name that people know


class FindingSummary(Record):
    """What an audit for leakage found, in short."""

    name: str
    """what was looked for"""
    grade: Literal["fail", "report", "ok"]
    """`fail`: the split cannot be trusted; `report`: to be said beside the scores; `ok`: not found"""
    summary: str
    """one sentence"""


class AuditSummary(Record):
    """The audit for leakage of the data as it was."""

    passed: bool
    """whether the split can be trusted"""
    findings: list[FindingSummary] = []
    """one for each thing that was looked for; empty in results from before they were kept"""


class LabelConflicts(Record):
    """Identical pictures with different labels."""

    groups: Count
    """groups of identical pictures"""
    pictures: Count
    """pictures in these groups"""
    dropped: bool
    """whether they were left out"""


class PreparedWith(Record):
    """The options under which the same source becomes the same data again; null: what suits the source."""

    num_frames: Count | None = None
    """frames of a window"""
    sampling: str | None = None
    """`uniform` or `consecutive`"""
    window_stride_frames: Count | None = None
    """frames from one window's start to the next, of consecutive ones"""
    face_crop: bool | None = None
    """whether faces were looked for and cut out"""
    face_crop_size_px: Count | None = None
    """side of the stored square"""
    as_played: bool | None = None
    """of videos: whether frames are those that a player shows; null in results from before there was a choice"""
    subset: str | None = None
    """of a source that has several, such as `stratified`"""
    subject_pattern: str | None = None
    """regular expression that finds the person in a file's name"""
    no_subjects: bool | None = None
    """whether somebody said that nobody knows the people"""
    pictures_as: str | None = None
    """`pictures`, or `clips` of frames in order; null for videos"""
    window_label: str | None = None
    """of clips of pictures: `majority`, `mean` or `last` of its frames' labels"""
    vote_labels: str | None = None
    """`soft` or `majority`, where votes of several people were read"""
    split_seed: int = 0
    """seed of a split that we made"""


class ChannelPixels(Record):
    """Brightness of the training pictures by channel, of pixels from 0 to 1."""

    mean: list[float]
    """mean by channel"""
    std: list[float]
    """standard deviation by channel"""


class DescribedData(Record):
    """A prepared data set. Of data that an earlier version measured, only what it recorded is known."""

    kind: str
    """the reader: `daisee`, `engagenet`, `fer2013`, `affectnet`, `rafdb`, `images`, `videos`,
    `reference-h5`"""
    source: str
    """name of the file or folder that was read"""
    fingerprint: str
    """changes with any pixel, label, person, split or order: [prepared data](prepared_data.md)"""
    drawn: bool | None = None
    """whether the people do not exist: `engagement draw` made the source; null in older results, which do not know"""
    label_scheme: str | None = None
    """`own`, `binary`, `three-class`, `levels` or `affects`"""
    split: str | None = None
    """where the split comes from"""
    inputs: Count | None = None
    """files or table rows looked at"""
    rejected: Count | None = None
    """those of them that could not be used"""
    rejects_by_stage: dict[str, Count] = {}
    """stage → number of rejects"""
    label_conflicts: LabelConflicts | None = None
    """identical pictures with different labels"""
    subjects: dict[str, Count] = {}
    """split → number of known people; 0 where nobody knows"""
    no_subjects: bool | None = None
    """whether somebody said, when preparing, that nobody knows the people; null: nobody said so"""
    examples: dict[str, Count] = {}
    """split → number of windows (or pictures) with a label, before oversampling"""
    window_span_sec: float | None = None
    """median time from a window's first frame to its last; null for pictures"""
    audit: AuditSummary | None = None
    """what an audit for leakage found; null: nobody audited the data as it was"""

    def in_words(self) -> str:
        """Its name; that of drawn people must not be taken for the real one whose layout they have."""
        return f"drawn people, in the layout of {LAYOUTS.get(self.kind, self.kind)}" if self.drawn else self.source


class TrainingData(DescribedData):
    """The data that a model was trained on, and what was done with it."""

    leakage_allowed: bool = False
    """trained with `allow_leakage`"""
    without_label_under_scheme: dict[str, Count] = {}
    """split → windows left out for want of a label"""
    prepared_with: PreparedWith | None = None
    """how it was prepared; null in older results"""
    flat_pictures_left_out: dict[str, Count] | None = None
    """split → pictures that `picture_norm` cannot scale; null without that option"""
    train_pixels: ChannelPixels | None = None
    """what the pictures were normalised with, where the recipe says `train`; else null"""
    oversampled_to: Count | None = None
    """rows a class was drawn up to; null: not oversampled"""

    def as_measured(self) -> DescribedData:
        """The data alone, without what training did with it."""
        return DescribedData(**{name: getattr(self, name) for name in DescribedData.model_fields})
