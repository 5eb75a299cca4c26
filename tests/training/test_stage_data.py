"""What a stage is trained on: prepared or raw, audited or refused, under the labels and settings asked for."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TrainedStages, prepare_drawn
from stages import load
from typer.testing import CliRunner

from engagement_recognition import train
from engagement_recognition.cli.main import app
from engagement_recognition.data.preparation.prepared_data import load_prepared
from engagement_recognition.data.schema import AFFECTS, LEVELS, THREE_CLASSES
from engagement_recognition.processor.input_errors import DataError, LeakageError, RecipeError
from engagement_recognition.training.arguments import Recipe


@pytest.fixture(scope="module")
def unaudited(drawn_daisee: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_drawn(drawn_daisee, tmp_path_factory.mktemp("data") / "clips", num_frames=4).folder


@pytest.fixture(scope="module")
def audited(unaudited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(unaudited, tmp_path_factory.mktemp("data") / "audited")
    assert CliRunner().invoke(app, ["audit", str(folder)]).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def leaking(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn expressions; one picture of a test person also among the training pictures, under another name."""
    folder = shutil.copytree(drawn_expressions, tmp_path_factory.mktemp("leaking") / "pictures")
    picture = min(folder.glob("test/happy/*.png"))
    shutil.copy(picture, folder / "train/happy" / picture.name)
    return folder


def test_prepared_data_is_used_as_it_is(audited: Path, tiny_recipe: dict[str, object]):
    data = load(tiny_recipe, audited)
    assert data.description.fingerprint == load_prepared(audited).fingerprint
    assert (data.processor.num_frames, data.processor.face_crop, data.processor.face_crop_size_px) == (4, True, 224)
    assert {split: len(getattr(data, split)) for split in ("train", "validation", "test")} == data.description.examples


@pytest.mark.parametrize(
    "option", [{"num_frames": 8}, {"face_crop": False}, {"sampling": "consecutive"}, {"face_crop_size_px": 96}]
)
def test_a_recipe_gives_way_to_prepared_data_and_a_typed_option_does_not(
    option: dict, audited: Path, tiny_recipe: dict[str, object]
):
    assert load(tiny_recipe, audited, **option).processor.num_frames == 4
    for prefix in ("", "engagement_"):
        with pytest.raises(RecipeError, match=next(iter(option))):
            load(tiny_recipe, audited, typed={f"{prefix}{name}": str(value) for name, value in option.items()})


def test_both_stages_data_is_looked_at_before_the_first_trains(
    trained: TrainedStages, unaudited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train, "train_on_expressions", None)
    recipe = {**trained.recipe, "output_dir": str(tmp_path), "engagement": {"data": str(unaudited)}}
    with pytest.raises(LeakageError, match="engagement audit"):
        train.train(Recipe(recipe), {})


def test_an_audit_under_other_labels_is_done_again(audited: Path, tiny_recipe: dict[str, object], tmp_path: Path):
    copy = shutil.copytree(audited, tmp_path / "copy")
    load(tiny_recipe, copy, label_scheme="three-class")
    assert json.loads((copy / "audit.json").read_text())["label_scheme"] == "three-class"
    refused = CliRunner().invoke(app, ["audit", str(copy), "--label-scheme", "own"])
    assert refused.exit_code and isinstance(refused.exception, RecipeError)


def test_data_that_nobody_audited_is_refused(unaudited: Path, tiny_recipe: dict[str, object]):
    with pytest.raises(LeakageError, match=f"engagement audit {unaudited}"):
        load(tiny_recipe, unaudited)
    description = load(tiny_recipe, unaudited, allow_leakage=True).description
    assert description.audit is None and description.leakage_allowed


def test_an_audit_of_other_data_does_not_count(audited: Path, tiny_recipe: dict[str, object], tmp_path: Path):
    copy = shutil.copytree(audited, tmp_path / "copy")
    audit = json.loads((copy / "audit.json").read_text())
    (copy / "audit.json").write_text(json.dumps({**audit, "fingerprint": "0" * 64}))
    with pytest.raises(LeakageError, match="in its current state"):
        load(tiny_recipe, copy)


def test_a_failed_audit_stops_training_unless_leakage_is_allowed(
    leaking: Path, tiny_recipe: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture
):
    section = {"data": str(leaking), "subject_pattern": r"^\d+", "num_train_epochs": 1}
    recipe = {**tiny_recipe, "engagement": {}, "expression": section, "output_dir": str(tmp_path / "run")}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert train.main([str(tmp_path / "recipe.yaml")]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "more than one split" in line and "--allow_leakage" in line
    assert train.main([str(tmp_path / "recipe.yaml"), "--allow_leakage", "true"]) == 0
    results = json.loads((tmp_path / "run/expression/results.json").read_text())
    assert results["data"]["leakage_allowed"] and not results["data"]["audit"]["passed"]
    assert {"shared subjects": "fail", "duplicates": "report"}.items() <= {
        finding["name"]: finding["grade"] for finding in results["data"]["audit"]["findings"]
    }.items()
    card = (tmp_path / "run/expression/README.md").read_text()
    assert "failed the audit" in card and "no other split" not in card
    # The test picture that is also a training picture is left out of a second evaluation.
    whole, clean = (
        results["measurements"][0][name]["scores"]["num_examples"] for name in ("evaluation", "without_duplicates")
    )
    assert (whole, clean) == (14, 13) and "13 remain" in card


def test_a_sound_split_is_said_to_be_one(trained: TrainedStages):
    card = (trained.engagement / "README.md").read_text()
    assert "passed the audit for leakage" in card and "people who are in no other split" in card
    results = json.loads((trained.engagement / "results.json").read_text())
    assert results["data"]["audit"]["passed"] and not results["data"]["leakage_allowed"]


@pytest.mark.parametrize(
    ("scheme", "names"), [("three-class", THREE_CLASSES), ("levels", LEVELS), ("affects", AFFECTS)]
)
def test_labels_are_chosen_when_training(
    scheme: str, names: tuple[str, ...], audited: Path, tiny_recipe: dict[str, object]
):
    data = load(tiny_recipe, audited, label_scheme=scheme)
    assert data.label_names == list(names) and data.description.label_scheme == scheme
    left_out = sum(data.description.without_label_under_scheme.values())
    assert sum(data.description.examples.values()) + left_out == load_prepared(audited).description.outputs


def test_a_scheme_the_data_cannot_have_is_refused(audited: Path, leaking: Path, tiny_recipe: dict[str, object]):
    with pytest.raises(RecipeError, match=r"'own'.*: binary, three-class, levels, affects"):
        load(tiny_recipe, audited, label_scheme="own")
    with pytest.raises(RecipeError, match=r"'binary'.*: own\."):
        load(tiny_recipe, leaking, "expression", label_scheme="binary", allow_leakage=True)


def test_oversampling_is_for_training_alone(leaking: Path, tiny_recipe: dict[str, object]):
    data = load(tiny_recipe, leaking, "expression", oversample_to=10, allow_leakage=True)
    assert len(data.train) == 70 and len(data.test) == 14 and data.description.oversampled_to == 10


def test_a_batch_larger_than_the_data_is_refused_where_it_would_be_dropped(
    leaking: Path, tiny_recipe: dict[str, object]
):
    options = {"per_device_train_batch_size": 999, "allow_leakage": True}
    with pytest.raises(DataError, match=r"dataloader_drop_last .* 999 "):
        load(tiny_recipe, leaking, "expression", **options, dataloader_drop_last=True)
    assert len(load(tiny_recipe, leaking, "expression", **options).train)


def test_a_single_face_model_can_be_trained_on_clips(audited: Path, tiny_recipe: dict[str, object]):
    data = load(tiny_recipe, audited, model="image")
    assert len(data.train[0]["frames"]) == 1 and data.processor.face_crop


def test_a_clip_model_cannot_be_trained_on_pictures(leaking: Path, tiny_recipe: dict[str, object]):
    with pytest.raises(RecipeError, match="single pictures"):
        load(tiny_recipe, leaking, allow_leakage=True)


def test_options_about_frames_are_refused_for_pictures(leaking: Path, tmp_path: Path):
    for option in (["--frames", "4"], ["--sampling", "consecutive"], ["--stride-frames", "4"]):
        command = ["prepare", "images", str(leaking), "--output", str(tmp_path / "data"), *option]
        refused = CliRunner().invoke(app, command)
        assert isinstance(refused.exception, RecipeError) and not (tmp_path / "data").exists()


def test_an_empty_split_is_named(drawn_daisee: Path, tiny_recipe: dict[str, object], tmp_path: Path):
    folder = shutil.copytree(drawn_daisee, tmp_path / "daisee")
    for video in folder.glob("DataSet/Test/*/*/*"):
        video.write_bytes(b"")
    with pytest.raises(DataError, match="no examples in the test split"):
        load(tiny_recipe, folder)
