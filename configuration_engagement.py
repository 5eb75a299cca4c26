"""What lies in JSON beside an engagement model's weights: its architecture, and how its logits become an answer.

`EngagementConfig`: which frame encoder, how many frames, which temporal head. `AnswerRule`: calibrated scores, a label
or why there is none; the same for every surface. How a run is trained lives in recipes, how pixels are made in the
processor. This file is copied to the Hub beside the weights and imports nothing of ours.
"""

import importlib.metadata
import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from packaging.version import Version

# The oldest versions that a model's code runs with. Checked here, before any of them is used: the config is read first,
# and of what a processor raises the video pipeline keeps nothing but "requires either a video processor or ...".
_OLDEST = {
    "transformers": "5.20",
    "torch": "2.10",
    "torchvision": "0.25",
    "timm": "1.0.23",
    "huggingface-hub": "2.2",
    "av": "17.1",
    "facenet-pytorch": "2.5.3",
    "numpy": "2",
    "pillow": "10",
}


def _require_versions() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (where a copy of this file runs, pip asked for nothing)
        raise ImportError(f"Expected Python 3.11 or newer, got {sys.version.split()[0]}; use a newer one.")
    for name, oldest in _OLDEST.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or Version(found) < Version(oldest):
            raise ImportError(f"Expected {name}>={oldest}, got {found or 'none'}; pip install '{name}>={oldest}'.")


_require_versions()

import numpy as np  # noqa: E402
from huggingface_hub.dataclasses import strict  # noqa: E402
from transformers import AutoConfig, PreTrainedConfig  # noqa: E402
from transformers.configuration_utils import SubConfigSpec  # noqa: E402
from transformers.utils import cached_file  # noqa: E402

ANSWER_RULE_FILE = "answer_rule.json"
# `Answer.reason`
UNCERTAIN, NO_FACE_LONG_ENOUGH, FACE_TOO_SMALL = "uncertain", "no face long enough", "face too small"
UNREADABLE = "frames that cannot be read"
MIN_FACE_COVERAGE = 0.5  # share of the frames looked at that must show the face
MIN_FACE_PX = 40  # of the longer side of a face's box
DRAWN_PEOPLE, UNKNOWN = "drawn people", "unknown"  # `AnswerRule.trained_on`, where it is no data set
_CERTAINTY_TO_ANSWER = 0.2  # of the way from chance to certainty, where no validation said better
_LEAST_SCORE = 1e-12  # the logarithm needs one
# No model needs more, and a mistyped or hostile size would ask for all memory before anything is refused.
_LARGEST = {"num_frames": 10_000, "image_size": 4096, "num_channels": 64}
_LARGEST |= {"temporal_hidden_size": 16_384, "temporal_num_layers": 100, "temporal_num_heads": 16_384}
_LARGEST_SHIFT = 1e6  # of a logit; what is fitted stays below 1,000
_SHORTEST_CLIP_SEC, _LONGEST_CLIP_SEC = 0.01, 1e6
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


@strict
class EngagementConfig(PreTrainedConfig):
    """Configuration of `EngagementForImageClassification` and `EngagementForVideoClassification`.

    Args:
        encoder_config: any transformers vision config (`TimmWrapperConfig(architecture="resnet18")`, `BeitConfig()`,
            ...), as an object or as the dictionary it was saved as. Default: timm's `resnet18`.
        encoder_features: what a frame's features are. `"map"`: the mean over space of the last feature map, and the
            layers behind the map are cut away. `"pooled"`: the encoder's own pooled output.
        num_frames: frames a clip is sampled to.
        image_size: height and width of a face crop, in pixels.
        num_channels: 3 for colour, 1 for grey.
        temporal: the head that reads the frames together: `"lstm"` (last hidden state), `"transformer"`
            (self-attention, then the mean over frames), `"mean"` (the mean over frames, blind to their order) or
            `"last"` (the last frame alone).
        normalize_features: in clips, each feature is scaled to mean 0 and variance 1 before the temporal head, by
            a BatchNorm without weights over the frames of the batch (outside training: of the training).
        temporal_hidden_size: units of the LSTM or width of the transformer; the others have none.
        temporal_num_layers: layers of the LSTM or of the transformer.
        temporal_num_heads: attention heads of the transformer.
        temporal_positions: how the transformer knows the order of frames: `"sinusoidal"`, or `"convolutional"`, by what
            a convolution over each frame and its neighbours adds to it.
        dropout: share of features dropped before the classifier.
        test_time_views: of each face outside training, whose features are averaged: 1 (the face), 2 (and its mirror
            image) or 10 (also four corners of 11/12 of its side, each mirrored too).
        initializer_range: standard deviation of the classifier's first weights.

    Raises:
        ValueError: for a size below 1, a dropout outside [0, 1), or a width the attention heads do not divide.
    """

    model_type = "engagement"
    sub_configs_defaults = {
        "encoder_config": SubConfigSpec(
            config_class=AutoConfig, model_type="timm_wrapper", init_kwargs={"architecture": "resnet18"}
        )
    }

    if TYPE_CHECKING:
        encoder_config: PreTrainedConfig = PreTrainedConfig()
    else:  # as JSON holds it until the config is complete; a config object from then on
        encoder_config: dict | PreTrainedConfig | None = None
    encoder_features: Literal["map", "pooled"] = "map"
    num_frames: int = 8
    image_size: int = 224
    num_channels: int = 3
    temporal: Literal["lstm", "transformer", "mean", "last"] = "lstm"
    normalize_features: bool = False
    temporal_hidden_size: int = 256
    temporal_num_layers: int = 1
    temporal_num_heads: int = 4
    temporal_positions: Literal["sinusoidal", "convolutional"] = "sinusoidal"
    dropout: float = 0.5
    test_time_views: Literal[1, 2, 10] = 1
    initializer_range: float = 0.02

    @property
    def label_names(self) -> list[str]:
        """The labels by index."""
        return [name for _, name in sorted((self.id2label or {}).items())]

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        temporal_sizes = ("temporal_hidden_size", "temporal_num_layers", "temporal_num_heads")
        for name in ("num_frames", "image_size", "num_channels", *temporal_sizes):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
            if getattr(self, name) > _LARGEST[name]:
                raise ValueError(f"Expected {name} of at most {_LARGEST[name]:,}, got {getattr(self, name):,}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Expected dropout in [0, 1), got {self.dropout}.")
        if self.temporal == "transformer" and self.temporal_hidden_size % self.temporal_num_heads:
            raise ValueError(
                f"Expected temporal_hidden_size ({self.temporal_hidden_size}) to be a multiple of "
                f"temporal_num_heads ({self.temporal_num_heads})."
            )


class Answer(NamedTuple):
    """What is said of a face, a clip or a whole film. Without a label, `reason` says why."""

    label: str | None
    reason: str | None  # one of the four above; None: there is a label
    scores: dict[str, float] | None  # calibrated, by label name; None without a face long or large enough
    certainty: float | None  # of the label that is decided, or would be; what `abstain_below` is compared with


@dataclass(frozen=True)
class AnswerRule:
    """How a model's logits become an answer, fitted on validation; it lies beside the weights in `answer_rule.json`.

    `forward` gives raw logits. Scores are softmax((logits + bias) / temperature). The label is that of the highest
    log score + offset, which of two labels on imbalanced data need not be that of the highest score. The certainty is
    the highest of softmax(log scores + offsets): below `abstain_below` there is no label, and the reason is
    "uncertain".

    Args:
        label_names: by class index.
        temperature: None: nothing was fitted, and scores are the plain softmax ("uncalibrated").
        bias: (num_labels,), added to the logits.
        offsets: (num_labels,), added to the logarithms of the scores.
        abstain_below: a certainty; None: a fifth of the way from chance to certainty, 0.6 of two classes.
        trained_on: "drawn people", a data set's name, or "unknown".
        clip_sec: length of the clips that it learned from; longer files are read in windows of it. None: single faces,
            or nobody knows.

    Raises:
        ValueError: numbers that do not belong to these labels.
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
        if self.temperature is not None and not 1 / _LARGEST_SHIFT <= self.temperature <= _LARGEST_SHIFT:  # nan is not
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
        """The rule beside a model's weights, in a folder or on the Hub; None where there is none.

        Raises:
            ValueError: the file holds no rule.
        """
        hub_arguments = {name: value for name, value in kwargs.items() if name in _HUB_ARGUMENTS}
        # Not raised: offline, a model may be cached from before there was a rule. It shows as uncalibrated.
        found = cached_file(
            model, ANSWER_RULE_FILE, **hub_arguments, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        if found is None:
            return None
        try:
            return cls(**json.loads(Path(found).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"Expected how to answer in {found}, got something else ({error}).") from error

    def save(self, folder: Path) -> None:
        """Write `answer_rule.json` into a model's folder."""
        (folder / ANSWER_RULE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @property
    def is_calibrated(self) -> bool:
        """Whether scores fit how often they are right, as far as validation tells."""
        return self.temperature is not None

    @property
    def threshold(self) -> float:
        """The certainty below which there is no label."""
        chance = 1 / len(self.label_names)
        return chance + _CERTAINTY_TO_ANSWER * (1 - chance) if self.abstain_below is None else self.abstain_below

    def to_scores(self, logits: np.ndarray) -> np.ndarray:
        """(n, num_labels) raw logits -> (n, num_labels) scores; ValueError: a logit that is nan or infinity."""
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            raise ValueError("Expected finite logits, got nan or infinity; no label may be made of them.")
        return _softmax(logits if self.temperature is None else (logits + self.bias) / self.temperature)

    def decide(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, num_labels) scores -> (n,) class index that is decided, and (n,) its certainty."""
        decided = _softmax(np.log(np.maximum(scores, _LEAST_SCORE)) + self.offsets)
        return decided.argmax(axis=1), decided.max(axis=1)

    def uncertain_band(self) -> tuple[float, float] | None:
        """Of two classes, the scores of the second between which there is no label; None of more classes."""
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
        """
        Args:
            scores: (num_labels,); None: there is no face, or (where no coverage is known either) nothing could be read.
            face_coverage: share of the frames looked at that show the face; None where nobody looked.
            face_px: longer side of the face's box; None where nobody looked.
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


def _softmax(rows: np.ndarray) -> np.ndarray:
    exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


__all__ = ["AnswerRule", "EngagementConfig"]
