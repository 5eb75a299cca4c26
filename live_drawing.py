"""Annotated frames: a box and a small plate a person on a copy of the frame, and videos of such frames.

White on a darkened plate and a coloured line in a black one show on light and dark pictures alike. People have numbers,
in order of appearance; no order says who is better. A window or a page to show frames in is left to others.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .live import PersonState
from .processor.input_errors import EngagementInputError

# Okabe and Ito's colours but the black, told apart by colour-blind eyes too.
COLORS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0), (0, 114, 178))
WHITE, GREY, BLACK = (255, 255, 255), (200, 200, 200), (0, 0, 0)
PLATE_LIGHT = 0.3  # share of the picture's light that a plate lets through
FONT_SHARE = 1 / 32  # of the frame's height
MIN_FONT_PX = 11
TIME_BASE = Fraction(1, 90_000)

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


def draw_states(frame: np.ndarray, states: Sequence[PersonState], frames_per_sec: float | None = None) -> np.ndarray:
    """(height, width, 3) uint8 RGB → a copy with everybody's box, label or status and scores, and the frame rate."""
    canvas = Image.fromarray(frame)
    font = _font(max(MIN_FONT_PX, round(frame.shape[0] * FONT_SHARE)))
    faces = [_to_pixels(state.box_xyxy_px) for state in states if state.box_xyxy_px]
    taken: list[Box] = []
    for state in states:
        if state.box_xyxy_px:
            _draw_box(ImageDraw.Draw(canvas), state, font.size)
        size = _plate_size(state, font)
        place = _find_place(
            size, _to_pixels(state.box_xyxy_px) if state.box_xyxy_px else None, canvas.size, faces, taken
        )
        taken.append(place)
        _draw_plate(canvas, place, state, font)
    if frames_per_sec is not None:
        _draw_rate(canvas, f"{frames_per_sec:.1f} frames/s", font)
    return np.array(canvas)


class AnnotatedVideo:
    """An mp4 file that frames are written to, each with its own time; closed by leaving the `with`.

    Args:
        path: where the file goes; its folder must be there.
        size: width and height in pixels.
        fps: about how many frames a second will come.

    Raises:
        EngagementInputError: the file cannot be written.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: float = 30.0) -> None:
        self._width_px, self._height_px = size
        self._last_tick = -1
        try:
            self._container = av.open(str(path), "w", format="mp4")
            self._stream = self._add_stream(Fraction(fps).limit_denominator(1001))
            self._container.start_encoding()
        except OSError as error:
            reason = error.strerror or error
            raise EngagementInputError(
                f"Expected to write a video to {path}, got: {reason}; choose another."
            ) from error

    def _add_stream(self, rate: Fraction) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryfast"})
        # h264 has half as many colours each way: an odd side gets one more row or column.
        stream.width, stream.height = (side + side % 2 for side in (self._width_px, self._height_px))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        return stream

    def write(self, frame: np.ndarray, time_sec: float) -> None:
        """frame: (height, width, 3), uint8 RGB, of the size given before; times rise."""
        if frame.shape != (self._height_px, self._width_px, 3):
            size = f"{self._width_px}x{self._height_px}"
            raise EngagementInputError(f"Expected frames of {size} px, got shape {frame.shape}; open another video.")
        odd = [(0, side % 2) for side in frame.shape[:2]]
        picture = av.VideoFrame.from_ndarray(np.pad(frame, [*odd, (0, 0)], mode="edge"), format="rgb24")
        self._last_tick = max(self._last_tick + 1, round(time_sec / TIME_BASE))
        picture.pts, picture.time_base = self._last_tick, TIME_BASE
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write what is left and finish the file."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu comes with matplotlib and knows the letters of most languages; Pillow's own knows English alone."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)


def _color_of(state: PersonState) -> tuple[int, int, int]:
    return COLORS[(state.number or 1) % len(COLORS) - 1]


def _draw_box(draw: ImageDraw.ImageDraw, state: PersonState, font_px: int) -> None:
    """A line in the person's colour on a wider black one; thin for a face that is not there."""
    box, width = _to_pixels(state.box_xyxy_px), max(1, font_px // (6 if state.found else 12))
    draw.rectangle(_grown(box, width), outline=BLACK, width=3 * width)
    draw.rectangle(box, outline=_color_of(state), width=width)


def _lines(state: PersonState) -> list[str]:
    name = "whole picture" if state.number is None else f"person {state.number}"
    return [name, state.label or state.status or ""]


def _plate_size(state: PersonState, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height: two lines of text, and a line a score."""
    names = list(state.scores or {})
    pad = font.size // 2
    text_px = max(font.getlength(line) for line in _lines(state))
    bars_px = max((font.getlength(name) for name in names), default=0) * 0.8 + _bar_px(font) + pad if names else 0
    height_px = 2 * _line_px(font) + len(names) * _score_px(font)
    return round(max(text_px, bars_px)) + 2 * pad, height_px + pad


def _draw_plate(canvas: Image.Image, place: Box, state: PersonState, font: ImageFont.FreeTypeFont) -> None:
    _darken(canvas, place)
    draw, pad = ImageDraw.Draw(canvas), font.size // 2
    left, y = place[0] + pad, place[1] + pad // 2
    for line, color in zip(_lines(state), (_color_of(state), WHITE if state.label else GREY), strict=True):
        draw.text((left, y), line, font=font, fill=color)
        y += _line_px(font)
    small = _font(round(font.size * 0.8))
    bar_left = left + max((small.getlength(name) for name in state.scores or {}), default=0) + pad
    for name, score in (state.scores or {}).items():
        draw.text((left, y), name, font=small, fill=WHITE if name == state.label else GREY)
        bar = (bar_left, y + small.size // 3, bar_left + _bar_px(font), y + small.size)
        draw.rectangle(bar, outline=GREY)
        draw.rectangle((*bar[:2], bar_left + score * _bar_px(font), bar[3]), fill=_color_of(state))
        y += _score_px(font)


def _draw_rate(canvas: Image.Image, text: str, font: ImageFont.FreeTypeFont) -> None:
    width = round(font.getlength(text)) + font.size
    place = (canvas.width - width, 0, canvas.width, _line_px(font) + font.size // 2)
    _darken(canvas, place)
    ImageDraw.Draw(canvas).text((place[0] + font.size // 2, font.size // 4), text, font=font, fill=WHITE)


def _darken(canvas: Image.Image, place: Box) -> None:
    part = canvas.crop(place)
    canvas.paste(part.point(lambda level: level * PLATE_LIGHT), place[:2])


def _find_place(
    size: tuple[int, int], face: Box | None, canvas_size: tuple[int, int], faces: list[Box], taken: list[Box]
) -> Box:
    """Below, above or beside the face, wherever it covers least of what is there already."""
    width, height = size
    if face is None:
        return (0, 0, width, height)
    left, top, right, bottom = face
    middle, gap = (left + right - width) // 2, height // 8
    corners = [(middle, bottom + gap), (middle, top - gap - height), (right + gap, top), (left - gap - width, top)]
    places = []
    for x, y in corners:
        x, y = max(0, min(x, canvas_size[0] - width)), max(0, min(y, canvas_size[1] - height))
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_shared_px(place, other) for other in [*faces, *taken]))


def _shared_px(first: Box, second: Box) -> int:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, width) * max(0, height)


def _to_pixels(box: Sequence[float]) -> Box:
    left, top, right, bottom = (round(edge) for edge in box)
    return left, top, right, bottom


def _grown(box: Box, by_px: int) -> Box:
    return box[0] - by_px, box[1] - by_px, box[2] + by_px, box[3] + by_px


def _line_px(font: ImageFont.FreeTypeFont) -> int:
    return round(font.size * 1.3)


def _score_px(font: ImageFont.FreeTypeFont) -> int:
    return round(font.size * 1.1)


def _bar_px(font: ImageFont.FreeTypeFont) -> int:
    return 4 * font.size
