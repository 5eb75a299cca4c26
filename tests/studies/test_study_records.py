"""The files of a study, edited by hand and from an earlier version: each is read as meant, or refused by its key."""

import copy
import json
from pathlib import Path

import pytest

from engagement_recognition.data.json_records import read_record
from engagement_recognition.evaluation.results_file import write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.processor.input_errors import DataError, RecipeError
from engagement_recognition.studies import reproduce as study
from engagement_recognition.studies.reproduce import Row, read_study, reproduce
from engagement_recognition.studies.study_records import StudyRecord
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
    "an unknown score": (
        {"rows": {"lstm": {"published": {"f2": 0.5}}}},
        "rows.lstm.published with f2, which is no",
    ),
    "an unknown score to show": ({"scores": ["auroc_fitted"]}, "got scores with auroc_fitted, which is no"),
    "a contrast by an unknown score": ({"contrasts": [{**CONTRAST, "also": ["mcc"]}]}, r"got contrasts\[0\] with mcc,"),
    "per cent": ({"rows": {"lstm": {"published": {"accuracy": 67.7}}}}, "got 67.7 as rows.lstm.published.accuracy"),
    "an unknown stage": ({"rows": {"lstm": {"stages": ["emotion"]}}}, r'got "emotion" as rows.lstm.stages\[0\]'),
    "no stage": ({"rows": {"lstm": {"stages": []}}}, r"got \[\] as rows.lstm.stages"),
    "a row that is a word": ({"rows": {"lstm": "0.5"}}, 'got "0.5" as rows.lstm'),
    "a row without a recipe": ({"rows": {"gru": {}}}, "no recipe .*gru.yaml"),
    "a title that is a number": ({"title": 2026}, "got 2026 as title"),
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
    "of something else": ('{"recipes": {}, "options": {}}', "got no study "),
    "no rows": ('{"study": "small"}', "got no rows;"),
    "a hash that is a number": ('{"study": "small", "rows": {"lstm": 3}}', "got 3 as rows.lstm "),
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
        patch.setattr(study, "train", _killed)
        reproduce(folder, folder / "study.yaml", folder / "out")
    place.mkdir(parents=True)
    write_results(place, Results(stage="engagement", label_names=["no", "yes"], started_from="theirs.pth"))
    with pytest.raises(RecipeError, match=f"{place} contains an imported model"):
        reproduce(folder, folder / "study.yaml", folder / "out")


def _killed(*given: object) -> Path:
    raise KeyboardInterrupt


# --- study.json

SCORES = {"macro_f1": 0.25, "accuracy": 0.5, "auroc": None, "recall/engaged": 1.0}
INTERVAL = {"value": 0.25, "lower": 0.1, "upper": 0.5, "num_undefined": 3, "effective_clusters": 6.0,
            "few_clusters": False}  # fmt: skip
MEASURED_ON = {"num_clips": 20, "num_people": 6, "rarest_class": "disengaged", "num_rarest_clips": 5,
               "num_people_with_both": 4, "num_folds": None}  # fmt: skip
FINISHED = {
    "seed": 0,
    "failure": None,
    "folder": "frame/seed0/engagement",
    "scores": SCORES,
    "scores_by_window": None,
    "majority_baseline": {"macro_f1": 0.4, "accuracy": 0.75},
    "measured_on": MEASURED_ON,
    "collapse": None,
    "data": {"engagement": {"source": "daisee", "fingerprint": "26547dd8a39109b0", "audit": "passed",
                            "leakage_allowed": False, "drawn": False}},
    "seconds": 0.25,
}  # fmt: skip
SPREADS = {
    "measured": {name: {"mean": value, "sd": None} for name, value in SCORES.items()},
    "measured_by_window": {},
    "intervals": {"resampled": "people", "num_clusters": 6, "num_resamples": 2000, "seed": 0, "confidence": 0.95,
                  "method": "BCa", "intervals": {"macro_f1": INTERVAL}},
}  # fmt: skip
COMPARED = {
    "resampled": "people",
    **INTERVAL,
    "value": 0.0,
    "lower": -0.1,
    "first": 0.25,
    "second": 0.25,
    "excludes_zero": False,
}
DIFFERENCE = {"score": "macro_f1", "published": 0.0565, "seeds": [0], "differences": [0.0], "mean": 0.0, "sd": None,
              "paired": COMPARED}  # fmt: skip
RECORD = {
    "version": 2,
    "name": "small",
    "title": "A small study",
    "split": "test",
    "seeds": 1,
    "scores": [],
    "notes": ["Nothing was chosen on these people."],
    "command": "engagement reproduce small --data daisee --seeds 1",
    "changed_options": {},
    "prepared_beforehand": [],
    "rows": [
        {"name": "frame", "title": "One frame", "improves": False, "stages": ["engagement"],
         "published": {"macro_f1": 0.4935}, "seeds": None, "runs": [FINISHED], **SPREADS},
        {"name": "lstm", "title": "LSTM", "improves": False, "stages": ["engagement"],
         "published": {"macro_f1": 0.55}, "seeds": None,
         "runs": [{"seed": 0, "failure": "Expected an encoder, got none."}], "measured": {}, "measured_by_window": {},
         "intervals": None},
    ],
    "contrasts": [{"name": "time helps", "rows": ["frame", "lstm"], "scores": [DIFFERENCE], "caveat": None}],
}  # fmt: skip
TABLE = """\
# A small study: published and measured

Scores on test, by clip, one seed; 95 % intervals over people.

Measured on 20 clips of 6 people, 5 of them "disengaged" (4 people have both classes).

| system | score | published | measured | 95 % interval | majority baseline | minutes per run |
| --- | --- | --- | --- | --- | --- | --- |
| One frame | macro-F1 | 0.4935 | 0.250 | 0.100 to 0.500 | 0.400 | below 1 |
| One frame | accuracy | – | 0.500 | – | 0.750 | below 1 |
| LSTM | macro-F1 | 0.550 | failed | – | – | – |
| LSTM | accuracy | – | failed | – | – | – |

## Findings

The second row minus the first, with the same seeds on the same people.

| contrast | score | published | difference | each seed | 95 % interval | verdict |
| --- | --- | --- | --- | --- | --- | --- |
| time helps (One frame → LSTM) | macro-F1 | +0.057 | +0.000 | +0.000 | -0.100 to +0.500 | not shown: interval \
includes zero |

## Notes

- Nothing was chosen on these people.
- Data: daisee, fingerprint 26547dd8a391: all rows.
- LSTM, seed 0: failed: Expected an encoder, got none."""


def read_edited(path: Path, record: object) -> StudyRecord:
    path.write_text(json.dumps(record))
    return read_record(path, StudyRecord, DataError, "a study's record", "run the study again")


def test_a_record_that_is_read_makes_the_same_table(tmp_path: Path):
    record = read_edited(tmp_path / "study.json", RECORD)
    assert render_study(record) == TABLE
    assert json.loads(record.model_dump_json()) == RECORD


def test_runs_that_cannot_be_compared_are_told_so(tmp_path: Path):
    record = copy.deepcopy(RECORD)
    record["contrasts"][0]["scores"][0]["paired"] = {"refused": "other clips"}
    table = render_study(read_edited(tmp_path / "study.json", record))
    assert "| +0.000 | +0.000 | – | not comparable clip by clip: other clips |" in table


EDITS = {
    "another version": (["version"], 1, "got 1 as version "),
    "seeds in words": (["seeds"], "two", 'got "two" as seeds '),
    "rows by name": (["rows"], {"frame": {}}, r"as rows \("),
    "a split to train on": (["split"], "train", 'got "train" as split '),
    "a score that is a word": (["rows", 0, "runs", 0, "scores", "macro_f1"], "high",
                               r'got "high" as rows\[0\].runs\[0\].scores.macro_f1 '),
    "an unknown audit": (["rows", 0, "runs", 0, "data", "engagement", "audit"], "fine", 'data.engagement.audit '),
    "a bound that is a word": (["rows", 0, "intervals", "intervals", "macro_f1", "lower"], "low",
                               r'got "low" as rows\[0\].intervals.intervals.macro_f1.lower '),
    "a run of two kinds": (["rows", 0, "runs", 0, "failure"], "broke", r"an unknown key rows\[0\].runs\[0\].folder"),
    "a failure that is a number": (["rows", 1, "runs", 0, "failure"], 3, r"got 3 as rows\[1\].runs\[0\].failure "),
    "a run that is a word": (["rows", 1, "runs", 0], "failed", r"rows\[1\].runs\[0\]"),
    "published in per cent": (["rows", 0, "published", "macro_f1"], 49.35, r"rows\[0\].published.macro_f1 "),
    "a contrast of one": (["contrasts", 0, "rows"], ["frame"], r"contrasts\[0\].rows"),
    "a difference in words": (["contrasts", 0, "scores", 0, "paired", "value"], "none",
                              r'"none" as contrasts\[0\].scores\[0\].paired.value '),
    "an unknown key": (["contrasts", 0, "verdict"], "differs", r"got an unknown key contrasts\[0\].verdict;"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_record_edited_by_hand_is_refused_by_its_key(name: str, tmp_path: Path):
    (*above, last), value, told = EDITS[name]
    record = copy.deepcopy(RECORD)
    place = record
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(DataError, match=told) as refusal:
        read_edited(tmp_path / "study.json", record)
    assert str(tmp_path / "study.json") in str(refusal.value) and "\n" not in str(refusal.value)
