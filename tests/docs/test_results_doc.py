"""docs/results.md says of every key of results.json what the records do: it is made from them."""

import re
import runpy

import pytest
from places import ROOT

from engagement_recognition.data.json_records import Record
from engagement_recognition.evaluation.results_schema import Results

PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")
SCRIPT = runpy.run_path(str(ROOT / ".ci/results_doc.py"))
RECORDS: list[type[Record]] = SCRIPT["all_records"]()


def test_the_page_is_what_the_records_say():
    assert SCRIPT["renewed"](PAGE) == PAGE, "run make readme"
    emptied = re.sub(r"<!-- keys -->.*<!-- /keys -->", "<!-- keys -->\n<!-- /keys -->", PAGE, flags=re.S)
    assert emptied != PAGE and SCRIPT["renewed"](emptied) == PAGE
    with pytest.raises(ValueError, match=r"<!-- /keys --> in results\.md"):
        SCRIPT["renewed"]("# No place for a table\n")


def test_all_records_are_there_from_results_downwards():
    names = [record.__name__ for record in RECORDS]
    assert names[0] == "Results" and {"Scores", "DescribedData", "FocusSanity", "GroupScores"} <= set(names)
    assert len(names) == len(set(names)) > 30
    assert names == re.findall(r"^### (\w+)$", PAGE, re.M)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_record_and_every_key_says_what_it_is(record: type[Record]):
    assert record.__doc__
    assert SCRIPT["told_of_keys"](record).keys() == record.model_fields.keys()


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("seed", "int or null", "`null`"),
        ("data", "[TrainingData](#trainingdata) or null", "`null`"),
        ("train_label_counts", "object of int", "`{}`"),
        ("version", "`3`", ""),
        ("accuracy", "share", ""),
        ("brier", "number from 0 to 2", ""),
        ("temperature", "number above 0 or null", ""),
        ("confusion_matrix", "list of list of int or number from 0", ""),
        ("resampled", '`"people"` or `"clips"`', ""),
    ],
)
def test_a_type_is_told_in_words(key: str, kind: str, default: str):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{key}` | {kind} |"))
    assert row.endswith(f" | {default} |")


def test_a_key_is_told_once_and_not_again_where_a_record_extends_another():
    assert PAGE.count("| `balanced_accuracy` |") == PAGE.count("| `fingerprint` |") == 1
    assert PAGE.count("All of [Scores](#scores), and:") == 3
    assert set(Results.model_fields) == set(re.findall(r"^\| `(\w+)`", PAGE.split("### TrainingData")[0], re.M))
