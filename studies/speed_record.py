"""What `engagement benchmark` measures, as a file that docs/performance.md is made from."""

from typing import Literal

from ..data.json_records import Count, NotNegative, Positive, Record

SPEED_FILE = "benchmark.json"


class Way(Record):
    """One way from a file to its label, warm."""

    name: str
    engine: str
    dtype: str
    whole_ms: Positive
    stages_ms: dict[str, NotNegative]  # by stage, measured apart; none of the plain way
    ratio: Positive  # plain over this
    same_label: bool  # as the plain way's


class Floor(Record):
    """What decoding and arithmetic alone take; convolutions that multiply less, and int8, fall below the latter."""

    decode_ms: Positive  # our decoding of the frames that are wanted, alone
    gflop: Positive  # of the model, for one clip
    gflop_per_sec: Positive  # of a large matrix product in float32 on these threads
    arithmetic_ms: Positive  # the former over the latter


class Warm(Record):
    """A model's ways, in turn, on one video."""

    model: str
    parameters: Count
    ways: list[Way]
    floor: Floor
    not_measured: dict[str, str]  # way -> why


class Cold(Record):
    """A fresh process: from its start to the printed label."""

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
    """Two times of the same thing, and how many times the second goes into the first."""

    name: str
    before_ms: Positive
    after_ms: Positive
    ratio: Positive


class Group(Record):
    """Numbers of one thing that was measured: milliseconds, ratios and shares, as their names say."""

    name: str
    values: dict[str, NotNegative]


class SpeedRecord(Record):
    """`benchmark.json`: times in milliseconds are medians over rounds in which the ways take turns."""

    version: Literal[1]
    environment: dict[str, str]
    video: str
    rounds: Count
    threads: Count
    decode: Ratio  # CPU time, every frame to RGB against the frames that are wanted
    frames_identical: bool
    warm: list[Warm] = []  # a part that is empty was not asked for, or is named below
    cold: list[Cold] = []
    batches: list[Batch] = []
    faces: list[Group] = []
    training: list[Group] = []
    not_measured: dict[str, str] = {}  # part -> why
