"""The web page: a webcam, a video or a photo in, what a model makes of the faces in it out. Also the page of a Space.

The camera starts only after a plain statement and a consent, and each session has a `LiveEngagement` of its own, which
"stop and forget" drops. Gradio hands camera pictures over in memory; uploads go to a temporary folder that is emptied.
No telemetry, no fonts or scripts from elsewhere. What the page says is in `app_pages`; gradio is imported late.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from .app_pages import (
    AGREEMENT,
    camera_refusal,
    live_picture,
    live_words,
    number_faces,
    photo_page,
    refusal_page,
    statement,
    video_page,
    why_page,
)
from .explain import explain_file, explain_frames
from .live import LiveEngagement, LiveSettings
from .predict import PICTURE_SUFFIXES, Predictor
from .processor.input_errors import EngagementInputError, VideoTooLargeError
from .processor.media_inputs import load_picture
from .processor.video_decoding import index_video

if TYPE_CHECKING:
    import gradio

TITLE = "Apparent engagement"
CAMERA_SIZE_PX = (640, 480)
STREAM_EVERY_SEC = 0.2  # as often as faces are looked for
MAX_VIDEO_SEC = 900.0  # a page is for a look; longer videos are for the command line
MAX_FILE_SIZE = "500mb"
DELETE_UPLOADS = (60, 300)  # every so many seconds, those older than so many
FORGET_AFTER_SEC = 300  # a camera session from which no picture came
LOOPBACK = ("127.0.0.1", "localhost", "::1")
VIDEO_SUFFIXES = [".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"]

# Gradio's camera says nothing when it is refused, so the browser is asked first: "granted", or an exception's name.
_ASK_FOR_CAMERA = """async (agreed, model) => {
    try {
        const stream = await navigator.mediaDevices.getUserMedia({video: true});
        stream.getTracks().forEach((track) => track.stop());
        return [agreed, model, "granted"];
    } catch (error) { return [agreed, model, error.name]; }
}"""
# Consent was given: the camera's own two buttons need not be pressed as well. They stay where this finds none.
_START_CAMERA = """async () => {
    for (const button of ["#camera [title='grant webcam access'] button", "#camera button[aria-label='capture photo']"])
        for (let tries = 0; tries < 50; tries++) {
            const found = document.querySelector(button);
            if (found) { found.click(); break; }
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
}"""
_CSS = """
.refusal { border-left: 4px solid #D55E00; padding: 0.5em 1em; }
.wide { overflow-x: auto; contain: inline-size; } .wide img { min-width: 640px; max-width: 100%; }
.result img { max-width: 100%; height: auto; } #words { font-size: 1.2em; }
.result table { border-collapse: collapse; font-size: 0.9em; }
.result th, .result td { padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #8884; }
.result a { text-decoration: underline; } .result ul { padding-left: 1.4em; list-style: disc; }
.gradio-container { max-width: 1000px !important; margin: 0 auto !important; }
*:focus-visible { outline: 3px solid #0072B2 !important; outline-offset: 2px; }
"""


@dataclass
class LiveSession:
    """One visitor's camera: exists only between consent and "stop and forget"."""

    model_name: str
    live: LiveEngagement
    words: str = ""
    frames: deque[np.ndarray] = field(default_factory=deque)  # of the last window, for "why?"
    last_frame_sec: float = -math.inf

    def keep(self, frame: np.ndarray, time_sec: float) -> None:
        """Remember a picture where the next of a window is due."""
        if time_sec - self.last_frame_sec >= self.live.window_spacing_sec:
            self.frames.append(frame)
            self.last_frame_sec = time_sec
            if len(self.frames) > self.live.num_frames:
                self.frames.popleft()


class Page:
    """What happens on the page; every method takes and gives what the page's parts hold."""

    def __init__(self, predictors: dict[str, Predictor], settings: LiveSettings) -> None:
        self.predictors = predictors
        self.settings = settings
        self._lock = threading.Lock()  # an explanation hooks into the model, which must not see another's frames

    def start(self, has_agreed: bool, model_name: str, camera: str) -> tuple[LiveSession | None, str]:
        """A camera session, or why there is none.

        Args:
            camera: "granted", or the name of the browser's exception.
        """
        if not has_agreed:
            return None, refusal_page("Expected your consent first; tick the box above.")
        if camera != "granted":
            return None, camera_refusal(camera)
        return LiveSession(model_name, self._new_live(model_name)), ""

    def watch(
        self, frame: np.ndarray | None, model_name: str, session: LiveSession | None
    ) -> tuple[LiveSession | None, str | None, str | None]:
        """One camera picture, (height, width, 3) uint8 RGB → the session, the drawn picture, and words where new.

        Without a session, which only consent gives, no picture is looked at.
        """
        if frame is None or session is None:
            return session, None, None
        if model_name != session.model_name:
            session = LiveSession(model_name, self._new_live(model_name))
        now_sec = time.monotonic()
        session.keep(frame, now_sec)
        with self._lock:
            states = session.live.step(frame, now_sec)
        words = live_words(states)
        is_new, session.words = words != session.words, words
        return session, live_picture(frame, states), words if is_new else None

    def explain_camera(self, session: LiveSession | None) -> str:
        """Heat maps of what the camera showed last: of a clip model one person's, of another everybody's."""
        if session is None or not session.frames:
            return refusal_page("Expected pictures of the camera, got none yet; start it first.")
        predictor, frames = self.predictors[session.model_name], np.stack(session.frames)
        return self._answer("", lambda _: why_page(explain_frames(predictor, frames, "camera")))

    def look_at_video(self, file: str | None, model_name: str, step_sec: float) -> str:
        """A prediction for the whole video, and one a span."""
        if file is None:
            return refusal_page("Expected a video, got none; choose one first.")
        return self._answer(file, lambda path: video_page(self._predict_video(path, model_name, step_sec)))

    def look_at_photo(self, file: str | None, model_name: str) -> str:
        """A prediction for every face."""
        if file is None:
            return refusal_page("Expected a photo, got none; choose one first.")
        return self._answer(file, lambda path: self._photo_page(path, model_name))

    def explain(self, file: str | None, model_name: str) -> str:
        """Heat maps of a video or photo."""
        if file is None:
            return refusal_page("Expected a file to explain, got none; choose one first.")
        return self._answer(file, lambda path: why_page(explain_file(self._checked(model_name, path), path)))

    def _new_live(self, model_name: str) -> LiveEngagement:
        return LiveEngagement(self.predictors[model_name], self.settings)

    def _checked(self, model_name: str, path: Path) -> Predictor:
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            duration_sec = index_video(path).duration_sec
            if duration_sec > MAX_VIDEO_SEC:
                raise VideoTooLargeError(
                    f"Expected a video of at most {MAX_VIDEO_SEC:g} s on this page, got {duration_sec:.0f} s in "
                    f"{path}; use the command `engagement predict`."
                )
        return self.predictors[model_name]

    def _predict_video(self, path: Path, model_name: str, step_sec: float) -> object:
        return self._checked(model_name, path).predict_video(path, timeline_step_sec=step_sec)

    def _photo_page(self, path: Path, model_name: str) -> str:
        prediction = self.predictors[model_name].predict_photo(path)
        return photo_page(load_picture(path), number_faces(prediction, self.settings.min_face_px))

    def _answer(self, file: str, look: Callable[[Path], str]) -> str:
        path = Path(file)
        try:
            with self._lock:
                return look(path)
        except EngagementInputError as error:
            # Where uploads lie is nobody's business.
            return refusal_page(str(error).replace(str(path), path.name) if file else str(error))


def build_app(models: dict[str, str], settings: LiveSettings | None = None, is_local: bool = True) -> "gradio.Blocks":
    """The page, ready for `launch`.

    Args:
        models: folder or Hub id by the name that is shown.
        is_local: whether the page is for this machine only; what it says of pictures depends on it.

    Raises:
        EngagementInputError: no model was named, one cannot be loaded, or the extra `app` is not installed.
    """
    gr = _import_gradio()
    if not models:
        raise EngagementInputError("Expected at least one model, got none; name a folder or a Hub id.")
    predictors = {name: Predictor.from_pretrained(model).speed_up() for name, model in models.items()}
    page = Page(predictors, settings or LiveSettings())
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=DELETE_UPLOADS) as app:
        gr.Markdown(f"# {TITLE}\n\n{statement(is_local)}")
        choices = [(f"{name}: {_describe(predictor)}", name) for name, predictor in predictors.items()]
        model = gr.Radio(choices, value=choices[0][1], label="Model")
        with gr.Tab("Camera"):
            _add_camera(gr, page, model)
        with gr.Tab("Video"):
            step = gr.Slider(1, 60, value=5, step=1, label="Seconds a step of the timeline", render=False)
            _add_upload(gr, page, model, "video", VIDEO_SUFFIXES, page.look_at_video, step)
        with gr.Tab("Photo"):
            _add_upload(gr, page, model, "photo", list(PICTURE_SUFFIXES), page.look_at_photo)
    return app


def launch(app: "gradio.Blocks", port: int | None = None, host: str = "127.0.0.1", block: bool = True) -> str:
    """Serve the page, without telemetry, history or pages beside it; returns its address (with `block`, at the end)."""
    gr = _import_gradio()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # the machine's own
    theme = gr.themes.Default(primary_hue="blue", **fonts)
    # White letters need a darker ground than the theme's.
    theme.set(button_primary_background_fill="*primary_700", button_cancel_background_fill="#b91c1c")
    _, address, _ = app.launch(
        server_name=host,
        server_port=port,
        share=False,  # which would send pictures through somebody else's server
        theme=theme,
        css=_CSS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=MAX_FILE_SIZE,
        quiet=True,
        prevent_thread_lock=True,
    )
    if block:
        print(f"{address} shows the page; Ctrl-C ends it", flush=True)
        app.block_thread()
    return address


def main(model_folders: Sequence[str], port: int = 7860, host: str = "127.0.0.1") -> None:
    """Serve a page for these models until Ctrl-C; uploads are gone when it ends.

    Raises:
        EngagementInputError: as `build_app`, or the port is taken.
    """
    with TemporaryDirectory() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        app = build_app({str(folder): str(folder) for folder in model_folders}, is_local=host in LOOPBACK)
        try:
            launch(app, port, host)
        except OSError as error:
            raise EngagementInputError(f"Expected a free port, got {port}; name another. ({error})") from error


def _import_gradio() -> object:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, and later
    try:
        import gradio
    except ImportError as error:
        raise EngagementInputError(
            "Expected the package gradio for the page, got none; pip install 'engagement-recognition[app]'."
        ) from error
    return gradio


def _describe(predictor: Predictor) -> str:
    config = predictor.model.config
    reads = f"a clip of {config.num_frames} frames" if predictor.is_video_model else "one face"
    return f"{', '.join(config.id2label[i] for i in range(config.num_labels))}; from {reads}"


def _add_camera(gr: object, page: Page, model: "gradio.Radio") -> None:
    width_px, height_px = CAMERA_SIZE_PX
    wanted = {"video": {"width": {"ideal": width_px}, "height": {"ideal": height_px}, "facingMode": "user"}}
    session, camera_answer = gr.State(time_to_live=FORGET_AFTER_SEC), gr.Textbox(visible=False)
    with gr.Column() as gate:
        agreed = gr.Checkbox(label=AGREEMENT)
        start = gr.Button("Start the camera", variant="primary", interactive=False)
        refusal = gr.HTML(elem_classes="result")
    with gr.Column(visible=False) as panel:
        stop = gr.Button("Stop and forget", variant="stop")
        words = gr.HTML(elem_id="words", elem_classes="result", html_template='<div aria-live="polite">${value}</div>')
        with gr.Row():  # on a phone, one below the other
            with gr.Column(scale=3, min_width=320):
                drawn = gr.HTML(elem_id="drawn", elem_classes="result")
            with gr.Column(scale=1, min_width=240):
                # Not mirrored: what is served is what was trained.
                options = gr.WebcamOptions(mirror=False, constraints=wanted)
                camera = gr.Image(
                    sources="webcam", streaming=True, webcam_options=options, label="Camera", elem_id="camera"
                )
        why = gr.Button("Why?")
        heat = gr.HTML(elem_id="camera-why", elem_classes="result")

    agreed.change(lambda ticked: gr.Button(interactive=ticked), agreed, start, api_visibility="private")
    asked = start.click(
        page.start, [agreed, model, camera_answer], [session, refusal], js=_ASK_FOR_CAMERA, api_visibility="private"
    )
    shown = asked.then(
        lambda held: (gr.Column(visible=held is None), gr.Column(visible=held is not None)),
        session,
        [gate, panel],
        api_visibility="private",
    )
    shown.then(None, js=_START_CAMERA)

    def watch(frame: np.ndarray | None, model_name: str, held: LiveSession | None) -> tuple[object, ...]:
        held, picture, new_words = page.watch(frame, model_name, held)
        return held, *(gr.skip() if html is None else html for html in (picture, new_words))

    camera.stream(
        watch,
        [camera, model, session],
        [session, drawn, words],
        stream_every=STREAM_EVERY_SEC,
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    why.click(page.explain_camera, session, heat, api_visibility="private")
    stop.click(
        lambda: (None, "", "", "", False, gr.Column(visible=True), gr.Column(visible=False)),
        None,
        [session, drawn, words, heat, agreed, gate, panel],
        api_visibility="private",
    )


def _add_upload(
    gr: object,
    page: Page,
    model: "gradio.Radio",
    kind: str,
    suffixes: list[str],
    look: Callable[..., str],
    *options: "gradio.Slider",
) -> None:
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
    gr.on([file.change, model.change], lambda: ("", ""), None, [result, heat], api_visibility="private")
