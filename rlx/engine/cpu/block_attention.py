"""Attention over rows of one prompt with several responses, computed only for tokens that see each other."""

from __future__ import annotations

import torch
from torch import Tensor

from rlx.numerics.shared_rows import Block, Layout


def block_attention(
    query_bhsd: Tensor, key_bksd: Tensor, value_bksd: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """softmax(scaling Q K^T) V over the tokens that see each other, [b, s, h, d].

    A row of 7 responses of 128 tokens after a prompt of 54 has 900,000 pairs, of which the blocks contain 170,000. The
    time that this saves, and why the products are plain matrix products: experiments/perf/profile.md.

    Args:
        query_bhsd: queries of h heads.
        key_bksd: keys of k heads; h / k query heads share one.
        value_bksd: values, shaped as the keys.
        layout: the blocks of each row.
        scaling: factor of the scores; None is 1 / sqrt(d).
    """
    b, heads, s, d = query_bhsd.shape
    query_mhd, key_mkd, value_mkd = (x.transpose(1, 2).flatten(0, 1) for x in (query_bhsd, key_bksd, value_bksd))
    query_mhd = query_mhd * (d**-0.5 if scaling is None else scaling)
    outputs = [_attend(query_mhd, key_mkd, value_mkd, block) for block in layout.blocks]
    return torch.cat(outputs).index_select(0, layout.index_m).view(b, s, heads, value_bksd.shape[-1])


def _attend(query_mhd: Tensor, key_mkd: Tensor, value_mkd: Tensor, block: Block) -> Tensor:
    """Attention output of each query of a block [n q, h, d]."""
    n, q, k = block.sees_nqk.shape
    heads, d = query_mhd.shape[1:]
    kv_heads = key_mkd.shape[1]
    group = heads // kv_heads
    query = query_mhd.index_select(0, block.queries_nq.flatten()).view(n, q, kv_heads, group, d)
    key, value = (x.index_select(0, block.keys_nk.flatten()).view(n, k, *x.shape[1:]) for x in (key_mkd, value_mkd))
    scores = query.permute(0, 2, 3, 1, 4).flatten(2, 3) @ key.permute(0, 2, 3, 1)
    hidden = torch.zeros_like(block.sees_nqk, dtype=scores.dtype).masked_fill_(~block.sees_nqk, -torch.inf)
    scores = scores.view(n, kv_heads, group, q, k) + hidden[:, None, None]
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    output = weights.to(value.dtype).flatten(2, 3) @ value.transpose(1, 2)
    width = value.shape[-1]
    return output.view(n, kv_heads, group, q, width).permute(0, 3, 1, 2, 4).reshape(n * q, heads, width)
