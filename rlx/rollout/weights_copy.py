"""A copy of the trainer's weights in the compute type, for the transformers sampler."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rlx.engine.lora import LM, base_name, merged_weights


@torch.no_grad()
def copy_in(dtype: torch.dtype, lm: LM) -> LM:
    """A copy of a causal language model with its weights in ``dtype``, adapters merged and nothing trainable.

    Autocast would cast every weight again in each forward pass without gradients, which for one new token per row
    takes longer than the products. Weights that transformers keeps in float32 for this architecture stay float32.

    Args:
        dtype: type of the weights.
        lm: the model, with peft's adapters inside or not.
    """
    wide = tuple(getattr(lm, "_keep_in_fp32_modules", None) or ()) + tuple(
        getattr(lm, "_keep_in_fp32_modules_strict", None) or ()
    )
    weights = dict(merged_weights(lm))
    own: dict[int, nn.Parameter] = {}
    for name, parameter in lm.named_parameters():
        merged = weights.get(base_name(name))
        if merged is None:  # an adapter's
            own[id(parameter)] = nn.Parameter(parameter.new_empty(0), requires_grad=False)
            continue
        kept = not parameter.is_floating_point() or any(part in name.split(".") for part in wide)
        own[id(parameter)] = nn.Parameter(merged if kept else merged.to(dtype), requires_grad=False)
    # deepcopy takes an object's copy from the memo if it is there: no weight exists twice in float32.
    copied = copy.deepcopy(lm, own)
    for name, module in [*copied.named_modules()]:
        parent, _, child = name.rpartition(".")
        if hasattr(module, "get_delta_weight") and ".base_layer" not in name:
            setattr(copied.get_submodule(parent), child, module.get_base_layer())
    return copied.eval()
