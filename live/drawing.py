"""Annotated frames: a box and a small plate per person on a copy of the frame.

White text on a darkened plate and a coloured line in a black one are visible on light and dark pictures. People are
numbered in order of appearance, which ranks nobody. A plate has bars if there is space for them, a single line in a
group, and in a dense crowd only the number. It is next to its face, else in the nearest free place with a line to the
face, and hides nobody while any place is free. A face that the latest detection missed has no box, since something else
may be there now. Windows and pages that show the frames are elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..answer_rule import DRAWN_PEOPLE, AnswerRule
from .engine import PersonState

# Okabe and Ito's colours without black, which colour-blind people can distinguish.
COLORS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0), (0, 114, 178))
WHITE, GREY, BLACK = (255, 255, 255), (200, 200, 200), (0, 0, 0)
PLATE_LIGHT = 0.3  # share of the picture's light that a plate lets through
FONT_SHARE = 1 / 32  # of the frame's height
MIN_FONT_PX = 11
MAX_FULL_PLATES = 4  # with more people, no plate has bars
FACE_COST, PLATE_COST = 1e8, 1e4  # per covered pixel, in pixels of distance: hiding a face is worse than any distance

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Kind = Literal["bars", "line", "number"]  # of a plate: two lines and a bar per score; number and verdict; number only
AT_CORNER: Box = (0, 0, 0, 0)  # for the plate of a whole picture


@dataclass(frozen=True)
class _Plate:
    place: Box
    kind: Kind
    is_near: bool  # free, and next to the face


def model_note(rule: AnswerRule) -> str:
    """Text on every annotated frame if the model was trained on drawn people or is uncalibrated; else empty."""
    notes = ["model of drawn people"] if rule.trained_on == DRAWN_PEOPLE else []
    return ", ".join([*notes, *([] if rule.is_calibrated else ["uncalibrated"])])


def draw_states(
    frame: np.ndarray, states: Sequence[PersonState], frames_per_sec: float | None = None, note: str = ""
) -> np.ndarray:
    """(height, width, 3) uint8 RGB → a copy with everybody's box, label or status and scores, the frame rate at the top
    and a note at the bottom."""
    canvas = Image.fromarray(frame)
    font = _font(max(MIN_FONT_PX, round(frame.shape[0] * FONT_SHARE)))
    states = [state for state in states if state.box_xyxy_px is not None or state.number is None]
    corners = _corner_texts(canvas.size, "" if frames_per_sec is None else f"{frames_per_sec:.1f} frames/s", note, font)
    plates = _arrange(states, canvas.size, font, [place for _, place, _ in corners])
    draw = ImageDraw.Draw(canvas)
    for state, plate in zip(states, plates, strict=True):
        if state.box_xyxy_px:
            box = _to_pixels(state.box_xyxy_px)
            _draw_box(draw, box, state, _size_px(font))
            if not plate.is_near:
                _draw_leader(draw, box, state, plate.place, _size_px(font))
    for state, plate in zip(states, plates, strict=True):
        _draw_plate(canvas, plate, state, font)
    for text, place, of_text in corners:
        _darken(canvas, place)
        draw.text((place[0] + _size_px(font) // 2, place[1] + _size_px(font) // 4), text, font=of_text, fill=WHITE)
    return np.array(canvas)


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu comes with matplotlib and has the letters of most languages; Pillow's own font only those of English."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)


def _size_px(font: ImageFont.FreeTypeFont) -> int:
    """An integer, as given to `_font`; Pillow's type also allows fractions."""
    return round(font.size)


def _small(font: ImageFont.FreeTypeFont) -> ImageFont.FreeTypeFont:
    """For the names of scores."""
    return _font(max(MIN_FONT_PX, round(_size_px(font) * 0.8)))


def _color_of(state: PersonState) -> tuple[int, int, int]:
    return COLORS[(state.number or 1) % len(COLORS) - 1]


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, state: PersonState, font_px: int) -> None:
    """A line in the person's colour on a wider black one."""
    width = max(1, font_px // 6)
    draw.rectangle(_grown(box, width), outline=BLACK, width=3 * width)
    draw.rectangle(box, outline=_color_of(state), width=width)


def _draw_leader(draw: ImageDraw.ImageDraw, box: Box, state: PersonState, place: Box, font_px: int) -> None:
    """A thin line from the face's box to a plate elsewhere."""
    width = max(1, font_px // 12)
    ends = []
    for low, high in ((0, 2), (1, 3)):
        middle = (max(box[low], place[low]) + min(box[high], place[high])) // 2
        ends.append([min(max(middle, edges[low]), edges[high]) for edges in (box, place)])
    line = list(zip(*ends, strict=True))  # [(x, y) on the box, (x, y) on the plate]
    draw.line(line, fill=BLACK, width=3 * width)
    draw.line(line, fill=_color_of(state), width=width)


def _lines(state: PersonState, kind: Kind) -> list[str]:
    verdict = state.label or state.status or ""
    if kind == "bars":
        return ["whole picture" if state.number is None else f"person {state.number}", verdict]
    if state.number is None:
        return [verdict]
    return [f"{state.number}: {verdict}" if kind == "line" else str(state.number)]


def _plate_size(state: PersonState, kind: Kind, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height: a stripe, one or two lines of text, and a line per score."""
    lines = _lines(state, kind)
    names = list(state.scores or {}) if kind == "bars" else []
    pad, small = _size_px(font) // 2, _small(font)
    text_px = max(font.getlength(line) for line in lines)
    bars_px = max((small.getlength(name) for name in names), default=0) + pad + _bar_px(font) if names else 0
    height_px = len(lines) * _line_px(font) + len(names) * _line_px(small)
    return round(max(text_px, bars_px)) + 2 * pad + _stripe_px(font), height_px + pad // 2


def _draw_plate(canvas: Image.Image, plate: _Plate, state: PersonState, font: ImageFont.FreeTypeFont) -> None:
    """Names are white, since some colours are unreadable on the plate; the stripe at the left has the colour."""
    _darken(canvas, plate.place)
    draw, pad, stripe_px = ImageDraw.Draw(canvas), _size_px(font) // 2, _stripe_px(font)
    left, y = plate.place[0] + stripe_px + pad, plate.place[1] + pad // 4
    draw.rectangle((*plate.place[:2], plate.place[0] + stripe_px - 1, plate.place[3] - 1), fill=_color_of(state))
    lines = _lines(state, plate.kind)
    for line, color in zip(lines, [WHITE, WHITE if state.label else GREY][-len(lines) :], strict=True):
        draw.text((left, y), line, font=font, fill=color)
        y += _line_px(font)
    small, scores = _small(font), (state.scores or {}) if plate.kind == "bars" else {}
    bar_left = left + max((small.getlength(name) for name in scores), default=0) + pad
    for name, score in scores.items():
        draw.text((left, y), name, font=small, fill=WHITE if name == state.label else GREY)
        bar = (bar_left, y + _size_px(small) // 3, bar_left + _bar_px(font), y + _size_px(small))
        draw.rectangle(bar, outline=GREY)
        draw.rectangle((*bar[:2], bar_left + score * _bar_px(font), bar[3]), fill=_color_of(state))
        y += _line_px(small)


def _darken(canvas: Image.Image, place: Box) -> None:
    part = canvas.crop(place)
    canvas.paste(part.point(lambda level: level * PLATE_LIGHT), place[:2])


def _corner_texts(
    size_px: tuple[int, int], rate: str, note: str, font: ImageFont.FreeTypeFont
) -> list[tuple[str, Box, ImageFont.FreeTypeFont]]:
    """The frame rate at the top right, the note at the bottom left: text, place and font of each that is not empty."""
    width_px, height_px = size_px
    texts = []
    if rate:
        rate_px = round(font.getlength(rate)) + _size_px(font)
        texts.append((rate, (width_px - rate_px, 0, width_px, _line_px(font) + _size_px(font) // 2), font))
    if note:
        small = _small(font)
        note_px = min(width_px, round(small.getlength(note)) + _size_px(font))
        texts.append((note, (0, height_px - _line_px(small) - _size_px(font) // 2, note_px, height_px), small))
    return texts


def _arrange(
    states: Sequence[PersonState], canvas_size: tuple[int, int], font: ImageFont.FreeTypeFont, taken: list[Box]
) -> list[_Plate]:
    """The largest plates that fit next to the faces; if one does not fit, all plates get smaller."""
    few: list[tuple[Kind, ...]] = [("bars", "line"), ("line",)]
    many: list[tuple[Kind, ...]] = [("line", "number"), ("number",)]
    for kinds in few if len(states) <= MAX_FULL_PLATES else many:
        plates = _place_plates(states, kinds, canvas_size, font, taken)
        if all(plate.is_near for plate in plates):
            break
    return plates


def _place_plates(
    states: Sequence[PersonState],
    kinds: tuple[Kind, ...],
    canvas_size: tuple[int, int],
    font: ImageFont.FreeTypeFont,
    taken: list[Box],
) -> list[_Plate]:
    """One after the other, each of the first kind that fits next to the face, else of the last."""
    gap_px = _size_px(font) // 3
    boxes = [_grown(_to_pixels(state.box_xyxy_px), gap_px) if state.box_xyxy_px else AT_CORNER for state in states]
    faces, others = [box for box in boxes if box is not AT_CORNER], [_grown(place, gap_px) for place in taken]
    plates = []
    for state, box in zip(states, boxes, strict=True):
        for kind in kinds:
            size = _plate_size(state, kind, font)
            near = _near_place(size, box, canvas_size, [*faces, *others])
            if near:
                break
        plates.append(_Plate(near or _any_place(size, box, canvas_size, faces, others), kind, near is not None))
        others.append(_grown(plates[-1].place, gap_px))
    return plates


def _near_place(size: tuple[int, int], face: Box, canvas_size: tuple[int, int], others: list[Box]) -> Box | None:
    """The first free place below, above or beside the face or at its corners."""
    width, height = size
    left, top, right, bottom = face
    middle, above, before = (left + right - width) // 2, top - height, left - width
    corners = [(middle, bottom), (middle, above)]
    corners += [(x, y) for y in (bottom, above) for x in (left, right - width)]
    corners += [(x, y) for y in (top, bottom - height, bottom, above) for x in (right, before)]
    for x, y in corners:
        x, y = max(0, min(x, canvas_size[0] - width)), max(0, min(y, canvas_size[1] - height))
        place = (x, y, x + width, y + height)
        if not any(_overlap(place, other) for other in others):
            return place
    return None


def _any_place(
    size: tuple[int, int], face: Box, canvas_size: tuple[int, int], faces: list[Box], plates: list[Box]
) -> Box:
    """The free place nearest to the face; without one, the place that covers least of faces, then of plates."""
    # The nearest free place is level with the face, or touches another box or the picture's edge: only these are tried.
    others = np.array([*faces, *plates, (0, 0, *canvas_size)])
    axes = []
    for axis, length in enumerate(size):
        middle = (face[axis] + face[axis + 2]) // 2
        edges = [middle - length // 2, *others[:, axis + 2], *(others[:, axis] - length)]
        starts = np.unique(np.clip(edges, 0, max(0, canvas_size[axis] - length)))
        axes.append((starts, starts + length / 2 - middle))
    (xs, across_px), (ys, down_px) = axes
    cost = np.hypot(across_px, down_px[:, None])  # (len(ys), len(xs))
    cost += FACE_COST * _covered_px(xs, ys, size, faces) + PLATE_COST * _covered_px(xs, ys, size, plates)
    row, column = np.unravel_index(cost.argmin(), cost.shape)
    x, y = int(xs[column]), int(ys[row])
    return (x, y, x + size[0], y + size[1])


def _covered_px(xs: np.ndarray, ys: np.ndarray, size: tuple[int, int], others: list[Box]) -> np.ndarray:
    """(len(ys), len(xs)): how many pixels of others a box of this size covers with its corner at each x and y."""
    left, top, right, bottom = np.array(others, dtype=float).reshape(-1, 4).T[:, :, None]  # each (len(others), 1)
    across = np.maximum(0, np.minimum(xs + size[0], right) - np.maximum(xs, left))  # (len(others), len(xs))
    down = np.maximum(0, np.minimum(ys + size[1], bottom) - np.maximum(ys, top))
    return down.T @ across


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _to_pixels(box: Sequence[float]) -> Box:
    left, top, right, bottom = (round(edge) for edge in box)
    return left, top, right, bottom


def _grown(box: Box, by_px: int) -> Box:
    return box[0] - by_px, box[1] - by_px, box[2] + by_px, box[3] + by_px


def _line_px(font: ImageFont.FreeTypeFont) -> int:
    return round(_size_px(font) * 1.3)


def _stripe_px(font: ImageFont.FreeTypeFont) -> int:
    return max(3, _size_px(font) // 4)


def _bar_px(font: ImageFont.FreeTypeFont) -> int:
    return 4 * _size_px(font)
