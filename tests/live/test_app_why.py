"""The page's "Why?": whose heat maps they are, what they speak for, and that nothing forgotten comes back in them."""

import base64
import io
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainedStages
from page_inputs import EMPTY_ROOM, SETTINGS, person_frame, write_photo, write_video
from PIL import Image

from engagement_recognition.data.drawn.faces import FacePose, Person, draw_people, draw_subject
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.live import page_actions as app_actions
from engagement_recognition.live import page_html as app_pages
from engagement_recognition.live.page import Page
from engagement_recognition.live.settings import LiveSettings


@pytest.fixture(scope="module")
def page(trained: TrainedStages) -> Page:
    folders = {"expression": trained.expression, "engagement": trained.engagement}
    return Page({name: Predictor.from_pretrained(folder).speed_up() for name, folder in folders.items()}, SETTINGS)


@pytest.mark.parametrize("meanwhile", ["stop", "another model"])
def test_what_was_forgotten_while_it_was_explained_is_not_shown(
    page: Page, monkeypatch: pytest.MonkeyPatch, meanwhile: str
):
    session, _ = page.start(True, "expression", "granted")
    page.watch(person_frame(), "expression", session)
    explain_track = app_actions.explain_track

    def explain_while_it_changes(*arguments: object) -> object:
        if meanwhile == "stop":
            page.stop(session)
        else:
            page.watch(person_frame(), "engagement", session)
        return explain_track(*arguments)

    monkeypatch.setattr(app_actions, "explain_track", explain_while_it_changes)
    assert page.explain_camera(session) == ""


def test_no_visitor_waits_for_another_s_explanation(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inside, go_on = threading.Event(), threading.Event()
    explain_file = app_actions.explain_file

    def slow_explain(*arguments: object) -> object:
        inside.set()
        assert go_on.wait(60)
        return explain_file(*arguments)

    monkeypatch.setattr(app_actions, "explain_file", slow_explain)
    photo = str(write_photo(tmp_path / "two.png"))
    explaining = threading.Thread(target=page.explain, args=(photo, "expression"))
    explaining.start()
    assert inside.wait(60)
    session, _ = page.start(True, "expression", "granted")
    assert "person 1" in page.watch(person_frame(), "expression", session)[1]
    assert "2 faces" in page.look_at_photo(photo, "expression")
    go_on.set()
    explaining.join(60)


def test_a_camera_that_is_turned_begins_a_new_window_to_explain(page: Page):
    session, _ = page.start(True, "engagement", "granted")
    for frame in (person_frame(), np.rot90(person_frame())):
        session.keep(session.live, np.ascontiguousarray(frame), 0.0)
    assert [frame.pixels.shape for frame in session.frames] == [(640, 480, 3)]


def test_why_of_the_camera_explains_the_last_window(page: Page, monkeypatch: pytest.MonkeyPatch):
    assert "start the camera first" in page.explain_camera(None)
    assert "There is no prediction" in page.explain_camera(page.start(True, "engagement", "granted")[0])
    clock = iter(np.arange(0, 10, 0.1))
    monkeypatch.setattr(app_actions.time, "monotonic", lambda: next(clock))
    for model, num_kept in (("expression", 1), ("engagement", 4)):
        session, _ = page.start(True, model, "granted")
        for roll in range(14):
            page.watch(person_frame(roll - 7), model, session)
        assert len(session.frames) == num_kept
        assert session.frames[-1] is not session.frames[0] or num_kept == 1
        html = page.explain_camera(session)
        assert "data:image/png;base64," in html and "alert" not in html
        assert f"<p>Model: {model}; input: the camera." in html and "not smoothed over time" in html
        assert "learned from drawn people" in html
        what = "the last window of pictures alone" if num_kept > 1 else "the last picture alone"
        assert f"the most probable label in {what}" in html and ("of person 1" in html) == (num_kept > 1)
    for _ in range(4):
        page.watch(EMPTY_ROOM, model, session)
    assert "There is no prediction for anybody" in page.explain_camera(session), "they have just left"


def test_why_of_the_camera_calls_people_as_the_live_picture_does(page: Page, monkeypatch: pytest.MonkeyPatch):
    right, left, gone = (
        Person(draw_subject(seed), FacePose(), (x, 220), 90) for seed, x in ((1, 480), (4, 160), (5, 330))
    )
    far = Person(draw_subject(2), FacePose(), (320, 60), 34)  # "face too small": no word is said of it
    clock = iter(np.arange(0, 30, 0.3))
    monkeypatch.setattr(app_actions.time, "monotonic", lambda: next(clock))
    drawn = []
    monkeypatch.setattr(
        app_pages, "save_explanation", lambda *arguments: drawn.append(arguments) or arguments[1].touch()
    )
    for model in ("expression", "engagement"):
        session, _ = page.start(True, model, "granted")
        for people in ([right], *[[right, left, gone, far]] * 7, *[[right, left, far]] * 4):
            page.watch(draw_people(people), model, session)
        drawn.clear()
        html = page.explain_camera(session)
        boxes = {state.number: state.box_xyxy_px for state in session.states if state.scores}
        assert boxes[1][0] > boxes[2][0] and set(boxes) == {1, 2}, "the first to appear sits on the right"
        clips = [clip for explanation, *_ in drawn for clip in explanation.clips]
        assert len(clips) == 2, "who left is not explained, nor who is too small"
        for number, clip in enumerate(clips, start=1):
            assert clip.face.boxes_xyxy_px[-1] == pytest.approx(boxes[number], abs=15)
        if model == "expression":
            assert list(drawn[0][2]) == [1, 2] and "the last picture alone" in html
        else:
            assert [explanation.source for explanation, *_ in drawn] == ["person 1", "person 2"]


def test_why_shows_heat_maps(page: Page, tmp_path: Path):
    for path, model in (
        (write_photo(tmp_path / "two.png"), "expression"),
        (write_video(tmp_path / "one.mp4", [person_frame(roll) for roll in range(4)]), "engagement"),
    ):
        html = page.explain(str(path), model)
        picture = Image.open(io.BytesIO(base64.b64decode(re.search(r'data:image/png;base64,([^"]+)"', html)[1])))
        assert min(picture.size) > 300 and np.ptp(np.asarray(picture.convert("RGB")), axis=2).max() > 100, "colour"


@pytest.mark.parametrize(
    ("abstain_below", "words"),
    [
        (0.0, "The evidence for the predicted label; "),
        (1.0, "the most probable one: person 1 (uncertain), person 2 (uncertain); "),
        (
            None,
            "the predicted label or, where none was given, the most probable one: person 2 (uncertain); ",
        ),
    ],
)
def test_why_does_not_call_predicted_what_was_given_no_label(
    page: Page, tmp_path: Path, abstain_below: float | None, words: str
):
    photo = str(write_photo(tmp_path / "two.png"))
    if abstain_below is None:  # between the two faces' certainties, of which the left one's is the higher
        first, second = page.predictors["expression"].predict_photo(Path(photo)).faces
        abstain_below, is_left_higher = (first.certainty + second.certainty) / 2, first.certainty > second.certainty
        words = words if is_left_higher else words.replace("person 2", "person 1")
    other = Page(page.predictors, LiveSettings(abstain_below=abstain_below))
    html = other.explain(photo, "expression")
    assert words in html and "<p>Model: expression; input: two.png." in html
    assert "<p>Model: expression; input: two.png." in other.look_at_photo(photo, "expression")
