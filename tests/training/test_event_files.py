"""`--report_to tensorboard`: curves of both stages in the run's own folder, and of a resumed training one curve."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engagement_recognition import train
from engagement_recognition.training.arguments import Recipe

SHOWN = {"train/loss", "train/learning_rate", "eval/loss", "eval/macro_f1", "eval/auroc"}


def curves(folder: Path) -> dict[str, list[int]]:
    """Tag → its steps, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [point.step for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_both_stages_have_their_curves_and_a_resumed_one_has_each_step_once(
    tiny_recipe: dict[str, object], tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    options = {"report_to": "tensorboard", "logging_strategy": "steps", "logging_steps": "1"}
    options["expression_bf16"] = "true"  # and stage two without: accelerate knows one precision at a time
    recipe = Recipe({**tiny_recipe, "output_dir": str(tmp_path), "per_device_train_batch_size": 16})
    with pytest.raises(KeyboardInterrupt):
        train.train(recipe, options)
    train.train(recipe, {**options, "resume_from_checkpoint": "true"})
    found = {path.name: curves(path) for path in (tmp_path / "tensorboard").iterdir()}
    assert found.keys() == {"expression", "engagement"}
    for stage in found:
        assert found[stage].keys() >= SHOWN
        for tag in SHOWN:
            assert found[stage][tag] == sorted(set(found[stage][tag])), (stage, tag)
        assert len(found[stage]["eval/loss"]) == 2  # epochs
    assert len(list((tmp_path / "tensorboard/expression").iterdir())) == 2  # one a start
    assert not list((tmp_path / "checkpoints").rglob("events.*"))
