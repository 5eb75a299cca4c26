"""The page and the Space: nothing before consent, plain words for every refusal, no ranking, and nothing kept."""

import base64
import csv
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TrainedStages
from page_inputs import EMPTY_ROOM, SETTINGS, person_frame, write_photo, write_video
from typer.testing import CliRunner

from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.cli.main import app as cli
from engagement_recognition.hub.space import export_space
from engagement_recognition.hub.use_limits import MUST_NOT_BE_USED, WHAT_IT_IS
from engagement_recognition.inference.predictions import (
    FacePrediction,
    PhotoPrediction,
    Span,
    VideoPrediction,
    to_lines,
)
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.live import page_actions as app_actions
from engagement_recognition.live.engine import PersonState
from engagement_recognition.live.page import Page, build_app, name_models
from engagement_recognition.live.page_html import camera_refusal, live_words, photo_page, statement, video_page
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, ModelLoadError


@pytest.fixture(scope="module")
def models(trained: TrainedStages) -> dict[str, str]:
    return {"expression": str(trained.expression), "engagement": str(trained.engagement)}


@pytest.fixture(scope="module")
def page(models: dict[str, str]) -> Page:
    return Page({name: Predictor.from_pretrained(folder).speed_up() for name, folder in models.items()}, SETTINGS)


# --- The camera


def test_without_consent_no_picture_is_looked_at(page: Page):
    session, refusal = page.start(False, "expression", "granted")
    assert session is None and "consent" in refusal
    assert page.watch(person_frame(), "expression", session) == (None, None, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("NotAllowedError", "refused. Allow it"),
        ("NotFoundError", "No camera was found"),
        ("NotReadableError", "Another program"),
        ("TypeError", "127.0.0.1 or over https"),
        ("OddError", "a camera (OddError)"),
    ],
)
def test_a_camera_that_does_not_come_is_said_plainly(page: Page, error: str, words: str):
    session, refusal = page.start(True, "expression", error)
    assert session is None and words in refusal and 'role="alert"' in refusal
    assert refusal == camera_refusal(error)


def test_a_session_sees_speaks_only_when_there_is_news_and_follows_the_model(
    page: Page, monkeypatch: pytest.MonkeyPatch
):
    clock = iter(np.arange(0, 10, 0.3))  # faces are looked for every time
    monkeypatch.setattr(app_actions.time, "monotonic", lambda: next(clock))
    session, refusal = page.start(True, "expression", "granted")
    assert refusal == ""
    picture, words, can_explain = page.watch(person_frame(), "expression", session)
    assert re.search(r'<img alt="the camera.*" src="data:image/jpeg;base64,', picture)
    assert re.fullmatch(r"<ul><li>person 1: \w+</li></ul>", words) and can_explain
    assert page.watch(person_frame(), "expression", session)[1:] == (None, None), "the same words would be read again"
    picture, words, can_explain = page.watch(EMPTY_ROOM, "expression", session)
    assert picture is not None and can_explain is False, "who has just left is not explained"
    assert page.watch(person_frame(), "expression", session)[2]
    _, words, can_explain = page.watch(person_frame(), "engagement", session)
    assert "collecting 1 of 4 frames" in words and can_explain is False
    assert page.watch(None, "engagement", session) == (None, None, None)


def test_who_stops_is_forgotten_even_while_a_picture_is_on_its_way(page: Page, monkeypatch: pytest.MonkeyPatch):
    session, _ = page.start(True, "expression", "granted")
    page.watch(person_frame(), "expression", session)
    inside, go_on = threading.Event(), threading.Event()
    step = session.live.step

    def slow_step(*arguments: object) -> object:
        inside.set()
        assert go_on.wait(30)
        return step(*arguments)

    monkeypatch.setattr(session.live, "step", slow_step)
    watching = threading.Thread(target=page.watch, args=(person_frame(), "expression", session))
    watching.start()
    assert inside.wait(30)
    stopping = threading.Thread(target=page.stop, args=(session,))
    stopping.start()
    go_on.set()
    watching.join(30), stopping.join(30)
    assert (session.live, session.states, list(session.frames), session.words) == (None, [], [], "")
    assert page.watch(person_frame(), "expression", session) == (None, None, None)
    assert "nothing to explain" in page.explain_camera(session)


def test_words_for_what_is_missing():
    small = PersonState(1, (0, 0, 9, 9), True, None, None, "face too small")
    unsure = PersonState(2, (0, 0, 90, 90), True, None, {"a": 0.5, "b": 0.5}, "uncertain")
    whole = PersonState(None, None, True, "<b>", {"<b>": 1.0}, None)
    away = [PersonState(3, None, False, None, None, f"no face for {seconds} s") for seconds in (1.2, 1.4)]
    assert live_words(away[:1]) == live_words(away[1:]), "or it would be read out several times a second"
    words = live_words([small, unsure, whole])
    assert "person 1: face too small; come closer" in words and "person 2: uncertain<" in words
    assert "whole picture: &lt;b&gt;" in words, "names of labels are text, not HTML"
    assert "No face is visible" in live_words([])


def test_the_statement_says_what_it_must_and_where_pictures_go():
    for is_local, place in ((True, "All work is done on this machine"), (False, "To the server")):
        text = statement(is_local)
        for word in (WHAT_IT_IS, MUST_NOT_BE_USED, "deleted", place):
            assert word in text
    assert "this machine" not in statement(False)


# --- Files


def test_a_video_has_the_command_line_s_answer_a_plot_and_a_table_to_download(page: Page, tmp_path: Path):
    frames = [person_frame(roll) for roll in range(-4, 4)] + [EMPTY_ROOM] * 4
    path = write_video(tmp_path / "a {{b}} & c.mp4", frames)
    html = page.look_at_video(str(path), "engagement", 1.0)
    (line,) = to_lines(page.predictors["engagement"].predict_video(path))
    assert unescape(html).count(line.removeprefix(f"{tmp_path}{os.sep}")) == 1
    assert "data:image/png;base64," in html and str(tmp_path) not in html
    data = base64.b64decode(re.search(r'href="data:text/csv;base64,([^"]+)"', html)[1]).decode()
    rows = list(csv.DictReader(io.StringIO(data)))
    assert [(row["start_sec"], row["end_sec"]) for row in rows] == [("0.0", "1.0"), ("1.0", "2.0"), ("2.0", "3.0")]
    assert sum(float(rows[0][name]) for name in ("engaged", "disengaged")) == pytest.approx(1, abs=1e-3)
    assert (rows[2]["label"], rows[2]["engaged"]) == ("", "") and "<td>no face long enough</td>" in html


def test_the_faces_of_a_photo_are_those_of_the_command_line(page: Page, tmp_path: Path):
    photo = write_photo(tmp_path / "two.png")
    html = page.look_at_photo(str(photo), "expression")
    assert "2 faces, numbered from left to right" in html and "data:image/jpeg" in html
    _, *lines = to_lines(page.predictors["expression"].predict_photo(photo))
    for number, line in enumerate(lines, start=1):
        said = re.fullmatch(rf"  {number}: (.*)  box .*", line)[1]
        assert f"<li>person {number}: {said}</li>" in html


def test_what_has_no_label_says_why_in_the_rule_s_words():
    faces = [
        FacePrediction(None, None, [10.0, 0.0, 30.0, 25.0], 0.98, "face too small"),
        FacePrediction(None, {"a": 0.52, "b": 0.48}, [90.0, 0.0, 150.0, 60.0], 0.97, "uncertain"),
    ]
    picture, rule = np.zeros((90, 160, 3), np.uint8), AnswerRule(("a", "b"))
    html = photo_page(picture, PhotoPrediction("x.jpg", faces), rule)
    assert "<li>person 1: face too small</li>" in html and "<li>person 2: uncertain  a 0.520" in html
    spans = [Span(0.0, 1.0, None, {"a": 0.5, "b": 0.5}, 1.0, "uncertain", 0.5)]
    film = VideoPrediction("x.mp4", None, {"a": 0.5, "b": 0.5}, 1.0, 0, spans, "uncertain", 0.5)
    html = video_page(film, rule)
    assert "x.mp4: uncertain  a 0.500, b 0.500" in html and "<td>uncertain</td>" in html


def test_models_have_names_and_say_what_must_be_known_of_them(page: Page, models: dict[str, str], tmp_path: Path):
    for run, title in (("a", None), ("b", None), ("c", "# Somebody's model")):
        (tmp_path / run / "engagement").mkdir(parents=True)
        if title:
            (tmp_path / run / "engagement/README.md").write_text(f"---\nx: 1\n---\n\n{title}\n")
    folders = [str(tmp_path / run / "engagement") for run in "abc"]
    assert name_models([*folders, "org/name"]) == dict(
        zip(
            [f"engagement ({tmp_path / 'a'})", f"engagement ({tmp_path / 'b'})", "Somebody's model", "org/name"],
            [*folders, "org/name"],
            strict=True,
        )
    )
    assert list(name_models([folders[0]])) == ["engagement"]
    html = page.about("engagement")
    assert "a clip of 4 frames" in html and "disengaged, engaged" in html
    assert "learned from drawn people" in html


def test_a_tab_that_is_not_for_the_model_says_so_before_anything_is_chosen(page: Page):
    assert page.no_photo("expression") == ""
    html = page.no_photo("engagement")
    assert "engagement takes no photos" in html and "For photos choose expression above." in html
    alone = Page({"engagement": page.predictors["engagement"]}, SETTINGS)
    assert "No model on this page reads photos." in alone.no_photo("engagement")


def test_where_an_upload_lies_is_not_said_and_the_reader_s_words_stay_whole(page: Page, tmp_path: Path):
    folder = tmp_path / "a b" / "it's"
    folder.mkdir(parents=True)
    (folder / "text.png").write_bytes(b"no picture")
    html = page.look_at_photo(str(folder / "text.png"), "expression")
    assert unescape(html).count("text.png") >= 1 and str(tmp_path) not in html and "it's" not in unescape(html)
    plain = tmp_path / "text.png"
    plain.write_bytes(b"no picture")
    text = unescape(page.look_at_photo(str(plain), "expression"))
    assert text.count("'") % 2 == 0 and str(tmp_path) not in text, text


def test_what_cannot_be_used_is_refused_by_name(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    empty = write_video(tmp_path / "empty room.mp4", [EMPTY_ROOM] * 4)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    answers = [
        (page.look_at_video(str(empty), "engagement", 5.0), "No face was found in empty room.mp4. Choose"),
        (page.look_at_photo(str(broken), "expression"), "broken.jpg"),
        (page.look_at_photo(str(broken), "engagement"), "reads clips"),
        (page.explain(str(broken), "engagement"), "broken.jpg"),
        (page.look_at_video(None, "engagement", 5.0), "Choose a "),
        (page.look_at_photo(None, "expression"), "Choose a "),
        (page.explain(None, "expression"), "Choose a "),
    ]
    monkeypatch.setattr(app_actions, "MAX_VIDEO_SEC", 0.5)
    answers.append((page.look_at_video(str(empty), "engagement", 5.0), "at most 0.5 s, got 1 s"))
    for html, words in answers:
        assert 'role="alert"' in html and words in html
        assert str(tmp_path) not in html


# --- Without a browser


def test_a_page_needs_gradio_and_a_model(models: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engagement_recognition.data.required_packages.installed_version", {}.get)
    with pytest.raises(EngagementInputError, match=r"gradio>=6.31, got gradio none; pip install 'gradio>="):
        build_app(models)
    monkeypatch.undo()
    pytest.importorskip("gradio")
    with pytest.raises(EngagementInputError, match="at least one model"):
        build_app({})
    with pytest.raises(ModelLoadError):
        build_app({"x": "no/such/folder"})


def test_a_space_is_whole(trained: TrainedStages, tmp_path: Path):
    pytest.importorskip("gradio")
    options = ["export", str(trained.engagement), "--to", "space", "--output", str(tmp_path / "space")]
    done = CliRunner().invoke(cli, options)
    assert done.exit_code == 0 and "hf upload" in done.stdout and "--private" in done.stdout
    assert "not a local folder" not in done.stdout
    files = {path.relative_to(tmp_path / "space").as_posix() for path in (tmp_path / "space").rglob("*.*")}
    assert {"app.py", "README.md", "requirements.txt", "model/config.json", "model/model.safetensors"} <= files
    assert {"engagement_recognition/live/page.py", "engagement_recognition/processor/input_errors.py"} <= files
    assert not [
        name
        for name in files
        if name.endswith("predictions.parquet") or "__pycache__" in name or name.startswith("tests")
    ]
    _, front, body = (tmp_path / "space/README.md").read_text(encoding="utf-8").split("---\n", 2)
    matter = yaml.safe_load(front)
    assert (matter["sdk"], matter["app_file"], matter["license"]) == ("gradio", "app.py", "mit")
    assert "must not be used for" in body and str(tmp_path) not in body


def test_a_space_of_a_hub_model_loads_it_from_there(tmp_path: Path):
    pytest.importorskip("gradio")
    export_space("someone/some-model", tmp_path / "space")
    assert "'someone/some-model', 'someone/some-model'" in (tmp_path / "space/app.py").read_text()
    assert yaml.safe_load((tmp_path / "space/README.md").read_text().split("---\n")[1])["models"] == [
        "someone/some-model"
    ]
    assert not (tmp_path / "space/model").exists()
    with pytest.raises(DataError, match="new or empty folder"):
        export_space("someone/some-model", tmp_path / "space")
    with pytest.raises(ModelLoadError, match="Expected a model's folder"):
        export_space(tmp_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("model", ["runs/nix", "../nix", "./nix", "/nix", "nix", "a b/c", "org/na?me", "org/a/b"])
def test_a_mistyped_folder_is_no_hub_model(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=r"no such folder .*; check the path") as refusal:
        export_space(model, tmp_path / "space")
    assert "\n" not in str(refusal.value) and [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_command_says_what_it_took_for_a_hub_model(tmp_path: Path):
    pytest.importorskip("gradio")
    options = ["export", "someone/some-model", "--to", "space", "--output", str(tmp_path / "space")]
    done = CliRunner().invoke(cli, options)
    assert done.exit_code == 0
    assert "someone/some-model is not a local folder" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGHUP"])
def test_a_page_that_is_ended_leaves_no_upload_behind(models: dict[str, str], tmp_path: Path, ending: str):
    if not hasattr(signal, ending):
        pytest.skip(f"no {ending} here")
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from engagement_recognition.cli.main import main; main()"
    command = [sys.executable, "-c", program, "app", models["expression"], "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert f":{port}/ shows the page" in process.stdout.readline()
        (uploads,) = tmp_path.iterdir()
        (uploads / "somebody.mp4").write_bytes(b"a face")
        process.send_signal(getattr(signal, ending))
        process.communicate(timeout=60)
    assert process.returncode == 0 and list(tmp_path.iterdir()) == []
