"""What others are handed (stock folders, ONNX files, Spaces) says what it is, and is refused early or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from changed_results import change_data
from conftest import TrainedStages
from huggingface_hub import ModelCard
from saved_models import save_ours
from typer.testing import CliRunner

from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.cli.main import app
from engagement_recognition.conversion import export_onnx as onnx_module
from engagement_recognition.conversion import export_stock as stock_module
from engagement_recognition.conversion.export_onnx import export_onnx
from engagement_recognition.conversion.export_stock import export_stock
from engagement_recognition.data.described_data import AuditSummary
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.hub import space
from engagement_recognition.hub.space import export_space
from engagement_recognition.hub.use_limits import MUST_NOT_BE_USED
from engagement_recognition.processor.input_errors import DataError, ModelLoadError


@pytest.fixture
def run(trained: TrainedStages, tmp_path: Path) -> Path:
    """A copy of stage two's folder whose split failed its audit."""
    folder = Path(shutil.copytree(trained.engagement, tmp_path / "copy"))
    write_results(folder, change_data(read_results(folder), audit=AuditSummary(passed=False)))
    return folder


def test_a_stock_folder_has_a_card_that_says_how_to_feed_it(tmp_path: Path):
    save_ours(tmp_path / "ours", "resnet18")
    options = ["export", str(tmp_path / "ours"), "--to", "stock", "--output", str(tmp_path / "stock")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0 and "logits differ by at most" in done.stdout
    card = ModelCard.load(tmp_path / "stock/README.md")
    told = card.data.to_dict()
    assert (told["pipeline_tag"], told["library_name"]) == ("image-classification", "transformers")
    assert card.data.license == "other" and "is not known here" in card.text  # nobody has said whose weights these are
    for words in ("needs face crops", "20% of the box", "until the eyes are level"):
        assert words in card.text
    assert MUST_NOT_BE_USED in card.text and "made from `ours`" in " ".join(card.text.split())
    assert str(tmp_path) not in card.content and "{" not in card.text


def test_a_stock_card_keeps_the_licence_and_the_doubts_of_its_model(trained: TrainedStages, tmp_path: Path):
    folder = tmp_path / "ours"
    AnswerRule(tuple(save_ours(folder, "resnet18").config.label_names)).save(folder)  # the results are of other labels
    write_results(folder, change_data(read_results(trained.expression), audit=AuditSummary(passed=False)))
    export_stock(folder, tmp_path / "trained")
    card = ModelCard.load(tmp_path / "trained/README.md")
    assert card.data.license == "mit" and "failed the audit" in card.text and "drawn people" in card.text
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    export_stock(folder, tmp_path / "licensed")
    assert ModelCard.load(tmp_path / "licensed/README.md").data.license == "cc-by-nc-4.0"
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ModelLoadError, match="YAML at the top of the card"):
        export_stock(folder, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize("folder", ["/proc", "file"])
@pytest.mark.parametrize(
    ("export", "module"), [(export_stock, stock_module), (export_onnx, onnx_module), (export_space, space)]
)
def test_places_that_cannot_be_written_are_told_before_the_long_part(
    export: Callable, module: ModuleType, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(module, "require_extra", lambda *_: None, raising=False)
    with pytest.raises(DataError, match=r"could not .* choose another place") as refusal:
        export("org/name", tmp_path / folder / "x.onnx")  # loading it would be another error
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["noext", "model.pt", "dir.onnx/model"])
def test_an_onnx_file_is_called_so(name: str, tmp_path: Path):
    with pytest.raises(DataError, match=r"must end in \.onnx"):
        export_onnx(tmp_path / "ours", tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_a_space_says_which_model_it_shows_and_links_its_card(run: Path, tmp_path: Path):
    pytest.importorskip("gradio")
    (run / "my_secret.json").write_text("{}")
    export_space(run, tmp_path / "space")
    readme = (tmp_path / "space/README.md").read_text()
    title = "Engagement recognition: test_resnet + lstm"
    assert f"[{title}](model/README.md)" in readme and (tmp_path / "space/model/README.md").is_file()
    assert f"NAME, MODEL = '{title}'" in (tmp_path / "space/app.py").read_text()
    assert "**Take care: its data's split failed the audit" in readme and "drawn people" in readme
    assert {path.suffix for path in (tmp_path / "space/model").iterdir()} == {".json", ".safetensors", ".md"}
    assert not (tmp_path / "space/model/my_secret.json").exists()
    (run / "README.md").unlink()
    export_space(run, tmp_path / "cardless")
    assert "`copy`, which has no card" in (tmp_path / "cardless/README.md").read_text()
    export_space("someone/some-model", tmp_path / "hub")
    assert "[someone/some-model](https://huggingface.co/someone/some-model)" in (tmp_path / "hub/README.md").read_text()


def test_exporting_what_publishing_refuses_says_why(run: Path, trained: TrainedStages, tmp_path: Path):
    pytest.importorskip("gradio")
    reason = "take care: its data's split failed the audit for leakage"
    done = CliRunner().invoke(app, ["export", str(run), "--to", "space", "--output", str(tmp_path / "space")])
    assert done.exit_code == 0 and reason in done.stderr
    sound = ["export", str(trained.engagement), "--to", "space", "--output", str(tmp_path / "sound")]
    done = CliRunner().invoke(app, sound)
    assert done.exit_code == 0 and reason not in done.stderr
