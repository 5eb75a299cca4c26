"""Failures of the machine, reported in one line: a full disk, a killed worker, memory that runs out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from ..processor.input_errors import DataError, EngagementInputError, in_one_line
from .arguments import train_command
from .processes import lost_another

_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
# torch.save raises RuntimeError with these words where a disk is full.
_OF_TORCH_SAVE = ("pytorchstreamwriter", "inline_container", "iostream error", "unexpected pos")


class MachineError(EngagementInputError):
    """The machine, or another process, stopped the training."""


@contextmanager
def failures_in_one_line(go_on: str | None = None) -> Iterator[None]:
    """Raises MachineError, from the original, where the block fails because of the machine.

    Args:
        go_on: the remedy's last part; None: resume the training.
    """
    try:
        yield
    except EngagementInputError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        go_on = go_on or f"resume with {train_command()} and --resume_from_checkpoint true"
        raise MachineError(f"The training stopped: {reason}; then {go_on}.") from error


@contextmanager
def trained_already(folder: Path) -> Iterator[None]:
    """Wraps the export of the trained model: where that fails, the last checkpoint still has it.

    Raises:
        MachineError: it could not be written.
    """
    try:
        yield
    except DataError as error:
        if not could_not_write(error):
            raise
        raise MachineError(
            f"The trained model could not be written to {folder} ({in_one_line(error.__cause__ or error)}); free disk "
            f"space, and run {train_command()} again with --resume_from_checkpoint true: its last checkpoint is kept, "
            "and nothing is trained twice."
        ) from error


def could_not_write(error: BaseException) -> bool:
    """Whether the error means that a disk is full or cannot be written."""
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)
    if isinstance(error, OSError):
        return error.errno in _OF_DISKS
    is_ours = isinstance(error, DataError) and isinstance(error.__cause__, (OSError, SafetensorError))
    return is_ours or (isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OF_TORCH_SAVE))


def _reason(error: OSError | RuntimeError | SafetensorError) -> str | None:
    if could_not_write(error):
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"could not write{where} ({in_one_line(error)}); free disk space"
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory is full; lower --per_device_train_batch_size"
    if "DataLoader worker" in str(error):
        return (
            f"a worker that reads data was killed ({in_one_line(error)}), perhaps for lack of memory; lower "
            "--dataloader_num_workers"
        )
    if lost_another(error):
        return f"another process of this training ended ({in_one_line(error)}); see that process's own message"
    return None
