"""What of a live picture can be set: how often faces are looked for, how long people are waited for, what is shown."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..answer_rule import AnswerRule
from ..inference.predictor import Predictor
from ..processor.input_errors import EngagementInputError

MAX_SEC = 3600  # of any span of time; nobody waits longer


@dataclass(frozen=True)
class LiveSettings:
    """
    Args:
        detect_every_sec: how often faces are looked for; in between they are moved on at their speed.
        window_sec: what a clip model's frames are spread over. Default: the length of the clips it was trained on, or,
            where its processor samples neighbouring frames, as many thirtieths of a second.
        predict_every_sec: about how often a clip model predicts. A single-face model does so every step.
        smoothing_alpha: share of the newest scores in those shown; 1 does not smooth.
        abstain_below: with a certainty below this there is no label. Default: the model's own answer rule's.
        min_seen_sec: whoever was seen for this long is somebody, with number and box; passers-by are nobody. Who is
            there in the first picture is somebody at once.
        keep_lost_sec: who comes back within this time is the same person.
        max_people: the most who are followed at a time.
        small_faces: look closely for small faces beside large ones too, at several times the cost.

    Raises:
        EngagementInputError: a value that makes no sense.
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
        """The model's own, with `abstain_below` where one is set."""
        rule = predictor.rule
        return rule if self.abstain_below is None else replace(rule, abstain_below=self.abstain_below)

    def __post_init__(self) -> None:
        for name in ("window_sec", "predict_every_sec", "smoothing_alpha", "max_people"):
            _require(name, getattr(self, name), lambda value: value is None or value > 0, "above 0")
        for name in ("detect_every_sec", "abstain_below", "min_seen_sec", "keep_lost_sec"):
            _require(name, getattr(self, name), lambda value: value is None or value >= 0, "of at least 0")
        for name in ("window_sec", "predict_every_sec", "detect_every_sec", "min_seen_sec", "keep_lost_sec"):
            _require(
                name, getattr(self, name), lambda value: value is None or value <= MAX_SEC, f"of at most {MAX_SEC}"
            )
        for name in ("smoothing_alpha", "abstain_below"):
            _require(name, getattr(self, name), lambda value: value is None or value <= 1, "of at most 1")


def _require(name: str, value: float | None, is_good: Callable[[float | None], bool], expected: str) -> None:
    if not is_good(value):
        raise EngagementInputError(f"Expected {name} {expected}, got {value}; correct it.")
