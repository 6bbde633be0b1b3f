"""Entropy of the next-token distribution, without gradient, in tiles of the vocabulary."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlx.numerics.output_layer.tiled import merge_tiles, product_dtype, tile_width

if TYPE_CHECKING:
    from rlx.numerics.output_layer.logprobs import Head


@torch.no_grad()
def entropies(hidden_nd: Tensor, head: Head, temperature: float) -> Tensor:
    """Entropy of softmax(logits / temperature) of each token [n] (nats), constant.

    On CUDA the statistics of a tile are compiled, so that its logits are not written and read a dozen times. Compiled
    statistics have been run on a CPU only.

    Args:
        hidden_nd: final hidden states.
        head: the output layer.
        temperature: the sampling temperature, above 0.
    """
    dtype, width = product_dtype(hidden_nd), tile_width(hidden_nd.device)
    statistics = _compiled_statistics() if hidden_nd.device.type == "cuda" else tile_statistics
    partials = []
    with torch.autocast(hidden_nd.device.type, enabled=False):
        hidden_nd = hidden_nd.to(dtype)
        for start in range(0, len(head.weight_vd), width):
            logits_nk = hidden_nd @ head.weight_vd[start : start + width].to(dtype).T
            if head.bias_v is not None:
                logits_nk = logits_nk + head.bias_v[start : start + width].to(dtype)
            partials.append(statistics(logits_nk, head.scale, head.softcap, temperature))
    return merge_tiles(partials).entropy_n


def tile_statistics(
    logits_nk: Tensor, scale: float, softcap: float | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a tile z of the logits: max z, sum exp(z - max z) and sum (z - max z) exp(z - max z), each [n].

    Args:
        logits_nk: W h + bias.
        scale: see ``Head``.
        softcap: see ``Head``.
        temperature: divisor of the logits.
    """
    z_nk = logits_nk.to(torch.promote_types(logits_nk.dtype, torch.float32)) * scale
    if softcap is not None:
        z_nk = softcap * torch.tanh(z_nk / softcap)
    z_nk = z_nk / temperature
    top_n = z_nk.amax(dim=1)
    below_nk = z_nk - top_n[:, None]
    exps_nk = below_nk.exp()
    return top_n, exps_nk.sum(dim=1), (below_nk * exps_nk).sum(dim=1)


@cache
def _compiled_statistics() -> Any:
    return torch.compile(tile_statistics, dynamic=True)
