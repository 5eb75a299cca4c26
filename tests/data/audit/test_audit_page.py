"""An audit is told three ways: as JSON to programs, as a page that holds everything itself, and in the terminal."""

import base64
import csv
import io
import re
from pathlib import Path

import pytest
from drawn_leaks import brighter, classes_of_one_recording, people_apart, write_rows
from PIL import Image
from rich.console import Console

from engagement_recognition.data.audit.leakage import Audit, audit
from engagement_recognition.data.audit.page import (
    MOST_PICTURES,
    describe_verdict,
    print_audit,
    read_audit,
    read_duplicates,
    write_audit,
)
from engagement_recognition.data.preparation.prepared_data import PreparedData
from engagement_recognition.processor.input_errors import DataError

LABELS = ("bored", "confused", "engaged")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedData, Audit]:
    """Classes of one recording each, split at random."""
    data = write_rows(classes_of_one_recording(LABELS, 24, seed=0), tmp_path_factory.mktemp("failed") / "states")
    found = audit(data)
    write_audit(found, data, data.folder)
    return data, found


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedData, Audit]:
    """People apart, but for a copy of one training picture in test and one in validation."""
    rows = people_apart()
    near = rows[0].but(content=brighter(rows[0].content), clip_id="near", split="test", subject_id="person9")
    same = rows[1].but(clip_id="same", split="validation", subject_id="person7")
    data = write_rows([*rows, near, same], tmp_path_factory.mktemp("passed") / "apart")
    found = audit(data)
    write_audit(found, data, data.folder)
    return data, found


def page_of(data: PreparedData) -> str:
    return (data.folder / "audit.html").read_text(encoding="utf-8")


def printed(found: Audit, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_audit(found, Path("folder"), console)
    return console.file.getvalue()


def test_json_says_what_was_found_in_which_data_and_by_which_measure(failed: tuple[PreparedData, Audit]):
    data, found = failed
    told = read_audit(data.folder)
    assert told == found.record() and told.fingerprint == data.fingerprint and told.passed is False
    assert [finding.name for finding in told.findings] == [finding.name for finding in found.findings]
    assert {finding.grade for finding in told.findings} <= {"fail", "report", "ok"}
    assert told.thresholds["neighbour_bits"] == 48 and "imagehash" in told.versions
    assert told.counts.windows.keys() == {"train", "validation", "test"}
    assert str(data.folder.parent) not in (data.folder / "audit.json").read_text()


def test_duplicates_are_listed_with_what_they_double(passed: tuple[PreparedData, Audit]):
    data, _ = passed
    with (data.folder / "duplicates.csv").open(newline="") as file:
        rows = {(row["clip_id"], row["other_split"]): row for row in csv.DictReader(file)}
    assert rows["near", "train"]["other_clip_id"] == "person0_0" and rows["near", "train"]["split"] == "test"
    assert rows["same", "train"]["other_clip_id"] == "person0_1" and rows["same", "train"]["distance"] == "0"
    assert read_duplicates(data.folder, "test") == {("near", 0)}
    assert read_duplicates(data.folder, "train") == set()
    assert read_duplicates(data.folder / "nowhere", "test") == set()


def test_the_page_holds_verdict_findings_and_pictures_and_loads_nothing(failed: tuple[PreparedData, Audit]):
    data, found = failed
    page = page_of(data)
    assert "Failed: " in page and "(shared recordings, one-recording classes, duplicates)" in page
    assert "This page shows people" in page and "Audit of states" in page
    assert page.count('<div class="finding">') == len(found.findings)
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert 6 <= len(pictures) <= MOST_PICTURES and page.count("<img") == len(pictures)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (128, 96)
    assert not re.search(r"https?://|<script|<link|url\(", page)


def test_the_page_of_a_good_split_shows_its_doubles(passed: tuple[PreparedData, Audit]):
    page = page_of(passed[0])
    assert "Passed: nothing found" in page
    assert "The same picture in validation and train" in page and "Nearly the same picture" in page


def test_names_on_the_page_are_text(tmp_path: Path):
    rows = [row.but(subject_id="<b>x</b>") if row.split != "validation" else row for row in people_apart(count=2)]
    data = write_rows(rows, tmp_path / "odd")
    write_audit(audit(data), data, data.folder)
    assert "<b>x</b>" not in page_of(data) and "&lt;b&gt;x&lt;/b&gt;" in page_of(data)


@pytest.mark.parametrize("width", [60, 140])
def test_the_terminal_shows_every_finding_and_one_line_of_verdict(width: int, failed, passed):
    for _, found in (failed, passed):
        text = printed(found, width)
        assert describe_verdict(found) in text.splitlines()
        assert text.count("FAIL") == sum(finding.grade == "fail" for finding in found.findings)
        assert "folder/audit.html" in text and "\x1b" not in text


def test_brackets_in_names_are_not_markup(tmp_path: Path):
    rows = [row.but(subject_id="[red]x") if row.split != "validation" else row for row in people_apart(count=2)]
    assert "[red]x" in printed(audit(write_rows(rows, tmp_path / "odd")), 140)


def test_nobody_has_audited_yet(tmp_path: Path):
    assert read_audit(tmp_path) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 0, "fingerprint": "", "passed": true}']
)
def test_a_damaged_audit_is_refused_with_the_remedy(content: str, tmp_path: Path):
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(DataError, match=r"audit\.json.*run `engagement audit"):
        read_audit(tmp_path)


def test_a_damaged_list_of_duplicates_is_refused(tmp_path: Path):
    (tmp_path / "duplicates.csv").write_text("clip_id,split\na,test\n")
    with pytest.raises(DataError, match=r"duplicates\.csv"):
        read_duplicates(tmp_path, "test")


def test_an_audit_that_was_stopped_leaves_none(failed: tuple[PreparedData, Audit], tmp_path: Path):
    # An older audit.json beside a half-written list of duplicates would be believed.
    data, found = failed
    write_audit(found, data, tmp_path)
    (tmp_path / "duplicates.csv").unlink()
    (tmp_path / "duplicates.csv").mkdir()  # where nothing can be written
    with pytest.raises(OSError, match="duplicates"):
        write_audit(found, data, tmp_path)
    assert read_audit(tmp_path) is None
