"""A study of our own: the scores it asks for, contrasts over all seeds that rows share, and folds of people."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from made_up_studies import SCORES, made_up_study
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.evaluation.comparison import compare_pairs, mean_intervals
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.studies import reproduce as study
from engagement_recognition.studies.reproduce import read_study, reproduce
from engagement_recognition.studies.study_records import Contrast, MeasuredDifference, NotComparable, StudyRecord
from engagement_recognition.studies.summary import summarise_study
from engagement_recognition.studies.table import render_study, verdict

HELPS = Contrast(name="skill helps", rows=["weak", "strong"], score="auroc", also=SCORES[1:])
SAME = Contrast(name="nothing changes", rows=["strong", "same"], score="auroc")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies") / "small"


@pytest.fixture(scope="module")
def record(output: Path) -> StudyRecord:
    return made_up_study(output, {"weak": 0.2, "strong": 1.5, "same": 1.5}, [HELPS, SAME])


def exports(output: Path, row: str) -> list[Path]:
    return [output / row / f"seed{seed}" / "engagement" for seed in (0, 1)]


def test_scores_are_those_of_the_results_over_seeds(record: StudyRecord, output: Path):
    tests = [read_results(export).measured_on("test").evaluation for export in exports(output, "weak")]
    (weak, *_) = record.rows
    expected = {
        "auroc": [test.scores.auroc for test in tests],
        "within_person_auroc": [test.intervals.intervals["within_person_auroc"].value for test in tests],
        "balanced_accuracy_fitted": [test.decision.scores.fitted.balanced_accuracy for test in tests],
    }
    for score, values in expected.items():
        spread, interval = weak.measured[score], weak.intervals.intervals[score]
        assert spread.mean == pytest.approx(np.mean(values)) and spread.sd == pytest.approx(np.std(values, ddof=1))
        assert interval.value == pytest.approx(spread.mean) and interval.lower < spread.mean < interval.upper
    at_argmax, _ = mean_intervals(exports(output, "weak"))
    assert weak.intervals.intervals["auroc"] == at_argmax.intervals["auroc"]


def test_a_contrast_is_over_all_seeds_that_both_rows_finished(record: StudyRecord, output: Path):
    helps, same = record.contrasts
    compared = compare_pairs(exports(output, "weak"), exports(output, "strong"))
    found = [compared.differences["auroc"], compared.differences["within_person_auroc"]]
    for difference, row in zip(helps.scores, [*found, compared.fitted.differences["balanced_accuracy"]], strict=True):
        assert difference.seeds == [0, 1] and difference.mean == pytest.approx(row.value)
        assert difference.paired.model_dump(exclude={"resampled"}) == row.model_dump()
    assert helps.scores[0].differences == pytest.approx(compared.by_pair["auroc"])
    assert [verdict(difference) for difference in helps.scores] == ["helps: interval above zero"] * 3
    assert verdict(same.scores[0]) == "not shown: interval includes zero"
    # With a seed that one row has not finished, the others are compared.
    fewer = [record.rows[0].model_copy(update={"runs": record.rows[0].runs[:1]}), *record.rows[1:]]
    head = {name: getattr(record, name) for name in StudyRecord.model_fields if name not in ("rows", "contrasts")}
    fields = ("name", "title", "improves", "stages", "published", "runs")
    rows = [study.RowRuns(**{name: getattr(row, name) for name in fields}) for row in fewer]
    again = summarise_study(output, study.StudyHead(**head), rows, [HELPS])
    assert again.contrasts[0].scores[0].seeds == [0]
    nothing = [rows[0].model_copy(update={"runs": []}), *rows[1:]]
    (asked,) = summarise_study(output, study.StudyHead(**head), nothing, [HELPS]).contrasts
    assert verdict(asked.scores[0]) == "not measured yet" and asked.scores[0].mean is None


def test_without_published_numbers_the_table_has_a_line_a_system(record: StudyRecord):
    table = render_study(record)
    assert table.startswith("# A small study\n") and "published" not in table
    assert '192 clips of 24 people, 48 of them "disengaged" (24 people' in table
    header = "| system | AUROC | within-person AUROC | balanced accuracy, fitted | minutes per run |"
    lines = table.splitlines()
    assert header in lines
    weak, strong = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("Weak", "Strong"))
    mean, interval = record.rows[0].measured["auroc"], record.rows[0].intervals.intervals["auroc"]
    cell = f"{mean.mean:.3f} ± {mean.sd:.3f} ({interval.lower:.3f} to {interval.upper:.3f})"
    assert weak.split(" | ")[1] == cell and weak.endswith(" | 2 |") and weak != strong
    assert "| no model: always the most frequent class | 0.500 | 0.500 | 0.500 | – |" in lines
    assert "- Nothing was chosen on these people; they were looked at once." in lines


def test_folds_of_people_are_told(tmp_path: Path):
    pooled = made_up_study(tmp_path / "out", {"weak": 0.2, "strong": 1.5}, [HELPS], num_folds=5)
    assert "in 5 folds of people" in render_study(pooled)
    weak = pooled.rows[0]
    fitted = weak.intervals.intervals["balanced_accuracy_fitted"]
    assert fitted.value == pytest.approx(weak.measured["balanced_accuracy_fitted"].mean) != 0.5
    assert [run.measured_on.num_folds for run in weak.finished] == [5, 5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": -0.2, "lower": -0.3, "upper": -0.1}, "hurts: interval below zero"),
        ({"lower": 0.0}, "not shown: interval includes zero"),
        ({"few_clusters": True}, "too few people to tell"),
        ({"lower": None, "upper": None}, "too few people to tell"),
        ({"resampled": "clips"}, "helps: interval above zero, but over clips, too narrow"),
    ],
)
def test_a_verdict_says_what_the_interval_says(changes: Mapping[str, object], words: str, record: StudyRecord):
    difference = record.contrasts[0].scores[0]
    told = json.loads(difference.model_dump_json())
    told["paired"] |= changes
    lower, upper = told["paired"]["lower"], told["paired"]["upper"]
    told["differences"] = [value if told["paired"]["value"] > 0 else -value for value in told["differences"]]
    told["paired"]["excludes_zero"] = None if lower is None else not lower <= 0 <= upper
    assert verdict(MeasuredDifference.model_validate_json(json.dumps(told))) == words
    apart = difference.model_copy(update={"differences": [0.5, -0.1]})
    assert verdict(apart).startswith("helps: interval above zero, ") and verdict(apart).endswith("every seed")
    refused = difference.model_copy(update={"paired": NotComparable(refused="other clips")})
    assert verdict(refused) == "not comparable clip by clip: other clips"


# --- Studies in folders of folders


def write_description(folder: Path, **entries: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "frame.yaml").write_text("image_size: 32")
    (folder / "study.yaml").write_text(json.dumps({"split": "test", "rows": {"frame": {}}, **entries}))
    return folder


def test_a_study_in_a_folder_of_a_folder_has_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "RECIPES", tmp_path / "recipes")
    write_description(tmp_path / "recipes/real/daisee", scores=["auroc"], notes=["Looked at once."])
    planned = read_study("real/daisee")
    assert (planned.name, planned.scores, planned.notes) == ("real/daisee", ["auroc"], ["Looked at once."])
    assert study.default_output("real/daisee") == Path("runs/real/daisee")
    with pytest.raises(RecipeError, match=r"real/fer\b.* real/daisee, .*study\.yaml"):
        read_study("real/fer")
    monkeypatch.chdir(tmp_path)
    outside = write_description(tmp_path / "mine/daisee")
    assert (read_study(outside).name, study.default_output(outside)) == ("daisee", Path("runs/daisee"))


def test_the_command_puts_it_under_runs_and_says_how_to_do_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "RECIPES", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    write_description(tmp_path / "recipes/real/daisee")

    def fail(*given: object) -> None:
        raise DataError("no picture")

    monkeypatch.setattr(study, "train", fail)
    words = ["reproduce", "real/daisee", "--data", str(tmp_path / "recipes"), "--seeds", "2", "--image_size", "48"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "failed: frame, seed 1: no picture" in done.output
    told = json.loads((tmp_path / "runs/real/daisee/study.json").read_text())
    assert told["command"] == "engagement reproduce real/daisee --data recipes --seeds 2 --image_size 48"
    assert told["rows"][0]["intervals"] is None and told["contrasts"] == []
    with pytest.raises(RecipeError, match="choose a different --output"):
        reproduce("real/daisee", tmp_path / "recipes", tmp_path / "runs/real/daisee", options={"image_size": "64"})


def test_an_unknown_study_is_told_which_there_are(tmp_path: Path):
    with pytest.raises(RecipeError, match="study nobody_et_al") as refusal:
        reproduce("nobody_et_al", tmp_path, tmp_path / "out")
    known = [path.parent.relative_to(study.RECIPES).as_posix() for path in study.RECIPES.rglob("study.yaml")]
    assert all(name in str(refusal.value) for name in known)
