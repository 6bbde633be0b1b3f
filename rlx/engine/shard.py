"""Weights, gradients and optimiser cut over processes (FSDP2), and their whole copy for whoever samples.

torch's own ``fully_shard`` is called, as accelerate's FSDP2 plug-in calls it: accelerate leaves CPU processes out, and
this way the path of GPU nodes is the one that is tested on two CPU processes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed import all_reduce
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlx.engine.model import LM, ReadableModel, causal_lm
from rlx.specs.train import Sharding


def is_sharded(sharding: Sharding, world: int, device: torch.device) -> bool:
    """Whether to shard: never alone, and by default on GPUs only, where memory is what runs out."""
    if world == 1 or sharding.mode == "none":
        return False
    return sharding.mode == "fsdp2" or device.type == "cuda"


def shard(model: ReadableModel, world: int, device: torch.device, offload: bool) -> None:
    """Cut every parameter over the processes, in place; a decoder layer's are gathered while it works.

    No mixed-precision policy: autocast computes as it does without sharding, so that trainer and sampler, which holds a
    whole copy, still agree. The price is that weights travel as float32.

    Args:
        model: the whole model, the same on all processes.
        world: how many processes there are.
        device: this process's.
        offload: keep shards, gradients and optimiser in main memory between uses.
    """
    mesh = init_device_mesh(device.type, (world,))
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    for layer in causal_lm(model.lm).get_decoder().layers:
        fully_shard(layer, mesh=mesh, offload_policy=policy)
    # The head's rows are read again when chunks of logits are recomputed in the backward pass.
    fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=policy)


def reshard(model: ReadableModel) -> None:
    """Give back the head's gathered weights, which only a backward pass does by itself."""
    assert isinstance(model, FSDPModule)
    model.reshard()


class GatheredModel:
    """A copy of the model with whole weights on this process, brought up to date on demand.

    Args:
        model: the whole model, before it is sharded; with adapters or not.
    """

    def __init__(self, model: LM) -> None:
        self._copy: LM = copy.deepcopy(model)
        self._trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._copy.requires_grad_(False)
        self._copy.eval()

    @torch.no_grad()
    def of(self, sharded: LM) -> LM:
        """The copy with the sharded model's present weights; every process takes part."""
        own = dict(self._copy.named_parameters())
        for name, parameter in sharded.named_parameters():
            if name in self._trained:
                own[name].copy_(whole(parameter, own[name].device))
        buffers = dict(self._copy.named_buffers())
        for name, buffer in sharded.named_buffers():
            buffers[name].copy_(buffer)
        return self._copy


def whole(tensor: Tensor, device: torch.device) -> Tensor:
    """The unsharded tensor on ``device``; every process takes part when it is sharded."""
    tensor = tensor.detach()
    # A shard in main memory has to come to the device first: that is where the processes' messages pass.
    moved = tensor.to(device)
    return moved.full_tensor() if isinstance(moved, DTensor) else moved


def placed(whole_tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process holds, on the device, and in the shards, of ``like``."""
    if isinstance(like, DTensor):
        mesh = like.device_mesh
        cut = distribute_tensor(
            whole_tensor.to(mesh.device_type, like.dtype), mesh, like.placements, src_data_rank=None
        )
        return cut.to(like.device)
    return whole_tensor.to(like.device, like.dtype)


@torch.no_grad()
def clip_shards(parameters: Iterable[Tensor], max_norm: float, device: torch.device) -> float:
    """Scale the gradients of sharded parameters down to ``max_norm`` over all processes; their norm before.

    Args:
        parameters: sharded, with or without a gradient.
        max_norm: largest norm that is left as it is.
        device: where the processes' messages pass.
    """
    shards = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    squares = [shard.double().square().sum().to(device) for shard in shards]
    summed = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64, device=device)
    all_reduce(summed)
    norm = math.sqrt(float(summed)) if math.isfinite(float(summed)) else float(summed)
    if norm > max_norm:
        for shard in shards:
            shard.mul_(max_norm / (norm + 1e-6))
    return norm
