"""The page as a person meets it: headless Chromium, whose camera plays a drawn face, an empty room, a far face."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, write_camera_file
from conftest import TrainedStages
from page_inputs import EMPTY_ROOM, SETTINGS, person_frame, write_photo, write_video

from engagement_recognition.data.drawn.faces import FacePose, Person, draw_people, draw_subject
from engagement_recognition.live import page as app_module
from engagement_recognition.live.page import build_app, launch


@pytest.fixture(scope="module")
def models(trained: TrainedStages) -> dict[str, str]:
    return {"expression": str(trained.expression), "engagement": str(trained.engagement)}


@pytest.fixture(scope="module")
def address(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served; uploads lie in the folder that GRADIO_TEMP_DIR names."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    pytest.importorskip("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = build_app(models, SETTINGS)
        yield launch(app)
        app.close()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    far = draw_people([Person(draw_subject(1), FacePose(), (320, 220), 32)])
    scenes = [*(person_frame(roll) for roll in range(10)), *[EMPTY_ROOM] * 10, *[far] * 10]
    write_camera_file(folder / "camera.y4m", scenes, fps=4)
    with Browser(folder / "profile", folder / "camera.y4m") as opened:
        yield opened


def files_under(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file() and path.stat().st_size]


def start_camera(browser: Browser, app: object) -> None:
    """On a page of its own, until it speaks of somebody."""
    browser.allow_camera(True)
    browser.open(launch(app), width_px=1200)
    browser.click("label", "I am an adult")
    browser.click("button", "Start the camera")
    browser.wait_for(f"{VIDEO_RUNS} && /person \\d: /.test({WORDS})")


WORDS = "document.querySelector('#words')?.innerText ?? ''"
VIDEO_RUNS = "!!document.querySelector('#camera video')?.srcObject?.active"
IN_VIEW = "(r) => r.top >= 0 && r.bottom <= window.innerHeight"
FITS = "document.documentElement.scrollWidth <= window.innerWidth"


@pytest.mark.browser
def test_the_camera_starts_after_consent_and_is_forgotten(browser: Browser, address: str):
    browser.allow_camera(True)
    browser.open(address, width_px=390)
    start = "[...document.querySelectorAll('button')].find((e) => e.innerText == 'Start the camera')"
    browser.wait_for(f"{start}?.disabled")  # no camera without a tick
    assert "must not be used for" in browser.text()
    assert browser.ask("!document.querySelector('video')") and browser.ask(FITS)
    browser.tab_to("input[type=checkbox]")
    browser.press(" ")
    browser.wait_for(f"!{start}.disabled")
    browser.tab_to("button.primary")
    browser.press("Enter")
    browser.wait_for(f"/person \\d: (angry|disgust|fear|happy|sad|surprise|neutral)/.test({WORDS})")
    assert browser.ask("document.activeElement.id == 'stop'"), "the next key can stop it"
    assert "Grading, discipline" not in browser.text(), "what was agreed to is out of the way"
    assert browser.ask("[...document.querySelectorAll('#camera button')].every((e) => !e.offsetParent)"), (
        "one way to stop"
    )
    assert browser.ask(VIDEO_RUNS) and browser.ask("!!document.querySelector('#drawn img').naturalWidth")
    browser.click("button:enabled", "Why?")
    browser.wait_for("!!document.querySelector('#camera-why img, #camera-why [role=alert]')")
    browser.ask("window.scrollTo(0, document.body.scrollHeight)")
    browser.wait_for("window.scrollY > 300")
    assert browser.ask(f"(({IN_VIEW})(document.querySelector('#stop').getBoundingClientRect()))"), "wherever one reads"
    browser.wait_for(f"/no face|No face is visible/.test({WORDS})")
    browser.wait_for(f"/too small/.test({WORDS})")
    assert browser.ask(FITS)
    assert files_under(os.environ["GRADIO_TEMP_DIR"]) == [], "camera pictures are not to be written anywhere"
    browser.ask("window.track = document.querySelector('#camera video').srcObject.getTracks()[0], 1")
    browser.click("button[role=tab]", "Photo")
    browser.click("button", "stop and forget")  # in sight from every tab
    assert browser.ask("window.track.readyState == 'ended'"), "the camera is off before the server has answered"
    browser.wait_for("!document.querySelector('#stop')?.offsetParent")  # what lies below moves up
    browser.click("button[role=tab]", "Camera")
    browser.wait_for(f"!document.querySelector('video') && {start}?.disabled")
    assert browser.ask(
        "!document.querySelector('#drawn img') && !document.querySelector('input[type=checkbox]').checked"
    )
    browser.click("label", "I am an adult")  # and can be started again
    browser.click("button", "Start the camera")
    browser.wait_for(f"{VIDEO_RUNS} && /person \\d: /.test({WORDS})")


@pytest.mark.browser
@pytest.mark.parametrize("is_pressed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_no_camera_stays_on_once_the_page_s_program_is_gone(
    browser: Browser, address: str, models: dict[str, str], is_pressed: bool
):
    start_camera(browser, app := build_app(models, SETTINGS))
    browser.ask("window.track = document.querySelector('#camera video').srcObject.getTracks()[0], 1")
    if is_pressed:
        browser.wait_for("!!window.cameraWatch")
        browser.ask("clearInterval(window.cameraWatch)")  # or it would be off before anybody can press
    app.close()
    if is_pressed:
        browser.wait_for(
            "/Connection to the server was lost/.test(document.body.innerText)"
        )  # Gradio runs no more `js`
        browser.click("button", "stop and forget")
        assert browser.ask("window.track.readyState == 'ended'")
        return
    browser.wait_for("window.track.readyState == 'ended'")
    browser.wait_for("/does not answer, so the camera was turned off/.test(document.body.innerText)")
    assert "The camera is on" not in browser.text() and "person 1" not in browser.text()


@pytest.mark.slow
@pytest.mark.browser
def test_a_late_explanation_is_not_shown_to_whoever_started_anew(
    browser: Browser, address: str, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    inside, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def late(*_: object) -> str:
        inside.set()
        go_on.wait(60)
        done.set()
        return "<b>late</b>"

    monkeypatch.setattr(app_module.Page, "explain_camera", late)
    start_camera(browser, app := build_app(models, SETTINGS))
    browser.click("button", "Why?")
    assert inside.wait(30)
    browser.click("button", "stop and forget")
    browser.wait_for("!document.querySelector('#stop')?.offsetParent")
    browser.click("label", "I am an adult")
    browser.click("button", "Start the camera")
    browser.wait_for(f"/person \\d: /.test({WORDS})")
    go_on.set()
    assert done.wait(30)
    time.sleep(1)  # as long as a result takes to be shown
    assert browser.ask("!document.querySelector('#camera-why b')")
    app.close()


@pytest.mark.browser
def test_a_refused_camera_is_said_plainly(browser: Browser, address: str):
    browser.allow_camera(False)
    browser.open(address, width_px=1200)
    browser.click("label", "I am an adult")
    browser.wait_for("!document.querySelector('button.primary').disabled")
    browser.click("button.primary", "Start the camera")
    browser.wait_for(
        "[...document.querySelectorAll('[role=alert]')].some((e) => /camera was refused. Allow it/.test(e.innerText))"
    )
    assert browser.ask("!document.querySelector('video')")


@pytest.mark.browser
def test_files_are_looked_at_and_explained(browser: Browser, address: str, tmp_path: Path):
    browser.open(address, width_px=1200)
    browser.click("button[role=tab]", "Photo")
    browser.choose_file("#photo-file input[type=file]", write_photo(tmp_path / "two.png"))
    browser.wait_for("document.querySelector('#photo-file').innerText.includes('two')")
    browser.click("button", "Look at the photo")
    browser.wait_for("/person 1: .*person 2: /s.test(document.querySelector('#photo-result').innerText)")
    browser.click("button[role=tab]", "Video")
    video = write_video(tmp_path / "one.mp4", [person_frame(roll) for roll in range(8)] + [EMPTY_ROOM] * 24)
    browser.click("label", "engagement")
    browser.choose_file("#video-file input[type=file]", video)
    browser.wait_for("document.querySelector('#video-file').innerText.includes('one')")
    browser.click("button", "Look at the video")
    browser.wait_for("document.querySelectorAll('#video-result tbody tr').length == 2")
    assert browser.ask("document.querySelector('#video-result a[download]').download") == "one_timeline.csv"
    browser.ask("[...document.querySelectorAll('button')].find((e) => e.innerText == 'Why?' && e.offsetParent).click()")
    browser.wait_for("document.querySelector('#video-why img')?.naturalWidth > 300")


@pytest.mark.browser
def test_uploads_are_deleted(
    browser: Browser, address: str, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app_module, "DELETE_UPLOADS", (1, 2))
    app = build_app(models, SETTINGS)
    browser.open(launch(app), width_px=1200)
    browser.click("button[role=tab]", "Photo")
    browser.choose_file("#photo-file input[type=file]", write_photo(tmp_path / "short_lived.png"))
    browser.wait_for("document.querySelector('#photo-file').innerText.includes('short_lived')")
    for is_there in (True, False):
        for _ in range(600):
            if any(path.name == "short_lived.png" for path in files_under(os.environ["GRADIO_TEMP_DIR"])) == is_there:
                break
            time.sleep(0.05)
    browser.click("button", "Look at the photo")
    browser.wait_for("/short_lived.png was deleted/.test(document.querySelector('#photo-result').innerText)")
    app.close()


@pytest.mark.browser
def test_a_tab_that_is_not_for_the_model_says_so_and_what_can_be_used_has_a_name(browser: Browser, address: str):
    browser.open(address, width_px=390)
    browser.click("button[role=tab]", "Photo")
    browser.wait_for("!!document.querySelector('#photo-file')?.offsetParent")
    browser.click("label", "engagement")
    browser.wait_for("/takes no photos/.test(document.querySelector('#no-photo')?.innerText ?? '')")
    browser.wait_for("!document.querySelector('#photo-file')?.offsetParent")
    assert "learned from drawn people" in browser.text()
    browser.click("button[role=tab]", "Video")
    browser.wait_for("!!document.querySelector('#video-file')?.offsetParent")
    used = {"button", "checkbox", "radio", "tab", "slider", "spinbutton", "radiogroup", "link"}
    names = [name for role, name in browser.controls() if role in used]
    assert all(names) and not [name for name in names if "common." in name], names
    assert {"Look at the video", "expression", "engagement", "Photo"} <= set(names)
    assert browser.ask("document.querySelector('#model').getAttribute('aria-label')") == "Model"


@pytest.mark.browser
def test_the_page_asks_nobody_else(browser: Browser, address: str):
    browser.open(address, width_px=1200)
    browser.wait_for("document.querySelector('button[role=tab]')?.offsetParent && true")
    elsewhere = [url for url in browser.requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert elsewhere == [] and len(browser.requests) > 10
