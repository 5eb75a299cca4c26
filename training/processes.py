"""Work that one of several processes does while the others wait, for hours if need be.

torch's own barrier gives up after `ddp_timeout`, half an hour, and a preparation can take many times longer. So they
wait in a separate group with a timeout of weeks; when the working process fails or disappears, they all end.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch.distributed
from accelerate.state import AcceleratorState
from transformers import TrainingArguments

from ..processor.input_errors import EngagementInputError, RecipeError, in_one_line

_Result = TypeVar("_Result")
_PATIENCE = timedelta(days=28)
# Error messages of gloo, NCCL and torch's store when another process is gone.
_LOST = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe",
         "remote process exited", "failed to recv", "ncclremoteerror")  # fmt: skip


class OtherProcessError(EngagementInputError):
    """Another process of this training failed."""


def use_one_gpu(training: TrainingArguments) -> None:
    """If one process sees several GPUs, use the first one and print so: Trainer would use `nn.DataParallel`, which our
    models do not support and torch advises against.

    Raises:
        RecipeError: it cannot be set in this version of transformers.
    """
    if training.n_gpu < 2:
        return
    seen, training._n_gpu = training.n_gpu, 1
    if training.n_gpu != 1:
        raise RecipeError(
            f"One process cannot train on {seen} GPUs; use `accelerate launch`, or set CUDA_VISIBLE_DEVICES=0."
        )
    print(f"training on one of {seen} GPUs; `accelerate launch` trains on all of them", flush=True)


def forget_precision() -> None:
    """accelerate fixes one mixed precision per process, but the next stage may need a different one."""
    AcceleratorState._reset_state(reset_partial_state=False)


def first_on_each_node(training: TrainingArguments, work: Callable[[], _Result]) -> _Result:
    """Runs `work` in one process of each machine while the others wait, then in the others, which find its results.

    Raises:
        OtherProcessError: it failed in another process.
    """
    if not _are_several(training):
        return work()
    if training.local_process_index == 0:
        return _while_others_wait(work)
    _tell(None)
    return work()


def by_the_first(training: TrainingArguments, work: Callable[[], _Result]) -> _Result:
    """Runs `work` only in the first process; all processes get its result.

    Raises:
        OtherProcessError: it failed in the first process.
    """
    if not _are_several(training):
        return work()
    if training.process_index == 0:
        found = [_while_others_wait(work)]
        torch.distributed.broadcast_object_list(found, src=0, group=_waiting_group())
        return found[0]
    _tell(None)
    received: list[_Result | None] = [None]
    torch.distributed.broadcast_object_list(received, src=0, group=_waiting_group())
    return received[0]  # type: ignore[return-value] # the first one's


def lost_another(error: BaseException) -> bool:
    """Whether a collective operation failed because another process is gone, which has printed the reason."""
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return is_distributed and any(words in str(error).lower() for words in _LOST)


def _are_several(training: TrainingArguments) -> bool:
    return training.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized()


@cache
def _waiting_group() -> "torch.distributed.ProcessGroup | None":
    group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return group if isinstance(group, torch.distributed.ProcessGroup) else None  # of which every process is a member


def _while_others_wait(work: Callable[[], _Result]) -> _Result:
    try:
        found = work()
    except EngagementInputError as error:
        _tell(in_one_line(error))
        raise
    except Exception as error:
        _tell(f"{type(error).__name__}: {in_one_line(error)}")
        raise
    _tell(None)
    return found


def _tell(failure: str | None) -> None:
    """Wait for every process; if one has failed, raises OtherProcessError in the others."""
    told: list[str | None] = [None] * torch.distributed.get_world_size()
    try:
        torch.distributed.all_gather_object(told, failure, group=_waiting_group())
    except RuntimeError as error:
        raise OtherProcessError(
            f"Another process of this training ended ({in_one_line(error)}); its own message is above, and finished "
            "work is kept."
        ) from error
    failures = [(process, words) for process, words in enumerate(told) if words is not None]
    if failures and failure is None:
        process, words = failures[0]
        raise OtherProcessError(f"Process {process} of this training failed: {words}")
