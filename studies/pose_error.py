"""Errors of the estimated head pose: `python -m engagement_recognition.studies.pose_error`

Drawn people turn, nod and lean by known angles, one at a time; the detector finds their landmarks as usual, and
`data.face_signals.head_pose` estimates the angles: one table per seed, and one for all. Drawn heads are ellipsoids with
a flat nose, so two more tables use no pictures: the exact points of a drawn head show the error due to its shape, and
faces that vary around the mean face as people do show the error to expect otherwise. It needs no data, and about a
minute.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.drawn.faces import FacePose, draw_frame, draw_subject
from ..data.face_signals import MEAN_FACE_MM, head_pose
from ..evaluation.markdown import markdown_table
from ..processor.face_detection import FaceDetector

ANGLES = ("yaw", "pitch", "roll")
_TURNS_DEG = {"yaw": (15, 30, 45), "pitch": (15, 30), "roll": (15, 30)}
# The five points of a drawn head of average proportions, as in `drawn.head`, in half face widths.
_DRAWN_FACE = np.array(
    [[-0.41, -0.13, 0.78], [0.41, -0.13, 0.78], [0, 0.33, 0.98], [-0.36, 0.66, 0.7], [0.36, 0.66, 0.7]]
)
_PEOPLE_DIFFER_MM = 3.0  # standard deviation of each coordinate of each point
_NUM_FACES = 1000
_PEOPLE_APART = 10_000  # so that different seeds give different people


def poses() -> list[tuple[str, FacePose]]:
    """Names and poses: straight, then one angle at a time, in both directions."""
    straight = FacePose()
    turned = [
        (f"{angle} {size:+d}", replace(straight, **{f"{angle}_deg": float(size)}))
        for angle, sizes in _TURNS_DEG.items()
        for size in (*(-size for size in sizes[::-1]), *sizes)
    ]
    return [("straight", straight), *turned]


def detected_landmarks(seed: int, num_people: int) -> np.ndarray:
    """For every pose, in pixels, (num_poses, num_people, 5, 2); NaN where no face was found."""
    detector, known = FaceDetector(), [pose for _, pose in poses()]
    landmarks = np.full((len(known), num_people, 5, 2), np.nan)
    for person in range(num_people):
        number = seed * _PEOPLE_APART + person
        subject = draw_subject(number)
        frames = np.stack([draw_frame(subject, pose, noise_seed=number + at) for at, pose in enumerate(known)])
        for at, faces in enumerate(detector.detect(frames)):
            if len(faces):
                landmarks[at, person] = faces.landmarks_xy_px[0]
    return landmarks


def exact_landmarks(faces: np.ndarray) -> np.ndarray:
    """For every pose, without a picture: points of faces, (num_faces, 5, 3) -> (num_poses, num_faces, 5, 2)."""
    return np.stack([_seen(faces, pose) for _, pose in poses()])


def _seen(points: np.ndarray, pose: FacePose) -> np.ndarray:
    """Rotated as in `drawn.head`, and projected in parallel: (..., 3) -> (..., 2)."""
    yaw, pitch, roll = (math.radians(angle) for angle in (pose.yaw_deg, pose.pitch_deg, pose.roll_deg))
    x, y, z = np.moveaxis(points, -1, 0)
    x, z = x * math.cos(yaw) + z * math.sin(yaw), z * math.cos(yaw) - x * math.sin(yaw)
    y = y * math.cos(pitch) + z * math.sin(pitch)
    return np.stack([x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll)], axis=-1)


def pose_errors(landmarks: np.ndarray) -> np.ndarray:
    """Measured minus true, in degrees: (num_poses, num_faces, 5, 2) -> (num_poses, num_faces, 3)."""
    true_deg = np.array([[pose.yaw_deg, pose.pitch_deg, pose.roll_deg] for _, pose in poses()])
    measured_deg = head_pose(landmarks.reshape(-1, 5, 2)).reshape(*landmarks.shape[:2], len(ANGLES))
    return measured_deg - true_deg[:, None]


def describe(errors: np.ndarray) -> str:
    """A Markdown table, one line per pose: mean absolute error and bias of each angle, and faces without a pose."""
    rows = []
    for (name, _), of_pose in zip(poses(), errors, strict=True):
        seen = of_pose[np.isfinite(of_pose).all(axis=1)]
        cells = [f"{abs(column).mean():.1f} ({column.mean():+.1f})" if len(seen) else "" for column in seen.T]
        rows.append([name, *cells, f"{len(of_pose) - len(seen)} of {len(of_pose)}"])
    return markdown_table(["degrees", *(f"{angle}: error (bias)" for angle in ANGLES), "no face"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Errors of the estimated head pose of drawn people.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one table each, with different people")
    parser.add_argument("--people", type=int, default=24, help="number of people per seed")
    options = parser.parse_args(arguments)
    found = {f"drawn people, seed {seed}": detected_landmarks(seed, options.people) for seed in options.seeds}
    found["drawn people, all seeds"] = np.concatenate(list(found.values()), axis=1)
    found["exact points of a drawn head"] = exact_landmarks(_DRAWN_FACE[None])
    offsets_mm = np.random.default_rng(options.seeds[0]).normal(0, _PEOPLE_DIFFER_MM, (_NUM_FACES, 5, 3))
    found[f"exact points of faces {_PEOPLE_DIFFER_MM:g} mm from the mean"] = exact_landmarks(MEAN_FACE_MM + offsets_mm)
    for name, landmarks in found.items():
        print(f"{name}\n\n{describe(pose_errors(landmarks))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
