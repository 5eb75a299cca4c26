"""One family of encoders through all that a model goes through, as a single-face model and as a video model.

`python tests/helpers/encoder_trial.py [FAMILIES]` tries them and renews the record that docs/encoders.md is made of.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from encoder_families import FAMILIES, REFUSALS, Family, Refusal
from places import ROOT
from tiny_models import draw_pixels
from torch import nn

from engagement_recognition import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementImageProcessor,
    EngagementVideoProcessor,
    register_auto_classes,
)
from engagement_recognition.conversion.export_onnx import export_onnx
from engagement_recognition.conversion.export_stock import export_stock
from engagement_recognition.data.json_records import Record, read_record, write_record
from engagement_recognition.explanation.heat_maps import explain_clip
from engagement_recognition.face_encoders import own_size
from engagement_recognition.processor.input_errors import DataError, EngagementInputError, ModelLoadError

RECORD = ROOT / "docs/measured/encoders/tried.json"
Kind = Literal["image", "video"]
YES = "yes"
_PLACE = re.compile(r" in /[^\s,;]+")  # where the model of a test lay
_VIDEO = {"num_frames": 2, "temporal_hidden_size": 16}
# One process that has imported the package and built nothing; each question is answered by a fork of it.
_SERVE = """
import os, sys, torch
import engagement_recognition as ours
ours.register_auto_classes()
torch.set_num_threads(int(sys.argv[1]))
for line in sys.stdin:
    folder = line.strip()
    child = os.fork()
    if child == 0:
        config = ours.EngagementConfig.from_pretrained(folder)
        model = getattr(ours, config.architectures[0]).from_pretrained(folder).eval()
        with torch.no_grad():
            torch.save(model(torch.load(folder + "/pixels.pt")).logits, folder + "/logits.pt")
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class TriedFamily(Record):
    """What was found of a family, of both models: "yes", or why not; None: not tried."""

    name: str
    package: str
    pretrained: str
    features: str
    size_px: int
    other_size: str | None
    trained: str
    reloaded: str
    explained: str
    stock: str
    onnx: str | None


class TriedRefusal(Record):
    """What was refused, and the line that says so."""

    title: str
    line: str


class TriedEncoders(Record):
    """docs/measured/encoders/tried.json."""

    made_with: dict[str, str]
    families: list[TriedFamily]
    refusals: list[TriedRefusal]


def read_tried() -> TriedEncoders:
    """The record; raises DataError where there is none."""
    return read_record(RECORD, TriedEncoders, DataError, "the families that were tried", "try them all")


class CleanProcess:
    """A process that loads models which it never built."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def logits(self, folder: Path, pixels: torch.Tensor) -> torch.Tensor:
        """Of the model that is stored in `folder`; raises RuntimeError where it cannot be loaded."""
        torch.save(pixels, folder / "pixels.pt")
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("Expected a process with pipes.")
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline().strip()
        if status != "0":
            raise RuntimeError(f"Expected a model in {folder}, got status {status or 'of no process'}.")
        return torch.load(folder / "logits.pt")


@contextmanager
def clean_process() -> Iterator[CleanProcess]:
    """It ends with the block."""
    command = [sys.executable, "-c", _SERVE, str(torch.get_num_threads())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield CleanProcess(process)


def build(family: Family, kind: Kind, folder: Path) -> nn.Module:
    """From a bare name or from a folder that is saved below `folder`."""
    model_class = EngagementForImageClassification if kind == "image" else EngagementForVideoClassification
    fields = {"num_labels": 3, **({"image_size": family.size_px} if family.size_px else {})}
    torch.manual_seed(0)
    return model_class.from_encoder(family.source(folder), **fields, **(_VIDEO if kind == "video" else {}))


def refuse(refusal: Refusal, folder: Path) -> str:
    """The line with which it is refused; raises AssertionError where it is not."""
    source = refusal.source
    if not isinstance(source, str):
        source().save_pretrained(folder)
        source = str(folder)
    size = {"image_size": refusal.size_px} if refusal.size_px else {}
    try:
        EngagementForImageClassification.from_encoder(source, **size)
    except (OSError, ValueError) as error:
        return str(error)
    raise AssertionError(f"{refusal.title} was built")


def train_a_step(model: nn.Module) -> str:
    """ "yes", or what did not learn."""
    for module in model.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # the statistics of one batch, as if trained for long
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = model(draw_pixels(model, batch_size=4), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    optimizer.step()
    model.eval()
    # DINO's mask token is for its own training; biases before a normalisation have gradients of zero.
    still = [name for name, weight in model.named_parameters() if weight.grad is None and "mask_token" not in name]
    moved = [name for name, weight in model.named_parameters() if not weight.equal(before[name])]
    if not torch.isfinite(loss) or still or len(moved) < 0.6 * len(before):
        return f"loss {float(loss):.3g}, {len(moved)} of {len(before)} weights moved, without gradient: {still[:2]}"
    return YES


def save(model: nn.Module, folder: Path) -> None:
    """With a processor beside it."""
    size = {"height": model.config.image_size, "width": model.config.image_size}
    model.save_pretrained(folder)
    if isinstance(model, EngagementForImageClassification):
        EngagementImageProcessor(size=size).save_pretrained(folder)
    else:
        EngagementVideoProcessor(size=size, num_frames=model.config.num_frames).save_pretrained(folder)


def reload(model: nn.Module, folder: Path, clean: CleanProcess) -> str:
    """ "yes" where a clean process gets the same logits to the bit."""
    pixels = draw_pixels(model, seed=7)
    with torch.no_grad():
        expected = model(pixels).logits
    found = clean.logits(folder, pixels)
    return YES if found.equal(expected) else f"logits differ by {float((found - expected).abs().max()):.2g}"


def explain(model: nn.Module) -> str:
    """ "yes" where the heat of some label lies somewhere on a map of more than one place."""
    pixels = draw_pixels(model, batch_size=2, seed=3)
    clip = pixels if isinstance(model, EngagementForImageClassification) else pixels[0]
    try:
        found = [explain_clip(model, clip, label) for label in model.config.label_names]
    except EngagementInputError:
        return "no map of the encoder leads to the logits"
    if found[0].map_size == (1, 1):
        return "its map is a single place"
    return YES if any(one.maps.any() for one in found) else "no heat anywhere"


def build_at_other_size(family: Family, model: nn.Module, folder: Path) -> str | None:
    """ "yes", or the refusal; None for an encoder without a size of its own."""
    own = own_size(model.config.encoder_config)
    if own is None:
        return None
    other = replace(family.stored(), size_px=own * 3 // 2 if own < 100 else 320)
    return attempt(lambda: build(other, "image", folder))


def attempt(step: Callable[[], object]) -> str:
    """ "yes", or the first sentence of the refusal."""
    try:
        step()
    except (ModelLoadError, OSError, ValueError) as error:
        return _PLACE.sub("", str(error)).rpartition(";")[0]
    return YES


def try_family(family: Family, folder: Path, clean: CleanProcess) -> TriedFamily:
    """All steps, with the models below `folder`."""
    register_auto_classes()
    found: dict[str, list[str]] = {"trained": [], "reloaded": [], "explained": [], "onnx": []}
    for kind in ("image", "video"):
        place = folder / kind
        model = build(family, kind, folder / "source")
        found["trained"].append(train_a_step(model))
        save(model, place)
        found["reloaded"].append(reload(model, place, clean))
        found["explained"].append(explain(model))
        if family.whole:
            found["onnx"].append(attempt(lambda place=place: export_onnx(place, place / "model.onnx")))
    answers = {step: next((one for one in said if one != YES), YES) for step, said in found.items()}
    return TriedFamily(
        name=family.name,
        package=family.package,
        pretrained=family.pretrained,
        features=model.config.encoder_features,
        size_px=model.config.image_size,
        other_size=build_at_other_size(family, model, folder / "source"),
        stock=attempt(lambda: export_stock(folder / "image", folder / "stock")),
        **{**answers, "onnx": answers["onnx"] if family.whole else None},
    )


def main(names: list[str]) -> None:
    """Tries the named families again, or all; a line for each, and what was found into the record."""
    tried = {row.name: row for row in read_tried().families} if names else {}
    with clean_process() as clean, TemporaryDirectory() as temporary:
        for number, name in enumerate(names or FAMILIES):
            started = time.perf_counter()
            tried[name] = try_family(FAMILIES[name], Path(temporary) / str(number), clean)
            shutil.rmtree(Path(temporary) / str(number))
            print(f"{time.perf_counter() - started:5.1f} s {tried[name].model_dump_json()}", flush=True)
        lines = [(refusal.title, refuse(refusal, Path(temporary) / refusal.title)) for refusal in REFUSALS]
    refusals = [TriedRefusal(title=title, line=line) for title, line in lines]
    made_with = {name: version(name) for name in ("timm", "transformers", "torch")}
    RECORD.parent.mkdir(exist_ok=True)
    families = [tried[name] for name in FAMILIES]
    write_record(RECORD, TriedEncoders(made_with=made_with, families=families, refusals=refusals))


if __name__ == "__main__":
    main(sys.argv[1:])
