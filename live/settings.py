"""Settings of live predictions: how often faces are detected, how long a lost person is remembered, what is shown."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..answer_rule import AnswerRule
from ..inference.predictor import Predictor
from ..processor.input_errors import EngagementInputError

MAX_SEC = 3600  # limit of every duration


@dataclass(frozen=True)
class LiveSettings:
    """
    Args:
        detect_every_sec: interval of face detection; in between, boxes move on at their speed.
        window_sec: span of a clip model's frames. Default: the length of the clips it was trained on or, if its
            processor samples consecutive frames, their number at 30 frames per second.
        predict_every_sec: approximate interval of a clip model's predictions. A single-face model predicts every step.
        smoothing_alpha: weight of the newest scores; 1 does not smooth.
        abstain_below: there is no label below this certainty. Default: that of the model's answer rule.
        min_seen_sec: a person seen for this long gets a number and a box; passers-by get none. Everybody in the first
            picture gets them at once.
        keep_lost_sec: a person who returns within this time keeps the number.
        max_people: how many people are tracked at most.
        small_faces: also detect small faces next to large ones, at several times the cost.

    Raises:
        EngagementInputError: a value is out of range.
    """

    detect_every_sec: float = 0.2
    window_sec: float | None = None
    predict_every_sec: float = 0.5
    smoothing_alpha: float = 0.3
    abstain_below: float | None = None
    min_seen_sec: float = 1.0
    keep_lost_sec: float = 3.0
    max_people: int = 8
    small_faces: bool = False

    def rule_of(self, predictor: Predictor) -> AnswerRule:
        """The model's own answer rule, with `abstain_below` if it is set."""
        rule = predictor.rule
        return rule if self.abstain_below is None else replace(rule, abstain_below=self.abstain_below)

    def __post_init__(self) -> None:
        for name in ("window_sec", "predict_every_sec", "smoothing_alpha", "max_people"):
            _require(name, getattr(self, name), lambda value: value is None or value > 0, "above 0")
        for name in ("detect_every_sec", "abstain_below", "min_seen_sec", "keep_lost_sec"):
            _require(name, getattr(self, name), lambda value: value is None or value >= 0, "at least 0")
        for name in ("window_sec", "predict_every_sec", "detect_every_sec", "min_seen_sec", "keep_lost_sec"):
            _require(name, getattr(self, name), lambda value: value is None or value <= MAX_SEC, f"at most {MAX_SEC}")
        for name in ("smoothing_alpha", "abstain_below"):
            _require(name, getattr(self, name), lambda value: value is None or value <= 1, "at most 1")


def _require(name: str, value: float | None, is_good: Callable[[float | None], bool], expected: str) -> None:
    if not is_good(value):
        raise EngagementInputError(f"{name} must be {expected}, got {value}; correct it.")
