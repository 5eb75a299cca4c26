"""What the rows work with: models loaded once, commands run in this process, and films of a drawn face."""

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import av
import numpy as np
import typer.core

from engagement_recognition.cli import main as cli
from engagement_recognition.data.drawn.faces import AffectLevels, draw_frame, draw_subject, engagement_trajectory
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.inference.shipped_model import shipped_expression_model


class Said(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass
class Bench:
    """
    Args:
        engagement_folder: a clip model, tiny and trained on drawn people.
    """

    engagement_folder: Path

    @property
    def expression_folder(self) -> Path:
        """The model in the box, of single faces."""
        return shipped_expression_model()

    @cached_property
    def expression(self) -> Predictor:
        return Predictor.from_pretrained(str(self.expression_folder), device="cpu")

    @cached_property
    def engagement(self) -> Predictor:
        return Predictor.from_pretrained(str(self.engagement_folder), device="cpu")

    def command(self, *arguments: object) -> Said:
        """`engagement ARGUMENTS...` in this process."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        words = patch.object(sys, "argv", ["engagement", *map(str, arguments)])
        try:
            with words, patch.object(cli, "app", command_tree()), redirect_stdout(out), redirect_stderr(err):
                cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        return Said(code, out.getvalue(), err.getvalue())


@cache
def command_tree() -> typer.core.TyperGroup:
    """What `cli.app` becomes with every call: all commands with their options."""
    return typer.main.get_command(cli.app)


@cache
def face_frames(num_frames: int = 8, width_px: int = 320, height_px: int = 240, person: int = 1) -> list[np.ndarray]:
    """A drawn person, each frame (height, width, 3) uint8; made once, so nobody may write to them."""
    rng = np.random.default_rng(person)
    poses = engagement_trajectory(AffectLevels(0, 2, 0, 0), "appearance", num_frames / 4, 4, rng)
    subject = draw_subject(person)
    return [draw_frame(subject, pose, width_px, height_px, noise_seed=at) for at, pose in enumerate(poses)]


def write_film(path: Path, frames: Sequence[np.ndarray] | None = None, codec: str = "libx264", fps: int = 4) -> Path:
    """`frames`, or `face_frames()`, as a film whose container the ending names."""
    frames = face_frames() if frames is None else frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
