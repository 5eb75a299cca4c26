"""`results.json`, version 3: what was trained or imported, on which data, and everything that was measured on any data.

`results_file` reads and writes it, and reads version 2; docs/results.md is generated from this module.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from pydantic import JsonValue, model_validator

from ..data.described_data import DescribedData, TrainingData
from ..data.json_records import Count, NotNegative, Record
from .score_records import Decision, SplitEvaluation

Doubt = Literal["unmeasured", "other data", "unaudited", "failed"]
_DOUBTS: dict[Doubt, str] = {
    "unmeasured": "nothing was measured on test",
    "other data": "its scores are not from the data that was audited",
    "unaudited": "its data's split has not been audited for leakage",
    "failed": "its data's split failed the audit for leakage, so that its scores also measure memorisation",
}


_SHARE = re.compile(r"0?\.\d+|[01]")


class Environment(Record):
    """What a result depends on besides the code."""

    python: str
    """version"""
    packages: dict[str, str]
    """package → version"""
    torch_threads: Count
    """threads of one operation"""
    device: str | None = None
    """`cpu`, or the name of the accelerator; null in older results"""
    engine: str | None = None
    """the library that ran the model: `torch`, `onnxruntime` or `openvino`; null in older results"""
    dtype: str | None = None
    """number format of the computation, such as `float32`; null in older results"""


class Selection(Record):
    """Which checkpoint a training kept, and why."""

    score: str
    """score that selected checkpoints and stopped early, on validation's windows"""
    step: Count | None = None
    """step of the kept checkpoint: among those within noise of the best score so far, decided one by one, the one with
    the lowest loss; null where the score was never defined"""
    value: float | None = None
    """score of the kept checkpoint"""
    noise: NotNegative | None = None
    """standard error of the best score; null where only equal scores count as within noise"""
    num_evaluations: Count
    """evaluations in which the score was defined"""
    warning: str | None = None
    """one sentence if the score could not decide"""

    def in_words(self) -> str:
        """Such as `auroc 0.712, one of 3 evaluations on validation`, or the warning."""
        if self.warning is not None or self.value is None:
            return f"nothing: {self.warning}"
        return f"{self.score} {self.value:.3f}, one of {self.num_evaluations} evaluations on validation"


class Training(Record):
    """How training went."""

    seconds: NotNegative
    """duration"""
    log: list[dict[str, int | float | None]]
    """Trainer's own rows: `epoch`, `step` and `loss`, or `eval_loss` and `eval_macro_f1` (validation); the last row has
    `train_runtime`; null: not finite"""
    selection: Selection | None = None
    """which checkpoint was kept; null in older results, and where the last one was kept"""
    features_kept: bool | None = None
    """whether a frozen encoder read each picture once, and only the head was trained; null in older results"""
    loading_share: float | None = None
    """share of the training's time that was spent waiting for pictures, 0 to 1; null in older results"""


class ReportedByFile(Record):
    """What an imported file reports about itself; not measured here."""

    epoch: float | None = None
    """epoch at which it was saved"""
    val_f1: float | None = None
    """macro-F1 on validation"""


class ImportedFrames(Record):
    """How the study behind an imported file cut its windows."""

    num_frames: Count
    """frames per window"""
    sampling: str
    """`uniform` or `consecutive`"""
    window_stride_frames: Count
    """frames from one window's start to the next"""
    face_crop: bool
    """whether faces were cropped"""
    face_crop_size_px: Count
    """height and width that frames were resized to"""


class ImportedFrom(Record):
    """Where a model that was not trained here came from."""

    source: str
    """name of the file or folder, or Hub id"""
    system: str
    """the architecture that was recognised"""
    num_weights: Count
    """number of weights of the whole model"""
    num_encoder_weights: Count
    """number of weights of its encoder"""
    sha256: str | None = None
    """SHA-256 of a `.pth` file; else null"""
    reported_by_file: ReportedByFile | None = None
    """what a `.pth` file reports about itself; else null"""
    frames: ImportedFrames | None = None
    """how the study behind a `.pth` file cut its windows; else null"""


class PooledTrainings(Record):
    """Scores of the predictions of several trainings, each on people it has not seen."""

    seeds: list[int]
    """seeds of the trainings"""
    num_folds: Count
    """folds that the people were divided into; each is predicted by a model trained on the others, with logits
    calibrated and decided in its fold"""
    by_subject: bool = False
    """each fold is one person, with all people who share a recording or picture"""


class Measurement(Record):
    """The measurement of one split of a data set."""

    split: str
    """`test`, `validation`, ..."""
    data: DescribedData
    """the data set"""
    environment: Environment | None = None
    """hardware and software of the measurement; null in older results"""
    pooled: PooledTrainings | None = None
    """trainings whose predictions were pooled; null: only the model of this folder was measured"""
    evaluation: SplitEvaluation
    """scores and all that belongs to them"""
    without_duplicates: SplitEvaluation | None = None
    """the same without windows that have a duplicate in an earlier split; null where the audit found none"""

    def is_of_same(self, other: "Measurement") -> bool:
        """Whether both measure the same thing, so that the later one replaces the earlier one."""
        return self._subject() == other._subject()

    def _subject(self) -> tuple[str, str, str | None, bool]:
        return self.split, self.data.fingerprint, self.data.label_scheme, self.pooled is not None


def require_labels(
    label_names: Sequence[str], train_label_counts: Mapping[str, int], evaluations: Mapping[str, SplitEvaluation]
) -> None:
    """Raises ValueError, with the key, unless everything for tables and figures exists and has these labels.

    Args:
        evaluations: by their key in the file.
    """
    num_labels = len(label_names)
    named: dict[str, Iterable[str]] = {"train_label_counts": train_label_counts or label_names}
    for key, evaluation in evaluations.items():
        matrix = evaluation.scores.confusion_matrix
        if [len(row) for row in matrix] != [num_labels] * num_labels:
            raise ValueError(
                f"{len(matrix)} rows as {key}.scores.confusion_matrix, which does not fit {num_labels} labels"
            )
        named |= {f"{key}.{table}": names for table, names in _named_by_label(evaluation).items()}
    for key, names in named.items():
        if list(names) != list(label_names):
            raise ValueError(f"{', '.join(names) or 'none'} as {key}, where the labels are {', '.join(label_names)}")
    _require_shown(label_names, evaluations)


def _require_shown(label_names: Sequence[str], evaluations: Mapping[str, SplitEvaluation]) -> None:
    """Raises ValueError, with the key, for an interval that a table needs, and for a curve of mismatched lengths."""
    by_label = (f"{score}/{label}" for score in ("precision", "recall", "f1") for label in label_names)
    shown = ["macro_f1", "balanced_accuracy", "accuracy", *by_label]
    for key, evaluation in evaluations.items():
        missing = [name for name in shown if name not in evaluation.intervals.intervals]
        if missing:
            raise ValueError(f"no {key}.intervals.intervals.{missing[0]}")
        curve = evaluation.risk_coverage
        unknown = [risk for risk in curve.coverage_at_risk if not _SHARE.fullmatch(risk)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} in {key}.risk_coverage.coverage_at_risk, not a share of errors")
        if len(curve.coverage) != len(curve.risk):
            raise ValueError(
                f"{len(curve.coverage)} points as {key}.risk_coverage.coverage and {len(curve.risk)} as its risk"
            )


def _named_by_label(evaluation: SplitEvaluation) -> dict[str, Iterable[str]]:
    """The parts of an evaluation that are given by label: key → the names there."""
    people, decision = evaluation.people, evaluation.decision
    named: dict[str, Iterable[str]] = {"scores.per_class": evaluation.scores.per_class}
    if people:
        named |= {"people.predicted_share": people.predicted_share, "people.true_share": people.true_share}
    if decision:
        named["decision.offsets"] = decision.offsets
    if isinstance(decision, Decision):  # version 2 has its own, and is checked again once it is upgraded
        if decision.bias is not None:
            named["decision.bias"] = decision.bias
        if decision.answers is not None:
            named["decision.answers.offsets"] = decision.answers.offsets
        for name, scores in (("argmax", decision.scores.argmax), ("fitted", decision.scores.fitted)):
            named[f"decision.scores.{name}.per_class"] = scores.per_class
    return named


class Results(Record):
    """A model's folder in numbers."""

    version: Literal[3] = 3
    """readers refuse any other version, except 2, which they convert"""
    stage: str
    """`expression` or `engagement`"""
    label_names: list[str]
    """by class index"""
    started_from: str
    """the encoder, the earlier stage's folder, or the imported file; a name, not a path"""
    started_from_data: str | None = None
    """training data of the model that training started from, if it is one of ours"""
    seed: int | None = None
    """of the whole run; null: imported"""
    recipe: dict[str, JsonValue] = {}
    """options as the user gave them, without defaults; of paths only the last part"""
    data: TrainingData | None = None
    """training data; null: imported"""
    train_label_counts: dict[str, Count] = {}
    """label → training examples, after oversampling; all that the baselines use"""
    training: Training | None = None
    """duration and log of the training; null: imported"""
    environment: Environment | None = None
    """hardware and software of the training; null: imported"""
    imported: ImportedFrom | None = None
    """origin of an imported model; null: trained here"""
    measurements: list[Measurement] = []
    """one for each data set and split that was measured; measuring one again replaces only that one"""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        """Tables and figures are drawn by label, baselines from the training labels' counts."""
        evaluations = {}
        for number, measured in enumerate(self.measurements):
            evaluations[f"measurements[{number}].evaluation"] = measured.evaluation
            if measured.without_duplicates:
                evaluations[f"measurements[{number}].without_duplicates"] = measured.without_duplicates
        require_labels(self.label_names, self.train_label_counts, evaluations)
        return self

    @property
    def is_trained_on_drawn(self) -> bool:
        """Whether the people it was trained on do not exist; False for results from before that was recorded."""
        return self.data is not None and bool(self.data.drawn)

    def is_own_data(self, measured: Measurement) -> bool:
        """Whether it was measured on another split of the data that it was trained on."""
        return self.data is not None and measured.data.fingerprint == self.data.fingerprint

    def measured_on(self, split: str) -> Measurement | None:
        """The model's main measurement: on its own data, else the first on any; None: there is none."""
        of_split = [measured for measured in self.measurements if measured.split == split]
        return next((found for found in of_split if self.is_own_data(found)), of_split[0] if of_split else None)

    def headline(self) -> Measurement | None:
        """The main measurement on test, else on the split that was measured first."""
        first = self.measurements[0].split if self.measurements else "test"
        return self.measured_on("test") or self.measured_on(first)

    def with_measurement(self, measured: Measurement) -> "Results":
        """With one more, which replaces an earlier one of the same data and split."""
        others = list(self.measurements)
        place = next((i for i, other in enumerate(others) if other.is_of_same(measured)), len(others))
        others[place : place + 1] = [measured]
        return self.model_copy(update={"measurements": others})

    def doubt(self) -> Doubt | None:
        """Why the scores on test cannot be trusted; None: they can."""
        measured = self.measured_on("test")
        if measured is None:
            return "unmeasured"
        if self.data is not None and not self.is_own_data(measured):
            return "other data"
        audit = measured.data.audit
        if audit is None:
            return "unaudited"
        return None if audit.passed else "failed"

    def warnings(self) -> list[str]:
        """Warnings for everyone who gets the model, each a sentence without a full stop."""
        doubt, measured = self.doubt(), self.measured_on("test")
        warnings = [_DOUBTS[doubt]] if doubt else []
        if measured is not None and measured.data.no_subjects:
            warnings.append(
                "the people in its data are unknown, so it may have been measured on people it was trained on"
            )
        if self.training and self.training.selection and self.training.selection.warning:
            warnings.append(self.training.selection.warning)
        if self.is_trained_on_drawn:
            return ["it was trained on drawn people who do not exist, and says nothing about real faces", *warnings]
        if measured is not None and measured.data.drawn:
            return ["it was measured on drawn people who do not exist, which says nothing about real faces", *warnings]
        return warnings
