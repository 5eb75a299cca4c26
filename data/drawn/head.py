"""One drawn head on its own canvas: every feature is a curve on an ellipsoid, so that turning the head distorts it.

`Subject` defines how a person looks and `FacePose` what the face does; `draw_head` draws both without light. Lengths
are in half face widths, from the centre of the face, x to the image's right and y down. Light, room and frame are in
`faces`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

Color = tuple[int, int, int]  # RGB, 0 to 255

# The head is drawn on its own canvas, measured in half face widths, and then warped into the frame.
CANVAS_PX_PER_UNIT = 120
CANVAS_LEFT, CANVAS_TOP = 1.75, 1.95  # from the canvas's corner to the centre of the face, in units
CANVAS_WIDTH_PX, CANVAS_HEIGHT_PX = 420, 492
FACE_HEIGHT = 1.3  # half the head's height, in half face widths
SUBPIXEL_BITS = 4  # cv2 draws polygons at 1/16 px with shift=4


@dataclass(frozen=True)
class Subject:
    """How one drawn person looks. Lengths are in half face widths, colours are RGB."""

    skin: Color
    hair: Color
    hair_style: str
    facial_hair: str  # "none", "stubble" or "beard"
    glasses: bool
    iris: Color
    clothes: Color
    jaw_width: float
    eye_spacing: float
    eye_size: float
    brow_thickness: float
    nose_width: float
    mouth_width: float
    lip_fullness: float
    light_from: float  # -1 from the image's left .. 1 from its right
    light_strength: float
    head_width_ratio: float  # head width / frame width: the distance to the camera
    room_seed: int


@dataclass(frozen=True)
class FacePose:
    """What the face does in one frame; by default it looks calmly into the camera."""

    eye_openness: float = 0.8  # 0 shut .. 1 wide open
    gaze_x: float = 0.0  # -1 to the image's left .. 1 to its right
    gaze_y: float = 0.0  # -1 up .. 1 down
    brow_height: float = 0.0  # -1 lowered .. 1 raised
    brow_tilt: float = 0.0  # -1 inner ends up (sad) .. 1 inner ends down (angry)
    brow_asymmetry: float = 0.0  # 1 raises the brow on the image's right and lowers the other
    mouth_smile: float = 0.0  # -1 corners down .. 1 corners up
    mouth_openness: float = 0.0  # 0 shut .. 1 a yawn
    mouth_width: float = 0.0  # -1 pursed .. 1 stretched
    nose_wrinkle: float = 0.0  # 0 .. 1, disgust
    yaw_deg: float = 0.0  # positive turns to the image's right
    pitch_deg: float = 0.0  # positive looks down
    roll_deg: float = 0.0  # positive leans to the image's right
    offset_x: float = 0.0  # of the head, in half face widths
    offset_y: float = 0.0


# Outlines from the image's left to its right, in half face widths.
# fmt: off
NECK = np.array([
    (-0.5, 0.6), (-0.49, 1.3), (-0.62, 1.75), (-0.9, 2.15), (0.9, 2.15), (0.62, 1.75), (0.49, 1.3), (0.5, 0.6),
])
BEARD_TOP = np.array([
    (-0.9, 0.25), (-0.66, 0.5), (-0.42, 0.52), (-0.14, 0.46), (0.14, 0.46), (0.42, 0.52), (0.66, 0.5), (0.9, 0.25),
])
# Left halves of the outer edge of the hair and of the hairline; the right halves mirror them unless given in full.
SHORT_OUTER = [(-1.0, -0.25), (-1.09, -0.75), (-0.8, -1.3), (-0.3, -1.53)]
HAIR_OUTER = {
    "short": SHORT_OUTER,
    "bun": SHORT_OUTER,
    "curly": SHORT_OUTER,
    "side": [(-1.0, -0.2), (-1.1, -0.75), (-0.85, -1.35), (-0.3, -1.62), (0.3, -1.6), (0.85, -1.3), (1.08, -0.75),
             (1.0, -0.2)],
    "buzz": [(-0.98, -0.3), (-1.02, -0.7), (-0.75, -1.15), (-0.3, -1.36)],
    "long": [(-1.14, 1.75), (-1.25, 0.4), (-1.16, -0.65), (-0.88, -1.3), (-0.3, -1.58)],
    "bob": [(-1.14, 0.95), (-1.25, 0.4), (-1.16, -0.65), (-0.88, -1.3), (-0.3, -1.58)],
}
SHORT_HAIRLINE = [(-0.95, -0.3), (-0.88, -0.62), (-0.66, -0.84), (-0.25, -0.92)]
HAIRLINES = {
    "short": SHORT_HAIRLINE,
    "bun": SHORT_HAIRLINE,
    "buzz": SHORT_HAIRLINE,
    "curly": [(-0.96, -0.2), (-0.85, -0.6), (-0.6, -0.82), (-0.2, -0.88)],
    "side": [(-0.95, -0.25), (-0.88, -0.52), (-0.74, -0.7), (-0.35, -0.74), (0.1, -0.82), (0.52, -1.02), (0.86, -0.7),
             (0.95, -0.25)],
    "long": [(-1.0, 1.6), (-0.96, 0.5), (-0.9, -0.3), (-0.68, -0.72), (-0.12, -1.08)],
    "bob": [(-0.95, 0.85), (-0.96, 0.4), (-0.88, -0.25), (-0.72, -0.6), (-0.25, -0.66)],
}
# fmt: on
HAIR_STYLES = tuple(HAIR_OUTER)


def draw_head(subject: Subject, pose: FacePose) -> np.ndarray:
    """The unlit head on its canvas: (canvas height, canvas width, 4), uint8 RGBA, premultiplied."""
    head = _Head(subject, pose)
    head.draw_back_hair()
    head.draw_neck_and_ears()
    head.draw_face()
    head.draw_nose()
    head.draw_mouth()
    for side in (-1, 1):
        head.draw_eye(side)
        head.draw_brow(side)
    head.draw_front_hair()
    if subject.glasses:
        head.draw_glasses()
    return head.canvas


class _Head:
    """One head being drawn: the canvas, and where the pose puts a point of the face on it."""

    def __init__(self, subject: Subject, pose: FacePose) -> None:
        self.subject, self.pose = subject, pose
        self.canvas = np.zeros((CANVAS_HEIGHT_PX, CANVAS_WIDTH_PX, 4), np.uint8)
        yaw, pitch = math.radians(pose.yaw_deg), math.radians(pose.pitch_deg)
        self.sin_yaw, self.cos_yaw = math.sin(yaw), math.cos(yaw)
        self.sin_pitch, self.cos_pitch = math.sin(pitch), math.cos(pitch)

    def place(self, points: np.ndarray, depth: float | None = None) -> np.ndarray:
        """Points of the unturned face, (n, 2) in units -> their places in this pose; depth None is the surface."""
        x, y = points[:, 0], points[:, 1]
        z = depth if depth is not None else 0.85 * np.sqrt(np.maximum(0.0, 1 - x**2 * 0.9 - (y / 1.45) ** 2))
        seen_x = x * self.cos_yaw + z * self.sin_yaw
        seen_y = y * self.cos_pitch + (z * self.cos_yaw - x * self.sin_yaw) * self.sin_pitch
        return np.stack([seen_x, seen_y], axis=1)

    def fill(self, seen: np.ndarray, color: Color) -> None:
        cv2.fillPoly(self.canvas, [_to_canvas(seen)], (*color, 255), cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke(self, seen: np.ndarray, color: Color, width: float, closed: bool = False) -> None:
        thickness_px = max(1, round(width * CANVAS_PX_PER_UNIT))
        cv2.polylines(self.canvas, [_to_canvas(seen)], closed, (*color, 255), thickness_px, cv2.LINE_AA, SUBPIXEL_BITS)

    def draw_back_hair(self) -> None:
        style, dark, lean = self.subject.hair_style, shade(self.subject.hair, 0.72), -0.12 * self.sin_yaw
        outer, _ = _hair_shape(style)
        self.fill(_moved(outer, -0.04 * self.sin_yaw), dark)  # else a turned head shows the room behind its face
        if style == "bun":
            self.fill(_ellipse(lean, -1.52, 0.42, 0.36), dark)
        if style in ("long", "bob"):
            end = 1.95 if style == "long" else 0.95
            right = [(0.6, -1.3), (1.1, -0.75), (1.2, 0.0), (1.2, 0.55 * end), (1.1, end), (0.5, end + 0.05)]
            self.fill(_moved(smooth_curve(np.concatenate([right, _mirrored(right)])), lean), dark)
        if style == "curly":
            for angle in np.linspace(0.72 * np.pi, 2.28 * np.pi, 15):
                self.fill(_ellipse(math.cos(angle) + lean, -0.35 + 0.95 * math.sin(angle), 0.3, 0.3), dark)

    def draw_neck_and_ears(self) -> None:
        skin = self.subject.skin
        self.fill(smooth_curve(NECK), shade(skin, 0.86))
        chin_shadow = _face_outline(self.subject.jaw_width) * (0.86, 0.97)
        self.fill(_moved(chin_shadow, 0.1 * self.sin_yaw, 0.2), skin_shadow(skin, 0.72))
        for side in (-1, 1):
            x, y = side * self.cos_yaw - 0.18 * self.sin_yaw, 0.02 - 0.1 * self.sin_pitch
            self.fill(_ellipse(x, y, 0.13, 0.25), skin_shadow(skin, 0.93))
            self.fill(_ellipse(x, y, 0.065, 0.15), skin_shadow(skin, 0.78))

    def draw_face(self) -> None:
        outline = _face_outline(self.subject.jaw_width).copy()
        # A wide open mouth moves the chin.
        outline[:, 1] += np.maximum(0, outline[:, 1] - 0.4) * 0.1 * self.pose.mouth_openness
        self.fill(outline, self.subject.skin)
        if self.subject.facial_hair == "beard":
            jaw = outline[outline[:, 1] > 0.12]  # runs from the image's right over the chin to its left
            top = self.place(smooth_curve(BEARD_TOP, closed=False))
            self.fill(np.concatenate([jaw, top]), mix_colors(self.subject.skin, self.subject.hair, 0.72))

    def draw_eye(self, side: int) -> None:
        subject, opened = self.subject, min(1.2, self.pose.eye_openness * 1.1)
        half_width = 0.2 * subject.eye_size
        t = np.linspace(-1, 1, 13)
        x = side * subject.eye_spacing + half_width * t
        bow = 1 - t**2 * (0.65 + 0.35 * t**2)
        lower = -0.1 - 0.02 * t * side + 0.055 * bow  # the outer corner lies a little higher
        upper = lower - bow * (0.005 + 0.185 * opened * subject.eye_size)
        self.fill(self.place(_band(x, upper - 0.05 * bow, lower + 0.01 * bow)), skin_shadow(subject.skin, 0.88))
        self.fill(self.place(_band(x, upper, lower)), (240, 236, 232))
        if opened > 0.06:
            self.draw_iris(side * subject.eye_spacing, x, upper, lower)
        corner = (x[::side][-1] + side * 0.02, upper[::side][-1] - 0.02)  # the lashes extend beyond the outer corner
        lashes = np.concatenate([_curve(x, upper)[::side], [corner]])
        dark_hair = sum(subject.hair) < 330
        self.stroke(self.place(lashes), shade(subject.hair, 0.5) if dark_hair else (70, 52, 42), 0.034)
        self.stroke(self.place(_curve(x, lower)), skin_shadow(subject.skin, 0.7), 0.012)
        crease = _curve(x, upper - 0.06 * (0.4 + bow) * (1.15 - 0.4 * self.pose.eye_openness))
        self.stroke(self.place(crease[1:-1]), skin_shadow(subject.skin, 0.72), 0.012)

    def draw_iris(self, middle_x: float, x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> None:
        """Draw iris, pupil and highlight, clipped by the lids, whose curves are (n,) each."""
        iris, radius = self.subject.iris, 0.103 * self.subject.eye_size
        center_x, center_y = middle_x + 0.085 * self.pose.gaze_x, -0.135 + 0.06 * self.pose.gaze_y
        for share, color in ((1.0, shade(iris, 0.6)), (0.82, iris), (0.42, (14, 12, 12))):
            ring = _ellipse(center_x, center_y, radius * share, radius * share)
            ring[:, 0] = np.clip(ring[:, 0], x[0], x[-1])
            ring[:, 1] = np.clip(ring[:, 1], np.interp(ring[:, 0], x, upper), np.interp(ring[:, 0], x, lower))
            self.fill(self.place(ring), color)
        glint_x, glint_y = center_x + 0.032 * self.subject.light_from, center_y - 0.035
        if np.interp(glint_x, x, upper) < glint_y - 0.01:
            self.fill(self.place(_ellipse(glint_x, glint_y, 0.024, 0.024)), (255, 255, 255))

    def draw_brow(self, side: int) -> None:
        subject, pose = self.subject, self.pose
        t = np.linspace(0, 1, 9)  # from the inner end to the outer
        x = side * (subject.eye_spacing - 0.21 + 0.46 * t)
        arch = 0.075 * np.sin(np.pi * np.clip(t * 0.85 + 0.1, 0, 1))
        tilt = 0.13 * pose.brow_tilt * (0.75 - t) - 0.09 * side * pose.brow_asymmetry * (0.3 + t)
        y = -0.385 - arch - 0.1 * pose.brow_height + tilt
        half = subject.brow_thickness * 0.5 * (1.0 - 0.75 * t**1.5) * np.minimum(1, 0.6 + 3 * t)
        self.fill(self.place(_band(x, y - half, y + half)), mix_colors(shade(subject.hair, 0.75), subject.skin, 0.15))
        if pose.brow_tilt > 0.35:  # a frown wrinkles the skin between the brows
            fold = np.array([(side * 0.07, -0.42), (side * 0.055, -0.3)])
            self.stroke(self.place(fold), skin_shadow(subject.skin, 0.82), 0.014)

    def draw_nose(self) -> None:
        skin, width, lift = self.subject.skin, self.subject.nose_width, -0.03 * self.pose.nose_wrinkle
        for side in (-1, 1):
            nostril = _ellipse(side * width * 0.5, 0.325 + lift, 0.05, 0.024)
            self.fill(self.place(nostril, 0.93), skin_shadow(skin, 0.55))
            wing = np.array([(0.9, 0.2), (1.12, 0.27), (0.98, 0.34), (0.8, 0.335)]) * (side * width, 1)
            wing = _moved(smooth_curve(wing, closed=False), 0, lift)
            self.stroke(self.place(wing, 0.85), skin_shadow(skin, 0.7), 0.016)
            if self.pose.nose_wrinkle > 0.3:
                crease = np.array([(side * 0.12, -0.1), (side * 0.19, -0.02), (side * 0.2, 0.06)])
                self.stroke(self.place(smooth_curve(crease, closed=False)), skin_shadow(skin, 0.75), 0.014)
        tip = np.array([(-0.06, 0.335), (0.0, 0.35), (0.06, 0.335)])
        self.stroke(self.place(_moved(smooth_curve(tip, closed=False), 0, lift), 0.98), skin_shadow(skin, 0.72), 0.014)

    def draw_mouth(self) -> None:
        subject, pose, smile = self.subject, self.pose, max(0.0, self.pose.mouth_smile)
        rounded = 0.2 * pose.mouth_openness * (pose.mouth_width < 0.3)  # a yawn is narrower than a mouth at rest
        half_width = subject.mouth_width * (1 + 0.22 * pose.mouth_width + 0.12 * smile - rounded)
        full = 0.072 * subject.lip_fullness * (1 - 0.2 * pose.mouth_width - 0.12 * smile)
        t = np.linspace(-1, 1, 17)
        x, bow = half_width * t, 1 - t**2
        cupid = 0.85 + 0.25 * np.exp(-(((np.abs(t) - 0.22) / 0.2) ** 2)) - 0.12 * np.exp(-((t / 0.1) ** 2))
        line = 0.66 - 0.1 * pose.mouth_smile * (t**2 - 0.35) - 0.02 * pose.nose_wrinkle
        gap = 0.36 * pose.mouth_openness * bow
        upper, lower = line - gap * 0.25, line + gap * 0.75
        lip = mix_colors(shade(subject.skin, 0.92), (178, 72, 78), 0.42)
        lip_top = upper - full * 0.9 * bow * cupid
        self.fill(self.place(_band(x, lip_top, lower + full * 1.25 * bow**0.8)), lip)
        self.fill(self.place(_band(x, lip_top, upper)), shade(lip, 0.86))
        if pose.mouth_openness > 0.03:
            self.draw_open_mouth(x * 0.94, upper, lower)
        else:
            self.stroke(self.place(_curve(x, line)), shade(lip, 0.5), 0.018)
        if pose.mouth_smile > 0.25 and subject.facial_hair != "beard":
            self.draw_smile_folds(half_width)

    def draw_open_mouth(self, x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> None:
        self.fill(self.place(_band(x, upper, lower)), (62, 24, 26))
        teeth = upper + np.minimum((lower - upper) * 0.4, 0.07)
        if self.pose.mouth_openness > 0.15:  # a slightly open mouth shows no teeth
            self.fill(self.place(_band(x, upper, teeth)), (236, 230, 222))
        if self.pose.mouth_openness > 0.3:
            tongue = np.maximum(lower - 0.12 * (1 - np.linspace(-1, 1, len(x)) ** 2), teeth)
            self.fill(self.place(_band(x * 0.8, tongue, lower)), (168, 84, 84))

    def draw_smile_folds(self, half_width: float) -> None:
        for side in (-1, 1):
            points = [(side * (half_width + out), y) for out, y in ((0.03, 0.47), (0.09, 0.55), (0.1, 0.66))]
            fold = smooth_curve(np.array(points), closed=False)
            self.stroke(self.place(fold), skin_shadow(self.subject.skin, 0.86), 0.014)

    def draw_front_hair(self) -> None:
        hair = self.subject.hair
        outer, hairline = _hair_shape(self.subject.hair_style)
        self.fill(np.concatenate([_moved(outer, -0.04 * self.sin_yaw), self.place(hairline)[::-1]]), hair)
        if self.subject.hair_style == "buzz":
            return
        colors = (shade(hair, 0.86), mix_colors(hair, (255, 232, 200), 0.09))
        for number, at in enumerate(range(4, min(len(outer), len(hairline)) - 4, 3)):  # strands, hairline to crown
            start = hairline[at] * 0.93 + outer[at] * 0.07
            end = hairline[at] * 0.15 + outer[at] * 0.8
            bend = (start + end) / 2 + (0.07 * np.sign(end[0]) * (1 - abs(end[0])), -0.03)
            strand = smooth_curve(np.stack([start, bend, end]), closed=False, steps=4)
            self.stroke(self.place(strand), colors[number % 2], 0.02)

    def draw_glasses(self) -> None:
        rim, spacing = (38, 36, 42), self.subject.eye_spacing
        rounded = np.sign(_circle()) * np.abs(_circle()) ** 0.6 * (0.3, 0.22)
        for side in (-1, 1):
            lens = self.place(_moved(rounded, side * (spacing + 0.01), -0.1), 0.9)
            self.stroke(lens, rim, 0.026, closed=True)
            hinge = self.place(np.array([(side * (spacing + 0.31), -0.14)]), 0.9)
            ear = self.place(np.array([(side * 0.97, -0.12)]), 0.0)
            if side * (ear[0, 0] - hinge[0, 0]) > 0:  # else the temple is hidden by the lens
                self.stroke(np.concatenate([hinge, ear]), rim, 0.026)
        bridge = smooth_curve(np.array([(-0.1, -0.12), (0.0, -0.16), (0.1, -0.12)]), closed=False)
        self.stroke(self.place(bridge, 0.95), rim, 0.026)


def mix_colors(first: Color, second: Color, share: float) -> Color:
    """`share` of the second colour, the rest of the first."""
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shade(color: Color, factor: float) -> Color:
    """A darker colour, or with a factor above 1 a lighter one."""
    red, green, blue = (int(min(255, channel * factor)) for channel in color)
    return red, green, blue


def skin_shadow(skin: Color, factor: float) -> Color:
    """Colour of skin in shadow, which is not only darker but redder."""
    red, green, blue = (int(channel * factor**power) for channel, power in zip(skin, (0.8, 1.15, 1.25), strict=True))
    return red, green, blue


def smooth_curve(points: np.ndarray, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through the points: (n, 2) -> (about n * steps, 2)."""
    padded = np.concatenate([points[-1:], points, points[:2]] if closed else [points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = curve.transpose(1, 0, 2).reshape(-1, 2)  # (steps, segments, 2) -> (segments*steps, 2)
    return flat if closed else np.concatenate([flat, points[-1:]])


def _to_canvas(points: np.ndarray) -> np.ndarray:
    """Units -> the fixed-point pixels that cv2 draws."""
    px = _moved(points, CANVAS_LEFT, CANVAS_TOP) * (CANVAS_PX_PER_UNIT * 2**SUBPIXEL_BITS)
    return np.round(px).astype(np.int32)


def _moved(points: np.ndarray, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return points + np.array((x, y))


def _mirrored(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The other half of a symmetric outline."""
    return [(-x, y) for x, y in reversed(points)]


def _curve(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x, y], axis=1)  # (n,), (n,) -> (n, 2)


def _band(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Outline of the area between two curves over the same x: (n,) each -> (2n, 2)."""
    return np.concatenate([_curve(x, upper), _curve(x, lower)[::-1]])


@lru_cache(maxsize=1)
def _circle() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return _curve(np.cos(t), np.sin(t))


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return _moved(_circle() * (half_width, half_height), x, y)


@lru_cache(maxsize=256)
def _face_outline(jaw_width: float) -> np.ndarray:
    """The edge of the face, clockwise from the crown: (72, 2) in units."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    x, y = np.sin(t), -np.cos(t)
    lower = np.maximum(0, y)
    x = x * (1 - (0.16 - 0.1 * jaw_width) * lower**1.5)
    x = np.sign(x) * np.abs(x) ** (1 - 0.18 * jaw_width * lower)
    return _curve(x * 0.98, y * FACE_HEIGHT)


@lru_cache(maxsize=16)
def _hair_shape(style: str) -> tuple[np.ndarray, np.ndarray]:
    """The outer edge of the hair and the hairline, from the image's left to its right, both (n, 2) in units."""
    outer, hairline = HAIR_OUTER[style], HAIRLINES[style]
    whole = [half if half[-1][0] > 0 else half + _mirrored(half) for half in (outer, hairline)]
    return smooth_curve(np.array(whole[0]), closed=False), smooth_curve(np.array(whole[1]), closed=False)
