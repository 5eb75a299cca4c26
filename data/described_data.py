"""How `results.json` describes the data that a model was trained or evaluated on."""

from typing import Literal

from .json_records import Count, Record

LAYOUTS = {"images": "class folders"}  # by kind of data, where the kind is not a well-known name


class FindingSummary(Record):
    """Summary of one finding of an audit for leakage."""

    name: str
    """name of the check"""
    grade: Literal["fail", "report", "ok"]
    """`fail`: the split cannot be trusted; `report`: to be reported with the scores; `ok`: not found"""
    summary: str
    """one sentence"""


class AuditSummary(Record):
    """The audit for leakage of the data as it was when used."""

    passed: bool
    """whether the split can be trusted"""
    findings: list[FindingSummary] = []
    """one for each check; empty in older results, which did not store them"""


class LabelConflicts(Record):
    """Identical images with different labels."""

    groups: Count
    """groups of identical images"""
    pictures: Count
    """images in these groups"""
    dropped: bool
    """whether they were left out"""


class PreparedWith(Record):
    """The options that prepare the same data from the same source again; null: the default for the source."""

    num_frames: Count | None = None
    """frames per window"""
    sampling: str | None = None
    """`uniform` or `consecutive`"""
    window_stride_frames: Count | None = None
    """frames from the start of one window to the next, for consecutive sampling"""
    face_crop: bool | None = None
    """whether faces were detected and cropped"""
    face_crop_size_px: Count | None = None
    """side of the stored square image"""
    as_played: bool | None = None
    """for videos: whether frames are those that a player shows; null in older results, without this option"""
    subset: str | None = None
    """subset of a source that has several, such as `stratified`"""
    subject_pattern: str | None = None
    """regular expression that finds the person in a file name"""
    no_subjects: bool | None = None
    """whether the people were declared unknown (`--no-subjects`)"""
    pictures_as: str | None = None
    """`pictures`, or `clips` made of frames in order; null for videos"""
    window_label: str | None = None
    """for clips of images: `majority`, `mean` or `last` of the frames' labels"""
    vote_labels: str | None = None
    """`soft` or `majority`, if votes of several people were read"""
    split_seed: int = 0
    """seed of a split drawn during preparation"""


class ChannelPixels(Record):
    """Brightness of the training images by channel, for pixels from 0 to 1."""

    mean: list[float]
    """mean by channel"""
    std: list[float]
    """standard deviation by channel"""


class DescribedData(Record):
    """A prepared data set; for results of earlier versions, only what they recorded is known."""

    kind: str
    """the reader: `daisee`, `engagenet`, `fer2013`, `affectnet`, `rafdb`, `images`, `videos`,
    `reference-h5`"""
    source: str
    """name of the source file or folder"""
    fingerprint: str
    """changes with any pixel, label, person, split or order: [prepared data](prepared_data.md)"""
    drawn: bool | None = None
    """whether the people are drawn (synthetic: the source is from `engagement draw`); null in older results"""
    label_scheme: str | None = None
    """`own`, `binary`, `three-class`, `levels` or `affects`"""
    split: str | None = None
    """where the split comes from"""
    inputs: Count | None = None
    """number of source files or table rows"""
    rejected: Count | None = None
    """number of inputs that could not be used"""
    rejects_by_stage: dict[str, Count] = {}
    """stage → number of rejects"""
    label_conflicts: LabelConflicts | None = None
    """identical images with different labels"""
    subjects: dict[str, Count] = {}
    """split → number of known people; 0 if unknown"""
    no_subjects: bool | None = None
    """whether the people were declared unknown when preparing; null: not declared"""
    examples: dict[str, Count] = {}
    """split → number of windows (or images) with a label, before oversampling"""
    window_span_sec: float | None = None
    """median time from the first to the last frame of a window; null for images"""
    audit: AuditSummary | None = None
    """findings of an audit for leakage; null: the data was not audited in this state"""

    def in_words(self) -> str:
        """The data's name; drawn data must not be mistaken for the real data set whose layout it has."""
        return f"drawn people, in the layout of {LAYOUTS.get(self.kind, self.kind)}" if self.drawn else self.source


class TrainingData(DescribedData):
    """The data that a model was trained on, and how training used it."""

    leakage_allowed: bool = False
    """trained with `allow_leakage`"""
    without_label_under_scheme: dict[str, Count] = {}
    """split → windows left out because they have no label"""
    prepared_with: PreparedWith | None = None
    """options of the preparation; null in older results"""
    flat_pictures_left_out: dict[str, Count] | None = None
    """split → images that `picture_norm` cannot scale; null without that option"""
    train_pixels: ChannelPixels | None = None
    """what the images were normalised with, if the recipe says `train`; else null"""
    oversampled_to: Count | None = None
    """rows per class after oversampling; null: not oversampled"""

    def as_measured(self) -> DescribedData:
        """The data alone, without how training used it."""
        return DescribedData(**{name: getattr(self, name) for name in DescribedData.model_fields})
