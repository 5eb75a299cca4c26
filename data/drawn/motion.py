"""What a drawn face does: over a clip, given its levels of engagement, and in one picture, given its expression.

Three variants of clips. In "appearance" every frame shows how engaged the face is. In "dynamics" both classes show
exactly the same frames in opposite order, so that only a model that uses the order can distinguish them: a test of
whether a temporal head is useful. In "shortcut" faces behave as in "appearance", more clearly and with the head still,
and the room is misleading (`shortcut`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from ...processor.input_errors import RecipeError
from ..schema import binary_label
from .head import FacePose

VARIANTS = ("appearance", "dynamics", "shortcut")
ALERTNESS_BY_LEVEL = (0.0, 0.3, 0.7, 1.0)
CLEAR_ALERTNESS_BY_LEVEL = (0.0, 0.1, 0.9, 1.0)  # for "shortcut": a few hundred clips must suffice to learn the face
# Also for "shortcut": the label must show only within the face, but a leaning head shows against neck, hair and wall.
HELD_STILL = ("yaw_deg", "roll_deg", "offset_x", "offset_y")
SAWTOOTH_PERIOD_SEC = (6.0, 9.0)  # eight frames over ten seconds resolve 2.5 s; this gives at least five per cycle
SAWTOOTH_RISE_SHARE = 0.8

Tracks = dict[str, np.ndarray]  # field of FacePose -> its value in every frame, (frames,)

EXPRESSION_POSES: Mapping[str, Mapping[str, float]] = {
    "angry": dict(brow_tilt=0.95, brow_height=-0.7, mouth_smile=-0.5, mouth_width=-0.35, eye_openness=0.75),
    "disgust": dict(
        nose_wrinkle=1.0, brow_height=-0.45, brow_tilt=0.4, mouth_smile=-0.7, eye_openness=0.45, mouth_openness=0.1
    ),
    "fear": dict(
        brow_height=0.75, brow_tilt=-0.7, eye_openness=1.0, mouth_openness=0.28, mouth_width=0.8, mouth_smile=-0.35
    ),
    "happy": dict(mouth_smile=1.0, mouth_width=0.5, eye_openness=0.62, brow_height=0.15, mouth_openness=0.22),
    "sad": dict(brow_tilt=-0.95, mouth_smile=-0.85, eye_openness=0.5, brow_height=0.1, gaze_y=0.4),
    "surprise": dict(brow_height=1.0, eye_openness=1.0, mouth_openness=0.65, mouth_width=-0.5),
    "neutral": {},
}
STATE_POSES: Mapping[str, Mapping[str, float]] = {
    "bored": dict(
        eye_openness=0.35, gaze_x=0.5, gaze_y=0.4, mouth_smile=-0.35, brow_height=-0.25,
        yaw_deg=13, roll_deg=8, pitch_deg=5,
    ),
    "confused": dict(
        brow_asymmetry=0.9, brow_tilt=0.4, mouth_smile=-0.2, mouth_width=-0.35, roll_deg=7, eye_openness=0.7
    ),
    "engaged": dict(eye_openness=0.95, brow_height=0.35, mouth_smile=0.5),
    "neutral": {},
}  # fmt: skip
# How much a picture's pose may differ from its label's, so that no two pictures are the same.
POSE_SPREAD: Mapping[str, float] = dict(
    eye_openness=0.06, gaze_x=0.15, gaze_y=0.12, brow_height=0.12, brow_tilt=0.1, brow_asymmetry=0.08, mouth_smile=0.1,
    mouth_openness=0.03, mouth_width=0.1, yaw_deg=5, pitch_deg=3, roll_deg=4, offset_x=0.05, offset_y=0.05,
)  # fmt: skip


class AffectLevels(NamedTuple):
    """The four levels, 0 to 3 each, in the order of DAiSEE's columns."""

    boredom: int
    engagement: int
    confusion: int
    frustration: int


def engagement_trajectory(
    label: AffectLevels, variant: str, duration_sec: float, fps: float, rng: np.random.Generator
) -> list[FacePose]:
    """One pose per frame, for a clip with these levels."""
    num_frames = round(duration_sec * fps)
    if num_frames < 1:
        raise RecipeError(f"Expected at least 1 frame, got {duration_sec} s at {fps} frames/s.")
    if variant == "appearance":
        return _to_poses(_appearance_tracks(label, ALERTNESS_BY_LEVEL, num_frames, fps, rng))
    if variant == "shortcut":
        tracks = _appearance_tracks(label, CLEAR_ALERTNESS_BY_LEVEL, num_frames, fps, rng)
        return _to_poses({**tracks, **dict.fromkeys(HELD_STILL, np.zeros(num_frames))})
    if variant == "dynamics":
        poses = _to_poses(_sawtooth_tracks(num_frames, fps, rng))
        # The random numbers above are independent of the label, and playing backwards keeps the set of frames: the
        # classes differ only in order, by construction.
        return poses if binary_label(label._asdict()) == "engaged" else poses[::-1]
    raise RecipeError(f"Expected variant {' or '.join(VARIANTS)}, got {variant!r}.")


def expression_pose(label: str, rng: np.random.Generator) -> FacePose:
    """A random pose for one of FER2013's seven expressions."""
    return _picture_pose(EXPRESSION_POSES, label, rng)


def state_pose(label: str, rng: np.random.Generator) -> FacePose:
    """A random pose of a face that looks bored, confused, engaged or neutral."""
    return _picture_pose(STATE_POSES, label, rng)


def _picture_pose(poses: Mapping[str, Mapping[str, float]], label: str, rng: np.random.Generator) -> FacePose:
    if label not in poses:
        raise RecipeError(f"Expected one of {', '.join(poses)}, got {label!r}.")
    strength, mirrored = rng.uniform(0.55, 1.0), rng.choice([-1, 1])
    tracks: Tracks = {}
    for name in (field.name for field in fields(FacePose)):
        calm = getattr(FacePose(), name)
        value = calm + strength * (poses[label].get(name, calm) - calm)
        if name in ("gaze_x", "yaw_deg", "roll_deg", "brow_asymmetry"):
            value *= mirrored
        tracks[name] = np.array([value + rng.normal(0, POSE_SPREAD.get(name, 0.0))])
    return _to_poses(tracks)[0]


def _appearance_tracks(
    label: AffectLevels, alertness: Sequence[float], num_frames: int, fps: float, rng: np.random.Generator
) -> Tracks:
    """Engagement is visible in every frame: lids, gaze, brows, mouth, head."""

    def drift(std: float, time_sec: float = 1.5) -> np.ndarray:
        return std * _drift(num_frames, fps, time_sec, rng)

    alert = alertness[label.engagement] + rng.normal(0, 0.08) + drift(0.1)
    away, side = 1 - alert, rng.choice([-1, 1])
    yawn = _pulses(num_frames, fps, 0.06 * max(0.0, 0.6 - alertness[label.engagement]), 2.6, rng)
    glance = _pulses(num_frames, fps, 0.06, 1.2, rng)  # engaged people look away now and then, others look back
    nod = np.sin(2 * np.pi * (np.arange(num_frames) / fps / rng.uniform(3, 5) + rng.random()))
    confusion, frustration, boredom = label.confusion / 3, label.frustration / 3, label.boredom / 3
    eye = 0.36 + 0.48 * alert + rng.normal(0, 0.05) - 0.08 * boredom + drift(0.03)
    return {
        "eye_openness": eye * (1 - 0.8 * yawn) * (1 - _pulses(num_frames, fps, 0.25, 0.25, rng)),
        "gaze_x": side * 0.55 * away * (1 - 0.7 * glance) + side * 0.5 * glance * alert + drift(0.1, 0.6),
        "gaze_y": 0.4 * away + rng.normal(0, 0.06) + drift(0.06, 0.6),
        "brow_height": -0.3 + 0.55 * alert + 0.3 * yawn - 0.4 * frustration + rng.normal(0, 0.1),
        "brow_tilt": -0.25 * away + 0.7 * frustration + 0.2 * confusion + drift(0.05),
        "brow_asymmetry": side * 0.8 * confusion + rng.normal(0, 0.06) + drift(0.04),
        "mouth_smile": -0.3 + 0.6 * alert - 0.25 * frustration - 0.15 * boredom + rng.normal(0, 0.12) + drift(0.05),
        "mouth_openness": 0.09 * away * (1 - frustration) + 0.85 * yawn,
        "mouth_width": -0.5 * frustration + rng.normal(0, 0.08) + drift(0.03),
        "yaw_deg": side * 15 * away * (1 - 0.6 * glance) + side * 8 * glance * alert + rng.normal(0, 3) + drift(1.5),
        "pitch_deg": 8 * away + 3 * away * nod + rng.normal(0, 2) + drift(1.0),
        "roll_deg": side * 7 * away + side * 5 * confusion + rng.normal(0, 2) + drift(1.0),
        "offset_x": side * 0.12 * away + rng.normal(0, 0.08) + drift(0.03),
        "offset_y": 0.1 * away + rng.normal(0, 0.05) + 0.03 * away * nod + drift(0.02),
    }


def _sawtooth_tracks(num_frames: int, fps: float, rng: np.random.Generator) -> Tracks:
    """The face slowly opens and quickly shuts, repeatedly, starting at a random point of the cycle."""
    cycle = (np.arange(num_frames) / fps / rng.uniform(*SAWTOOTH_PERIOD_SEC) + rng.random()) % 1.0
    level = np.where(cycle < SAWTOOTH_RISE_SHARE, cycle / SAWTOOTH_RISE_SHARE, (1 - cycle) / (1 - SAWTOOTH_RISE_SHARE))
    level = level + 0.03 * _drift(num_frames, fps, 0.5, rng)

    def drift(std: float) -> np.ndarray:
        return rng.normal(0, std) + std * _drift(num_frames, fps, 1.5, rng)

    return {
        "eye_openness": (0.05 + 0.95 * level) * (1 - _pulses(num_frames, fps, 0.1, 0.25, rng)),
        "gaze_x": drift(0.1),
        "gaze_y": drift(0.08),
        "brow_height": -0.7 + 1.5 * level + drift(0.05),
        "mouth_smile": -0.4 + 0.9 * level + drift(0.05),
        "mouth_openness": 0.9 * (1 - level),
        "yaw_deg": 20 - 40 * level + drift(1.0),
        "pitch_deg": drift(1.5),
        "roll_deg": drift(2.0),
        "offset_x": drift(0.05),
        "offset_y": drift(0.04),
    }


def _drift(num_frames: int, fps: float, time_sec: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit variance, the same forwards and backwards: (frames,)."""
    reach = max(1, round(2 * time_sec * fps))
    kernel = np.exp(-((np.arange(-reach, reach + 1) / max(time_sec * fps, 1e-6)) ** 2))
    noise = rng.normal(size=num_frames + 2 * reach)
    return np.convolve(noise, kernel / np.linalg.norm(kernel), mode="valid")


def _pulses(num_frames: int, fps: float, rate_hz: float, length_sec: float, rng: np.random.Generator) -> np.ndarray:
    """Symmetric pulses from 0 to 1 at random times, for blinks, glances and yawns: (frames,)."""
    times_sec = np.arange(num_frames) / fps
    pulses = np.zeros(num_frames)
    span_sec = num_frames / fps + length_sec
    for middle_sec in rng.uniform(-length_sec / 2, span_sec - length_sec / 2, rng.poisson(rate_hz * span_sec)):
        distance = np.minimum(1, np.abs(times_sec - middle_sec) / (length_sec / 2))
        pulses = np.maximum(pulses, np.minimum(1, 1.4 * np.cos(distance * math.pi / 2) ** 2))
    return pulses


def _to_poses(tracks: Tracks) -> list[FacePose]:
    """Tracks, limited to what a face can do -> one pose per frame."""
    limits = {"eye_openness": (0, 1), "mouth_openness": (0, 1), "nose_wrinkle": (0, 1), "yaw_deg": (-22, 22)}
    limits |= {"pitch_deg": (-14, 14), "roll_deg": (-20, 20)}
    kept = {name: np.clip(track, *limits.get(name, (-1, 1))).tolist() for name, track in tracks.items()}
    return [FacePose(**dict(zip(kept, values, strict=True))) for values in zip(*kept.values(), strict=True)]
