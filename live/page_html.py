"""The web page's texts: the statement before the camera, and results as HTML.

Pictures and tables are embedded as data URLs, so that no frame and no result becomes a file on the server. People are
listed by number; nothing is sorted by a score. Labels, and reasons for none, are those of the model's answer rule, as
`engagement predict` prints them. Layout and events are in `page`.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from ..answer_rule import FACE_TOO_SMALL, AnswerRule
from ..explanation.explain_files import ExplainedClip, Explanation
from ..explanation.heat_map_figure import save_explanation
from ..hub.use_limits import LIMITS_AND_WHY, WHAT_IT_IS
from ..inference.predictions import FacePrediction, PhotoPrediction, VideoPrediction, scores_in_words, to_lines
from ..inference.timeline import save_plot, timeline_csv, timeline_rows
from ..processor.input_errors import printable
from .drawing import draw_states, model_note
from .engine import NO_FACE_FOR, PersonState

_STAYS_HERE = """\
**Where pictures go.** All work is done on this machine. Nothing is sent anywhere. Camera pictures are never written to
disk; uploads are stored in a temporary folder and deleted within minutes."""

_GOES_TO_SERVER = """\
**Where pictures go.** To the server of this page, and nowhere else. Camera pictures are never written to disk there;
uploads are stored in a temporary folder and deleted within minutes."""

AGREEMENT = (
    "I am an adult, everybody in view agrees to this, and I will not use it for what is ruled out above. "
    "I can stop at any time, at no cost."
)

_CAMERA_REFUSALS = {
    "NotAllowedError": "The camera was refused. Allow it for this page in the browser's settings, then press Start "
    "again. Videos and photos work without it.",
    "NotFoundError": "No camera was found. Plug one in, then press Start again. Videos and photos work without it.",
    "NotReadableError": "Another program uses the camera. Close it, then press Start again.",
    "TypeError": "Browsers allow no camera on a page at this address. Open it at http://127.0.0.1 or over https.",
}
_ADVICE = {FACE_TOO_SMALL: "come closer"}
# Hidden until the server stops answering.
SERVER_LOST = (
    "The program behind this page does not answer, so the camera was turned off. Reload the page to start again."
)
NO_FACE = "No face is visible. Sit in front of the camera, in good light, and look at it."
_JPEG_QUALITY = 80
_PANELS_ON_A_PHONE = 2  # heat maps side by side


def statement(is_local: bool) -> str:
    """Markdown: what the page is, is not, must not be used for, and where pictures go."""
    places = _STAYS_HERE if is_local else _GOES_TO_SERVER
    return "\n\n".join([WHAT_IT_IS, "**What it must not be used for.**", LIMITS_AND_WHY, places])


def refusal_page(text: str) -> str:
    """Why there is no result, as an alert that screen readers announce at once."""
    return f'<p role="alert" class="refusal">{escape(text)}</p>'


def camera_refusal(error_name: str) -> str:
    """What the browser's DOMException means to a person, and what to do."""
    return refusal_page(
        _CAMERA_REFUSALS.get(error_name, f"The browser did not give access to a camera ({error_name}).")
    )


def no_face_in(name: str) -> str:
    """The refusal of a file without a face."""
    return f"No face was found in {name}. Choose a file in which the face is larger, well lit and turned to the camera."


def live_picture(frame: np.ndarray, states: Sequence[PersonState], rule: AnswerRule) -> str:
    """frame: (height, width, 3) uint8 RGB → the frame with everybody's box, label and scores."""
    drawn = draw_states(frame, states, note=model_note(rule))
    return _picture(_to_jpeg(drawn), "image/jpeg", "the camera's picture, a box around each face")


def live_words(states: Sequence[PersonState]) -> str:
    """One line per person, in order of appearance; without scores, so that it changes only with the labels."""
    lines = [f"{_name(state)}: {_verdict(state)}" for state in states]
    return _list(lines) if lines else f"<p>{NO_FACE}</p>"


def photo_page(picture: np.ndarray, prediction: PhotoPrediction, rule: AnswerRule) -> str:
    """picture: (height, width, 3) uint8 RGB → the picture with all its faces, and a line per face."""
    states = [_state_of(number, face) for number, face in enumerate(prediction.faces, start=1)]
    count = f"{len(states)} face{'s' if len(states) != 1 else ''}, numbered from left to right"
    drawn = draw_states(picture, states, note=model_note(rule))
    shown = _picture(_to_jpeg(drawn), "image/jpeg", f"the photo with {count}")
    lines = [f"{_name(state)}: {state.label or state.status}{scores_in_words(state.scores)}" for state in states]
    lines += [f"note: {note}" for note in prediction.notes]
    return f"<p>{count}</p>{_wide('the photo', shown)}{_list(lines)}"


def _state_of(number: int, face: FacePrediction) -> PersonState:
    left, top, right, bottom = face.box_xyxy_px
    return PersonState(number, (left, top, right, bottom), True, face.label, face.scores, face.reason)


def video_page(prediction: VideoPrediction, rule: AnswerRule) -> str:
    """The whole video in the command line's words, its timeline as a plot, and as a table to download."""
    name = Path(prediction.source).name
    summary, *notes = to_lines(replace(prediction, source=name))
    note = model_note(rule) or None
    drawn = _drawn(lambda path: save_plot(prediction, path, rule.uncertain_band(), note))
    plot = _wide("the plot", _picture(drawn, "image/png", "scores over time, as in the table"))
    table = base64.b64encode(timeline_csv(prediction).encode()).decode()
    link = f'<a download="{escape(Path(name).stem)}_timeline.csv" href="data:text/csv;base64,{table}">'
    said = f'<p class="answer">{escape(summary)}</p>{_list(notes) if notes else ""}'
    return f"{said}{plot}<p>{link}Download the table (CSV)</a></p>{_table(prediction)}"


def why_page(explanation: Explanation) -> str:
    """The heat maps of a video or, numbered from left to right, of a photo's faces, and how to read them."""
    answers = [clip.answer for clip in explanation.clips]
    without = [(number, answer.reason) for number, answer in enumerate(answers, start=1) if answer.label is None]
    if not without:
        what = "the predicted label"
    elif len(answers) == 1:
        what = f"the most probable label, though none was given ({without[0][1]})"
    else:
        people = ", ".join(f"person {number} ({reason})" for number, reason in without)
        what = f"the predicted label or, where none was given, the most probable one: {people}"
    return _heat_maps(explanation, what, "heat maps over the faces", None)


def camera_why_page(people: Sequence[tuple[int | None, ExplainedClip]], warnings: Sequence[str]) -> str:
    """Heat maps of the camera's latest pictures, and how to read them.

    Args:
        people: each person's number in the live picture, None for the whole picture, and the explanation.
        warnings: the model's.
    """
    is_window = len(people[0][1].pictures) > 1
    what = f"the most probable label in {'the last window of pictures' if is_window else 'the last picture'} alone, "
    what += "not smoothed over time as the labels above are"
    if not is_window:
        numbers = [number for number, _ in people if number is not None]
        explanation = Explanation("the camera", [clip for _, clip in people], warnings=tuple(warnings))
        return _heat_maps(explanation, what, "heat maps over the faces", numbers or None)
    figures = []
    for number, clip in people:
        who = "the whole picture" if number is None else f"person {number}"
        figures.append(_heat_figure(Explanation(who, [clip], warnings=tuple(warnings)), f"heat maps of {who}", None))
    return "".join([_how_to_read(what), *figures])


def model_page(reads: str, warnings: Sequence[str]) -> str:
    """Text below the choice of a model: what it reads, and its warnings."""
    care = "".join(f'<p class="care">Take care: {escape(warning)}.</p>' for warning in warnings)
    return f'<div role="note"><p>{escape(reads)}</p>{care}</div>'


def no_photo_page(model_name: str, reads: str, others: Sequence[str]) -> str:
    """Text in place of the photo tab, for a model that takes no photos.

    Args:
        others: names of models on this page that take photos.
    """
    where = f"For photos choose {' or '.join(others)} above." if others else "No model on this page reads photos."
    return f'<p class="refusal" role="note">{escape(f"{model_name} takes no photos. {reads} {where}")}</p>'


def by_model(model_name: str, source: str, html: str, warnings: Sequence[str]) -> str:
    """A result headed by its model and input, so that a late one is not taken for another's."""
    care = "".join(f' <b class="care">Take care: {escape(warning)}.</b>' for warning in warnings)
    return f"<p>Model: {escape(model_name)}; input: {escape(printable(source))}.{care}</p>{html}"


def _heat_maps(explanation: Explanation, what: str, alt: str, numbers: Sequence[int] | None) -> str:
    return _how_to_read(what) + _heat_figure(explanation, alt, numbers)


def _how_to_read(what: str) -> str:
    words = f"The evidence for {what}; brighter means more. It shows where the model looked, not why a face looks so."
    return f"<p>{escape(words)}</p>"


def _heat_figure(explanation: Explanation, alt: str, numbers: Sequence[int] | None) -> str:
    picture = _picture(_drawn(lambda path: save_explanation(explanation, path, numbers)), "image/png", alt)
    num_panels = sum(len(clip.pictures) for clip in explanation.clips)
    return picture if num_panels <= _PANELS_ON_A_PHONE else _wide(alt, picture)


def _name(state: PersonState) -> str:
    return "whole picture" if state.number is None else f"person {state.number}"


def _verdict(state: PersonState) -> str:
    status = state.status or ""
    if status.startswith(NO_FACE_FOR):
        status = "no face"  # its duration would be read out several times per second
    return state.label or "; ".join(filter(None, [status, _ADVICE.get(status)]))


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _table(prediction: VideoPrediction) -> str:
    header, *rows = timeline_rows(prediction)
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return _wide("the table", f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _wide(name: str, html: str) -> str:
    """Content that may be wider than a phone: it scrolls separately, also with the keyboard."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">{html}</div>'


def _picture(data: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _to_jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _drawn(save: Callable[[Path], object]) -> bytes:
    """The PNG that `save` writes; its file is deleted."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.png"
        save(path)
        return path.read_bytes()
