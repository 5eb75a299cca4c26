"""`predictions.parquet`: data sets and splits side by side, files of earlier versions, and what is no such file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from made_up_results import NAMES, OTHER, OWN, described, measurement, predictions, results, shuffled
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.evaluation.comparison import compare_runs, describe_comparison
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.evaluation.split_evaluation import (
    PREDICTIONS_FILE,
    SplitPredictions,
    evaluate_split,
    read_predictions,
    write_predictions,
)
from engagement_recognition.processor.input_errors import DataError, ModelLoadError, RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a trained model, with predictions of validation and test."""
    write_results(tmp_path, results())
    write_predictions(tmp_path, [predictions("validation"), predictions()], NAMES, OWN)
    return tmp_path


def measured_on_other(folder: Path, split: str = "test") -> SplitPredictions:
    """As `engagement evaluate` on other data does it."""
    found = predictions(split, seed=5, num_people=4)
    write_results(folder, results().with_measurement(measurement(split, described(OTHER, "others"))))
    write_predictions(folder, [found], NAMES, OTHER)
    return found


def pairs(folder: Path) -> list[tuple[str | None, str]]:
    """Data and split, in the order of the file; each stands together."""
    columns = pyarrow.parquet.read_table(folder / PREDICTIONS_FILE).to_pydict()
    rows = list(zip(columns["data"], columns["split"], strict=True))
    found = list(dict.fromkeys(rows))
    assert rows == [pair for pair in found for _ in range(rows.count(pair))]
    return found


def assert_same(found: SplitPredictions, expected: SplitPredictions) -> None:
    assert (found.split, found.keys) == (expected.split, list(expected.keys))
    assert list(found.subject_ids) == list(expected.subject_ids)
    np.testing.assert_array_equal(found.label_ids, expected.label_ids)
    np.testing.assert_array_equal(found.logits, expected.logits)


def as_earlier_versions_wrote_it(folder: Path) -> None:
    table = pyarrow.parquet.read_table(folder / PREDICTIONS_FILE)
    pyarrow.parquet.write_table(table.drop_columns(["data"]), folder / PREDICTIONS_FILE)


def test_what_is_written_is_read(folder: Path):
    found, names = read_predictions(folder, "validation")
    assert names == NAMES
    assert_same(found, predictions("validation"))
    nobody = SplitPredictions("train", [("a", 0)], [None], np.array([1]), np.zeros((1, 2)))
    write_predictions(folder, [nobody], NAMES, OWN)
    assert_same(read_predictions(folder, "train")[0], nobody)


def test_other_data_is_added_and_the_model_s_own_speaks_for_it(folder: Path):
    other = measured_on_other(folder)
    assert pairs(folder) == [(OWN, "validation"), (OWN, "test"), (OTHER, "test")]
    assert_same(read_predictions(folder, "test")[0], predictions())
    assert_same(read_predictions(folder, "test", OWN)[0], predictions())
    assert_same(read_predictions(folder, "test", OTHER)[0], other)
    assert_same(read_predictions(folder, "validation")[0], predictions("validation"))


def test_what_is_measured_again_takes_its_own_place_alone(folder: Path):
    other, again = measured_on_other(folder), shuffled(predictions(), 7)
    write_predictions(folder, [again], NAMES, OWN)
    assert pairs(folder) == [(OWN, "validation"), (OWN, "test"), (OTHER, "test")]
    assert_same(read_predictions(folder, "test")[0], again)
    assert_same(read_predictions(folder, "test", OTHER)[0], other)


def test_of_an_imported_model_the_first_that_was_measured_speaks(tmp_path: Path):
    of_other, of_own = (measurement(data=described(data)) for data in (OTHER, OWN))
    imported = Results(stage="engagement", label_names=NAMES, started_from="a.pth", measurements=[of_other, of_own])
    write_results(tmp_path, imported)
    write_predictions(tmp_path, [predictions(seed=1)], NAMES, OTHER)
    write_predictions(tmp_path, [predictions(seed=2)], NAMES, OWN)
    assert imported.measured_on("test") == of_other
    assert_same(read_predictions(tmp_path, "test")[0], predictions(seed=1))


def test_one_data_set_needs_no_results_to_be_read(folder: Path):
    (folder / "results.json").unlink()
    assert_same(read_predictions(folder, "test")[0], predictions())


# --- Files of earlier versions


def test_a_file_of_an_earlier_version_is_read_as_of_what_was_measured_then(folder: Path):
    as_earlier_versions_wrote_it(folder)
    for fingerprint in (None, OWN):
        assert_same(read_predictions(folder, "test", fingerprint)[0], predictions())
        assert_same(read_predictions(folder, "validation", fingerprint)[0], predictions("validation"))
    with pytest.raises(DataError, match=r"no predictions on test of b2b2b2b2b2b2"):
        read_predictions(folder, "test", OTHER)


def test_rows_of_an_earlier_version_stay_beside_other_data_and_make_way_for_the_model_s_own(folder: Path):
    as_earlier_versions_wrote_it(folder)
    measured_on_other(folder)
    assert pairs(folder) == [(None, "validation"), (None, "test"), (OTHER, "test")]
    assert_same(read_predictions(folder, "test")[0], predictions())
    again = shuffled(predictions(), 7)
    write_predictions(folder, [again], NAMES, OWN)
    assert pairs(folder) == [(None, "validation"), (OTHER, "test"), (OWN, "test")]
    assert_same(read_predictions(folder, "test")[0], again)
    assert_same(read_predictions(folder, "validation", OWN)[0], predictions("validation"))


def test_an_earlier_version_s_rows_of_other_data_are_not_taken_for_the_model_s_own(folder: Path):
    # Then measuring other data replaced the model's own in both files.
    as_earlier_versions_wrote_it(folder)
    of_other = [measurement(data=described(OTHER, "others"))]
    write_results(folder, results().model_copy(update={"measurements": of_other}))
    assert_same(read_predictions(folder, "test", OTHER)[0], predictions())
    for split in ("test", "validation"):
        with pytest.raises(DataError, match="of a1a1a1a1a1a1"):
            read_predictions(folder, split, OWN)


def test_an_earlier_version_s_rows_of_one_split_may_be_of_other_data_than_those_of_another(folder: Path):
    as_earlier_versions_wrote_it(folder)
    write_results(folder, results().with_measurement(measurement("validation", described(OTHER, "others"))))
    assert_same(read_predictions(folder, "validation", OTHER)[0], predictions("validation"))
    with pytest.raises(DataError, match="predictions on validation of a1a1a1a1a1a1"):
        read_predictions(folder, "validation", OWN)


# --- What others wrote


def test_a_file_of_another_program_is_read(folder: Path):
    found = predictions()
    columns = {
        "note": ["extra"] * len(found.keys),
        "window_index": pyarrow.array([window for _, window in found.keys], pyarrow.int16()),
        "label": pyarrow.array([NAMES[label] for label in found.label_ids]).dictionary_encode(),
        **{f"logit/{name}": found.logits[:, i] for i, name in enumerate(NAMES)},
        "clip_id": pyarrow.array([clip for clip, _ in found.keys], pyarrow.large_string()),
        "subject_id": list(found.subject_ids),
        "split": ["test"] * len(found.keys),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / PREDICTIONS_FILE)
    assert_same(read_predictions(folder, "test")[0], found)
    measured_on_other(folder)
    assert pairs(folder) == [(None, "test"), (OTHER, "test")]


BROKEN = {
    "no file": lambda path, table: path.unlink(),
    "no parquet": lambda path, table: path.write_text("nothing"),
    "no clips": lambda path, table: pyarrow.parquet.write_table(table.drop_columns(["clip_id"]), path),
    "no logits": lambda path, table: pyarrow.parquet.write_table(table.select(table.column_names[:6]), path),
    "logits that are words": lambda path, table: pyarrow.parquet.write_table(
        table.drop_columns(["logit/engaged"]).append_column("logit/engaged", pyarrow.array(["much"] * len(table))), path
    ),
    "a window without label": lambda path, table: pyarrow.parquet.write_table(
        table.drop_columns(["label"]).append_column("label", pyarrow.nulls(len(table), pyarrow.string())), path
    ),
    "a label without logits": lambda path, table: pyarrow.parquet.write_table(
        table.drop_columns(["logit/engaged"]), path
    ),
}


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN)
def test_what_is_no_such_file_is_one_line(break_it, folder: Path):
    path = folder / PREDICTIONS_FILE
    break_it(path, pyarrow.parquet.read_table(path))
    with pytest.raises(ModelLoadError, match="No predictions could be read") as refusal:
        read_predictions(folder, "test")
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
    if path.exists():  # it may be somebody's, and is not replaced
        before = path.read_bytes()
        with pytest.raises(ModelLoadError, match="move the file away"):
            write_predictions(folder, [predictions()], NAMES, OTHER)
        assert path.read_bytes() == before


def test_rows_of_other_labels_are_not_mixed(folder: Path):
    with pytest.raises(ModelLoadError, match=r"low, high; move it away"):
        write_predictions(folder, [predictions()], ["low", "high"], OTHER)


def test_a_split_that_nobody_measured_is_refused(folder: Path):
    with pytest.raises(DataError, match=r"on train; .*evaluate .* --split train"):
        read_predictions(folder, "train")


# --- Comparing


def test_runs_are_compared_on_their_own_data_or_on_other_by_name(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    second = tmp_path_factory.mktemp("second")
    write_results(second, results())
    write_predictions(second, [shuffled(predictions(), 3)], NAMES, OWN)
    own = compare_runs(folder, second)
    measured_on_other(folder)
    measured_on_other(second)
    assert compare_runs(folder, second) == own and own.num_clips == 12
    assert own.differences["macro_f1"].value != 0
    for data in ("others", OTHER[:8]):
        other = compare_runs(folder, second, data=data)
        assert other.num_clips == 8 and other.differences["macro_f1"].value == 0
    with pytest.raises(DataError, match=r"elsewhere is not .*DAiSEE \(a1a1a1a1a1a1\), others \(b2"):
        compare_runs(folder, second, data="elsewhere")
    done = CliRunner().invoke(app, ["compare", str(folder), str(second), "--data", "others"])
    assert done.exit_code == 0 and "8 clips of 4 people" in done.stdout
    done = CliRunner().invoke(app, ["compare", str(folder), str(second), "--json"])
    assert done.exit_code == 0 and list(own.model_dump())[:4] == ["first", "second", "split", "num_clips"]
    assert own == type(own).model_validate_json(done.stdout)


def run_of(folder: Path, seed: int, shift: float = 0.0) -> Path:
    """A measured model whose logits of "engaged" are larger than they should be."""
    folder.mkdir()
    found, validation = (
        replace(part, logits=part.logits + np.array([0, shift], np.float32))
        for part in (predictions("test", seed), predictions("validation", seed))
    )
    measured = measurement().model_copy(
        update={"evaluation": evaluate_split(found, validation, None, [0, 1, 1], NAMES)[0], "without_duplicates": None}
    )
    write_results(folder, results().model_copy(update={"measurements": [measured]}))
    write_predictions(folder, [found, validation], NAMES, OWN)
    return folder


def test_models_that_collapsed_are_compared_at_the_decision_that_was_fitted(tmp_path: Path):
    first, second = run_of(tmp_path / "a", 1, shift=9), run_of(tmp_path / "b", 2, shift=9)
    compared = compare_runs(first, second)
    assert compared.differences["macro_f1"].first == compared.differences["macro_f1"].second == pytest.approx(1 / 3)
    for folder, name in ((first, "first"), (second, "second")):
        decided = read_results(folder).measured_on("test").evaluation.decision.scores.fitted
        assert getattr(compared.fitted.differences["macro_f1"], name) == pytest.approx(decided.macro_f1)
        assert decided.macro_f1 > 0.5
    assert compared.collapse.startswith("Both collapsed") and "auroc" not in compared.fitted.differences
    text = describe_comparison(compared)
    assert "Both collapsed" in text and "| macro-F1 | fitted |" in text and "| AUROC | – |" in text
    assert compare_runs(run_of(tmp_path / "c", 1), second).collapse.startswith("The second collapsed")
    validation = compare_runs(first, second, "validation")
    assert validation.fitted is None and "no decision was fitted" in validation.not_fitted
    assert "Only at argmax" in describe_comparison(validation)


def test_seeds_are_compared_in_pairs(tmp_path: Path):
    first, second = (
        [run_of(tmp_path / f"{name}{seed}", 10 * seed + i) for seed in range(3)] for i, name in enumerate("ab")
    )
    single = [compare_runs(*pair) for pair in zip(first, second, strict=True)]
    arguments = ["compare", *map(str, first), "--with", *map(str, second)]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    compared = type(single[0]).model_validate_json(done.stdout)
    for whole, parts in ((compared, single), (compared.fitted, [one.fitted for one in single])):
        each = [one.differences["macro_f1"].value for one in parts]
        row = whole.differences["macro_f1"]
        assert whole.by_pair["macro_f1"] == pytest.approx(each) and row.value == pytest.approx(np.mean(each))
        assert row.lower < row.value < row.upper
    widths = [one.differences["accuracy"].upper - one.differences["accuracy"].lower for one in single]
    mean = compared.differences["accuracy"]
    assert compared.num_pairs == 3 and mean.upper - mean.lower < max(widths)
    assert compared.collapse is None
    assert "mean of 3 pairs" in CliRunner().invoke(app, arguments).stdout


@pytest.mark.parametrize(
    "arguments", [["a"], ["a", "b", "c"], ["a", "b", "--with", "c"], ["--with", "a"], ["a", "b", "--jsn"]]
)
def test_runs_without_a_partner_are_one_line(arguments: list[str]):
    done = CliRunner().invoke(app, ["compare", *arguments])
    assert isinstance(done.exception, RecipeError) and "\n" not in str(done.exception)
