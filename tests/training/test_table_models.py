"""Models of tables of pictures: trained on people, on clips of frames in order, and measured on a test split alone."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from small_files import picture, write_parquet

from engagement_recognition import train
from engagement_recognition.evaluate_model import evaluate_model
from engagement_recognition.evaluation.metrics import absent_in_words
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.training.arguments import Recipe

LABELS = ("calm", "keen", "lost")


def write_people(table: Path, people: int, labels: tuple[str, ...], splits: tuple[str, ...], first: int = 0) -> Path:
    """Six frames a person, of which each two are of the next label."""
    rows = [(person, frame) for person in range(first, first + people) for frame in range(6)]
    return write_parquet(
        table,
        image=[picture(10 * person + frame, (20, 20)) for person, frame in rows],
        label=[labels[(frame // 2 + person) % len(labels)] for person, frame in rows],
        subject_id=[f"p{person}" for person, _ in rows],
        frame_index=[frame for _, frame in rows],
        split=[splits[person % len(splits)] for person, _ in rows],
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_people(folder / "people.parquet", 6, LABELS, ("train", "validation", "test"))
    write_people(folder / "others.parquet", 2, LABELS[:2], ("test",), first=20)
    return folder


def recipe_for(tiny_recipe: Mapping[str, object], table: Path, output: Path, **options: object) -> Recipe:
    small = {key: value for key, value in tiny_recipe.items() if key not in ("expression", "engagement", "num_frames")}
    options = {"data": str(table), "allow_leakage": True, **options}
    return Recipe({**small, "num_train_epochs": 1, "output_dir": str(output), "engagement": options})


@pytest.mark.parametrize("model", [pytest.param("image", marks=pytest.mark.slow), "video"])
def test_a_table_trains_a_model_that_is_measured_on_a_test_split_alone(
    model: str, tables: Path, tiny_recipe: Mapping[str, object], tmp_path: Path, capsys: pytest.CaptureFixture
):
    options = {"model": model} | ({"num_frames": 2, "window_label": "last"} if model == "video" else {})
    (folder,) = train.train(recipe_for(tiny_recipe, tables / "people.parquet", tmp_path, **options), {})
    results = read_results(folder)
    prepared_with = results.data.prepared_with
    assert prepared_with.pictures_as == ("clips" if model == "video" else "pictures")
    assert results.data.examples == dict.fromkeys(("train", "validation", "test"), 6 if model == "video" else 12)
    cache = Path(tiny_recipe["cache_dir"])
    alone = evaluate_model(folder, tables / "others.parquet", cache_dir=cache)
    # Nobody is lost there: the mean of F1 is over the other two.
    f1 = [alone.scores.per_class[label].f1 for label in LABELS[:2]]
    assert alone.scores.per_class["lost"].support == 0 and alone.scores.macro_f1 == pytest.approx(sum(f1) / 2)
    assert " is lost: macro-F1 " in absent_in_words(alone.scores)
    # The threshold is that of the model's own validation, and the results say so.
    own = read_results(folder).measured_on("test").evaluation
    assert alone.decided_on == "training data" and own.decided_on is None
    assert alone.decision.offsets == own.decision.offsets and alone.num_windows == (6 if model == "video" else 12)
    again = evaluate_model(folder, tables / "people.parquet", cache_dir=cache)  # prepared as for training
    assert again.scores == own.scores and len(read_results(folder).measurements) == 2
    (folder / "predictions.parquet").unlink()
    assert evaluate_model(folder, tables / "others.parquet", cache_dir=cache).decision is None


def test_data_to_measure_on_alone_trains_nothing_and_one_line_says_so(
    tables: Path, tiny_recipe: Mapping[str, object], tmp_path: Path
):
    with pytest.raises(DataError, match=r"no examples in the train or validation split") as refusal:
        train.train(recipe_for(tiny_recipe, tables / "others.parquet", tmp_path, model="image"), {})
    assert "\n" not in str(refusal.value)


def test_unknown_people_are_said_in_results_and_card(tables: Path, tiny_recipe: Mapping[str, object], tmp_path: Path):
    options = {"model": "image", "no_subjects": True}
    (folder,) = train.train(recipe_for(tiny_recipe, tables / "people.parquet", tmp_path, **options), {})
    results = read_results(folder)
    assert results.data.no_subjects and any("people in its data are unknown" in told for told in results.warnings())
    assert json.loads((folder / "results.json").read_text())["measurements"][0]["data"]["no_subjects"] is True
    assert "as declared when it was prepared" in (folder / "README.md").read_text()
