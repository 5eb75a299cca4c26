"""Options without sense are told by name, and before the work: every option there is, with values that nobody means."""

from dataclasses import Field, fields
from pathlib import Path
from typing import get_args

import pytest
from transformers import BertConfig, BertModel, LevitConfig, LevitModel, TrainingArguments

from engagement_recognition import train
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


def save_levit(folder: Path) -> None:
    sizes = {"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
    LevitModel(LevitConfig(image_size=64, **sizes)).save_pretrained(folder)


def save_bert(folder: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=99, **sizes)).save_pretrained(folder)


def refused_before_data(encoder: str | Path, **options: object) -> str:
    given = {"data": "there_is_none", "encoder": str(encoder), "model": "image", **options}
    with pytest.raises(EngagementInputError) as caught:
        train.check_options(plan_stages(Recipe({"engagement": given}), {})[0])
    assert "\n" not in str(caught.value) and "there_is_none" not in str(caught.value)
    return str(caught.value)


def test_an_encoder_is_asked_for_its_size_before_data_is_read(tmp_path: Path):
    save_levit(tmp_path / "levit")
    said = refused_before_data(tmp_path / "levit", image_size=32)
    assert "reads pictures of 32x32 px, got levit" in said and said.endswith("pass image_size 64.")
    for encoder, size in ((str(tmp_path / "levit"), 64), ("resnet18", 112), ("vit_tiny_patch16_224", 224)):
        (run,) = plan_stages(Recipe({"engagement": {"data": "there_is_none", "encoder": encoder}}), {})
        train.check_options(run)
        assert run.stage.image_size == size, encoder


def test_what_is_no_image_encoder_is_refused_before_data_is_read(tmp_path: Path):
    save_bert(tmp_path / "bert")
    assert "got model_type 'bert'; use another" in refused_before_data(tmp_path / "bert")
    assert "the tag 'none_such'" in refused_before_data("resnet18.none_such")
