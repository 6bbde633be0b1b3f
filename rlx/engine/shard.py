"""Weights, gradients and optimiser state sharded over processes (FSDP2), and unsharded copies for samplers.

torch's own ``fully_shard`` is called, as accelerate's FSDP2 plug-in does: accelerate's does not support CPU processes,
and this way the code path of GPU nodes is the one that the tests run on two CPU processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlx.engine.full_tensor import full_tensor
from rlx.engine.lora import LM, causal_lm, copy_with_weights
from rlx.engine.model import ReadableModel, decoder_layers
from rlx.specs.train import Sharding

Cast = Callable[[str, Tensor], Tensor]
"""A weight in the type that it gets in a copy, from its name and its value."""


def is_sharded(sharding: Sharding, world: int, device: torch.device) -> bool:
    """Whether to shard: never with one process, and by default on GPUs only, where memory is the limit."""
    if world == 1 or sharding.mode == "none":
        return False
    return sharding.mode == "fsdp2" or device.type == "cuda"


def shard(model: ReadableModel, world: int, device: torch.device, offload: bool) -> None:
    """Shard every parameter over the processes, in place; a layer's parameters are gathered while it computes.

    There is no mixed-precision policy: autocast computes as it does without sharding, so that the trainer agrees with
    the sampler, which has an unsharded copy. The cost is that weights are communicated as float32.

    Args:
        model: the unsharded model, the same on all processes.
        world: number of processes.
        device: the device of this process.
        offload: keep shards, gradients and optimiser state in main memory between uses.
    """
    mesh = init_device_mesh(device.type, (world,))
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    for layer in decoder_layers(causal_lm(model.lm)):
        fully_shard(layer, mesh=mesh, offload_policy=policy)
    # The output layer is read again when chunks of logits are recomputed in the backward pass.
    fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=policy)


def reshard(model: ReadableModel) -> None:
    """Free the gathered weights of the output layer; only a backward pass does that by itself."""
    assert isinstance(model, FSDPModule)
    model.reshard()


class UnshardedModels:
    """Makes copies of a sharded model with unsharded weights on this process; holds none of them itself.

    Args:
        model: the model before it is sharded, with adapters or without.
    """

    def __init__(self, model: LM) -> None:
        self._structure = copy_with_weights(model, lambda name, weight: weight.detach().to("meta"))

    @torch.no_grad()
    def build(self, sharded: LM, cast: Cast | None = None) -> LM:
        """A copy with the sharded model's current weights; a collective operation.

        Args:
            sharded: the sharded model.
            cast: applied to each weight as soon as it is gathered; None keeps the types.
        """
        weights = dict(sharded.named_parameters())

        def gathered(name: str, empty: nn.Parameter) -> Tensor:
            full = full_tensor(weights[name])
            return full.clone() if cast is None else cast(name, full)

        copied = copy_with_weights(self._structure, gathered)
        buffers = dict(copied.named_buffers())
        for name, buffer in sharded.named_buffers():
            buffers[name].copy_(buffer)
        return copied.eval()


def shard_like(full: Tensor, like: Tensor) -> Tensor:
    """An unsharded tensor, the same on every process, moved to the device and sharded as ``like`` is."""
    if isinstance(like, DTensor):
        mesh = like.device_mesh
        sharded = distribute_tensor(full.to(mesh.device_type, like.dtype), mesh, like.placements, src_data_rank=None)
        return sharded.to(like.device)
    return full.to(like.device, like.dtype)


@torch.no_grad()
def clip_shards(parameters: Iterable[Tensor], max_norm: float, device: torch.device) -> Tensor:
    """Scale the gradients of sharded parameters down to ``max_norm`` over all processes; return their norm before.

    The CPU does not wait for the norm, unless the shards are in main memory (``sharding.offload``).

    Args:
        parameters: sharded parameters, with or without a gradient.
        max_norm: largest norm that is left unchanged.
        device: the device from which the processes communicate.
    """
    shards = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    squares = [shard.double().square().sum().to(device) for shard in shards]
    summed = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64, device=device)
    all_reduce(summed)
    norm = summed.sqrt()
    factor = torch.where(norm > max_norm, max_norm / (norm + 1e-6), torch.ones_like(norm))
    for shard in shards:
        shard.mul_(factor.to(shard.device))
    return norm
