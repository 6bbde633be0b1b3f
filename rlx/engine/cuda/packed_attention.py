"""Attention over a packed row (prompts and responses end to end), restricted to each sequence, by flex_attention.

What has run: mask, attention and (in a test) the compiled forward pass on a CPU. CUDA kernels and the compiled backward
pass have not been run.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from rlx.numerics.packed_row import BLOCK, PackedLayout

RECOMPILATIONS = 64
"""Largest number of compiled variants of flex_attention. torch's default of 8 could end a run: a variant is needed for
each type, for one block and for many, with and without gradients, for adapters on some of the projections."""


def packed_mask(layout: PackedLayout) -> BlockMask:
    """The layout as a mask [1, 1, s, s] of flex_attention, without a tensor of s x s elements.

    For s tokens it holds the layout's numbers per token and lists of (s / 128)^2 pairs of blocks.
    """

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return layout.sees(query, key)

    some, complete = layout.visible_blocks()
    partial_counts, partial_indices = _listed(some & ~complete)
    full_counts, full_indices = _listed(complete)
    return BlockMask.from_kv_blocks(
        partial_counts, partial_indices, full_counts, full_indices, BLOCK_SIZE=BLOCK, mask_mod=sees
    )


def packed_attention(
    query_bhsd: Tensor, key_bksd: Tensor, value_bksd: Tensor, mask: BlockMask, scaling: float | None
) -> Tensor:
    """softmax(scaling Q K^T) V over the tokens that see each other, [1, s, h, d].

    Under autocast it is computed in autocast's type, as ``scaled_dot_product_attention`` is. flex_attention has no
    backward pass on a CPU: there, with gradients, the same mask function is evaluated for all s x s pairs.

    Args:
        query_bhsd: queries of h heads.
        key_bksd: keys of k heads; h / k query heads share one.
        value_bksd: values, shaped as the keys.
        mask: the mask of ``packed_mask``.
        scaling: factor of the scores; None is 1 / sqrt(d).
    """
    device = query_bhsd.device.type
    inputs = query_bhsd, key_bksd, value_bksd
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        inputs = query_bhsd.to(dtype), key_bksd.to(dtype), value_bksd.to(dtype)
    grouped = query_bhsd.shape[1] != key_bksd.shape[1]
    with torch.autocast(device, enabled=False):
        if device == "cpu" and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            s = query_bhsd.shape[2]
            dense_11ss = create_mask(mask.mask_mod, 1, 1, s, s, device)
            output = scaled_dot_product_attention(*inputs, dense_11ss, scale=scaling, enable_gqa=grouped)
        else:
            attend = flex_attention if device == "cpu" else _compiled_flex_attention()
            output = attend(*inputs, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return output.transpose(1, 2).contiguous()


@cache
def _compiled_flex_attention() -> Any:
    """flex_attention as one compiled graph: it raises an error where it would otherwise run uncompiled, in s x s."""
    torch._dynamo.config.recompile_limit = max(RECOMPILATIONS, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, fullgraph=True)


def _listed(blocks_qk: Tensor) -> tuple[Tensor, Tensor]:
    """Number of True entries in each row [1, 1, q], and all columns with the True ones first [1, 1, q, k]."""
    marked = blocks_qk.int()
    columns = torch.argsort(marked, dim=1, descending=True, stable=True)
    return marked.sum(dim=1).int()[None, None], columns.int()[None, None]
