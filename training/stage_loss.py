"""The loss of a stage and its subject adversary, made for the stage's data."""

from ..data.schema import LEVELS
from ..modeling_engagement import EngagementPreTrainedModel
from ..processor.input_errors import RecipeError
from .arguments import StageArguments
from .losses import Loss, SubjectAdversary, build_loss
from .stage_data import StageData


def build_adversary(
    stage: StageArguments, data: StageData, model: EngagementPreTrainedModel
) -> SubjectAdversary | None:
    """
    Raises:
        RecipeError: an adversary without at least two known people.
    """
    if not stage.subject_adversary:
        return None
    people = set(data.train.subject_ids)
    if None in people or len(people) < 2:
        raise RecipeError(
            f"subject_adversary needs the person of every clip in {stage.data}, and at least two people; got "
            f"{len(people - {None})}{', and clips without a person' if None in people else ''}."
        )
    return SubjectAdversary(model.encoder.feature_size, len(people), stage.subject_adversary)


def build_stage_loss(stage: StageArguments, data: StageData) -> Loss:
    """
    Raises:
        RecipeError: an ordinal loss for labels without an order, or as `build_loss`.
    """
    if stage.loss == "ordinal" and data.label_names != list(LEVELS):
        raise RecipeError(f"loss ordinal needs label_scheme levels, got the labels {', '.join(data.label_names)}.")
    return build_loss(
        stage.loss,
        data.train.label_ids,
        len(data.label_names),
        stage.class_weight_cap,
        stage.focal_gamma,
        stage.logit_adjustment,
        stage.label_smoothing,
    )
