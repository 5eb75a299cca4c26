"""What a machine does to a training, told in one line: a full disk, a killed worker, memory that runs out."""

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
# torch.save raises RuntimeError where a disk is full, in words of its own.
_OF_TORCH_SAVE = ("pytorchstreamwriter", "inline_container", "iostream error", "unexpected pos")


class MachineError(EngagementInputError):
    """The machine, or another process, stopped the training."""


@contextmanager
def failures_in_one_line(go_on: str | None = None) -> Iterator[None]:
    """Raises MachineError, from the original, where the block fails for a reason of the machine's.

    Args:
        go_on: what to do then; None: the training again.
    """
    try:
        yield
    except EngagementInputError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        go_on = go_on or f"go on with {train_command()} and --resume_from_checkpoint true"
        raise MachineError(f"Expected the training to go on, {reason}; then {go_on}.") from error


@contextmanager
def trained_already(folder: Path) -> Iterator[None]:
    """Around what writes the trained model to its folder: where that fails, its last checkpoint has it.

    Raises:
        MachineError: it could not be written.
    """
    try:
        yield
    except DataError as error:
        if not could_not_write(error):
            raise
        raise MachineError(
            f"Expected to write the trained model to {folder}, could not ({in_one_line(error.__cause__ or error)}); "
            f"make room, and run {train_command()} again with --resume_from_checkpoint true: its last checkpoint is "
            "kept, and nothing is trained twice."
        ) from error


def could_not_write(error: BaseException) -> bool:
    """Whether it says that a disk is full or cannot be written."""
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)
    if isinstance(error, OSError):
        return error.errno in _OF_DISKS
    is_ours = isinstance(error, DataError) and isinstance(error.__cause__, (OSError, SafetensorError))
    return is_ours or (isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OF_TORCH_SAVE))


def _reason(error: OSError | RuntimeError | SafetensorError) -> str | None:
    if could_not_write(error):
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"could not write{where} ({in_one_line(error)}); make room"
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory is full; lower --per_device_train_batch_size"
    if "DataLoader worker" in str(error):
        return (
            f"a worker that reads data was killed ({in_one_line(error)}), as a machine short of memory does; lower "
            "--dataloader_num_workers"
        )
    if lost_another(error):
        return f"another process of it is gone ({in_one_line(error)}); see what that one said"
    return None
