"""Attention over rows of one prompt with several responses, without the pairs of tokens that do not see each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlx.numerics.shared_rows import Block, Layout

NAME = "rlx_shared_prompts"
"""Under this name transformers knows it: https://huggingface.co/docs/transformers/attention_interface."""


def shared_prompts_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """softmax(scaling Q K^T) V among tokens that see each other; torch's own attention where rows hold one response.

    A row of 7 responses of 128 tokens behind a prompt of 54 has 900,000 pairs, of which its blocks hold 170,000. What
    that saves, and why plain products: experiments/perf/profile.md.

    Args:
        module: the attention layer.
        query: [b, heads, s, d].
        key: [b, kv_heads, s, d]; ``heads / kv_heads`` queries share one.
        value: as ``key``.
        attention_mask: for torch's attention.
        scaling: of the scores; 1 / sqrt(d) by default.
        dropout: of the weights, which only torch's attention does.
        layout: rows of several responses.
        others: what a model hands its attention beside these.

    Returns:
        [b, s, heads, d], and no weights.
    """
    if layout is None or not layout.blocks or dropout:
        read: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **others
        )
        return read
    b, heads, s, d = query.shape
    query_mhd, key_mhd, value_mhd = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    query_mhd = query_mhd * (d**-0.5 if scaling is None else scaling)
    found = [_attend(query_mhd, key_mhd, value_mhd, block) for block in layout.blocks]
    return torch.cat(found).index_select(0, layout.places_m).view(b, s, heads, value.shape[-1]), None


def _attend(query_mhd: Tensor, key_mhd: Tensor, value_mhd: Tensor, block: Block) -> Tensor:
    """What each query of a block reads [n q, heads, d]."""
    n, q, k = block.sees_nqk.shape
    heads, d = query_mhd.shape[1:]
    kv_heads = key_mhd.shape[1]
    group = heads // kv_heads
    query = query_mhd.index_select(0, block.queries_nq.flatten()).view(n, q, kv_heads, group, d)
    key, value = (x.index_select(0, block.keys_nk.flatten()).view(n, k, *x.shape[1:]) for x in (key_mhd, value_mhd))
    scores = query.permute(0, 2, 3, 1, 4).flatten(2, 3) @ key.permute(0, 2, 3, 1)
    hidden = torch.zeros_like(block.sees_nqk, dtype=scores.dtype).masked_fill_(~block.sees_nqk, -torch.inf)
    scores = scores.view(n, kv_heads, group, q, k) + hidden[:, None, None]
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    read = weights.to(value.dtype).flatten(2, 3) @ value.transpose(1, 2)
    width = value.shape[-1]
    return read.view(n, kv_heads, group, q, width).permute(0, 3, 1, 2, 4).reshape(n * q, heads, width)


AttentionInterface.register(NAME, shared_prompts_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
