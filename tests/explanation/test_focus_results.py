"""`engagement evaluate --face-focus`: where a model looks stands in its results, on its page and in its card."""

import shutil
from pathlib import Path

import pytest
import torch
from blank_figures import leave_blank
from changed_results import change_data, change_test, scores_on_test
from conftest import TrainedStages
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from engagement_recognition.cli.main import app
from engagement_recognition.evaluate_model import evaluate_model
from engagement_recognition.evaluation.focus_records import FaceFocusResults, FocusRegion
from engagement_recognition.evaluation.report import write_report
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.hub.card import render_card
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError


@pytest.fixture(autouse=True)
def _blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_blank(monkeypatch)


@pytest.fixture(scope="module")
def run(trained: TrainedStages, prepared_crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of stage two's folder whose focus was measured on the command line."""
    folder = Path(shutil.copytree(trained.engagement, tmp_path_factory.mktemp("focus") / "engagement"))
    # Trained for two epochs it may have no heat for what it predicts; its classifier is drawn anew, and has some.
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = torch.randn(weights["classifier.weight"].shape, generator=torch.manual_seed(1))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    done = CliRunner().invoke(app, ["evaluate", str(folder), "--data", str(prepared_crops), "--face-focus", "2"])
    assert done.exit_code == 0 and "face focus" in done.stdout
    return folder


def focus_of(folder: Path) -> FaceFocusResults | None:
    return scores_on_test(read_results(folder)).face_focus


def test_results_page_and_card_say_where_it_looks(run: Path, tmp_path: Path):
    focus = focus_of(run)
    assert focus.num_clips == 2 and 0 <= focus.face.mean <= 1
    assert -1 <= focus.sanity.deletion_gain <= 1 and -1 <= focus.sanity.insertion_gain <= 1
    page, table = (path.read_text() for path in write_report([run], tmp_path))
    for text in (page, table):
        assert f"{100 * focus.face.mean:.1f} % of its heat" in text
    for region in (focus.face, focus.eyes, focus.mouth):
        assert f"<td>{region.mean:.3f}</td>" in page
    card = ModelCard.load(run / "README.md").text
    assert f"Where it looks: {focus.face.mean:.3f} of the heat" in card


def test_a_model_that_looks_elsewhere_is_told_so(run: Path, tmp_path: Path):
    folder = Path(shutil.copytree(run, tmp_path / "elsewhere"))
    results, known = read_results(folder), focus_of(folder)
    face = known.face.model_copy(update={"mean": 0.04, "chance": 0.1, "lower": 0.03, "upper": 0.05})
    found = "4.0 % of its heat lies on the face, which is 10.0 % of the picture"
    looks_elsewhere, coarse = ": it does not look at the face", ", but its maps of 2×2 cells"
    for size, verdict in (([4, 4], looks_elsewhere), ([2, 2], coarse), (None, looks_elsewhere)):  # None: older results
        focus = known.model_copy(update={"face": face, "map_size": size})
        write_results(folder, change_test(results, face_focus=focus))
        assert found + verdict in write_report([folder], tmp_path)[0].read_text()


def test_without_it_the_card_says_that_nobody_looked(trained: TrainedStages):
    card = ModelCard.load(trained.engagement / "README.md").text
    assert "Where it looks" in card and "has not been measured" in card


def test_a_focus_that_came_out_unknown_is_said_to_be(run: Path):
    results, predictor = read_results(run), Predictor.from_pretrained(str(run))
    unknown = FocusRegion(mean=None, chance=None, ratio=None, lower=None, upper=None)
    results = change_test(results, face_focus=focus_of(run).model_copy(update={"face": unknown}))
    card = render_card(predictor.model, predictor.processor, results)
    assert "none of the 2 examined clips" in card
    assert "has not been measured" not in card


def test_measuring_scores_again_keeps_the_focus_of_the_same_data(run: Path, prepared_crops: Path, tmp_path: Path):
    folder = Path(shutil.copytree(run, tmp_path / "again"))
    evaluate_model(folder, prepared_crops)
    assert focus_of(folder) == focus_of(run)
    write_results(folder, change_data(read_results(folder), fingerprint="other data"))
    evaluate_model(folder, prepared_crops)
    other, new = read_results(folder).measurements
    assert other.evaluation.face_focus == focus_of(run) and new.evaluation.face_focus is None


def test_pictures_have_no_focus_and_nothing_is_evaluated(trained: TrainedStages, tmp_path: Path):
    folder = Path(shutil.copytree(trained.expression, tmp_path / "expression"))
    before = read_results(folder)
    with pytest.raises(DataError, match="not defined; leave out --face-focus"):
        evaluate_model(
            folder, Path(trained.recipe["expression"]["data"]), num_focus_clips=2, cache_dir=tmp_path / "cache"
        )
    assert not (tmp_path / "cache").exists()  # refused before the pictures are prepared and audited
    assert read_results(folder) == before
