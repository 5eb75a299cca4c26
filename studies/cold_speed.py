"""Time from the start of a new process to the printed label, and peak memory of the process and its children."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..inference.export_folder import is_export
from ..processor.input_errors import DataError
from .peak_memory import PeakMemory
from .speed_record import Cold

_COMMAND = "from engagement_recognition.cli.main import main; main()"


def measure_cold(video: Path, folder: Path, num_rounds: int) -> list[Cold]:
    """The plain script, `engagement predict` with torch, and with each export of the same model, in turn; medians.

    Raises:
        DataError: one of them fails.
    """
    plain = [sys.executable, "-m", "engagement_recognition.studies.plain_way", str(video), str(folder)]
    commands = {"plain script": plain, "predict, torch": _predict(video, folder)}
    for export in sorted(path for path in folder.iterdir() if is_export(path)):
        commands[f"predict, {export.name}, without torch"] = _predict(video, export)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for round_number in range(num_rounds + 1):
        for name, command in commands.items():
            measured = _measure(command)
            if round_number:  # the first round reads files from the disk
                found[name].append(measured)
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    return [
        Cold(name=name, seconds=round(sec, 3), peak_mb=round(mb, 1), ratio=round(medians["plain script"][0] / sec, 2))
        for name, (sec, mb) in medians.items()
    ]


def _predict(video: Path, model: Path) -> list[str]:
    return [sys.executable, "-c", _COMMAND, "predict", str(video), "--model", str(model)]


def _measure(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and megabytes."""
    began = time.perf_counter()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        PeakMemory(process.pid) as memory,
    ):
        said, _ = process.communicate()
        seconds = time.perf_counter() - began
    if process.returncode:
        raise DataError(f"{' '.join(command[1:4])} ... failed: {said.strip()[-500:]}")
    return seconds, memory.peak_bytes / 1e6
