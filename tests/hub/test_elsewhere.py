"""What a stranger's machine says of what we hand on: a model on the Hub, a model's folder, an endpoint, a Space. It has
no package of ours and an empty home, and says what this process says."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedStages
from endpoint_requests import draw_files, good_requests, refused_requests, serving
from hub_client import the_only_hub
from hub_server import READ_TOKEN, WRITE_TOKEN, HubServer, running
from strangers_machine import ask
from transformers import AutoImageProcessor, AutoVideoProcessor, TimmWrapperConfig

from engagement_recognition import (
    EngagementConfig,
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementImageProcessor,
)
from engagement_recognition.data.required_packages import installed_version
from engagement_recognition.hub.endpoint import handler
from engagement_recognition.hub.publish import assemble
from engagement_recognition.hub.push import push_folder
from engagement_recognition.hub.space import export_space
from engagement_recognition.inference.predictor import Predictor

NAMES_ON_PYPI = {"PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn"}


@pytest.fixture(scope="module")
def grey_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of Nezami's nets, which timm knows only once our code has registered it."""
    folder = tmp_path_factory.mktemp("export") / "nezami"
    config = EngagementConfig(
        encoder_config=TimmWrapperConfig(architecture="nezami_cnn"),
        num_channels=1,
        image_size=48,
        id2label={0: "disengaged", 1: "engaged"},
        label2id={"disengaged": 0, "engaged": 1},
    )
    torch.manual_seed(0)
    EngagementForImageClassification(config).save_pretrained(folder)
    processor = EngagementImageProcessor(size={"height": 48, "width": 48}, do_grayscale=True, picture_norm=100.0)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(drawn_daisee: Path) -> Path:
    return next(path for path in sorted(drawn_daisee.glob("DataSet/Test/*/*/*")))


@pytest.fixture(scope="module")
def hub(trained: TrainedStages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """It has the model as `engagement publish --private` pushes it."""
    place = tmp_path_factory.mktemp("hub")
    assemble(trained.engagement, place / "assembled", "org/private")
    with running(HubServer(place / "server")) as server:
        with the_only_hub(server, place / "cache"):
            push_folder(place / "assembled", "org/private", private=True, token=WRITE_TOKEN)
        server.requests.clear()
        server.cut_next_download = True
        yield server


@pytest.fixture(scope="module")
def address(video: Path) -> Iterator[str]:
    with serving(video) as address:
        yield address


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, video: Path) -> dict[str, str]:
    """Files that are sent to an endpoint, by name."""
    return draw_files(tmp_path_factory.mktemp("inputs"), video)


@pytest.fixture(scope="module")
def endpoints(trained: TrainedStages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model each, and the handler in it."""
    home = tmp_path_factory.mktemp("endpoints")
    for name, stage in {"video": trained.engagement, "image": trained.expression, "frame": trained.expression}.items():
        shutil.copytree(stage, home / name)
        shutil.copy(handler.__file__, home / name)
    settings = home / "frame/preprocessor_config.json"
    whole = {"face_crop": False, "pictures_are_frames": True}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | whole))
    return home


@pytest.fixture(scope="module")
def space(trained: TrainedStages, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """None where gradio is missing."""
    if installed_version("gradio") is None:
        return None
    export_space(trained.engagement, folder := tmp_path_factory.mktemp("space") / "space")
    return folder


@pytest.fixture(scope="module")
def said(
    hub: HubServer,
    trained: TrainedStages,
    grey_model: Path,
    endpoints: Path,
    space: Path | None,
    video: Path,
    drawn: dict[str, str],
    address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict:
    """All that the stranger's machine says."""
    refused = {name: request for name, (request, *_) in refused_requests(drawn, address).items()}
    pictures = [(str(folder), drawn["face.jpg"]) for folder in (trained.expression, grey_model, grey_model)]
    question = {
        "repository": "org/private",
        "video": str(video),
        "folders": [(str(trained.engagement), str(video)), *pictures],
        "endpoints": str(endpoints),
        "requests": good_requests(drawn, address) | refused,
        "space": space and str(space),
    }
    home = tmp_path_factory.mktemp("stranger")
    return ask(question, home, hub.environment(home, READ_TOKEN))


def assert_same(said: dict, model: torch.nn.Module, processor: object, source: str) -> None:
    """Logits through the Auto classes, and scores through the pipeline, within 1e-6 of those of this process."""
    with torch.inference_mode():
        expected = model.eval()(**processor(source)).logits[0]
    np.testing.assert_allclose(said["logits"], expected, atol=1e-6, rtol=0)
    scores = {model.config.id2label[i]: float(score) for i, score in enumerate(expected.softmax(dim=0))}
    assert {row["label"]: row["score"] for row in said["scores"]} == pytest.approx(scores, abs=1e-6)


# --- The Hub


def test_the_three_lines_say_the_same_from_the_hub(said: dict, trained: TrainedStages, video: Path):
    model = EngagementForVideoClassification.from_pretrained(trained.engagement)
    assert_same(said["hub"], model, AutoVideoProcessor.from_pretrained(trained.engagement), str(video))


def test_a_private_model_is_read_with_a_token_only(said: dict, hub: HubServer):
    assert hub.repositories["org/private"].private and said["hub"]["anyone"] == "finds none"
    storage = [request for request in hub.requests if request.host == "localhost"]
    assert storage and {request.token for request in storage} == {None}  # the token stays with the Hub


def test_a_cut_download_is_asked_for_again(said: dict, hub: HubServer):
    assert [request.method for request in hub.requests if request.host == "localhost"] == ["GET", "GET"]


def test_the_server_knows_all_that_clients_ask_for(said: dict, hub: HubServer):
    assert hub.unknown == []


# --- A model's folder


def test_a_video_model_says_the_same_elsewhere(said: dict, trained: TrainedStages, video: Path):
    model = EngagementForVideoClassification.from_pretrained(trained.engagement)
    processor = AutoVideoProcessor.from_pretrained(trained.engagement)
    assert_same(said["folders"][str(trained.engagement)], model, processor, str(video))


def test_single_face_models_say_the_same_elsewhere(
    said: dict, trained: TrainedStages, grey_model: Path, drawn: dict[str, str]
):
    for folder in (trained.expression, grey_model):
        model = EngagementForImageClassification.from_pretrained(folder)
        assert_same(said["folders"][str(folder)], model, AutoImageProcessor.from_pretrained(folder), drawn["face.jpg"])


def test_nothing_is_registered_twice_and_nothing_is_missing(said: dict):
    assert "Overwriting" not in said["stderr"] and "MISSING" not in said["stderr"]


# --- An endpoint


def test_a_video_gets_the_answer_that_predict_gives(
    said: dict, trained: TrainedStages, video: Path, drawn: dict[str, str], address: str
):
    expected = Predictor.from_pretrained(str(trained.engagement)).predict_video(video)
    videos = [name for name, (model, *_) in good_requests(drawn, address).items() if model == "video"]
    assert len(videos) == 8
    for name in videos:
        answer = said["endpoints"][name]
        assert answer["label"] == expected.label and answer["scores"] == pytest.approx(expected.scores, abs=1e-6)
        assert answer["face_coverage"] == expected.face_coverage > 0
        assert answer["num_repeated_frames"] == expected.num_repeated_frames


def test_a_picture_gets_an_answer_a_face(said: dict, trained: TrainedStages, drawn: dict[str, str]):
    expected = Predictor.from_pretrained(str(trained.expression)).predict_photo(Path(drawn["face.jpg"])).faces
    for name in ("face bytes", "face picture", "face lazy"):
        faces = said["endpoints"][name]["faces"]
        assert [face["label"] for face in faces] == [face.label for face in expected]
        for face, like in zip(faces, expected, strict=True):
            assert face["scores"] == pytest.approx(like.scores, abs=1e-6)
            assert face["box_xyxy_px"] == pytest.approx(like.box_xyxy_px, abs=0.1)
            assert face["face_probability"] == pytest.approx(like.face_probability)


def test_a_model_of_whole_frames_reads_the_whole_picture(said: dict, trained: TrainedStages, drawn: dict[str, str]):
    model = EngagementForImageClassification.from_pretrained(trained.expression).eval()
    processor = AutoImageProcessor.from_pretrained(trained.expression)
    with torch.inference_mode():
        scores = model(**processor(drawn["face.jpg"], face_crop=False)).logits[0].softmax(dim=0)
    expected = {model.config.id2label[i]: float(score) for i, score in enumerate(scores)}
    answer, certainty = said["endpoints"]["whole frame"], max(expected.values())
    assert answer["scores"] == pytest.approx(expected, abs=1e-6)
    assert certainty < 0.3 and (answer["label"], answer["reason"]) == (None, "uncertain")
    assert answer["certainty"] == pytest.approx(certainty, abs=1e-6)


def test_what_cannot_be_used_is_refused_with_a_reason(said: dict, drawn: dict[str, str], address: str):
    refused, answers = refused_requests(drawn, address), said["endpoints"]
    for name, (_, status, told) in refused.items():
        print(answers[name]["status"], name + ":", answers[name]["error"])
        assert told in answers[name]["error"] and answers[name]["status"] == status, name
        assert "\n" not in answers[name]["error"]
    assert len({answers[name]["error"] for name in refused}) >= len(refused) - 4


def test_a_slow_sender_is_left_when_its_time_is_up(said: dict):
    # Ten seconds of single bytes, each well within a socket's own timeout.
    assert all(0.4 < said["endpoints"][name]["seconds"] < 3 for name in ("a slow head", "a slow body"))


# --- A Space


def test_a_space_runs_without_this_package_on_what_it_requires(said: dict, space: Path | None):
    if space is None:
        pytest.skip("gradio is missing")
    found = said["space"]
    assert (found["title"], found["analytics_enabled"]) == ("Apparent engagement", False)
    modules = found["modules"]
    assert all(module.startswith(str(space / "engagement_recognition")) for module in modules)
    wanted = {distribution for module in modules for distribution in imported_distributions(Path(module))}
    required = {re.match(r"[\w-]+", line)[0] for line in (space / "requirements.txt").read_text().splitlines()}
    # pydantic brings its core, these two are imported where an export is run, the last for types alone.
    elsewhere = {"gradio", "pydantic-core", "onnxruntime", "openvino", "typing-extensions"}
    assert wanted - elsewhere <= required and len(wanted) > 8


def imported_distributions(path: Path) -> set[str]:
    """What a module imports, by the names pip knows; mss is for the screen only, which no page looks at."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    outside = names - set(sys.stdlib_module_names) - {"engagement_recognition", "mss"}
    return {NAMES_ON_PYPI.get(name, name).replace("_", "-") for name in outside}
