"""The files of a study, edited by hand and from an earlier version: each is read as meant, or refused by its key."""

import json
import re
from pathlib import Path

import pytest
from made_up_studies import made_up_study
from stopped_trainings import interrupt

from engagement_recognition.data.json_records import read_record
from engagement_recognition.evaluation.results_file import write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.studies import reproduce as study
from engagement_recognition.studies.reproduce import Row, read_study, reproduce
from engagement_recognition.studies.study_records import Contrast, StudyRecord
from engagement_recognition.studies.table import render_study
from engagement_recognition.training.arguments import Recipe

CONTRAST = {"name": "time helps", "rows": ["frame", "lstm"], "score": "macro_f1"}
DESCRIPTION = {
    "split": "test",
    "rows": {"frame": {"published": {"macro_f1": 0.5}}, "lstm": {"title": "LSTM", "published": None}},
    "contrasts": [CONTRAST],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of two rows."""
    for name in DESCRIPTION["rows"]:
        (tmp_path / f"{name}.yaml").write_text("image_size: 32")
    (tmp_path / "study.yaml").write_text(json.dumps(DESCRIPTION))  # JSON is YAML
    return tmp_path


# --- study.yaml


def test_what_a_description_leaves_out_has_a_default(folder: Path):
    planned = read_study(folder)
    assert (planned.title, planned.data) == (folder.name, "see the recipes")
    assert [(row.title, row.published, row.stages) for row in planned.rows] == [
        ("frame", {"macro_f1": 0.5}, ("engagement",)),
        ("LSTM", {}, ("engagement",)),
    ]
    (folder / "study.yaml").write_text("split: test\nrows:\n  lstm: {}\ncontrasts:\n")
    assert read_study(folder).contrasts == []


DESCRIBED = {
    "no rows": ({"rows": {}}, "got {} as rows"),
    "rows that are a list": ({"rows": ["frame"]}, r'got \["frame"\] as rows'),
    "a split to train on": ({"split": "train"}, 'got "train" as split'),
    "an unknown key": ({"contrast": []}, "got an unknown key contrast;"),
    "an unknown score": ({"rows": {"lstm": {"published": {"f2": 0.5}}}}, "rows.lstm.published with f2, which is no"),
    "an unknown score to show": ({"scores": ["auroc_fitted"]}, "got scores with auroc_fitted, which is no"),
    "a contrast by an unknown score": ({"contrasts": [{**CONTRAST, "also": ["mcc"]}]}, r"got contrasts\[0\] with mcc,"),
    "per cent": ({"rows": {"lstm": {"published": {"accuracy": 67.7}}}}, "got 67.7 as rows.lstm.published.accuracy"),
    "an unknown stage": ({"rows": {"lstm": {"stages": ["emotion"]}}}, r'got "emotion" as rows.lstm.stages\[0\]'),
    "a row without a recipe": ({"rows": {"gru": {}}}, "no recipe .*gru.yaml"),
    "a contrast with nothing": ({"contrasts": [{**CONTRAST, "rows": ["frame", "gru"]}]}, "with gru, which is not one"),
    "a contrast of three": ({"contrasts": [{**CONTRAST, "rows": ["frame"] * 3}]}, r"as contrasts\[0\].rows"),
    "a contrast without a score": ({"contrasts": [{"name": "x", "rows": ["frame", "lstm"]}]}, "no contrasts.0..score"),
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_study_that_cannot_be_understood_is_one_line(name: str, folder: Path):
    changes, told = DESCRIBED[name]
    (folder / "study.yaml").write_text(json.dumps({**DESCRIPTION, "contrasts": [], **changes}))
    with pytest.raises(RecipeError, match=told) as refusal:
        read_study(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)


# --- plan.json


PLANS = {
    "no JSON": ("study: small", r"no JSON \(expected value"),
    "a list": ("[]", r"got \[\] as its content"),
    "no rows": ('{"study": "small"}', "got no rows;"),
    "an unknown key": ('{"study": "small", "rows": {}, "seeds": 2}', "got an unknown key seeds;"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_edited_by_hand_is_one_line(name: str, folder: Path):
    text, told = PLANS[name]
    output = folder / "out"
    output.mkdir()
    (output / "plan.json").write_text(text)
    with pytest.raises(RecipeError, match=f"{output}/plan.json, .*{told}") as refusal:
        reproduce(folder, folder / "study.yaml", output)
    assert str(refusal.value).endswith("; choose a different --output.") and "\n" not in str(refusal.value)
    assert (output / "plan.json").read_text() == text and len(list(output.iterdir())) == 1


def test_a_row_has_the_hash_that_earlier_versions_gave_it():
    recipe = {"image_size": 32, "augmentation": {"flip": 0.5}, "image_mean": [0.5], "subset": None,
              "learning_rate": 1e-3, "expression": {"seed": 1}}  # fmt: skip
    row = Row("lstm", "LSTM", {}, ("expression", "engagement"), Recipe(recipe))
    hashed = study.hash_of(row, {"learning_rate": "0.1", "disable_tqdm": "true"}, ["pictures", "clips"])
    assert hashed == "38b36b9311058d125364706f349082885c8331c49894c23f45d760afecdad8c7"


def test_an_imported_model_in_the_place_of_a_run_is_refused(folder: Path):
    place = folder / "out/frame/seed0/engagement"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, "train", lambda *_: interrupt())
        reproduce(folder, folder / "study.yaml", folder / "out")
    place.mkdir(parents=True)
    write_results(place, Results(stage="engagement", label_names=["no", "yes"], started_from="theirs.pth"))
    with pytest.raises(RecipeError, match=f"{place} contains an imported model"):
        reproduce(folder, folder / "study.yaml", folder / "out")


# --- study.json


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    output, contrast = tmp_path_factory.mktemp("studies") / "small", Contrast(**CONTRAST | {"score": "auroc"})
    return made_up_study(output, {"frame": 0.2, "lstm": 1.5}, [contrast], num_seeds=1).model_dump_json()


def read_edited(path: Path, record: object) -> StudyRecord:
    path.write_text(json.dumps(record))
    return read_record(path, StudyRecord, DataError, "a study's record", "run the study again")


def test_a_record_that_is_read_is_the_one_that_was_written(written: str, tmp_path: Path):
    assert read_edited(tmp_path / "study.json", json.loads(written)).model_dump_json() == written


def test_runs_that_cannot_be_compared_are_told_so(written: str, tmp_path: Path):
    record = json.loads(written)
    record["contrasts"][0]["scores"][0]["paired"] = {"refused": "other clips"}
    table = render_study(read_edited(tmp_path / "study.json", record))
    assert re.search(r"\| \S+ \| \S+ \| – \| not comparable clip by clip: other clips \|", table)


EDITS = {
    "another version": (["version"], 1, "got 1 as version "),
    "rows by name": (["rows"], {"frame": {}}, r"as rows \("),
    "a split to train on": (["split"], "train", 'got "train" as split '),
    "a score that is a word": (["rows", 0, "runs", 0, "scores", "macro_f1"], "high",
                               r'got "high" as rows\[0\].runs\[0\].scores.macro_f1 '),
    "a run of two kinds": (["rows", 0, "runs", 0, "failure"], "broke", r"an unknown key rows\[0\].runs\[0\].folder"),
    "published in per cent": (["rows", 0, "published", "macro_f1"], 49.35, r"rows\[0\].published.macro_f1 "),
    "a difference in words": (["contrasts", 0, "scores", 0, "paired", "value"], "none",
                              r'"none" as contrasts\[0\].scores\[0\].paired.value '),
    "an unknown key": (["contrasts", 0, "verdict"], "differs", r"got an unknown key contrasts\[0\].verdict;"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_record_edited_by_hand_is_refused_by_its_key(name: str, written: str, tmp_path: Path):
    (*above, last), value, told = EDITS[name]
    place = record = json.loads(written)
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(DataError, match=told) as refusal:
        read_edited(tmp_path / "study.json", record)
    assert str(tmp_path / "study.json") in str(refusal.value) and "\n" not in str(refusal.value)
