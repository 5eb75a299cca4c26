"""docs/evidence.md and README's contrasts, from made-up studies: what helped, what did not, what is not known."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_studies import made_up_study
from places import ROOT

from engagement_recognition.data.json_records import write_record
from engagement_recognition.studies.evidence import NOTHING, render_contrasts, render_evidence
from engagement_recognition.studies.study_records import Contrast, StudyRecord

PAGE = "docs/evidence.md"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudyRecord]:
    """Two studies; the second's contrast is not clear of zero."""
    folder = tmp_path_factory.mktemp("studies")
    first = Contrast(name="expressions first", rows=["scratch", "first"], score="auroc", also=["within_person_auroc"])
    time = Contrast(name="time", rows=["mean", "lstm"], score="within_person_auroc")
    return {
        "measured/studies/real_crops.json": made_up_study(
            folder / "a", {"scratch": 0.2, "first": 1.2}, [first], 2, 5, "real/crops"
        ),
        "measured/studies/real_clips.json": made_up_study(
            folder / "b", {"mean": 1, "lstm": 1}, [time], 1, None, "time"
        ),
    }


def lines_of(text: str, begins: str) -> Iterator[list[str]]:
    return (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {begins}"))


def test_the_first_look_has_each_contrast_once_by_the_score_it_is_judged_by(records: dict[str, StudyRecord]):
    page = render_evidence(records)
    look = page.partition("How to read it")[0]
    (helps,), (time,) = lines_of(look, "expressions first"), lines_of(look, "time")
    judged = records["measured/studies/real_crops.json"].contrasts[0].scores[0]
    interval = f"{judged.paired.lower:+.3f} to {judged.paired.upper:+.3f}"
    assert helps[1:4] == ["[real/crops](#a-realcrops-study)", "24", "AUROC"]
    assert helps[4:] == [f"{judged.mean:+.3f} ± {judged.sd:.3f}", interval, "helps: interval above zero"]
    assert time[3] == "within-person AUROC" and time[6] == "not shown: interval includes zero"
    assert '2 contrasts: 1 "helps", 1 "not shown". ' in look


def test_a_caveat_stands_with_its_contrast_on_every_page(records: dict[str, StudyRecord]):
    address, record = next(iter(records.items()))
    contrast = record.contrasts[0].model_copy(update={"caveat": "The label is that of the last crop."})
    changed = {**records, address: record.model_copy(update={"contrasts": [contrast]})}
    for part in (render_evidence(changed), render_contrasts(changed, PAGE)):
        helps, *_ = lines_of(part, "expressions first")
        assert helps[6] == "helps: interval above zero ¹" and "\n\n¹ The label is that of the last crop.\n\n" in part
    assert "- expressions first: The label is that of the last crop.\n" in render_evidence(changed)


def test_a_bound_that_excludes_zero_is_not_shown_as_zero(records: dict[str, StudyRecord]):
    address, record = next(iter(records.items()))
    contrast = record.contrasts[0]
    paired = contrast.scores[0].paired.model_copy(update={"value": 0.004, "lower": 0.0003, "upper": 0.0085})
    judged = contrast.scores[0].model_copy(update={"paired": paired})
    contrasts = [contrast.model_copy(update={"scores": [judged]})]
    part = render_contrasts({address: record.model_copy(update={"contrasts": contrasts})}, PAGE)
    assert next(lines_of(part, "expressions first"))[5] == "+0.0003 to +0.0085"


def test_the_answer_in_words_comes_before_the_table(records: dict[str, StudyRecord]):
    for part in (render_evidence(records, "**In short.** Yes."), render_contrasts(records, PAGE, "**In short.** Yes.")):
        assert "**In short.** Yes.\n\n" in part.partition("| contrast |")[0]


def test_collapsed_systems_are_named_without_advice(records: dict[str, StudyRecord]):
    address, record = next(iter(records.items()))
    runs = [run.model_copy(update={"collapse": "Predicts 'a': collapsed; lower it."}) for run in record.rows[0].runs]
    rows = [record.rows[0].model_copy(update={"runs": runs}), record.rows[1]]
    page = render_evidence({address: record.model_copy(update={"rows": rows})})
    assert "gets the most frequent class from Scratch." in page and "lower it" not in page


def test_each_study_says_on_whom_how_often_and_how_to_do_it_again(records: dict[str, StudyRecord]):
    before, _, crops = render_evidence(records).partition("## A real/crops study\n")
    crops, _, clips = crops.partition("## A time study\n")
    assert "How to read it" in before
    for part, folds in ((crops, True), (clips, False)):
        assert "192 clips of 24 people" in part and ("in 5 folds of people" in part) == folds
        assert "- Nothing was chosen on these people; they were looked at once.\n" in part
    assert "mean ± sd over 2 seeds" in crops and "one seed (95 % interval" in clips
    assert "[real_crops.json](measured/studies/real_crops.json)" in crops
    assert "```bash\nengagement reproduce real/crops --data daisee --seeds 2\n```" in crops
    (beside,) = lines_of(crops, " | within-person AUROC")
    assert beside[-1] == "helps: interval above zero"


def test_drawn_people_and_missing_runs_are_named(records: dict[str, StudyRecord]):
    address, record = next(iter(records.items()))
    drawn = {"engagement": record.rows[0].runs[0].data["engagement"].model_copy(update={"drawn": True})}
    rows = [row.model_copy(update={"runs": [run.model_copy(update={"data": drawn}) for run in row.runs]})
            for row in record.rows]  # fmt: skip
    page = render_evidence({address: record.model_copy(update={"rows": rows})})
    assert "**Drawn (synthetic) people**" in page and "all rows." in page
    assert next(lines_of(page, "expressions first"))[2] == "24 drawn"
    without = [rows[0].model_copy(update={"runs": [], "measured": {}, "intervals": None}), rows[1]]
    page = render_evidence({address: record.model_copy(update={"rows": without})})
    assert "| Scratch | not yet | not yet | not yet | – |" in page and "Scratch: 2 of 2 seeds not yet trained." in page


def test_the_readme_has_the_contrasts_and_leads_to_the_page(records: dict[str, StudyRecord]):
    part = render_contrasts(records, PAGE)
    (helps,) = lines_of(part, "expressions first")
    assert helps[1] == "[real/crops](docs/evidence.md#a-realcrops-study)" and helps[6] == "helps: interval above zero"
    assert f"[{PAGE}]({PAGE})" in part and NOTHING not in part


def test_without_studies_both_say_that_nothing_was_measured(tmp_path: Path):
    assert NOTHING in render_contrasts({}, PAGE)
    assert render_evidence({}).endswith(f"\n\n{NOTHING}\n") and "|" not in render_evidence({})
    assert runpy.run_path(str(ROOT / ".ci/readme.py"))["read_studies"](tmp_path / "nowhere") == {}


def test_the_command_reads_the_files_in_order(records: dict[str, StudyRecord], tmp_path: Path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for address, record in records.items():
        write_record(folder / Path(address).name, record)
    read = runpy.run_path(str(ROOT / ".ci/readme.py"))["read_studies"](folder)
    assert read == dict(sorted(records.items()))
