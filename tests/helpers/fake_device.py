"""A GPU that is not there: tensors that say they are on `cuda:0`, hold numbers all the same, and refuse what CUDA does.

An operation of such a tensor with one of the CPU raises, and so does `.numpy()`; all else is computed on the CPU, so
that what comes out can be compared with what the CPU says. Only `cpu()` and `to()` lead from one side to the other.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
_TRANSFERS = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FakeCudaTensor(torch.Tensor):
    """`held`: its numbers, on the CPU."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "FakeCudaTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device="meta", requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return CUDA

    def __repr__(self) -> str:
        return f"FakeCudaTensor({self.held!r})"

    def numpy(self, **kwargs: object) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), kwargs=None):
        return _compute(function, arguments, kwargs or {}, Counter())


class FakeCuda(TorchDispatchMode):
    """Counts, by name, the operations that the device was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        if torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode these come whole: each of their parts is asked for by itself
                return function.decompose(*arguments, **(kwargs or {}))
        return _compute(function, arguments, kwargs or {}, self.operations)


def _compute(function, arguments, kwargs, operations):
    values = tree_flatten((arguments, kwargs))[0]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    on_device = [isinstance(tensor, FakeCudaTensor) for tensor in tensors]
    asked = kwargs.get("device")
    place = asked and torch.device(asked).type
    place = "cuda" if place == "meta" else place  # what C++ takes a tensor of ours for
    if any(on_device) and function not in _TRANSFERS:
        # As CUDA: a tensor of the CPU is taken where it is a single number.
        alien = [tensor for tensor, is_there in zip(tensors, on_device, strict=True) if not is_there and tensor.ndim]
        if alien and not str(function).startswith("aten.index"):
            raise RuntimeError(f"{function}: expected all tensors on one device, found cuda:0 and cpu")
    stays = place == "cuda" if place else any(on_device)
    if place:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    held_arguments, held_kwargs = tree_map(_held, (arguments, kwargs))
    if stays:
        operations[str(function)] += 1
    found = function(*held_arguments, **held_kwargs)
    if function._schema.name.endswith("_") and tensors:
        return arguments[0]
    return tree_map(lambda v: FakeCudaTensor(v) if isinstance(v, torch.Tensor) and stays else v, found)


def _held(value):
    return value.held if isinstance(value, FakeCudaTensor) else value


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """One GPU as torch and everybody above it see it, until the end of the block."""
    with pytest.MonkeyPatch.context() as patch, FakeCuda() as device:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_name", lambda device=None: "a fake GPU")
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        yield device
