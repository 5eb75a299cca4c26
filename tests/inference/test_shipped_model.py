"""The model in the box: what `engagement predict` says without a model, what is shipped, whose licence goes along."""

import configparser
import json
import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Command
from huggingface_hub import ModelCard
from PIL import Image
from places import ROOT
from safetensors.torch import load_file

from engagement_recognition import train
from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import FacePose, Person, draw_frame, draw_people, draw_subject
from engagement_recognition.data.schema import EXPRESSIONS
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.hub.model_files import first_stranger
from engagement_recognition.hub.publish import assemble
from engagement_recognition.inference import shipped_model
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.inference.shipped_model import WHAT_IT_NAMES, shipped_expression_model
from engagement_recognition.processor.input_errors import ModelLoadError, RecipeError
from engagement_recognition.training.arguments import Recipe

BOX = runpy.run_path(str(ROOT / ".ci/box.py"), run_name="box")
LICENSE_TITLE = "Weights trained on FER2013: research use, not MIT"


pytestmark = pytest.mark.usefixtures("one_reader")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, nobody, and half a file, among what is no photo."""
    folder = tmp_path_factory.mktemp("photos")
    two = [Person(draw_subject(seed), FacePose(), (x, 230), 150) for seed, x in ((2, 180), (4, 460))]
    Image.fromarray(draw_people(two)).save(folder / "two.png")
    Image.fromarray(np.full((240, 320, 3), 90, np.uint8)).save(folder / "wall.png")
    (folder / "broken.png").write_bytes((folder / "two.png").read_bytes()[:2000])
    (folder / "notes.txt").write_text("not mine to read")
    (folder / "more").mkdir()
    return folder


# --- What is shipped


def test_it_is_small_and_has_no_code():
    files = {path.name: path.stat().st_size for path in shipped_expression_model().iterdir()}
    assert set(files) == {
        "LICENSE", "README.md", "answer_rule.json", "config.json", "model.safetensors", "preprocessor_config.json",
        "results.json",
    }  # fmt: skip
    assert sum(files.values()) <= 3_000_000
    assert {tensor.dtype for tensor in load_file(shipped_expression_model() / "model.safetensors").values()} == {
        torch.float16, torch.int64
    }  # fmt: skip


def test_it_computes_in_float32_and_says_what_it_said_when_it_was_made():
    predictor = Predictor.from_pretrained(str(shipped_expression_model()))
    assert {weights.dtype for weights in predictor.model.parameters()} == {torch.float32}
    expected = json.loads((ROOT / "tests/inference/shipped_logits.json").read_text())
    assert BOX["drawn_face_logits"](shipped_expression_model()) == pytest.approx(expected, abs=0.01)


def test_it_learned_real_faces_and_is_good_enough():
    results = read_results(shipped_expression_model())
    measured = results.measured_on("test")
    assert not results.is_trained_on_drawn and results.is_own_data(measured) and measured.data.kind == "fer2013"
    assert measured.evaluation.scores.accuracy >= 0.67
    assert measured.evaluation.calibration.as_trained.ece <= 0.05


def test_its_licence_is_shipped_and_its_card_names_it():
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    assert "inference/weights/LICENSE" in declared["metadata"]["license_files"].split()
    shipped = declared["options.package_data"]["engagement_recognition.inference"].split()
    assert shipped == [f"{shipped_expression_model().name}/*"]
    assert_license(shipped_expression_model())
    card = ModelCard.load(shipped_expression_model() / "README.md").text
    assert "```bash\nengagement predict photo.jpg\n```" in card and "trust_remote_code" not in card
    assert "figures/" not in card and "float16" in card


def assert_license(folder: Path) -> None:
    """The shipped licence is there, and the card's front matter and text say so."""
    assert (folder / "LICENSE").read_bytes() == (shipped_expression_model() / "LICENSE").read_bytes()
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.license_link) == ("other", "LICENSE")
    assert card.data.license_name == "weights-trained-on-fer2013-research-use-not-mit"
    assert LICENSE_TITLE in card.text and "not known here" not in card.text


# --- Predictions without a model


def test_a_folder_of_photos_without_a_model(engagement: Command, photos: Path):
    code, out, err = engagement("predict", photos)
    assert code == 1
    head, photo, *faces = out.splitlines()
    assert head == WHAT_IT_NAMES == "facial expression, not engagement or feeling"
    assert photo == f"{photos / 'two.png'}: 2 faces" and len(faces) == 2
    assert all(re.search(rf"\b{name} \d\.\d{{3}}", face) for face in faces for name in EXPRESSIONS)
    refused = [line for line in err.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 2 and "broken.png" in refused[0] and "wall.png" in refused[1] and "Traceback" not in err
    assert err.count("What it must not be used for") == err.count("Article 5(1)(f)") == 1 and "*" not in err


def test_json_says_what_it_names(engagement: Command, photos: Path, tmp_path: Path):
    frame = draw_frame(draw_subject(1), FacePose(), 320, 240)
    encode_video(tmp_path / "clip.mp4", iter([frame] * 8), 4, 320, 240, "mp4")
    code, out, err = engagement("predict", tmp_path / "clip.mp4", photos / "wall.png", "--json")
    clip, refusal = map(json.loads, out.splitlines())
    assert code == 1 and clip["names"] == WHAT_IT_NAMES and "names" not in refusal
    assert clip["face_coverage"] == 1 and sum(clip["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert err.count("Article 5(1)(f)") == 1


def test_where_nothing_came_out_nothing_is_headed(engagement: Command, photos: Path):
    code, out, _ = engagement("predict", photos / "wall.png", photos / "more")
    assert (code, out) == (2, "")


def test_an_installation_without_it_is_one_line(
    engagement: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shipped_model, "_FOLDER", tmp_path)
    code, out, err = engagement("predict", photos / "two.png")
    assert (code, out) == (2, "") and re.fullmatch(r"error: .+ lacks LICENSE; install .+\n", err)
    with pytest.raises(ModelLoadError, match="lacks LICENSE"):
        train.train(Recipe({"engagement": {"data": str(photos), "start_from": "box"}}), {})


@pytest.mark.parametrize(
    "words", [("live", "--no-window", "--json"), ("app",), ("explain", "two.png", "--output", "heat.png")]
)
def test_no_other_command_takes_it_unasked(words: tuple[str, ...], engagement: Command):
    code, out, err = engagement(*words)
    assert (code, out) == (2, "") and re.search("Missing (option '--model'|argument)", err)


# --- Training that starts from it


@dataclass(frozen=True)
class StartedFromBox:
    """A stage one that started from the box, the stage two that started from that, and their data."""

    expression: Path
    engagement: Path
    data: Path
    cache_dir: Path


@pytest.fixture(scope="module")
def started(drawn_expressions: Path, tmp_path_factory: pytest.TempPathFactory) -> StartedFromBox:
    """Both stages as recipes/from_box.yaml says, for one epoch, with the encoder as it was."""
    section = yaml.safe_load((ROOT / "recipes/from_box.yaml").read_text())["engagement"]
    cache_dir = tmp_path_factory.mktemp("cache")
    recipe = {
        "output_dir": str(tmp_path_factory.mktemp("run")),
        "cache_dir": str(cache_dir),
        "data": str(drawn_expressions),
        "subject_pattern": r"^\d+",
        "num_preparation_processes": 1,
        "disable_tqdm": True,
        "expression": section,
        "engagement": {key: value for key, value in section.items() if key != "start_from"},
    }
    small = {"num_train_epochs": "1", "freeze_encoder": "true", "bf16": "false"}
    expression, engagement = train.train(Recipe(recipe), small)
    return StartedFromBox(expression, engagement, drawn_expressions, cache_dir)


def test_a_model_starts_from_the_shipped_weights(started: StartedFromBox):
    shipped = load_file(shipped_expression_model() / "model.safetensors")
    encoder = {name for name in shipped if name.startswith("encoder.")}
    assert len(encoder) > 40
    for folder in (started.expression, started.engagement):
        weights = load_file(folder / "model.safetensors")
        assert all(torch.equal(weights[name], shipped[name].to(weights[name].dtype)) for name in encoder)
    results = read_results(started.expression)
    assert results.started_from == "box" and results.started_from_data


def test_the_licence_goes_with_every_model_that_starts_from_it(started: StartedFromBox, tmp_path: Path):
    assert_license(started.expression)
    assert_license(started.engagement)
    assert "LICENSE" in {path.name for path in assemble(started.engagement, tmp_path / "hub", "org/name")}
    assert_license(tmp_path / "hub")
    assert first_stranger(tmp_path / "hub") is None  # a later version may take its place
    with pytest.raises(RecipeError, match=rf"{LICENSE_TITLE}.+ mit; leave --license out"):
        assemble(started.engagement, tmp_path / "hub", "org/name", "mit")


def test_a_box_is_made_of_an_export(started: StartedFromBox, tmp_path: Path, capsys: pytest.CaptureFixture):
    text = (shipped_expression_model() / "LICENSE").read_text()
    (tmp_path / "LICENSE").write_text(text)
    BOX["make_box"](started.expression, started.data, tmp_path, started.cache_dir)
    said = capsys.readouterr().out
    temperature = float(re.search(r"temperature (\S+);", said)[1])
    assert re.search(r"float16: accuracy 0\.\d{4} on \d+ test pictures, ECE 0\.\d{4}", said)
    logits = np.array(BOX["drawn_face_logits"](started.expression))
    assert BOX["drawn_face_logits"](tmp_path) == pytest.approx(logits / temperature, abs=0.02 / temperature)
    results, before = read_results(tmp_path), read_results(started.expression)
    (measured,) = results.measurements
    assert results.recipe == before.recipe and results.is_own_data(measured)
    assert measured.evaluation.scores.accuracy == pytest.approx(
        before.measurements[0].evaluation.scores.accuracy, abs=0.1
    )
    assert "auto_map" not in (tmp_path / "config.json").read_text()
    with pytest.raises(ModelLoadError, match="Expected an expression model"):
        BOX["make_box"](started.engagement, started.data, tmp_path, started.cache_dir)
