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


def refusal(**options: object) -> str | None:
    """What is said to options of a stage; None: they are taken. Anything but a refusal is raised."""
    try:
        for run in plan_stages(Recipe({"engagement": {"data": "clips", **options}}), {}):
            check_options_alone(run)
    except EngagementInputError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


NUMBERS = [name for name, item in OPTIONS.items() if {int, float} & kinds_of(item) and str not in kinds_of(item)]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_below_zero_or_none_at_all(name: str):
    for value in (NAN, -1):
        said = refusal(**{name: value})
        assert (said is None) == ((name, value) in MEANT) and (said is None or name in said), said


NO_EVALUATION = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fsdp": "full_shard"}, "fsdp only works in distributed training"),
        ({"deepspeed": "ds.json"}, "deepspeed"),
        ({"tf32": True}, "--tf32 requires"),
        ({"fp16": True, "bf16": True}, "At most one of fp16 and bf16"),
        ({"torch_compile_backend": "none_such"}, "not a valid DynamoBackend"),
        ({"save_strategy": "no"}, "requires the save and eval strategy to match"),
        ({**dict.fromkeys(("eval_strategy", "save_strategy"), "steps"), "eval_steps": 2, "save_steps": 3}, "multiple"),
        ({**NO_EVALUATION, "early_stopping_patience": 2}, "EarlyStoppingCallback requires IntervalStrategy"),
        ({**NO_EVALUATION, "lr_scheduler_type": "reduce_lr_on_plateau"}, "requires an eval strategy"),
        ({"train_sampling_strategy": "group_by_length"}, "infer lengths"),
        ({"dataloader_num_workers": 0, "dataloader_persistent_workers": True}, "num_workers > 0"),
        ({"use_liger_kernel": True}, "liger-kernel"),
        ({"debug": "tpu_metrics_debug"}, "step with these options"),
        ({"enable_jit_checkpoint": True}, "enable_jit_checkpoint is fixed at False"),
        ({"folds": "people"}, "a number of folds, or subject, got 'people'"),
        ({"folds": 2}, "folds of at least 3"),
        ({"folds": NAN}, "a number of folds, or subject"),
    ],
    ids=lambda item: "_".join(item) if isinstance(item, dict) else "",
)
def test_what_does_not_go_together_is_one_line(options: dict[str, object], words: str):
    said = refusal(use_cpu=True, **options)
    assert said is not None and words in said


def test_what_goes_together_is_taken_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for options in ({}, {"bf16": True, "folds": "subject"}, {"auto_find_batch_size": True}):
        for run in plan_stages(Recipe({"engagement": {"data": "clips", "use_cpu": True, **options}}), {}):
            check_options_alone(run)
            assert run.training.max_steps == -1 and run.training.load_best_model_at_end
    assert not list(tmp_path.iterdir())


def test_bf16_auto_gives_way_to_fp16(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engagement_recognition.training.arguments.has_fast_bf16", lambda: True)
    for typed, wanted in (({"fp16": "true"}, False), ({"fp16": "false"}, True), ({}, True)):
        (run,) = plan_stages(Recipe({"bf16": "auto", "engagement": {"data": "clips", "use_cpu": True}}), typed)
        assert run.training.bf16 is wanted and run.training.fp16 is (typed == {"fp16": "true"})


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, -1, NAN, ""], ids=repr)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_taken_or_refused(name: str, value: object):
    said = refusal(**{name: value})
    assert value != "" or said is not None or name == "data"


def refused_before_data(encoder: str | Path, **options: object) -> str:
    given = {"data": "there_is_none", "encoder": str(encoder), "model": "image", **options}
    with pytest.raises(EngagementInputError) as caught:
        train.check_options(plan_stages(Recipe({"engagement": given}), {})[0])
    assert "\n" not in str(caught.value) and "there_is_none" not in str(caught.value)
    return str(caught.value)


def test_an_encoder_is_asked_for_its_size_before_data_is_read(tmp_path: Path):
    sizes = {"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
    LevitModel(LevitConfig(image_size=64, **sizes)).save_pretrained(tmp_path / "levit")
    said = refused_before_data(tmp_path / "levit", image_size=32)
    assert "levit cannot read pictures of 32x32 px" in said and said.endswith("pass image_size 64.")
    for encoder, size in ((str(tmp_path / "levit"), 64), ("resnet18", 112), ("vit_tiny_patch16_224", 224)):
        (run,) = plan_stages(Recipe({"engagement": {"data": "there_is_none", "encoder": encoder}}), {})
        train.check_options(run)
        assert run.stage.image_size == size, encoder


def test_what_is_no_image_encoder_is_refused_before_data_is_read(tmp_path: Path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=99, **sizes)).save_pretrained(tmp_path)
    assert "got model_type 'bert'; use another" in refused_before_data(tmp_path)
    assert "the tag 'none_such'" in refused_before_data("resnet18.none_such")
