"""What is published, what is not, and when publishing stops."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from changed_results import change_data, elsewhere, scores_on_test
from conftest import TrainedStages
from huggingface_hub import ModelCard
from tiny_models import draw_pixels
from typer.testing import CliRunner

from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.cli.main import app
from engagement_recognition.data.described_data import AuditSummary, FindingSummary
from engagement_recognition.evaluation.results_file import read_results, write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.hub.model_files import model_files
from engagement_recognition.hub.publish import assemble, require_hub_names
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError, LeakageError, ModelLoadError, RecipeError


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
    needed = {"model.safetensors", "handler.py", "requirements.txt", "results.json", "answer_rule.json"}
    assert listed == there and needed | {"film_windows.py"} <= set(there)
    assert not {"predictions.parquet", "optimizer.pt"} & set(there) and not [name for name in there if name[0] == "_"]
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["org/data"])
    assert 'model="org/name"' in card.text and card.data.pipeline_tag == "video-classification"
    scores = scores_on_test(read_results(run)).scores
    told = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert told["Macro-F1"] == pytest.approx(scores.macro_f1, abs=1e-4)


def test_a_folder_from_before_there_was_an_answer_rule_answers_by_its_results(run: Path, tmp_path: Path):
    def loaded(folder: Path) -> tuple[AnswerRule, torch.Tensor]:
        predictor = Predictor.from_pretrained(str(folder))
        with torch.inference_mode():
            return predictor.rule, predictor.model(draw_pixels(predictor.model)).logits

    rule, logits = loaded(run)
    assert rule == AnswerRule.from_pretrained(run) and rule.trained_on == "drawn people" and rule.clip_sec
    assemble(run, tmp_path / "hub", "org/name")
    for older in (run, tmp_path / "hub"):
        (older / "answer_rule.json").unlink()
        found, got = loaded(older)
        assert found == rule and torch.equal(got, logits)
    assemble(run, tmp_path / "hub", "org/name")
    assert AnswerRule.from_pretrained(tmp_path / "hub") == rule, "published, it has one"


@pytest.mark.usefixtures("figures")
def test_nobody_else_s_folder_is_replaced(run: Path, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    (tmp_path / "empty").mkdir()
    assemble(run, tmp_path / "empty", "org/name")  # as `export` takes one
    published = Path(shutil.copytree(tmp_path / "empty", tmp_path / "published"))
    (published / "figures/me.png").touch()
    for output in (tmp_path / "thesis", tmp_path / "thesis/chapter.tex", published):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError, match=r"neither new nor .*(chapter.tex|me.png)"):
            assemble(run, output, "org/name")
        assert sorted(tmp_path.rglob("*")) == before


def test_a_model_is_never_written_over_by_its_own_publication(run: Path, tmp_path: Path, monkeypatch):
    assemble(run, tmp_path / "hub", "org/name")  # looks like a publication, as a download from the Hub does
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "hub")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for output in ("hub", "hub/inside", ".", "../" + tmp_path.name + "/hub", "link", "link/inside"):
        done = CliRunner().invoke(app, ["publish", "hub", "--repo", "org/name", "--dry-run", "--output", output])
        assert done.exit_code != 0 and isinstance(done.exception, DataError), output
        assert "outside the model's own folder" in str(done.exception)
        assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_publication_is_whole_or_not_at_all(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assemble(run, tmp_path / "hub", "org/name")
    before = sorted(tmp_path.rglob("*"))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engagement_recognition.hub.publish.write_card", fail)
    with pytest.raises(DataError, match=r"/hub could not .*\(No space .*\); make room"):
        assemble(run, tmp_path / "hub", "org/name")
    assert sorted(tmp_path.rglob("*")) == before


def test_only_what_belongs_to_the_model_is_published(run: Path, tmp_path: Path):
    (tmp_path / "out/figures").mkdir(parents=True)
    clean = assemble(run, tmp_path / "clean", "org/name")
    for name in ("my_secret.json", "notes.py", "old.safetensors", "model.safetensors.index.json", "figures/me.png"):
        (run / name).write_text("{}")
    (run / "figures/test_confusion.png").write_bytes(b"a photo under a name of ours")
    assert assemble(run, tmp_path / "hub", "org/name") == clean
    for name in clean:
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_all_parts_of_large_weights_belong_to_it(run: Path):
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (run / "model.safetensors").rename(run / parts[0])
    (run / parts[1]).touch()
    (run / "model-00001-of-00003.safetensors").touch()  # of an older one
    (run / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("ab", parts, strict=True))}))
    names = {path.name for path in model_files(run)}
    assert {name for name in names if "safetensors" in name} == {*parts, "model.safetensors.index.json"}
    for name in (parts[1], "face_cropping.py"):
        (run / name).rename(run / "aside")
        with pytest.raises(ModelLoadError, match=name):
            model_files(run)
        (run / "aside").rename(run / name)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--repo", ["not a repo!!", "name", "foo bar", "a/b/c", "org/"]),
        ("--license", ["Apache 2.0", "MIT", "", "my-licence!"]),
        ("--dataset", ["no data!"]),
    ],
)
def test_names_the_hub_does_not_take_are_refused_before_anything_is_done(option: str, values: list[str], run: Path):
    for value in values:
        done = CliRunner().invoke(app, ["publish", str(run), "--repo", "org/name", "--dry-run", option, value])
        assert isinstance(done.exception, RecipeError) and "\n" not in str(done.exception), value
    assert not run.with_name("engagement_hub").exists()
    for name in ("cc-by-nc-4.0", "openrail++", "llama3.1", "other"):
        require_hub_names("org/name", name)


def test_places_that_cannot_be_written_are_told_before_the_model_is_loaded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("engagement_recognition.hub.publish.Predictor", None)  # touching it would fail
    for output in ("/proc/x", str(run / "config.json/x"), str(tmp_path / ("long" * 99))):
        with pytest.raises(DataError, match=r"could not|outside"):
            assemble(run, Path(output), "org/name")


def test_the_folder_at_hand_is_published_beside_itself(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run)
    done = CliRunner().invoke(app, ["publish", ".", "--repo", "org/name", "--dry-run"])
    assert done.exit_code == 0 and (run.with_name("engagement_hub") / "README.md").is_file()


def test_a_picture_to_try_goes_with_models_that_take_pictures(trained: TrainedStages, tmp_path: Path):
    with_picture = {
        folder.name: Path("examples/drawn_face.png") in assemble(folder, tmp_path / folder.name, "org/name")
        for folder in (trained.engagement, trained.expression)
    }
    assert with_picture == {"engagement": False, "expression": True}
    assert "examples/drawn_face.png" in (tmp_path / "expression/README.md").read_text()  # its widget


def test_publishing_stops_where_the_numbers_cannot_be_trusted(run: Path, tmp_path: Path):
    results = read_results(run)

    def refused(error: type[Exception], words: str, changed: Results) -> None:
        write_results(run, changed)
        with pytest.raises(error, match=words):
            assemble(run, tmp_path / "out", "org/name")
        assert not (tmp_path / "out").exists()

    unmeasured = results.model_copy(update={"measurements": []})
    refused(ModelLoadError, "no scores on test.* --data DATA", unmeasured)
    refused(LeakageError, "failed its audit", change_data(results, audit=AuditSummary(passed=False)))
    refused(LeakageError, "has no audit", change_data(results, audit=None))
    there = unmeasured.with_measurement(elsewhere(results))
    known = rf"\({results.data.fingerprint[:12]}\) than .*\(ffffffffffff\).* --data DATA"
    refused(LeakageError, known, there)
    write_results(run, results.with_measurement(elsewhere(results, audit=None)))
    assemble(run, tmp_path / "both", "org/name")  # its own data speaks for it
    (run / "results.json").unlink()
    with pytest.raises(ModelLoadError, match="Expected measured results"):
        assemble(run, tmp_path / "out", "org/name")


def test_reported_duplicates_are_in_the_card(run: Path, tmp_path: Path):
    finding = FindingSummary(name="duplicates", grade="report", summary="3 clips of test have a twin in train")
    write_results(run, change_data(read_results(run), audit=AuditSummary(passed=True, findings=[finding])))
    assemble(run, tmp_path / "out", "org/name")
    assert "- 3 clips of test have a twin" in (tmp_path / "out/README.md").read_text()


def test_the_card_says_what_the_text_of_responsible_use_asks_for(run: Path, tmp_path: Path):
    assemble(run, tmp_path / "out", "org/name")
    text = " ".join(ModelCard.load(tmp_path / "out/README.md").text.split())
    for words in ("apparent", "Article 5(1)(f)", "Being open source does not exempt", "Any decision about a person",
                  "can abstain", "calibration error", 'always "', "untested", "Licences", "1609.01885"):  # fmt: skip
        assert words in text, words
    json.dumps(ModelCard.load(tmp_path / "out/README.md").data.to_dict())


@pytest.mark.parametrize("content", [None, "{", b"\xff"])
def test_results_that_cannot_be_read_are_one_line_that_says_what_to_do(content: object, tmp_path: Path):
    if content is not None:
        (tmp_path / "results.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = CliRunner().invoke(app, ["publish", str(tmp_path), "--repo", "org/name", "--dry-run"])
    said = str(done.exception)
    assert isinstance(done.exception, ModelLoadError) and said.count(str(tmp_path)) == 1 and "\n" not in said
    remedy = "correct it" if content == "{" else "check the path"
    assert "Errno" not in said and remedy in said and "import" in said
    assert ("No such file or directory" in said) == (content is None)
