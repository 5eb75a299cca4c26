"""What the web page says: the statement before the camera, and results as pieces of HTML.

Pictures and tables stand in the HTML itself, as data URLs, so that no frame and no result becomes a file on the server.
People have numbers and are named in that order; nothing is sorted by a score. Layout and events are those of `page`.
"""

import base64
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from ..explanation.explain_files import ExplainedClip, Explanation
from ..explanation.heat_map_figure import save_explanation
from ..hub.use_limits import MUST_NOT_BE_USED, WHAT_IT_IS
from ..inference.predictions import PhotoPrediction, VideoPrediction
from ..inference.timeline import save_plot
from .drawing import draw_states
from .engine import PersonState

_STAYS_HERE = """\
**Where pictures go.** All work is done on this machine. Nothing is sent anywhere. Camera pictures are never written to
disk; uploads lie in a temporary folder and are deleted within minutes."""

_GOES_TO_SERVER = """\
**Where pictures go.** To the server that this page comes from, and nowhere else. Camera pictures are never written to
disk there; uploads lie in a temporary folder and are deleted within minutes."""

AGREEMENT = (
    "I am an adult, everybody in view agrees to this, and I will not use it for what is ruled out above. "
    "I can stop at any time, at no cost."
)

_CAMERA_REFUSALS = {
    "NotAllowedError": "The camera was refused. Allow it for this page in the browser's settings, then press Start "
    "again. Videos and photos work without it.",
    "NotFoundError": "No camera was found. Plug one in, then press Start again. Videos and photos work without it.",
    "NotReadableError": "The camera is used by another program. Close that, then press Start again.",
    "TypeError": "The browser gives no camera to a page at this address. Open it as http://127.0.0.1 or by https.",
}
_DOUBT = "abstains"  # as the live engine says it
_STATUS_IN_WORDS = {
    "face too small": "the face is too small; come closer",
    _DOUBT: "no label, the scores are too close to each other",
}
# Hidden until the browser finds that nobody answers.
SERVER_LOST = (
    "The program behind this page does not answer, so the camera was turned off here. Reload the page to begin again."
)
NO_FACE = "No face is seen. Sit in front of the camera, in good light, and look at it."
_JPEG_QUALITY = 80


def statement(is_local: bool) -> str:
    """Markdown: what the page is, is not, must not be used for, and where pictures go."""
    places = _STAYS_HERE if is_local else _GOES_TO_SERVER
    return "\n\n".join([WHAT_IT_IS, "**What it must not be used for.**", MUST_NOT_BE_USED, places])


def refusal_page(text: str) -> str:
    """Why there is no result, as an alert that screen readers speak at once."""
    return f'<p role="alert" class="refusal">{escape(text)}</p>'


def camera_refusal(error_name: str) -> str:
    """What the browser's DOMException means to a person, and what to do."""
    return refusal_page(_CAMERA_REFUSALS.get(error_name, f"The browser gave no camera ({error_name})."))


def no_face_in(name: str) -> str:
    """For somebody who can choose another file."""
    return f"No face was found in {name}. Choose one in which a face is larger, well lit and turned to the camera."


def live_picture(frame: np.ndarray, states: Sequence[PersonState]) -> str:
    """frame: (height, width, 3) uint8 RGB → it, with everybody's box, label and scores."""
    return _picture(_to_jpeg(draw_states(frame, states)), "image/jpeg", "the camera's picture, a box around each face")


def live_words(states: Sequence[PersonState]) -> str:
    """A line a person, in order of appearance; without scores, so that it changes only when there is something new."""
    lines = [f"{_name(state)}: {_verdict(state)}" for state in states]
    return _list(lines) if lines else f"<p>{NO_FACE}</p>"


def photo_page(picture: np.ndarray, states: Sequence[PersonState]) -> str:
    """picture: (height, width, 3) uint8 RGB → it with all its faces, and a line each."""
    count = f"{len(states)} face{'s' if len(states) != 1 else ''}, numbered from left to right"
    drawn = _picture(_to_jpeg(draw_states(picture, states)), "image/jpeg", f"the photo with {count}")
    lines = [f"{_name(state)}: {_verdict(state)}{_scores(state.scores)}" for state in states]
    return f'<p>{count}</p><div class="wide" tabindex="0">{drawn}</div>{_list(lines)}'


def number_faces(prediction: PhotoPrediction, min_face_px: float, abstain_below: float) -> list[PersonState]:
    """Faces of a photo from left to right; those whose longer side is below `min_face_px` get no label, nor those
    whose highest score is below `abstain_below`."""
    states = []
    for number, face in enumerate(sorted(prediction.faces, key=lambda face: face.box_xyxy_px[0]), start=1):
        left, top, right, bottom = face.box_xyxy_px
        is_small = max(right - left, bottom - top) < min_face_px
        is_unsure = face.scores[face.label] < abstain_below
        verdict = (None, face.scores, _DOUBT) if is_unsure else (face.label, face.scores, None)
        said = (None, None, "face too small") if is_small else verdict
        states.append(PersonState(number, (left, top, right, bottom), True, *said))
    return states


def video_page(prediction: VideoPrediction, abstain_below: float) -> str:
    """The whole video in a line, its timeline as a plot, and as a table to download.

    Where the highest score is below `abstain_below`, words and table say "abstains" instead of a label.
    """
    spans = [
        replace(span, label=_DOUBT) if _is_doubtful(span.scores, abstain_below) else span
        for span in prediction.timeline
    ]
    label = _DOUBT if _is_doubtful(prediction.scores, abstain_below) else prediction.label
    prediction = replace(prediction, label=label, timeline=spans)
    name = Path(prediction.source).name
    coverage = prediction.face_coverage
    seen = "whole frames were read" if coverage is None else f"a face was found in {coverage:.0%} of the frames read"
    summary = f"{name}: {prediction.label}{_scores(prediction.scores)}; {seen}."
    plot = _picture(_drawn(lambda path: save_plot(prediction, path)), "image/png", "scores over time, as in the table")
    table = base64.b64encode(timeline_csv(prediction).encode()).decode()
    link = f'<a download="{escape(Path(name).stem)}_timeline.csv" href="data:text/csv;base64,{table}">'
    download = f"<p>{link}Download the table (CSV)</a></p>"
    return f'<p>{escape(summary)}</p><div class="wide" tabindex="0">{plot}</div>{download}{_table(prediction)}'


def timeline_csv(prediction: VideoPrediction) -> str:
    """A row a span: start_sec, end_sec, label, face_coverage, a column a score; empty where no face was seen."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(_timeline_rows(prediction))
    return file.getvalue()


def why_page(explanation: Explanation, has_label: Sequence[bool]) -> str:
    """The heat maps of a video or, from left to right as they are numbered, of a photo's faces, and how to read them.

    Args:
        has_label: of each clip, whether the page gives it a label; else only its highest score is explained.
    """
    clips, has_label = explanation.clips, list(has_label)
    if len(clips) > 1:
        order = sorted(range(len(clips)), key=lambda i: _left_edge(clips[i]))
        clips, has_label = [clips[i] for i in order], [has_label[i] for i in order]
    without = [str(number) for number, is_labelled in enumerate(has_label, start=1) if not is_labelled]
    if not without:
        what = "the predicted label"
    elif len(without) == len(clips):
        what = "the highest score, for which no label was given"
    else:
        people = f"person{'s' if len(without) > 1 else ''} {', '.join(without)}"
        what = f"the predicted label or, for {people}, the highest score, for which no label was given"
    return _heat_maps(replace(explanation, clips=clips), what, None)


def _left_edge(clip: ExplainedClip) -> float:
    """Where the face begins, in pixels of the picture."""
    return float(clip.face.boxes_xyxy_px[0, 0]) if clip.face else 0.0


def camera_why_page(explanation: Explanation, numbers: Sequence[int | None]) -> str:
    """The heat maps of what the camera showed last, and how to read them.

    Args:
        numbers: of each clip, the number of its person in the live picture; None: the whole picture, or not known.
    """
    is_window = len(explanation.clips[0].pictures) > 1
    who = f" of person {numbers[0]}" if len(numbers) == 1 and numbers[0] is not None else ""
    when = "the last window of pictures alone" if is_window else "the last picture alone"
    what = f"the highest score{who} in {when}, not smoothed over time as the labels above are"
    known = [number for number in numbers if number is not None]
    return _heat_maps(explanation, what, known if len(known) == len(numbers) else None)


def by_model(model_name: str, source: str, html: str) -> str:
    """A result under the names of what it is from, so that it is not taken for another's where it comes late."""
    return f"<p>Model: {escape(model_name)}; input: {escape(source)}</p>{html}"


def _heat_maps(explanation: Explanation, what: str, numbers: Sequence[int] | None) -> str:
    words = f"What spoke for {what}; brighter for more. It shows where the model looked, not why a face looks so."
    drawn = _drawn(lambda path: save_explanation(explanation, path, numbers))
    figure = _picture(drawn, "image/png", "heat maps over the faces")
    return f'<p>{words}</p><div class="wide" tabindex="0">{figure}</div>'


def _is_doubtful(scores: dict[str, float] | None, abstain_below: float) -> bool:
    return scores is not None and max(scores.values()) < abstain_below


def _name(state: PersonState) -> str:
    return "whole picture" if state.number is None else f"person {state.number}"


def _verdict(state: PersonState) -> str:
    status = state.status or ""
    return state.label or _STATUS_IN_WORDS.get(status, status)


def _scores(scores: dict[str, float] | None) -> str:
    return "" if scores is None else f" ({', '.join(f'{name} {score:.2f}' for name, score in scores.items())})"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _timeline_rows(prediction: VideoPrediction) -> list[list[object]]:
    names = list(prediction.scores)
    rows: list[list[object]] = [["start_sec", "end_sec", "label", "face_coverage", *names]]
    for span in prediction.timeline:
        scores = [""] * len(names) if span.scores is None else [round(span.scores[name], 4) for name in names]
        coverage = "" if span.face_coverage is None else round(span.face_coverage, 3)
        rows.append([span.start_sec, span.end_sec, span.label or "", coverage, *scores])
    return rows


def _table(prediction: VideoPrediction) -> str:
    header, *rows = _timeline_rows(prediction)
    label = header.index("label")
    rows = [[*row[:label], row[label] or "no face", *row[label + 1 :]] for row in rows]
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _picture(data: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _to_jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _drawn(save: Callable[[Path], object]) -> bytes:
    """What `save` writes as PNG; the file is gone afterwards."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.png"
        save(path)
        return path.read_bytes()
