"""Options without sense are told by name, and before the work: every option there is, with values that nobody means."""

from dataclasses import Field, fields
from typing import get_args

import pytest
from transformers import TrainingArguments

from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.training.arguments import Recipe, StageArguments, plan_stages
from engagement_recognition.training.option_checks import check_options_alone

OPTIONS = {item.name: item for kind in (StageArguments, TrainingArguments) for item in fields(kind) if item.init}
NAN = float("nan")
MEANT = {("max_steps", -1), ("local_rank", -1)}  # -1: none, or one process


def kinds_of(item: Field) -> set[object]:
    return {item.type, *get_args(item.type)}


def refusal(name: str, value: object) -> str | None:
    """What is said to an option of a stage; None: it is taken. Anything but a refusal is raised."""
    try:
        for run in plan_stages(Recipe({"engagement": {"data": "clips", name: value}}), {}):
            check_options_alone(run)
    except EngagementInputError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


NUMBERS = [name for name, item in OPTIONS.items() if {int, float} & kinds_of(item) and str not in kinds_of(item)]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_below_zero_or_none_at_all(name: str):
    for value in (NAN, -1):
        said = refusal(name, value)
        assert (said is None) == ((name, value) in MEANT) and (said is None or name in said), said


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, -1, NAN, ""], ids=repr)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_taken_or_refused(name: str, value: object):
    said = refusal(name, value)
    assert value != "" or said is not None or name == "data"
