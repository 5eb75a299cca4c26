"""The web page: a webcam, a video or a photo in, a model's predictions for its faces out. Also the page of a Space.

The camera starts only after a plain statement and consent, and "stop and forget" is visible in every tab. Gradio passes
camera pictures in memory; uploads go to a temporary folder that is emptied. No telemetry, no external fonts or scripts.
Actions are in `page_actions`, texts in `page_html`; gradio is imported late.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from ..data.required_packages import require_extra
from ..hub.model_files import title_of
from ..inference.placement import Placement
from ..inference.predictor import Predictor
from ..processor.input_errors import EngagementInputError
from ..processor.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from .page_actions import LiveSession, Page
from .page_guard import RequestGuard, guard_inputs
from .page_html import AGREEMENT, SERVER_LOST, refusal_page, statement
from .settings import LiveSettings
from .signals import quit_signals

if TYPE_CHECKING:
    import gradio

TITLE = "Apparent engagement"
CAMERA_SIZE_PX = (640, 480)
STREAM_EVERY_SEC = 0.2  # the interval of face detection
MAX_FILE_SIZE = "500mb"
DELETE_UPLOADS = (60, 300)  # interval, and age from which uploads are deleted, in seconds
FORGET_AFTER_SEC = 300  # a camera session without new pictures
ASK_SERVER_EVERY_MS, SERVER_ANSWERS_MS = 2000, 10000  # while a camera is on; a busy server is slow
LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Gradio's camera is silent when it is refused, so the browser is asked first: "granted", or an exception's name.
_ASK_FOR_CAMERA = """async (agreed, model) => {
    try {
        const stream = await navigator.mediaDevices.getUserMedia({video: true});
        stream.getTracks().forEach((track) => track.stop());
        return [agreed, model, "granted"];
    } catch (error) { return [agreed, model, error.name]; }
}"""
# After consent the camera's own two buttons are pressed by this script and hidden, since its "Stop" would leave the
# camera on. If the script does not find them, they stay visible.
# "Stop and forget" turns the camera off directly in the browser: once the server is gone, Gradio runs nothing, not even
# an event's `js`. The camera is also turned off when the server does not answer.
_START_CAMERA = """async () => {
    const camera = () => document.querySelector("#camera");
    const turnOff = () => camera()?.querySelector("video")?.srcObject?.getTracks().forEach((track) => track.stop());
    const run = (window.cameraRun = {isStopped: false}), isLatest = () => window.cameraRun === run;
    clearInterval(window.cameraWatch);
    delete document.body.dataset.serverLost;
    if (camera()) delete camera().dataset.started;
    document.addEventListener("click", function onClick(event) {  // before Gradio handles the button
        if (!event.target.closest("#stop")) return;
        run.isStopped = true;
        turnOff();
        document.removeEventListener("click", onClick, true);
    }, true);
    let pressed = 0;
    for (const button of ["#camera [title='grant webcam access'] button", "#camera button[aria-label='capture photo']"])
        for (let tries = 0; tries < 50 && isLatest() && !run.isStopped; tries++) {
            const found = document.querySelector(button);
            if (found) { found.click(); pressed++; break; }
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
    if (!isLatest() || !camera()) return;  // refused
    if (pressed == 2) camera().dataset.started = "";
    document.querySelector("#stop")?.focus();
    window.cameraWatch = setInterval(async () => {
        if (run.isStopped && !camera()) return clearInterval(window.cameraWatch);
        if (run.isStopped) turnOff();  // also a stream that was still starting
        try {
            await fetch(location.href, {method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS)});
        } catch {
            if (!isLatest()) return;
            if (!run.isStopped) document.querySelector("#stop")?.click();
            document.body.dataset.serverLost = "";
        }
    }, WATCH_MS);
}""".replace("ANSWER_MS", str(SERVER_ANSWERS_MS)).replace("WATCH_MS", str(ASK_SERVER_EVERY_MS))
# Elements for which Gradio gives screen readers no name, or a picture's file name.
_NAMES = {
    "#model": "Model",
    "#camera video": "The camera's own picture",
    "#photo-file button[aria-label=Clear]": "Remove the photo",
    "#video-file button[aria-label=Clear]": "Remove the video",
    "#photo-file .download a": "Download the photo again",
    "#video-file .download a": "Download the video again",
}
_GIVE_NAMES = """() => {
    const names = NAMES;
    const give = () => {
        for (const [selector, name] of Object.entries(names))
            for (const found of document.querySelectorAll(selector)) found.setAttribute("aria-label", name);
        for (const icon of document.querySelectorAll(":is(button, a, label) svg"))
            icon.setAttribute("aria-hidden", "true");
    };
    new MutationObserver(give).observe(document.body, {childList: true, subtree: true});
    give();
}""".replace("NAMES", json.dumps(_NAMES))
_TRANSLATIONS = {"common.complete": "Done"}  # Gradio would show the key
_CSS = """
#stop-bar { position: sticky; top: 0; z-index: 30; }
html { scroll-padding-top: 80px; }  /* so that the bar does not cover focused elements */
.care { color: #b45309; } .dark .care { color: #fbbf24; }
.refusal { border-left: 4px solid #D55E00; padding: 0.5em 1em; }
body[data-server-lost] :is(#stop, #camera-panel), body:not([data-server-lost]) #server-lost { display: none; }
#camera[data-started] :is(button, .button-wrap) { display: none; }
@media (max-width: 600px) {  /* the annotated picture is enough; two do not fit */
    #camera[data-started] { position: absolute; width: 1px; height: 1px; min-width: 0; overflow: hidden; opacity: 0; }
    #camera-column { min-width: 0 !important; flex: 0 !important; }
}
.wide { overflow-x: auto; contain: inline-size; } .wide img { min-width: 640px; max-width: 100%; }
.result li, .answer { white-space: pre-wrap; }
.result img { max-width: 100%; height: auto; } #words { font-size: 1.2em; }
.result table { border-collapse: collapse; font-size: 0.9em; }
.result th, .result td { padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #8884; }
.result a { text-decoration: underline; } .result ul { padding-left: 1.4em; list-style: disc; }
.gradio-container { overflow: clip !important; max-width: 1000px !important; margin: 0 auto !important; }
*:focus-visible { outline: 3px solid #0072B2 !important; outline-offset: 2px; }
"""


def name_models(models: Sequence[str]) -> dict[str, str]:
    """Folders or Hub ids by displayed name: the card's title or the folder's name, with its parent folder if two would
    be the same."""
    titles = [title_of(Path(model)) if Path(model).is_dir() else model for model in models]
    places = [f"{title} ({Path(model).parent})" for title, model in zip(titles, models, strict=True)]
    shown = [place if titles.count(title) > 1 else title for title, place in zip(titles, places, strict=True)]
    return {name if shown.count(name) == 1 else model: model for name, model in zip(shown, models, strict=True)}


def build_app(
    models: dict[str, str],
    settings: LiveSettings | None = None,
    is_local: bool = True,
    placement: Placement | None = None,
) -> "gradio.Blocks":
    """The page, ready for `launch`.

    Args:
        models: folder or Hub id by displayed name.
        is_local: whether the page is for this machine only; its statement about pictures depends on it.
        placement: for every model.

    Raises:
        EngagementInputError: no model is named, one cannot be loaded, or the extra `app` is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, and later
    require_extra("app", ("gradio",))
    if not models:
        raise EngagementInputError("The page needs at least one model; name a folder or a Hub id.")
    placed = asdict(placement or Placement())
    predictors = {name: Predictor.from_pretrained(model, **placed).speed_up() for name, model in models.items()}
    import gradio as gr  # takes seconds: a model that cannot be loaded is refused before

    for name, predictor in predictors.items():
        for warning in predictor.warnings:
            print(f"take care: {name}: {warning}", file=sys.stderr)
    page, first = Page(predictors, settings or LiveSettings()), next(iter(models))
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=DELETE_UPLOADS) as app:
        gr.Markdown(f"# {TITLE}")
        with gr.Accordion("What this is, what it must not be used for, where pictures go", open=True) as about:
            gr.Markdown(statement(is_local))
        model = gr.Radio(list(models), value=first, label="Model", elem_id="model")
        said_of_model = gr.HTML(page.about(first), elem_id="about-model", elem_classes="result")
        model.change(page.about, model, said_of_model, api_visibility="private", show_progress="hidden")
        with gr.Row(visible=False, elem_id="stop-bar") as bar:  # above the tabs, so that it is visible in each
            stop = gr.Button("The camera is on: stop and forget", variant="stop", elem_id="stop")
        gr.HTML(refusal_page(SERVER_LOST), elem_id="server-lost", elem_classes="result")
        with gr.Tab("Camera"):
            _add_camera(page, model, bar, stop, about)
        with gr.Tab("Video"):
            step = gr.Slider(1, 60, value=5, step=1, label="Seconds per step of the timeline", render=False)
            _add_upload(page, model, "video", list(VIDEO_SUFFIXES), page.look_at_video, step)
        with gr.Tab("Photo"):
            reason = page.no_photo(first)
            instead = gr.HTML(reason, visible=bool(reason), elem_id="no-photo", elem_classes="result")
            with gr.Column(visible=not reason) as tab:
                _add_upload(page, model, "photo", list(PICTURE_SUFFIXES), page.look_at_photo)
        model.change(
            lambda name: (gr.HTML(page.no_photo(name), visible=bool(page.no_photo(name))),
                          gr.Column(visible=not page.no_photo(name))),
            model, [instead, tab], api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        app.load(None, js=_GIVE_NAMES)
    guard_inputs(app)
    return app


def launch(app: "gradio.Blocks", port: int | None = None, host: str = "127.0.0.1") -> str:
    """Serve the page in threads, without telemetry, history or extra pages; returns its address."""
    import gradio as gr

    theme = gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],  # the visitor's own fonts
        font_mono=["ui-monospace", "monospace"],
    )
    # White text needs a darker background than the theme's.
    theme.set(button_primary_background_fill="*primary_700", button_cancel_background_fill="#b91c1c")
    _, address, _ = app.launch(
        server_name=host,
        server_port=port,
        share=False,  # sharing would send pictures through another server
        theme=theme,
        css=_CSS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=MAX_FILE_SIZE,
        i18n=gr.I18n(en=_TRANSLATIONS),
        quiet=True,
        prevent_thread_lock=True,
        app_kwargs={"middleware": [(RequestGuard, (), {"page": app})]},
    )
    return address


def serve(
    models: dict[str, str], port: int | None = None, host: str = "127.0.0.1", placement: Placement | None = None
) -> None:
    """Serve a page for these models, by displayed name, until a signal to quit; then uploads are deleted.

    Raises:
        EngagementInputError: as `build_app`, or the port is in use.
    """
    for number in quit_signals():  # otherwise visitors' pictures would remain
        signal.signal(number, signal.default_int_handler)
    with TemporaryDirectory() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        app = build_app(models, is_local=host in LOOPBACK, placement=placement)
        try:
            address = launch(app, port, host)
        except OSError as error:
            raise EngagementInputError(f"The port {port} is not free ({error}); name another.") from error
        with suppress(KeyboardInterrupt):  # Ctrl-C may come before Gradio waits for it
            print(f"{address} shows the page; Ctrl-C ends it", flush=True)
            app.block_thread()


def _add_camera(
    page: Page, model: "gradio.Radio", bar: "gradio.Row", stop: "gradio.Button", about: "gradio.Accordion"
) -> None:
    import gradio as gr

    width_px, height_px = CAMERA_SIZE_PX
    wanted = {"video": {"width": {"ideal": width_px}, "height": {"ideal": height_px}, "facingMode": "user"}}
    session, camera_answer = gr.State(time_to_live=FORGET_AFTER_SEC), gr.Textbox(visible=False)
    with gr.Column() as gate:
        agreed = gr.Checkbox(label=AGREEMENT)
        start = gr.Button("Start the camera", variant="primary", interactive=False)
        refusal = gr.HTML(elem_classes="result")
    with gr.Column(visible=False, elem_id="camera-panel") as panel:
        words = gr.HTML(elem_id="words", elem_classes="result", html_template='<div aria-live="polite">${value}</div>')
        with gr.Row():  # stacked on a phone
            with gr.Column(scale=3, min_width=320):
                drawn = gr.HTML(elem_id="drawn", elem_classes="result")
            with gr.Column(scale=1, min_width=240, elem_id="camera-column"):
                # Not mirrored: inputs must match those of the training.
                options = gr.WebcamOptions(mirror=False, constraints=wanted)
                camera = gr.Image(
                    sources="webcam", streaming=True, webcam_options=options, label="Camera", elem_id="camera"
                )
        why = gr.Button("Why?", interactive=False)  # until there is a prediction to explain
        heat = gr.HTML(elem_id="camera-why", elem_classes="result")

    agreed.change(
        lambda ticked: gr.Button(interactive=ticked), agreed, start, api_visibility="private", show_progress="hidden"
    )
    asked = start.click(
        page.start, [agreed, model, camera_answer], [session, refusal], js=_ASK_FOR_CAMERA, api_visibility="private"
    )
    shown = asked.then(
        lambda held: (
            gr.Column(visible=held is None),
            *[gr.Column(visible=held is not None)] * 2,
            "",
            gr.Accordion(open=held is None),  # closed once it was agreed to
        ),
        session,
        [gate, panel, bar, heat, about],
        api_visibility="private",
        show_progress="hidden",
    )
    shown.then(None, js=_START_CAMERA)

    def watch(frame: np.ndarray | None, model_name: str, held: LiveSession | None) -> tuple[object, ...]:
        picture, new_words, can_explain = page.watch(frame, model_name, held)
        is_on = held is not None and held.live is not None
        shown = [gr.skip() if html is None else html for html in (picture, new_words)]
        button = gr.skip() if can_explain is None else gr.Button(interactive=can_explain)
        # Returning the session keeps it; a session that was stopped meanwhile must not come back.
        return held if is_on else gr.skip(), *shown, button

    camera.stream(
        watch,
        [camera, model, session],
        [session, drawn, words, why],
        stream_every=STREAM_EVERY_SEC,
        concurrency_limit=None,
        api_visibility="private",
        show_progress="hidden",
    )

    def forget(held: LiveSession | None) -> tuple[object, ...]:
        page.stop(held)
        gone = gr.Column(visible=False)
        start_page = gr.Column(visible=True), gone, gone, gr.Accordion(open=True), gr.Button(interactive=False)
        return None, "", "", "", False, *start_page

    explained = why.click(page.explain_camera, session, heat, api_visibility="private")
    model.change(lambda: "", None, heat, api_visibility="private", show_progress="hidden")
    cleared = [session, drawn, words, heat, agreed, gate, panel, bar, about, why]
    stop.click(forget, session, cleared, cancels=explained, api_visibility="private", show_progress="hidden")


def _add_upload(
    page: Page,
    model: "gradio.Radio",
    kind: str,
    suffixes: list[str],
    look: Callable[..., str],
    *options: "gradio.Slider",
) -> None:
    import gradio as gr

    gr.Markdown(f"Only a {kind} of yourself, or of adults who agreed.")
    file = gr.File(label=f"A {kind}", file_types=suffixes, type="filepath", elem_id=f"{kind}-file")
    for option in options:
        option.render()
    with gr.Row():
        look_button = gr.Button(f"Look at the {kind}", variant="primary")
        why = gr.Button("Why?")
    result = gr.HTML(elem_id=f"{kind}-result", elem_classes="result")
    heat = gr.HTML(elem_id=f"{kind}-why", elem_classes="result")
    look_button.click(look, [file, model, *options], result, api_visibility="private")
    why.click(page.explain, [file, model], heat, api_visibility="private")
    # A result that arrives after a change names its own input and model: `cancels` would also end one that was
    # requested right after the change.
    gr.on(
        [file.change, model.change],
        lambda: ("", ""),
        None,
        [result, heat],
        api_visibility="private",
        show_progress="hidden",
    )
