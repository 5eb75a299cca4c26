"""What a search may try: a space with a mistake is told before anything is trained, in a line that names it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tuned_faces import write_space

from engagement_recognition.processor.input_errors import EngagementInputError, RecipeError
from engagement_recognition.studies.tune_space import default_space, holds, own_values, read_space
from engagement_recognition.training.arguments import Recipe, StageRun, plan_stages

pytest.importorskip("optuna")
Values = Mapping[str, object]


def planned(**options: object) -> StageRun:
    return plan_stages(Recipe({"engagement": {"data": "clips", "encoder": "test_resnet", **options}}), {})[0]


BAD_SPACES = {
    "nothing": ({}, "contains no option to search"),
    "an unknown option": ({"learning_rat": [1]}, "did you mean learning_rate?"),
    "an unknown strength": ({"augmentation.flp": [0.1]}, "augmentation flp"),
    "upside down": ({"dropout": {"low": 0.5, "high": 0.1}}, "low <= high"),
    "log from zero": ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "low > 0"),
    "log with a step": ({"dropout": {"low": 0.1, "high": 0.5, "log": True, "step": 0.1}}, "log"),
    "a word": ({"dropout": {"low": "small", "high": 1}}, '"small" as low'),
    "one end": ({"dropout": {"low": 0.1}}, "no high"),
    "another key": ({"dropout": {"low": 0.1, "high": 0.2, "base": 2}}, "unknown key base"),
    "no end": ({"learning_rate": {"low": 0.1, "high": float("inf")}}, "learning_rate"),
    "half a unit": ({"temporal_hidden_size": {"low": 1.5, "high": 3}}, "whole numbers"),
    "beyond what the option takes": ({"dropout": {"low": 0, "high": 1.2}}, "dropout of at least 0 and below 1"),
    "a range of words": ({"temporal": {"low": 1, "high": 2}}, "give a list of choices"),
    "no choice": ({"dropout": []}, "range or a list of choices"),
    "a choice that is no number": ({"temporal_num_layers": ["two"]}, "got 'two'"),
    "a choice that does not exist": ({"temporal": ["lstm", "gru"]}, "got 'gru'"),
    "what chooses": ({"metric_for_best_model": ["auroc", "loss"]}, "cannot be searched"),
    "chance": ({"seed": [0, 1]}, "cannot be searched"),
    "the other stage": ({"expression_dropout": [0.1]}, "no option 'expression_dropout'"),
}  # fmt: skip


@pytest.mark.parametrize(("space", "said"), BAD_SPACES.values(), ids=BAD_SPACES)
def test_a_space_with_a_mistake_is_refused_in_a_line(space: Values, said: str, tmp_path: Path):
    with pytest.raises(EngagementInputError) as caught:
        read_space(write_space(tmp_path, space), planned())
    message = str(caught.value)
    assert "\n" not in message and said in message and "space.yaml" in message
    assert all(name in message for name in space)


def test_a_loss_is_no_score_between_losses(tmp_path: Path):
    run = planned(metric_for_best_model="loss")
    with pytest.raises(RecipeError, match=r"label_smoothing in .* changes the loss"):
        read_space(write_space(tmp_path), run)
    assert "class_weight_cap" not in default_space(run) and "class_weight_cap" in default_space(planned())


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.3, "class_weight_cap": 20, "dropout": 0.8}], ids=str)
def test_the_default_space_holds_the_recipe_s_own_values(options: Values, tmp_path: Path):
    run = planned(**options)
    space = default_space(run)
    dumped = {name: entry if isinstance(entry, list) else entry.model_dump() for name, entry in space.items()}
    assert read_space(write_space(tmp_path, dumped), run) == space  # every value of it is possible
    assert holds(space, own_values(run, space))
