"""What is published, what is not, and when publishing stops."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TrainedStages
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from engagement_recognition.cli import app
from engagement_recognition.processor.input_errors import DataError, LeakageError, ModelLoadError
from engagement_recognition.publish import assemble
from engagement_recognition.results_file import read_results, write_results


@pytest.fixture
def run(trained: TrainedStages, tmp_path: Path) -> Path:
    """A copy of stage two's folder that a test may write to."""
    return Path(shutil.copytree(trained.engagement, tmp_path / "engagement"))


def test_a_dry_run_writes_the_exact_folder_and_lists_it(run: Path):
    (run / "optimizer.pt").write_bytes(b"a pickle")
    options = ["--repo", "org/name", "--dry-run", "--dataset", "org/data", "--license", "apache-2.0"]
    for _ in range(2):  # a second time replaces the first
        done = CliRunner().invoke(app, ["publish", str(run), *options])
        assert done.exit_code == 0, done.output
    folder = run.with_name("engagement_hub")
    listed = {line.split()[-1]: int(line.split()[0].replace(",", "")) for line in done.stdout.splitlines()[:-2]}
    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert listed == there and {"model.safetensors", "handler.py", "requirements.txt", "results.json"} <= set(there)
    assert not {"predictions.parquet", "optimizer.pt"} & set(there) and not [name for name in there if name[0] == "_"]
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["org/data"])
    assert 'model="org/name"' in card.text and card.data.pipeline_tag == "video-classification"
    scores = read_results(run)["evaluation"]["test"]["scores"]
    told = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert told["Macro-F1"] == pytest.approx(scores["macro_f1"], abs=1e-4)


def test_nobody_else_s_folder_is_replaced(run: Path, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    for output in (tmp_path / "thesis", run):
        before = sorted(output.rglob("*"))
        with pytest.raises(DataError, match="a new folder, or one that was published before"):
            assemble(run, output, "org/name")
        assert sorted(output.rglob("*")) == before


def test_publishing_stops_where_the_numbers_cannot_be_trusted(run: Path, tmp_path: Path):
    results = read_results(run)

    def refused(error: type[Exception], words: str, **changes: object) -> None:
        write_results(run, **{**results, **changes})
        with pytest.raises(error, match=words):
            assemble(run, tmp_path / "out", "org/name")
        assert not (tmp_path / "out").exists()

    refused(ModelLoadError, "Expected scores on test", evaluation={})
    refused(LeakageError, "it failed", data={**results["data"], "audit": {"passed": False, "findings": []}})
    refused(LeakageError, "it is missing", data={**results["data"], "audit": None})
    other = {"test": {"source": "x", "fingerprint": "0" * 64, "label_scheme": "binary", "audit_passed": True}}
    refused(LeakageError, "other data", evaluated_on=other)
    (run / "results.json").unlink()
    with pytest.raises(ModelLoadError, match="Expected measured results"):
        assemble(run, tmp_path / "out", "org/name")


def test_reported_duplicates_are_in_the_card(run: Path, tmp_path: Path):
    results = read_results(run)
    finding = {"name": "duplicates", "grade": "report", "summary": "3 clips of test have a twin in train"}
    data = {**results["data"], "audit": {"passed": True, "findings": [finding]}}
    write_results(run, data=data)
    assemble(run, tmp_path / "out", "org/name")
    assert "- 3 clips of test have a twin in train" in (tmp_path / "out/README.md").read_text()


def test_the_card_says_what_the_text_of_responsible_use_asks_for(run: Path, tmp_path: Path):
    assemble(run, tmp_path / "out", "org/name")
    text = " ".join(ModelCard.load(tmp_path / "out/README.md").text.split())
    for words in ("apparent", "Article 5(1)(f)", "Being open source does not exempt", "Any decision about a person",
                  "To abstain", "Calibration", "always \"", "untested", "Licences", "arXiv 1609.01885"):  # fmt: skip
        assert words in text, words
    json.dumps(ModelCard.load(tmp_path / "out/README.md").data.to_dict())
