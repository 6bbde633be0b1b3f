"""Attention of one new token per row for grouped-query models, without one copy of the cache per query head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "rlx_grouped_decode"


def grouped_decode(
    module: nn.Module,
    query_bhtd: Tensor,
    key_bksd: Tensor,
    value_bksd: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention output [b, t, h, d], equal to transformers' ``sdpa`` implementation to rounding.

    With a mask, ``sdpa`` copies keys and values once per query head for every new token. Here the h / k query heads
    that share one key head are passed as h / k queries of that head. Only a decoding step (t = 1) is handled so.

    Args:
        module: the attention layer.
        query_bhtd: queries of h heads.
        key_bksd: keys of k heads for all s cached tokens.
        value_bksd: values, as the keys.
        attention_mask: boolean or additive [b, 1, t, s]; None if every cached token is visible.
        options: the further arguments of transformers' attention interface.
    """
    rows, heads, new, width = query_bhtd.shape
    groups = heads // key_bksd.shape[1]
    per_head = attention_mask is not None and attention_mask.shape[1] != 1
    if new > 1 or groups == 1 or per_head or options.get("dropout"):
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_bhtd, key_bksd, value_bksd, attention_mask, **options
        )
        return output
    query_bkgd = query_bhtd.reshape(rows, key_bksd.shape[1], groups, width)
    out_bkgd = scaled_dot_product_attention(
        query_bkgd, key_bksd, value_bksd, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return out_bkgd.reshape(rows, 1, heads, -1), None


@contextmanager
def grouped_decoding(lm: nn.Module) -> Iterator[None]:
    """Within this context a model whose attention implementation is ``sdpa`` decodes by ``grouped_decode``."""
    configs: dict[int, Any] = {id(module.config): module.config for module in lm.modules() if hasattr(module, "config")}
    changed = [config for config in configs.values() if getattr(config, "_attn_implementation", None) == "sdpa"]
    for config in changed:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config in changed:
            config._attn_implementation = "sdpa"


AttentionInterface.register(NAME, grouped_decode)
AttentionMaskInterface.register(NAME, sdpa_mask)
