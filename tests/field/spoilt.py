"""What fuzzing feeds our readers beside films: pictures, archives, weights, configs and records, spoilt by a seed."""

import csv
import io
import json
import math
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from bench import face_frames
from made_up_results import results
from mutations import DAMAGES
from PIL import Image
from tiny_models import tiny_model

from engagement_recognition import EngagementVideoProcessor
from engagement_recognition.evaluation.results_file import RESULTS_FILE, write_results

PICTURES = {
    "jpg": ("JPEG", {"exif": True}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {"exif": True}),
    "webp": ("WEBP", {"exif": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tif": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {"exif": True}),
}
MODEL_FILES = ("config.json", "video_preprocessor_config.json", "model.safetensors")
# Put in place of a value somewhere in a JSON file.
_ODD_VALUES = (
    None, True, -1, 0, 1, 3, 1e308, 10**12, math.nan, math.inf, "", "x", "../../x", "resnet18", [], {}, [1], [[]],
    {"a": 1}, "9" * 400,
)  # fmt: skip


@cache
def picture(ending: str) -> bytes:
    """A drawn face, upright by its EXIF."""
    kind, options = PICTURES[ending]
    image, file = Image.fromarray(face_frames()[0]).resize((160, 120)), io.BytesIO()
    if options.get("exif"):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
        options = {**options, "exif": exif.tobytes()}
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def archive(ending: str) -> bytes:
    """Pictures in class folders, and a table."""
    members = {f"pictures/{label}/{name}.jpg": picture("jpg") for label in ("happy", "sad") for name in ("a", "b")}
    table = io.StringIO()
    csv.writer(table).writerows([("path", "label", "subject_id"), *((name, "happy", "p") for name in members)])
    members["clips.csv"] = table.getvalue().encode()
    file = io.BytesIO()
    if ending == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if ending == "tar.gz" else "w") as packed:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def write_model(folder: Path) -> None:
    """A clip model, tiny and with random weights."""
    torch.manual_seed(0)
    tiny_model("resnet18", "lstm", num_frames=4).save_pretrained(folder)
    EngagementVideoProcessor(size={"height": 64, "width": 64}, num_frames=4).save_pretrained(folder)


def write_record(folder: Path) -> str:
    """A results file; its name."""
    write_results(folder, results())
    return RESULTS_FILE


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """By one of the ways in which media are."""
    content = bytearray(data)
    list(DAMAGES.values())[int(rng.integers(len(DAMAGES)))](content, rng)
    return bytes(content)


def edited(text: str, rng: np.random.Generator) -> str:
    """JSON, as a hand with other ideas leaves it: one to three values are others, or gone."""
    content = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = _ODD_VALUES[int(rng.integers(len(_ODD_VALUES)))]
    return json.dumps(content)


def _places(content: object):
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs):
        yield content, key
        yield from _places(value)
