"""The measurements of `engagement benchmark`, from which docs/performance.md is generated."""

from typing import Literal

from ..data.json_records import Count, NotNegative, Positive, Record

SPEED_FILE = "benchmark.json"


class Way(Record):
    """One way from a file to its label, warm."""

    name: str
    engine: str
    dtype: str
    whole_ms: Positive
    stages_ms: dict[str, NotNegative]  # by stage, measured separately; none for the plain way
    ratio: Positive  # plain over this
    same_label: bool  # as the plain way's


class Floor(Record):
    """Times of only decoding and only arithmetic; convolutions with fewer multiplications, and int8, can be faster."""

    decode_ms: Positive  # our decoding of only the sampled frames
    gflop: Positive  # of the model, for one clip
    gflop_per_sec: Positive  # of a large matrix product in float32 on these threads
    arithmetic_ms: Positive  # gflop / gflop_per_sec


class Warm(Record):
    """A model's ways, in turn, on one video."""

    model: str
    parameters: Count
    ways: list[Way]
    floor: Floor
    not_measured: dict[str, str]  # way -> why


class Cold(Record):
    """A new process: from its start to the printed label."""

    name: str
    seconds: Positive
    peak_mb: Positive  # of the process and its children together
    ratio: Positive  # the plain script over this


class Batch(Record):
    """Many clips with one model."""

    engine: str
    workers: Count
    batch_size: Count
    clips: Count
    clips_per_sec: Positive
    peak_mb: Positive


class Ratio(Record):
    """Two times of the same task, and the first divided by the second."""

    name: str
    before_ms: Positive
    after_ms: Positive
    ratio: Positive


class Group(Record):
    """Numbers of one measurement: milliseconds, ratios and shares, according to their names."""

    name: str
    values: dict[str, NotNegative]


class SpeedRecord(Record):
    """`benchmark.json`: times in milliseconds are medians over rounds in which the ways take turns."""

    version: Literal[1]
    environment: dict[str, str]
    video: str
    rounds: Count
    threads: Count
    decode: Ratio  # CPU time, every frame to RGB compared with only the sampled frames
    frames_identical: bool
    warm: list[Warm] = []  # an empty part was not requested, or is in `not_measured`
    cold: list[Cold] = []
    batches: list[Batch] = []
    faces: list[Group] = []
    training: list[Group] = []
    not_measured: dict[str, str] = {}  # part -> why
