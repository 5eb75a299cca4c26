"""The export folder: its card says what was measured, how the model answers and where it is from."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from blank_figures import leave_blank
from changed_results import change_data, change_test, scores_on_test
from conftest import TrainedStages
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import AutoVideoProcessor

from engagement_recognition import EngagementForVideoClassification
from engagement_recognition.data.required_packages import OF_A_MODEL, pip_lines
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.results_schema import ImportedFrom, PooledTrainings, Results
from engagement_recognition.evaluation.score_records import Answers
from engagement_recognition.evaluation.split_evaluation import read_predictions
from engagement_recognition.hub.card import render_card
from engagement_recognition.hub.export_folder import export_model
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import DataError


def numbers_in(value: object) -> Iterator[float]:
    """Every number in a results file, however deep."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(inner)
    elif isinstance(value, float | int):
        yield value


@pytest.mark.parametrize("stage", ["expression", "engagement"])
def test_each_number_of_the_card_was_measured(stage: str, trained: TrainedStages):
    folder = trained.run_dir / stage
    card, results = ModelCard.load(folder / "README.md"), read_results(folder)
    is_video = stage == "engagement"
    assert card.data.pipeline_tag == ("video-classification" if is_video else "image-classification")
    front_matter = card.data.to_dict()
    assert (front_matter["library_name"], front_matter["license"]) == ("transformers", "mit")
    assert "custom_code" in card.data.tags
    measured = card.text.partition("## Measured")[2].partition("## What it must not")[0]
    test = scores_on_test(results)
    # The card may round only what the results hold, and shows each of the headline scores and of the per-class table.
    printed = set(re.findall(r"\d\.\d{3}", measured.partition("Trained on")[0]))
    assert printed <= {f"{number:.3f}" for number in numbers_in(test.model_dump())}
    rows = (test.scores, test.majority_baseline, test.stratified_baseline)
    shown = [value for row in rows for value in (row.macro_f1, row.balanced_accuracy, row.accuracy)]
    shown += [value for row in test.scores.per_class.values() for value in (row.precision, row.recall, row.f1)]
    assert {f"{number:.3f}" for number in shown} <= printed
    this, baseline = (next(row for row in measured.splitlines() if name in row) for name in ("this model", "always"))
    assert f"{test.scores.macro_f1:.3f}" in this and f"{test.majority_baseline.macro_f1:.3f}" in baseline
    assert results.data.fingerprint[:12] in measured and "Measured on other data" not in measured


def test_other_results_make_another_card(trained: TrainedStages):
    model = EngagementForVideoClassification.from_pretrained(trained.engagement)
    processor, results = AutoVideoProcessor.from_pretrained(trained.engagement), read_results(trained.engagement)
    assert render_card(model, processor, results) == (trained.engagement / "README.md").read_text()
    scores = scores_on_test(results).scores.model_copy(update={"macro_f1": 0.1234, "num_examples": 4321})
    card = render_card(model, processor, change_test(results, scores=scores))
    assert "**0.123**" in card and "4321 examples" in card


def test_the_card_says_how_it_answers_and_that_the_pipeline_does_not(trained: TrainedStages):
    results = read_results(trained.engagement)
    answers = Answers(
        offsets=dict.fromkeys(results.label_names, 0.0), abstain_below=0.625, answered=0.87, accuracy=0.75,
        accuracy_answered=0.814, ece=0.036,
    )  # fmt: skip
    decision = scores_on_test(results).decision.model_copy(update={"answers": answers})
    text = " ".join(rendered(trained.engagement, change_test(results, decision=decision)).text.split())
    for fact in ("labels 87 % of the clips", "at least 0.625", "0.814 of those labels are right", "0.750 if it",
                 "calibration error 0.036"):  # fmt: skip
        assert fact in text
    assert "scores are uncalibrated" in text and "`model.answer_rule.to_scores(logits)`" in text
    assert "examples of drawn people, selected on" in text
    none = answers.model_copy(update={"answered": 0.0, "accuracy_answered": None})
    decision = decision.model_copy(update={"answers": none})
    text = " ".join(rendered(trained.engagement, change_test(results, decision=decision)).text.split())
    assert "labels 0 % of the clips" in text and "0.750 would be right" in text


def test_the_card_says_what_was_pooled(trained: TrainedStages):
    results = read_results(trained.engagement)
    measured = results.measurements[0].model_copy(update={"pooled": PooledTrainings(seeds=[0, 1], num_folds=5)})
    card = rendered(trained.engagement, results.model_copy(update={"measurements": [measured]}))
    assert "predictions of 10 trainings, pooled over 5 folds" in card.text


def rendered(folder: Path, results: Results, **options: object) -> ModelCard:
    predictor = Predictor.from_pretrained(str(folder))
    return ModelCard(render_card(predictor.model, predictor.processor, results, **options))


def test_the_card_names_what_the_model_is_and_what_it_started_from(trained: TrainedStages):
    results = read_results(trained.engagement)
    card = rendered(trained.engagement, results)
    assert card.text.strip().startswith("# Engagement recognition: test_resnet + lstm")
    assert card.data.model_name == "engagement-recognition-test_resnet-lstm"
    assert "the weights of stage one (`expression`)" in card.text
    face = rendered(trained.expression, read_results(trained.expression))
    assert face.text.strip().startswith("# Expression recognition: test_resnet\n")
    assert "random weights" in face.text and "evenly" not in face.text
    for start, words in {
        "timm/resnet18.a1_in1k": "the weights of [`timm/resnet18.a1_in1k`](https://huggingface.co/timm/resnet18.a1_in1k)",
        "mine": "the weights of an earlier model, `mine`,",
    }.items():
        assert words in rendered(trained.engagement, results.model_copy(update={"started_from": start})).text


def test_the_card_says_how_frames_are_chosen(trained: TrainedStages, tmp_path: Path):
    results = change_data(read_results(trained.engagement), window_span_sec=8.75)
    (folder := tmp_path / "model").mkdir()
    shutil.copytree(trained.engagement, folder, dirs_exist_ok=True)
    settings = json.loads((folder / "video_preprocessor_config.json").read_text())
    for sampling, words in {
        "uniform": ("evenly over the **whole** file", "about 11.7 s long."),
        "consecutive": ("consecutive, from the start of the file", "spanned about 8.75 s."),
    }.items():
        (folder / "video_preprocessor_config.json").write_text(json.dumps({**settings, "sampling": sampling}))
        text = " ".join(rendered(folder, results).text.split())
        assert (
            all(part in text for part in words)
            and "engagement predict VIDEO --model your-name/engagement --timeline" in text
        )
        assert "clip.mp4" in text and "lecture" not in text
    assert "In training, " not in rendered(folder, change_data(results, window_span_sec=None)).text


def test_what_is_needed_has_versions(trained: TrainedStages):
    results = read_results(trained.engagement)
    required = set(pip_lines(OF_A_MODEL))
    assert required <= set(re.findall(r'"(\S+)"', rendered(trained.engagement, results).text)) and len(required) > 5
    assert "`pip install -r requirements.txt`" in rendered(trained.engagement, results, repository="org/name").text


def test_of_imported_weights_nothing_is_claimed(trained: TrainedStages):
    origin = ImportedFrom(source="best.pth", system="CNN + LSTM", num_weights=2, num_encoder_weights=1)
    names = ["disengaged", "engaged"]
    results = Results(stage="engagement", label_names=names, started_from="best.pth", imported=origin)
    card = rendered(trained.engagement, results)
    assert card.data.license == "other" and "is not known here" in card.text
    assert card.data.metrics is None and "The scores above" not in card.text and "untested" in card.text
    assert "results.json" not in card.text.partition("## Limits")[0]
    given = rendered(trained.engagement, results, license_name="apache-2.0")
    assert given.data.license == "apache-2.0" and "not known here: see" not in given.text


def test_the_card_reads_as_a_page(trained: TrainedStages):
    for folder in (trained.engagement, trained.expression):
        tokens = [token.type for token in MarkdownIt().enable("table").parse(ModelCard.load(folder / "README.md").text)]
        assert tokens.count("table_open") == 3
        assert "table_open" not in [after for before, after in pairwise(tokens) if before == "table_close"]
        assert tokens.count("bullet_list_open") == 2
    text = ModelCard.load(folder / "README.md").text
    assert "chosen on\ntest itself" in text and "\n\n\n" not in text


@pytest.mark.usefixtures("figures")
def test_an_export_is_whole_or_not_at_all(trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leave_blank(monkeypatch)

    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError("No space left on device")

    model = EngagementForVideoClassification.from_pretrained(trained.engagement)
    processor, results = AutoVideoProcessor.from_pretrained(trained.engagement), read_results(trained.engagement)
    predictions = [read_predictions(trained.engagement, split)[0] for split in ("validation", "test")]
    folder = tmp_path / "engagement"
    with pytest.raises(DataError, match=r"engagement,? could not .*\(No space"):
        export_model(model, Broken(), results, folder, predictions, "f" * 64)
    assert not folder.exists()
    export_model(model, processor, results, folder, predictions, "f" * 64)
    (folder / "leftover").touch()
    export_model(model, processor, results, folder, predictions, "f" * 64)
    assert {path.name for path in folder.iterdir()} == {path.name for path in trained.engagement.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["engagement"]
