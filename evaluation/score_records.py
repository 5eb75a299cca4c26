"""The measurements of a model: scores, intervals, calibration, decisions and face focus, as in `results.json`.

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
    """For tables: such as `macro-F1`, or `macro-F1, fitted` with the decision fitted on validation."""
    plain = name.removesuffix("_fitted")
    return _NAMES.get(plain, plain.replace("_", " ")) + (", fitted" if plain != name else "")


class ClassScores(Record):
    """Scores of one class."""

    precision: Share
    """0 if it was never predicted"""
    recall: Share
    """0 if it does not occur"""
    f1: Share
    """0 if it neither occurs nor was predicted"""
    support: Count
    """examples of this class"""


class Scores(Record):
    """Scores of predictions on imbalanced data."""

    num_examples: Count
    """clips, or windows"""
    macro_f1: Share
    """mean of F1 over the classes present; in older results over all classes"""
    balanced_accuracy: Share
    """mean of recall over the classes present"""
    accuracy: Share
    """share of predictions that are right"""
    weighted_f1: Share
    """mean of F1 by support"""
    auroc: Share | None = None
    """two classes: of the rarest; more: mean of each against the rest; null with one true class or without scores"""
    auprc_minority: Share | None = None
    """average precision of the rarest class; null with one true class or without scores"""
    minority_class: str | None = None
    """name of the rarest class"""
    quadratic_kappa: Annotated[float, Field(ge=-1.000001, le=1.000001)] | None = None
    """Cohen's kappa with quadratic weights; only for the four levels"""
    mae: NotNegative | None = None
    """mean absolute error in levels; only for the four levels"""
    per_class: dict[str, ClassScores]
    """label → its scores"""
    confusion_matrix: list[list[Count | NotNegative]]
    """counts; rows are the truth, columns the prediction"""


class MajorityBaseline(Scores):
    """Always predicting the training set's most frequent class; without scores of ranking."""

    predicts: str
    """that class"""


class StratifiedBaseline(Scores):
    """Predicting at random with the training set's shares: means of many draws; without scores of ranking."""

    predicts: str
    """in words"""
    train_shares: dict[str, Share]
    """label → share of the training set"""
    num_draws: Count
    """number of draws"""
    seed: int
    """of the draws"""


class Interval(Record):
    """A score and its 95 % interval."""

    value: float | None
    """the score"""
    lower: float | None
    """null with only one cluster, or if the score is defined, and all classes occur, in less than half of the
    resamples"""
    upper: float | None
    """as `lower`"""
    num_undefined: Count
    """number of the other resamples"""
    effective_clusters: NotNegative
    """effective number of people (or clips) that the score depends on, as if all had the same number of clips"""
    few_clusters: bool
    """fewer than five of these: the interval is still too narrow"""

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
    """whether the interval excludes zero; null without an interval"""


class Resampling(Record):
    """How intervals were computed."""

    resampled: Literal["people", "clips"]
    """`clips` if people are unknown; such intervals are too narrow"""
    num_clusters: Count
    """number of people, or clips"""
    num_resamples: Count
    """draws with replacement"""
    seed: int
    """of the draws"""
    confidence: Share
    """level of the intervals, 0.95"""
    method: str
    """in words"""


class Intervals(Resampling):
    """95 % intervals of scores."""

    intervals: dict[str, Interval]
    """by score, and as `precision/<label>`, `recall/<label>`, `f1/<label>`; for two classes and known people also
    `within_person_auroc`: among all pairs of a clip of the rarest class and a different clip of the same person, the
    share that the score of that class puts in the right order, where a tie counts half"""


class Differences(Resampling):
    """95 % intervals of the differences between two models, or of their mean over pairs, on the same clips."""

    differences: dict[str, Difference]
    """by the names of `Intervals.intervals`"""
    by_pair: dict[str, list[float | None]] = {}
    """the differences of each pair of models"""


class Quartiles(Record):
    """Over people, each with the same weight, however many clips they have."""

    lower_quartile: float
    """a quarter of the people have no more"""
    median: float
    """half of the people have no more"""
    upper_quartile: float
    """three quarters of the people have no more"""


class PeopleSpread(Record):
    """How much people differ."""

    num_people: Count
    """number of people"""
    accuracy: Quartiles
    """quartiles of a person's accuracy"""
    predicted_share: dict[str, Quartiles]
    """label → quartiles of the share of a person's clips with this prediction"""
    true_share: dict[str, Quartiles]
    """label → quartiles of the share of a person's clips with this true label"""
    num_people_with_both: Count | None = None
    """people with clips of both classes, on whose pairs `within_person_auroc` is computed; null for more classes, and
    in older results"""


class SuppressedGroup(Record):
    """A group of fewer than five people, or one whose scores would follow from the others."""

    suppressed: Literal[True] = True
    """true: its scores are not given"""


class GroupScores(Scores):
    """Scores of a group of people, such as a gender."""

    suppressed: Literal[False] = False
    """false: its scores are given"""
    num_people: Count
    """people in the group"""


Group = Annotated[SuppressedGroup | GroupScores, Field(discriminator="suppressed")]


class CalibrationBin(Record):
    """Examples of similar confidence."""

    lower: Share
    """lower edge of confidence, exclusive except for 0"""
    upper: Share
    """upper edge of confidence, inclusive"""
    count: Count
    """number of examples"""
    confidence: Share | None
    """mean confidence; null without examples"""
    accuracy: Share | None
    """share of correct predictions; null without examples"""


class Calibration(Record):
    """How far confidence is from the share of correct predictions."""

    ece: Share
    """expected calibration error over bins of equal width"""
    ece_equal_mass: Share
    """the same over bins with (nearly) equal numbers of examples"""
    brier: Annotated[float, Field(ge=0, le=2.000001)]
    """squared distance from the truth, summed over classes: 0 to 2"""
    nll: NotNegative
    """negative log-likelihood in nats"""
    num_bins: Count
    """number of bins"""
    bins: list[CalibrationBin]
    """of equal width"""


class CalibrationResults(Record):
    """Calibration of the model before and after fitting."""

    as_trained: Calibration
    """of the plain softmax"""
    scaled: Calibration | None = None
    """with the temperature and bias of `decision`; null where none was chosen"""


class OperatingPoint(Record):
    """A confidence below which the model abstains."""

    coverage: Share
    """share of examples answered"""
    confidence: Share
    """lowest confidence that is answered"""


class RiskCoverage(Record):
    """Share of errors among the most confident examples, over the share of examples answered."""

    coverage: Annotated[list[Share], Field(min_length=1)]
    """up to 101 points"""
    risk: Annotated[list[Share], Field(min_length=1)]
    """share of errors at each of these points"""
    aurc: Share
    """mean risk over all coverages"""
    risk_at_full_coverage: Share
    """share of errors among all examples"""
    coverage_at_risk: dict[str, OperatingPoint | None]
    """risk (`"0.05"`) → the largest coverage with at most this risk; null where there is none"""


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
    """How answers follow from calibrated scores, chosen on validation, and their accuracy on this split."""

    offsets: dict[str, float]
    """label → number added to its calibrated log score, for the best macro-F1 of two labels; 0 with more labels, and if
    the gain is less than a standard error"""
    abstain_below: Share
    """lowest certainty that is answered: nine in ten of validation's clips reach it; at most 0.8. The certainty is the
    highest of softmax(calibrated log scores + offsets)"""
    answered: Share
    """share of this split's clips that are answered"""
    accuracy: Share
    """accuracy if all clips were answered"""
    accuracy_answered: Share | None
    """accuracy on the answered clips; null where none is answered"""
    ece: Share
    """expected calibration error of the decided labels' scores, over all clips"""


class Decision(Record):
    """The decision chosen on validation, and its scores on this split."""

    temperature: Positive | None
    """logits are divided by it, so that confidence matches accuracy; fitted on validation's windows; null where the fit
    was refused, and for folds, each of which has its own"""
    bias: dict[str, float] | None = None
    """label → number added to its logit before the division; null where none was fitted, as in older results"""
    calibration_refused: str | None = None
    """why there is no temperature, or which folds have none; else null"""
    offsets: dict[str, float]
    """label → number added to its uncalibrated log score, so that the highest gives the best macro-F1 on validation;
    `engagement predict` uses those of `answers` instead; for folds the mean of theirs, on calibrated scores"""
    threshold: Share | None
    """two classes: lowest uncalibrated score of the second at which it is predicted, equivalent to `offsets`; else
    null"""
    validation_macro_f1: DecisionMacroF1
    """macro-F1 on validation"""
    scores: DecisionScores
    """scores on this split"""
    answers: Answers | None = None
    """how `engagement predict` answers; null in older results, for folds, and where the calibration was refused"""


class SplitEvaluation(Record):
    """All scores of one split: by clip, from the mean of its windows' softmax, except for `scores_by_window`."""

    num_clips: Count
    """clips: labelled spans of a video, or single images"""
    num_windows: Count
    """windows: the frames that the model reads at once"""
    scores: Scores
    """scores of plain argmax: the highest score decides"""
    scores_by_window: Scores | None = None
    """the same by window, as in some studies; null where each clip has one window"""
    majority_baseline: MajorityBaseline
    """always predicting the training set's most frequent class"""
    stratified_baseline: StratifiedBaseline
    """predicting at random with the training set's shares"""
    intervals: Intervals
    """95 % intervals of `scores`"""
    people: PeopleSpread | None
    """how much people differ; null where a clip's person is unknown"""
    groups: dict[str, dict[str, Group]]
    """column → group → its scores; empty without `--groups`. If suppressed groups together have fewer than five people,
    their scores would follow from the others and the total; then the smallest others are suppressed, too"""
    collapse: str | None
    """one sentence if one class is predicted for nearly every clip"""
    calibration: CalibrationResults
    """how far confidence is from accuracy"""
    risk_coverage: RiskCoverage
    """errors if only the most confident clips are answered"""
    decision: Decision | None
    """decision chosen on validation; null without a validation split, and on validation itself"""
    decided_on: Literal["training data"] | None = None
    """data on whose validation split `decision` was chosen, if the measured data has none; null: the measured data"""
    face_focus: FaceFocusResults | None = None
    """where the model looks; null without `--face-focus`"""
