"""`results.json`, version 3: what was trained or imported, on which data, and everything that was measured on any data.

`results_file` reads and writes it, and reads version 2; docs/results.md is made from what stands here.
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
    "other data": "its scores are not of the data that was audited",
    "unaudited": "nobody has audited its data's split for leakage",
    "failed": "its data's split failed the audit for leakage, so that its scores measure memory",
}


_SHARE = re.compile(r"0?\.\d+|[01]")


class Environment(Record):
    """What a result depends on beside the code."""

    python: str
    """version"""
    packages: dict[str, str]
    """package → version"""
    torch_threads: Count
    """threads of one operation"""
    device: str | None = None
    """`cpu`, or the name of the accelerator; null in older results"""
    engine: str | None = None
    """what ran the model: `torch`, `onnxruntime` or `openvino`; null in older results"""
    dtype: str | None = None
    """of its arithmetic, such as `float32`; null in older results"""


class Selection(Record):
    """Which checkpoint a training kept, and by what."""

    score: str
    """that checkpoints, and early stopping, went by, on validation's windows"""
    step: Count | None = None
    """of the checkpoint that was kept: of those within noise of the best score, one by one as they came, the one with
    the lowest loss; null where the score was never defined"""
    value: float | None = None
    """its score"""
    noise: NotNegative | None = None
    """standard error of the best score; null where only equal scores count as within noise"""
    num_evaluations: Count
    """in which the score was defined"""
    warning: str | None = None
    """one sentence where the selection had nothing to go by"""

    def in_words(self) -> str:
        """Such as `auroc 0.712, one of 3 evaluations on validation`, or the warning."""
        if self.warning is not None or self.value is None:
            return f"nothing: {self.warning}"
        return f"{self.score} {self.value:.3f}, one of {self.num_evaluations} evaluations on validation"


class Training(Record):
    """How training went."""

    seconds: NotNegative
    """how long it took"""
    log: list[dict[str, int | float | None]]
    """Trainer's own rows: `epoch`, `step` and `loss`, or `eval_loss` and `eval_macro_f1` (validation), the last with
    `train_runtime`; null: not finite"""
    selection: Selection | None = None
    """which checkpoint was kept; null in older results, and where the last one was kept"""
    features_kept: bool | None = None
    """whether a frozen encoder read each picture once, and the head alone was trained; null in older results"""
    loading_share: float | None = None
    """part of the training steps' time that was spent waiting for pictures, 0 to 1; null in older results"""


class ReportedByFile(Record):
    """What an imported file says of itself; not measured here."""

    epoch: float | None = None
    """when it was saved"""
    val_f1: float | None = None
    """macro-F1 on validation"""


class ImportedFrames(Record):
    """How the study behind an imported file cut its windows."""

    num_frames: Count
    """frames of a window"""
    sampling: str
    """`uniform` or `consecutive`"""
    window_stride_frames: Count
    """frames from one window's start to the next"""
    face_crop: bool
    """whether faces were cut out"""
    face_crop_size_px: Count
    """side of the square that frames were squeezed to"""


class ImportedFrom(Record):
    """Where a model that was not trained here came from."""

    source: str
    """name of the file or folder, or Hub id"""
    system: str
    """the architecture that was recognised"""
    num_weights: Count
    """of the whole model"""
    num_encoder_weights: Count
    """of its encoder"""
    sha256: str | None = None
    """of a `.pth` file; else null"""
    reported_by_file: ReportedByFile | None = None
    """what a `.pth` file says of itself; else null"""
    frames: ImportedFrames | None = None
    """how the study behind a `.pth` file cut its windows; else null"""


class PooledTrainings(Record):
    """Scores of predictions of several trainings, each on people it has not seen."""

    seeds: list[int]
    """of the trainings"""
    num_folds: Count
    """parts that the people were dealt into; each is predicted by a model trained on the others, with logits calibrated
    and decided in its fold"""
    by_subject: bool = False
    """each part is one person, with whoever shares a recording or picture"""


class Measurement(Record):
    """A split of a data set, and what was measured on it."""

    split: str
    """`test`, `validation`, ..."""
    data: DescribedData
    """the data set"""
    environment: Environment | None = None
    """what it was measured with; null in older results"""
    pooled: PooledTrainings | None = None
    """trainings whose predictions were pooled; null: the model of this folder was measured, and no other"""
    evaluation: SplitEvaluation
    """what was measured"""
    without_duplicates: SplitEvaluation | None = None
    """the same without windows that have a twin in an earlier split; null where the audit found none"""

    def is_of_same(self, other: "Measurement") -> bool:
        """Whether both measure the same thing, so that the later one takes the earlier one's place."""
        return self._subject() == other._subject()

    def _subject(self) -> tuple[str, str, str | None, bool]:
        return self.split, self.data.fingerprint, self.data.label_scheme, self.pooled is not None


def require_labels(
    label_names: Sequence[str], train_label_counts: Mapping[str, int], evaluations: Mapping[str, SplitEvaluation]
) -> None:
    """Raises ValueError unless all that is drawn as a table or figure is there and of these labels; names the key.

    Args:
        evaluations: by the key under which they stand in the file.
    """
    num_labels = len(label_names)
    named: dict[str, Iterable[str]] = {"train_label_counts": train_label_counts or label_names}
    for key, evaluation in evaluations.items():
        matrix = evaluation.scores.confusion_matrix
        if [len(row) for row in matrix] != [num_labels] * num_labels:
            raise ValueError(
                f"{len(matrix)} rows as {key}.scores.confusion_matrix, which is not of {num_labels} labels"
            )
        named |= {f"{key}.{table}": names for table, names in _named_by_label(evaluation).items()}
    for key, names in named.items():
        if list(names) != list(label_names):
            raise ValueError(f"{', '.join(names) or 'none'} as {key}, where the labels are {', '.join(label_names)}")
    _require_shown(label_names, evaluations)


def _require_shown(label_names: Sequence[str], evaluations: Mapping[str, SplitEvaluation]) -> None:
    """Raises ValueError for an interval that a table misses, and for a curve that has no shape; names the key."""
    by_label = (f"{score}/{label}" for score in ("precision", "recall", "f1") for label in label_names)
    shown = ["macro_f1", "balanced_accuracy", "accuracy", *by_label]
    for key, evaluation in evaluations.items():
        missing = [name for name in shown if name not in evaluation.intervals.intervals]
        if missing:
            raise ValueError(f"no {key}.intervals.intervals.{missing[0]}")
        curve = evaluation.risk_coverage
        unknown = [risk for risk in curve.coverage_at_risk if not _SHARE.fullmatch(risk)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} in {key}.risk_coverage.coverage_at_risk, where shares of errors stand")
        if len(curve.coverage) != len(curve.risk):
            raise ValueError(
                f"{len(curve.coverage)} points as {key}.risk_coverage.coverage and {len(curve.risk)} as its risk"
            )


def _named_by_label(evaluation: SplitEvaluation) -> dict[str, Iterable[str]]:
    """What of an evaluation goes by label: key → the names there."""
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
    """a reader refuses any other but 2, which it takes as what it meant"""
    stage: str
    """`expression` or `engagement`"""
    label_names: list[str]
    """by class index"""
    started_from: str
    """the encoder, the earlier stage's folder, or the imported file; a name, not a path"""
    started_from_data: str | None = None
    """what a model of ours, from which training started, was trained on"""
    seed: int | None = None
    """of the whole run; null: imported"""
    recipe: dict[str, JsonValue] = {}
    """options as they were given, without defaults; paths only by name"""
    data: TrainingData | None = None
    """what it was trained on; null: imported"""
    train_label_counts: dict[str, Count] = {}
    """label → training examples, after oversampling; the baselines know no more"""
    training: Training | None = None
    """how long it took, and its log; null: imported"""
    environment: Environment | None = None
    """what it was trained with; null: imported"""
    imported: ImportedFrom | None = None
    """where it came from; null: trained here"""
    measurements: list[Measurement] = []
    """one for each data set and split that was measured; measuring one again takes its place, and no other's"""

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
        """Whether the people it was trained on do not exist; results from before that was recorded do not say so."""
        return self.data is not None and bool(self.data.drawn)

    def is_own_data(self, measured: Measurement) -> bool:
        """Whether it was measured on another split of the data that it was trained on."""
        return self.data is not None and measured.data.fingerprint == self.data.fingerprint

    def measured_on(self, split: str) -> Measurement | None:
        """The measurement that speaks for the model: on its own data, else the first on any; None: there is none."""
        of_split = [measured for measured in self.measurements if measured.split == split]
        return next((found for found in of_split if self.is_own_data(found)), of_split[0] if of_split else None)

    def headline(self) -> Measurement | None:
        """That of test, else of whatever split was measured."""
        first = self.measurements[0].split if self.measurements else "test"
        return self.measured_on("test") or self.measured_on(first)

    def with_measurement(self, measured: Measurement) -> "Results":
        """With one more, in the place of an earlier one of the same data and split."""
        others = list(self.measurements)
        place = next((i for i, other in enumerate(others) if other.is_of_same(measured)), len(others))
        others[place : place + 1] = [measured]
        return self.model_copy(update={"measurements": others})

    def doubt(self) -> Doubt | None:
        """Why the scores on test are not to be trusted; None: they are."""
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
        """What whoever gets the model must be told, each a sentence without a stop."""
        doubt, measured = self.doubt(), self.measured_on("test")
        warnings = [_DOUBTS[doubt]] if doubt else []
        if measured is not None and measured.data.no_subjects:
            warnings.append("nobody knows the people in its data, so that it may have been measured on people it knows")
        if self.training and self.training.selection and self.training.selection.warning:
            warnings.append(self.training.selection.warning)
        if self.is_trained_on_drawn:
            return ["it was trained on drawn people who do not exist, and says nothing about real faces", *warnings]
        if measured is not None and measured.data.drawn:
            return ["it was measured on drawn people who do not exist, which says nothing about real faces", *warnings]
        return warnings
