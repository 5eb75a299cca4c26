"""The files of a study as records: `study.yaml` (the comparison and published scores), `plan.json` (what was started in
a folder), and `study.json` (the results), which `summary` makes and `table` turns into `table.md`.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ..data.json_records import Count, NotNegative, Record, Share
from ..evaluation.score_records import Difference, Intervals
from ..training.arguments import Stage

_SCORE = re.compile(
    "(macro_f1|balanced_accuracy|accuracy|weighted_f1)(_fitted)?|auroc|within_person_auroc|auprc_minority"
    "|(recall|precision|f1)/.+"
)

MeasuredSplit = Literal["validation", "test"]


class Contrast(Record):
    """Two rows that the study compares."""

    name: str
    """what the comparison shows"""
    rows: Annotated[list[str], Field(min_length=2, max_length=2)]
    """the second is compared with the first"""
    score: str
    """score by which it is judged"""
    also: list[str] = []
    """further scores that are shown"""
    caveat: str | None = None
    """what the comparison does not show, whatever its verdict; one sentence"""


class PublishedRow(Record):
    """One system of a study."""

    title: str | None = None
    """title for readers; null: the row's name"""
    published: dict[str, Share] | None = None
    """score, such as `macro_f1` or `recall/engaged` → value"""
    stages: Annotated[list[Stage], Field(min_length=1)] = ["engagement"]
    """stages that are trained; the last one is measured"""
    seeds: Annotated[int, Field(ge=1)] | None = None
    """largest number of seeds; null: as many as requested"""
    mean_of: str | None = None
    """row in folds whose seeds' scores are averaged; null: it has its own recipe"""


class StudyDescription(Record):
    """`study.yaml`: the systems that are compared, and their published scores, if any."""

    title: str | None = None
    """title for readers; null: the folder's name"""
    data: str = "see the recipes"
    """the data that is needed, in words"""
    needs_expression_data: bool = False
    """whether a row starts with expressions; for readers"""
    split: MeasuredSplit
    """split that is measured; with published numbers, the one that they were measured on"""
    scores: list[str] | None = None
    """scores in the table, such as `auroc`, `within_person_auroc` or, with the decision fitted on validation,
    `macro_f1_fitted`; null: macro-F1, accuracy and those published"""
    notes: list[str] = []
    """what a reader must know and no file records: what was chosen on which people, and how often they were used"""
    rows: Annotated[dict[str, PublishedRow], Field(min_length=1)]
    """name of a recipe in this folder → its published scores"""
    contrasts: list[Contrast] | None = None
    """which rows the study compares"""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        named = [(f"rows.{name}.published", score) for name, row in self.rows.items() for score in row.published or {}]
        named += [("scores", score) for score in self.scores or ()]
        for number, contrast in enumerate(self.contrasts or ()):
            named += [(f"contrasts[{number}]", score) for score in (contrast.score, *contrast.also)]
        for place, score in named:
            if not _SCORE.fullmatch(score):
                raise ValueError(f"{place} with {score}, which is not a score (such as macro_f1)")
        for name, row in self.rows.items():
            if row.mean_of is not None and (row.mean_of not in self.rows or self.rows[row.mean_of].mean_of):
                raise ValueError(f"rows.{name}.mean_of {row.mean_of}, which is not a trained row")
        known = {*self.rows, *(f"improved/{name}" for name in self.rows)}
        for number, contrast in enumerate(self.contrasts or ()):
            for name in contrast.rows:
                if name not in known:
                    raise ValueError(f"contrasts[{number}].rows with {name}, which is not one of its rows")
        return self


class Plan(Record):
    """`plan.json`: what was started in a folder, so that nothing different is continued there."""

    study: str
    """name"""
    rows: dict[str, str]
    """name → hash of its stages, recipe, options and data"""


class RunData(Record):
    """The data of a stage."""

    source: str
    """name of the file or folder that was read"""
    fingerprint: str
    """changes with any pixel, label, person, split or order"""
    audit: Literal["missing", "passed", "failed"]
    """result of the audit for leakage"""
    leakage_allowed: bool
    """whether training was allowed anyway"""
    drawn: bool | None
    """whether its people do not exist; null: unknown"""


class MeasuredOn(Record):
    """The people and clips that a run was measured on."""

    num_clips: Count
    """number of clips"""
    num_people: Count | None
    """number of people; null if unknown"""
    rarest_class: str | None
    """its name; null if only one class occurs"""
    num_rarest_clips: Count
    """clips of the rarest class"""
    num_people_with_both: Count | None
    """people with clips of both classes; null for more classes, or if people are unknown"""
    num_folds: Count | None
    """folds of the people, each measured with a model trained on the others; null: one model, one split"""


class FinishedRun(Record):
    """A row, trained with one seed and measured."""

    seed: Count
    """of the run"""
    failure: None = None
    """null: it did not fail"""
    folder: str
    """folder of the measured model, relative to the study's"""
    scores: dict[str, float | None]
    """score → value, by clip; `..._fitted` with the decision fitted on validation; null where undefined"""
    scores_by_window: dict[str, float | None] | None
    """the same by window; null where each clip has one window"""
    majority_baseline: dict[str, float | None]
    """score → value of always predicting the training set's most frequent class"""
    measured_on: MeasuredOn
    """people and clips"""
    collapse: str | None
    """one sentence if one class is predicted for nearly every clip"""
    data: dict[Stage, RunData]
    """by stage"""
    seconds: NotNegative
    """duration of the trainings since they were last resumed"""


class FailedRun(Record):
    """A row that failed with one seed."""

    seed: Count
    """of the run"""
    failure: str
    """why"""


def _kind_of_run(run: object) -> str:
    failure = run.get("failure") if isinstance(run, dict) else getattr(run, "failure", None)
    return "finished" if failure is None else "failed"


Run = FinishedRun | FailedRun
_TaggedRun = Annotated[
    Annotated[FinishedRun, Tag("finished")] | Annotated[FailedRun, Tag("failed")], Discriminator(_kind_of_run)
]


class RowRuns(Record):
    """One system of a study, as published or improved, and its runs so far."""

    name: str
    """also the folder of its runs"""
    title: str
    """title for readers"""
    improves: bool
    """whether it is our improved version of the row above it"""
    stages: list[Stage]
    """the last one is measured"""
    published: dict[str, Share]
    """score → published value"""
    seeds: Count | None = None
    """number of seeds of this row; null: as many as in the others"""
    runs: list[_TaggedRun]
    """by seed; for the mean of seeds the same run for each of them"""

    @property
    def finished(self) -> list[FinishedRun]:
        """The runs that did not fail."""
        return [run for run in self.runs if isinstance(run, FinishedRun)]


class Spread(Record):
    """Mean and standard deviation over seeds."""

    mean: float | None
    """null where the score is undefined for a seed"""
    sd: float | None
    """standard deviation; null with one seed"""


class NotComparable(Record):
    """Runs that cannot be compared clip by clip."""

    refused: str
    """why"""


class MeasuredRow(RowRuns):
    """A row with its scores over seeds."""

    measured: dict[str, Spread]
    """score → mean and deviation over seeds, by clip"""
    measured_by_window: dict[str, Spread]
    """the same by window; empty where each clip has one window"""
    intervals: Intervals | NotComparable | None
    """95 % intervals of the means over seeds, by clip, by the names of `measured`; null while nothing is finished"""


class RunDifference(Difference):
    """The second row's score minus the first's."""

    resampled: Literal["people", "clips"]
    """`clips` where people are unknown; such intervals are too narrow"""


class MeasuredDifference(Record):
    """Second row minus first in one score, by clip."""

    score: str
    """name of the score"""
    published: float | None
    """difference of the published values; null where one is missing"""
    seeds: list[Count]
    """seeds that both rows finished, with this score defined"""
    differences: list[float]
    """one for each of these seeds"""
    mean: float | None
    """mean of the differences; null without any"""
    sd: float | None
    """standard deviation of the differences; null with one seed"""
    paired: RunDifference | NotComparable | None
    """the mean over these seeds, with its interval over resampled people; null without any"""


class MeasuredContrast(Record):
    """Two rows that the study compares."""

    name: str
    """what the comparison shows"""
    rows: Annotated[list[str], Field(min_length=2, max_length=2)]
    """the second minus the first"""
    scores: Annotated[list[MeasuredDifference], Field(min_length=1)]
    """the first one judges it, the others are shown for information"""
    caveat: str | None = None
    """what the comparison does not show, as in the study"""


class StudyHead(Record):
    """Which study, and how it was trained."""

    version: Literal[2] = 2
    """of the file's layout"""
    name: str
    """of the study"""
    title: str
    """title for readers"""
    split: MeasuredSplit
    """split that was measured"""
    seeds: Count
    """number of seeds requested"""
    scores: list[str]
    """scores in the table; empty: macro-F1, accuracy and those published"""
    notes: list[str]
    """notes of the study"""
    command: str
    """command that repeats it, with names of data instead of paths"""
    changed_options: dict[str, str]
    """option → value, where they override the recipes of all rows"""
    prepared_beforehand: list[str]
    """names of data sets that were already prepared"""


class StudyRecord(StudyHead):
    """`study.json`: the runs of a study, and their summary."""

    rows: list[MeasuredRow]
    """in the study's order, an improved one below its row"""
    contrasts: list[MeasuredContrast]
    """those whose rows exist"""
