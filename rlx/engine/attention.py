"""The attention implementations that rlx registers with transformers, and which of them a model gets.

transformers' interface: https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlx.engine.cpu.block_attention import block_attention
from rlx.engine.cuda.packed_attention import packed_attention
from rlx.numerics.shared_rows import Layout

GROUPED = "rlx_grouped"
"""``grouped_attention`` by its name in a model's configuration."""
SHARED_PROMPTS = "rlx_shared_prompts"
"""``shared_prompts_attention`` by its name in a model's configuration."""
PACKED = "rlx_packed"
"""``packed_rows_attention`` by its name in a model's configuration."""


def grouped_attention(
    module: nn.Module,
    query_bhtd: Tensor,
    key_bksd: Tensor,
    value_bksd: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention output [b, t, h, d], equal to transformers' ``sdpa`` implementation to rounding.

    With a mask, ``sdpa`` copies keys and values once per query head for every new token of a grouped-query model. Here
    the h / k query heads that share one key head are passed as h / k queries of that head, without a copy. Only a
    decoding step (t = 1) is computed this way.

    Args:
        module: the attention layer.
        query_bhtd: queries of h heads.
        key_bksd: keys of k heads for all s cached tokens.
        value_bksd: values, shaped as the keys.
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


def shared_prompts_attention(
    module: nn.Module,
    query_bhtd: Tensor,
    key_bksd: Tensor,
    value_bksd: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """``block_attention`` where rows hold several responses to one prompt, else ``grouped_attention``.

    Args:
        module: the attention layer.
        query_bhtd: queries of h heads.
        key_bksd: keys of k heads.
        value_bksd: values, shaped as the keys.
        attention_mask: used by ``grouped_attention`` only.
        layout: which tokens of each row see each other; None if every row holds one sequence.
        options: the further arguments of transformers' attention interface.
    """
    if layout is None or not layout.blocks or options.get("dropout"):
        return grouped_attention(module, query_bhtd, key_bksd, value_bksd, attention_mask, **options)
    return block_attention(query_bhtd, key_bksd, value_bksd, layout, options.get("scaling")), None


def packed_rows_attention(
    module: nn.Module,
    query_bhtd: Tensor,
    key_bksd: Tensor,
    value_bksd: Tensor,
    attention_mask: Tensor | BlockMask | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """``packed_attention`` in a packed row, else ``grouped_attention``.

    Args:
        module: the attention layer.
        query_bhtd: queries of h heads.
        key_bksd: keys of k heads.
        value_bksd: values, shaped as the keys.
        attention_mask: a ``BlockMask`` in a packed row; otherwise passed to ``grouped_attention``.
        options: the further arguments of transformers' attention interface.

    Raises:
        NotImplementedError: for dropout in a packed row.
    """
    if not isinstance(attention_mask, BlockMask):
        return grouped_attention(module, query_bhtd, key_bksd, value_bksd, attention_mask, **options)
    if options.get("dropout"):
        raise NotImplementedError("attention over packed rows has no dropout")
    return packed_attention(query_bhtd, key_bksd, value_bksd, attention_mask, options.get("scaling")), None


def use_attention(lm: nn.Module, name: str) -> None:
    """Set the attention implementation of every part of the model that uses ``sdpa``; leave other parts unchanged.

    A model that does not call its attention through transformers' interface (Falcon) is left unchanged too: it compares
    the name itself, and would drop its causal mask.
    """
    if not getattr(lm, "_supports_attention_backend", False):
        return
    for module in lm.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = name


AttentionInterface.register(GROUPED, grouped_attention)
AttentionInterface.register(SHARED_PROMPTS, shared_prompts_attention)
AttentionInterface.register(PACKED, packed_rows_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
AttentionMaskInterface.register(SHARED_PROMPTS, sdpa_mask)
AttentionMaskInterface.register(PACKED, sdpa_mask)
