"""Columns, label names and label schemes of every prepared data set: the single source. Imports nothing of ours."""

from dataclasses import dataclass, field

SPLITS = ("train", "validation", "test")

# FER2013's own order (https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition).
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
STATES = ("bored", "confused", "engaged", "neutral")  # the BEiT reference

# DAiSEE's four affects, each rated 0 (very low) to 3 (very high), by the columns of its label files.
AFFECTS = ("boredom", "engagement", "confusion", "frustration")
LEVELS = ("very low", "low", "high", "very high")
BINARY = ("disengaged", "engaged")


@dataclass(frozen=True)
class ClipRecord:
    """One labelled clip of a video data set, before preparation."""

    clip_id: str
    subject_id: str
    split: str
    source_path: str
    affects: dict[str, int] = field(default_factory=dict)  # by name, 0..3
    clip_start_sec: float | None = None
    clip_end_sec: float | None = None


def binary_label(affects: dict[str, int]) -> str:
    """DAiSEE's engagement levels 0 and 1 are disengaged, 2 and 3 engaged (as in the CNN + LSTM reference)."""
    return BINARY[int(affects["engagement"] >= 2)]


def level_label(affects: dict[str, int]) -> str:
    """The engagement level itself, as one of four names."""
    return LEVELS[affects["engagement"]]


# Label schemes, chosen when training from the stored affects: name -> (label names, affects -> label).
LABEL_SCHEMES = {"binary": (BINARY, binary_label), "levels": (LEVELS, level_label)}
