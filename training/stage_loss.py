"""The loss of a stage, and its subject adversary, from what its data holds."""

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
        RecipeError: an adversary, and not the people that it needs.
    """
    if not stage.subject_adversary:
        return None
    people = set(data.train.subject_ids)
    if None in people or len(people) < 2:
        raise RecipeError(
            f"Expected at least two people in {stage.data} for subject_adversary, and the person of every clip; "
            f"got {len(people - {None})}{' and clips without' if None in people else ''}."
        )
    return SubjectAdversary(model.encoder.feature_size, len(people), stage.subject_adversary)


def build_stage_loss(stage: StageArguments, data: StageData) -> Loss:
    """
    Raises:
        RecipeError: an ordinal loss for labels without an order, or as `build_loss`.
    """
    if stage.loss == "ordinal" and data.label_names != list(LEVELS):
        raise RecipeError(f"Expected label_scheme levels with loss ordinal, got labels {', '.join(data.label_names)}.")
    return build_loss(
        stage.loss,
        data.train.label_ids,
        len(data.label_names),
        stage.class_weight_cap,
        stage.focal_gamma,
        stage.logit_adjustment,
        stage.label_smoothing,
    )
