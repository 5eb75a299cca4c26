"""`engagement evaluate` and `compare`: a model measured anew, what is written, and what is refused."""

import csv
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from changed_results import scores_on_test
from conftest import TrainedStages, prepare_drawn
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.data.drawn.datasets import write_daisee
from engagement_recognition.data.preparation.prepared_data import load_prepared
from engagement_recognition.evaluate_model import evaluate_model
from engagement_recognition.evaluation.comparison import compare_runs
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.evaluation.results_schema import ImportedFrom, Results
from engagement_recognition.evaluation.score_records import SuppressedGroup
from engagement_recognition.evaluation.split_evaluation import read_predictions
from engagement_recognition.processor.input_errors import DataError, ModelLoadError, RecipeError
from engagement_recognition.train import train
from engagement_recognition.training.arguments import Recipe


@pytest.fixture
def run(trained: TrainedStages, tmp_path: Path) -> Path:
    """A copy of stage two's folder that a test may write to."""
    return Path(shutil.copytree(trained.engagement, tmp_path / "engagement"))


@pytest.fixture
def prepared(trained: TrainedStages) -> Path:
    """The data stage two was trained on, as it was prepared for that."""
    fingerprint = read_results(trained.engagement).data.fingerprint
    folders = Path(trained.recipe["cache_dir"]).glob("daisee-*")
    return next(folder for folder in folders if load_prepared(folder).fingerprint == fingerprint)


def test_measuring_again_gives_the_trained_scores(run: Path, prepared: Path, trained: TrainedStages):
    before = read_results(run)
    again = evaluate_model(run, prepared)
    scores = scores_on_test(before).scores
    assert again.scores.confusion_matrix == scores.confusion_matrix
    assert again.scores.auroc == pytest.approx(scores.auroc)
    results = read_results(run)
    (measured,) = results.measurements  # in the place of the earlier one
    assert measured.evaluation == again and measured.data == before.data.as_measured()
    assert (measured.environment.device, measured.environment.engine) == ("cpu", "torch")
    assert results.model_copy(update={"measurements": []}) == before.model_copy(update={"measurements": []})
    first, second = (read_predictions(folder, "test")[0] for folder in (trained.engagement, run))
    assert first.keys == second.keys and torch.allclose(*map(torch.tensor, (first.logits, second.logits)), atol=1e-5)


@pytest.fixture
def expression(trained: TrainedStages, tmp_path: Path) -> Path:
    """A copy of stage one's folder that a test may write to."""
    return Path(shutil.copytree(trained.expression, tmp_path / "expression"))


@pytest.mark.parametrize("is_old", [False, True], ids=["new results", "results that know the recipe alone"])
def test_pictures_are_read_again_as_in_training(
    is_old: bool, expression: Path, drawn_expressions: Path, tmp_path: Path
):
    # Without the recipe's subject_pattern they would be pictures of nobody: other data, which is not published.
    before = read_results(expression)
    if is_old:
        older = before.data.model_copy(update={"prepared_with": None})
        write_results(expression, before.model_copy(update={"data": older}))
    again = evaluate_model(expression, drawn_expressions, cache_dir=tmp_path / "cache")
    (measured,) = read_results(expression).measurements
    assert measured.data.fingerprint == before.data.fingerprint
    assert again.scores.confusion_matrix == scores_on_test(before).scores.confusion_matrix
    people = {path.name.partition("_")[0] for path in drawn_expressions.glob("test/*/*.png")}
    assert set(read_predictions(expression, "test")[0].subject_ids) == people


def test_how_a_source_is_read_is_known_of_prepared_data_too(
    tiny_recipe: dict[str, object], drawn_expressions: Path, tmp_path: Path
):
    # Here the source has no splits, and one picture twice under two labels; nothing of that stands in the recipe.
    source = tmp_path / "pictures"
    for picture in drawn_expressions.glob("*/*/*.png"):
        (source / picture.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, source / picture.parent.name / picture.name)
    happy, sad = (min(source.glob(f"{label}/*.png")) for label in ("happy", "sad"))
    shutil.copyfile(happy, sad.with_name(happy.name.replace(".", "_again.")))
    command = ["prepare", "images", str(source), "--output", str(tmp_path / "data"), "--seed", "3"]
    done = CliRunner().invoke(app, [*command, "--subject-pattern", r"^\d+", "--drop-conflicts"])
    assert done.exit_code == 0, done.output
    section = {"data": str(tmp_path / "data"), "num_train_epochs": 1, "allow_leakage": True}
    recipe = {**tiny_recipe, "engagement": {}, "expression": section, "output_dir": str(tmp_path / "r")}
    (folder,) = train(Recipe(recipe), {})
    assert read_results(folder).data.label_conflicts.dropped
    evaluate_model(folder, source, cache_dir=tmp_path / "cache")
    results = read_results(folder)
    assert len(results.measurements) == 1 and results.is_own_data(results.measurements[0])


def test_another_source_is_read_as_it_is(expression: Path, drawn_expressions: Path, tmp_path: Path):
    # The pattern of one source's names finds nobody in another's, whose pictures would all be rejected.
    for picture in drawn_expressions.glob("*/*/*.png"):
        target = tmp_path / "others" / picture.relative_to(drawn_expressions).with_name(f"by_{picture.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)
    evaluate_model(expression, tmp_path / "others", cache_dir=tmp_path / "cache")
    _, other = read_results(expression).measurements
    assert set(read_predictions(expression, "test", other.data.fingerprint)[0].subject_ids) == {None}


@pytest.mark.usefixtures("figures")
def test_another_split_is_added_and_chooses_nothing_on_itself(run: Path, prepared: Path):
    evaluation = evaluate_model(run, prepared, "validation")
    assert evaluation.decision is None and evaluation.calibration.scaled is None
    assert [measured.split for measured in read_results(run).measurements] == ["test", "validation"]
    assert (run / "figures/validation_confusion.png").is_file() and (run / "figures/test_reliability.svg").is_file()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of other people, who do not exist either."""
    folder = tmp_path_factory.mktemp("others") / "other people's"
    shape = {"fps": 4, "duration_sec": 2.0, "width_px": 320, "height_px": 240}
    write_daisee(folder, 5, 3, seed=1, **shape, processes=1, show_progress=False)
    return folder


@pytest.mark.usefixtures("figures")
def test_figures_of_another_data_set_stand_beside_its_own(run: Path, others: Path, tmp_path: Path):
    figure = (run / "figures/test_confusion.png").read_bytes()
    evaluate_model(run, others, cache_dir=tmp_path / "cache")
    names = {path.name for path in (run / "figures").glob("*.png")}
    prefix = f"test_other_people_s_{read_results(run).measurements[1].data.fingerprint[:8]}"
    kinds = ("confusion", "reliability", "risk_coverage")
    assert names == {f"{of}_{kind}.png" for of in ("test", prefix) for kind in kinds} | {"training_curves.png"}
    assert (run / "figures/test_confusion.png").read_bytes() == figure


def test_another_data_set_is_added_and_replaces_nothing(run: Path, prepared: Path, others: Path, tmp_path: Path):
    before = read_results(run)
    card = ModelCard.load(run / "README.md")
    for _ in range(2):  # again, it takes its own place
        there = evaluate_model(run, others, cache_dir=tmp_path / "cache")
    own, other = read_results(run).measurements
    assert own == before.measurements[0] and other.evaluation == there
    assert (other.data.source, other.data.drawn, other.data.examples["test"]) == ("other people's", True, 3)
    # Predictions of both are kept apart, and what speaks for the model is its own data, on the card too.
    table = pyarrow.parquet.read_table(run / "predictions.parquet").to_pydict()
    assert set(table["data"]) == {own.data.fingerprint, other.data.fingerprint}
    now = ModelCard.load(run / "README.md")
    assert now.data.eval_results == card.data.eval_results
    text, elsewhere = now.text.partition("### Measured on other data")[::2]
    assert text.rstrip() in card.text and "cannot be compared with the table above" in elsewhere
    row = next(line for line in elsewhere.splitlines() if other.data.fingerprint[:12] in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["test", "3"] and f"{there.scores.macro_f1:.3f} (" in cells[3]
    assert cells[4] == f"{there.scores.balanced_accuracy:.3f}" and cells[-2:] == ["yes", "passed"]
    done = CliRunner().invoke(app, ["publish", str(run), "--repo", "org/name", "--dry-run"])
    assert done.exit_code == 0, done.output
    # Its own data again takes its own place, and only that.
    evaluate_model(run, prepared)
    again = read_results(run).measurements
    assert again[1] == other and again[0].data == own.data


def test_an_imported_model_is_known_by_what_was_measured_first(run: Path, prepared: Path, others: Path, tmp_path: Path):
    origin = ImportedFrom(source="best.pth", system="CNN + LSTM", num_weights=2, num_encoder_weights=1)
    names = read_results(run).label_names
    write_results(run, Results(stage="engagement", label_names=names, started_from="best.pth", imported=origin))
    evaluate_model(run, prepared)
    evaluate_model(run, others, cache_dir=tmp_path / "cache")
    results = read_results(run)
    assert results.data is None and results.headline() == results.measurements[0] and results.doubt() is None
    text = ModelCard.load(run / "README.md").text
    assert "On the test split of drawn people" in text and "passed the audit" in text
    assert f"data fingerprint `{results.measurements[0].data.fingerprint[:12]}`" in text
    assert results.measurements[1].data.fingerprint[:12] in text.partition("### Measured on other data")[2]


def test_groups_of_few_people_are_suppressed(run: Path, prepared: Path, tmp_path: Path):
    people = sorted(set(read_predictions(run, "test")[0].subject_ids))
    with (tmp_path / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["subject_id", "hair"], *([person, "dark"] for person in people)])
    evaluation = evaluate_model(run, prepared, groups=tmp_path / "groups.csv")
    assert evaluation.groups == {"hair": {"dark": SuppressedGroup()}}
    (tmp_path / "groups.csv").write_text("person,hair\n1,dark\n")
    with pytest.raises(DataError, match="subject_id"):
        evaluate_model(run, prepared, groups=tmp_path / "groups.csv")


def test_frames_made_otherwise_are_refused(run: Path, drawn_daisee: Path, tmp_path: Path):
    whole = prepare_drawn(drawn_daisee, tmp_path / "whole", num_frames=4, face_crop=False)
    with pytest.raises(RecipeError, match=r"face_crop True.* /.*whole .* False; "):
        evaluate_model(run, whole.folder)


def test_other_labels_are_refused(run: Path, prepared: Path):
    with pytest.raises(DataError, match="--label-scheme"):
        evaluate_model(run, prepared, label_scheme="levels")


def test_a_folder_without_results_is_refused(run: Path, prepared: Path):
    (run / "results.json").unlink()
    with pytest.raises(ModelLoadError, match=r"results\.json"):
        evaluate_model(run, prepared)


def test_on_the_command_line(run: Path, prepared: Path, trained: TrainedStages):
    done = CliRunner().invoke(app, ["evaluate", str(run), "--data", str(prepared)])
    assert done.exit_code == 0 and "macro f1" in done.stdout and "always" in done.stdout
    done = CliRunner().invoke(app, ["compare", str(trained.engagement), str(run)])
    assert done.exit_code == 0 and "| macro-F1 |" in done.stdout


def test_the_card_of_another_split_says_which(run: Path, prepared: Path):
    write_results(run, read_results(run).model_copy(update={"measurements": []}))
    evaluate_model(run, prepared, "validation")
    assert "On the validation split of" in ModelCard.load(run / "README.md").text


# --- Two runs


def test_runs_of_other_labels_or_clips_are_not_compared(trained: TrainedStages, run: Path):
    with pytest.raises(DataError, match=r"evaluate .*engagement --data DATA --split train"):
        compare_runs(trained.engagement, trained.engagement, "train")
    with pytest.raises(DataError, match="same labels"):
        compare_runs(trained.expression, trained.engagement)
    table = pyarrow.parquet.read_table(run / "predictions.parquet")
    pyarrow.parquet.write_table(table.slice(0, table.num_rows - 1), run / "predictions.parquet")
    with pytest.raises(DataError, match="different clips"):
        compare_runs(trained.engagement, run)
