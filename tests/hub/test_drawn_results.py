"""Drawn people must never be taken for real ones: where data came from is known from the source to the card."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from blank_figures import leave_blank
from changed_results import change_data, elsewhere
from conftest import TrainedStages, prepare_drawn
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.data.preparation.prepare import plan_of
from engagement_recognition.data.preparation.prepared_data import PreparedData, load_prepared
from engagement_recognition.data.preparation.settings import FrameOptions, settings_for
from engagement_recognition.data.readers.sources import is_drawn, read_source
from engagement_recognition.evaluate_model import evaluate_model
from engagement_recognition.evaluation.report import write_report
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.hub.card import render_card
from engagement_recognition.hub.publish import assemble
from engagement_recognition.inference.predictor import Predictor

NOT_REAL = "says nothing about real faces"
ALL_NOT_REAL = "**Drawn (synthetic) people: these numbers say nothing about real faces.**"


@pytest.fixture(scope="module")
def prepared(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_drawn(drawn_expressions, tmp_path_factory.mktemp("prepared") / "drawn")


@pytest.fixture(scope="module")
def undrawn(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The same pictures, as if they were of people."""
    source = Path(shutil.copytree(drawn_expressions, tmp_path_factory.mktemp("real") / "expressions"))
    (source / "drawn.json").unlink()
    return prepare_drawn(source, source.with_name("prepared"))


@pytest.fixture
def run(trained: TrainedStages, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.engagement, tmp_path / "run/engagement"))


def old_results(results: Results) -> Results:
    """As they were written before anything was known of drawings."""
    old = change_data(results, drawn=None, window_span_sec=None)
    return old.model_copy(update={"started_from_data": None})


def card_of(folder: Path, results: Results) -> ModelCard:
    predictor = Predictor.from_pretrained(str(folder))
    return ModelCard(render_card(predictor.model, predictor.processor, results))


def test_preparation_records_it_and_the_fingerprint_stays(prepared: PreparedData, undrawn: PreparedData):
    assert prepared.description.drawn is True and undrawn.description.drawn is False
    assert prepared.fingerprint == undrawn.fingerprint


def test_a_folder_from_before_it_was_recorded_opens_and_counts_as_not_drawn(prepared: PreparedData, tmp_path: Path):
    folder = Path(shutil.copytree(prepared.folder, tmp_path / "old"))
    description = json.loads((folder / "dataset.json").read_text())
    del description["drawn"]
    (folder / "dataset.json").write_text(json.dumps(description))
    assert not load_prepared(folder).description.drawn


def test_what_was_prepared_before_it_was_recorded_is_prepared_again(drawn_expressions: Path):
    # Otherwise a cache would go on saying that these people are real.
    source = read_source(None, drawn_expressions)
    plain = settings_for("picture", FrameOptions())
    plans = {plan_of(replace(source, drawn=drawn), plain, drawn_expressions) for drawn in (False, True)}
    assert len(plans) == 2


def test_a_drawing_is_known_in_each_form(drawn_expressions: Path, drawn_daisee: Path, tmp_path: Path):
    archive = tmp_path / "expressions.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in drawn_expressions.rglob("*.*"):
            file.write(path, f"expressions/{path.relative_to(drawn_expressions)}")
    assert read_source(None, archive).drawn and read_source(None, drawn_daisee).drawn
    assert is_drawn(drawn_expressions / "train") and is_drawn(drawn_daisee / "table.csv")
    assert not is_drawn(drawn_daisee.parent)
    for content in ("not JSON", "[]", '{"drawn": "curtains"}'):
        (tmp_path / "drawn.json").write_text(content)
        assert not is_drawn(tmp_path)


@pytest.mark.parametrize(("stage", "layout"), [("expression", "class folders"), ("engagement", "daisee")])
def test_results_and_card_say_it(stage: str, layout: str, trained: TrainedStages):
    folder = trained.run_dir / stage
    results, card = read_results(folder), ModelCard.load(folder / "README.md")
    assert results.data.drawn is True
    (entry,) = {(found.dataset_name, found.dataset_type) for found in card.data.eval_results}
    assert entry == (f"drawn people, in the layout of {layout}", "drawn")
    before_use, _, after = card.text.partition("## Use")
    assert "**A demonstration: trained on drawn (synthetic) people" in before_use and NOT_REAL in before_use
    assert ALL_NOT_REAL in after and f"drawn people, in the layout of {layout}:" in after
    assert "`daisee`" not in card.text


def test_results_from_before_still_make_a_card(trained: TrainedStages):
    results = old_results(read_results(trained.engagement))
    card = card_of(trained.engagement, results)
    assert "drawn" not in card.content and "On the test split of `daisee`" in card.text
    assert {found.dataset_type for found in card.data.eval_results} == {"daisee"}


def test_the_card_says_what_stage_one_learned_from(trained: TrainedStages):
    card = card_of(trained.engagement, read_results(trained.engagement))
    assert "on drawn people, in the layout of class folders" in " ".join(card.text.split())


def test_a_real_model_measured_on_drawings_is_told_apart(trained: TrainedStages):
    results = read_results(trained.engagement)
    there = elsewhere(results)
    real = change_data(results, drawn=False)
    card = card_of(trained.engagement, real.model_copy(update={"measurements": [there]}))
    assert "A demonstration" not in card.text and ALL_NOT_REAL in card.text
    # Measured on its own data too, that alone speaks for the model.
    card = card_of(trained.engagement, real.with_measurement(there))
    assert "Drawn people" not in card.text and "in the layout of daisee (ffffffffffff) | test" in card.text


def test_an_evaluation_keeps_kind_and_drawing(run: Path, trained: TrainedStages):
    evaluate_model(run, Path(trained.recipe["engagement"]["data"]), cache_dir=Path(trained.recipe["cache_dir"]))
    (measured,) = read_results(run).measurements
    assert (measured.data.kind, measured.data.drawn) == ("daisee", True)
    assert {found.dataset_type for found in ModelCard.load(run / "README.md").data.eval_results} == {"drawn"}


def test_page_and_table_say_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leave_blank(monkeypatch)
    page, table = (path.read_text() for path in write_report([run], tmp_path / "report"))
    assert "**Drawn people who do not exist" in table and "drawn people, in the layout of daisee" in table
    assert page.count("<strong>Drawn people who do not exist") == 2 and "On test of drawn people" in page
    drawn = read_results(run)
    write_results(run, old_results(drawn))
    for path in write_report([run], tmp_path / "report"):
        assert "drawn" not in path.read_text().lower()
    write_results(run, drawn.model_copy(update={"measurements": [elsewhere(drawn, drawn=False)]}))
    assert "**Trained on drawn people" in write_report([run], tmp_path / "report")[1].read_text()


def test_commands_that_hand_a_model_on_say_it(run: Path, tmp_path: Path):
    warning = "take care: it was trained on drawn people"
    done = CliRunner().invoke(app, ["publish", str(run), "--repo", "org/name", "--dry-run"])
    others = [f"take care: {other}" for other in read_results(run).warnings()[1:]]  # nothing may have selected it
    first, *more = done.stderr.splitlines()
    assert done.exit_code == 0 and first.startswith(warning) and more == others
    done = CliRunner().invoke(app, ["export", str(run), "--to", "stock", "--output", str(tmp_path / "stock")])
    assert warning in done.stderr


def test_the_time_that_a_window_spans_is_that_of_its_frames(trained: TrainedStages, prepared: PreparedData):
    # Two seconds a clip: the centres of four segments lie half a second apart; pictures have no times.
    assert read_results(trained.engagement).data.window_span_sec == pytest.approx(1.5, abs=0.26)
    assert read_results(trained.expression).data.window_span_sec is None and prepared.window_span_sec() is None
    told = ModelCard.load(trained.engagement / "README.md").text
    assert "evenly over the **whole** file" in told and "about 2 s long." in told
    assert "--timeline 2" in told


def test_a_published_card_says_it_too(run: Path, tmp_path: Path):
    assemble(run, tmp_path / "hub", "org/name")
    assert "drawn people, in the layout of daisee" in (tmp_path / "hub/README.md").read_text()
