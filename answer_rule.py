"""How a model's logits become an answer: calibrated scores, and a label or the reason why there is none.

The rule is stored as JSON with a model's weights, and every interface uses it. This file is copied to the Hub with them
and imports neither other code of ours nor torch or transformers, so that an export needs none of them.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

ANSWER_RULE_FILE = "answer_rule.json"
# `Answer.reason`
UNCERTAIN, NO_FACE_LONG_ENOUGH, FACE_TOO_SMALL = "uncertain", "no face long enough", "face too small"
UNREADABLE = "frames that cannot be read"
MIN_FACE_COVERAGE = 0.5  # share of the searched frames that must show the face
MIN_FACE_PX = 40  # longer side of a face's box
DRAWN_PEOPLE, UNKNOWN = "drawn people", "unknown"  # values of `AnswerRule.trained_on` besides a data set's name
_CERTAINTY_TO_ANSWER = 0.2  # of the way from chance to certainty; used if nothing was fitted on validation
_LEAST_SCORE = 1e-12  # avoids the logarithm of 0
_LARGEST_SHIFT = 1e6  # of a logit; fitted values are below 1,000
_SHORTEST_CLIP_SEC, _LONGEST_CLIP_SEC = 0.01, 1e6
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


class Answer(NamedTuple):
    """The answer for a face, a clip or a whole film. Without a label, `reason` says why."""

    label: str | None
    reason: str | None  # one of the four above; None if there is a label
    scores: dict[str, float] | None  # calibrated, by label name; None without a usable face
    certainty: float | None  # of the most likely label, compared with `abstain_below`


@dataclass(frozen=True)
class AnswerRule:
    """How a model's logits become an answer, fitted on validation; stored with the weights in `answer_rule.json`.

    `forward` gives raw logits. Scores are softmax((logits + bias) / temperature). The label has the highest log score +
    offset, which on imbalanced data need not be the highest score. The certainty is the highest of softmax(log scores +
    offsets); if it is below `abstain_below`, there is no label, and the reason is "uncertain".

    Args:
        label_names: by class index.
        temperature: None if nothing was fitted; scores are then the plain softmax ("uncalibrated").
        bias: (num_labels,), added to the logits.
        offsets: (num_labels,), added to the logarithms of the scores.
        abstain_below: a certainty; None: a fifth of the way from chance to certainty, 0.6 for two classes.
        trained_on: "drawn people", a data set's name, or "unknown".
        clip_sec: length of the training clips; longer files are read in windows of this length. None: single faces, or
            unknown.

    Raises:
        ValueError: values that are invalid or do not match these labels.
    """

    label_names: tuple[str, ...]
    temperature: float | None = None
    bias: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    abstain_below: float | None = None
    trained_on: str = UNKNOWN
    clip_sec: float | None = None

    def __post_init__(self) -> None:
        for name in ("label_names", "bias", "offsets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("bias", "offsets"):
            numbers = getattr(self, name) or (0.0,) * len(self.label_names)
            if len(numbers) != len(self.label_names) or not all(abs(number) <= _LARGEST_SHIFT for number in numbers):
                raise ValueError(f"Expected a number as {name} for each of {self.label_names}, got {numbers}.")
            object.__setattr__(self, name, numbers)
        if self.temperature is not None and not 1 / _LARGEST_SHIFT <= self.temperature <= _LARGEST_SHIFT:  # not nan
            raise ValueError(
                f"Expected temperature above 0, and at most {_LARGEST_SHIFT:,.0f}, got {self.temperature}."
            )
        if self.clip_sec is not None and not _SHORTEST_CLIP_SEC <= self.clip_sec <= _LONGEST_CLIP_SEC:
            raise ValueError(
                f"Expected clip_sec from {_SHORTEST_CLIP_SEC} to {_LONGEST_CLIP_SEC:,.0f}, got {self.clip_sec}."
            )
        if not isinstance(self.trained_on, str) or not all(isinstance(name, str) for name in self.label_names):
            raise ValueError(
                f"Expected names as label_names and trained_on, got {self.label_names}, {self.trained_on}."
            )
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise ValueError(f"Expected abstain_below from 0 to 1, got {self.abstain_below}.")

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str], **kwargs: object) -> Self | None:
        """The rule stored with a model's weights, in a folder or on the Hub; None if there is none.

        Raises:
            ValueError: the file does not contain a rule.
        """
        found = _find(model, kwargs) if Path(model).is_dir() else _fetch(model, kwargs)
        if found is None:
            return None
        try:
            return cls(**json.loads(found.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{found} is not a valid answer rule ({error}).") from error

    def save(self, folder: Path) -> None:
        """Write `answer_rule.json` into a model's folder."""
        (folder / ANSWER_RULE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @property
    def is_calibrated(self) -> bool:
        """Whether scores were fitted to how often they are right on validation."""
        return self.temperature is not None

    @property
    def threshold(self) -> float:
        """The certainty below which there is no label."""
        chance = 1 / len(self.label_names)
        return chance + _CERTAINTY_TO_ANSWER * (1 - chance) if self.abstain_below is None else self.abstain_below

    def to_scores(self, logits: np.ndarray) -> np.ndarray:
        """(n, num_labels) raw logits -> (n, num_labels) scores; ValueError for a logit that is nan or infinity."""
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            raise ValueError("Expected finite logits, got nan or infinity, which give no label.")
        return _softmax(logits if self.temperature is None else (logits + self.bias) / self.temperature)

    def decide(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, num_labels) scores -> (n,) class index of the decision, and (n,) its certainty."""
        decided = _softmax(np.log(np.maximum(scores, _LEAST_SCORE)) + self.offsets)
        return decided.argmax(axis=1), decided.max(axis=1)

    def uncertain_band(self) -> tuple[float, float] | None:
        """For two classes, the range of the second one's scores that gives no label; None for more classes."""
        if len(self.label_names) != 2:
            return None
        if self.threshold >= 1:
            return 0.0, 1.0
        middle, reach = (
            self.offsets[0] - self.offsets[1],
            math.log(max(self.threshold, 0.5) / (1 - max(self.threshold, 0.5))),
        )
        return 1 / (1 + math.exp(reach - middle)), 1 / (1 + math.exp(-reach - middle))

    def answer(
        self, scores: np.ndarray | None, face_coverage: float | None = None, face_px: float | None = None
    ) -> Answer:
        """A label with its certainty, or the reason for none.

        Args:
            scores: (num_labels,); None: there is no face, or (if the coverage is None too) nothing could be read.
            face_coverage: share of the searched frames that show the face; None if no face was looked for.
            face_px: longer side of the face's box; None if no face was looked for.
        """
        if face_coverage is not None and face_coverage < MIN_FACE_COVERAGE:
            return Answer(None, NO_FACE_LONG_ENOUGH, None, None)
        if face_px is not None and face_px < MIN_FACE_PX:
            return Answer(None, FACE_TOO_SMALL, None, None)
        if scores is None:
            return Answer(None, UNREADABLE, None, None)
        (label_id,), (certainty,) = self.decide(scores[None])
        label, reason = (self.label_names[label_id], None) if certainty >= self.threshold else (None, UNCERTAIN)
        return Answer(label, reason, dict(zip(self.label_names, scores.tolist(), strict=True)), float(certainty))


def _find(folder: str | os.PathLike[str], hub_arguments: Mapping[str, object]) -> Path | None:
    path = Path(folder, str(hub_arguments.get("subfolder") or ""), ANSWER_RULE_FILE)
    return path if path.is_file() else None


def _fetch(hub_id: str | os.PathLike[str], arguments: Mapping[str, object]) -> Path | None:
    from transformers.utils import cached_file

    hub_arguments = {name: value for name, value in arguments.items() if name in _HUB_ARGUMENTS}
    # No error: offline, an older model may be in the cache without a rule. It counts as uncalibrated.
    found = cached_file(
        hub_id, ANSWER_RULE_FILE, **hub_arguments, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False, _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if found is None else Path(found)


def _softmax(rows: np.ndarray) -> np.ndarray:
    exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
