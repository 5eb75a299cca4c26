"""The report says what the results say, keeps apart what does not compare, and names what a score rests on."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from blank_figures import leave_blank
from changed_results import change_data, change_test, elsewhere, scores_on_test
from conftest import TrainedStages
from saved_models import save_stock, stock_timm
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.conversion.import_reference import import_stock_classifier
from engagement_recognition.data.described_data import AuditSummary, FindingSummary
from engagement_recognition.data.schema import BINARY
from engagement_recognition.evaluation.report import LIMITS, results_table, write_report
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.evaluation.results_schema import PooledTrainings, Results
from engagement_recognition.evaluation.split_evaluation import SplitPredictions, evaluate_split
from engagement_recognition.processor.input_errors import DataError, ModelLoadError

NAMES = list(BINARY)
LOG = "epoch,train_loss,val_loss,val_macro_f1\n1,0.9,0.8,0.40\n2,0.7,0.7,0.5\n3,0.6,0.8,0.45\n"


class PageReader(HTMLParser):
    """The page's table rows as lists of words, its pictures as (address, alt), and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: list[tuple[str, str]] = []
        self.text = ""
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        elif tag == "img":
            self.pictures.append((dict(attrs)["src"], dict(attrs)["alt"]))

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, *starts: str) -> list[str]:
        """The only row that begins so."""
        (found,) = [row for row in self.rows if row[: len(starts)] == list(starts)]
        return found


def page_of(folders: list[Path], output: Path, logs: list[Path] = ()) -> PageReader:
    page, _ = write_report(folders, output, logs)
    return PageReader(page.read_text(encoding="utf-8"))


def draw_predictions(split: str, num_people: int, num_windows: int = 1, known: bool = True) -> SplitPredictions:
    """Ten clips a person, every fourth disengaged; a third of the predictions is wrong."""
    rng = np.random.default_rng(num_people)
    keys = [(f"{person}_{clip}", w) for person in range(num_people) for clip in range(10) for w in range(num_windows)]
    label_ids = np.array([int(int(clip_id[-1]) % 4 > 0) for clip_id, _ in keys])
    logits = np.eye(2)[label_ids] + rng.normal(0, 1, (len(keys), 2))
    return SplitPredictions(split, keys, [k.partition("_")[0] if known else None for k, _ in keys], label_ids, logits)


def write_run(
    like: Results,
    folder: Path,
    predictions: SplitPredictions,
    names: list[str] = NAMES,
    clean_rows: list[int] | None = None,
    groups: dict[str, dict[str, str]] | None = None,
) -> Path:
    """A run as training writes it, with other predictions on test."""
    validation, (measured,) = draw_predictions("validation", 6), like.measurements
    whole, clean = evaluate_split(predictions, validation, clean_rows, [0, 1, 1, 1], names, groups)
    measured = measured.model_copy(update={"evaluation": whole, "without_duplicates": clean})
    counts = dict.fromkeys(names, 1)
    folder.mkdir(parents=True)
    write_results(folder, like.model_copy(update={"label_names": names, "train_label_counts": counts,
                                                  "measurements": [measured]}))  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn_figures" not in request.fixturenames:
        leave_blank(monkeypatch)


@pytest.fixture
def drawn_figures() -> None:
    """For tests that look at figures."""


@pytest.fixture
def like(trained: TrainedStages) -> Results:
    """What stage two's results say."""
    return read_results(trained.engagement)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock classifier, imported and not measured."""
    folder = tmp_path_factory.mktemp("imported")
    save_stock(stock_timm("test_resnet"), folder / "stock")
    return import_stock_classifier(folder / "stock", folder / "ours").folder


def score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def test_a_row_of_the_table_is_what_the_results_say(like: Results, tmp_path: Path):
    folder = write_run(like, tmp_path / "run", draw_predictions("test", 6))
    test = scores_on_test(read_results(folder))
    bounds, scores = test.intervals.intervals["macro_f1"], test.scores
    (row,) = [line for line in results_table([folder]).splitlines() if "/run |" in line]
    assert row.strip("| ").split(" | ")[1:] == [
        "daisee",
        "60",
        "6",
        f"{score(scores.macro_f1)} ({score(bounds.lower)} to {score(bounds.upper)})",
        *map(score, (scores.balanced_accuracy, scores.accuracy, scores.auroc)),
        *[score(baseline.macro_f1) for baseline in (test.majority_baseline, test.stratified_baseline)],
    ]


def test_every_number_of_a_run_is_on_its_page(like: Results, tmp_path: Path):
    rows = [row for row in range(160) if row % 16]
    folder = write_run(like, tmp_path / "run", draw_predictions("test", 8, 2), clean_rows=rows)
    page = page_of([folder], tmp_path / "out")
    (measured,) = read_results(folder).measurements
    test, clean = measured.evaluation, measured.without_duplicates
    expected = ["macro-F1"]
    for part in (test, clean):
        bounds = part.intervals.intervals["macro_f1"]
        expected += [score(part.scores.macro_f1), f"{score(bounds.lower)} to {score(bounds.upper)}"]
        expected += [score(baseline.macro_f1) for baseline in (part.majority_baseline, part.stratified_baseline)]
    assert expected in page.rows and test.scores.macro_f1 != clean.scores.macro_f1
    by_window = test.scores_by_window.macro_f1
    assert ["macro-F1", score(test.scores.macro_f1), score(by_window)] in page.rows
    recall = test.intervals.intervals["recall/disengaged"]
    told = f"{score(recall.value)} ({score(recall.lower)} to {score(recall.upper)})"
    assert page.row("disengaged", "24")[3] == told
    fitted = test.decision.scores.fitted
    assert page.row("accuracy on test")[1:] == [score(test.scores.accuracy), score(fitted.accuracy)]
    assert re.search(rf'"engaged" for scores .*at least {re.escape(score(test.decision.threshold))}\b', page.text)
    assert f"divided by the temperature {score(test.decision.temperature)}" in page.text
    ece = [score(calibration.ece) for calibration in (test.calibration.as_trained, test.calibration.scaled)]
    assert page.row("expected calibration error")[1:] == ece
    point = test.risk_coverage.coverage_at_risk["0.2"]
    assert page.row("20.0 %") == ["20.0 %", f"{100 * point.coverage:.1f} %", score(point.confidence)]
    assert page.row("right")[2] == f"{100 * test.people.accuracy.median:.1f} %"
    within, people = test.intervals.intervals["within_person_auroc"], test.people.num_people_with_both
    told = f"{score(within.value)} ({score(within.lower)} to {score(within.upper)}), over the {people} people"
    assert people >= 5 and told in page.text
    assert ["disengaged", *map(str, test.scores.confusion_matrix[0])] in page.rows
    assert f"cpu, torch {measured.environment.packages['torch']}" in page.text


@pytest.mark.usefixtures("drawn_figures")
def test_the_page_needs_nothing_else(trained: TrainedStages, imported: Path, tmp_path: Path):
    page = page_of([trained.engagement, imported], tmp_path / "out")
    source = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", source)
    assert all(address.startswith("data:image/svg+xml;base64,") and alt for address, alt in page.pictures)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in source
    assert '<html lang="en">' in source and "prefers-color-scheme: dark" in source
    assert source.count('<div class="scroll" tabindex="0"') == source.count("<table>") > 0
    assert LIMITS.replace("'", "&#39;") in source and "Article 5(1)(f)" in LIMITS and "apparent engagement" in LIMITS


@pytest.mark.usefixtures("drawn_figures")
def test_figures_are_drawn_where_the_folder_has_none(trained: TrainedStages, tmp_path: Path):
    (tmp_path / "run").mkdir()
    shutil.copy(trained.engagement / "results.json", tmp_path / "run")
    page = page_of([tmp_path / "run"], tmp_path / "out")
    assert len(page.pictures) == 4  # confusion, reliability, risk, training
    for address, _ in page.pictures:
        assert b"<svg" in base64.b64decode(address.partition(",")[2])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.json"]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_figures")
def test_the_same_runs_give_the_same_bytes(trained: TrainedStages, tmp_path: Path):
    (tmp_path / "log.csv").write_text(LOG)
    first, second = (
        [path.read_bytes() for path in write_report([trained.engagement], tmp_path / name, [tmp_path / "log.csv"])]
        for name in "ab"
    )
    assert first == second


def test_what_does_not_compare_stands_apart(like: Results, tmp_path: Path):
    test, like = draw_predictions("test", 6), change_data(like, drawn=False)
    first, second = (write_run(like, tmp_path / name, test) for name in ("one", "two"))
    other = write_run(change_data(like, fingerprint="0" * 64), tmp_path / "three", test)
    together, apart = results_table([first, second, first]), results_table([first, second, other])
    assert together.count("| model |") == 1 and together.count("/one |") == 1 and "do not compare" not in together
    assert apart.count("| model |") == 2 and apart.startswith("The tables have different data or labels")
    assert f"daisee ({'0' * 12}); labels: disengaged, engaged**" in apart
    renamed = write_run(like, tmp_path / "four", test, ["no", "yes"])
    assert results_table([first, renamed]).count("| model |") == 2


@pytest.mark.usefixtures("drawn_figures")
def test_a_model_that_was_measured_on_several_data_sets_has_a_row_in_each(like: Results, tmp_path: Path):
    folder = write_run(change_data(like, drawn=False), tmp_path / "run", draw_predictions("test", 6))
    results = read_results(folder)
    environment = results.environment.model_copy(update={"device": "NVIDIA H200"})
    there = elsewhere(results, source="elsewhere", audit=None)
    write_results(folder, results.with_measurement(there.model_copy(update={"environment": environment})))
    table = results_table([folder])
    assert table.count("/run |") == 2 and "| daisee | 60 |" in table and "| elsewhere | 60 |" in table
    assert "**Data: daisee (" in table and "**Data: elsewhere (ffffffffffff)" in table
    notes = [line for line in table.splitlines() if line.startswith("- ")]
    assert sum("Trained on other data: daisee" in note for note in notes) == 1
    assert sum("not been audited" in note for note in notes) == 1
    page = page_of([folder], tmp_path / "out")
    assert "On test of daisee\n" in page.text and "On test of elsewhere (ffffffffffff)" in page.text
    assert "NVIDIA H200, torch" in page.text and page.text.count("cpu, torch") == 1
    assert len({address for address, _ in page.pictures}) == 4  # three of these scores, and the training
    assert len({alt for _, alt in page.pictures}) == 7


def test_a_model_that_was_measured_elsewhere_alone_is_known_by_that(like: Results, tmp_path: Path):
    folder = write_run(like, tmp_path / "run", draw_predictions("test", 6))
    there = elsewhere(read_results(folder), source="elsewhere", drawn=False)
    write_results(folder, like.model_copy(update={"measurements": [there]}))
    table = results_table([folder])
    assert table.count("| model |") == 1 and "| elsewhere | 60 |" in table and "Trained on other data: daisee" in table


def test_what_was_pooled_says_so(like: Results, tmp_path: Path):
    folder = write_run(like, tmp_path / "run", draw_predictions("test", 6))
    (measured,) = read_results(folder).measurements
    pooled = measured.model_copy(update={"pooled": PooledTrainings(seeds=[0, 1], num_folds=5)})
    write_results(folder, like.with_measurement(measured).with_measurement(pooled))
    table, page = results_table([folder]), page_of([folder], tmp_path / "out")
    assert "/run (pooled) | daisee |" in table and "pooled over 5 folds, seeds 0, 1" in table
    assert "(pooled)" in page.text and page.text.count("pooled over 5 folds, seeds 0, 1") == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bias": {"disengaged": 0.5, "engaged": -0.25}}, '+0.500 for "disengaged", -0.250 for "engaged"'),
        (
            {"temperature": None, "bias": None, "calibration_refused": "it ran away"},
            "No calibration was chosen: it ran",
        ),
    ],
)
def test_what_calibration_was_chosen_is_told(changes: dict, words: str, like: Results, tmp_path: Path):
    folder = write_run(like, tmp_path / "run", draw_predictions("test", 6))
    results = read_results(folder)
    test = scores_on_test(results)
    decision, calibration = test.decision.model_copy(update=changes), test.calibration
    if decision.temperature is None:
        calibration = calibration.model_copy(update={"scaled": None})
    write_results(folder, change_test(results, decision=decision, calibration=calibration))
    assert words in " ".join(page_of([folder], tmp_path / "out").text.split())


def test_an_imported_model_without_scores_says_so(trained: TrainedStages, imported: Path, tmp_path: Path):
    page = page_of([trained.engagement, imported], tmp_path / "out")
    assert [row[1:] for row in page.rows if row[0].endswith("/ours")] == [
        ["–", "imported, not measured yet: run engagement evaluate"]
    ]
    assert "TimmWrapperForImageClassification" in page.text and len(page.pictures) == 4
    assert "not measured yet" in results_table([imported])


def test_what_a_score_rests_on_is_said_below_the_table(trained: TrainedStages, like: Results, tmp_path: Path):
    real = change_data(like, drawn=False)
    test = draw_predictions("test", 6, known=False)
    constant = SplitPredictions("test", test.keys, test.subject_ids, test.label_ids, test.logits * 0 + [0, 9])
    finding = FindingSummary(name="shared subjects", grade="fail", summary="Eve is in train and test.")
    failed = change_data(real, audit=AuditSummary(passed=False, findings=[finding]))
    bad = write_run(failed, tmp_path / "bad", constant)
    unknown = write_run(change_data(real, audit=None), tmp_path / "unaudited", test)
    table = results_table([bad, unknown, trained.engagement])
    notes = [line.partition(": ")[::2] for line in table.splitlines() if line.startswith("- ")]
    said = {name: [note for run, note in notes if run.endswith(name)] for name in ("bad", "unaudited", "engagement")}
    collapse = scores_on_test(read_results(bad)).collapse
    assert "collapsed onto one class" in collapse and said["bad"][0] == collapse
    assert said["bad"][1].startswith("The split failed the audit") and "too narrow" in said["bad"][2]
    assert "not been audited" in said["unaudited"][0] and said["unaudited"][1:] == [said["bad"][2]]
    assert "only 1.0 people" in said["engagement"][-1]  # one person in test
    assert table.count(" | unknown | ") == table.count(", over clips)") == 2
    page, _ = write_report([bad], tmp_path / "out")
    source = page.read_text(encoding="utf-8")
    assert f'<p class="note fail"><strong>{collapse.replace(chr(39), "&#39;")}</strong></p>' in source
    assert "Eve is in train and test." in source and "The people in the clips are unknown." in source


def test_no_group_s_scores_follow_from_the_others(like: Results, tmp_path: Path):
    gender = {str(person): "f" if person < 5 else "m" if person < 13 else "x" for person in range(14)}
    age = {str(person): "old" if person < 6 else "young" for person in range(14)}
    groups = {"gender": gender, "age": age}
    folder = write_run(like, tmp_path / "run", draw_predictions("test", 14), groups=groups)
    cells = scores_on_test(read_results(folder)).groups["gender"]
    assert [cells[name].suppressed for name in "fmx"] == [True, False, True]  # x would be the whole without f and m
    page = page_of([folder], tmp_path / "out")
    assert page.row("f")[1].startswith("suppressed") and page.row("x")[1].startswith("suppressed")
    assert page.row("m")[:4] == ["m", "8", "80", score(cells["m"].macro_f1)]
    assert page.row("old")[1] == "6" and page.row("young")[1] == "8"


def test_few_people_are_not_described(trained: TrainedStages, tmp_path: Path):
    page = page_of([trained.engagement], tmp_path / "out")  # one person in test
    assert "Not shown: for fewer than 5 people" in page.text and "lower quartile" not in page.text
    assert "within one person" not in page.text


def test_names_are_text(like: Results, tmp_path: Path):
    folder = write_run(like, tmp_path / "<i>run</i>", draw_predictions("test", 6), ["<b>not</b>", "a|b & c"])
    page, table = (path.read_text(encoding="utf-8") for path in write_report([folder], tmp_path / "out"))
    assert "<b>" not in page and "<i>" not in page and "&lt;b&gt;not&lt;/b&gt;" in page
    assert "<b>" not in table and "<i>" not in table and "a\\|b &amp; c" in table
    assert all(line.replace("\\|", "").count("|") == 11 for line in table.splitlines() if line.startswith("|"))


def test_folders_are_told_apart_and_not_placed(like: Results, tmp_path: Path):
    folders = [write_run(like, tmp_path / name / "run/engagement", draw_predictions("test", 6)) for name in "ab"]
    for path in write_report(folders, tmp_path / "out"):
        text = path.read_text(encoding="utf-8")
        assert "a/run/engagement" in text and "b/run/engagement" in text and str(tmp_path) not in text


@pytest.mark.usefixtures("drawn_figures")
def test_training_logs_are_drawn(trained: TrainedStages, tmp_path: Path):
    (tmp_path / "resnet18.csv").write_text(LOG)
    page = page_of([trained.engagement], tmp_path / "out", [tmp_path / "resnet18.csv"])
    address, alt = page.pictures[-1]
    assert "3 epochs of resnet18.csv" in alt and "best macro-F1 0.500 at epoch 2" in alt
    assert b"<svg" in base64.b64decode(address.partition(",")[2])
    (tmp_path / "resnet18.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(DataError, match=r"resnet18\.csv"):
        write_report([trained.engagement], tmp_path / "other", [tmp_path / "resnet18.csv"])
    assert not (tmp_path / "other").exists()


def test_a_folder_that_is_no_run_is_named(trained: TrainedStages, tmp_path: Path):
    # Of several models with a broken one no half is shown: whoever reads a table must not miss that one is absent.
    (tmp_path / "nothing").mkdir()
    command = ["report", str(trained.engagement), str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ModelLoadError) and not done.stdout and not (tmp_path / "out").exists()
    assert re.search(r"nothing.results\.json", str(done.exception)) and "\n" not in str(done.exception)


def test_a_file_in_the_way_is_one_line(trained: TrainedStages, tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"report could not be written to .*out"):
        write_report([trained.engagement], tmp_path / "out")
