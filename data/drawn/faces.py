"""Drawn people in front of a drawn webcam, so that everything can be tried without pictures of real people.

`draw_subject` chooses at random how a subject looks, `FacePose` defines what the face does, and `draw_frame`,
`draw_face_picture` and `draw_people` draw both. MTCNN finds these faces like photographed ones. The head itself is in
`head`, how a face moves over time in `motion`, and files are written in `datasets`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ...processor.input_errors import DataError
from .head import (
    CANVAS_HEIGHT_PX,
    CANVAS_LEFT,
    CANVAS_PX_PER_UNIT,
    CANVAS_TOP,
    CANVAS_WIDTH_PX,
    HAIR_STYLES,
    SUBPIXEL_BITS,
    Color,
    FacePose,
    Subject,
    draw_head,
    mix_colors,
    shade,
    smooth_curve,
)
from .motion import AffectLevels, engagement_trajectory, expression_pose, state_pose

__all__ = [
    "AffectLevels",
    "FacePose",
    "Person",
    "Subject",
    "draw_face_picture",
    "draw_frame",
    "draw_people",
    "draw_subject",
    "engagement_trajectory",
    "expression_pose",
    "state_pose",
]

NEUTRAL_LIGHT = 200  # light maps are uint8 factors; 200 leaves a colour unchanged, 255 brightens it
SOFT_BOX_PX = (66, 60, 354, 420)  # left, top, right, bottom: the face and the upper part of the neck
PIVOT_BELOW_FACE = 1.5  # pivot of a leaning head: the neck, in half face widths below the centre of the face
NOISE_MARGIN_PX = 64  # a frame's noise is a shifted window of one noise picture
# fmt: off
SKIN_TONES: tuple[Color, ...] = (
    (250, 219, 198), (240, 201, 174), (228, 184, 150), (208, 160, 122),
    (181, 131, 94), (146, 100, 70), (112, 74, 52), (84, 55, 41),
)
HAIR_COLORS: tuple[Color, ...] = (
    (28, 24, 24), (43, 31, 27), (66, 45, 34), (98, 66, 44),
    (139, 97, 58), (184, 144, 92), (126, 60, 36), (140, 138, 138),
)
CLOTHES_COLORS: tuple[Color, ...] = (
    (58, 84, 122), (128, 62, 66), (72, 104, 84), (196, 188, 172),
    (70, 70, 82), (150, 118, 72), (98, 76, 120), (54, 110, 124),
)
WALL_COLORS: tuple[Color, ...] = ((214, 206, 192), (186, 196, 204), (200, 190, 178), (168, 178, 170), (152, 150, 158))
SHOULDER = [(0.0, 2.02), (0.4, 1.93), (0.66, 1.66), (0.82, 1.66), (1.5, 1.86), (2.0, 2.15), (2.3, 2.75), (2.5, 6.0)]
# fmt: on


@dataclass(frozen=True)
class Person:
    """One of several people in a frame."""

    subject: Subject
    pose: FacePose
    center_xy_px: tuple[float, float]
    head_width_px: float


def draw_subject(subject_seed: int) -> Subject:
    """Choose a subject's looks at random; the same seed gives the same subject."""
    rng = np.random.default_rng([subject_seed, 7])
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    lower = min(int(tone), len(SKIN_TONES) - 2)
    style = str(rng.choice(HAIR_STYLES))
    shaven = style in ("long", "bob", "bun") or rng.random() < 0.5
    return Subject(
        skin=mix_colors(SKIN_TONES[lower], SKIN_TONES[lower + 1], tone - lower),
        # Fair hair is rare with dark skin: the darker the skin, the shorter the list to choose from.
        hair=HAIR_COLORS[rng.integers(len(HAIR_COLORS) if tone < 3 else 3)],
        hair_style=style,
        facial_hair="none" if shaven else str(rng.choice(["stubble", "beard"])),
        glasses=bool(rng.random() < 0.3),
        iris=((92, 62, 40), (70, 48, 34), (96, 108, 70), (88, 118, 140))[rng.integers(4 if tone < 3 else 2)],
        clothes=CLOTHES_COLORS[rng.integers(len(CLOTHES_COLORS))],
        jaw_width=rng.uniform(0.0, 1.0),
        eye_spacing=rng.uniform(0.385, 0.43),
        eye_size=rng.uniform(0.92, 1.1),
        brow_thickness=rng.uniform(0.045, 0.08),
        nose_width=rng.uniform(0.17, 0.24),
        mouth_width=rng.uniform(0.32, 0.4),
        lip_fullness=rng.uniform(0.8, 1.3),
        light_from=rng.uniform(-1, 1),
        light_strength=rng.uniform(0.25, 0.7),
        head_width_ratio=rng.uniform(0.22, 0.3),
        room_seed=int(rng.integers(2**31)),
    )


def draw_frame(
    subject: Subject,
    pose: FacePose,
    width_px: int = 640,
    height_px: int = 480,
    noise_seed: int | None = 0,
    curtains: Color | None = None,
) -> np.ndarray:
    """One webcam frame of one subject, with curtains of this colour on both sides: (height, width, 3), uint8 RGB."""
    head_width_px = subject.head_width_ratio * min(width_px, height_px * 4 / 3)
    person = Person(subject, pose, (width_px * 0.5, height_px * 0.46), head_width_px)
    return draw_people([person], width_px, height_px, noise_seed, subject.room_seed, curtains)


def draw_face_picture(subject: Subject, pose: FacePose, size_px: int, noise_seed: int | None = 0) -> np.ndarray:
    """A picture filled by the face, as in FER2013: (size, size, 3), uint8 RGB."""
    enlarged_px = size_px * math.ceil(224 / size_px)  # drawn at 224 px or more, since a strongly reducing warp aliases
    person = Person(subject, pose, (enlarged_px * 0.5, enlarged_px * 0.5), enlarged_px * 0.74)
    picture = draw_people([person], enlarged_px, enlarged_px, noise_seed, subject.room_seed)
    return cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA)


def draw_people(
    people: Sequence[Person],
    width_px: int = 640,
    height_px: int = 480,
    noise_seed: int | None = 0,
    room_seed: int = 0,
    curtains: Color | None = None,
) -> np.ndarray:
    """Several people in one room, later ones in front; without people an empty room. (height, width, 3), uint8 RGB."""
    if width_px < 16 or height_px < 16:
        raise DataError(f"Expected a frame of at least 16x16 px, got {width_px}x{height_px}.")
    frame = _room(room_seed, width_px, height_px, curtains).copy()
    for person in people:
        body, uncovered, top = _body(person.subject, width_px, height_px, person.center_xy_px, person.head_width_px)
        frame[top:] = cv2.add(cv2.multiply(frame[top:], uncovered[top:, :, :3], scale=1 / 255), body[top:])
        _paint_head(frame, person, uncovered)
    return frame if noise_seed is None else _add_noise(frame, noise_seed)


def _paint_head(frame: np.ndarray, person: Person, uncovered: np.ndarray) -> None:
    """Warp the head's canvas into the frame, behind the clothes."""
    head = _lit(draw_head(person.subject, person.pose), person.subject, person.pose)
    warp = _canvas_to_frame(person)
    right, bottom = CANVAS_WIDTH_PX, CANVAS_HEIGHT_PX
    corners_px = np.array([[0, 0, 1], [right, 0, 1], [0, bottom, 1], [right, bottom, 1]]) @ warp.T
    left, top = np.clip(np.floor(corners_px.min(0)).astype(int), 0, frame.shape[1::-1]).tolist()
    right, bottom = np.clip(np.ceil(corners_px.max(0)).astype(int), 0, frame.shape[1::-1]).tolist()
    if right <= left or bottom <= top:
        return  # the head is outside the frame
    warp[:, 2] -= (left, top)
    layer = cv2.warpAffine(head, warp, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    layer = cv2.multiply(layer, uncovered[top:bottom, left:right], scale=1 / 255)
    see_through = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(frame[top:bottom, left:right], see_through, scale=1 / 255)
    frame[top:bottom, left:right] = cv2.add(behind, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))


def _canvas_to_frame(person: Person) -> np.ndarray:
    """The affine map (2, 3) that scales the head and leans it about the neck."""
    pose, unit_px = person.pose, person.head_width_px / 2
    pivot_canvas_px = np.array([CANVAS_LEFT, CANVAS_TOP + PIVOT_BELOW_FACE]) * CANVAS_PX_PER_UNIT
    pivot_offset = np.array([pose.offset_x, pose.offset_y + PIVOT_BELOW_FACE])
    warp = cv2.getRotationMatrix2D(pivot_canvas_px.tolist(), -pose.roll_deg, unit_px / CANVAS_PX_PER_UNIT)
    # getRotationMatrix2D keeps the pivot at its place on the canvas; move it to its place in the frame.
    warp[:, 2] += np.array(person.center_xy_px) + pivot_offset * unit_px - pivot_canvas_px
    return warp


def _lit(head: np.ndarray, subject: Subject, pose: FacePose) -> np.ndarray:
    """Multiply by the light in the room and by the face's own soft shading, which turns with it."""
    lit = cv2.multiply(head, _light(subject), scale=1 / NEUTRAL_LIGHT)
    left, top, right, bottom = SOFT_BOX_PX
    yaw, pitch = math.radians(pose.yaw_deg), math.radians(pose.pitch_deg)
    middle_px = CANVAS_LEFT * CANVAS_PX_PER_UNIT - left
    move_x_px = middle_px * (1 - math.cos(yaw)) + 0.8 * math.sin(yaw) * CANVAS_PX_PER_UNIT
    follow = np.array([[math.cos(yaw), 0, move_x_px], [0, 1, 0.8 * math.sin(pitch) * CANVAS_PX_PER_UNIT]])
    size = (right - left, bottom - top)
    turned = cv2.warpAffine(_soft_shades(subject), follow, size, borderValue=(NEUTRAL_LIGHT,) * 4)
    box = (slice(top, bottom), slice(left, right))
    lit[box] = cv2.multiply(lit[box], turned, scale=1 / NEUTRAL_LIGHT)
    return lit


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the canvas's pixels in units: x and y, each (canvas height, canvas width)."""
    x = np.arange(CANVAS_WIDTH_PX) / CANVAS_PX_PER_UNIT - CANVAS_LEFT
    y = np.arange(CANVAS_HEIGHT_PX) / CANVAS_PX_PER_UNIT - CANVAS_TOP
    return np.meshgrid(x, y)


def _to_light_map(factors: np.ndarray) -> np.ndarray:
    """(height, width, 3) factors -> uint8 with a fourth channel that leaves opacity unchanged."""
    alpha = np.ones_like(factors[..., :1])
    return np.clip(np.concatenate([factors, alpha], 2) * NEUTRAL_LIGHT, 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _light(subject: Subject) -> np.ndarray:
    """Light on a ball lit from above and one side: (canvas height, canvas width, 4), uint8."""
    x, y = _grid()
    z = np.sqrt(np.maximum(0.05, 1 - (x / 1.25) ** 2 - (y / 1.9) ** 2))
    toward = np.array([0.65 * subject.light_from, -0.35, 0.75])
    facing = (x * toward[0] / 1.25 + y * toward[1] / 1.9 + z * toward[2]) / np.linalg.norm(toward)
    level = 1.06 + subject.light_strength * 0.75 * (np.clip(facing, -0.2, 1) - 0.8)
    level = np.minimum(level, 1.14)[..., None]
    return _to_light_map(level ** np.array([0.85, 1.08, 1.15]))


@lru_cache(maxsize=64)
def _soft_shades(subject: Subject) -> np.ndarray:
    """Features without edges: sockets, nose, cheeks, stubble. (canvas height, canvas width, 4), uint8."""
    x, y = _grid()

    def spot(x0: float, y0: float, half_width: float, half_height: float) -> np.ndarray:
        return np.exp(-(((x - x0) / half_width) ** 2) - ((y - y0) / half_height) ** 2)[..., None]

    red, dark = np.array([0.02, 0.2, 0.16]), np.array([0.75, 1.05, 1.15])
    factors = np.ones((CANVAS_HEIGHT_PX, CANVAS_WIDTH_PX, 3))
    side = -1 if subject.light_from > 0 else 1  # the shaded side of the nose
    for eye in (-1, 1):
        factors -= 0.13 * dark * spot(eye * subject.eye_spacing, -0.13, 0.27, 0.17)
        factors -= 0.09 * dark * spot(eye * 0.17, -0.1, 0.09, 0.2)
        factors -= 0.45 * red * spot(eye * 0.56, 0.3, 0.26, 0.2)
    factors -= 0.16 * dark * spot(side * subject.nose_width * 0.75, 0.16, 0.08, 0.24)
    factors -= 0.2 * dark * spot(0, 0.4, subject.nose_width * 1.1, 0.06)
    factors -= 0.14 * dark * spot(0, 0.86, 0.22, 0.06)
    factors += 0.1 * spot(-side * 0.02, 0.05, 0.06, 0.3) + 0.07 * spot(-side * 0.02, 0.26, 0.07, 0.07)
    factors += 0.05 * spot(-side * 0.2, -0.75, 0.5, 0.25) + 0.05 * spot(0, 1.02, 0.2, 0.12)
    if subject.facial_hair != "none":
        jaw = np.clip(1.2 * spot(0, 0.95, 0.95, 0.5) - 1.1 * spot(0, 0.6, 0.36, 0.18), 0, 1)
        factors -= 0.28 * (jaw + 0.6 * spot(0, 0.5, 0.34, 0.07)) * np.clip((y[..., None] - 0.2) * 3, 0, 1)
    left, top, right, bottom = SOFT_BOX_PX
    return _to_light_map(factors[top:bottom, left:right])


@lru_cache(maxsize=64)
def _room(room_seed: int, width_px: int, height_px: int, curtains: Color | None) -> np.ndarray:
    """A blurred wall with a few things on it: (height, width, 3), uint8."""
    rng = np.random.default_rng([room_seed, 11])
    wall = np.array(WALL_COLORS[rng.integers(len(WALL_COLORS))])
    x, y = np.meshgrid(np.linspace(-1, 1, width_px), np.linspace(-1, 1, height_px))
    level = 0.92 + 0.12 * x * rng.uniform(-1, 1) - 0.1 * y
    room = (wall * rng.uniform(0.72, 1.0) * level[..., None]).clip(0, 255).astype(np.uint8)
    for _ in range(rng.integers(2, 6)):
        w, h = rng.uniform(0.06, 0.22) * width_px, rng.uniform(0.1, 0.5) * height_px
        left, top = rng.uniform(-0.05, 0.95) * width_px, rng.uniform(-0.1, 0.6) * height_px
        color = np.clip(wall * rng.uniform(0.5, 1.1) + rng.uniform(-16, 16, 3), 0, 255)
        cv2.rectangle(room, (int(left), int(top)), (int(left + w), int(top + h)), color.tolist(), -1)
    if curtains is not None:
        _hang_curtains(room, curtains, rng)
    return cv2.GaussianBlur(room, (0, 0), 0.012 * width_px)


def _hang_curtains(room: np.ndarray, color: Color, rng: np.random.Generator) -> None:
    """Draw folded curtains, up to the region that face crops cover."""
    width_px = room.shape[1]
    for side in (room, room[:, ::-1]):
        x = np.arange(round(rng.uniform(0.15, 0.19) * width_px)) / width_px
        folds = rng.uniform(0.8, 1.05) * (1 + 0.18 * np.cos(2 * np.pi * (x / rng.uniform(0.03, 0.05) + rng.random())))
        side[:, : len(x)] = np.clip(folds[:, None] * color, 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _body(
    subject: Subject, width_px: int, height_px: int, center_xy_px: tuple[float, float], head_width_px: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Shoulders in the frame: premultiplied RGB (h, w, 3), the uncovered share (h, w, 4), and their first row."""
    unit = head_width_px / 2
    right = smooth_curve(np.array(SHOULDER), closed=False)
    outline_px = (np.concatenate([(right * (-1, 1))[::-1], right]) * unit + center_xy_px) * 2**SUBPIXEL_BITS
    outline_px = np.round(outline_px).astype(np.int32)
    mask = np.zeros((height_px, width_px), np.uint8)
    cv2.fillPoly(mask, [outline_px], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    x = (np.arange(width_px) - center_xy_px[0]) / unit
    y = (np.arange(height_px) - center_xy_px[1])[:, None] / unit
    level = 1.0 - 0.1 * np.abs(x) + 0.12 * subject.light_from * subject.light_strength * x - 0.08 * (y - 1.8)
    level = level - 0.25 * np.exp(-((x / 0.8) ** 2) - ((y - 1.9) / 0.25) ** 2)
    cloth = np.clip(np.array(subject.clothes) * np.clip(level, 0.3, 1.1)[..., None], 0, 255).astype(np.uint8)
    neckline = outline_px[len(right) - 18 : len(right) + 18]
    thickness_px = max(1, round(0.09 * unit))
    cv2.polylines(cloth, [neckline], False, shade(subject.clothes, 0.7), thickness_px, cv2.LINE_AA, SUBPIXEL_BITS)
    body = cv2.multiply(cloth, cv2.merge([mask] * 3), scale=1 / 255)
    top = int(np.flatnonzero(mask.any(1))[0]) if mask.any() else height_px - 1
    return body, cv2.merge([255 - mask] * 4), top


@lru_cache(maxsize=4)
def _noise_pictures(width_px: int, height_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise to add to and to subtract from a frame, with a margin: each (height + margin, width + margin, 3), uint8."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 2.2, (height_px + NOISE_MARGIN_PX, width_px + NOISE_MARGIN_PX, 3)).round()
    return np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)


def _add_noise(frame: np.ndarray, noise_seed: int) -> np.ndarray:
    height_px, width_px = frame.shape[:2]
    left, top = np.random.default_rng(noise_seed).integers(0, NOISE_MARGIN_PX, 2)
    window = (slice(top, top + height_px), slice(left, left + width_px))
    more, less = _noise_pictures(width_px, height_px)
    return cv2.subtract(cv2.add(frame, more[window]), less[window])
