"""`plan.json` and `shortcut.json` of the shortcut experiment, and the clips of its figure."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ..data.json_records import Record
from ..evaluation.focus_records import FaceFocusResults
from ..evaluation.score_records import Interval
from ..explanation.explain_files import ExplainedClip


class ShortcutPlan(Record):
    """The options and recipes of an experiment."""

    options: dict[str, str]
    """of train.py, overriding both recipes"""
    recipes: dict[str, dict[str, JsonValue]]
    """name → its options"""


class ShortcutMacroF1(Record):
    """Macro-F1 of one model."""

    validation: float
    """where the curtains agree with the label"""
    test: float
    """where they do not"""
    test_interval: Interval
    """interval of `test` over people"""
    test_majority: float
    """score of always predicting the most frequent class"""


class ShortcutRun(Record):
    """One model of the experiment."""

    recipe: str
    """`whole_frame` or `face_crop`"""
    seed: int
    """of its training"""
    folder: str
    """relative to the experiment's folder"""
    fingerprint: str
    """of its data"""
    macro_f1: ShortcutMacroF1
    """by split"""
    face_focus: FaceFocusResults
    """on test"""
    training_seconds: float
    """duration of the training"""


class CurtainsAlone(Record):
    """Macro-F1 of predicting the label from the curtains."""

    validation: float
    """where they agree with the label"""
    test: float
    """where they do not"""


class ShortcutRecord(Record):
    """The content of `shortcut.json`."""

    options: dict[str, str]
    """of train.py, overriding both recipes"""
    curtains_alone: CurtainsAlone
    """without any model"""
    runs: list[ShortcutRun]
    """one per model"""


@dataclass(frozen=True)
class Example:
    """One test clip, explained for both models."""

    label: str
    curtains: str  # the label that their colour stands for
    explained: Mapping[str, ExplainedClip]  # by recipe
