"""The files of a study as records: `study.yaml` (what is asked, and what was published of it), `plan.json` (what was
begun in a folder), and `study.json` (what came of it), which `summary` makes and `table` turns into `table.md`.
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
    """by which it is judged"""
    also: list[str] = []
    """scores that are shown beside it"""


class PublishedRow(Record):
    """One system of a study."""

    title: str | None = None
    """for people; null: the row's name"""
    published: dict[str, Share] | None = None
    """score, such as `macro_f1` or `recall/engaged` → value"""
    stages: Annotated[list[Stage], Field(min_length=1)] = ["engagement"]
    """that are trained; the last is the one that is measured"""
    seeds: Annotated[int, Field(ge=1)] | None = None
    """it is trained with, at most; null: as many as are asked for"""
    mean_of: str | None = None
    """row in folds whose seeds' scores are averaged; null: it has a recipe of its own"""


class StudyDescription(Record):
    """`study.yaml`: what is compared, and what was published of it, if anything was."""

    title: str | None = None
    """for people; null: the folder's name"""
    data: str = "see the recipes"
    """what the data must be, for people"""
    needs_expression_data: bool = False
    """whether a row begins with expressions, for people"""
    split: MeasuredSplit
    """that is measured; where there are published numbers, the one that they are of"""
    scores: list[str] | None = None
    """that the table shows, such as `auroc`, `within_person_auroc` or, at the decision fitted on validation,
    `macro_f1_fitted`; null: macro-F1, accuracy and those published"""
    notes: list[str] = []
    """what a reader must know that no file says: what was chosen on whom, how often these people were looked at"""
    rows: Annotated[dict[str, PublishedRow], Field(min_length=1)]
    """name of a recipe beside this file → what was published of it"""
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
                raise ValueError(f"{place} with {score}, which is no score such as macro_f1")
        for name, row in self.rows.items():
            if row.mean_of is not None and (row.mean_of not in self.rows or self.rows[row.mean_of].mean_of):
                raise ValueError(f"rows.{name}.mean_of {row.mean_of}, which is no row that is trained")
        known = {*self.rows, *(f"improved/{name}" for name in self.rows)}
        for number, contrast in enumerate(self.contrasts or ()):
            for name in contrast.rows:
                if name not in known:
                    raise ValueError(f"contrasts[{number}].rows with {name}, which is none of its rows")
        return self


class Plan(Record):
    """`plan.json`: what was begun in a folder, so that nothing else goes on there."""

    study: str
    """name"""
    rows: dict[str, str]
    """name → hash of the stages, recipe, options and data it was begun with"""


class RunData(Record):
    """What a stage learned from."""

    source: str
    """name of the file or folder that was read"""
    fingerprint: str
    """changes with any pixel, label, person, split or order"""
    audit: Literal["missing", "passed", "failed"]
    """for leakage"""
    leakage_allowed: bool
    """whether it was trained all the same"""
    drawn: bool | None
    """whether its people do not exist; null: it is not known"""


class MeasuredOn(Record):
    """On whom a run was measured."""

    num_clips: Count
    """clips"""
    num_people: Count | None
    """null where they are unknown"""
    rarest_class: str | None
    """name; null where one class alone is true"""
    num_rarest_clips: Count
    """clips of it"""
    num_people_with_both: Count | None
    """people with clips of both classes; null of more classes, or where people are unknown"""
    num_folds: Count | None
    """parts of the people, each measured by a model trained on the others; null: one model, one split"""


class FinishedRun(Record):
    """A row, trained with one seed and measured."""

    seed: Count
    """of the run"""
    failure: None = None
    """null: it did not fail"""
    folder: str
    """of the measured model, in the study's"""
    scores: dict[str, float | None]
    """score → value, by clip; `..._fitted` at the decision fitted on validation; null where it is not defined"""
    scores_by_window: dict[str, float | None] | None
    """the same with every window counting once; null where each clip has one window"""
    majority_baseline: dict[str, float | None]
    """score → that of always predicting the training set's most frequent class"""
    measured_on: MeasuredOn
    """on whom"""
    collapse: str | None
    """one sentence where nearly everyone is predicted one class"""
    data: dict[Stage, RunData]
    """by stage"""
    seconds: NotNegative
    """its stages' last trainings took"""


class FailedRun(Record):
    """A row that failed in itself with one seed."""

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
    """for people"""
    improves: bool
    """our way of the row above it"""
    stages: list[Stage]
    """the last is the one that is measured"""
    published: dict[str, Share]
    """score → value"""
    seeds: Count | None = None
    """asked for in this row; null: as many as in the others"""
    runs: list[_TaggedRun]
    """by seed; of the mean of seeds the same for each of them"""

    @property
    def finished(self) -> list[FinishedRun]:
        """The runs that did not fail."""
        return [run for run in self.runs if isinstance(run, FinishedRun)]


class Spread(Record):
    """Over seeds."""

    mean: float | None
    """null where a seed does not define the score"""
    sd: float | None
    """standard deviation; null of one seed"""


class NotComparable(Record):
    """Runs that cannot be compared clip by clip."""

    refused: str
    """why"""


class MeasuredRow(RowRuns):
    """A row with its scores over seeds."""

    measured: dict[str, Spread]
    """score → over seeds, by clip"""
    measured_by_window: dict[str, Spread]
    """the same by window; empty where each clip has one"""
    intervals: Intervals | NotComparable | None
    """95 % intervals of the means over seeds, by clip, by the names of `measured`; null while nothing is finished"""


class RunDifference(Difference):
    """The second row's score minus the first's."""

    resampled: Literal["people", "clips"]
    """`clips` where people are unknown; such intervals are too narrow"""


class MeasuredDifference(Record):
    """Second row minus first in one score, by clip."""

    score: str
    """which"""
    published: float | None
    """difference of what was published; null where one of the two was not"""
    seeds: list[Count]
    """that both rows finished, with this score defined"""
    differences: list[float]
    """one for each of these seeds"""
    mean: float | None
    """of the differences; null of none"""
    sd: float | None
    """of the differences; null of one seed"""
    paired: RunDifference | NotComparable | None
    """the mean over these seeds, over resampled people; null of none"""


class MeasuredContrast(Record):
    """Two rows that the study compares."""

    name: str
    """what the comparison shows"""
    rows: Annotated[list[str], Field(min_length=2, max_length=2)]
    """the second minus the first"""
    scores: Annotated[list[MeasuredDifference], Field(min_length=1)]
    """the first is what it is judged by, the others are shown beside it"""


class StudyHead(Record):
    """Which study, and how it was trained."""

    version: Literal[2] = 2
    """of the file's layout"""
    name: str
    """of the study"""
    title: str
    """for people"""
    split: MeasuredSplit
    """that was measured"""
    seeds: Count
    """asked for"""
    scores: list[str]
    """that the table shows; empty: macro-F1, accuracy and those published"""
    notes: list[str]
    """as the study has them"""
    command: str
    """that does it again, with names of data in the place of paths"""
    changed_options: dict[str, str]
    """option → value, where every row was trained otherwise than its recipe says"""
    prepared_beforehand: list[str]
    """names of data sets that came prepared"""


class StudyRecord(StudyHead):
    """`study.json`: the runs of a study, and what they say."""

    rows: list[MeasuredRow]
    """in the study's order, an improved one below its row"""
    contrasts: list[MeasuredContrast]
    """those whose rows there are"""
