"""`results.json` of version 2, written by earlier versions → version 3, with defaults for what a file leaves out.

Version 2 had one entry per split: measuring a split of other data replaced that of the model's own. `evaluated_on`
recorded the data of a split, else it was the model's own; for an imported model `data` was the first data that it was
measured on.
"""

from typing import Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, JsonValue, model_validator

from ..data.described_data import AuditSummary, DescribedData, PreparedWith, TrainingData
from ..data.json_records import Count, Record
from .results_schema import (
    Environment,
    ImportedFrames,
    ImportedFrom,
    Measurement,
    ReportedByFile,
    Results,
    Training,
    require_labels,
)
from .score_records import (
    Calibration,
    CalibrationResults,
    Decision,
    DecisionMacroF1,
    DecisionScores,
    Positive,
    SplitEvaluation,
)

_CLEAN = "_without_duplicates"


class _RecordV2(Record):
    model_config = ConfigDict(extra="ignore")  # earlier versions wrote different further keys, none of which is read


class _EnvironmentV2(Record):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]  # package -> version
    python: str = "unknown"
    torch_threads: Count = 0

    def upgraded(self) -> Environment:
        return Environment(python=self.python, torch_threads=self.torch_threads, packages=self.__pydantic_extra__)


class _PreparedWithV2(PreparedWith):
    model_config = ConfigDict(extra="ignore")
    face_crop_size: Count | None = None

    def upgraded(self) -> PreparedWith:
        known = self.model_dump(exclude={"face_crop_size"})
        return PreparedWith(**{**known, "face_crop_size_px": self.face_crop_size_px or self.face_crop_size})


class _DataV2(TrainingData):
    model_config = ConfigDict(extra="ignore")
    prepared_with: _PreparedWithV2 | None = None


class _ImportedV2(_RecordV2):
    source: str = Field(alias="from")
    system: str
    num_weights: Count
    num_encoder_weights: Count
    sha256: str | None = None
    reported_by_file: ReportedByFile | None = None
    frames: "_ImportedFramesV2 | None" = None

    def upgraded(self) -> ImportedFrom:
        return ImportedFrom(**{**dict(self), "frames": self.frames.upgraded() if self.frames else None})


class _ImportedFramesV2(_RecordV2):
    num_frames: Count
    sampling: str
    window_stride_frames: Count
    face_crop: bool
    face_crop_size_px: Count = Field(validation_alias=AliasChoices("face_crop_size_px", "face_crop_size"))

    def upgraded(self) -> ImportedFrames:
        return ImportedFrames(**dict(self))


class _EvaluatedOnV2(_RecordV2):
    fingerprint: str
    label_scheme: str | None = None
    kind: str | None = None
    source: str | None = None
    drawn: bool | None = None
    audit_passed: bool | None = None
    environment: _EnvironmentV2 | None = None


class _CalibrationV2(_RecordV2):
    as_trained: Calibration
    temperature: Positive | None = None
    scaled: Calibration | None = None


class _DecisionV2(_RecordV2):
    offsets: dict[str, float]
    threshold: float | None
    validation_macro_f1: DecisionMacroF1
    test: DecisionScores


class _EvaluationV2(SplitEvaluation):
    model_config = ConfigDict(extra="ignore")
    calibration: _CalibrationV2  # type: ignore[assignment] # only for reading, never used as its parent
    decision: _DecisionV2 | None  # type: ignore[assignment]

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        """Temperature and offsets were always chosen together."""
        if self.decision is not None and self.calibration.temperature is None:
            raise ValueError("a decision without calibration.temperature")
        return self

    def upgraded(self) -> SplitEvaluation:
        calibration, chosen, decision = self.calibration, self.decision, None
        if chosen is not None and calibration.temperature is not None:
            decision = Decision(
                temperature=calibration.temperature,
                offsets=chosen.offsets,
                threshold=chosen.threshold,
                validation_macro_f1=chosen.validation_macro_f1,
                scores=chosen.test,
            )
        kept = {name: getattr(self, name) for name in SplitEvaluation.model_fields}
        scales = CalibrationResults(as_trained=calibration.as_trained, scaled=calibration.scaled)
        return SplitEvaluation(**{**kept, "calibration": scales, "decision": decision})


class ResultsV2(_RecordV2):
    """The keys of a file of version 2 that are read."""

    version: Literal[2]
    stage: str
    label_names: list[str]
    started_from: str
    started_from_data: str | None = None
    seed: int | None = None
    recipe: dict[str, JsonValue] = {}
    data: _DataV2 | None = None
    train_label_counts: dict[str, Count] = {}
    training: Training | None = None
    environment: _EnvironmentV2 | None = None
    imported: _ImportedV2 | None = None
    evaluation: dict[str, _EvaluationV2] = {}
    evaluated_on: dict[str, _EvaluatedOnV2] = {}

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        """As in `Results`, with the keys of this version."""
        evaluations = {f"evaluation.{split}": evaluation for split, evaluation in self.evaluation.items()}
        require_labels(self.label_names, self.train_label_counts, evaluations)
        unknown = [
            split for split in self.evaluation if self.data is None and split.split(_CLEAN)[0] not in self.evaluated_on
        ]
        if unknown:
            raise ValueError(f"no data for evaluation.{unknown[0]}")
        return self

    def upgraded(self) -> Results:
        """The same as version 3."""
        return Results(
            stage=self.stage,
            label_names=self.label_names,
            started_from=self.started_from,
            started_from_data=self.started_from_data,
            seed=self.seed,
            recipe=self.recipe,
            data=self._trained_on(),
            train_label_counts=self.train_label_counts,
            training=self.training,
            environment=self.environment.upgraded() if self.environment else None,
            imported=self.imported.upgraded() if self.imported else None,
            measurements=[self._measurement(split) for split in self.evaluation if not split.endswith(_CLEAN)],
        )

    def _trained_on(self) -> TrainingData | None:
        if self.data is None or self.training is None:
            return None
        prepared_with = self.data.prepared_with and self.data.prepared_with.upgraded()
        return TrainingData(**{**dict(self.data), "prepared_with": prepared_with})

    def _measurement(self, split: str) -> Measurement:
        later, clean = self.evaluated_on.get(split), self.evaluation.get(split + _CLEAN)
        environment = (later and later.environment) or self.environment
        return Measurement(
            split=split,
            data=self._measured_on(later),
            environment=environment.upgraded() if environment else None,
            evaluation=self.evaluation[split].upgraded(),
            without_duplicates=clean.upgraded() if clean else None,
        )

    def _measured_on(self, later: _EvaluatedOnV2 | None) -> DescribedData:
        own = self.data and self.data.as_measured()
        if own is not None and (later is None or later.fingerprint == own.fingerprint):
            if later is None:
                return own
            passed, audit = later.audit_passed, own.audit
            if passed is not None and (audit is None or audit.passed != passed):
                audit = AuditSummary(passed=passed)
            return own.model_copy(update={"audit": audit, "label_scheme": later.label_scheme or own.label_scheme})
        assert later is not None  # `_check_labels` refuses an evaluation of unknown data
        return DescribedData(
            kind=later.kind or "unknown",
            source=later.source or "unknown",
            fingerprint=later.fingerprint,
            drawn=later.drawn,
            label_scheme=later.label_scheme,
            audit=None if later.audit_passed is None else AuditSummary(passed=later.audit_passed),
        )
