"""What measuring a model gives: scores, intervals, calibration, decisions and face focus, as `results.json` holds them.

Scores, shares and confidences are numbers from 0 to 1; an undefined number is null. Labels are named, and lists and
matrices follow the order of the model's label names.
"""

from typing import Annotated, Literal

from pydantic import Field

from ..data.json_records import Count, NotNegative, Positive, Record, Share
from .focus_records import FaceFocusResults

_NAMES = {
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "auroc": "AUROC",
    "within_person_auroc": "within-person AUROC",
    "auprc_minority": "average precision",
}


def score_in_words(name: str) -> str:
    """For tables, such as `macro-F1`, or `macro-F1, fitted` at the decision fitted on validation."""
    plain = name.removesuffix("_fitted")
    return _NAMES.get(plain, plain.replace("_", " ")) + (", fitted" if plain != name else "")


class ClassScores(Record):
    """Of one class."""

    precision: Share
    """0 where nothing was predicted to be of it"""
    recall: Share
    """0 where nothing is of it"""
    f1: Share
    """0 where it neither occurs nor is predicted"""
    support: Count
    """examples that are of it"""


class Scores(Record):
    """Scores of predictions on imbalanced data."""

    num_examples: Count
    """clips, or windows"""
    macro_f1: Share
    """mean of F1 over the classes present; until data without a class could be measured, over all"""
    balanced_accuracy: Share
    """mean of recall over the classes present"""
    accuracy: Share
    """share of predictions that are right"""
    weighted_f1: Share
    """mean of F1 by support"""
    auroc: Share | None = None
    """two classes: the rarest's; more: mean of one against the rest; null where one class is true, or nothing ranks"""
    auprc_minority: Share | None = None
    """average precision of the rarest class; null where one class is true, or nothing ranks"""
    minority_class: str | None = None
    """name of the rarest class"""
    quadratic_kappa: Annotated[float, Field(ge=-1.000001, le=1.000001)] | None = None
    """Cohen's kappa with quadratic weights, of the four levels"""
    mae: NotNegative | None = None
    """mean absolute error in levels, of the four levels"""
    per_class: dict[str, ClassScores]
    """label → its scores"""
    confusion_matrix: list[list[Count | NotNegative]]
    """counts; rows are the truth, columns the prediction"""


class MajorityBaseline(Scores):
    """Always predicting the training set's most frequent class; nothing ranks."""

    predicts: str
    """that class"""


class StratifiedBaseline(Scores):
    """Predicting at random with the training set's shares: means of many draws; nothing ranks."""

    predicts: str
    """in words"""
    train_shares: dict[str, Share]
    """label → share of the training set"""
    num_draws: Count
    """how many"""
    seed: int
    """of the draws"""


class Interval(Record):
    """A score and its 95 % interval."""

    value: float | None
    """the score"""
    lower: float | None
    """null with one cluster only, or where fewer than half of the resamples define the score and hold every class"""
    upper: float | None
    """as `lower`"""
    num_undefined: Count
    """the other resamples"""
    effective_clusters: NotNegative
    """how many equal people (or clips) would carry as much as those that the score hangs on"""
    few_clusters: bool
    """fewer than five of these: take the interval as still too narrow"""

    def in_words(self, unknown: str, form: str = ".3f") -> str:
        """Such as `0.512 to 0.734`; `unknown` where there are no bounds."""
        if self.lower is None or self.upper is None:
            return unknown
        return f"{self.lower:{form}} to {self.upper:{form}}"


class Difference(Interval):
    """The second model's score minus the first's."""

    first: float | None
    """the first model's score"""
    second: float | None
    """the second model's score"""
    excludes_zero: bool | None
    """whether the interval does; null without one"""


class Resampling(Record):
    """How intervals came about."""

    resampled: Literal["people", "clips"]
    """`clips` where people are unknown; such intervals are too narrow"""
    num_clusters: Count
    """people, or clips"""
    num_resamples: Count
    """draws with replacement"""
    seed: int
    """of the draws"""
    confidence: Share
    """that the interval is made for"""
    method: str
    """in words"""


class Intervals(Resampling):
    """95 % intervals of scores."""

    intervals: dict[str, Interval]
    """by score, and as `precision/<label>`, `recall/<label>`, `f1/<label>`; of two classes and known people also
    `within_person_auroc`: of pairs of a clip of the rarest class and another one of the same person, the share that the
    score of that class orders rightly, a tie counting half, over all people's pairs together"""


class Differences(Resampling):
    """95 % intervals of the differences between two models, or in the mean of pairs of them, on the same clips."""

    differences: dict[str, Difference]
    """by the names of `Intervals.intervals`"""
    by_pair: dict[str, list[float | None]] = {}
    """the same of each pair of models"""


class Quartiles(Record):
    """Over people, each counting once however many clips they have."""

    lower_quartile: float
    """a quarter of the people have no more"""
    median: float
    """half of the people have no more"""
    upper_quartile: float
    """three quarters of the people have no more"""


class PeopleSpread(Record):
    """How much people differ."""

    num_people: Count
    """how many there are"""
    accuracy: Quartiles
    """of a person's accuracy"""
    predicted_share: dict[str, Quartiles]
    """label → of the share of a person's clips that are predicted so"""
    true_share: dict[str, Quartiles]
    """label → of the share of a person's clips that are so"""
    num_people_with_both: Count | None = None
    """people with clips of both classes, whose pairs `within_person_auroc` counts; null of more classes, and in older
    results"""


class SuppressedGroup(Record):
    """A group of fewer than five people, or one whose scores would follow from the others."""

    suppressed: Literal[True] = True
    """true: nothing is told of it"""


class GroupScores(Scores):
    """Scores of a group of people, such as a gender."""

    suppressed: Literal[False] = False
    """false: these scores are told"""
    num_people: Count
    """people in it"""


Group = Annotated[SuppressedGroup | GroupScores, Field(discriminator="suppressed")]


class CalibrationBin(Record):
    """Examples of like confidence."""

    lower: Share
    """least confidence, itself outside but for 0"""
    upper: Share
    """greatest confidence, itself inside"""
    count: Count
    """examples"""
    confidence: Share | None
    """their mean; null without examples"""
    accuracy: Share | None
    """share of them that is right; null without examples"""


class Calibration(Record):
    """How far confidence is from the share that is right."""

    ece: Share
    """expected calibration error over bins of equal width"""
    ece_equal_mass: Share
    """the same over bins of (nearly) as many examples each"""
    brier: Annotated[float, Field(ge=0, le=2.000001)]
    """squared distance from the truth, summed over classes: 0 to 2"""
    nll: NotNegative
    """negative log-likelihood in nats"""
    num_bins: Count
    """how many"""
    bins: list[CalibrationBin]
    """of equal width"""


class CalibrationResults(Record):
    """Calibration of the model as it is, and as it could be."""

    as_trained: Calibration
    """of the softmax as it is"""
    scaled: Calibration | None = None
    """at the temperature and bias of `decision`; null where none was chosen"""


class OperatingPoint(Record):
    """Where to stop answering."""

    coverage: Share
    """share of examples answered"""
    confidence: Share
    """least confidence that is answered"""


class RiskCoverage(Record):
    """Share of errors among the most confident examples, over their share of all."""

    coverage: Annotated[list[Share], Field(min_length=1)]
    """up to 101 points"""
    risk: Annotated[list[Share], Field(min_length=1)]
    """share of errors at each of them"""
    aurc: Share
    """mean risk over all coverages"""
    risk_at_full_coverage: Share
    """share of errors of all"""
    coverage_at_risk: dict[str, OperatingPoint | None]
    """risk (`"0.05"`) → the largest coverage with no more; null where there is none"""


class DecisionMacroF1(Record):
    """Macro-F1 under two decisions."""

    argmax: Share
    """the highest score decides"""
    fitted: Share
    """offsets are added first"""


class DecisionScores(Record):
    """Scores under two decisions."""

    argmax: Scores
    """the highest score decides"""
    fitted: Scores
    """offsets are added first"""


class Answers(Record):
    """How answers are given from calibrated scores, chosen on validation, and what that is worth on this split."""

    offsets: dict[str, float]
    """label → what is added to its calibrated log score, for the best macro-F1 of two labels; 0 of more, and where that
    gains no more than a standard error"""
    abstain_below: Share
    """least certainty that is answered: nine in ten of validation's clips reach it; at most 0.8. The certainty is the
    highest of softmax(calibrated log scores + offsets)"""
    answered: Share
    """share of this split's clips that are answered"""
    accuracy: Share
    """share of all clips that would be answered rightly"""
    accuracy_answered: Share | None
    """share of the answered clips that are right; null where none is answered"""
    ece: Share
    """expected calibration error of the decided labels' scores, over all clips"""


class Decision(Record):
    """What was chosen on validation, and what it does on this split."""

    temperature: Positive | None
    """logits are divided by it, so that confidence fits accuracy; fitted on validation's windows; null where the fit
    was refused, and of folds, each of which has its own"""
    bias: dict[str, float] | None = None
    """label → what is added to its logit before that; null where none was fitted, as in older results"""
    calibration_refused: str | None = None
    """why there is no temperature, or which folds have none; else null"""
    offsets: dict[str, float]
    """label → what is added to its log score, without temperature and bias, so that the highest decides for macro-F1;
    of folds the mean of theirs, with temperature and bias"""
    threshold: Share | None
    """two classes: score of the second, without temperature and bias, from which on it is predicted, which says the
    same; else null"""
    validation_macro_f1: DecisionMacroF1
    """on validation"""
    scores: DecisionScores
    """on this split"""
    answers: Answers | None = None
    """how the model is to answer; null in older results, of folds, and where the calibration was refused"""


class SplitEvaluation(Record):
    """What was measured. By clip, from the mean of its windows' softmax, but for `scores_by_window`."""

    num_clips: Count
    """clips: labelled spans of a video, or single pictures"""
    num_windows: Count
    """windows: the frames that the model reads at once"""
    scores: Scores
    """of plain argmax: the highest score decides"""
    scores_by_window: Scores | None = None
    """the same with every window counting once, as some studies do; null where each clip has one window"""
    majority_baseline: MajorityBaseline
    """always predicting the training set's most frequent class"""
    stratified_baseline: StratifiedBaseline
    """predicting at random with the training set's shares"""
    intervals: Intervals
    """95 % intervals of `scores`"""
    people: PeopleSpread | None
    """how much people differ; null where a clip's person is unknown"""
    groups: dict[str, dict[str, Group]]
    """column → group → its scores; empty without `--groups`. Where suppressed groups together hold fewer than five
    people, their scores would follow from the others and the whole; the smallest others are then suppressed, too"""
    collapse: str | None
    """one sentence where nearly everyone is predicted one class"""
    calibration: CalibrationResults
    """how far confidence is from accuracy"""
    risk_coverage: RiskCoverage
    """what not answering would buy"""
    decision: Decision | None
    """what was chosen on validation; null without a validation split, and on it"""
    decided_on: Literal["training data"] | None = None
    """whose validation split `decision` was chosen on, where the data measured has none; null: its own"""
    face_focus: FaceFocusResults | None = None
    """where the model looks; null without `--face-focus`"""
