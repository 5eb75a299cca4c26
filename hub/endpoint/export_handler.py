"""The endpoint's handler for a folder that `engagement export` wrote: the same answers and refusals, without torch."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...inference.export_folder import is_export
from ...inference.find_export import load_exported
from ...processor import film_windows
from ...processor.input_errors import ModelLoadError
from .handler import EndpointHandler, Limits

if TYPE_CHECKING:
    import torch


class ExportHandler(EndpointHandler):
    """
    Args:
        path: a local export folder.
        limits: of one request.

    Raises:
        ModelLoadError: there is no complete export.
        EngagementInputError: its engine is not installed.
    """

    def __init__(self, path: str = "", limits: Limits | None = None) -> None:
        if not is_export(Path(path)):
            raise ModelLoadError(
                f"{path} was not written by `engagement export`; export the model: engagement export MODEL --to onnx "
                "--output FOLDER"
            )
        self.engine, processor, self.rule = load_exported(path)
        self.is_video_model, self.device = self.engine.reads_clips, self.engine.device
        self.limits = limits or self.limits
        self.processor = processor.with_bounded_reader()
        self.about = {
            "trained_on": self.rule.trained_on,
            "calibrated": self.rule.is_calibrated,
            "device": self.engine.device,
            "engine": self.engine.name,
            "dtype": self.engine.dtype,
        }
        self.code = film_windows  # has the names of windows and errors that the base class uses
        self._turn = threading.Lock()  # OpenVINO's networks run one request at a time

    def _score(self, pixel_values: "np.ndarray | torch.Tensor") -> np.ndarray:
        with self._turn:
            return self.rule.to_scores(self.engine.logits(pixel_values))
