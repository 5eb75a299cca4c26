"""Prepared data sets of drawn people, written without decoding a video, into which leaks can be planted row by row."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image

from engagement_recognition.data.described_data import LabelConflicts
from engagement_recognition.data.drawn.faces import (
    AffectLevels,
    draw_face_picture,
    draw_frame,
    draw_subject,
    engagement_trajectory,
)
from engagement_recognition.data.preparation.description import DATA_VERSION, InputCounts, Provenance
from engagement_recognition.data.preparation.picture_codec import decode_picture, encode_jpeg
from engagement_recognition.data.preparation.picture_hashes import perceptual_hash
from engagement_recognition.data.preparation.prepared_data import FEATURES, PreparedData, write_prepared
from engagement_recognition.data.preparation.settings import FrameOptions, settings_for
from engagement_recognition.data.schema import BINARY, SPLITS, Reject, SourceNotes

ENGAGED = AffectLevels(0, 3, 0, 0)


@dataclass(frozen=True)
class DrawnRow:
    """One picture and what the tables say of it."""

    content: bytes
    clip_id: str
    split: str
    label: str | None
    subject_id: str | None = None
    source_path: str | None = None  # default: a file of its own
    window_index: int = 0
    engagement: int | None = None  # the level, for data rated as DAiSEE is

    def but(self, **changes: object) -> "DrawnRow":
        """The same row with some changes."""
        return replace(self, **changes)


@lru_cache(maxsize=256)
def film(person: int, count: int, as_crop: bool = False) -> tuple[bytes, ...]:
    """Frames of one person in one room, three a second, as a webcam films them; or pictures that the face fills."""
    subject, rng = draw_subject(person), np.random.default_rng(person)
    poses = engagement_trajectory(ENGAGED, "appearance", count / 3, 3, rng)
    if as_crop:
        return tuple(encode_jpeg(draw_face_picture(subject, pose, 112, number)) for number, pose in enumerate(poses))
    return tuple(encode_jpeg(draw_frame(subject, pose, 320, 240, number)) for number, pose in enumerate(poses))


def people_apart(num_people: int = 10, count: int = 6, first: int = 0, knows_people: bool = True) -> list[DrawnRow]:
    """A clean split: every person in one split, and with both labels."""
    splits = [SPLITS[max(0, person - num_people + 6) // 2] for person in range(num_people)]  # of ten: 6, 2 and 2
    return [
        DrawnRow(
            content,
            f"person{first + person}_{number}",
            splits[person],
            BINARY[number % 2],
            f"person{first + person}" if knows_people else None,
        )
        for person in range(num_people)
        for number, content in enumerate(film(first + person, count))
    ]


def classes_of_one_recording(
    labels: Sequence[str], count: int, seed: int, recordings_each: int = 1, as_crop: bool = False
) -> list[DrawnRow]:
    """Each class filmed in one go (or a few), cut into pictures, people forgotten, and split at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, label in enumerate(labels):
        for part in range(recordings_each):
            frames = film(500 + 10 * number + part, count // recordings_each, as_crop)
            rows += [
                DrawnRow(content, f"{label}/{part}_{i:03d}.jpg", "train", label) for i, content in enumerate(frames)
            ]
    return [row.but(split=SPLITS[rng.choice(3, p=[0.6, 0.2, 0.2])]) for row in rows]


def write_rows(rows: Sequence[DrawnRow], folder: Path, rejects: Sequence[Reject] = ()) -> PreparedData:
    """The rows as a prepared data set, hashed as preparation does it."""
    columns: dict[str, list[object]] = {name: [None] * len(rows) for name in FEATURES}
    for place, row in enumerate(rows):
        pixels = decode_picture(row.content)
        known = {name: getattr(row, name) for name in ("clip_id", "split", "label", "subject_id", "window_index")}
        known |= {"frames": [row.content], "source_path": row.source_path or f"{row.clip_id}.jpg"}
        known |= {"frames_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "frame_hash": perceptual_hash(pixels)}
        if row.engagement is not None:
            known |= {"engagement": row.engagement, "boredom": 0, "confusion": 0, "frustration": 0}
        for name, value in known.items():
            columns[name][place] = value
    clips = len({row.clip_id for row in rows})
    provenance = Provenance(
        version=DATA_VERSION,
        kind="images",
        media="picture",
        source="drawn",
        settings=settings_for("picture", FrameOptions()),
        notes=SourceNotes(),
        inputs=clips + len(rejects),
        outputs=clips,
        rejects=len(rejects),
        windows=InputCounts(inputs=len(rows), outputs=len(rows), rejects=0),
        label_conflicts=LabelConflicts(groups=0, pictures=0, dropped=False),
    )
    return write_prepared(Dataset.from_dict(columns, features=FEATURES), rejects, provenance, folder)


def brighter(content: bytes) -> bytes:
    """The same picture a little brighter."""
    return encode_jpeg(np.clip(decode_picture(content) * 1.04 + 4.0, 0, 255).astype(np.uint8))


def compressed_again(content: bytes) -> bytes:
    """The same picture as a coarser JPEG."""
    file = io.BytesIO()
    Image.fromarray(decode_picture(content)).save(file, "JPEG", quality=50)
    return file.getvalue()


def cut_a_little(content: bytes) -> bytes:
    """The same picture without two pixels at the left and one at the top."""
    return encode_jpeg(np.ascontiguousarray(decode_picture(content)[1:, 2:]))
