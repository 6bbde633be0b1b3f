"""The whole of a tensor that may be sharded over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The unsharded tensor, without gradient; a collective operation if it is sharded."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    # A shard in main memory must be moved to the device first: the processes communicate from there.
    kind = tensor.device_mesh.device_type
    device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    moved: Any = tensor.detach().to(device)
    unsharded: Tensor = moved.full_tensor()
    return unsharded
