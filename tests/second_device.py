"""A second device for tests: it computes on the CPU and refuses operations that mix its tensors with the CPU's.

A GPU raises the same error, but neither CI nor a laptop has one, and FakeTensorMode cannot differentiate tensors of a
fake CUDA device where torch is built without CUDA (nor index by a mask, whose shape depends on values). The device is
torch's "privateuseone", registered for the whole process: import this module in a child process only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Backend:
    """What torch asks a device's module for when a tensor is created, under autocast and under recomputation."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return False

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are drawn by the CPU."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


torch.utils.rename_privateuse1_backend("second")
torch._register_device_module("second", Backend())
DEVICE = torch.device("second", 0)
"""The device by the name that Python code reads."""
META = torch.device("meta")
"""The same device by the name that torch's own code reads, whose autograd needs a device that it knows."""
CPU = torch.device("cpu")
ANY_DEVICE = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
"""Copies, which are the only operations with tensors of two devices."""
CPU_INDICES = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}
"""Indexing, whose indices may be on the CPU although values are not."""


class SecondTensor(Tensor):
    """A tensor of the second device; ``held`` is the CPU tensor with its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> SecondTensor:
        shell = held.detach().to("meta")
        self = Tensor._make_subclass(cls, shell, False)
        self.held = held.detach()
        return self

    @property
    def device(self) -> torch.device:
        return DEVICE

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __getitem__(self, index: Any) -> Tensor:
        # torch would make a list an index of the meta device, whose values are lost.
        return super().__getitem__(torch.tensor(index, device=DEVICE) if isinstance(index, list) else index)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """Where this mode is active, tensors can be created on the second device or copied to it."""

    def __enter__(self) -> SecondDevice:
        # torch.tensor(values, device=...) then copies to the device by an operation that the mode receives.
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU and return its result as tensors of the device that a GPU would give.

    Raises:
        RuntimeError: for an operation on tensors of both devices, also if one of them is a scalar.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    device = kwargs.get("device")
    if device is None:
        device = common_device(func, args, tensors)
    else:
        kwargs = {**kwargs, "device": CPU}
    held_args, held_kwargs = tree_map(held, (args, kwargs))
    result = func(*held_args, **held_kwargs)
    if device == CPU:
        return result
    # In-place operations return one of their arguments.
    owners = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, SecondTensor)}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return owners[id(value)] if id(value) in owners else SecondTensor(value)

    return tree_map(wrapped, result)


def held(value: Any) -> Any:
    """The CPU tensor behind a tensor of the second device; anything else unchanged."""
    return value.held if isinstance(value, SecondTensor) else value


def common_device(func: Any, args: Any, tensors: list[Tensor]) -> torch.device:
    """The device of an operation's result.

    Raises:
        RuntimeError: when its tensors are on two devices.
    """
    if not tensors:
        return CPU
    if func in ANY_DEVICE or (func in CPU_INDICES and isinstance(args[0], SecondTensor)):
        return args[0].device
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise RuntimeError(f"{func} got tensors on two devices, {DEVICE} and {CPU}")
    return devices.pop()
