"""`plan.json` and `shortcut.json` of the shortcut experiment, and the clips of its figure."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ..data.json_records import Record
from ..evaluation.focus_records import FaceFocusResults
from ..evaluation.score_records import Interval
from ..explanation.explain_files import ExplainedClip


class ShortcutPlan(Record):
    """What an experiment was begun with."""

    options: dict[str, str]
    """of train.py, over both recipes"""
    recipes: dict[str, dict[str, JsonValue]]
    """name → its options"""


class ShortcutMacroF1(Record):
    """Macro-F1 of one model."""

    validation: float
    """where the curtains tell the label"""
    test: float
    """where they do not"""
    test_interval: Interval
    """over people"""
    test_majority: float
    """of always predicting the most frequent class"""


class ShortcutRun(Record):
    """One model of the experiment."""

    recipe: str
    """`whole_frame` or `face_crop`"""
    seed: int
    """of its training"""
    folder: str
    """below the experiment's"""
    fingerprint: str
    """of its data"""
    macro_f1: ShortcutMacroF1
    """by split"""
    face_focus: FaceFocusResults
    """on test"""
    training_seconds: float
    """it took"""


class CurtainsAlone(Record):
    """Macro-F1 of whoever looks at the curtains alone."""

    validation: float
    """where they tell the label"""
    test: float
    """where they do not"""


class ShortcutRecord(Record):
    """What `shortcut.json` holds."""

    options: dict[str, str]
    """of train.py, over both recipes"""
    curtains_alone: CurtainsAlone
    """without any model"""
    runs: list[ShortcutRun]
    """a model each"""


@dataclass(frozen=True)
class Example:
    """One test clip as both models see it."""

    label: str
    curtains: str  # the label whose colour they have
    explained: Mapping[str, ExplainedClip]  # by recipe
