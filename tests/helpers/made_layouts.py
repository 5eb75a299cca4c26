"""Tiny made copies of the layouts that EngageNet, AffectNet and RAF-DB are published in, of people who do not exist."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from engagement_recognition.data.drawn.datasets import encode_video
from engagement_recognition.data.drawn.faces import FacePose, draw_face_picture, draw_frame, draw_subject
from engagement_recognition.data.drawn.motion import expression_pose
from engagement_recognition.data.schema import EXPRESSIONS

ENGAGENET_LABELS = ("Not-Engaged", "Barely-engaged", "Engaged", "Highly-Engaged")
ENGAGENET_SPLITS = {"Train": ("7", "12"), "Validation": ("3",), "Test": ("55",)}  # who is in each
AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)
AFFECTNET_NUMBERS = {"neutral": 0, "happy": 1, "sad": 2, "surprise": 3, "fear": 4, "disgust": 5, "angry": 6}
RAFDB_NUMBERS = {"surprise": 1, "fear": 2, "disgust": 3, "happy": 4, "sad": 5, "angry": 6, "neutral": 7}
MARGIN_PX = 12  # around a face in a whole picture


def write(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def face(number: int, expression: str) -> np.ndarray:
    """(48, 48, 3), uint8 RGB: another picture for each number, of two people alone, since drawing takes its time."""
    return np.roll(draw(number % 2, expression), number // 2, axis=1)


@cache
def draw(person: int, expression: str) -> np.ndarray:
    return draw_face_picture(draw_subject(person), expression_pose(expression, np.random.default_rng(person)), 48)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])


def film(path: Path, person: int, number: int) -> None:
    """Two frames of one person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    poses = [FacePose(yaw_deg=3 * number + step) for step in range(2)]
    frames = (draw_frame(draw_subject(person), pose, 160, 120, noise_seed=17 * person + number) for pose in poses)
    encode_video(path, frames, 8, 160, 120, "mp4")


def write_engagenet(folder: Path, splits: Mapping[str, tuple[str, ...]] = ENGAGENET_SPLITS) -> Path:
    """A clip of each label and person; tables that begin with an index, as pandas writes it."""
    for split, people in splits.items():
        rows = []
        for person in people:
            for number, label in enumerate(ENGAGENET_LABELS):
                chunk = f"subject_{person}_as{person}uk_vid_0_{number}.mp4"
                film(folder / split / chunk, int(person), number)
                rows.append(f"{len(rows)},{chunk},{label}")
        write(folder, f"{split.lower()}_engagement_labels.csv", "\n".join([",chunk,label", *rows, ""]))
    return folder


def write_affectnet(folder: Path, per_expression: Mapping[str, int] | None = None) -> Path:
    """Whole pictures with a box each; the list of validation pictures has no header."""
    per_split = per_expression or {"training": 3, "validation": 1}
    number = 0
    for split, count in per_split.items():
        rows = [] if split == "validation" else [AFFECTNET_HEADER]
        for expression, code in AFFECTNET_NUMBERS.items():
            for _ in range(count):
                number += 1
                path = f"{100 + number % 2}/{number:08x}.jpg"
                whole = np.pad(face(number, expression), ((MARGIN_PX,) * 2, (MARGIN_PX,) * 2, (0, 0)))
                save(folder / "Manually_Annotated_Images" / path, whole)
                rows.append(f"{path},{MARGIN_PX},{MARGIN_PX},48,48,1.5;2.5;3.5,{code},0.25,-0.5")
        write(folder, f"Manually_Annotated_file_lists/{split}.csv", "\n".join([*rows, ""]))
    return folder


def write_affectnet8(folder: Path) -> Path:
    """The later form: faces, and each annotation in a file."""
    for split, count in {"train_set": 3, "val_set": 1}.items():
        for number in range(7 * count):
            save(folder / split / f"images/{number}.jpg", face(number + 50 * count, EXPRESSIONS[number % 7]))
            (folder / split / "annotations").mkdir(parents=True, exist_ok=True)
            np.save(folder / split / f"annotations/{number}_exp.npy", str(AFFECTNET_NUMBERS[EXPRESSIONS[number % 7]]))
            np.save(folder / split / f"annotations/{number}_val.npy", "0.25")
    return folder


def write_rafdb(folder: Path, per_split: Mapping[str, int] | None = None) -> Path:
    """Faces, and the whole pictures beside them; the list lies in its own folder."""
    lines = []
    for split, count in (per_split or {"train": 21, "test": 7}).items():
        for number in range(count):
            expression = EXPRESSIONS[number % 7]
            name = f"{split}_{number + 1:05}"
            pixels = draw(number + 100 * len(split), expression)  # an audit finds pictures that are alike
            save(folder / f"Image/aligned/{name}_aligned.jpg", pixels)
            save(folder / f"Image/original/{name}.jpg", np.pad(pixels, ((30, 30), (30, 30), (0, 0)), mode="edge"))
            lines.append(f"{name}.jpg {RAFDB_NUMBERS[expression]}")
    write(folder, "EmoLabel/list_patition_label.txt", "\n".join([*lines, ""]))
    return folder


def write_rafdb_copy(folder: Path) -> Path:
    """As a copy of it goes round: a folder a label, and tables that repeat it."""
    for split, count in {"train": 14, "test": 7}.items():
        rows = ["image,label"]
        for number in range(count):
            label = RAFDB_NUMBERS[EXPRESSIONS[number % 7]]
            name = f"{split}_{number + 1:05}_aligned.jpg"
            save(folder / f"DATASET/{split}/{label}/{name}", face(number + 200 * len(split), EXPRESSIONS[number % 7]))
            rows.append(f"{name},{label}")
        write(folder, f"{split}_labels.csv", "\n".join([*rows, ""]))
    return folder
